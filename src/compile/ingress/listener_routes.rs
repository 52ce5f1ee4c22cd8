//! The routes of the ingress listeners, from the plans of all Ingresses. The router of a host is kept while its
//! Ingresses do not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host_conflicts;
use super::plan::IngressPlan;
use crate::api::ObjectKey;
use crate::snapshot::Routes;
use crate::snapshot::host::HostPattern;
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

/// The routers of Ingresses of the dialect `kubernetes`, by host.
pub(super) type HostRouters = BTreeMap<HostPattern, Arc<HostRouter>>;

impl ListenerRoutes {
    /// Builds the routes. `plans`: the oldest first; `routers`: those of the previous call; `changed_hosts`: the hosts
    /// of plans that changed since then.
    pub(super) fn build(
        plans: &[(&ObjectKey, &Arc<IngressPlan>)],
        flavor: RouterFlavor,
        routers: &mut HostRouters,
        changed_hosts: &BTreeSet<HostPattern>,
    ) -> Self {
        let routes = plans.iter().flat_map(|(_, plan)| &plan.routes).cloned();
        let default_plan = plans.iter().map(|(_, plan)| plan).find(|plan| plan.has_default_backend());
        if plans.iter().all(|(_, plan)| plan.by_host.is_none()) {
            routers.clear();
            let default_route = default_plan.and_then(|plan| plan.default_route.clone());
            return ListenerRoutes::ByConditions(Arc::new(ConditionsRouter::build(
                flavor,
                routes.chain(default_route),
            )));
        }
        update_routers(plans, routers, changed_hosts);
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
            by_host: routers.iter().map(|(host, router)| (host.clone(), Arc::clone(router))).collect(),
            by_conditions: Arc::new(ConditionsRouter::build(flavor, routes)),
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

/// Rebuilds the routers of hosts that changed, and removes those without paths.
fn update_routers(
    plans: &[(&ObjectKey, &Arc<IngressPlan>)],
    routers: &mut HostRouters,
    changed_hosts: &BTreeSet<HostPattern>,
) {
    let mut matches: BTreeMap<&HostPattern, Vec<RouteMatch>> = BTreeMap::new();
    for path in plans.iter().filter_map(|(_, plan)| plan.by_host.as_ref()).flat_map(|routes| &routes.paths) {
        if changed_hosts.contains(&path.host) {
            matches.entry(&path.host).or_default().push(path.route_match.clone());
        }
    }
    routers.retain(|host, _| !changed_hosts.contains(host));
    let built = matches.into_iter().map(|(host, matches)| (host.clone(), Arc::new(HostRouter::build(matches))));
    routers.extend(built);
}
