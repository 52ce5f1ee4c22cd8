//! Which Gateway owns each port at each address, so that no other Gateway binds it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::api::ObjectKey;
use crate::bind_address::BindAddress;
use crate::snapshot::TransportProtocol;

/// The owner of each port: of several Gateways with the same address the oldest wins, then the first by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct PortOwners {
    /// By port, so that finding a conflict costs as much as there are Gateways with this port, at most.
    by_port: BTreeMap<FamilyPort, BTreeMap<IpAddr, ObjectKey>>,
}

/// A port of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::compile) struct FamilyPort {
    is_ipv4: bool,
    port: u16,
    transport: TransportProtocol,
}

impl From<BindAddress> for FamilyPort {
    fn from(BindAddress { socket, transport }: BindAddress) -> Self {
        FamilyPort { is_ipv4: socket.is_ipv4(), port: socket.port(), transport }
    }
}

impl PortOwners {
    /// Gives the port to the Gateway, unless it or another Gateway owns it.
    pub(in crate::compile) fn claim(&mut self, address: BindAddress, gateway: &ObjectKey) {
        if self.other_owner(address, gateway).is_none() {
            let owners = self.by_port.entry(address.into()).or_default();
            owners.entry(address.socket.ip()).or_insert_with(|| gateway.clone());
        }
    }

    /// A Gateway other than `gateway` that owns the port at this address. The unspecified address includes all
    /// addresses of its family.
    pub(in crate::compile) fn other_owner(&self, address: BindAddress, gateway: &ObjectKey) -> Option<&ObjectKey> {
        let owners = self.by_port.get(&address.into())?;
        let ip = address.socket.ip();
        let unspecified =
            if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let is_other = |owner: &&ObjectKey| **owner != *gateway;
        let other_at = |ip: &IpAddr| owners.get(ip).filter(is_other);
        // If `address` is unspecified itself, it includes the addresses that other Gateways own.
        let other_at_any = || owners.values().find(is_other).filter(|_| ip == unspecified);
        other_at(&ip).or_else(|| other_at(&unspecified)).or_else(other_at_any)
    }

    /// The ports that have other owners in `other`.
    pub(in crate::compile) fn differing_ports(&self, other: &PortOwners) -> BTreeSet<FamilyPort> {
        let ports = self.by_port.keys().chain(other.by_port.keys());
        ports.filter(|port| self.by_port.get(port) != other.by_port.get(port)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> BindAddress {
        let socket: std::net::SocketAddr = text.parse().unwrap();
        BindAddress::new(TransportProtocol::Tcp, socket.ip(), socket.port())
    }

    #[test]
    fn unspecified_addresses_conflict_with_all_of_their_family() {
        let [old, new] = ["old", "new"].map(|name| ObjectKey::new("a", name));
        for (owned, wanted, is_conflict) in [
            ("192.0.2.1:80", "192.0.2.1:80", true),
            ("192.0.2.1:80", "192.0.2.2:80", false),
            ("192.0.2.1:80", "192.0.2.1:81", false),
            ("192.0.2.1:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "192.0.2.1:80", true),
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[2001:db8::1]:80", false),
            ("[2001:db8::1]:80", "[::]:80", true),
        ] {
            let mut owners = PortOwners::default();
            owners.claim(address(owned), &old);
            owners.claim(address(wanted), &new);
            let owner = owners.other_owner(address(wanted), &new);
            assert_eq!(owner, is_conflict.then_some(&old), "{wanted} while {owned} is owned");
            assert_eq!(owners.other_owner(address(owned), &old), None, "{owned} is the older claim");
        }
    }

    #[test]
    fn differing_ports_are_found() {
        let [old, new] = ["old", "new"].map(|name| ObjectKey::new("a", name));
        let owners = |claims: &[(&str, &ObjectKey)]| {
            let mut owners = PortOwners::default();
            claims.iter().for_each(|(text, gateway)| owners.claim(address(text), gateway));
            owners
        };
        let before = owners(&[("192.0.2.1:80", &old), ("192.0.2.1:81", &old)]);
        let after = owners(&[("192.0.2.1:80", &old), ("192.0.2.1:81", &new), ("192.0.2.2:82", &new)]);
        let ports: Vec<_> = before.differing_ports(&after).iter().map(|differing| differing.port).collect();
        assert_eq!(ports, [81, 82]);
    }
}
