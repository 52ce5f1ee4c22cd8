//! The ports that the listeners of a Gateway can open at its addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::listener::ListenerPlan;
use super::port_owners::PortOwners;
use crate::api::ObjectKey;
use crate::bind_address::BindAddress;
use crate::compile::IngressSettings;
use crate::compile::addresses::AssignedAddresses;
use crate::diagnostic::{Diagnostic, Reason};
use crate::snapshot::TransportProtocol;
use crate::transport_protocol::TransportPort;
use crate::verdict::Code;

/// The addresses of a Gateway, and which ports other Gateways own there.
#[derive(Clone, Copy)]
pub(in crate::compile) struct GatewayPorts<'a> {
    gateway: &'a ObjectKey,
    assigned: &'a AssignedAddresses,
    owners: &'a PortOwners,
    /// Whether the Gateway is rejected as a whole, and not served.
    is_stopped: bool,
}

impl<'a> GatewayPorts<'a> {
    pub(in crate::compile) fn new(
        gateway: &'a ObjectKey,
        assigned: &'a AssignedAddresses,
        owners: &'a PortOwners,
        is_stopped: bool,
    ) -> Self {
        GatewayPorts { gateway, assigned, owners, is_stopped }
    }

    /// Whether listeners can be opened.
    pub(in crate::compile) fn can_bind(&self) -> bool {
        !self.is_stopped && !self.assigned.bind_addresses.is_empty()
    }

    /// The address at which another Gateway owns a port, and that Gateway in words.
    pub(in crate::compile) fn other_owner(&self, port: TransportPort) -> Option<(IpAddr, String)> {
        let bound = self.assigned.ports.bound_port(port)?;
        let owner_at =
            |address: IpAddr| self.owners.other_owner(BindAddress::new(port.transport, address, bound), self.gateway);
        let addresses = self.assigned.bind_addresses.iter().filter(|_| !self.is_stopped);
        addresses.copied().find_map(|address| {
            let owner = format!("Gateway {}", owner_at(address)?);
            Some((address, owner))
        })
    }

    /// The same for a listener of a ListenerSet, which must not take the socket of all Ingresses either. A port of the
    /// Gateway itself may be that socket, which then serves the Gateway. `own`: the ports of the Gateway itself.
    pub(in crate::compile) fn owner_before_sets(
        &self,
        port: TransportPort,
        own: &BTreeSet<TransportPort>,
        ingress: &IngressSettings,
    ) -> Option<(IpAddr, String)> {
        let bound = self.assigned.ports.bound_port(port)?;
        let of_ingresses = |address: &&IpAddr| {
            let listeners = [ingress.http, ingress.https].into_iter().flatten();
            port.transport == TransportProtocol::Tcp
                && listeners.map(|listener| listener.address).any(|socket| {
                    let shares_ip =
                        socket.ip() == **address || socket.ip().is_unspecified() || address.is_unspecified();
                    socket.port() == bound && socket.is_ipv4() == address.is_ipv4() && shares_ip
                })
        };
        let taken = self.assigned.bind_addresses.iter().filter(|_| !own.contains(&port)).find(of_ingresses);
        let taken = taken.map(|address| (*address, "all Ingresses".to_owned()));
        self.other_owner(port).or(taken)
    }

    /// Sets the port that this process binds for a listener. A listener that cannot be opened is marked as not served.
    pub(in crate::compile) fn assign(&self, listener: &mut ListenerPlan) {
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
