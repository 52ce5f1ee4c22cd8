//! The routes of the ingress listeners, from the plans of all Ingresses. A change of an Ingress builds only the routers
//! of the hosts that the Ingress names or named; the others are shared with the previous routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host_conflicts;
use super::host_index::{ClaimedHost, PlannedIngresses, PlansByAge};
use super::joined_locations;
use super::plan::IngressPlan;
use crate::snapshot::Routes;
use crate::snapshot::host::HostPattern;
use crate::snapshot::ingress_routes::{DefaultBackend, IngressRoutes, NamedHost};
use crate::snapshot::router::by_conditions::{ConditionRoute, ConditionsRouter, RouterFlavor};
use crate::snapshot::router::{HostRouter, RouteMatch};
use crate::snapshot::rule::RouteRule;

/// The routes of all Ingresses; both listeners share them.
#[derive(Debug)]
pub(super) struct ListenerRoutes {
    flavor: RouterFlavor,
    /// The routes in the order by conditions, and `default_route`.
    by_conditions: Arc<ConditionsRouter>,
    /// The default backend, if the routes of all Ingresses have that order.
    default_route: Option<Arc<ConditionRoute>>,
    /// The routes in all orders; `None` if those of all Ingresses are ordered by conditions.
    dialects: Option<Arc<IngressRoutes>>,
    /// The plan whose default backend `dialects` has.
    default_plan: Option<Arc<IngressPlan>>,
    /// The rule with which its router of unnamed hosts was built.
    of_unnamed_hosts: Option<Arc<RouteRule>>,
}

/// The routes in the order by conditions that were removed and added.
#[derive(Debug, Default)]
pub(super) struct ChangedRoutes {
    removed: Vec<Arc<ConditionRoute>>,
    added: Vec<Arc<ConditionRoute>>,
}

impl ChangedRoutes {
    /// Adds the difference between two plans of an Ingress.
    pub(super) fn add(&mut self, before: Option<&IngressPlan>, after: Option<&IngressPlan>) {
        self.removed.extend(before.iter().flat_map(|plan| plan.routes.iter().cloned()));
        self.added.extend(after.iter().flat_map(|plan| plan.routes.iter().cloned()));
    }
}

impl ListenerRoutes {
    pub(super) fn new(flavor: RouterFlavor) -> Self {
        let no_routes: [Arc<ConditionRoute>; 0] = [];
        ListenerRoutes {
            flavor,
            by_conditions: Arc::new(ConditionsRouter::build(flavor, no_routes)),
            default_route: None,
            dialects: None,
            default_plan: None,
            of_unnamed_hosts: None,
        }
    }

    /// Updates the routes of the changed hosts. `plans`: all Ingresses with one of these hosts, the oldest first.
    /// `of_unnamed_hosts`: the rule for hosts that none names.
    pub(super) fn update(
        &mut self,
        ingresses: &PlannedIngresses,
        plans: &PlansByAge<'_>,
        changed_hosts: &BTreeSet<ClaimedHost>,
        changed_routes: ChangedRoutes,
        of_unnamed_hosts: Option<&Arc<RouteRule>>,
    ) {
        let default_plan = ingresses.default_backend();
        let ChangedRoutes { mut removed, mut added } = changed_routes;
        // If there are several orders, the default backend comes after the routes of all of them.
        let default_route =
            default_plan.filter(|_| !ingresses.has_host_routers()).and_then(|plan| plan.default_route.clone());
        if default_route.as_ref().map(Arc::as_ptr) != self.default_route.as_ref().map(Arc::as_ptr) {
            removed.extend(self.default_route.take());
            added.extend(default_route.clone());
            self.default_route = default_route;
        }
        if !removed.is_empty() || !added.is_empty() {
            self.by_conditions = Arc::new(self.by_conditions.with_routes(&removed, &added));
        }
        if !ingresses.has_host_routers() {
            (self.dialects, self.default_plan) = (None, None);
            return;
        }
        let mut routes = match &self.dialects {
            Some(routes) => {
                let mut routes = IngressRoutes::clone(routes);
                update_hosts(&mut routes, plans, changed_hosts);
                routes
            }
            None => {
                let mut routes = IngressRoutes::default();
                let all_hosts = ingresses.hosts();
                update_hosts(&mut routes, &ingresses.by_age(&ingresses.keys().collect()), &all_hosts);
                routes
            }
        };
        routes.by_conditions = Arc::clone(&self.by_conditions);
        if default_plan.map(Arc::as_ptr) != self.default_plan.as_ref().map(Arc::as_ptr) {
            routes.default_backend = default_plan.and_then(|plan| default_backend(self.flavor, plan));
            self.default_plan = default_plan.cloned();
        }
        let has_health = ingresses.has_locations() && routes.default_backend.is_none();
        let is_same = self.of_unnamed_hosts.as_ref().map(Arc::as_ptr) == of_unnamed_hosts.map(Arc::as_ptr);
        routes.unnamed_hosts = has_health.then(|| match routes.unnamed_hosts.take().filter(|_| is_same) {
            Some(known) => known,
            None => Arc::new(joined_locations::router_of_unnamed_hosts(of_unnamed_hosts)),
        });
        self.of_unnamed_hosts = of_unnamed_hosts.cloned();
        self.dialects = Some(Arc::new(routes));
    }

    pub(super) fn as_routes(&self) -> Routes {
        match &self.dialects {
            None => Routes::ByConditions(Arc::clone(&self.by_conditions)),
            Some(routes) => Routes::Ingresses(Arc::clone(routes)),
        }
    }
}

/// The route of the default backend of an Ingress.
fn default_backend(flavor: RouterFlavor, plan: &IngressPlan) -> Option<DefaultBackend> {
    if let Some(routes) = &plan.by_host {
        let route_match = routes.default_backend.clone()?;
        return Some(DefaultBackend::ByHost(Arc::new(HostRouter::build(vec![route_match]))));
    }
    let route = Arc::clone(plan.default_route.as_ref()?);
    Some(DefaultBackend::ByConditions(Arc::new(ConditionsRouter::build(flavor, [route]))))
}

/// Updates the routers of the changed hosts, and which order comes first for them.
fn update_hosts(routes: &mut IngressRoutes, plans: &PlansByAge<'_>, changed_hosts: &BTreeSet<ClaimedHost>) {
    let names: BTreeSet<NamedHost> = changed_hosts
        .iter()
        .filter_map(|host| match host {
            ClaimedHost::Host(name) => Some(name.clone()),
            ClaimedHost::DefaultBackend => None,
        })
        .collect();
    let mut matches: BTreeMap<HostPattern, Vec<RouteMatch>> =
        changed_hosts.iter().filter_map(ClaimedHost::pattern).map(|pattern| (pattern, Vec::new())).collect();
    for path in plans.iter().filter_map(|(_, plan)| plan.by_host.as_ref()).flat_map(|routes| &routes.paths) {
        if let Some(matches) = matches.get_mut(&path.host) {
            matches.push(path.route_match.clone());
        }
    }
    for (host, matches) in matches {
        let router = (!matches.is_empty()).then(|| Arc::new(HostRouter::build(matches)));
        routes.by_host.set(host, router);
    }
    let locations = joined_locations::by_host(plans);
    for host in changed_hosts.iter().filter_map(ClaimedHost::pattern) {
        let of_host = locations.get(&host);
        let router = of_host.and_then(|of_host| joined_locations::router(&host, of_host)).map(Arc::new);
        routes.locations.set(host, router);
    }
    host_conflicts::set_orders(&mut routes.orders, plans, names);
}
