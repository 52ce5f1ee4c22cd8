//! The ports that the listeners of a Gateway can open at its addresses.

use std::net::IpAddr;

use super::addresses::AssignedAddresses;
use super::listener::ListenerPlan;
use super::port_owners::PortOwners;
use super::verdict::Code;
use crate::api::ObjectKey;
use crate::diagnostic::{Diagnostic, Reason};
use crate::snapshot::BindAddress;
use crate::transport_protocol::TransportPort;

/// The addresses of a Gateway, and which ports other Gateways own there.
#[derive(Clone, Copy)]
pub(super) struct GatewayPorts<'a> {
    gateway: &'a ObjectKey,
    assigned: &'a AssignedAddresses,
    owners: &'a PortOwners,
    /// Whether the Gateway is rejected as a whole, and not served.
    is_stopped: bool,
}

impl<'a> GatewayPorts<'a> {
    pub(super) fn new(
        gateway: &'a ObjectKey,
        assigned: &'a AssignedAddresses,
        owners: &'a PortOwners,
        is_stopped: bool,
    ) -> Self {
        GatewayPorts { gateway, assigned, owners, is_stopped }
    }

    /// Whether listeners can be opened.
    pub(super) fn can_bind(&self) -> bool {
        !self.is_stopped && !self.assigned.bind_addresses.is_empty()
    }

    /// Another Gateway that owns a port, and at which address.
    pub(super) fn other_owner(&self, port: TransportPort) -> Option<(IpAddr, ObjectKey)> {
        let bound = self.assigned.ports.bound_port(port)?;
        let owner_at =
            |address: IpAddr| self.owners.other_owner(BindAddress::new(port.transport, address, bound), self.gateway);
        let addresses = self.assigned.bind_addresses.iter().filter(|_| !self.is_stopped);
        addresses.copied().find_map(|address| Some((address, owner_at(address)?.clone())))
    }

    /// Sets the port that this process binds for a listener. A listener that cannot be opened is marked as not served.
    pub(super) fn assign(&self, listener: &mut ListenerPlan) {
        let port = TransportPort { transport: listener.transport(), number: listener.port };
        listener.bound_port = self.assigned.ports.bound_port(port);
        if !self.can_bind() {
            let problem = Diagnostic::of_object("its Gateway is not served", "see the conditions of the Gateway")
                .with_reason(Reason::OtherCondition);
            listener.set_not_served(Code::ListenerNotProgrammed, problem);
        } else if listener.bound_port.is_none() && listener.opens_port() {
            let message = format!("the Service of the Gateway does not have port {port} yet");
            let remedy =
                "the leading replica of Portico adds it; if it stays missing, see the conditions of the Gateway";
            listener.set_not_served(Code::ListenerPending, Diagnostic::of_object(message, remedy));
        }
    }
}
