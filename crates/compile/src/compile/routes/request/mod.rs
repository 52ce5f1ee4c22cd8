//! Compiles an HTTPRoute or a GRPCRoute: where it attaches, and its rules for the proxy.
//!
//! ```text
//!   mod.rs     parents and verdict
//!   rules.rs   all rules, with plugins and annotations ─▶ matches for the routers
//!   rule.rs    matches, filters, backends, timeouts and retries of one rule
//!   replaced_backend.rs  what a rule cannot have if a plugin takes the place of its backend
//!   refused.rs the rules of a route that exceeds a budget
//! ```

mod refused;
mod replaced_backend;
mod rule;
mod rules;

use super::plan::{PlannedRules, RoutePlan};
use crate::api::kong::annotations::HOST_ALIASES;
use crate::compile::CompileContext;
use crate::compile::budgets::{
    BudgetShare, Expansion, MAX_HOST_ALIASES, MAX_HOST_MATCHES, Planned, RegexBudget, is_refused,
};
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::kong::plugins::Plugins;
use crate::compile::kong::request_route_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::request_route::RequestRoute;
use crate::compile::parents::attachment::RouteOrigin;
use crate::compile::parents::plans::ParentPlans;
use crate::compile::parents::references;
use crate::compile::parents::served_parents::{BackendClients, RuleResults, resolve_parents};
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::RouteMatches;
use crate::verdict::Verdict;
use rules::TranslatedRules;

/// Plans a route, and decides its verdict. An error if it expands to more than its share of its namespace's
/// budget. Its rules are translated only if this process serves a parent.
pub(in crate::compile) fn plan(
    cx: CompileContext<'_>,
    parent_plans: &ParentPlans,
    plugins: &Plugins,
    route: &RequestRoute<'_>,
    share: BudgetShare,
) -> Result<Planned<(RoutePlan, Verdict)>, Expansion> {
    let parents = parent_plans.parents_of(&route.meta.key.namespace, route.parents, route.default_gateways);
    // The annotations of a route of another controller are not read.
    let limits = cx.inputs.budgets;
    let regexes = RegexBudget::new(limits, &share);
    // What another client certificate changes is no further expansion of the route.
    let uncounted_regexes = RegexBudget::new(limits, &share);
    let (mut annotations, mut over_budget) =
        match references::has_served_parent(parent_plans, &route.meta.key, &parents) {
            true => (request_route_annotations::read(cx.inputs, &regexes, route), limits.check_annotations(route.meta)),
            false => Default::default(),
        };
    if is_refused(&over_budget) {
        annotations.hosts.truncate(MAX_HOST_ALIASES);
    }
    let hostnames = route.hostnames.iter().map(|name| HostPattern::parse(Some(name)));
    let mut hosts: Vec<_> = hostnames.chain(annotations.hosts.iter().cloned()).collect();
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let mut verdict = Verdict { generation: route.meta.generation, ..Verdict::default() };
    let origin = RouteOrigin { kind: route.kind, key: &route.meta.key, hosts: &hosts };
    let served_parents = resolve_parents(cx, parent_plans, &origin, &parents, route.parents.len(), &mut verdict);
    verdict.diagnostics.extend(references::parent_notes(parent_plans, route.parents, route.default_gateways));
    if served_parents.is_empty() {
        return Ok(Planned::without_budget((RoutePlan::unattached(), verdict)));
    }
    verdict.diagnostics.extend(foreign_annotations::notes(route.meta, route.described_kind()));
    let is_attached = served_parents.is_attached();
    let secure_ports = request_route_annotations::secure_ports(parent_plans, &route.meta.key, &parents, &hosts);
    if let BudgetShare::Exceeded(problem) = share {
        over_budget.push(problem);
    }
    over_budget.extend(limits.refusal(cx.store, route.kind, &route.meta.key));
    let host_matches = hosts.len().saturating_mul(route.match_count());
    let field = annotation_field(HOST_ALIASES);
    limits.check(field, "pairs of a host and a match", host_matches, MAX_HOST_MATCHES, &mut over_budget);
    if is_attached {
        regexes.expansion_within_share(host_matches)?;
    }
    let translate = |client, regexes: &RegexBudget<'_>| {
        rules::translate(cx.with_backend_client(client), plugins, route, annotations.clone(), regexes, &secure_ports)
    };
    let BackendClients { first: first_client, others: other_clients } = served_parents.backend_clients(parent_plans);
    let rules = (!is_refused(&over_budget)).then(|| translate(&first_client, &regexes));
    over_budget.extend(regexes.problems("spec.rules"));
    let mut rules_of_gateways = Vec::new();
    let rules = match rules {
        Some(mut rules) if !is_refused(&over_budget) => {
            rules.notes.extend(over_budget);
            for (client, gateways) in &other_clients {
                let others = translate(client, &uncounted_regexes);
                // Equal upstreams are those of equal rules.
                if others.upstreams != rules.upstreams {
                    let matches = RouteMatches::new(rules.add_rules_of_others(others));
                    let planned = PlannedRules::Http { hosts: hosts.as_slice().into(), matches };
                    rules_of_gateways.extend(gateways.iter().map(|gateway| (gateway.clone(), planned.clone())));
                }
            }
            rules
        }
        _ => refused::translate(route, hosts.len(), over_budget),
    };
    let TranslatedRules {
        matches,
        upstreams,
        unreachable_services,
        resolved_refs,
        plugins_resolved,
        dropped,
        any_served,
        notes,
    } = rules;
    let plugins_resolved = plugins_resolved.as_ref();
    let results = RuleResults { resolved_refs: &resolved_refs, plugins_resolved, dropped: &dropped, any_served };
    let attachments = served_parents.report(&results, &mut verdict);
    verdict.diagnostics.extend(notes.into_vec());
    if !is_attached {
        return Ok(Planned::without_budget((RoutePlan::unattached(), verdict)));
    }
    let expansion = regexes.expansion_within_share(host_matches)?;
    let rules = PlannedRules::Http { hosts: hosts.into(), matches: RouteMatches::new(matches) };
    let upstreams = upstreams.into_iter().collect();
    let rules_of_gateways = rules_of_gateways.into();
    let plan = RoutePlan { attachments, rules, rules_of_gateways, upstreams, unreachable_services };
    let (expressions, hosts) = plan.path_expressions();
    Ok(Planned { plan: (plan, verdict), expansion, expressions, hosts })
}
