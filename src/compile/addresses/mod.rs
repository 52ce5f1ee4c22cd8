//! Which addresses a Gateway listens on, and which it tells the world.
//!
//! ```text
//!   pool:      status.addresses ──remembered──▶ Assigned: these very addresses, the listeners' own ports
//!   services:  the Gateway's Service ─────────▶ Assigned: all interfaces, the Service's target ports
//! ```
//!
//! The only part of compiling with a memory, so it is an input of `compile` and not a part of it: a Gateway keeps its
//! address, whatever comes and goes beside it. In a cluster what is written there is what all replicas hold to, so that
//! neither a restart nor another leader moves anything.

mod pool;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use pool::Pool;
pub use services::{Front, asked_for};

use super::verdict::Problem;
use crate::api::ObjectKey;
use crate::api::core::ServiceType;
use crate::api::gateway::GatewaySpec;

/// Where addresses come from.
#[derive(Clone, Debug)]
pub enum Provider {
    /// Addresses of the machine or network we run on; each Gateway gets one for itself.
    Pool(Pool),
    /// A Service for each Gateway, to which the cluster gives an address.
    Services(ServiceType),
}

/// What outlives this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `status.addresses` of the Gateways of an API server, also of those that have none. Who is not in here came from a file.
    pub written: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// What the Services in front of the Gateways say.
    pub fronts: BTreeMap<ObjectKey, Front>,
    /// All interfaces of each address family that the Pod has, for Gateways behind Services.
    pub interfaces: Vec<IpAddr>,
    /// Of all Pods of ours, for Gateways behind Services: what is sent to one comes back to us.
    pub replicas: BTreeSet<IpAddr>,
    /// Gateways of an API server may be given new addresses. The other replicas wait until they are written.
    pub leading: bool,
}

/// The addresses of every Gateway of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    assigned: BTreeMap<ObjectKey, Assigned>,
    replicas: BTreeSet<IpAddr>,
}

/// What became of one Gateway's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// To listen on; empty if anything is wrong.
    pub bind: Vec<IpAddr>,
    pub ports: Ports,
    /// To tell the world: IP addresses, or names that a balancer has.
    pub reported: Vec<String>,
    /// Addresses of a type that cannot be used.
    pub unsupported: Vec<Problem>,
    /// Addresses that are not ours to use.
    pub unusable: Vec<Problem>,
    /// There is no address, or not yet.
    pub unassigned: Vec<Problem>,
    /// What keeps nothing from being served, but is not as it was asked for.
    pub remarks: Vec<Problem>,
    /// Those of `bind` that came from the pool and not from the Gateway; they stay with it.
    from_pool: Vec<IpAddr>,
}

/// On which port of ours clients of a listener's port arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// On the same.
    #[default]
    Same,
    /// On that to which the Service sends them; a port that is not in here is not open yet.
    Sent(BTreeMap<u16, u16>),
}

impl Addresses {
    pub fn of(&self, gateway: &ObjectKey) -> Option<&Assigned> {
        self.assigned.get(gateway)
    }

    /// The addresses of all Pods of ours.
    pub fn replicas(&self) -> &BTreeSet<IpAddr> {
        &self.replicas
    }

    /// The ports of ours to which Services send clients, each with the Gateway whose clients they are. No two Gateways
    /// have one, since only one of the Services that say so counts.
    pub fn sent(&self) -> impl Iterator<Item = (u16, &ObjectKey)> {
        self.assigned.iter().flat_map(|(gateway, assigned)| {
            let ports = if let Ports::Sent(ports) = &assigned.ports { Some(ports.values().copied()) } else { None };
            ports.into_iter().flatten().map(move |port| (port, gateway))
        })
    }

    /// Gives every Gateway its addresses, in the order given, and says whether anything changed. Gateways that are no
    /// longer there give theirs back.
    pub fn assign<'a>(
        &mut self,
        provider: &Provider,
        memory: &Memory,
        gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone,
    ) -> bool {
        let next = match provider {
            Provider::Pool(pool) => pool::assign(pool, memory, &self.assigned, gateways),
            Provider::Services(kind) => {
                gateways.map(|(key, spec)| (key.clone(), services::assign_one(*kind, memory, key, spec))).collect()
            }
        };
        let changed = self.assigned != next || self.replicas != memory.replicas;
        self.assigned = next;
        self.replicas.clone_from(&memory.replicas);
        changed
    }
}

impl Ports {
    /// None if the port is not open yet.
    pub fn of(&self, listener: u16) -> Option<u16> {
        match self {
            Ports::Same => Some(listener),
            Ports::Sent(ports) => ports.get(&listener).copied(),
        }
    }
}

/// What a Gateway asks for in one entry of `spec.addresses`.
enum Wish {
    Any,
    This(IpAddr),
}

/// Reads an entry; what cannot be had is a problem of the result.
fn wish(spec: &GatewaySpec, index: usize, result: &mut Assigned) -> Option<Wish> {
    let wanted = &spec.addresses[index];
    let field = format!("spec.addresses[{index}]");
    if wanted.kind != "IPAddress" {
        let message = format!("addresses of type {} cannot be served", wanted.kind);
        let remedy = "use type IPAddress, or leave the addresses out to get one";
        result.unsupported.push(Problem::new(format!("{field}.type"), message, remedy));
        return None;
    }
    if wanted.routability.as_deref().is_some_and(|routability| !routability.is_empty()) {
        let message = "a routability cannot be asked for";
        result.unsupported.push(Problem::new(format!("{field}.routability"), message, "leave it out"));
        return None;
    }
    let Some(value) = wanted.value.as_deref().filter(|value| !value.is_empty()) else { return Some(Wish::Any) };
    match value.parse() {
        Ok(address) => Some(Wish::This(address)),
        Err(_) => {
            let message = format!("{value:?} is not an IP address");
            let remedy = "write it like 192.0.2.1 or 2001:db8::1";
            result.unusable.push(Problem::new(format!("{field}.value"), message, remedy));
            None
        }
    }
}

fn explicit(spec: &GatewaySpec) -> impl Iterator<Item = IpAddr> + '_ {
    spec.addresses.iter().filter_map(|address| address.value.as_ref()?.parse().ok())
}
