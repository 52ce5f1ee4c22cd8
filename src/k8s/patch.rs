//! Writes the status of an object, provided that it is still the one that was read.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::Observed;
use super::failure::{Failure, within};
use crate::api::ObjectId;

/// Who the API server is told has written.
pub(super) const FIELD_MANAGER: &str = "portico";

/// Reads and writes statuses.
///
/// A merge patch, since what is not mentioned stays as it is: fields of a newer release, and the spec, which a PUT would
/// have to repeat. It replaces lists as a whole, and `resourceVersion` makes it fail if anybody wrote in between. Apply
/// would not do: `parents` is one value for it, which two controllers cannot own.
#[derive(Clone)]
pub struct Statuses {
    client: watch::Receiver<Client>,
}

impl std::fmt::Debug for Statuses {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Statuses")
    }
}

impl Statuses {
    /// `client` has the one that is to be used now.
    pub fn new(client: watch::Receiver<Client>) -> Self {
        Statuses { client }
    }

    /// Replaces `before`, the status of that resource version, by `after`; gives the object as it is then.
    pub async fn write(
        &self,
        id: &ObjectId,
        api_version: &str,
        resource_version: &str,
        before: &Value,
        after: &Value,
    ) -> Result<Observed, Failure> {
        let patch = json!({
            "metadata": {"resourceVersion": resource_version},
            "status": difference(before, after),
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(path(id, api_version)).patch_subresource(
            "status",
            &id.key.name,
            &params,
            &Patch::Merge(patch),
        )?;
        within(PATIENCE, self.client().request::<Answer>(request)).await.map(Observed::from)
    }

    fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    /// The object as it is now.
    pub async fn read(&self, id: &ObjectId, api_version: &str) -> Result<Observed, Failure> {
        let request = Request::new(path(id, api_version)).get(&id.key.name, &GetParams::default())?;
        within(PATIENCE, self.client().request::<Answer>(request)).await.map(Observed::from)
    }
}

/// A status is a few kilobytes; an API server that takes longer has other worries.
const PATIENCE: Duration = Duration::from_secs(10);

/// The collection that the object is in.
fn path(id: &ObjectId, api_version: &str) -> String {
    let group = match id.kind.group() {
        "" => format!("/api/{api_version}"),
        group => format!("/apis/{group}/{api_version}"),
    };
    let namespace = match &*id.key.namespace {
        "" => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    format!("{group}{namespace}/{}", id.kind.plural())
}

/// What a merge patch has to say: fields that differ, and null for those that go.
fn difference(before: &Value, after: &Value) -> Map<String, Value> {
    let nothing = Map::new();
    let before = before.as_object().unwrap_or(&nothing);
    let after = after.as_object().unwrap_or(&nothing);
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    changed.map(|(key, value)| (key.clone(), value.clone())).chain(gone).collect()
}

/// As much of an object as is wanted back.
#[derive(Deserialize)]
struct Answer {
    metadata: Metadata,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: Arc<str>,
    resource_version: Arc<str>,
    #[serde(default)]
    generation: i64,
}

impl From<Answer> for Observed {
    fn from(answer: Answer) -> Self {
        let Metadata { uid, resource_version, generation } = answer.metadata;
        Observed { uid, resource_version, generation, status: Arc::new(answer.status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, ObjectKey};

    #[test]
    fn a_patch_says_what_differs_and_what_goes() {
        let before = json!({"conditions": [1], "addresses": ["a"], "other": {"x": null}, "listeners": []});
        let after = json!({"conditions": [1, 2], "other": {"x": null}, "listeners": []});
        let expected = json!({"conditions": [1, 2], "addresses": null});
        assert_eq!(Value::Object(difference(&before, &after)), expected);
        assert_eq!(Value::Object(difference(&Value::Null, &after)), after);
    }

    #[test]
    fn objects_have_their_paths() {
        for (kind, key, expected) in [
            (Kind::GatewayClass, ObjectKey::cluster("p"), "/apis/gateway.networking.k8s.io/v1/gatewayclasses"),
            (Kind::HttpRoute, ObjectKey::new("a", "b"), "/apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes"),
            (Kind::Service, ObjectKey::new("a", "b"), "/api/v1/namespaces/a/services"),
        ] {
            assert_eq!(path(&ObjectId::new(kind, key), "v1"), expected);
        }
    }
}
