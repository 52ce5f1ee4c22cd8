//! Where nothing is sent, whatever objects say: where we listen ourselves, since every request would go round in a circle
//! until nothing is left to open, and what no backend can be.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::addresses::Addresses;
use super::gateway::GatewayPlan;
use super::verdict::Problem;
use crate::upstream::{Address, Loopback, NoBackend};

/// Where nothing is sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forbidden {
    /// Those of all Gateways that are served and of Ingresses, as others may write them.
    sockets: BTreeSet<SocketAddr>,
    /// Of the Pods that listen on all their interfaces.
    replicas: BTreeSet<IpAddr>,
    loopback: Loopback,
}

impl Forbidden {
    /// `entrances` are those of Ingresses.
    pub(super) fn of<'a>(
        gateways: impl Iterator<Item = &'a GatewayPlan>,
        entrances: impl Iterator<Item = SocketAddr>,
        addresses: &Addresses,
        loopback: Loopback,
    ) -> Self {
        Forbidden {
            sockets: gateways.flat_map(GatewayPlan::sockets).chain(entrances).collect(),
            replicas: addresses.replicas().clone(),
            loopback,
        }
    }

    pub(super) fn contains(&self, address: &Address) -> bool {
        self.is_own(address) || self.no_backend(address).is_some()
    }

    /// Of these endpoints of a field, which ones are left out and why, if any.
    pub(super) fn problem(&self, field: &str, addresses: &[Address]) -> Option<Problem> {
        let own: Vec<_> = addresses.iter().filter(|address| self.is_own(address)).map(Address::to_string).collect();
        if !own.is_empty() {
            let message = format!("{} is where this Portico itself listens, so nothing is sent there", own.join(", "));
            return Some(Problem::new(field, message, "name the address of the backend"));
        }
        let (host, why) =
            addresses.iter().find_map(|address| self.no_backend(address).map(|why| (host(address), why)))?;
        Some(Problem::new(field, format!("{host} is {why}, so nothing is sent there"), why.remedy()))
    }

    /// What a name leads to is seen when DNS says it.
    fn no_backend(&self, address: &Address) -> Option<NoBackend> {
        match address {
            Address::Ip(address) => NoBackend::of(address.ip(), self.loopback),
            Address::Name { host, .. } => NoBackend::of_name(host, self.loopback),
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
    use super::*;

    #[test]
    fn a_port_of_ours_is_ours_on_every_pod_of_ours() {
        let sockets = BTreeSet::from(["0.0.0.0:10080".parse().unwrap(), "192.0.2.1:80".parse().unwrap()]);
        let replicas = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let forbidden = Forbidden { sockets, replicas, loopback: Loopback::Served };
        for (address, expected) in [
            ("10.0.0.1:10080", true),
            ("127.0.0.1:10080", true),
            ("192.0.2.1:80", true),
            ("[::ffff:10.0.0.1]:10080", true),
            ("[::ffff:192.0.2.1]:80", true),
            ("10.0.0.1:8080", false),
            ("10.0.0.2:10080", false),
        ] {
            assert_eq!(forbidden.contains(&Address::Ip(address.parse().unwrap())), expected, "{address}");
        }
    }
}
