//! Plans the routes that a change affects, and keeps their plans.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::plan::{RoutePlan, RoutePlans};
use super::routers::Routers;
use super::stream::StreamRouteSource;
use super::{request, stream};
use crate::api::ObjectId;
use crate::compile::CompileContext;
use crate::compile::backend::upstream_usage::UpstreamUsage;
use crate::compile::budgets::SharedBudgets;
use crate::compile::kong::plugins::Plugins;
use crate::compile::kong::policy_conflicts::PolicyConflicts;
use crate::compile::objects::request_route::RequestRoute;
use crate::compile::objects::route_kind::RouteKind;
use crate::compile::parents::plans::ParentPlans;
use crate::compile::run::CompileRun;
use crate::compile::verdicts::table::VerdictTable;
use crate::store::Changes;
use crate::verdict::Verdict;

/// Plans routes of all kinds.
#[derive(Debug, Default)]
pub(in crate::compile) struct RoutePlanner {
    pub plans: RoutePlans,
    /// What the HTTPRoutes and GRPCRoutes of each namespace and host expand to.
    budgets: SharedBudgets,
}

/// What routes refer to, which is planned before them.
#[derive(Clone, Copy)]
pub(in crate::compile) struct RouteInputs<'a> {
    pub parents: &'a ParentPlans,
    pub plugins: &'a Plugins,
}

/// What planned routes change.
pub(in crate::compile) struct RouteOutputs<'a> {
    pub verdicts: &'a mut VerdictTable,
    pub routers: &'a mut Routers,
    pub upstream_usage: &'a mut UpstreamUsage,
    pub policy_conflicts: &'a mut PolicyConflicts,
    pub run: &'a mut CompileRun,
}

impl RoutePlanner {
    /// Plans the touched routes and those in `routes`.
    pub(in crate::compile) fn update(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        mut routes: BTreeSet<ObjectId>,
        inputs: RouteInputs<'_>,
        outputs: RouteOutputs<'_>,
    ) {
        let RouteOutputs { verdicts, routers, upstream_usage, policy_conflicts, run } = outputs;
        routes.extend(touched.iter().filter(|id| RouteKind::of(id.kind).is_some()).cloned());
        let created = |id: &ObjectId| cx.store.meta(id).and_then(|meta| meta.created);
        // The oldest first, because the youngest are refused if they exceed the budget of their namespace.
        let mut to_plan: BTreeSet<_> = routes.into_iter().map(|id| (created(&id), id)).collect();
        while let Some((age, id)) = to_plan.pop_first() {
            run.objects_planned += 1;
            run.record_planned(&id);
            let (plan, changed) = self.plan_route(cx, inputs, &id, age);
            to_plan.extend(changed.into_iter().map(|id| (created(&id), id)));
            let (mut plan, verdict) = plan.unzip();
            // Rules that did not change stay those that the routers contain, and no router is built again.
            let is_alike = match (self.plans.get(&id), &mut plan) {
                (Some(before), Some(plan)) if plan.is_alike_for_routers(before) => {
                    plan.rules.clone_from(&before.rules);
                    plan.rules_of_gateways.clone_from(&before.rules_of_gateways);
                    true
                }
                _ => false,
            };
            let plan = plan.map(Arc::new);
            verdicts.set(id.clone(), verdict);
            if RouteKind::of(id.kind) == Some(RouteKind::Request) {
                let is_attached = plan.as_ref().is_some_and(|plan| !plan.attachments.is_empty());
                let route = RequestRoute::find(cx.store, &id).filter(|_| is_attached);
                run.services_to_update.extend(policy_conflicts.update_route(cx.store, &id, route.as_ref()));
            }
            let before = match &plan {
                Some(plan) => self.plans.insert(id.clone(), plan.clone()),
                None => self.plans.remove(&id),
            };
            let plans = [&before, &plan].into_iter().flatten();
            run.services_to_update.extend(plans.flat_map(|plan| plan.unreachable_services.iter().cloned()));
            let [upstreams_before, upstreams_after] = [&before, &plan]
                .map(|plan| plan.as_ref().map(|plan: &Arc<RoutePlan>| &*plan.upstreams).unwrap_or_default());
            upstream_usage.replace(upstreams_before, upstreams_after, &mut run.upstreams_changed);
            if !is_alike {
                let parents = routers.route_changed(&id, before.as_deref(), plan.as_deref());
                run.parents_to_update.extend(parents);
            }
        }
    }

    /// The plan of a route, and the verdict on it; `None` if the route does not exist. Also returns the other routes
    /// that shared budgets now refuse or no longer refuse.
    fn plan_route(
        &mut self,
        cx: CompileContext<'_>,
        inputs: RouteInputs<'_>,
        id: &ObjectId,
        created: Option<i64>,
    ) -> (Option<(RoutePlan, Verdict)>, BTreeSet<ObjectId>) {
        let RouteInputs { parents, plugins } = inputs;
        let plan_stream = |route: Option<StreamRouteSource<'_>>| {
            (route.map(|route| stream::plan(cx, parents, plugins, route)), BTreeSet::new())
        };
        match RouteKind::of(id.kind) {
            Some(RouteKind::Request) => {
                let Some(route) = RequestRoute::find(cx.store, id) else {
                    return (None, self.budgets.remove(cx.inputs.budgets, id));
                };
                let plan = |share| request::plan(cx, parents, plugins, &route, share);
                self.budgets.plan(cx.inputs.budgets, id, created, plan)
            }
            Some(RouteKind::Tcp) => plan_stream(cx.store.tcp_routes.get(&id.key).map(|route| (&**route).into())),
            Some(RouteKind::Udp) => plan_stream(cx.store.udp_routes.get(&id.key).map(|route| (&**route).into())),
            Some(RouteKind::Tls) => plan_stream(cx.store.tls_routes.get(&id.key).map(|route| (&**route).into())),
            None => (None, BTreeSet::new()),
        }
    }
}
