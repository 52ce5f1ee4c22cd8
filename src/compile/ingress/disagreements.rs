//! Services of one rule of an HTTPRoute that do not name the same KongUpstreamPolicy: Kong has one upstream for all of
//! them, so none of these policies counts there (`kong-compat.md` §1.7).

use std::collections::{BTreeMap, BTreeSet};

use super::super::backends;
use super::super::verdict::Problem;
use super::annotations::field;
use super::policy;
use crate::api::gateway::HttpRoute;
use crate::api::kong::annotations::UPSTREAM_POLICY;
use crate::api::{Kind, Object, ObjectKey};
use crate::store::Store;

/// Which Services disagree, by the routes that bring them together.
#[derive(Debug, Default)]
pub(in crate::compile) struct Disagreements {
    /// By Service: each such route, with the other Service.
    services: BTreeMap<ObjectKey, BTreeMap<ObjectKey, ObjectKey>>,
    /// What each route brought together.
    routes: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Disagreements {
    /// Looks at a route again: None if it is gone, or attached nowhere. Gives the Services that may have to be judged again.
    pub(in crate::compile) fn look(
        &mut self,
        store: &Store,
        key: &ObjectKey,
        route: Option<&Object<HttpRoute>>,
    ) -> BTreeSet<ObjectKey> {
        let found = route.map(|route| disagreeing(store, route)).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for service in self.routes.remove(key).unwrap_or_default() {
            let Some(routes) = self.services.get_mut(&service) else { continue };
            if routes.get(key) == found.get(&service) {
                continue;
            }
            routes.remove(key);
            if routes.is_empty() {
                self.services.remove(&service);
            }
            changed.insert(service);
        }
        if !found.is_empty() {
            self.routes.insert(key.clone(), found.keys().cloned().collect());
        }
        for (service, other) in found {
            let before = self.services.entry(service.clone()).or_default().insert(key.clone(), other.clone());
            if before != Some(other) {
                changed.insert(service);
            }
        }
        changed
    }

    /// Why the policy that a Service names does not count. None if it does.
    pub(in crate::compile) fn of(&self, service: &ObjectKey) -> Option<Problem> {
        let (route, other) = self.services.get(service)?.first_key_value()?;
        let message = format!(
            "{} {route} has Services {service} and {other} behind one rule, and they do not name the same policy, so this one \
             has no effect",
            Kind::HttpRoute
        );
        Some(Problem::new(
            field(UPSTREAM_POLICY),
            message,
            "name the same policy at both, or give each a rule of its own",
        ))
    }
}

/// The Services with a policy that stand beside one with another or with none, each with the first such.
fn disagreeing(store: &Store, route: &Object<HttpRoute>) -> BTreeMap<ObjectKey, ObjectKey> {
    let from = (Kind::HttpRoute, &*route.meta.key.namespace);
    let mut found = BTreeMap::new();
    for rule in &route.spec.rules {
        // What the route may not refer to is nothing to it.
        let services =
            rule.backend_refs.iter().filter_map(|backend| backends::service(store, from, &backend.target, "").ok());
        let named: BTreeMap<ObjectKey, Option<ObjectKey>> =
            services.map(|service| (service.meta.key.clone(), policy::named(&service.meta, UPSTREAM_POLICY))).collect();
        for (service, own) in named.iter().filter(|(_, own)| own.is_some()) {
            if let Some((other, _)) = named.iter().find(|(_, policy)| *policy != own) {
                found.entry(service.clone()).or_insert_with(|| other.clone());
            }
        }
    }
    found
}
