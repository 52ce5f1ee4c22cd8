//! Addresses to which no requests are sent, even if objects contain them: listeners of this process (requests would
//! loop until resources run out), admin listeners of all replicas, and addresses that the SSRF guard blocks.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::bind_address::BindAddress;
use crate::diagnostic::Diagnostic;
use crate::ssrf_guard::{AddressPolicy, AddressSources, BlockedAddress, TrustModel};
use crate::upstream::EndpointAddress;

/// The set of forbidden addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct ForbiddenAddresses {
    /// Sockets of all served Gateways, of Ingresses, and of the admin listeners of all replicas.
    sockets: BTreeSet<SocketAddr>,
    /// Addresses of this machine, and of the Pods of all replicas. A listener on all interfaces is reachable at each.
    machine: BTreeSet<IpAddr>,
    replicas: BTreeSet<IpAddr>,
    /// The sockets of Ingresses, which are in `sockets` too.
    ingress_sockets: Vec<BindAddress>,
    /// The address of the admin listener.
    admin: Option<SocketAddr>,
    trust_model: TrustModel,
    /// That of the trust model.
    addresses: AddressPolicy,
}

/// The IP addresses at which two sets of forbidden addresses may differ.
#[derive(Debug)]
pub(in crate::compile) struct ForbiddenDifference {
    ips: BTreeSet<IpAddr>,
    /// Whether they may differ at loopback and unspecified addresses, because a listener on all interfaces differs.
    includes_own_interfaces: bool,
}

impl ForbiddenDifference {
    pub(in crate::compile) fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.ips.contains(&ip) || (self.includes_own_interfaces && (ip.is_loopback() || ip.is_unspecified()))
    }
}

impl ForbiddenAddresses {
    /// `gateways` and `ingresses` are their sockets, `admin_address` is that of the admin listener, `machine` has the
    /// addresses of this machine.
    pub(in crate::compile) fn new(
        gateways: impl Iterator<Item = BindAddress>,
        ingresses: impl Iterator<Item = BindAddress>,
        admin_address: Option<SocketAddr>,
        machine: &BTreeSet<IpAddr>,
        replicas: &BTreeSet<IpAddr>,
        trust_model: &TrustModel,
    ) -> Self {
        let ingress_sockets: Vec<_> = ingresses.collect();
        let admin = admin_address.map(|admin| SocketAddr::new(admin.ip().to_canonical(), admin.port()));
        // The other replicas have an admin listener on the same port. It is reachable unless it listens on loopback.
        let reachable_admin = admin.filter(|admin| !admin.ip().is_loopback());
        let replica_admins =
            reachable_admin.iter().flat_map(|admin| replicas.iter().map(|ip| SocketAddr::new(*ip, admin.port())));
        // The transport protocol is ignored: neither the TCP nor the UDP port of a listener is a backend.
        let served = gateways.chain(ingress_sockets.iter().copied());
        let sockets = served.map(|address| address.socket).chain(admin).chain(replica_admins).collect();
        ForbiddenAddresses {
            sockets,
            machine: machine.clone(),
            replicas: replicas.clone(),
            ingress_sockets,
            admin: admin_address,
            addresses: trust_model.address_policy(),
            trust_model: trust_model.clone(),
        }
    }

    /// Whether the set was built from these inputs, apart from the Gateways and the addresses of this machine, which do
    /// not change.
    pub(in crate::compile) fn has_inputs(
        &self,
        ingresses: impl Iterator<Item = BindAddress>,
        admin: Option<SocketAddr>,
        replicas: &BTreeSet<IpAddr>,
        trust_model: &TrustModel,
    ) -> bool {
        (self.admin, &self.replicas, &self.trust_model) == (admin, replicas, trust_model)
            && self.ingress_sockets.iter().copied().eq(ingresses)
    }

    /// Where the set may differ from another one. The trust model does not change after the first compilation, which
    /// compiles all Services.
    pub(in crate::compile) fn difference(&self, other: &ForbiddenAddresses) -> ForbiddenDifference {
        let sockets = || self.sockets.symmetric_difference(&other.sockets);
        let includes_own_interfaces = sockets().any(|socket| socket.ip().is_unspecified());
        let mut ips: BTreeSet<IpAddr> = sockets().map(|socket| socket.ip().to_canonical()).collect();
        if includes_own_interfaces {
            ips.extend(self.replicas.union(&other.replicas).map(IpAddr::to_canonical));
            ips.extend(self.machine.union(&other.machine).map(IpAddr::to_canonical));
        } else {
            ips.extend(self.replicas.symmetric_difference(&other.replicas).map(IpAddr::to_canonical));
        }
        ForbiddenDifference { ips, includes_own_interfaces }
    }

    /// What Services may name addresses with.
    pub(in crate::compile) fn address_sources(&self) -> AddressSources {
        self.trust_model.address_sources()
    }

    /// Whether this endpoint of a Service of this namespace is forbidden.
    pub(in crate::compile) fn contains(&self, namespace: &str, address: &EndpointAddress) -> bool {
        self.is_listener(address) || self.ssrf_guard_blocks(namespace, address).is_some()
    }

    /// A diagnostic if some of these endpoints of a Service are forbidden. `hosts_field` is the field with their hosts,
    /// `port_field` the one with their port.
    pub(in crate::compile) fn problem(
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
            EndpointAddress::Ip(address) => BlockedAddress::check(address.ip(), &self.addresses),
            EndpointAddress::Name { host, .. } => {
                BlockedAddress::check_name_in_namespace(namespace, host, &self.trust_model)
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
            let is_own = self.machine.contains(&ip) || self.replicas.contains(&ip);
            (ip.is_loopback() || ip.is_unspecified() || is_own)
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
    use super::*;
    use crate::ssrf_guard::LoopbackPolicy;

    /// The first compilation must not keep the trust model of an empty set.
    #[test]
    fn another_trust_model_is_another_input() {
        let (sockets, replicas) = (std::iter::empty::<BindAddress>, BTreeSet::new());
        let addresses = AddressPolicy { loopback: LoopbackPolicy::Blocked, ..AddressPolicy::default() };
        let multi_tenant = &TrustModel::MultiTenant { addresses, sources: AddressSources::ALL };
        for (built_for, asked_for, expected) in [
            (&TrustModel::SingleTenant, &TrustModel::SingleTenant, true),
            (&TrustModel::SingleTenant, multi_tenant, false),
            (multi_tenant, multi_tenant, true),
        ] {
            let machine = BTreeSet::new();
            let forbidden =
                ForbiddenAddresses::new(std::iter::empty(), sockets(), None, &machine, &replicas, built_for);
            assert_eq!(forbidden.has_inputs(sockets(), None, &replicas, asked_for), expected, "{asked_for:?}");
        }
    }

    /// A change of the set never leaves out an address that became forbidden or allowed.
    #[test]
    fn differences_cover_all_changed_addresses() {
        let set = |sockets: &[&str], replicas: &[&str]| ForbiddenAddresses {
            sockets: sockets.iter().map(|text| text.parse().unwrap()).collect(),
            replicas: replicas.iter().map(|text| text.parse().unwrap()).collect(),
            ..ForbiddenAddresses::default()
        };
        let sets = [
            set(&[], &[]),
            set(&["0.0.0.0:80"], &["10.0.0.1"]),
            set(&["0.0.0.0:80"], &["10.0.0.1", "10.0.0.2"]),
            set(&["0.0.0.0:80", "0.0.0.0:81"], &["10.0.0.1"]),
            set(&["192.0.2.1:80"], &["10.0.0.1"]),
            set(&["192.0.2.1:80", "127.0.0.1:8101"], &[]),
        ];
        let ips = ["127.0.0.1", "0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1", "::ffff:10.0.0.2", "::1"];
        let ips = ips.map(|text| text.parse::<IpAddr>().unwrap());
        for (before, after) in sets.iter().flat_map(|before| sets.iter().map(move |after| (before, after))) {
            let difference = after.difference(before);
            for (ip, port) in ips.iter().flat_map(|ip| [80, 81, 8101].map(|port| (*ip, port))) {
                let address = EndpointAddress::Ip(SocketAddr::new(ip, port));
                if before.contains("default", &address) != after.contains("default", &address) {
                    assert!(difference.contains(ip), "{address:?}: {before:?} and {after:?}");
                }
            }
        }
        let [.., other] = ips[4..5] else { panic!("there is an address that no set has") };
        assert!(!sets[1].difference(&sets[2]).contains(other));
    }

    #[test]
    fn listener_ports_are_forbidden_on_this_machine_and_all_replicas() {
        let sockets = BTreeSet::from(["0.0.0.0:10080".parse().unwrap(), "192.0.2.1:80".parse().unwrap()]);
        let replicas = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let machine = BTreeSet::from(["192.0.2.7".parse().unwrap()]);
        let forbidden = ForbiddenAddresses { sockets, machine, replicas, ..ForbiddenAddresses::default() };
        for (address, expected) in [
            ("10.0.0.1:10080", true),
            ("127.0.0.1:10080", true),
            ("192.0.2.7:10080", true),
            ("[::ffff:192.0.2.7]:10080", true),
            ("192.0.2.7:80", false),
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
        let machine = BTreeSet::new();
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
            let forbidden = ForbiddenAddresses::new(
                no_gateways,
                no_ingresses,
                admin_address,
                &machine,
                &replicas,
                &TrustModel::SingleTenant,
            );
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
