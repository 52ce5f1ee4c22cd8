//! Counts the routes and Ingresses that use each upstream.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::upstream::{UpstreamKey, UpstreamSource};

/// The used upstreams.
#[derive(Debug, Default)]
pub(in crate::compile) struct UpstreamUsage {
    /// The number of routes and Ingresses that use each upstream; never 0.
    counts: BTreeMap<UpstreamKey, usize>,
}

impl UpstreamUsage {
    /// Replaces the upstreams of one route or Ingress. Adds those that become used or unused to `changed`.
    pub(in crate::compile) fn replace(
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

    pub(in crate::compile) fn is_used(&self, upstream: &UpstreamKey) -> bool {
        self.counts.contains_key(upstream)
    }

    /// All used upstreams.
    pub(in crate::compile) fn all(&self) -> impl Iterator<Item = &UpstreamKey> {
        self.counts.keys()
    }

    pub(in crate::compile) fn count(&self) -> usize {
        self.counts.len()
    }

    /// The used upstreams of the Service with this key.
    pub(in crate::compile) fn of_service(&self, service: &ObjectKey) -> impl Iterator<Item = &UpstreamKey> {
        self.of_name(service).filter(|upstream| upstream.source == UpstreamSource::Service)
    }

    /// The used upstreams of the Service and of the XBackend with this key.
    pub(in crate::compile) fn of_name(&self, key: &ObjectKey) -> impl Iterator<Item = &UpstreamKey> {
        let ObjectKey { namespace, name } = key.clone();
        let first = UpstreamKey { namespace: namespace.clone(), service: name.clone(), ..UpstreamKey::default() };
        let from_first = self.counts.range(first..).map(|(upstream, _)| upstream);
        from_first.take_while(move |upstream| upstream.namespace == namespace && upstream.service == name)
    }
}

/// The Service or XBackend whose endpoints an upstream has.
pub fn upstream_object(upstream: &UpstreamKey) -> ObjectId {
    let kind = match upstream.source {
        UpstreamSource::Service => Kind::Service,
        UpstreamSource::XBackend => Kind::XBackend,
    };
    ObjectId::new(kind, ObjectKey { namespace: upstream.namespace.clone(), name: upstream.service.clone() })
}
