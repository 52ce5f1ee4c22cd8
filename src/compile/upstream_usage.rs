//! Counts the routes and Ingresses that use each upstream.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::ObjectKey;
use crate::upstream::{UpstreamKey, UpstreamSource};

/// The used upstreams.
#[derive(Debug, Default)]
pub(super) struct UpstreamUsage {
    /// The number of routes and Ingresses that use each upstream; never 0.
    counts: BTreeMap<UpstreamKey, usize>,
}

impl UpstreamUsage {
    /// Replaces the upstreams of one route or Ingress. Adds those that become used or unused to `changed`.
    pub(super) fn replace(
        &mut self,
        before: &[UpstreamKey],
        after: &[UpstreamKey],
        changed: &mut BTreeSet<UpstreamKey>,
    ) {
        // Added first, so that an upstream that stays does not appear to become unused.
        for upstream in after {
            let count = self.counts.entry(upstream.clone()).or_insert_with(|| {
                changed.insert(upstream.clone());
                0
            });
            *count += 1;
        }
        for upstream in before {
            if let Some(count) = self.counts.get_mut(upstream) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(upstream);
                    changed.insert(upstream.clone());
                }
            }
        }
    }

    pub(super) fn is_used(&self, upstream: &UpstreamKey) -> bool {
        self.counts.contains_key(upstream)
    }

    pub(super) fn count(&self) -> usize {
        self.counts.len()
    }

    /// The used upstreams of the Service with this key.
    pub(super) fn of_service(&self, service: &ObjectKey) -> impl Iterator<Item = &UpstreamKey> {
        self.of_name(service).filter(|upstream| upstream.source == UpstreamSource::Service)
    }

    /// The used upstreams of the Service and of the XBackend with this key.
    pub(super) fn of_name(&self, key: &ObjectKey) -> impl Iterator<Item = &UpstreamKey> {
        let ObjectKey { namespace, name } = key.clone();
        let first = UpstreamKey { namespace: namespace.clone(), service: name.clone(), ..UpstreamKey::default() };
        let from_first = self.counts.range(first..).map(|(upstream, _)| upstream);
        from_first.take_while(move |upstream| upstream.namespace == namespace && upstream.service == name)
    }
}
