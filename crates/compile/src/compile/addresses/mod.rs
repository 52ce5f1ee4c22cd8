//! Assigns addresses to Gateways: those to listen on, and those to write into the status.
//!
//! ```text
//!   pool:      pool, status.addresses ────────▶ AssignedAddresses: addresses of the pool, the listeners' own ports
//!   services:  the Gateway's Service ─────────▶ AssignedAddresses: all interfaces, the Service's target ports
//! ```
//!
//! Assignment is the only stateful part of compilation, and therefore an input of `compile`: a Gateway keeps its
//! address when other Gateways come and go. In a cluster all replicas follow the Gateways' status, so that neither a
//! restart nor a change of leader moves an address.

mod pool;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use pool::GatewayAddressPool;
pub use services::{GatewayService, requested_service_address};

use crate::api::ObjectKey;
use crate::api::core::ServiceType;
use crate::api::gateway::GatewaySpec;
use crate::diagnostic::Diagnostic;
use crate::transport_protocol::TransportPort;

/// The source of addresses.
#[derive(Clone, Debug)]
pub enum AddressProvider {
    /// Addresses of the machine or network; each Gateway gets a separate one.
    Pool(GatewayAddressPool),
    /// A Service for each Gateway, to which the cluster gives an address.
    Services(ServiceType),
}

/// The state of the cluster and of this replica on which assignment depends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressState {
    /// `status.addresses` of the API server's Gateways, possibly empty. Gateways from files are not in this map.
    pub status_addresses: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// The state of the Services in front of Gateways.
    pub gateway_services: BTreeMap<ObjectKey, GatewayService>,
    /// The types of these Services, as far as they are not that of the provider.
    pub service_types: BTreeMap<ObjectKey, ServiceType>,
    /// `0.0.0.0` and `::`, as far as the Pod has addresses of the family, for Gateways behind Services.
    pub unspecified_addresses: Vec<IpAddr>,
    /// Addresses of all Portico Pods, for Gateways behind Services: requests sent to them would loop.
    pub replica_addresses: BTreeSet<IpAddr>,
    /// The addresses of the ready Portico Pods, for Gateways on all interfaces. `None` outside of a Pod: then they have
    /// the addresses of this machine.
    pub ready_addresses: Option<BTreeSet<IpAddr>>,
    /// Whether this replica assigns new addresses. Other replicas wait until the leader has written them to the status.
    pub is_leader: bool,
}

/// The addresses of all served Gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayAddresses {
    assigned: BTreeMap<ObjectKey, AssignedAddresses>,
    replica_addresses: BTreeSet<IpAddr>,
}

/// The addresses of one Gateway, with diagnostics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedAddresses {
    pub client_path: ClientPath,
    /// Addresses to listen on; empty if `unsupported` or `unusable` has a diagnostic.
    pub bind_addresses: Vec<IpAddr>,
    pub ports: PortMapping,
    /// Addresses for the status: IP addresses, or host names of a load balancer.
    pub reported_addresses: Vec<String>,
    /// Diagnostics about entries of `spec.addresses` that are not supported.
    pub unsupported: Vec<Diagnostic>,
    /// Diagnostics about requested addresses that cannot be used.
    pub unusable: Vec<Diagnostic>,
    /// Diagnostics about missing addresses.
    pub unassigned: Vec<Diagnostic>,
    /// Diagnostics that do not prevent the Gateway from being served.
    pub notes: Vec<Diagnostic>,
    /// The addresses that were taken from the pool. They stay assigned even if the Gateway has an error.
    from_pool: Vec<IpAddr>,
}

/// How clients reach the listeners of a Gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientPath {
    /// At loopback addresses, for local use.
    #[default]
    Loopback,
    /// At an address of the operator's pool.
    Pool,
    /// Through a Service of this type.
    Service(ServiceType),
}

/// Maps the port of a listener to the port that this process binds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PortMapping {
    /// The listener's own port.
    #[default]
    Same,
    /// The target port of the Service, by listener port. A listener port that is missing is not open yet.
    Mapped(BTreeMap<TransportPort, u16>),
}

impl GatewayAddresses {
    pub fn get(&self, gateway: &ObjectKey) -> Option<&AssignedAddresses> {
        self.assigned.get(gateway)
    }

    /// The addresses of all Portico Pods.
    pub fn replica_addresses(&self) -> &BTreeSet<IpAddr> {
        &self.replica_addresses
    }

    /// The target ports of Services, each with its Gateway. No two Gateways share a target port, because conflicting
    /// Services are ignored.
    pub fn service_target_ports(&self) -> impl Iterator<Item = (u16, &ObjectKey)> {
        self.assigned.iter().flat_map(|(gateway, assigned)| {
            let ports =
                if let PortMapping::Mapped(ports) = &assigned.ports { Some(ports.values().copied()) } else { None };
            ports.into_iter().flatten().map(move |port| (port, gateway))
        })
    }

    /// Assigns addresses to every Gateway, in the given order, and returns the Gateways whose addresses changed.
    /// Addresses of Gateways that no longer exist become free.
    pub fn assign<'a>(
        &mut self,
        provider: &AddressProvider,
        state: &AddressState,
        gateways: impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone,
    ) -> BTreeSet<ObjectKey> {
        let next = match provider {
            AddressProvider::Pool(pool) => pool::assign(pool, state, &self.assigned, gateways),
            AddressProvider::Services(kind) => {
                let kind_of = |key| state.service_types.get(key).copied().unwrap_or(*kind);
                gateways
                    .map(|(key, spec)| (key.clone(), services::assign_one(kind_of(key), state, key, spec)))
                    .collect()
            }
        };
        let gateways = self.assigned.keys().chain(next.keys());
        let changed = gateways.filter(|key| self.assigned.get(*key) != next.get(*key)).cloned().collect();
        self.assigned = next;
        self.replica_addresses.clone_from(&state.replica_addresses);
        changed
    }
}

impl PortMapping {
    /// The port that this process binds for a listener port; `None` if it is not open yet.
    pub(crate) fn bound_port(&self, listener_port: TransportPort) -> Option<u16> {
        match self {
            PortMapping::Same => Some(listener_port.number),
            PortMapping::Mapped(ports) => ports.get(&listener_port).copied(),
        }
    }
}

/// One entry of a Gateway's `spec.addresses`.
enum AddressRequest {
    /// An address that Portico chooses.
    Any,
    Specific(IpAddr),
}

/// Parses an entry; adds a diagnostic to the result if it is invalid or not supported.
fn parse_request(spec: &GatewaySpec, index: usize, result: &mut AssignedAddresses) -> Option<AddressRequest> {
    let entry = &spec.addresses[index];
    let field = format!("spec.addresses[{index}]");
    if entry.kind != "IPAddress" {
        let message = format!("addresses of type {} are not supported", entry.kind);
        let remedy = "use type IPAddress, or remove the addresses to get one assigned";
        result.unsupported.push(Diagnostic::error(format!("{field}.type"), message, remedy));
        return None;
    }
    if entry.routability.as_deref().is_some_and(|routability| !routability.is_empty()) {
        let message = "routability is not supported";
        result.unsupported.push(Diagnostic::error(format!("{field}.routability"), message, "remove it"));
        return None;
    }
    let Some(value) = entry.value.as_deref().filter(|value| !value.is_empty()) else {
        return Some(AddressRequest::Any);
    };
    match value.parse() {
        Ok(address) => Some(AddressRequest::Specific(address)),
        Err(_) => {
            let message = format!("{value:?} is not an IP address");
            let remedy = "write it like 192.0.2.1 or 2001:db8::1";
            result.unusable.push(Diagnostic::error(format!("{field}.value"), message, remedy));
            None
        }
    }
}

/// The IP addresses that a Gateway requests.
fn requested_addresses(spec: &GatewaySpec) -> impl Iterator<Item = IpAddr> + '_ {
    spec.addresses.iter().filter_map(|address| address.value.as_ref()?.parse().ok())
}
