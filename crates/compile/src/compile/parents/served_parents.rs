//! The parents of a route that this process serves: whether they accept it, and what they report about its rules.

use std::sync::Arc;

use super::attachment::{self, Attachment, ParentResult, RouteOrigin};
use super::plans::ParentPlans;
use crate::api::ObjectKey;
use crate::api::gateway::ParentReference;
use crate::compile::CompileContext;
use crate::compile::certificates::backend_client::BackendClient;
use crate::compile::gateways::listener::ListenerPlan;
use crate::diagnostic::Diagnostic;
use crate::verdict::{Code, Condition, ParentVerdict, Verdict, parent_field};

/// The results for the rules of a route that its conditions report. They are the same for every parent.
pub(in crate::compile) struct RuleResults<'a> {
    pub resolved_refs: &'a Condition,
    /// Why requests get an error in place of the backend's response because of plugins.
    pub plugins_resolved: Option<&'a Condition>,
    /// Diagnostics about rules that are not served.
    pub dropped: &'a [Diagnostic],
    pub any_served: bool,
}

/// The clients of the Gateways that accept a route.
pub(in crate::compile) struct BackendClients {
    /// That of most Gateways: the only one, unless Gateways have different certificates.
    pub first: BackendClient,
    /// Each with its Gateways.
    pub others: Vec<(BackendClient, Vec<ObjectKey>)>,
}

/// The parents of a route that this process serves.
pub(in crate::compile) struct ServedParents<'a>(Vec<ServedParent<'a>>);

/// A parent that this process serves.
struct ServedParent<'a> {
    /// Index into `spec.parentRefs`; `None` for a default Gateway.
    index: Option<usize>,
    reference: &'a ParentReference,
    controller: Arc<str>,
    /// An attachment, or an Accepted condition with status False.
    result: Result<Attachment, Condition>,
}

/// Attaches the route to its parents, before its rules are translated: those of a route without a served parent are
/// not. Adds diagnostics about parents that are not served to the verdict. The first `named_count` parents are those in
/// `spec.parentRefs`, the others are default Gateways.
pub(in crate::compile) fn resolve_parents<'a>(
    cx: CompileContext<'_>,
    plans: &ParentPlans,
    origin: &RouteOrigin<'_>,
    parents: &'a [ParentReference],
    named_count: usize,
    verdict: &mut Verdict,
) -> ServedParents<'a> {
    let mut served = Vec::new();
    for (index, reference) in parents.iter().enumerate() {
        let index = (index < named_count).then_some(index);
        let field = parent_field(index);
        match attachment::resolve_parent(cx.store, plans, origin, reference, &field) {
            ParentResult::NotServed(note) => verdict.diagnostics.extend(note),
            ParentResult::Missing(problem) => verdict.diagnostics.push(problem),
            ParentResult::Served(controller, result) => {
                served.push(ServedParent { index, reference, controller, result });
            }
        }
    }
    ServedParents(served)
}

impl ServedParents<'_> {
    /// Whether this process serves none of the parents.
    pub(in crate::compile) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a parent accepts the route.
    pub(in crate::compile) fn is_attached(&self) -> bool {
        self.0.iter().any(|parent| parent.result.is_ok())
    }

    /// The listeners that accept the route.
    pub(in crate::compile) fn listeners<'g>(&self, plans: &'g ParentPlans) -> impl Iterator<Item = &'g ListenerPlan> {
        let attachments = self.0.iter().filter_map(|parent| parent.result.as_ref().ok());
        attachments.flat_map(|attachment| {
            let listeners = attachment.listeners.iter();
            listeners.filter_map(|listener| plans.listener(&attachment.gateway, listener))
        })
    }

    /// How connections to the backends of the route authenticate themselves.
    pub(in crate::compile) fn backend_clients(&self, plans: &ParentPlans) -> BackendClients {
        let mut clients: Vec<(BackendClient, Vec<ObjectKey>)> = Vec::new();
        for attachment in self.0.iter().filter_map(|parent| parent.result.as_ref().ok()) {
            let Some(plan) = plans.gateways.get(&attachment.gateway) else { continue };
            match clients.iter_mut().find(|(client, _)| *client == plan.backend_client) {
                // A route may have several parents with one Gateway.
                Some((_, known)) if known.contains(&attachment.gateway) => {}
                Some((_, known)) => known.push(attachment.gateway.clone()),
                None => clients.push((plan.backend_client.clone(), vec![attachment.gateway.clone()])),
            }
        }
        let mut clients = clients.into_iter();
        let first = clients.next().map(|(client, _)| client).unwrap_or_default();
        BackendClients { first, others: clients.collect() }
    }

    /// Adds the conditions for each parent to the verdict, and returns the attachments. A parent that does not accept
    /// the route has the condition ResolvedRefs as well.
    pub(in crate::compile) fn report(self, rules: &RuleResults<'_>, verdict: &mut Verdict) -> Box<[Attachment]> {
        let mut attachments = Vec::new();
        for ServedParent { index, reference, controller, result } in self.0 {
            let conditions = match result {
                Err(condition) => vec![condition, rules.resolved_refs.clone()],
                Ok(mut attachment) => {
                    // A route of which no rule is served does not count as attached. It still stays in the routers and
                    // responds with errors, so that a less specific route does not serve requests that this one
                    // protects.
                    attachment.is_counted = rules.any_served || rules.dropped.is_empty();
                    attachments.push(attachment);
                    conditions_if_attached(rules)
                }
            };
            verdict.parents.push(ParentVerdict { controller, index, parent: reference.clone(), conditions });
        }
        attachments.into_boxed_slice()
    }
}

/// The conditions for a parent to which the route is attached.
fn conditions_if_attached(rules: &RuleResults<'_>) -> Vec<Condition> {
    let resolved = rules.resolved_refs.clone();
    let dropped = || rules.dropped.to_vec();
    let mut conditions = if rules.dropped.is_empty() {
        vec![Condition::without_diagnostics(Code::RouteAccepted), resolved]
    } else if rules.any_served {
        let partially_invalid = Condition::new(Code::RoutePartiallyInvalid, dropped());
        vec![Condition::without_diagnostics(Code::RouteAccepted), resolved, partially_invalid]
    } else {
        vec![Condition::new(Code::RouteUnsupportedValue, dropped()), resolved]
    };
    conditions.extend(rules.plugins_resolved.cloned());
    conditions
}
