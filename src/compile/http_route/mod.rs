//! Compiles an HTTPRoute: where it attaches, and its rules for the proxy.
//!
//! ```text
//!   mod.rs     parents and verdict
//!   rules.rs   all rules, with plugins and annotations ─▶ matches for the routers
//!   rule.rs    matches, filters, backends, timeouts and retries of one rule
//! ```

mod rule;
mod rules;

use std::collections::BTreeSet;

use super::attachment::{self, Attachment, ParentResult};
use super::gateway::GatewayPlan;
use super::kong::http_route_annotations;
use super::kong::plugins::Plugins;
use super::verdict::{Code, Condition, ParentVerdict, Verdict};
use super::{CompileContext, PlanMap};
use crate::api::gateway::HttpRoute;
use crate::api::{Kind, Object, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::RouteMatch;
use crate::upstream::UpstreamKey;
use rules::TranslatedRules;

/// The compiled state of a route: its parts of the snapshot and its verdict.
#[derive(Debug)]
pub(super) struct RoutePlan {
    pub attachments: Vec<Attachment>,
    /// Its hostnames and those of its annotations; `Any` if it has none.
    pub hosts: Vec<HostPattern>,
    pub matches: Vec<RouteMatch>,
    pub upstreams: BTreeSet<UpstreamKey>,
    /// Services to which the route refers but cannot connect, because their TLS settings are invalid.
    pub unreachable_services: BTreeSet<ObjectKey>,
    pub verdict: Verdict,
}

/// Plans an HTTPRoute. The plan has matches even if the route does not attach to a parent.
pub(super) fn plan(
    cx: CompileContext<'_>,
    gateways: &PlanMap<GatewayPlan>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
) -> RoutePlan {
    let annotations = http_route_annotations::read(cx.inputs, &route.meta);
    let hostnames = route.spec.hostnames.iter().map(|name| HostPattern::parse(Some(name)));
    let mut hosts: Vec<_> = hostnames.chain(annotations.hosts.iter().cloned()).collect();
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let secure_ports = http_route_annotations::secure_ports(gateways, route, &hosts);
    let rules = rules::translate(cx, plugins, route, annotations, &secure_ports);
    let mut verdict = Verdict { generation: route.meta.generation, ..Verdict::default() };
    let attachments = attach(cx, gateways, route, &hosts, &rules, &mut verdict);
    verdict.diagnostics.extend(parent_notes(route));
    let TranslatedRules { matches, upstreams, unreachable_services, .. } = rules;
    if !attachments.is_empty() {
        verdict.diagnostics.extend(rules.notes);
    }
    RoutePlan { attachments, hosts, matches, upstreams, unreachable_services, verdict }
}

/// Attaches the route to its parents, and adds the result of each to the verdict.
fn attach(
    cx: CompileContext<'_>,
    gateways: &PlanMap<GatewayPlan>,
    route: &Object<HttpRoute>,
    hosts: &[HostPattern],
    rules: &TranslatedRules,
    verdict: &mut Verdict,
) -> Vec<Attachment> {
    let origin = attachment::RouteOrigin { kind: Kind::HttpRoute, key: &route.meta.key, hosts };
    let mut attachments = Vec::new();
    for (index, reference) in route.spec.parent_refs.iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        let (controller, outcome) = match attachment::resolve_parent(cx.store, gateways, &origin, reference, &field) {
            ParentResult::NotServed(note) => {
                verdict.diagnostics.extend(note);
                continue;
            }
            ParentResult::Missing(problem) => {
                verdict.diagnostics.push(problem);
                continue;
            }
            ParentResult::Served(controller, outcome) => (controller, outcome),
        };
        let conditions = match outcome {
            Err(condition) => vec![condition, rules.resolved_refs.clone()],
            Ok(mut attachment) => {
                // A route of which no rule is served does not count as attached. It still stays in the routers and
                // responds with errors, so that a less specific route does not serve requests that this one protects.
                attachment.is_counted = rules.any_served || rules.dropped.is_empty();
                attachments.push(attachment);
                conditions_if_attached(rules)
            }
        };
        verdict.parents.push(ParentVerdict { controller, index, parent: reference.clone(), conditions });
    }
    attachments
}

/// The conditions for a parent to which the route is attached.
fn conditions_if_attached(rules: &TranslatedRules) -> Vec<Condition> {
    let resolved = rules.resolved_refs.clone();
    if rules.dropped.is_empty() {
        vec![Condition::without_diagnostics(Code::RouteAccepted), resolved]
    } else if rules.any_served {
        let partially_invalid = Condition::new(Code::RoutePartiallyInvalid, rules.dropped.clone());
        vec![Condition::without_diagnostics(Code::RouteAccepted), resolved, partially_invalid]
    } else {
        vec![Condition::new(Code::RouteUnsupportedValue, rules.dropped.clone()), resolved]
    }
}

/// Notes on a route that lacks parents, or relies on default Gateways.
fn parent_notes(route: &Object<HttpRoute>) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    if route.spec.use_default_gateways.as_deref().is_some_and(|scope| scope != "None") {
        notes.push(Diagnostic::warning(
            "spec.useDefaultGateways",
            "routes attach only to the Gateways in their parentRefs",
            "add the Gateway to parentRefs",
        ));
    }
    if route.spec.parent_refs.is_empty() && notes.is_empty() {
        notes.push(Diagnostic::warning("spec.parentRefs", "the route has no parent", "add the Gateway to attach to"));
    }
    notes
}
