//! Finds what a change can affect.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{Changes, Store};

/// Finds the objects that a change affects, including those that it affects through a reference that was removed.
#[derive(Debug, Default)]
pub(super) struct AffectedObjects {
    /// The Services, XBackends and facades to which each EndpointSlice and policy referred at the last call. They are
    /// kept because a deleted object no longer has its references.
    backends_by_referrer: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// The backends of the last call of which nothing changed but endpoints, and settings of upstreams.
    endpoints_changed: BTreeSet<ObjectId>,
}

impl AffectedObjects {
    /// The changed objects and all objects that refer to them. Dependents of a Gateway are added later if its plan
    /// changed; a changed EndpointSlice affects its Service but not the routes to it. `policies`: their kinds, and
    /// what a change of each affects.
    pub(super) fn find(&mut self, store: &Store, changes: &Changes, policies: &[(Kind, BackendChange)]) -> Changes {
        let mut touched = changes.clone();
        touched.extend(store.dependency_index().affected_by(changes));
        self.endpoints_changed.clear();
        for (id, reason) in self.backends(store, changes, policies) {
            let index = store.dependency_index();
            match reason {
                // Of several policies for a Service, only one is in effect.
                BackendChange::Endpoints => {
                    for (kind, _) in policies.iter().filter(|(_, change)| *change == reason) {
                        touched.extend(index.dependents_of_kind(&id, *kind).cloned());
                    }
                }
                BackendChange::Policy => touched.extend(index.dependents(&id).cloned()),
            }
            if touched.insert(id.clone()) && reason == BackendChange::Endpoints {
                self.endpoints_changed.insert(id);
            }
        }
        touch_targets(store, &mut touched);
        touched
    }

    /// The backends that [`AffectedObjects::find`] returned last, of which only the endpoints or the settings of
    /// upstreams changed.
    pub(super) fn endpoints_changed(&self) -> &BTreeSet<ObjectId> {
        &self.endpoints_changed
    }

    /// The Services, XBackends and facades that changed EndpointSlices and policies refer to now or referred to before.
    fn backends(
        &mut self,
        store: &Store,
        changes: &Changes,
        policies: &[(Kind, BackendChange)],
    ) -> BTreeMap<ObjectId, BackendChange> {
        let mut backends: BTreeMap<ObjectId, BackendChange> = BTreeMap::new();
        // The authorities in an object are part of the policies that refer to it.
        let bundles = changes.iter().filter(|id| matches!(id.kind, Kind::ConfigMap | Kind::ClusterTrustBundle));
        let index = store.dependency_index();
        let with_bundles = bundles.flat_map(|bundle| index.dependents_of_kind(bundle, Kind::BackendTlsPolicy));
        for id in changes.iter().chain(with_bundles) {
            let of_policy = policies.iter().find(|(kind, _)| *kind == id.kind).map(|(_, change)| *change);
            let of_slice = (id.kind == Kind::EndpointSlice).then_some(BackendChange::Endpoints);
            let Some(reason) = of_policy.or(of_slice) else { continue };
            let mut backends_now: BTreeSet<ObjectId> = store.objects_referenced_by(id).filter(is_backend).collect();
            if id.kind == Kind::BackendTlsPolicy
                && store.unparseable.get(id).is_some_and(|policy| policy.targets.is_none())
            {
                // The targets of the policy cannot be parsed, so it may target any Service of its namespace.
                let of_namespace = store.services.keys().filter(|key| key.namespace == id.key.namespace).cloned();
                backends_now.extend(of_namespace.map(|key| ObjectId::new(Kind::Service, key)));
            }
            let backends_before = self.backends_by_referrer.remove(id).unwrap_or_default();
            for backend in backends_now.iter().chain(&backends_before) {
                let strongest_reason = backends.entry(backend.clone()).or_insert(reason);
                *strongest_reason = (*strongest_reason).max(reason);
            }
            if !backends_now.is_empty() {
                self.backends_by_referrer.insert(id.clone(), backends_now);
            }
        }
        backends
    }
}

/// Adds the targets of touched BackendPolicies with references to other backends: where these lead depends on the
/// other backends, on grants, and on the policies of the other backends.
fn touch_targets(store: &Store, touched: &mut Changes) {
    let has_references = |id: &ObjectId| {
        let policy = store.backend_policies.get(&id.key).filter(|_| id.kind == Kind::BackendPolicy);
        policy.is_some_and(|policy| policy.spec.alternatives().next().is_some())
    };
    if store.backend_policies.is_empty() {
        return;
    }
    let index = store.dependency_index();
    let mut pending: Vec<ObjectId> = touched.iter().filter(|id| has_references(id)).cloned().collect();
    while let Some(policy) = pending.pop() {
        for backend in store.objects_referenced_by(&policy).filter(is_backend) {
            if !touched.insert(backend.clone()) {
                continue;
            }
            for other in index.dependents_of_kind(&backend, Kind::BackendPolicy) {
                if touched.insert(other.clone()) && has_references(other) {
                    pending.push(other.clone());
                }
            }
        }
    }
}

fn is_backend(id: &ObjectId) -> bool {
    matches!(id.kind, Kind::Service | Kind::XBackend | Kind::FACADE)
}

/// Why a Service, XBackend or facade is compiled again; `Policy`, the stronger reason, also affects the routes to it.
/// `Endpoints` includes the settings for requests to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BackendChange {
    Endpoints,
    Policy,
}

pub(super) fn keys_of_kind(ids: &Changes, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
    ids.iter().filter(move |id| id.kind == kind).map(|id| &id.key)
}
