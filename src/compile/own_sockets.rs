//! Where we listen ourselves. An endpoint there would send every request round in a circle until nothing is left to open.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::gateway::GatewayPlan;
use crate::upstream::Address;

/// The sockets of all Gateways that are served and of Ingresses, as others may write them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnSockets(BTreeSet<SocketAddr>);

impl OwnSockets {
    /// `entrances` are those of Ingresses.
    pub(super) fn of<'a>(
        gateways: impl Iterator<Item = &'a GatewayPlan>,
        entrances: impl Iterator<Item = SocketAddr>,
    ) -> Self {
        OwnSockets(gateways.flat_map(GatewayPlan::sockets).chain(entrances).collect())
    }

    /// Names are not looked up here; whoever hides an address of ours behind one finds the circle by its limits.
    pub(super) fn contain(&self, address: &Address) -> bool {
        let Address::Ip(address) = address else { return false };
        let on_all_interfaces = || {
            let all: [SocketAddr; 2] = [([0, 0, 0, 0], address.port()).into(), ([0_u16; 8], address.port()).into()];
            (address.ip().is_loopback() || address.ip().is_unspecified()) && all.iter().any(|all| self.0.contains(all))
        };
        self.0.contains(address) || on_all_interfaces()
    }
}
