//! Detects Services of one rule of a route that refer to different KongUpstreamPolicies.
//!
//! Kong has one upstream for all backends of a rule, so none of these policies applies to the rule
//! (docs/kong-compatibility.md, 1.7).

use std::collections::{BTreeMap, BTreeSet};

use super::upstream_policy;
use crate::api::kong::annotations::UPSTREAM_POLICY;
use crate::api::{ObjectId, ObjectKey};
use crate::compile::backend::reference;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::reference_grants::Referrer;
use crate::compile::objects::request_route::RequestRoute;
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// The Services with conflicting policies, by the routes that combine them.
#[derive(Debug, Default)]
pub(in crate::compile) struct PolicyConflicts {
    /// Per Service: each route that combines it with a Service of another policy, and that Service.
    services: BTreeMap<ObjectKey, BTreeMap<ObjectId, ObjectKey>>,
    /// Per route: the Services with conflicting policies.
    routes: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
}

impl PolicyConflicts {
    /// Updates a route; `None` if it was deleted or is not attached. Returns the Services whose verdict may change.
    pub(in crate::compile) fn update_route(
        &mut self,
        store: &Store,
        id: &ObjectId,
        route: Option<&RequestRoute<'_>>,
    ) -> BTreeSet<ObjectKey> {
        let conflicting = route.map(|route| conflicting_services(store, route)).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for service in self.routes.remove(id).unwrap_or_default() {
            let Some(routes) = self.services.get_mut(&service) else { continue };
            if routes.get(id) == conflicting.get(&service) {
                continue;
            }
            routes.remove(id);
            if routes.is_empty() {
                self.services.remove(&service);
            }
            changed.insert(service);
        }
        if !conflicting.is_empty() {
            self.routes.insert(id.clone(), conflicting.keys().cloned().collect());
        }
        for (service, other) in conflicting {
            let before = self.services.entry(service.clone()).or_default().insert(id.clone(), other.clone());
            if before != Some(other) {
                changed.insert(service);
            }
        }
        changed
    }

    /// Why the policy of a Service does not apply. `None` if it does.
    pub(in crate::compile) fn for_service(&self, service: &ObjectKey) -> Option<Diagnostic> {
        let (route, other) = self.services.get(service)?.first_key_value()?;
        let message = format!(
            "{route} has Services {service} and {other} in one rule, and they refer to different policies, so this one \
             has no effect"
        );
        Some(Diagnostic::error(
            annotation_field(UPSTREAM_POLICY),
            message,
            "use the same policy for both, or move each to a separate rule",
        ))
    }
}

/// The Services with a policy that share a rule with a Service of another policy or none, each with the first such
/// Service.
fn conflicting_services(store: &Store, route: &RequestRoute<'_>) -> BTreeMap<ObjectKey, ObjectKey> {
    let from = Referrer { kind: route.kind, namespace: &route.meta.key.namespace };
    let mut conflicting = BTreeMap::new();
    for rule in &route.rules {
        // Services that the route may not refer to are ignored, and reported on the route.
        let unreported_field = "";
        let services = rule
            .backends
            .iter()
            .filter_map(|backend| reference::permitted_service(store, from, &backend.target, unreported_field).ok());
        let policies: BTreeMap<ObjectKey, Option<ObjectKey>> = services
            .map(|service| {
                (service.meta.key.clone(), upstream_policy::referenced_policy(&service.meta, UPSTREAM_POLICY))
            })
            .collect();
        for (service, policy) in policies.iter().filter(|(_, policy)| policy.is_some()) {
            if let Some((other, _)) = policies.iter().find(|(_, other_policy)| *other_policy != policy) {
                conflicting.entry(service.clone()).or_insert_with(|| other.clone());
            }
        }
    }
    conflicting
}
