//! A listener of a Gateway: may it be served, for which hostname, and which routes does it let in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::certificates::{self, Secrets};
use super::overlaps;
use super::selector;
use super::verdict::{Code, Condition, Problem};
use crate::api::gateway::{Gateway, LabelSelector, Listener, RouteGroupKind};
use crate::api::kind::GATEWAY_GROUP;
use crate::api::{Kind, Object, ObjectKey};
use crate::snapshot::certs::Certificates;
use crate::snapshot::host::HostPattern;
use crate::store::Store;

/// A listener with all its questions answered.
#[derive(Debug, PartialEq)]
pub(super) struct ListenerPlan {
    pub name: Arc<str>,
    index: usize,
    pub hostname: HostPattern,
    /// The port that clients see.
    pub port: u16,
    /// The port that we listen on; None if none was given to it yet.
    pub bound: Option<u16>,
    /// Kinds of route that may attach; empty if the protocol has none.
    pub supported_kinds: Vec<RouteGroupKind>,
    pub namespaces: Namespaces,
    /// Requests are answered on it.
    pub served: bool,
    /// Its port shakes hands. Without a certificate it refuses whoever asks for this hostname, since no other listener of
    /// the port may answer in its place.
    pub secure: bool,
    pub conditions: Vec<Condition>,
}

/// Routes of which namespaces may attach.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Namespaces {
    All,
    Same,
    Selector(LabelSelector),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Https,
    Tls,
    Tcp,
    Udp,
    Other,
}

impl Protocol {
    fn of(listener: &Listener) -> Self {
        match &*listener.protocol {
            "HTTP" => Protocol::Http,
            "HTTPS" => Protocol::Https,
            "TLS" => Protocol::Tls,
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => Protocol::Other,
        }
    }

    /// What of a port two listeners must share for the port to be told apart by something else.
    fn sharing(self) -> Option<Sharing> {
        match self {
            Protocol::Http => Some(Sharing::Cleartext),
            Protocol::Https | Protocol::Tls => Some(Sharing::Tls),
            Protocol::Tcp => Some(Sharing::Stream),
            Protocol::Udp | Protocol::Other => None,
        }
    }

    /// Kinds of route that such a listener can have, as far as we serve them.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Protocol::Http | Protocol::Https => &[Kind::HttpRoute],
            Protocol::Tls | Protocol::Tcp | Protocol::Udp | Protocol::Other => &[],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sharing {
    Cleartext,
    Tls,
    Stream,
}

impl ListenerPlan {
    pub(super) fn accepted(&self) -> bool {
        self.conditions.iter().any(|condition| condition.code == Code::ListenerAccepted)
    }

    /// Clients can connect, even if it is only to be refused.
    pub(super) fn opens_port(&self) -> bool {
        self.served || self.secure
    }

    /// One line for the Gateway's own condition.
    pub(super) fn summary(&self, what: &str) -> Problem {
        let refused = self.conditions.iter().find(|condition| !condition.code.status());
        let reason = refused.map_or("Invalid", |condition| condition.code.reason());
        let message = format!("listener {} is not {what} ({reason})", self.name);
        Problem::new(format!("spec.listeners[{}]", self.index), message, "see the conditions of the listener")
    }

    /// Takes the listener out of service for a reason that lies outside of it.
    pub(super) fn not_served(&mut self, code: Code, problem: Problem) {
        self.served = false;
        self.secure = false;
        for condition in &mut self.conditions {
            if condition.code == Code::ListenerProgrammed {
                *condition = Condition::new(code, vec![problem.clone()]);
            }
        }
    }
}

/// Whether such listeners are served at all; one that is not has no use for its port.
pub(super) fn wants_port(listener: &Listener) -> bool {
    !Protocol::of(listener).kinds().is_empty()
}

/// Plans all listeners of a Gateway; they are looked at together since they may contradict each other. `taken` names the
/// address and the Gateway that has a port already. Beside each stand its certificates, of which a change concerns no
/// route.
pub(super) fn plan_all(
    store: &Store,
    secrets: &mut Secrets,
    gateway: &Object<Gateway>,
    taken: &dyn Fn(u16) -> Option<(IpAddr, ObjectKey)>,
) -> (Vec<ListenerPlan>, Vec<Arc<Certificates>>) {
    let listeners = &gateway.spec.listeners;
    let conflicts = conflicts(listeners);
    let (mut plans, mut certificates) = (Vec::new(), Vec::new());
    for (index, listener) in listeners.iter().enumerate() {
        let (plan, own) = plan(store, secrets, gateway, index, listener, conflicts.get(&index), taken);
        plans.push(plan);
        certificates.push(Arc::new(own));
    }
    for (index, overlap) in overlaps::find(listeners, &certificates) {
        plans[index].conditions.push(overlap);
    }
    (plans, certificates)
}

fn plan(
    store: &Store,
    secrets: &mut Secrets,
    gateway: &Object<Gateway>,
    index: usize,
    listener: &Listener,
    conflict: Option<&Conflict>,
    taken: &dyn Fn(u16) -> Option<(IpAddr, ObjectKey)>,
) -> (ListenerPlan, Certificates) {
    let field = format!("spec.listeners[{index}]");
    let protocol = Protocol::of(listener);
    let (supported_kinds, kind_problems) = route_kinds(protocol, listener, &field);
    let (certificates, certificates_resolved) = match protocol {
        Protocol::Https => resolve_certificates(store, secrets, gateway, listener, &field),
        _ => (Certificates::default(), Condition::plain(Code::ListenerResolvedRefs)),
    };
    let resolved = match kind_problems {
        problems if problems.is_empty() => certificates_resolved.clone(),
        problems => Condition::new(Code::ListenerInvalidRouteKinds, problems),
    };
    let port = u16::try_from(listener.port).unwrap_or_default();

    let (mut served, mut secure) = (false, false);
    let mut conditions = Vec::new();
    let mut refuse = |code: Code, problems: Vec<Problem>| {
        conditions.push(Condition::new(code, problems.clone()));
        let unserved = match code {
            Code::ListenerHostnameConflictRefused => Code::ListenerHostnameConflictUnserved,
            Code::ListenerProtocolConflictRefused => Code::ListenerProtocolConflictUnserved,
            _ => Code::ListenerNotProgrammed,
        };
        conditions.push(Condition::new(unserved, problems));
    };
    let unsupported = unsupported(gateway, listener, protocol, &field);
    if protocol.kinds().is_empty() {
        let message = format!("protocol {} is not served", listener.protocol);
        refuse(
            Code::ListenerUnsupportedProtocol,
            vec![Problem::new(format!("{field}.protocol"), message, "use HTTP or HTTPS")],
        );
    } else if !unsupported.is_empty() {
        refuse(Code::ListenerUnsupportedValue, unsupported);
    } else if let Some(conflict) = conflict {
        refuse(conflict.refused(), vec![conflict.problem.clone()]);
    } else if let Some((address, owner)) = taken(port) {
        let message = format!("port {port} of {address} belongs to Gateway {owner}");
        let remedy = "choose another port, or give this Gateway an address of its own";
        refuse(Code::ListenerPortUnavailable, vec![Problem::new(format!("{field}.port"), message, remedy)]);
    } else {
        conditions.push(Condition::plain(Code::ListenerAccepted));
        secure = protocol == Protocol::Https;
        if secure && certificates.all().is_empty() {
            // The very reasons, so that whoever looks is not told two things about one mistake.
            conditions.push(Condition::new(Code::ListenerNotProgrammed, certificates_resolved.problems.clone()));
        } else {
            served = true;
            conditions.push(Condition::plain(Code::ListenerProgrammed));
        }
    }
    conditions.push(resolved);
    if let Some(conflict) = conflict {
        conditions.push(Condition::new(conflict.conflicted(), vec![conflict.problem.clone()]));
    }
    let plan = ListenerPlan {
        name: Arc::from(&*listener.name),
        index,
        hostname: HostPattern::parse(listener.hostname.as_deref()),
        port,
        bound: None,
        supported_kinds,
        namespaces: namespaces(listener),
        served,
        secure,
        conditions,
    };
    (plan, certificates)
}

fn namespaces(listener: &Listener) -> Namespaces {
    let allowed = listener.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref());
    match allowed.and_then(|namespaces| namespaces.from.as_deref()) {
        Some("All") => Namespaces::All,
        Some("Selector") => {
            // Without a selector there is nothing that could match: an empty one would let everybody in.
            allowed.and_then(|allowed| allowed.selector.clone()).map_or(Namespaces::Same, Namespaces::Selector)
        }
        // A value of a newer release lets in no more than the default does; `unsupported` says so.
        _ => Namespaces::Same,
    }
}

/// The kinds that may attach, and what is wrong with those asked for.
fn route_kinds(protocol: Protocol, listener: &Listener, field: &str) -> (Vec<RouteGroupKind>, Vec<Problem>) {
    let servable = protocol.kinds();
    let group_kind = |kind: &Kind| RouteGroupKind { group: GATEWAY_GROUP.to_owned(), kind: kind.name().to_owned() };
    let asked = listener.allowed_routes.as_ref().map_or(&[][..], |routes| &routes.kinds[..]);
    if asked.is_empty() || servable.is_empty() {
        return (servable.iter().map(group_kind).collect(), Vec::new());
    }
    let mut kinds: Vec<RouteGroupKind> = Vec::new();
    let mut problems = Vec::new();
    for (index, wanted) in asked.iter().enumerate() {
        if servable.iter().map(group_kind).any(|kind| kind == *wanted) {
            if !kinds.contains(wanted) {
                kinds.push(wanted.clone());
            }
        } else {
            let message = format!(
                "routes of kind {} of group {} cannot attach to a listener of protocol {}",
                wanted.kind, wanted.group, listener.protocol
            );
            let possible: Vec<_> = servable.iter().map(|kind| kind.name()).collect();
            let remedy = format!("use {}", possible.join(" or "));
            problems.push(Problem::new(format!("{field}.allowedRoutes.kinds[{index}]"), message, remedy));
        }
    }
    (kinds, problems)
}

/// The certificates that can be used, and the ResolvedRefs condition about all. One that is broken does not take the names
/// of the others out of service.
fn resolve_certificates(
    store: &Store,
    secrets: &mut Secrets,
    gateway: &Object<Gateway>,
    listener: &Listener,
    field: &str,
) -> (Certificates, Condition) {
    let references = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs[..]);
    if references.is_empty() {
        let remedy = "name a Secret of type kubernetes.io/tls";
        let problem =
            Problem::new(format!("{field}.tls.certificateRefs"), "an HTTPS listener needs a certificate", remedy);
        return (Certificates::default(), Condition::new(Code::ListenerInvalidCertificateRef, vec![problem]));
    }
    let mut code = Code::ListenerResolvedRefs;
    let (mut certificates, mut problems) = (Vec::new(), Vec::new());
    for (index, reference) in references.iter().enumerate() {
        let field = format!("{field}.tls.certificateRefs[{index}]");
        match certificates::resolve(store, secrets, &gateway.meta.key, reference, &field) {
            Ok(certificate) => certificates.push(certificate),
            Err((reason, problem)) => {
                // The first reason stands; the message tells all of them.
                if problems.is_empty() {
                    code = reason;
                }
                problems.push(problem);
            }
        }
    }
    (Certificates::new(certificates), Condition::new(code, problems))
}

/// Valid fields that we do not honor. Filters and client certificates guard what is behind them, so the listener is not
/// served without.
fn unsupported(gateway: &Object<Gateway>, listener: &Listener, protocol: Protocol, field: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if listener.filters.is_some() {
        let message = "filters of listeners are not served";
        problems.push(Problem::new(format!("{field}.filters"), message, "put the filters into the routes"));
    }
    if let Some(namespaces) = listener.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref()) {
        let path = format!("{field}.allowedRoutes.namespaces");
        match namespaces.from.as_deref() {
            None | Some("All" | "Same") => {}
            Some("Selector") => {
                let selector = namespaces.selector.iter().flat_map(|selector| &selector.match_expressions);
                for (index, expression) in selector.enumerate() {
                    if !selector::is_known_operator(&expression.operator) {
                        let path = format!("{path}.selector.matchExpressions[{index}].operator");
                        let message = format!("{} is not an operator of a label selector", expression.operator);
                        problems.push(Problem::new(path, message, "use In, NotIn, Exists or DoesNotExist"));
                    }
                }
            }
            Some(other) => {
                let message = format!("{other} is not a choice of namespaces that is served");
                problems.push(Problem::new(format!("{path}.from"), message, "use All, Same or Selector"));
            }
        }
    }
    if protocol == Protocol::Https {
        if let Some(tls) = &listener.tls {
            if tls.mode != "Terminate" {
                let message = format!("mode {} is not served on an HTTPS listener", tls.mode);
                problems.push(Problem::new(format!("{field}.tls.mode"), message, "use Terminate"));
            }
            if let Some(option) = tls.options.keys().next() {
                let message = format!("TLS option {option} is not known");
                problems.push(Problem::new(format!("{field}.tls.options"), message, "remove it"));
            }
        }
        if gateway.spec.tls.as_ref().is_some_and(|tls| tls.frontend.is_some()) {
            let message =
                "client certificates are not checked by this version, so nothing is served without that check";
            problems.push(Problem::new("spec.tls.frontend", message, "remove it only if clients need no certificate"));
        }
    }
    problems
}

/// Two listeners that cannot both be.
struct Conflict {
    hostname: bool,
    problem: Problem,
}

impl Conflict {
    fn refused(&self) -> Code {
        if self.hostname { Code::ListenerHostnameConflictRefused } else { Code::ListenerProtocolConflictRefused }
    }

    fn conflicted(&self) -> Code {
        if self.hostname { Code::ListenerHostnameConflict } else { Code::ListenerProtocolConflict }
    }
}

/// Gateway API: inside one Gateway all conflicting listeners lose, so that no order decides silently.
fn conflicts(listeners: &[Listener]) -> BTreeMap<usize, Conflict> {
    let mut found = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        let Some(sharing) = Protocol::of(listener).sharing() else { continue };
        let others = listeners.iter().enumerate().filter(|(other, candidate)| {
            *other != index && candidate.port == listener.port && Protocol::of(candidate).sharing().is_some()
        });
        for (_, other) in others {
            let other_sharing = Protocol::of(other).sharing();
            let field = format!("spec.listeners[{index}]");
            let same_host = sharing == Sharing::Stream
                || HostPattern::parse(other.hostname.as_deref()) == HostPattern::parse(listener.hostname.as_deref());
            let conflict = if other_sharing != Some(sharing) {
                let message = format!(
                    "listener {} uses port {} for {}, which cannot share it with {}",
                    other.name, other.port, other.protocol, listener.protocol
                );
                Conflict {
                    hostname: false,
                    problem: Problem::new(format!("{field}.protocol"), message, "use another port"),
                }
            } else if same_host {
                let message = format!("listener {} has the same port and hostname", other.name);
                let remedy = "change the hostname or port of one, or remove one";
                Conflict { hostname: true, problem: Problem::new(format!("{field}.hostname"), message, remedy) }
            } else {
                continue;
            };
            found.entry(index).or_insert(conflict);
        }
    }
    found
}
