//! Discovers which kinds the API server serves, in which version, and the release of their CRDs.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use kube::{Client, Error};

use super::raw::RawObject;
use super::watch::WatchSink;
use crate::api::kind::{GATEWAY_GROUP, GATEWAY_X_GROUP, KindFamily};
use crate::api::{Kind, ObjectKey};

/// The kinds that are read from an API server.
pub(super) fn watched_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied()
}

/// Kinds that can be listed and watched, each in the most preferred of the served versions.
pub(super) async fn discover(client: &Client) -> Result<BTreeMap<Kind, &'static str>, Error> {
    let mut group_versions: Vec<(&str, &str)> = Vec::new();
    for kind in watched_kinds() {
        for version in kind.versions() {
            if !group_versions.contains(&(kind.group(), version)) {
                group_versions.push((kind.group(), version));
            }
        }
    }
    let requests = group_versions.iter().map(|(group, version)| resources(client, group, version));
    let served: BTreeMap<_, _> = group_versions.iter().copied().zip(try_join_all(requests).await?).collect();
    let version_of = |kind: Kind| {
        let serves = |version: &&&str| served[&(kind.group(), **version)].iter().any(|plural| plural == kind.plural());
        kind.versions().iter().find(serves).map(|version| (kind, *version))
    };
    Ok(watched_kinds().filter_map(version_of).collect())
}

/// The resources of one version of a group that can be watched; empty if the version does not exist.
async fn resources(client: &Client, group: &str, version: &str) -> Result<Vec<String>, Error> {
    let listed = if group.is_empty() {
        client.list_core_api_resources(version).await
    } else {
        client.list_api_group_resources(&format!("{group}/{version}")).await
    };
    match listed {
        Ok(list) => {
            let is_watchable =
                |verbs: &[String]| ["list", "watch"].iter().all(|needed| verbs.iter().any(|verb| verb == needed));
            let watchable = list.resources.into_iter().filter(|resource| is_watchable(&resource.verbs));
            Ok(watchable.map(|resource| resource.name).collect())
        }
        Err(Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether CRDs define the kinds of a group.
fn is_crd_group(group: &str) -> bool {
    Kind::ALL.iter().any(|kind| kind.family() != KindFamily::Kubernetes && kind.group() == group)
}

/// The CRDs of the groups of Portico's kinds.
#[derive(Debug, Default)]
pub(super) struct Crds {
    /// By name of the CRD.
    releases: BTreeMap<String, CrdRelease>,
    /// Until this is true, CRDs that are missing from `releases` may exist.
    listed: bool,
}

/// The annotations of a CRD that name its release of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CrdRelease {
    bundle_version: Option<String>,
    channel: Option<String>,
}

impl Crds {
    /// How long a kind still counts as served after it disappears from discovery: not at all if its CRD is gone. If its
    /// CRD exists, or the kind is built in, most likely one replica of the API server does not know it yet or has just
    /// started.
    pub(super) fn removal_grace(&self, kind: Kind) -> Duration {
        let has_crd = kind.family() != KindFamily::Kubernetes;
        let name = format!("{}.{}", kind.plural(), kind.group());
        match (has_crd, self.listed) {
            (true, true) if !self.releases.contains_key(&name) => Duration::ZERO,
            (true, false) => GRACE_BEFORE_LIST,
            (true, true) | (false, _) => REMOVAL_GRACE,
        }
    }

    /// Whether the CRDs were listed.
    pub(super) fn listed(&self) -> bool {
        self.listed
    }

    /// The release, if all CRDs of the Gateway API agree on one.
    pub(super) fn bundle_version(&self) -> Option<String> {
        common_value(self.gateway_api_releases().map(|release| &release.bundle_version))
    }

    /// The channel, if all CRDs of the Gateway API agree on one.
    pub(super) fn channel(&self) -> Option<String> {
        common_value(self.gateway_api_releases().map(|release| &release.channel))
    }

    /// CRDs of other groups are not part of a Gateway API release.
    fn gateway_api_releases(&self) -> impl Iterator<Item = &CrdRelease> {
        let is_of_gateway_api = |name: &str| {
            let group = name.split_once('.').map(|(_, group)| group);
            group.is_some_and(|group| [GATEWAY_GROUP, GATEWAY_X_GROUP].contains(&group))
        };
        self.releases.iter().filter(move |(name, _)| is_of_gateway_api(name)).map(|(_, release)| release)
    }
}

/// How long a kind that a CRD defines still counts as served while CRDs have not been listed.
const GRACE_BEFORE_LIST: Duration = Duration::from_secs(30);
/// How long any other missing kind still counts as served: longer than a normal upgrade of a control plane.
const REMOVAL_GRACE: Duration = Duration::from_secs(600);

/// The value that all have in common; None if one has another value or none.
fn common_value<'a>(mut values: impl Iterator<Item = &'a Option<String>>) -> Option<String> {
    let first = values.next()?.as_ref()?;
    values.all(|value| value.as_ref() == Some(first)).then(|| first.clone())
}

/// The sink of the watch of CRDs, which keeps those of Portico's kinds. Each change notifies the receivers.
#[derive(Clone)]
pub(super) struct CrdSink(pub(super) tokio::sync::watch::Sender<Crds>);

impl WatchSink<true> for CrdSink {
    type Item = (String, CrdRelease);

    fn read(&self, raw: RawObject<true>) -> Option<Self::Item> {
        let name = raw.key()?.name.to_string();
        let (_, group) = name.split_once('.')?;
        let annotation = |name: &str| raw.annotation(&format!("{GATEWAY_GROUP}/{name}")).map(str::to_owned);
        let release = CrdRelease { bundle_version: annotation("bundle-version"), channel: annotation("channel") };
        is_crd_group(group).then_some((name, release))
    }

    fn listed(&self, items: Vec<Self::Item>) {
        self.0.send_modify(|crds| *crds = Crds { releases: items.into_iter().collect(), listed: true });
    }

    fn applied(&self, (name, release): Self::Item) {
        // Notifies even if the release is unchanged, because nothing else shows that another version of the kind is
        // served now.
        self.0.send_modify(|crds| {
            crds.releases.insert(name, release);
        });
    }

    fn deleted(&self, key: ObjectKey) {
        self.0.send_if_modified(|crds| crds.releases.remove(&*key.name).is_some());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn crd(name: &str, annotations: Value) -> RawObject<true> {
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap()
    }

    #[test]
    fn release_is_what_all_gateway_api_crds_agree_on() {
        let sink = CrdSink(tokio::sync::watch::Sender::default());
        let annotations = |version: &str| {
            json!({
                "gateway.networking.k8s.io/bundle-version": version,
                "gateway.networking.k8s.io/channel": "standard",
            })
        };
        assert_eq!(sink.0.borrow().removal_grace(Kind::Gateway), GRACE_BEFORE_LIST, "CRDs were not listed yet");
        assert!(sink.read(crd("crontabs.example.com", annotations("v1.7.0"))).is_none());
        let names = ["gateways.gateway.networking.k8s.io", "xmeshes.gateway.networking.x-k8s.io"];
        sink.listed(names.iter().filter_map(|name| sink.read(crd(name, annotations("v1.7.0")))).collect());
        let release = || (sink.0.borrow().bundle_version(), sink.0.borrow().channel());
        assert_eq!(release(), (Some("v1.7.0".to_owned()), Some("standard".to_owned())));
        let graces = [Kind::Gateway, Kind::HttpRoute, Kind::XMesh, Kind::Service, Kind::KongPlugin]
            .map(|kind| sink.0.borrow().removal_grace(kind));
        assert_eq!(graces, [REMOVAL_GRACE, Duration::ZERO, REMOVAL_GRACE, REMOVAL_GRACE, Duration::ZERO]);
        let plugins = sink.read(crd("kongplugins.configuration.konghq.com", json!({}))).unwrap();
        sink.applied(plugins);
        assert_eq!(sink.0.borrow().removal_grace(Kind::KongPlugin), REMOVAL_GRACE);
        assert_eq!(release().0.as_deref(), Some("v1.7.0"), "CRDs of other groups do not count");
        sink.applied(sink.read(crd(names[1], annotations("v1.6.0"))).unwrap());
        assert_eq!(release(), (None, Some("standard".to_owned())));
        sink.deleted(ObjectKey::cluster(names[1]));
        assert_eq!(release().0.as_deref(), Some("v1.7.0"));
        sink.applied(sink.read(crd(names[0], json!({}))).unwrap());
        assert_eq!(release(), (None, None));
    }
}
