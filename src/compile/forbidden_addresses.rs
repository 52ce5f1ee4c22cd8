//! Addresses to which no requests are sent, even if objects contain them: listeners of this process (requests would
//! loop until resources run out), admin listeners of all replicas, and addresses that the SSRF guard blocks.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::addresses::GatewayAddresses;
use super::gateway::GatewayPlan;
use crate::diagnostic::Diagnostic;
use crate::snapshot::BindAddress;
use crate::upstream::{BlockedAddress, EndpointAddress, TrustModel};

/// The set of forbidden addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ForbiddenAddresses {
    /// Sockets of all served Gateways, of Ingresses, and of the admin listeners of all replicas.
    sockets: BTreeSet<SocketAddr>,
    /// Addresses of the Pods of all replicas. A listener on all interfaces is reachable at each.
    replicas: BTreeSet<IpAddr>,
    trust_model: TrustModel,
}

impl ForbiddenAddresses {
    /// `ingresses` are the sockets of Ingresses, `admin` is the address of the admin listener.
    pub(super) fn new<'a>(
        gateways: impl Iterator<Item = &'a GatewayPlan>,
        ingresses: impl Iterator<Item = BindAddress>,
        admin: Option<SocketAddr>,
        addresses: &GatewayAddresses,
        trust_model: TrustModel,
    ) -> Self {
        let replicas = addresses.replica_addresses().clone();
        let admin = admin.map(|admin| SocketAddr::new(admin.ip().to_canonical(), admin.port()));
        // The other replicas have an admin listener on the same port. It is reachable unless it listens on loopback.
        let reachable_admin = admin.filter(|admin| !admin.ip().is_loopback());
        let replica_admins =
            reachable_admin.iter().flat_map(|admin| replicas.iter().map(|ip| SocketAddr::new(*ip, admin.port())));
        // The transport protocol is ignored: neither the TCP nor the UDP port of a listener is a backend.
        let served = gateways.flat_map(GatewayPlan::sockets).chain(ingresses).map(|address| address.socket);
        let sockets = served.chain(admin).chain(replica_admins).collect();
        ForbiddenAddresses { sockets, replicas, trust_model }
    }

    /// Whether this endpoint of a Service of this namespace is forbidden.
    pub(super) fn contains(&self, namespace: &str, address: &EndpointAddress) -> bool {
        self.is_listener(address) || self.ssrf_guard_blocks(namespace, address).is_some()
    }

    /// A diagnostic if some of these endpoints of a Service are forbidden. `hosts_field` is the field with their hosts,
    /// `port_field` the one with their port.
    pub(super) fn problem(
        &self,
        namespace: &str,
        hosts_field: &str,
        port_field: &str,
        addresses: &[EndpointAddress],
    ) -> Option<Diagnostic> {
        let listener_addresses: Vec<_> =
            addresses.iter().filter(|address| self.is_listener(address)).map(EndpointAddress::to_string).collect();
        if !listener_addresses.is_empty() {
            let message = format!(
                "{} is an address of a Portico listener, so no requests are sent to it",
                listener_addresses.join(", ")
            );
            return Some(Diagnostic::error(
                port_field,
                message,
                "use the address and port on which the backend listens",
            ));
        }
        let (host, blocked) = addresses
            .iter()
            .find_map(|address| self.ssrf_guard_blocks(namespace, address).map(|blocked| (host(address), blocked)))?;
        let message = format!("{host} is {blocked}, so no requests are sent to it");
        Some(Diagnostic::error(hosts_field, message, blocked.remedy()))
    }

    /// Why the SSRF guard blocks an address; `None` if it does not. Addresses that DNS returns for a name are checked
    /// when the name is resolved.
    fn ssrf_guard_blocks(&self, namespace: &str, address: &EndpointAddress) -> Option<BlockedAddress> {
        match address {
            EndpointAddress::Ip(address) => BlockedAddress::check(address.ip(), self.trust_model.loopback()),
            EndpointAddress::Name { host, .. } => {
                BlockedAddress::check_name_in_namespace(namespace, host, self.trust_model)
            }
        }
    }

    /// Whether an IP address is one of Portico's listeners. Names are not resolved, so the limits on connections and
    /// requests must end a loop through a name.
    fn is_listener(&self, address: &EndpointAddress) -> bool {
        let EndpointAddress::Ip(address) = address else { return false };
        // Compare as IPv4 if possible: an IPv4 address has more than one form in IPv6.
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let on_all_interfaces = || {
            let unspecified: [SocketAddr; 2] = [([0, 0, 0, 0], port).into(), ([0_u16; 8], port).into()];
            (ip.is_loopback() || ip.is_unspecified() || self.replicas.contains(&ip))
                && unspecified.iter().any(|socket| self.sockets.contains(socket))
        };
        self.sockets.contains(&SocketAddr::new(ip, port)) || on_all_interfaces()
    }
}

fn host(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Ip(address) => address.ip().to_string(),
        EndpointAddress::Name { host, .. } => host.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::{AddressProvider, AddressState, GatewayAddressPool};
    use super::*;

    #[test]
    fn listener_ports_are_forbidden_on_all_replicas() {
        let sockets = BTreeSet::from(["0.0.0.0:10080".parse().unwrap(), "192.0.2.1:80".parse().unwrap()]);
        let replicas = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let forbidden = ForbiddenAddresses { sockets, replicas, trust_model: TrustModel::SingleTenant };
        for (address, expected) in [
            ("10.0.0.1:10080", true),
            ("127.0.0.1:10080", true),
            ("192.0.2.1:80", true),
            ("[::ffff:10.0.0.1]:10080", true),
            ("[::ffff:192.0.2.1]:80", true),
            ("10.0.0.1:8080", false),
            ("10.0.0.2:10080", false),
        ] {
            assert_eq!(
                forbidden.contains("default", &EndpointAddress::Ip(address.parse().unwrap())),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn admin_listeners_of_all_replicas_are_forbidden() {
        let replicas = ["10.0.0.1", "10.0.0.2"].iter().map(|ip| ip.parse().unwrap()).collect();
        let state = AddressState { replica_addresses: replicas, ..AddressState::default() };
        let mut addresses = GatewayAddresses::default();
        addresses.assign(&AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())), &state, std::iter::empty());
        // The admin address, and whether it is forbidden at loopback, at this Pod's address and at another Pod's.
        for (admin, expected) in [
            (Some("127.0.0.1:8101"), [true, false, false]),
            (Some("10.0.0.1:8101"), [false, true, true]),
            (Some("[::ffff:10.0.0.1]:8101"), [false, true, true]),
            (Some("0.0.0.0:8101"), [true, true, true]),
            (Some("[::]:8101"), [true, true, true]),
            (None, [false, false, false]),
        ] {
            let admin_address = admin.map(|admin| admin.parse().unwrap());
            let (no_gateways, no_ingresses) = (std::iter::empty(), std::iter::empty());
            let forbidden =
                ForbiddenAddresses::new(no_gateways, no_ingresses, admin_address, &addresses, TrustModel::SingleTenant);
            let is_forbidden = ["127.0.0.1:8101", "10.0.0.1:8101", "10.0.0.2:8101"]
                .map(|address| forbidden.contains("default", &EndpointAddress::Ip(address.parse().unwrap())));
            assert_eq!(is_forbidden, expected, "{admin:?}");
            assert!(
                !forbidden.contains("default", &EndpointAddress::Ip("10.0.0.2:8102".parse().unwrap())),
                "{admin:?}"
            );
        }
    }
}
