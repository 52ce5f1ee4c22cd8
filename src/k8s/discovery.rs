//! Which of our kinds the API server serves, in which version, and which release their CRDs are of.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use kube::{Client, Error};

use super::raw::Raw;
use super::watch::Sink;
use crate::api::kind::{GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP};
use crate::api::{Kind, ObjectKey};

/// The kinds that are read from an API server.
pub(super) fn watched() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied()
}

/// Kinds that can be listed and watched, each in the version that we like best of those that are served.
pub(super) async fn discover(client: &Client) -> Result<BTreeMap<Kind, &'static str>, Error> {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for kind in watched() {
        for version in kind.versions() {
            if !groups.contains(&(kind.group(), version)) {
                groups.push((kind.group(), version));
            }
        }
    }
    let asked = groups.iter().map(|(group, version)| resources(client, group, version));
    let served: BTreeMap<_, _> = groups.iter().copied().zip(try_join_all(asked).await?).collect();
    let version_of = |kind: Kind| {
        let serves = |version: &&&str| served[&(kind.group(), **version)].iter().any(|plural| plural == kind.plural());
        kind.versions().iter().find(serves).map(|version| (kind, *version))
    };
    Ok(watched().filter_map(version_of).collect())
}

/// The resources of one version of a group that can be watched; none if there is no such version.
async fn resources(client: &Client, group: &str, version: &str) -> Result<Vec<String>, Error> {
    let listed = if group.is_empty() {
        client.list_core_api_resources(version).await
    } else {
        client.list_api_group_resources(&format!("{group}/{version}")).await
    };
    match listed {
        Ok(list) => {
            let watched =
                |verbs: &[String]| ["list", "watch"].iter().all(|verb| verbs.iter().any(|known| known == verb));
            Ok(list.resources.into_iter().filter(|found| watched(&found.verbs)).map(|found| found.name).collect())
        }
        Err(Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The groups whose kinds are made by CRDs.
const OF_CRDS: [&str; 4] = [GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP];

/// What the CRDs of our groups say about themselves, by their names.
#[derive(Debug, Default)]
pub(super) struct Crds {
    marks: BTreeMap<String, Marks>,
    /// Nothing follows from what is not in `marks` before.
    listed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    bundle_version: Option<String>,
    channel: Option<String>,
}

impl Crds {
    /// How long a kind that was served and is not mentioned any more counts as served. One whose CRD is gone is gone. One
    /// whose CRD is there, or that every cluster has, is most likely one that an API server of several does not know yet,
    /// or that has just started; what was served of it must not be withdrawn for that.
    pub(super) fn doubt(&self, kind: Kind) -> Duration {
        let defined = OF_CRDS.contains(&kind.group());
        let name = format!("{}.{}", kind.plural(), kind.group());
        match (defined, self.listed) {
            (true, true) if !self.marks.contains_key(&name) => Duration::ZERO,
            (true, false) => DOUBT,
            (true, true) | (false, _) => LONG_DOUBT,
        }
    }

    /// Whether it is known which there are.
    pub(super) fn listed(&self) -> bool {
        self.listed
    }

    /// The release, if all CRDs of the Gateway API agree on one.
    pub(super) fn bundle_version(&self) -> Option<String> {
        agreed(self.of_gateway_api().map(|marks| &marks.bundle_version))
    }

    pub(super) fn channel(&self) -> Option<String> {
        agreed(self.of_gateway_api().map(|marks| &marks.channel))
    }

    /// The others are of no release that anybody asks for.
    fn of_gateway_api(&self) -> impl Iterator<Item = &Marks> {
        let is_of_gateway_api = |name: &str| {
            let group = name.split_once('.').map(|(_, group)| group);
            group.is_some_and(|group| [GATEWAY_GROUP, GATEWAY_X_GROUP].contains(&group))
        };
        self.marks.iter().filter(move |(name, _)| is_of_gateway_api(name)).map(|(_, marks)| marks)
    }
}

/// Where it is not known which CRDs there are.
const DOUBT: Duration = Duration::from_secs(30);
/// Longer than any upgrade of a control plane that goes well.
const LONG_DOUBT: Duration = Duration::from_secs(600);

/// The one value that all have.
fn agreed<'a>(mut values: impl Iterator<Item = &'a Option<String>>) -> Option<String> {
    let first = values.next()?.as_ref()?;
    values.all(|value| value.as_ref() == Some(first)).then(|| first.clone())
}

/// Where a watch of CRDs puts what concerns us; whoever waits for `Crds` is woken by each change of it.
#[derive(Clone)]
pub(super) struct CrdSink(pub(super) tokio::sync::watch::Sender<Crds>);

impl Sink<true> for CrdSink {
    type Item = (String, Marks);

    fn read(&self, raw: Raw<true>) -> Option<Self::Item> {
        let name = raw.key()?.name.to_string();
        let (_, group) = name.split_once('.')?;
        let annotation = |name: &str| raw.annotation(&format!("{GATEWAY_GROUP}/{name}")).map(str::to_owned);
        let marks = Marks { bundle_version: annotation("bundle-version"), channel: annotation("channel") };
        OF_CRDS.contains(&group).then_some((name, marks))
    }

    fn listed(&self, items: Vec<Self::Item>) {
        self.0.send_modify(|crds| *crds = Crds { marks: items.into_iter().collect(), listed: true });
    }

    fn applied(&self, (name, marks): Self::Item) {
        // Even if the marks are the same: that a version is served now shows nowhere else.
        self.0.send_modify(|crds| {
            crds.marks.insert(name, marks);
        });
    }

    fn deleted(&self, key: ObjectKey) {
        self.0.send_if_modified(|crds| crds.marks.remove(&*key.name).is_some());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn crd(name: &str, annotations: Value) -> Raw<true> {
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap()
    }

    #[test]
    fn the_release_is_what_all_crds_of_ours_agree_on() {
        let sink = CrdSink(tokio::sync::watch::Sender::default());
        let of = |version: &str| json!({"gateway.networking.k8s.io/bundle-version": version, "gateway.networking.k8s.io/channel": "standard"});
        assert_eq!(sink.0.borrow().doubt(Kind::Gateway), DOUBT, "nobody knows yet");
        assert!(sink.read(crd("crontabs.example.com", of("v1.7.0"))).is_none());
        let names = ["gateways.gateway.networking.k8s.io", "xmeshes.gateway.networking.x-k8s.io"];
        sink.listed(names.iter().filter_map(|name| sink.read(crd(name, of("v1.7.0")))).collect());
        let told = || (sink.0.borrow().bundle_version(), sink.0.borrow().channel());
        assert_eq!(told(), (Some("v1.7.0".to_owned()), Some("standard".to_owned())));
        let doubts = [Kind::Gateway, Kind::HttpRoute, Kind::XMesh, Kind::Service, Kind::KongPlugin]
            .map(|kind| sink.0.borrow().doubt(kind));
        assert_eq!(doubts, [LONG_DOUBT, Duration::ZERO, LONG_DOUBT, LONG_DOUBT, Duration::ZERO]);
        let plugins = sink.read(crd("kongplugins.configuration.konghq.com", json!({}))).unwrap();
        sink.applied(plugins);
        assert_eq!(sink.0.borrow().doubt(Kind::KongPlugin), LONG_DOUBT);
        assert_eq!(told().0.as_deref(), Some("v1.7.0"), "definitions of others do not disagree");
        sink.applied(sink.read(crd(names[1], of("v1.6.0"))).unwrap());
        assert_eq!(told(), (None, Some("standard".to_owned())));
        sink.deleted(ObjectKey::cluster(names[1]));
        assert_eq!(told().0.as_deref(), Some("v1.7.0"));
        sink.applied(sink.read(crd(names[0], json!({}))).unwrap());
        assert_eq!(told(), (None, None));
    }
}
