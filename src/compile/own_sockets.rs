//! Where we listen ourselves. An endpoint there would send every request round in a circle until nothing is left to open.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::addresses::Addresses;
use super::gateway::GatewayPlan;
use crate::upstream::Address;

/// The sockets of all Gateways that are served and of Ingresses, as others may write them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnSockets {
    sockets: BTreeSet<SocketAddr>,
    /// Of the Pods that listen on all their interfaces.
    replicas: BTreeSet<IpAddr>,
}

impl OwnSockets {
    /// `entrances` are those of Ingresses.
    pub(super) fn of<'a>(
        gateways: impl Iterator<Item = &'a GatewayPlan>,
        entrances: impl Iterator<Item = SocketAddr>,
        addresses: &Addresses,
    ) -> Self {
        OwnSockets {
            sockets: gateways.flat_map(GatewayPlan::sockets).chain(entrances).collect(),
            replicas: addresses.replicas().clone(),
        }
    }

    /// Names are not looked up here; whoever hides an address of ours behind one finds the circle by its limits.
    pub(super) fn contain(&self, address: &Address) -> bool {
        let Address::Ip(address) = address else { return false };
        let on_all_interfaces = || {
            let all: [SocketAddr; 2] = [([0, 0, 0, 0], address.port()).into(), ([0_u16; 8], address.port()).into()];
            let ip = address.ip();
            (ip.is_loopback() || ip.is_unspecified() || self.replicas.contains(&ip))
                && all.iter().any(|all| self.sockets.contains(all))
        };
        self.sockets.contains(address) || on_all_interfaces()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_ours_is_ours_on_every_pod_of_ours() {
        let sockets = BTreeSet::from(["0.0.0.0:10080".parse().unwrap(), "192.0.2.1:80".parse().unwrap()]);
        let own = OwnSockets { sockets, replicas: BTreeSet::from(["10.0.0.1".parse().unwrap()]) };
        for (address, expected) in [
            ("10.0.0.1:10080", true),
            ("127.0.0.1:10080", true),
            ("192.0.2.1:80", true),
            ("10.0.0.1:8080", false),
            ("10.0.0.2:10080", false),
        ] {
            assert_eq!(own.contain(&Address::Ip(address.parse().unwrap())), expected, "{address}");
        }
    }
}
