//! The host names in the endpoints of upstreams, which DNS resolves. Only changed upstreams are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::upstream::dns::UsingNamespaces;
use crate::upstream::{Upstream, UpstreamKey};

/// The host names of all upstreams that have any.
#[derive(Debug, Default)]
pub(super) struct EndpointNames {
    by_upstream: BTreeMap<UpstreamKey, Vec<Arc<str>>>,
    changes: EndpointNameChanges,
    /// Whether a name was added or removed since the last `take_changes`.
    have_names_changed: bool,
}

/// What changed since the last call.
#[derive(Debug, Default)]
pub(super) struct EndpointNameChanges {
    /// All names with the namespaces of their upstreams, if one was added or removed.
    pub(super) names: Option<BTreeMap<Arc<str>, UsingNamespaces>>,
    /// Upstreams with names whose endpoints were set.
    pub(super) upstreams: Vec<Arc<Upstream>>,
}

impl EndpointNames {
    /// Reads the names of an upstream whose endpoints were set.
    pub(super) fn set(&mut self, key: &UpstreamKey, upstream: Arc<Upstream>) {
        let names = upstream.names();
        if names.is_empty() {
            self.have_names_changed |= self.by_upstream.remove(key).is_some();
            return;
        }
        self.changes.upstreams.push(upstream);
        if self.by_upstream.get(key) != Some(&names) {
            self.by_upstream.insert(key.clone(), names);
            self.have_names_changed = true;
        }
    }

    /// Drops the names of unused upstreams.
    pub(super) fn remove(&mut self, unused: &[UpstreamKey]) {
        for key in unused {
            self.have_names_changed |= self.by_upstream.remove(key).is_some();
        }
    }

    pub(super) fn take_changes(&mut self) -> EndpointNameChanges {
        let mut changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.have_names_changed) {
            let mut all: BTreeMap<Arc<str>, UsingNamespaces> = BTreeMap::new();
            for (key, names) in &self.by_upstream {
                for name in names {
                    all.entry(Arc::clone(name)).or_default().insert(Arc::clone(&key.namespace));
                }
            }
            changes.names = Some(all);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{EndpointAddress, Endpoints, UpstreamRegistry};

    #[test]
    fn names_are_those_of_used_upstreams() {
        let registry = UpstreamRegistry::default();
        let mut names = EndpointNames::default();
        let key = |service: &str| UpstreamKey { service: service.into(), ..UpstreamKey::default() };
        let set = |names: &mut EndpointNames, service: &str, hosts: &[&str]| {
            let address = |host: &&str| EndpointAddress::Name { host: Arc::from(*host), port: 80 };
            let upstream = registry.upstream(&key(service));
            let addresses = hosts.iter().map(address).collect();
            upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
            names.set(&key(service), upstream);
            let EndpointNameChanges { names, upstreams } = names.take_changes();
            (names.map(|names| names.keys().map(ToString::to_string).collect::<Vec<_>>()), upstreams.len())
        };
        let all = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(set(&mut names, "ip", &[]), (None, 0));
        assert_eq!(set(&mut names, "a", &["x.example"]), (all(&["x.example"]), 1));
        assert_eq!(set(&mut names, "b", &["x.example", "y.example"]), (all(&["x.example", "y.example"]), 1));
        assert_eq!(set(&mut names, "b", &["x.example", "y.example"]), (None, 1), "its addresses are set again");
        names.remove(&[key("b"), key("unknown")]);
        assert_eq!(names.take_changes().names.map(|names| names.len()), Some(1));
        assert_eq!(set(&mut names, "a", &[]), (all(&[]), 0));
    }

    #[test]
    fn names_have_the_namespaces_of_their_upstreams() {
        let registry = UpstreamRegistry::default();
        let mut names = EndpointNames::default();
        let key = |namespace: &str| UpstreamKey { namespace: namespace.into(), ..UpstreamKey::default() };
        let set = |names: &mut EndpointNames, namespace: &str, hosts: &[&str]| {
            let address = |host: &&str| EndpointAddress::Name { host: Arc::from(*host), port: 80 };
            let upstream = registry.upstream(&key(namespace));
            let addresses = hosts.iter().map(address).collect();
            upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
            names.set(&key(namespace), upstream);
        };
        let all = |names: &mut EndpointNames| {
            let line = |(name, namespaces): (&Arc<str>, &UsingNamespaces)| format!("{name}: {namespaces:?}");
            names.take_changes().names.unwrap_or_default().iter().map(line).collect::<Vec<_>>()
        };
        set(&mut names, "a", &["x.example", "y.example"]);
        set(&mut names, "b", &["x.example"]);
        assert_eq!(all(&mut names), [r#"x.example: {"a", "b"}"#, r#"y.example: {"a"}"#]);
        // The name stays, for another namespace.
        set(&mut names, "a", &["y.example"]);
        assert_eq!(all(&mut names), [r#"x.example: {"b"}"#, r#"y.example: {"a"}"#]);
        names.remove(&[key("a")]);
        assert_eq!(all(&mut names), [r#"x.example: {"b"}"#]);
    }
}
