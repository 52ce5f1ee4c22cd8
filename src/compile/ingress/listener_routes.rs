//! The routes of the ingress listeners, from the plans of all Ingresses. If there are several dialects, the router of
//! Kong's Ingresses is kept while none of them changes, and so is the router of each host of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host_conflicts;
use super::plan::IngressPlan;
use crate::api::ObjectKey;
use crate::snapshot::Routes;
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::ingress_routes::{DefaultBackend, IngressRoutes};
use crate::snapshot::router::by_conditions::{ConditionRoute, ConditionsRouter, RouterFlavor};
use crate::snapshot::router::{HostRouter, RouteMatch};

/// The routes of all Ingresses; both listeners share them.
#[derive(Clone, Debug)]
pub(super) enum ListenerRoutes {
    /// All Ingresses have Kong's dialect.
    ByConditions(Arc<ConditionsRouter>),
    Dialects(Arc<IngressRoutes>),
}

/// Which routes changed since they were last built.
#[derive(Debug, Default)]
pub(super) struct ChangedRoutes {
    /// The hosts with changed paths of Ingresses of the dialect `kubernetes`.
    hosts: BTreeSet<HostPattern>,
    /// Whether an Ingress of Kong's dialect changed.
    by_conditions: bool,
}

impl ChangedRoutes {
    /// Adds the routes of a plan that was added, removed or replaced.
    pub(super) fn add(&mut self, plan: &IngressPlan) {
        match &plan.by_host {
            Some(routes) => self.hosts.extend(routes.paths.iter().map(|path| path.host.clone())),
            None => self.by_conditions = true,
        }
    }
}

impl ListenerRoutes {
    /// Builds the routes. `plans`: the oldest first; `before`: the result of the previous call; `changed`: what changed
    /// since then.
    pub(super) fn build(
        plans: &[(&ObjectKey, &Arc<IngressPlan>)],
        flavor: RouterFlavor,
        before: Option<&ListenerRoutes>,
        changed: &ChangedRoutes,
    ) -> Self {
        let routes = plans.iter().flat_map(|(_, plan)| &plan.routes).cloned();
        let default_plan = plans.iter().map(|(_, plan)| plan).find(|plan| plan.has_default_backend());
        if plans.iter().all(|(_, plan)| plan.by_host.is_none()) {
            let default_route = default_plan.and_then(|plan| plan.default_route.clone());
            return ListenerRoutes::ByConditions(Arc::new(ConditionsRouter::build(
                flavor,
                routes.chain(default_route),
            )));
        }
        let before = match before {
            Some(ListenerRoutes::Dialects(before)) => Some(before),
            // Its router also has the default backend.
            Some(ListenerRoutes::ByConditions(_)) | None => None,
        };
        let unchanged = before.filter(|_| !changed.by_conditions).map(|before| Arc::clone(&before.by_conditions));
        let default_backend = default_plan.and_then(|plan| match (&plan.by_host, &plan.default_route) {
            (Some(routes), _) => {
                let route_match = routes.default_backend.clone()?;
                Some(DefaultBackend::ByHost(Arc::new(HostRouter::build(vec![route_match]))))
            }
            (None, route) => {
                let router = ConditionsRouter::build(flavor, [Arc::<ConditionRoute>::clone(route.as_ref()?)]);
                Some(DefaultBackend::ByConditions(Arc::new(router)))
            }
        });
        ListenerRoutes::Dialects(Arc::new(IngressRoutes {
            by_host: host_routers(plans, before, &changed.hosts),
            by_conditions: unchanged.unwrap_or_else(|| Arc::new(ConditionsRouter::build(flavor, routes))),
            orders: host_conflicts::orders(plans),
            default_backend,
        }))
    }

    pub(super) fn as_routes(&self) -> Routes {
        match self {
            ListenerRoutes::ByConditions(router) => Routes::ByConditions(Arc::clone(router)),
            ListenerRoutes::Dialects(routes) => Routes::Ingresses(Arc::clone(routes)),
        }
    }
}

/// The router of each host: a new one for the hosts that changed, and those of `before` for the others.
fn host_routers(
    plans: &[(&ObjectKey, &Arc<IngressPlan>)],
    before: Option<&Arc<IngressRoutes>>,
    changed_hosts: &BTreeSet<HostPattern>,
) -> HostMap<Arc<HostRouter>> {
    let mut matches: BTreeMap<&HostPattern, Vec<RouteMatch>> = BTreeMap::new();
    for path in plans.iter().filter_map(|(_, plan)| plan.by_host.as_ref()).flat_map(|routes| &routes.paths) {
        if changed_hosts.contains(&path.host) {
            matches.entry(&path.host).or_default().push(path.route_match.clone());
        }
    }
    let built = matches.into_iter().map(|(host, matches)| (host.clone(), Arc::new(HostRouter::build(matches))));
    let unchanged = before.iter().flat_map(|before| before.by_host.iter());
    let unchanged = unchanged.filter(|(host, _)| !changed_hosts.contains(host));
    unchanged.map(|(host, router)| (host.clone(), Arc::clone(router))).chain(built).collect()
}
