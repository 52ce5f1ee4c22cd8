//! How the gateway chooses among the endpoints of a backend, and what has set that, from the view of policies.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admin_client::{AdminClient, AdminError};

/// The load balancing and the sessions of a backend, as far as something has set them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendBalancing {
    /// `Maglev by the hash of header x-user`
    pub algorithm: String,
    /// `BackendPolicy default/shop`; `None` for the default.
    pub algorithm_source: Option<String>,
    /// `cookie session`
    pub sessions: Option<String>,
    pub sessions_source: Option<String>,
}

/// The settings of all backends of the gateway.
pub(super) struct ServedBalancing(Vec<ShownBackend>);

#[derive(Deserialize)]
struct ShownBackend {
    name: String,
    blocks: ShownBlocks,
}

#[derive(Deserialize)]
struct ShownBlocks {
    #[serde(rename = "loadBalancing")]
    balancing: Option<ShownBlock>,
    #[serde(rename = "loadBalancing.sessionPersistence")]
    sessions: Option<ShownBlock>,
}

#[derive(Deserialize)]
struct ShownBlock {
    source: Option<String>,
    setting: Value,
}

impl ServedBalancing {
    pub(super) async fn read(admin: &mut AdminClient) -> Result<Self, AdminError> {
        admin.view("policies").await.map(ServedBalancing)
    }

    /// `None` if the gateway has no such backend, or if nothing has set how its endpoints are chosen.
    pub(super) fn of_backend(&self, name: &str) -> Option<BackendBalancing> {
        let ShownBlocks { balancing, sessions } = &self.0.iter().find(|settings| settings.name == name)?.blocks;
        let balancing = balancing.as_ref()?;
        if balancing.source.is_none() && sessions.is_none() {
            return None;
        }
        Some(BackendBalancing {
            algorithm: algorithm(&balancing.setting),
            algorithm_source: balancing.source.clone(),
            sessions: sessions.as_ref().map(|block| session(&block.setting)),
            sessions_source: sessions.as_ref().and_then(|block| block.source.clone()),
        })
    }
}

impl BackendBalancing {
    /// `Maglev by the hash of header x-user (BackendPolicy default/shop), unless cookie session has an endpoint (…)`
    pub(super) fn description(&self) -> String {
        let source = |source: &Option<String>| source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        let sessions = self
            .sessions
            .as_ref()
            .map(|sessions| format!(", unless {sessions} has an endpoint{}", source(&self.sessions_source)));
        format!("{}{}{}", self.algorithm, source(&self.algorithm_source), sessions.unwrap_or_default())
    }
}

/// The algorithm, and what of a request it depends on.
fn algorithm(setting: &Value) -> String {
    let name = setting["algorithm"].as_str().unwrap_or_default();
    let hash = &setting["hash"];
    let keys: Vec<String> = hash["keys"].as_array().into_iter().flatten().map(key).collect();
    match (&*keys, hash["combine"].as_str()) {
        ([], _) => name.to_owned(),
        ([only], _) => format!("{name} by the hash of {only}"),
        (keys, Some("All")) => format!("{name} by the hash of {}", keys.join(" and ")),
        (keys, _) => format!("{name} by the hash of {}", keys.join(", or else ")),
    }
}

/// `header x-user`, or `ClientIP`.
fn key(key: &Value) -> String {
    let source = key["source"].as_str().unwrap_or_default();
    let name = key["name"].as_str().map(|name| format!("{} {name}", source.to_lowercase()));
    name.unwrap_or_else(|| source.to_owned())
}

fn session(setting: &Value) -> String {
    let text = |field: &str| setting[field].as_str().unwrap_or_default();
    format!("{} {}", text("type").to_lowercase(), text("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_of_backends_are_described() {
        let key = |source: &str, name: &str| json!({"source": source, "name": name});
        let maglev = |combine: &str, keys: Value| {
            json!({
                "source": "BackendPolicy default/shop",
                "setting": {"algorithm": "Maglev", "hash": {"combine": combine, "keys": keys}},
            })
        };
        let plain = json!({"source": null, "setting": {"algorithm": "RoundRobin"}});
        let session = json!({"source": "XBackend default/x", "setting": {"type": "Cookie", "name": "session"}});
        for (blocks, expected) in [
            (json!({"loadBalancing": plain}), None),
            (
                json!({"loadBalancing": maglev("First", json!([key("Header", "x-user"), {"source": "ClientIP"}]))}),
                Some("Maglev by the hash of header x-user, or else ClientIP (BackendPolicy default/shop)"),
            ),
            (
                json!({"loadBalancing": maglev("All", json!([{"source": "Host"}, {"source": "Path"}]))}),
                Some("Maglev by the hash of Host and Path (BackendPolicy default/shop)"),
            ),
            (
                json!({"loadBalancing": plain, "loadBalancing.sessionPersistence": session}),
                Some("RoundRobin, unless cookie session has an endpoint (XBackend default/x)"),
            ),
        ] {
            let view = json!([{"name": "default/shop:80", "blocks": blocks}]);
            let served = ServedBalancing(serde_json::from_value(view).unwrap());
            let balancing = served.of_backend("default/shop:80");
            assert_eq!(balancing.map(|balancing| balancing.description()).as_deref(), expected);
            assert_eq!(served.of_backend("default/other:80"), None);
        }
    }
}
