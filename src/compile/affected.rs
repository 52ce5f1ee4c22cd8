//! Finds what a change can affect.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{Changes, Store};

/// Finds the objects that a change affects, including those that it affects through a reference that was removed.
#[derive(Debug, Default)]
pub(super) struct AffectedObjects {
    /// The Services to which each EndpointSlice and policy referred at the last call. They are kept because a deleted
    /// object no longer has its references.
    services_by_referrer: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
}

impl AffectedObjects {
    /// The changed objects and all objects that refer to them. Dependents of a Gateway are added later if its plan
    /// changed; a changed EndpointSlice affects its Service but not the routes to it.
    pub(super) fn find(&mut self, store: &Store, changes: &Changes) -> Changes {
        let mut touched = changes.clone();
        touched.extend(store.dependency_index().affected_by(changes));
        for (service, reason) in self.services(store, changes) {
            let id = ObjectId::new(Kind::Service, service);
            let index = store.dependency_index();
            match reason {
                // Of several policies for a Service, only one is in effect.
                ServiceChange::Endpoints => {
                    touched.extend(index.dependents_of_kind(&id, Kind::XBackendTrafficPolicy).cloned());
                }
                ServiceChange::Policy => touched.extend(index.dependents(&id).cloned()),
            }
            touched.insert(id);
        }
        touched
    }

    /// The Services that changed EndpointSlices and policies refer to now or referred to before.
    fn services(&mut self, store: &Store, changes: &Changes) -> BTreeMap<ObjectKey, ServiceChange> {
        let mut services: BTreeMap<ObjectKey, ServiceChange> = BTreeMap::new();
        // The authorities in an object are part of the policies that refer to it.
        let bundles = changes.iter().filter(|id| matches!(id.kind, Kind::ConfigMap | Kind::ClusterTrustBundle));
        let index = store.dependency_index();
        let policies = bundles.flat_map(|bundle| index.dependents_of_kind(bundle, Kind::BackendTlsPolicy));
        for id in changes.iter().chain(policies) {
            let reason = match id.kind {
                Kind::EndpointSlice => ServiceChange::Endpoints,
                // Its settings belong to the upstreams, so routes are not compiled again.
                Kind::XBackendTrafficPolicy => ServiceChange::Endpoints,
                Kind::BackendTlsPolicy => ServiceChange::Policy,
                _ => continue,
            };
            let mut services_now: BTreeSet<ObjectKey> = store.services_referenced_by(id).collect();
            if id.kind == Kind::BackendTlsPolicy
                && store.unparseable_policies.get(&id.key).is_some_and(|policy| policy.targets.is_none())
            {
                // The targets of the policy cannot be parsed, so it may target any Service of its namespace.
                services_now.extend(store.services.keys().filter(|key| key.namespace == id.key.namespace).cloned());
            }
            let services_before = self.services_by_referrer.remove(id).unwrap_or_default();
            for service in services_now.iter().chain(&services_before) {
                let strongest_reason = services.entry(service.clone()).or_insert(reason);
                *strongest_reason = (*strongest_reason).max(reason);
            }
            if !services_now.is_empty() {
                self.services_by_referrer.insert(id.clone(), services_now);
            }
        }
        services
    }
}

/// Why a Service is compiled again; `Policy`, the stronger reason, also affects the routes to it. `Endpoints` includes
/// the settings for requests to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ServiceChange {
    Endpoints,
    Policy,
}

pub(super) fn keys_of_kind(ids: &Changes, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
    ids.iter().filter(move |id| id.kind == kind).map(|id| &id.key)
}
