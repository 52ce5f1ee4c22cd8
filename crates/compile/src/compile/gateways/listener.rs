//! Plans a listener of a Gateway or ListenerSet: whether it can be served, its hostname, and which routes may attach.

use std::net::IpAddr;
use std::sync::Arc;

use super::frontend_validation;
use super::frontend_validation::PortValidation;
use super::listener_conflicts::{Conflicts, ListenerConflict};
use super::listener_protocol::ListenerProtocol;
use crate::api::gateway::{Gateway, LabelSelector, Listener, RouteGroupKind};
use crate::api::kind::GATEWAY_GROUP;
use crate::api::{Kind, Object, ObjectId};
use crate::compile::CompileContext;
use crate::compile::certificates;
use crate::compile::certificates::SecretCache;
use crate::compile::objects::label_selector;
use crate::diagnostic::{Diagnostic, Reason};
use crate::snapshot::TransportProtocol;
use crate::snapshot::certs::Certificates;
use crate::snapshot::host::HostPattern;
use crate::store::Store;
use crate::transport_protocol::TransportPort;
use crate::verdict::{Code, Condition};

/// Identifies a listener: its name is unique within the object that declares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::compile) struct ListenerId {
    /// A Gateway or ListenerSet.
    pub declared_by: ObjectId,
    pub name: Arc<str>,
}

impl ListenerId {
    /// The name in logs, metrics and dumps, which have the Gateway separately: `https`, or `team/shop/https` for a
    /// listener of the ListenerSet `shop` in the namespace `team`.
    pub(in crate::compile) fn label(&self) -> Arc<str> {
        match self.declared_by.kind {
            Kind::Gateway => Arc::clone(&self.name),
            _ => format!("{}/{}", self.declared_by.key, self.name).into(),
        }
    }
}

/// The compiled state of a listener.
#[derive(Debug, PartialEq)]
pub(in crate::compile) struct ListenerPlan {
    pub id: ListenerId,
    /// Index into `spec.listeners`.
    pub index: usize,
    pub hostname: HostPattern,
    pub protocol: ListenerProtocol,
    /// The port that clients connect to.
    pub port: u16,
    /// The port that this process binds; `None` if none is assigned yet.
    pub bound_port: Option<u16>,
    /// Kinds of routes that may attach; empty if the protocol has none.
    pub supported_kinds: Vec<RouteGroupKind>,
    pub namespaces: Namespaces,
    /// Whether the listener routes requests or connections.
    pub served: bool,
    /// Whether the port terminates TLS. If the listener has no usable certificate, handshakes for its hostname are
    /// rejected, since no other listener of the port may serve that hostname.
    pub secure: bool,
    pub conditions: Vec<Condition>,
}

/// The namespaces whose routes may attach.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compile) enum Namespaces {
    All,
    Same,
    None,
    Selector(LabelSelector),
}

impl ListenerPlan {
    /// TCP for protocols that are not served.
    pub(in crate::compile) fn transport(&self) -> TransportProtocol {
        self.protocol.transport().unwrap_or(TransportProtocol::Tcp)
    }

    pub(in crate::compile) fn accepted(&self) -> bool {
        self.accepted_code() == Some(Code::ListenerAccepted)
    }

    pub(in crate::compile) fn has(&self, code: Code) -> bool {
        self.conditions.iter().any(|condition| condition.code == code)
    }

    /// The code of the condition Accepted.
    pub(in crate::compile) fn accepted_code(&self) -> Option<Code> {
        self.conditions.iter().map(|condition| condition.code).find(|code| code.condition() == "Accepted")
    }

    /// Whether clients can connect, even if their handshakes are rejected.
    pub(in crate::compile) fn opens_port(&self) -> bool {
        self.served || self.secure
    }

    /// A diagnostic for the conditions of the object that declares it: the listener is not in this state, `accepted` or
    /// `served`.
    pub(in crate::compile) fn summary(&self, state: &str) -> Diagnostic {
        let first_false = self.conditions.iter().find(|condition| !condition.code.status());
        let reason = first_false.map_or("Invalid", |condition| condition.code.reason());
        let message = format!("listener {} is not {state} ({reason})", self.id.name);
        Diagnostic::error(format!("spec.listeners[{}]", self.index), message, "see the conditions of the listener")
            .with_reason(Reason::OtherCondition)
    }

    /// Marks the listener as not served for a reason outside of its own fields.
    pub(in crate::compile) fn set_not_served(&mut self, code: Code, problem: Diagnostic) {
        self.served = false;
        self.secure = false;
        for condition in &mut self.conditions {
            if condition.code == Code::ListenerProgrammed {
                *condition = Condition::new(code, vec![problem.clone()]);
            }
        }
    }
}

/// For the condition Programmed of an object some of whose listeners are served: those that are not. A program that
/// waits for the condition reads only its message.
pub(in crate::compile) fn unserved_warnings(listeners: &[ListenerPlan]) -> Vec<Diagnostic> {
    let unserved = listeners.iter().filter(|listener| !listener.served);
    unserved.map(|listener| listener.summary("served").into_warning()).collect()
}

/// The listeners of an object, and the Gateway that serves them.
#[derive(Clone, Copy)]
pub(in crate::compile) struct ListenerSource<'a> {
    /// The Gateway, or a ListenerSet.
    pub declared_by: &'a ObjectId,
    pub gateway: &'a Object<Gateway>,
    pub listeners: &'a [Listener],
}

/// Finds what else uses a port: the address, and the owner in words.
pub(in crate::compile) type OtherOwner<'a> = dyn Fn(TransportPort) -> Option<(IpAddr, String)> + 'a;

/// Plans all listeners of an object. The certificates are returned separately because routes do not depend on them.
pub(in crate::compile) fn plan_all(
    cx: CompileContext<'_>,
    secrets: &mut SecretCache,
    source: ListenerSource<'_>,
    conflicts: &Conflicts,
    other_owner: &OtherOwner<'_>,
) -> (Vec<ListenerPlan>, Vec<Arc<Certificates>>) {
    let (mut plans, mut certificates) = (Vec::new(), Vec::new());
    for (index, listener) in source.listeners.iter().enumerate() {
        let (plan, listener_certificates) =
            plan(cx, secrets, source, index, listener, conflicts.get(&index), other_owner);
        plans.push(plan);
        certificates.push(Arc::new(listener_certificates));
    }
    (plans, certificates)
}

fn plan(
    cx: CompileContext<'_>,
    secrets: &mut SecretCache,
    source: ListenerSource<'_>,
    index: usize,
    listener: &Listener,
    conflict: Option<&ListenerConflict>,
    other_owner: &OtherOwner<'_>,
) -> (ListenerPlan, Certificates) {
    let field = format!("spec.listeners[{index}]");
    let protocol = ListenerProtocol::from_listener(listener);
    let (supported_kinds, kind_problems) = supported_route_kinds(protocol, listener, &field);
    let validation = match protocol {
        ListenerProtocol::Https => PortValidation::of_port(cx, secrets, source.gateway, port(listener)),
        _ => None,
    };
    let (certificates, mut certificates_resolved) = match protocol.terminates_tls() {
        true => resolve_certificates(cx.store, secrets, source.declared_by, listener, &field),
        false => (Certificates::default(), Condition::without_diagnostics(Code::ListenerResolvedRefs)),
    };
    let mut client_validation = None;
    let mut rejection = rejection(source.gateway, listener, conflict, other_owner, &field);
    if let Some(validation) = validation {
        let unverifiable = validation.rejection().map(|problem| (Code::ListenerNoValidCaCertificate, vec![problem]));
        rejection = rejection.or(unverifiable);
        for (code, problem) in validation.unresolved {
            certificates_resolved.add(code, problem);
        }
        client_validation = validation.clients;
    }
    let certificates = certificates.with_client_validation(client_validation);
    let (mut served, mut secure) = (false, false);
    let mut conditions = match rejection {
        Some((code, problems)) => {
            vec![Condition::new(code, problems.clone()), Condition::new(not_programmed(code), problems)]
        }
        None => {
            secure = protocol.terminates_tls();
            served = !(secure && certificates.all().is_empty());
            let programmed = match served {
                true => Condition::without_diagnostics(Code::ListenerProgrammed),
                // Repeat the same diagnostics, so that one mistake is not reported in two ways.
                false => Condition::new(Code::ListenerNotProgrammed, certificates_resolved.diagnostics.clone()),
            };
            vec![Condition::without_diagnostics(Code::ListenerAccepted), programmed]
        }
    };
    conditions.push(match kind_problems {
        problems if problems.is_empty() => certificates_resolved,
        problems => Condition::new(Code::ListenerInvalidRouteKinds, problems),
    });
    if let Some((code, problem)) = conflict.and_then(|conflict| Some((conflict.conflicted_code()?, &conflict.problem)))
    {
        conditions.push(Condition::new(code, vec![problem.clone()]));
    }
    let plan = ListenerPlan {
        id: ListenerId { declared_by: source.declared_by.clone(), name: Arc::from(&*listener.name) },
        index,
        hostname: HostPattern::parse(listener.hostname.as_deref()),
        protocol,
        port: port(listener),
        bound_port: None,
        supported_kinds,
        namespaces: allowed_namespaces(listener),
        served,
        secure,
        conditions,
    };
    (plan, certificates)
}

fn port(listener: &Listener) -> u16 {
    u16::try_from(listener.port).unwrap_or_default()
}

/// The code and diagnostics of a listener that is not accepted; `None` if it is accepted. Of several reasons, the one
/// that is checked first counts.
fn rejection(
    gateway: &Object<Gateway>,
    listener: &Listener,
    conflict: Option<&ListenerConflict>,
    other_owner: &OtherOwner<'_>,
    field: &str,
) -> Option<(Code, Vec<Diagnostic>)> {
    let protocol = ListenerProtocol::from_listener(listener);
    if protocol.route_kinds().is_empty() {
        let message = format!("protocol {} is not served", listener.protocol);
        let problem = Diagnostic::error(format!("{field}.protocol"), message, "use HTTP, HTTPS, TLS, TCP or UDP");
        return Some((Code::ListenerUnsupportedProtocol, vec![problem]));
    }
    let unsupported = unsupported_fields(gateway, listener, protocol, field);
    if !unsupported.is_empty() {
        return Some((Code::ListenerUnsupportedValue, unsupported));
    }
    if let Some(conflict) = conflict {
        return Some((conflict.accepted_code(), vec![conflict.problem.clone()]));
    }
    let port = TransportPort { transport: protocol.transport()?, number: port(listener) };
    let (address, owner) = other_owner(port)?;
    let message = format!("port {} of {address} is used by {owner}", port.number);
    let remedy = "choose another port, or give this Gateway a separate address";
    Some((Code::ListenerPortUnavailable, vec![Diagnostic::error(format!("{field}.port"), message, remedy)]))
}

/// The code of the Programmed condition for the code of an Accepted condition with status False.
fn not_programmed(rejection: Code) -> Code {
    match rejection {
        Code::ListenerHostnameConflictRefused => Code::ListenerHostnameConflictUnserved,
        Code::ListenerProtocolConflictRefused => Code::ListenerProtocolConflictUnserved,
        _ => Code::ListenerNotProgrammed,
    }
}

fn allowed_namespaces(listener: &Listener) -> Namespaces {
    let allowed = listener.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref());
    match allowed.and_then(|namespaces| namespaces.from.as_deref()) {
        Some("All") => Namespaces::All,
        Some("Selector") => {
            // As in Kubernetes, a missing selector matches nothing, and an empty one everything.
            allowed.and_then(|allowed| allowed.selector.clone()).map_or(Namespaces::None, Namespaces::Selector)
        }
        // An unknown value allows no more than the default does; `unsupported_fields` reports it.
        _ => Namespaces::Same,
    }
}

/// The kinds that may attach, and diagnostics about requested kinds that may not.
fn supported_route_kinds(
    protocol: ListenerProtocol,
    listener: &Listener,
    field: &str,
) -> (Vec<RouteGroupKind>, Vec<Diagnostic>) {
    let served_kinds = protocol.route_kinds();
    let group_kind = |kind: &Kind| RouteGroupKind { group: GATEWAY_GROUP.to_owned(), kind: kind.name().to_owned() };
    let requested_kinds = listener.allowed_routes.as_ref().map_or(&[][..], |routes| &routes.kinds[..]);
    if requested_kinds.is_empty() || served_kinds.is_empty() {
        return (served_kinds.iter().map(group_kind).collect(), Vec::new());
    }
    let mut kinds: Vec<RouteGroupKind> = Vec::new();
    let mut problems = Vec::new();
    for (index, requested) in requested_kinds.iter().enumerate() {
        if served_kinds.iter().map(group_kind).any(|kind| kind == *requested) {
            if !kinds.contains(requested) {
                kinds.push(requested.clone());
            }
        } else {
            let message = format!(
                "routes of kind {} of group {} cannot attach to a listener of protocol {}",
                requested.kind, requested.group, listener.protocol
            );
            let allowed: Vec<_> = served_kinds.iter().map(|kind| kind.name()).collect();
            let remedy = format!("use {}", allowed.join(" or "));
            problems.push(Diagnostic::error(format!("{field}.allowedRoutes.kinds[{index}]"), message, remedy));
        }
    }
    (kinds, problems)
}

/// The usable certificates, and the ResolvedRefs condition about all references. An invalid certificate does not affect
/// the hosts of the other certificates.
fn resolve_certificates(
    store: &Store,
    secrets: &mut SecretCache,
    declared_by: &ObjectId,
    listener: &Listener,
    field: &str,
) -> (Certificates, Condition) {
    let references = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs[..]);
    if references.is_empty() {
        let remedy = "refer to a Secret of type kubernetes.io/tls";
        let message = "a listener that terminates TLS needs a certificate";
        let problem = Diagnostic::error(format!("{field}.tls.certificateRefs"), message, remedy);
        return (Certificates::default(), Condition::new(Code::ListenerInvalidCertificateRef, vec![problem]));
    }
    let mut code = Code::ListenerResolvedRefs;
    let (mut certificates, mut problems) = (Vec::new(), Vec::new());
    for (index, reference) in references.iter().enumerate() {
        let field = format!("{field}.tls.certificateRefs[{index}]");
        match certificates::resolve(store, secrets, declared_by, reference, &field) {
            Ok(certificate) => certificates.push(certificate),
            Err((reason, problem)) => {
                // The first reason becomes the condition's reason; the message has all diagnostics.
                if problems.is_empty() {
                    code = reason;
                }
                problems.push(problem);
            }
        }
    }
    (Certificates::new(certificates), Condition::new(code, problems))
}

/// Diagnostics about valid fields that are not supported. Filters protect backends, so the listener is not served
/// without them.
fn unsupported_fields(
    gateway: &Object<Gateway>,
    listener: &Listener,
    protocol: ListenerProtocol,
    field: &str,
) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    if listener.filters.is_some() {
        let message = "filters of listeners are not served";
        problems.push(Diagnostic::error(format!("{field}.filters"), message, "move the filters to the routes"));
    }
    if let Some(namespaces) = listener.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref()) {
        let path = format!("{field}.allowedRoutes.namespaces");
        match namespaces.from.as_deref() {
            None | Some("All" | "Same") => {}
            Some("Selector") => {
                let selector = namespaces.selector.iter().flat_map(|selector| &selector.match_expressions);
                for (index, expression) in selector.enumerate() {
                    if !label_selector::is_known_operator(&expression.operator) {
                        let path = format!("{path}.selector.matchExpressions[{index}].operator");
                        let message = format!("{} is not an operator of a label selector", expression.operator);
                        problems.push(Diagnostic::error(path, message, "use In, NotIn, Exists or DoesNotExist"));
                    }
                }
            }
            Some(other) => {
                let message = format!("{other} is not a supported value");
                problems.push(Diagnostic::error(format!("{path}.from"), message, "use All, Same or Selector"));
            }
        }
    }
    if let Some(tls) = listener.tls.as_ref().filter(|_| protocol.terminates_tls()) {
        if tls.mode != "Terminate" {
            let message = format!("mode {} is not served on a listener of protocol {}", tls.mode, listener.protocol);
            problems.push(Diagnostic::error(format!("{field}.tls.mode"), message, "use Terminate"));
        }
        if let Some(option) = tls.options.keys().next() {
            let message = format!("TLS option {option} is not supported");
            problems.push(Diagnostic::error(format!("{field}.tls.options"), message, "remove the option"));
        }
    }
    if protocol == ListenerProtocol::Https {
        problems.extend(frontend_validation::unknown_modes(gateway, port(listener)));
    }
    problems
}
