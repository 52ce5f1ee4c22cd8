//! The sockets on which this process listens, to which nothing in it connects: what it sends there would come back
//! without end, and its admin listener trusts all that can reach it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

/// The sockets of all listeners for TCP. They are read for each new connection, and change with the listeners.
#[derive(Debug, Default)]
pub struct OwnSockets(ArcSwap<SocketSets>);

#[derive(Clone, Debug, Default)]
struct SocketSets {
    /// Those of Gateways and Ingresses.
    listeners: BTreeSet<SocketAddr>,
    /// Those of the process itself, such as the admin listener.
    fixed: BTreeSet<SocketAddr>,
}

impl SocketSets {
    fn contains(&self, ip: IpAddr, port: u16) -> bool {
        let socket = SocketAddr::new(ip, port);
        self.listeners.contains(&socket) || self.fixed.contains(&socket)
    }
}

/// The address is that of an own listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is a listener of this Portico process; use the address and port on which the server itself listens")]
pub struct OwnSocket(pub SocketAddr);

impl OwnSockets {
    /// Replaces the sockets of Gateways and Ingresses.
    pub fn set_listeners(&self, sockets: impl IntoIterator<Item = SocketAddr>) {
        let listeners: BTreeSet<_> = sockets.into_iter().map(canonical).collect();
        self.update(|sets| sets.listeners.clone_from(&listeners));
    }

    /// Adds a socket that stays until the process ends.
    pub fn add_fixed(&self, socket: SocketAddr) {
        self.update(|sets| {
            sets.fixed.insert(canonical(socket));
        });
    }

    fn update(&self, change: impl Fn(&mut SocketSets)) {
        self.0.rcu(|sets| {
            let mut sets = SocketSets::clone(sets);
            change(&mut sets);
            Arc::new(sets)
        });
    }

    /// Checks an address before a connection to it is opened.
    pub fn check(&self, address: SocketAddr) -> Result<(), OwnSocket> {
        let ip = address.ip();
        self.check_on_machine(address, || ip.to_canonical().is_loopback() || ip.is_unspecified())
    }

    /// Checks a connection that was opened to `address`, before anything is sent: only now it is known whether the
    /// address is one of this machine, where a listener on all interfaces is reached. `local` is the own address of
    /// the connection, which is the same IP address then.
    pub fn check_connected(
        &self,
        address: SocketAddr,
        local: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<(), OwnSocket> {
        let ip = address.ip().to_canonical();
        self.check_on_machine(address, || local().is_some_and(|local| local.to_canonical() == ip))
    }

    /// `is_of_machine` says whether the address is one of this machine. Only called if a listener on all interfaces has
    /// the port.
    fn check_on_machine(&self, address: SocketAddr, is_of_machine: impl FnOnce() -> bool) -> Result<(), OwnSocket> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let sets = self.0.load();
        // A socket on `::` accepts connections to IPv4 addresses, too.
        let is_on_all_interfaces = sets.contains(Ipv6Addr::UNSPECIFIED.into(), port)
            || ip.is_ipv4() && sets.contains(Ipv4Addr::UNSPECIFIED.into(), port);
        if sets.contains(ip, port) || is_on_all_interfaces && is_of_machine() {
            return Err(OwnSocket(address));
        }
        Ok(())
    }
}

/// An IPv4 address has more than one form in IPv6.
fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_with_all_sockets() {
        let machine: IpAddr = "192.0.2.7".parse().unwrap();
        let machine_v6: IpAddr = "2001:db8::7".parse().unwrap();
        let listeners = ["0.0.0.0:80", "[::]:81", "192.0.2.7:82", "127.0.0.2:83", "[::ffff:192.0.2.7]:84"];
        let own = OwnSockets::default();
        own.set_listeners(listeners.map(|text| text.parse().unwrap()));
        own.add_fixed("127.0.0.1:8101".parse().unwrap());
        own.add_fixed("0.0.0.0:8100".parse().unwrap());
        // The address, whether it is refused before connecting, and whether it is refused at all.
        for (address, before, after) in [
            ("127.0.0.1:80", true, true),
            ("127.9.9.9:80", true, true),
            ("0.0.0.0:80", true, true),
            ("[::ffff:127.0.0.1]:80", true, true),
            ("192.0.2.7:80", false, true),
            ("[::ffff:192.0.2.7]:80", false, true),
            ("192.0.2.8:80", false, false),
            ("[::1]:80", false, false),
            ("[2001:db8::7]:80", false, false),
            ("[::1]:81", true, true),
            ("[::]:81", true, true),
            ("127.0.0.1:81", true, true),
            ("192.0.2.7:81", false, true),
            ("[2001:db8::7]:81", false, true),
            ("[2001:db8::8]:81", false, false),
            ("192.0.2.7:82", true, true),
            ("127.0.0.1:82", false, false),
            ("127.0.0.2:83", true, true),
            ("127.0.0.1:83", false, false),
            ("192.0.2.7:84", true, true),
            ("127.0.0.1:8101", true, true),
            ("192.0.2.7:8101", false, false),
            ("192.0.2.7:8100", false, true),
            ("192.0.2.7:8102", false, false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(own.check(address).is_err(), before, "{address}");
            let ip = address.ip().to_canonical();
            let local = [machine, machine_v6].into_iter().find(|own| *own == ip || before);
            let connected = own.check_connected(address, || local);
            assert_eq!(before || connected.is_err(), after, "{address}");
        }
        own.set_listeners([]);
        assert_eq!(own.check("192.0.2.7:82".parse().unwrap()), Ok(()));
        let admin = "127.0.0.1:8101".parse().unwrap();
        assert_eq!(own.check(admin), Err(OwnSocket(admin)), "it stays");
    }
}
