//! The sessions with the endpoints of an upstream, which rules and the policy of its Service keep.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Upstream;
use crate::upstream::affinity::{AffinityEndpoints, AffinitySettings, EndpointKeys, KeyedEndpoints};

impl Upstream {
    /// The sessions of rules without sessions of their own.
    pub fn affinity_settings(&self) -> Option<Arc<AffinitySettings>> {
        // Requests to Services without sessions do not pay for reading the settings.
        if self.keeps_affinity.load(Relaxed) { self.affinity.load_full() } else { None }
    }

    /// Called when a rule keeps sessions with the endpoints, or with those of an alternative. Rules without sessions do
    /// not pay for the hashes.
    pub fn keep_affinity(&self) {
        self.keep_own_affinity();
        if let Some(alternatives) = self.alternatives() {
            alternatives.all().for_each(|other| other.keep_own_affinity());
        }
    }

    pub(super) fn keep_own_affinity(&self) {
        if !self.keeps_affinity.swap(true, Relaxed) {
            let _resolved = self.resolved.lock();
            self.publish_affinity_endpoints();
        }
    }

    /// Called when a rule keeps sessions with the endpoints, or with those of an alternative, by keys.
    pub fn keep_keyed_sessions(&self, keys: &EndpointKeys) {
        if self.keep_own_keyed_sessions(keys)
            && let Some(alternatives) = self.alternatives()
        {
            let keys = EndpointKeys { assignment: keys.assignment, names: Box::default() };
            alternatives.all().for_each(|other| {
                other.keep_own_keyed_sessions(&keys);
            });
        }
    }

    /// Returns whether no rule had these keys before.
    pub(super) fn keep_own_keyed_sessions(&self, keys: &EndpointKeys) -> bool {
        let _resolved = self.resolved.lock();
        if self.keyed_endpoints(keys).is_some() {
            return false;
        }
        let added = KeyedEndpoints::new(&self.key, keys, &self.reachable.load());
        let mut all = Vec::clone(&self.keyed_endpoints.load());
        all.push(Arc::new(added));
        self.keyed_endpoints.store(Arc::new(all));
        true
    }

    /// The endpoints as these keys name them. `None` if no rule has them.
    pub(in crate::upstream) fn keyed_endpoints(&self, keys: &EndpointKeys) -> Option<Arc<KeyedEndpoints>> {
        self.keyed_endpoints.load().iter().find(|known| known.is_of(keys, &self.key)).cloned()
    }

    /// The endpoints as sessions name them. `None` if no sessions are kept.
    pub(in crate::upstream) fn affinity_endpoints(&self) -> Option<Arc<AffinityEndpoints>> {
        self.affinity_endpoints.load_full()
    }
}
