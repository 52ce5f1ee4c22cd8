//! Finds listeners that cannot share their port: within a Gateway, and between a Gateway and its ListenerSets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smallvec::SmallVec;

use super::listener_protocol::{ListenerProtocol, PortGroup, port};
use crate::api::gateway::{Listener, ListenerSet};
use crate::api::{Kind, Object, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::transport_protocol::TransportPort;
use crate::verdict::Code;

/// Why a listener is refused because of other listeners.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compile) struct ListenerConflict {
    kind: ConflictKind,
    pub problem: Diagnostic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConflictKind {
    Hostname,
    Protocol,
    TooManyPorts,
}

/// The conflict of each refused listener of an object, by the listener's index.
pub(in crate::compile) type Conflicts = BTreeMap<usize, ListenerConflict>;

impl ListenerConflict {
    pub(in crate::compile) fn accepted_code(&self) -> Code {
        match self.kind {
            ConflictKind::Hostname => Code::ListenerHostnameConflictRefused,
            ConflictKind::Protocol => Code::ListenerProtocolConflictRefused,
            ConflictKind::TooManyPorts => Code::ListenerTooMany,
        }
    }

    /// The condition Conflicted, if the listener conflicts with a particular one.
    pub(in crate::compile) fn conflicted_code(&self) -> Option<Code> {
        match self.kind {
            ConflictKind::Hostname => Some(Code::ListenerHostnameConflict),
            ConflictKind::Protocol => Some(Code::ListenerProtocolConflict),
            ConflictKind::TooManyPorts => None,
        }
    }

    /// The conflict of a listener with another one that shares its port, and, if the listener has a host, the host.
    /// `namespace`: that of the listener, whose owner must not learn about ListenerSets of other namespaces.
    fn with(index: usize, listener: &Listener, other: &Claimant<'_>, namespace: &str) -> ListenerConflict {
        let field = format!("spec.listeners[{index}]");
        let (protocol, port) = (&other.listener.protocol, other.listener.port);
        let other_group = ListenerProtocol::from_listener(other.listener).port_group();
        let other = other.description(namespace);
        let group = ListenerProtocol::from_listener(listener).port_group();
        let (kind, problem) = if other_group != group {
            let message =
                format!("{other} uses port {port} for {protocol}, which cannot share it with {}", listener.protocol);
            (ConflictKind::Protocol, Diagnostic::error(format!("{field}.protocol"), message, "use another port"))
        } else if matches!(group, Some(PortGroup::Stream | PortGroup::Datagram)) {
            let message = format!("{other} has the same port");
            (ConflictKind::Hostname, Diagnostic::error(format!("{field}.port"), message, "use another port"))
        } else {
            let message = format!("{other} has the same port and hostname");
            let remedy = "change the hostname or port of one, or remove one";
            (ConflictKind::Hostname, Diagnostic::error(format!("{field}.hostname"), message, remedy))
        };
        ListenerConflict { kind, problem }
    }

    fn too_many_ports(index: usize, limit: usize) -> ListenerConflict {
        let message =
            format!("the listeners of the Gateway already have {limit} ports, the limit of --max-gateway-ports");
        let problem = Diagnostic::error(format!("spec.listeners[{index}].port"), message, "use one of these ports");
        ListenerConflict { kind: ConflictKind::TooManyPorts, problem }
    }
}

/// The first conflict of each listener of an object with another one of it. All conflicting listeners are rejected, as
/// Gateway API allows, so that their order does not matter.
pub(in crate::compile) fn find(listeners: &[Listener]) -> Conflicts {
    let all: Vec<_> = listeners.iter().enumerate().collect();
    find_among(&all)
}

/// The conflicts of listeners of one object, which have these indices.
fn find_among(listeners: &[(usize, &Listener)]) -> Conflicts {
    let described: Vec<_> =
        listeners.iter().map(|(_, listener)| (port(listener), group(listener), host(listener))).collect();
    // The first two listeners with each port and host, and the first of each group of protocols with each port.
    let mut by_host: BTreeMap<_, SmallVec<[usize; 2]>> = BTreeMap::new();
    let mut by_group: BTreeMap<_, BTreeMap<_, usize>> = BTreeMap::new();
    for (at, (port, group, host)) in described.iter().enumerate() {
        let same_host = by_host.entry((port, host)).or_default();
        if same_host.len() < 2 {
            same_host.push(at);
        }
        by_group.entry(port).or_default().entry(group).or_insert(at);
    }
    let mut conflicts = BTreeMap::new();
    for (at, ((index, listener), (port, group, host))) in listeners.iter().zip(&described).enumerate() {
        if port.is_none() {
            continue;
        }
        let of_other_group = by_group[&port].iter().filter(|(other, _)| *other != &group).map(|(_, at)| *at);
        let of_same_host = by_host[&(port, host)].iter().copied().filter(|other| *other != at);
        if let Some(other) = of_other_group.chain(of_same_host).min() {
            let other = Claimant { declared_by: None, listener: listeners[other].1 };
            conflicts.insert(*index, ListenerConflict::with(*index, listener, &other, ""));
        }
    }
    conflicts
}

/// The conflicts of the listeners of a Gateway's ListenerSets, which are in the order of their precedence. Listeners of
/// the Gateway have precedence over those of ListenerSets, which add at most as many ports as `max_ports` allows.
pub(in crate::compile) fn find_in_sets<'a>(
    gateway: &'a ObjectKey,
    listeners: &'a [Listener],
    sets: impl Iterator<Item = &'a Object<ListenerSet>>,
    max_ports: usize,
) -> BTreeMap<&'a ObjectKey, Conflicts> {
    let mut claims = PortClaims::default();
    for listener in listeners {
        claims.add(Claimant { declared_by: Some((Kind::Gateway, gateway)), listener });
    }
    let mut conflicts = BTreeMap::new();
    for set in sets {
        let mut of_set = Conflicts::new();
        let mut remaining = Vec::new();
        for (index, listener) in set.spec.listeners.iter().enumerate() {
            match claims.conflict(index, listener, &set.meta.key.namespace, max_ports) {
                Some(conflict) => drop(of_set.insert(index, conflict)),
                None => remaining.push((index, listener)),
            }
        }
        of_set.extend(find_among(&remaining));
        for (index, listener) in remaining {
            if !of_set.contains_key(&index) {
                claims.add(Claimant { declared_by: Some((Kind::ListenerSet, &set.meta.key)), listener });
            }
        }
        if !of_set.is_empty() {
            conflicts.insert(&set.meta.key, of_set);
        }
    }
    conflicts
}

/// The ports that listeners use, with those that have precedence.
#[derive(Default)]
struct PortClaims<'a> {
    ports: BTreeMap<TransportPort, PortClaim<'a>>,
    /// The ports that listeners want, including those that are refused.
    wanted: BTreeSet<TransportPort>,
}

struct PortClaim<'a> {
    first: Claimant<'a>,
    hosts: HashMap<HostPattern, Claimant<'a>>,
}

impl<'a> PortClaims<'a> {
    /// Adds a listener, unless one with precedence has its port and host.
    fn add(&mut self, claimant: Claimant<'a>) {
        let Some(port) = port(claimant.listener) else { return };
        self.wanted.insert(port);
        let claim = self.ports.entry(port).or_insert_with(|| PortClaim { first: claimant, hosts: HashMap::new() });
        claim.hosts.entry(host(claimant.listener)).or_insert(claimant);
    }

    /// Why a listener with less precedence is refused. A listener that no other one refuses wants its port from now on.
    fn conflict(
        &mut self,
        index: usize,
        listener: &Listener,
        namespace: &str,
        max_ports: usize,
    ) -> Option<ListenerConflict> {
        let port = port(listener)?;
        if !self.wanted.contains(&port) {
            if self.wanted.len() >= max_ports {
                return Some(ListenerConflict::too_many_ports(index, max_ports));
            }
            self.wanted.insert(port);
        }
        let claim = self.ports.get(&port)?;
        let other = match group(claim.first.listener) == group(listener) {
            true => claim.hosts.get(&host(listener))?,
            false => &claim.first,
        };
        Some(ListenerConflict::with(index, listener, other, namespace))
    }
}

/// A listener that has a port.
#[derive(Clone, Copy)]
struct Claimant<'a> {
    /// `None` for the object whose listeners are compared.
    declared_by: Option<(Kind, &'a ObjectKey)>,
    listener: &'a Listener,
}

impl Claimant<'_> {
    /// `listener http`, `listener http of Gateway default/web`, or `a listener of another ListenerSet` for owners of a
    /// namespace that may not learn its name.
    fn description(&self, namespace: &str) -> String {
        let name = &self.listener.name;
        match self.declared_by {
            Some((Kind::ListenerSet, key)) if *key.namespace != *namespace => {
                "a listener of another ListenerSet".to_owned()
            }
            Some((kind, key)) => format!("listener {name} of {kind} {key}"),
            None => format!("listener {name}"),
        }
    }
}

fn group(listener: &Listener) -> Option<PortGroup> {
    ListenerProtocol::from_listener(listener).port_group()
}

/// The host that distinguishes listeners of a port. TCP and UDP listeners have none.
fn host(listener: &Listener) -> HostPattern {
    match group(listener) {
        Some(PortGroup::Cleartext | PortGroup::Tls) => HostPattern::parse(listener.hostname.as_deref()),
        Some(PortGroup::Stream | PortGroup::Datagram) | None => HostPattern::Any,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(name: &str, listeners: &[(u16, &str, &str)]) -> Object<ListenerSet> {
        let listeners: Vec<Value> = listeners.iter().enumerate().map(listener).collect();
        serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": name},
            "spec": {"parentRef": {"name": "g"}, "listeners": listeners},
        }))
        .unwrap()
    }

    fn listener((index, (port, protocol, hostname)): (usize, &(u16, &str, &str))) -> Value {
        json!({"name": format!("l{index}"), "port": port, "protocol": protocol, "hostname": hostname})
    }

    /// The conflicts as `set index code`.
    fn conflicts(gateway: &[(u16, &str, &str)], sets: &[Object<ListenerSet>], max_ports: usize) -> Vec<String> {
        let listeners: Vec<Listener> =
            gateway.iter().enumerate().map(|entry| serde_json::from_value(listener(entry)).unwrap()).collect();
        let key = ObjectKey::new("a", "g");
        let conflicts = find_in_sets(&key, &listeners, sets.iter(), max_ports);
        let each = conflicts.iter().flat_map(|(set, conflicts)| {
            conflicts.iter().map(move |(index, conflict)| format!("{} {index} {:?}", set.name, conflict.kind))
        });
        each.collect()
    }

    /// GEP-1713, "Listener Precedence".
    #[test]
    fn gateways_and_earlier_sets_have_precedence() {
        let gateway = [(80, "HTTP", "g.example"), (53, "UDP", "")];
        let sets = [
            set("s1", &[(80, "HTTP", "G.example"), (80, "TCP", ""), (80, "HTTP", "s.example"), (53, "TCP", "")]),
            set("s2", &[(80, "HTTP", "s.example"), (53, "UDP", ""), (443, "HTTPS", "")]),
            set("s3", &[(443, "HTTP", ""), (443, "HTTPS", "x.example")]),
        ];
        let expected = ["s1 0 Hostname", "s1 1 Protocol", "s2 0 Hostname", "s2 1 Hostname", "s3 0 Protocol"];
        assert_eq!(conflicts(&gateway, &sets, 64), expected);
    }

    /// A ListenerSet whose listeners conflict with each other keeps no port from a later one.
    #[test]
    fn refused_listeners_refuse_no_others() {
        let sets = [
            set("s1", &[(443, "HTTPS", ""), (443, "HTTP", "")]),
            set("s2", &[(443, "HTTPS", "")]),
            set("s3", &[(443, "HTTPS", "x.example")]),
        ];
        assert_eq!(conflicts(&[(80, "HTTP", "")], &sets, 64), ["s1 0 Protocol", "s1 1 Protocol"]);
    }

    #[test]
    fn ports_of_a_gateway_are_limited() {
        let sets: Vec<_> =
            (1..=4).map(|port| set(&format!("s{port}"), &[(port, "HTTP", ""), (port, "HTTP", "x")])).collect();
        let refused = ["s3 0 TooManyPorts", "s3 1 TooManyPorts", "s4 0 TooManyPorts", "s4 1 TooManyPorts"];
        assert_eq!(conflicts(&[(8000, "HTTP", "")], &sets, 3), refused);
    }
}
