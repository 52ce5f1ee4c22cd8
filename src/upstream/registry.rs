//! All upstreams by identity, so that a new snapshot finds those of the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Upstream, UpstreamKey};

/// All upstreams by identity.
#[derive(Debug, Default)]
pub struct Registry {
    upstreams: Mutex<BTreeMap<UpstreamKey, Arc<Upstream>>>,
}

impl Registry {
    /// The upstream of this identity, made if there is none yet.
    pub fn upstream(&self, key: &UpstreamKey) -> Arc<Upstream> {
        let mut upstreams = self.upstreams.lock();
        upstreams.entry(key.clone()).or_insert_with(|| Arc::new(Upstream::new(key.clone()))).clone()
    }

    /// Every upstream now, in the order of their keys.
    pub fn all(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.lock().values().cloned().collect()
    }

    /// Forgets what no snapshot uses any more. Requests in flight keep what they hold.
    pub fn retain(&self, used: &BTreeSet<UpstreamKey>) {
        self.upstreams.lock().retain(|key, _| used.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_stays_the_same_while_it_is_used() {
        let key = |port| UpstreamKey { namespace: "ns".into(), service: "web".into(), port, ..UpstreamKey::default() };
        let registry = Registry::default();
        let first = registry.upstream(&key(80));
        registry.upstream(&key(81));
        assert!(Arc::ptr_eq(&first, &registry.upstream(&key(80))));
        registry.retain(&BTreeSet::from([key(81)]));
        assert_eq!(registry.all().len(), 1);
        assert!(!Arc::ptr_eq(&first, &registry.upstream(&key(80))));
    }
}
