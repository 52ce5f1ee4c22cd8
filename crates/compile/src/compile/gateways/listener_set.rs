//! Plans a ListenerSet: whether its Gateway has its listeners, and which of them can be served.

use std::sync::Arc;

use super::allowed_listeners;
use super::gateway::{GatewayPlan, ListenerState};
use super::gateway_ports::GatewayPorts;
use super::listener;
use super::listener::{ListenerPlan, ListenerSource, unserved_warnings};
use super::listener_conflicts::Conflicts;
use crate::api::gateway::{Gateway, ListenerSet};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::certificates::SecretCache;
use crate::diagnostic::{Diagnostic, Reason, Topic};
use crate::snapshot::certs::Certificates;
use crate::store::Store;
use crate::verdict::{Code, Condition, Verdict};

/// The compiled state of a ListenerSet of a served Gateway, except for the routes that attach to it.
#[derive(Debug, PartialEq)]
pub(in crate::compile) struct ListenerSetPlan {
    pub id: ObjectId,
    generation: i64,
    pub gateway: ObjectKey,
    /// Empty if the Gateway does not allow the ListenerSet.
    pub listeners: Vec<ListenerPlan>,
    /// The certificates of each listener, in the same order.
    pub certificates: Vec<Arc<Certificates>>,
    /// The listeners that others refuse.
    pub conflicts: Conflicts,
    conditions: Vec<Condition>,
    diagnostics: Vec<Diagnostic>,
}

const NOT_ALLOWED: [Code; 2] = [Code::ListenerSetNotAllowed, Code::ListenerSetNotAllowedUnserved];
const PARENT_REFUSED: [Code; 2] = [Code::ListenerSetParentNotAccepted, Code::ListenerSetParentNotProgrammed];

/// The Gateway to which a ListenerSet refers; `None` if its parent is of another kind.
pub(in crate::compile) fn gateway_key(set: &Object<ListenerSet>) -> Option<ObjectKey> {
    let parent = &set.spec.parent_ref;
    let namespace = parent.namespace.as_deref().unwrap_or(&set.meta.key.namespace);
    (Kind::find(&parent.group, &parent.kind) == Some(Kind::Gateway)).then(|| ObjectKey::new(namespace, &parent.name))
}

/// Plans everything about a ListenerSet that does not depend on routes. `plan`: that of its Gateway.
pub(in crate::compile) fn plan(
    cx: CompileContext<'_>,
    secrets: &mut SecretCache,
    gateway: &Object<Gateway>,
    plan: &GatewayPlan,
    ports: GatewayPorts<'_>,
    set: &Object<ListenerSet>,
    conflicts: Conflicts,
) -> ListenerSetPlan {
    let mut planned = ListenerSetPlan {
        id: ObjectId::new(Kind::ListenerSet, set.meta.key.clone()),
        generation: set.meta.generation,
        gateway: gateway.meta.key.clone(),
        listeners: Vec::new(),
        certificates: Vec::new(),
        conflicts: Conflicts::new(),
        conditions: Vec::new(),
        diagnostics: Vec::new(),
    };
    if !allowed_listeners::allows_namespace(cx.store, gateway, &set.meta.key.namespace) {
        match plan.is_rejected() {
            // What it allows is unknown if it is too large.
            true => planned.refuse(PARENT_REFUSED, parent_problem(plan, "accepted")),
            false => planned.refuse(NOT_ALLOWED, not_allowed(gateway, set)),
        }
        return planned;
    }
    match cx.inputs.budgets.size_problem(cx.store, Kind::ListenerSet, &set.meta.key) {
        Some(problem) if problem.is_error() => {
            planned.refuse([Code::ListenerSetNoListenerValid, Code::ListenerSetListenersUnserved], problem);
            return planned;
        }
        remark => planned.diagnostics.extend(remark),
    }
    let source = ListenerSource { declared_by: &planned.id, gateway, listeners: &set.spec.listeners };
    let own_ports = allowed_listeners::own_ports(gateway);
    let owner = |port| ports.owner_before_sets(port, &own_ports, cx.inputs.ingress);
    let (mut listeners, certificates) = listener::plan_all(cx, secrets, source, &conflicts, &owner);
    let accepted = accepted_condition(plan, &listeners);
    listeners.iter_mut().for_each(|listener| ports.assign(listener));
    let programmed = programmed_condition(plan, ports, &listeners);
    planned.conditions = vec![accepted, programmed];
    (planned.listeners, planned.certificates, planned.conflicts) = (listeners, certificates, conflicts);
    planned
}

impl ListenerSetPlan {
    /// Whether its Gateway counts it as attached.
    pub(in crate::compile) fn is_accepted(&self) -> bool {
        self.conditions.iter().any(|condition| condition.code.condition() == "Accepted" && condition.code.status())
    }

    /// `gateway`: the plan of its Gateway.
    pub(in crate::compile) fn verdict(&self, gateway: &GatewayPlan, state: &impl ListenerState) -> Verdict {
        Verdict {
            generation: self.generation,
            conditions: self.conditions.clone(),
            listeners: gateway.listener_verdicts(&self.listeners, state),
            diagnostics: self.diagnostics.clone(),
            ..Verdict::default()
        }
    }

    /// Sets the conditions Accepted and Programmed to these codes, for the same reason.
    fn refuse(&mut self, codes: [Code; 2], problem: Diagnostic) {
        self.conditions = codes.map(|code| Condition::new(code, vec![problem.clone()])).into();
    }
}

fn not_allowed(gateway: &Object<Gateway>, set: &Object<ListenerSet>) -> Diagnostic {
    let ObjectKey { namespace, .. } = &set.meta.key;
    let message = format!("Gateway {} allows no ListenerSets of namespace {namespace}", gateway.meta.key);
    let remedy = "change spec.allowedListeners of the Gateway, or the labels of the namespace";
    Diagnostic::error("spec.parentRef", message, remedy)
}

/// A ListenerSet is accepted if one of its listeners is valid. A listener without a usable certificate is not.
fn accepted_condition(plan: &GatewayPlan, listeners: &[ListenerPlan]) -> Condition {
    if plan.is_rejected() {
        let problem = parent_problem(plan, "accepted");
        return Condition::new(Code::ListenerSetParentNotAccepted, vec![problem]);
    }
    let invalid: Vec<_> =
        listeners.iter().filter(|listener| !listener.served).map(|listener| listener.summary("valid")).collect();
    let code = match invalid.len() {
        0 => Code::ListenerSetAccepted,
        count if count < listeners.len() => Code::ListenerSetSomeListenersInvalid,
        _ => Code::ListenerSetNoListenerValid,
    };
    Condition::new(code, invalid)
}

fn programmed_condition(plan: &GatewayPlan, ports: GatewayPorts<'_>, listeners: &[ListenerPlan]) -> Condition {
    if !ports.can_bind() {
        return Condition::new(Code::ListenerSetParentNotProgrammed, vec![parent_problem(plan, "served")]);
    }
    if listeners.iter().any(|listener| listener.served) {
        return Condition::new(Code::ListenerSetProgrammed, unserved_warnings(listeners));
    }
    let problems = listeners.iter().map(|listener| listener.summary("served")).collect();
    let lacks_port = |listener: &ListenerPlan| listener.accepted_code() == Some(Code::ListenerPortUnavailable);
    let is_pending = |listener: &ListenerPlan| listener.has(Code::ListenerPending);
    let code = if listeners.iter().all(lacks_port) {
        Code::ListenerSetPortUnavailable
    } else if listeners.iter().any(is_pending) {
        Code::ListenerSetPending
    } else {
        Code::ListenerSetListenersUnserved
    };
    Condition::new(code, problems)
}

fn parent_problem(plan: &GatewayPlan, state: &str) -> Diagnostic {
    let message = format!("Gateway {} is not {state}", plan.key);
    Diagnostic::error("spec.parentRef", message, "see the conditions of the Gateway")
        .with_reason(Reason::OtherCondition)
}

/// The verdict on a ListenerSet whose Gateway this controller does not serve: at most a note. `None` if the ListenerSet
/// does not exist.
pub(in crate::compile) fn foreign_verdict(store: &Store, key: &ObjectKey) -> Option<Verdict> {
    let set = store.listener_sets.get(key)?;
    let note = match gateway_key(set) {
        None => {
            let parent = &set.spec.parent_ref;
            let message = format!("parents of kind {}/{} are not served", parent.group, parent.kind);
            Some(Diagnostic::warning("spec.parentRef.kind", message, "refer to a Gateway"))
        }
        Some(gateway) if !store.gateways.contains_key(&gateway) => {
            let remedy = "create it, or correct name and namespace";
            let missing = Diagnostic::not_found("spec.parentRef.name", format!("Gateway {gateway}"), remedy);
            Some(missing.into_warning().with_topic(Topic::MissingParent))
        }
        Some(_) => None,
    };
    let diagnostics = note.into_iter().collect();
    Some(Verdict { generation: set.meta.generation, diagnostics, ..Verdict::default() })
}
