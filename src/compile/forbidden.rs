//! Where nothing is sent, whatever objects say: where we listen ourselves, since every request would go round in a circle
//! until nothing is left to open, the admin listener, which is not for clients, and what no backend can be.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::addresses::Addresses;
use super::gateway::GatewayPlan;
use super::verdict::Problem;
use crate::upstream::{Address, Authors, NoBackend};

/// Where nothing is sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forbidden {
    /// Those of all Gateways that are served, of Ingresses, and of the admin listeners, as others may write them.
    sockets: BTreeSet<SocketAddr>,
    /// Of the Pods that listen on all their interfaces.
    replicas: BTreeSet<IpAddr>,
    authors: Authors,
}

impl Forbidden {
    /// `entrances` are those of Ingresses, `admin` is where the admin listener is.
    pub(super) fn of<'a>(
        gateways: impl Iterator<Item = &'a GatewayPlan>,
        entrances: impl Iterator<Item = SocketAddr>,
        admin: Option<SocketAddr>,
        addresses: &Addresses,
        authors: Authors,
    ) -> Self {
        let replicas = addresses.replicas().clone();
        let admin = admin.map(|admin| SocketAddr::new(admin.ip().to_canonical(), admin.port()));
        // Where others reach it, that of each other replica is at the same port.
        let reached = admin.filter(|admin| !admin.ip().is_loopback());
        let admins = reached.iter().flat_map(|admin| replicas.iter().map(|ip| SocketAddr::new(*ip, admin.port())));
        let sockets = gateways.flat_map(GatewayPlan::sockets).chain(entrances).chain(admin).chain(admins).collect();
        Forbidden { sockets, replicas, authors }
    }

    /// Whether nothing is sent to this endpoint of a Service of this namespace.
    pub(super) fn contains(&self, namespace: &str, address: &Address) -> bool {
        self.is_own(address) || self.no_backend(namespace, address).is_some()
    }

    /// Of these endpoints of a Service, which ones are left out and why, if any. Its hosts stand in one field, its port in
    /// another.
    pub(super) fn problem(&self, namespace: &str, hosts: &str, port: &str, addresses: &[Address]) -> Option<Problem> {
        let own: Vec<_> = addresses.iter().filter(|address| self.is_own(address)).map(Address::to_string).collect();
        if !own.is_empty() {
            let message = format!("{} is where this Portico itself listens, so nothing is sent there", own.join(", "));
            return Some(Problem::new(port, message, "name the address of the backend"));
        }
        let (host, why) =
            addresses.iter().find_map(|address| self.no_backend(namespace, address).map(|why| (host(address), why)))?;
        Some(Problem::new(hosts, format!("{host} is {why}, so nothing is sent there"), why.remedy()))
    }

    /// What a name leads to is seen when DNS says it.
    fn no_backend(&self, namespace: &str, address: &Address) -> Option<NoBackend> {
        match address {
            Address::Ip(address) => NoBackend::of(address.ip(), self.authors.loopback()),
            Address::Name { host, .. } => NoBackend::of_name_within(namespace, host, self.authors),
        }
    }

    /// Names are not looked up here; whoever hides an address of ours behind one finds the circle by its limits.
    fn is_own(&self, address: &Address) -> bool {
        let Address::Ip(address) = address else { return false };
        // As IPv4 if it is that: an address has more than one form in IPv6, and leads to the same place in each.
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let on_all_interfaces = || {
            let all: [SocketAddr; 2] = [([0, 0, 0, 0], port).into(), ([0_u16; 8], port).into()];
            (ip.is_loopback() || ip.is_unspecified() || self.replicas.contains(&ip))
                && all.iter().any(|all| self.sockets.contains(all))
        };
        self.sockets.contains(&SocketAddr::new(ip, port)) || on_all_interfaces()
    }
}

fn host(address: &Address) -> String {
    match address {
        Address::Ip(address) => address.ip().to_string(),
        Address::Name { host, .. } => host.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::{Memory, Pool, Provider};
    use super::*;

    #[test]
    fn a_port_of_ours_is_ours_on_every_pod_of_ours() {
        let sockets = BTreeSet::from(["0.0.0.0:10080".parse().unwrap(), "192.0.2.1:80".parse().unwrap()]);
        let replicas = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let forbidden = Forbidden { sockets, replicas, authors: Authors::Operator };
        for (address, expected) in [
            ("10.0.0.1:10080", true),
            ("127.0.0.1:10080", true),
            ("192.0.2.1:80", true),
            ("[::ffff:10.0.0.1]:10080", true),
            ("[::ffff:192.0.2.1]:80", true),
            ("10.0.0.1:8080", false),
            ("10.0.0.2:10080", false),
        ] {
            assert_eq!(forbidden.contains("default", &Address::Ip(address.parse().unwrap())), expected, "{address}");
        }
    }

    #[test]
    fn no_route_leads_to_an_admin_listener_of_any_replica() {
        let replicas = ["10.0.0.1", "10.0.0.2"].iter().map(|ip| ip.parse().unwrap()).collect();
        let memory = Memory { replicas, ..Memory::default() };
        let mut addresses = Addresses::default();
        addresses.assign(&Provider::Pool(Pool::loopback(Vec::new())), &memory, std::iter::empty());
        // Where it is, and whether it is seen at this Pod's loopback, this Pod's address and another Pod's.
        for (admin, expected) in [
            (Some("127.0.0.1:8101"), [true, false, false]),
            (Some("10.0.0.1:8101"), [false, true, true]),
            (Some("[::ffff:10.0.0.1]:8101"), [false, true, true]),
            (Some("0.0.0.0:8101"), [true, true, true]),
            (Some("[::]:8101"), [true, true, true]),
            (None, [false, false, false]),
        ] {
            let at = admin.map(|admin| admin.parse().unwrap());
            let none = (std::iter::empty(), std::iter::empty());
            let forbidden = Forbidden::of(none.0, none.1, at, &addresses, Authors::Operator);
            let seen = ["127.0.0.1:8101", "10.0.0.1:8101", "10.0.0.2:8101"]
                .map(|address| forbidden.contains("default", &Address::Ip(address.parse().unwrap())));
            assert_eq!(seen, expected, "{admin:?}");
            assert!(!forbidden.contains("default", &Address::Ip("10.0.0.2:8102".parse().unwrap())), "{admin:?}");
        }
    }
}
