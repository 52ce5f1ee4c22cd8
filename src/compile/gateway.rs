//! A Gateway: is it ours, what are its addresses, and which of its listeners can be served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::certificates::Secrets;
use super::listener::{self, ListenerPlan};
use super::verdict::{Code, Condition, ListenerVerdict, Problem, Verdict};
use super::{Fronted, Inputs};
use crate::api::gateway::{Gateway, GatewayClass};
use crate::api::{Kind, Object, ObjectKey};
use crate::snapshot::certs::Certificates;
use crate::store::Store;

/// A Gateway of ours with all its questions answered, but for the routes that attach to it.
#[derive(Debug, PartialEq)]
pub(super) struct GatewayPlan {
    pub key: ObjectKey,
    pub generation: i64,
    /// Of its class; routes that attach are judged in this name.
    pub controller: Arc<str>,
    pub listeners: Vec<ListenerPlan>,
    /// Those of each listener, in the same order.
    pub certificates: Vec<Arc<Certificates>>,
    /// Addresses to listen on.
    pub bind: Vec<IpAddr>,
    /// Addresses to tell the world.
    reported: Vec<String>,
    conditions: Vec<Condition>,
}

/// Who owns which port: of several Gateways with the same address the oldest wins, then the first by name.
pub(super) type PortOwners = BTreeMap<(IpAddr, u16), ObjectKey>;

/// What a Gateway's class means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Missing,
    /// Another controller's: not a word about it.
    Foreign,
    Accepted,
    /// Ours, but with something in it that we cannot honor.
    Refused,
}

pub(super) fn class(store: &Store, inputs: &Inputs<'_>, name: &str) -> Class {
    match store.gateway_classes.get(&ObjectKey::cluster(name)) {
        None => Class::Missing,
        Some(class) => class_of(class, inputs),
    }
}

fn class_of(class: &GatewayClass, inputs: &Inputs<'_>) -> Class {
    if !inputs.controllers.contains(&class.spec.controller_name) {
        Class::Foreign
    } else if class.spec.parameters_ref.is_some() {
        Class::Refused
    } else {
        Class::Accepted
    }
}

fn controller(store: &Store, class: &str) -> Arc<str> {
    let class = store.gateway_classes.get(&ObjectKey::cluster(class));
    class.map_or("", |class| class.spec.controller_name.as_str()).into()
}

/// The verdict on a GatewayClass; without conditions if it is not ours.
pub(super) fn class_verdict(class: &Object<GatewayClass>, inputs: &Inputs<'_>) -> Verdict {
    let mut verdict = Verdict { generation: class.meta.generation, ..Verdict::default() };
    match class_of(class, inputs) {
        Class::Foreign | Class::Missing => {
            let ours = inputs.controllers.join(" or ");
            verdict.notes.push(Problem::new(
                "spec.controllerName",
                format!("{} is another controller", class.spec.controller_name),
                format!("this Portico serves {ours}"),
            ));
        }
        Class::Accepted => verdict.conditions.push(Condition::plain(Code::ClassAccepted)),
        Class::Refused => {
            let problem = Problem::new(
                "spec.parametersRef",
                "parameters of a GatewayClass are not served",
                "remove parametersRef; command line flags set what holds for all Gateways",
            );
            verdict.conditions.push(Condition::new(Code::ClassInvalidParameters, vec![problem]));
        }
    }
    verdict
}

/// The Gateways whose class is ours, oldest first.
pub(super) fn ours<'a>(store: &'a Store, inputs: &Inputs<'_>) -> Vec<&'a Arc<Object<Gateway>>> {
    by_age(store, inputs.controllers)
}

/// The Gateways of the classes of these controllers, oldest first, then by name: whoever comes first keeps what two want.
pub(super) fn by_age<'a>(store: &'a Store, controllers: &[String]) -> Vec<&'a Arc<Object<Gateway>>> {
    let mut gateways: Vec<_> = store
        .gateways
        .values()
        .filter(|gateway| {
            let class = store.gateway_classes.get(&ObjectKey::cluster(&gateway.spec.gateway_class_name));
            class.is_some_and(|class| controllers.contains(&class.spec.controller_name))
        })
        .collect();
    gateways.sort_by(|a, b| (a.meta.created, &a.meta.key).cmp(&(b.meta.created, &b.meta.key)));
    gateways
}

/// What is to be in front of a Gateway of ours.
pub(super) fn fronted<'a>(store: &'a Store, gateway: &'a Object<Gateway>) -> Option<Fronted<'a>> {
    let class = store.gateway_classes.get(&ObjectKey::cluster(&gateway.spec.gateway_class_name))?;
    let accepted = if class.spec.parameters_ref.is_some() { Class::Refused } else { Class::Accepted };
    let listeners = gateway.spec.listeners.iter().filter(|listener| listener::wants_port(listener));
    let ports: BTreeSet<u16> = listeners.filter_map(|listener| u16::try_from(listener.port).ok()).collect();
    let refused = refusal(gateway, accepted, &[]).is_some();
    Some(Fronted { gateway, controller: &class.spec.controller_name, ports, refused })
}

/// Hands every (address, port) that some Gateway listens on to the first that wants it and can be served.
pub(super) fn port_owners(store: &Store, inputs: &Inputs<'_>) -> PortOwners {
    let mut owners = PortOwners::new();
    for gateway in ours(store, inputs) {
        let Some(assigned) = inputs.addresses.of(&gateway.meta.key) else { continue };
        let class = class(store, inputs, &gateway.spec.gateway_class_name);
        if refusal(gateway, class, &assigned.unsupported).is_some() {
            continue;
        }
        for listener in gateway.spec.listeners.iter().filter(|listener| listener::wants_port(listener)) {
            let port = u16::try_from(listener.port).ok().and_then(|port| assigned.ports.of(port));
            let Some(port) = port else { continue };
            for address in &assigned.bind {
                if owner(&owners, *address, port, &gateway.meta.key).is_none() {
                    owners.entry((*address, port)).or_insert_with(|| gateway.meta.key.clone());
                }
            }
        }
    }
    owners
}

/// The other Gateway that has the port of this address. All interfaces include every address of their family.
fn owner<'a>(owners: &'a PortOwners, address: IpAddr, port: u16, gateway: &ObjectKey) -> Option<&'a ObjectKey> {
    let all = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let other = |owner: &&ObjectKey| **owner != *gateway;
    owners.get(&(address, port)).filter(other).or_else(|| owners.get(&(all, port)).filter(other)).or_else(|| {
        let same = |at: &(IpAddr, u16)| at.0.is_ipv4() == address.is_ipv4() && at.1 == port;
        let mut narrower = owners.iter().filter(|(at, _)| address == all && same(at)).map(|(_, owner)| owner);
        narrower.find(other)
    })
}

/// Answers everything about a Gateway that routes do not change. None if its class is not ours; then `foreign_verdict`
/// has what there is to say.
pub(super) fn plan(
    store: &Store,
    inputs: &Inputs<'_>,
    owners: &PortOwners,
    secrets: &mut Secrets,
    gateway: &Object<Gateway>,
) -> Option<GatewayPlan> {
    let class = class(store, inputs, &gateway.spec.gateway_class_name);
    if matches!(class, Class::Missing | Class::Foreign) {
        return None;
    }
    let nothing = Default::default();
    let assigned = inputs.addresses.of(&gateway.meta.key).unwrap_or(&nothing);
    let refusal = refusal(gateway, class, &assigned.unsupported);
    let refused = refusal.is_some();
    let usable = !refused && !assigned.bind.is_empty();
    let (mut listeners, certificates) = listener::plan_all(store, secrets, gateway, &|port| {
        let port = assigned.ports.of(port)?;
        let taken = |address: &IpAddr| owner(owners, *address, port, &gateway.meta.key);
        assigned.bind.iter().filter(|_| !refused).find_map(|address| Some((*address, taken(address)?.clone())))
    });
    for listener in &mut listeners {
        listener.bound = assigned.ports.of(listener.port);
        if !usable {
            let problem = Problem::new("", "its Gateway is not served", "see the conditions of the Gateway");
            listener.not_served(Code::ListenerNotProgrammed, problem);
        } else if listener.bound.is_none() && listener.opens_port() {
            let message = format!("the Gateway's Service does not have port {} yet", listener.port);
            let remedy = "the replica that leads adds it; if it does not, see the conditions of the Gateway";
            listener.not_served(Code::ListenerPending, Problem::new("", message, remedy));
        }
    }

    let mut remarks = remarks(gateway);
    remarks.extend(assigned.remarks.iter().cloned());
    let bad = listeners.iter().filter(|listener| !listener.accepted()).count();
    let listed = |code: Code, more: Vec<Problem>| {
        let mut problems: Vec<_> = listeners
            .iter()
            .filter(|listener| !listener.accepted())
            .map(|listener| listener.summary("accepted"))
            .collect();
        problems.extend(more);
        Condition::new(code, problems)
    };
    let accepted = match refusal {
        Some(condition) => condition,
        None if bad == 0 => Condition::new(Code::GatewayAccepted, remarks),
        None if bad < listeners.len() => listed(Code::GatewaySomeListenersInvalid, remarks),
        None => listed(Code::GatewayNoListenerValid, remarks),
    };
    let programmed = if refused {
        let problem = Problem::new("", "the Gateway is not accepted", "see its condition Accepted");
        Condition::new(Code::GatewayNotProgrammed, vec![problem])
    } else if !assigned.unusable.is_empty() {
        Condition::new(Code::GatewayAddressNotUsable, assigned.unusable.clone())
    } else if !assigned.unassigned.is_empty() {
        Condition::new(Code::GatewayAddressNotAssigned, assigned.unassigned.clone())
    } else if listeners.iter().any(|listener| listener.served) {
        Condition::plain(Code::GatewayProgrammed)
    } else {
        let problems = listeners.iter().map(|listener| listener.summary("served")).collect();
        Condition::new(Code::GatewayNotProgrammed, problems)
    };
    Some(GatewayPlan {
        key: gateway.meta.key.clone(),
        generation: gateway.meta.generation,
        controller: controller(store, &gateway.spec.gateway_class_name),
        bind: if usable { assigned.bind.clone() } else { Vec::new() },
        reported: if usable { assigned.reported.clone() } else { Vec::new() },
        conditions: vec![accepted, programmed],
        listeners,
        certificates,
    })
}

impl GatewayPlan {
    /// Whether routes can see a difference to another plan. Renewed certificates are none of their business.
    pub(super) fn is_alike_for_routes(&self, other: &GatewayPlan) -> bool {
        let GatewayPlan { key, generation, controller, listeners, certificates: _, bind, reported, conditions } = self;
        (key, generation, controller) == (&other.key, &other.generation, &other.controller)
            && (listeners, bind, reported) == (&other.listeners, &other.bind, &other.reported)
            && *conditions == other.conditions
    }

    /// Every address under which a listener can be reached.
    pub(super) fn sockets(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let reported: Vec<IpAddr> = self.reported.iter().filter_map(|address| address.parse().ok()).collect();
        self.listeners.iter().filter(|listener| listener.opens_port()).flat_map(move |listener| {
            let bound = self.bound(listener);
            bound.into_iter().chain(reported.clone().into_iter().map(|address| SocketAddr::new(address, listener.port)))
        })
    }

    /// Where a listener listens.
    fn bound(&self, listener: &ListenerPlan) -> Vec<SocketAddr> {
        let port = listener.bound.into_iter();
        port.flat_map(|port| self.bind.iter().map(move |address| SocketAddr::new(*address, port))).collect()
    }

    /// The verdict, now that it is known how many routes each listener has.
    pub(super) fn verdict(&self, attached: impl Fn(&str) -> u32) -> Verdict {
        Verdict {
            generation: self.generation,
            conditions: self.conditions.clone(),
            addresses: self.reported.clone(),
            listeners: self
                .listeners
                .iter()
                .map(|listener| ListenerVerdict {
                    name: listener.name.to_string(),
                    port: listener.port,
                    attached_routes: attached(&listener.name),
                    supported_kinds: listener.supported_kinds.clone(),
                    sockets: if listener.opens_port() { self.bound(listener) } else { Vec::new() },
                    conditions: listener.conditions.clone(),
                })
                .collect(),
            ..Verdict::default()
        }
    }
}

/// The verdict on a Gateway that is not ours: nothing to write, but something to tell whoever looks.
pub(super) fn foreign_verdict(store: &Store, inputs: &Inputs<'_>, gateway: &Object<Gateway>) -> Verdict {
    let name = &gateway.spec.gateway_class_name;
    let (message, remedy) = match class(store, inputs, name) {
        Class::Missing => (
            format!("GatewayClass {name} does not exist"),
            format!("create it with controllerName {}, or correct the name", inputs.controllers.join(" or ")),
        ),
        _ => (
            format!("GatewayClass {name} belongs to another controller"),
            "name a GatewayClass of Portico to be served by it".to_owned(),
        ),
    };
    Verdict {
        generation: gateway.meta.generation,
        notes: vec![Problem::new("spec.gatewayClassName", message, remedy)],
        ..Verdict::default()
    }
}

/// Why nothing of the Gateway can be accepted, if so.
fn refusal(gateway: &Object<Gateway>, class: Class, unsupported: &[Problem]) -> Option<Condition> {
    if class == Class::Refused {
        let name = &gateway.spec.gateway_class_name;
        let message = format!("GatewayClass {name} is not accepted");
        let problem = Problem::new("spec.gatewayClassName", message, "see its conditions");
        return Some(Condition::new(Code::GatewayInvalid, vec![problem]));
    }
    if let Some(reference) = gateway.spec.infrastructure.iter().find_map(|parts| parts.parameters_ref.as_ref()) {
        let message = format!("parameters of kind {} are not served", reference.kind);
        let problem = Problem::new("spec.infrastructure.parametersRef", message, "remove parametersRef");
        return Some(Condition::new(Code::GatewayInvalidParameters, vec![problem]));
    }
    (!unsupported.is_empty()).then(|| Condition::new(Code::GatewayUnsupportedAddress, unsupported.to_vec()))
}

/// Fields that are valid and have no effect: said, so that nobody relies on them.
fn remarks(gateway: &Object<Gateway>) -> Vec<Problem> {
    let mut remarks = Vec::new();
    let mut remark = |present: bool, field: &str, message: &str, remedy: &str| {
        if present {
            remarks.push(Problem::new(field, message, remedy));
        }
    };
    let spec = &gateway.spec;
    remark(
        spec.tls.as_ref().is_some_and(|tls| tls.backend.is_some()),
        "spec.tls.backend",
        "no certificate is shown to backends, since TLS towards backends is not served",
        "remove it until it is",
    );
    remark(
        spec.allowed_listeners
            .as_ref()
            .and_then(|allowed| allowed.namespaces.as_ref())
            .is_some_and(|namespaces| namespaces.from.as_deref().is_some_and(|from| from != "None")),
        "spec.allowedListeners",
        format!("{}s are not served", Kind::ListenerSet).as_str(),
        "write their listeners into the Gateway",
    );
    remark(
        spec.default_scope.as_deref().is_some_and(|scope| scope != "None"),
        "spec.defaultScope",
        "routes attach only to the Gateways they name",
        "name this Gateway in the parentRefs of the routes",
    );
    remarks
}
