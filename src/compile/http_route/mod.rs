//! Compiles an HTTPRoute: where it attaches, and its rules for the proxy.
//!
//! ```text
//!   mod.rs     parents and verdict
//!   rules.rs   all rules, with plugins and annotations ─▶ matches for the routers
//!   rule.rs    matches, filters, backends, timeouts and retries of one rule
//! ```

mod rule;
mod rules;

use super::attachment::RouteOrigin;
use super::gateway::GatewayPlan;
use super::kong::http_route_annotations::{self, RouteAnnotations};
use super::kong::plugins::Plugins;
use super::route_plan::{self, PlannedRules, RoutePlan, RuleResults};
use super::verdict::Verdict;
use super::{CompileContext, PlanMap};
use crate::api::gateway::HttpRoute;
use crate::api::{Kind, Object};
use crate::snapshot::host::HostPattern;
use rules::TranslatedRules;

/// Plans an HTTPRoute. Its rules are translated only if a parent accepts it.
pub(super) fn plan(
    cx: CompileContext<'_>,
    gateways: &PlanMap<GatewayPlan>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
) -> RoutePlan {
    let parents = &route.spec.parent_refs;
    // The annotations of a route of another controller are not read.
    let annotations = match route_plan::has_served_parent(gateways, &route.meta.key, parents) {
        true => http_route_annotations::read(cx.inputs, &route.meta),
        false => RouteAnnotations::default(),
    };
    let hostnames = route.spec.hostnames.iter().map(|name| HostPattern::parse(Some(name)));
    let mut hosts: Vec<_> = hostnames.chain(annotations.hosts.iter().cloned()).collect();
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let mut verdict = Verdict { generation: route.meta.generation, ..Verdict::default() };
    let origin = RouteOrigin { kind: Kind::HttpRoute, key: &route.meta.key, hosts: &hosts };
    let served_parents = route_plan::resolve_parents(cx, gateways, &origin, parents, &mut verdict);
    verdict.diagnostics.extend(route_plan::parent_notes(parents, route.spec.use_default_gateways.as_deref()));
    if !served_parents.is_attached() {
        served_parents.report(None, &mut verdict);
        return RoutePlan::unattached(verdict);
    }
    let secure_ports = http_route_annotations::secure_ports(gateways, route, &hosts);
    let rules = rules::translate(cx, plugins, route, annotations, &secure_ports);
    let TranslatedRules { matches, upstreams, unreachable_services, resolved_refs, dropped, any_served, notes } = rules;
    let results = RuleResults { resolved_refs: &resolved_refs, dropped: &dropped, any_served };
    let attachments = served_parents.report(Some(&results), &mut verdict);
    verdict.diagnostics.extend(notes.into_vec());
    let rules = PlannedRules::Http { hosts, matches };
    RoutePlan { attachments, rules, upstreams, unreachable_services, verdict }
}
