//! Plans the Gateways and routes that a change affects, and keeps their plans.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::affected::keys_of_kind;
use super::route_plan::{RouteKind, RoutePlan};
use super::{CompileContext, CompileRun, Compiler, gateway, http_route, stream_route};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Changes;

impl Compiler {
    /// Plans the touched Gateways and those whose ports changed; returns the routes that must be planned again.
    pub(super) fn plan_gateways(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        run: &mut CompileRun,
    ) -> BTreeSet<ObjectId> {
        let mut gateways: BTreeSet<ObjectKey> = keys_of_kind(touched, Kind::Gateway).cloned().collect();
        if !gateways.is_empty() {
            let owners = gateway::port_owners(cx);
            if owners != self.port_owners {
                // A Gateway that did not change itself may have lost or gained a port.
                gateways.extend(self.port_owners.values().chain(owners.values()).cloned());
                gateways.extend(self.gateways.keys().cloned());
                self.port_owners = owners;
            }
        }
        let mut routes = BTreeSet::new();
        for key in gateways {
            let object = cx.store.gateways.get(&key);
            let plan = object.and_then(|object| gateway::plan(cx, &self.port_owners, &mut self.secrets, object));
            if plan.is_none() {
                let verdict = object.map(|object| gateway::foreign_verdict(cx, object));
                self.set_verdict(ObjectId::new(Kind::Gateway, key.clone()), verdict, run);
            }
            if self.gateways.get(&key).map(|plan| &**plan) == plan.as_ref() {
                // The plan did not change. A Gateway without a plan may belong to another controller and have just been
                // created or deleted, which changes the verdicts on routes that refer to it.
                if plan.is_some() || !touched.contains(&ObjectId::new(Kind::Gateway, key.clone())) {
                    continue;
                }
            }
            let before = self.gateways.get(&key);
            if !plan.as_ref().zip(before).is_some_and(|(plan, before)| plan.is_equivalent_for_routes(before)) {
                let id = ObjectId::new(Kind::Gateway, key.clone());
                let dependents =
                    cx.store.dependency_index().dependents(&id).filter(|id| RouteKind::of(id.kind).is_some());
                routes.extend(dependents.cloned());
            }
            run.gateways_to_update.insert(key.clone());
            match plan {
                Some(plan) => self.gateways.insert(key.clone(), Arc::new(plan)),
                None => self.gateways.remove(&key),
            };
            self.routers.gateway_changed(&key, self.gateways.get(&key).map(|plan| &**plan));
        }
        routes
    }

    /// Plans the touched routes and those in `routes`.
    pub(super) fn plan_routes(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        mut routes: BTreeSet<ObjectId>,
        run: &mut CompileRun,
    ) {
        routes.extend(touched.iter().filter(|id| RouteKind::of(id.kind).is_some()).cloned());
        while let Some(id) = routes.pop_first() {
            let mut plan = self.plan_route(cx, &id, None);
            if id.kind == Kind::HttpRoute {
                // At once, and not after all routes were planned: their plans together could exceed the memory.
                let budgets = cx.inputs.budgets;
                let created = cx.store.meta(&id).and_then(|meta| meta.created);
                let expansion = plan.as_ref().map(|plan| plan.expansion).filter(|bytes| *bytes > 0);
                routes.extend(self.route_budgets.set(budgets, &id, created, expansion));
                if let Some(problem) = self.route_budgets.problem(budgets, &id) {
                    plan = self.plan_route(cx, &id, Some(problem));
                }
            }
            let plan = plan.map(Arc::new);
            let verdict = plan.as_ref().map(|plan| plan.verdict.clone());
            self.set_verdict(id.clone(), verdict, run);
            if id.kind == Kind::HttpRoute {
                let is_attached = plan.as_ref().is_some_and(|plan| !plan.attachments.is_empty());
                let route = cx.store.http_routes.get(&id.key).filter(|_| is_attached).map(|route| &**route);
                run.services_to_update.extend(self.policy_conflicts.update_route(cx.store, &id, route));
            }
            let before = match &plan {
                Some(plan) => self.routes.insert(id.clone(), plan.clone()),
                None => self.routes.remove(&id),
            };
            let plans = [&before, &plan].into_iter().flatten();
            run.services_to_update.extend(plans.flat_map(|plan| plan.unreachable_services.iter().cloned()));
            let no_upstreams = BTreeSet::new();
            let [upstreams_before, upstreams_after] = [&before, &plan]
                .map(|plan| plan.as_ref().map_or(&no_upstreams, |plan: &Arc<RoutePlan>| &plan.upstreams));
            self.upstream_usage.replace(upstreams_before, upstreams_after, &mut run.upstreams_changed);
            run.gateways_to_update.extend(self.routers.route_changed(&id, before.as_deref(), plan.as_deref()));
        }
    }

    /// The plan of a route. `None` if the route does not exist. `over_namespace`: the diagnostic if its namespace
    /// exceeds its budget because of it.
    fn plan_route(
        &self,
        cx: CompileContext<'_>,
        id: &ObjectId,
        over_namespace: Option<Diagnostic>,
    ) -> Option<RoutePlan> {
        match RouteKind::of(id.kind)? {
            RouteKind::Http => {
                let route = cx.store.http_routes.get(&id.key)?;
                Some(http_route::plan(cx, &self.gateways, &self.plugins, route, over_namespace))
            }
            RouteKind::Tcp => {
                let route = cx.store.tcp_routes.get(&id.key)?;
                Some(stream_route::plan(cx, &self.gateways, (&**route).into()))
            }
            RouteKind::Tls => {
                let route = cx.store.tls_routes.get(&id.key)?;
                Some(stream_route::plan(cx, &self.gateways, (&**route).into()))
            }
        }
    }
}
