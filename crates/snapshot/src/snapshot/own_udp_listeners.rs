//! The addresses from which UDP listeners send replies. A datagram with such a source is forged, or comes from a loop:
//! its reply would go to a listener, whose endpoint would reply to that, without end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses of UDP listeners of all replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnUdpListeners {
    /// The ports of `sockets`, sorted: they are compared first, because nearly all clients have other ones.
    ports: Vec<u16>,
    /// Those that listen, and those at which clients reach them.
    sockets: BTreeSet<SocketAddr>,
    /// The addresses of this machine and of the other replicas. A listener on all interfaces is reachable at each.
    hosts: BTreeSet<IpAddr>,
}

impl OwnUdpListeners {
    /// `sockets`: those of listeners, and the addresses that are published for them. `hosts`: the addresses of this
    /// machine and of all replicas.
    pub fn new(sockets: impl IntoIterator<Item = SocketAddr>, hosts: impl IntoIterator<Item = IpAddr>) -> Self {
        let canonical = |socket: SocketAddr| SocketAddr::new(socket.ip().to_canonical(), socket.port());
        let sockets: BTreeSet<_> = sockets.into_iter().map(canonical).collect();
        let ports: BTreeSet<_> = sockets.iter().map(SocketAddr::port).collect();
        // Without listeners, changes of replicas change nothing.
        let hosts = hosts.into_iter().filter(|_| !sockets.is_empty()).map(|ip| ip.to_canonical()).collect();
        OwnUdpListeners { ports: ports.into_iter().collect(), sockets, hosts }
    }

    /// Whether a datagram with this source would be from a listener.
    pub fn contains(&self, source: SocketAddr) -> bool {
        self.ports.binary_search(&source.port()).is_ok() && self.contains_address(source)
    }

    fn contains_address(&self, source: SocketAddr) -> bool {
        let (ip, port) = (source.ip().to_canonical(), source.port());
        let has = |ip: IpAddr| self.sockets.contains(&SocketAddr::new(ip, port));
        // A socket on `::` sends from IPv4 addresses, too.
        let is_on_all_interfaces =
            || has(Ipv6Addr::UNSPECIFIED.into()) || ip.is_ipv4() && has(Ipv4Addr::UNSPECIFIED.into());
        has(ip) || (ip.is_loopback() || self.hosts.contains(&ip)) && is_on_all_interfaces()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_compared_with_all_addresses_of_listeners() {
        // The second to last one is an address of a load balancer.
        let sockets = ["0.0.0.0:53", "[::]:54", "192.0.2.7:55", "198.51.100.1:56", "[::ffff:192.0.2.7]:57"];
        let hosts = ["192.0.2.7", "10.0.0.2", "2001:db8::7"];
        let listeners = OwnUdpListeners::new(
            sockets.map(|text| text.parse::<SocketAddr>().unwrap()),
            hosts.map(|text| text.parse::<IpAddr>().unwrap()),
        );
        for (source, expected) in [
            ("127.0.0.1:53", true),
            ("127.0.0.9:53", true),
            ("192.0.2.7:53", true),
            ("[::ffff:192.0.2.7]:53", true),
            ("10.0.0.2:53", true),
            ("10.0.0.3:53", false),
            ("[2001:db8::7]:53", false),
            ("[2001:db8::7]:54", true),
            ("[::1]:54", true),
            ("192.0.2.7:54", true),
            ("[::ffff:10.0.0.2]:54", true),
            ("[2001:db8::8]:54", false),
            ("192.0.2.7:55", true),
            ("10.0.0.2:55", false),
            ("127.0.0.1:55", false),
            ("198.51.100.1:56", true),
            ("[::ffff:198.51.100.1]:56", true),
            ("198.51.100.2:56", false),
            ("192.0.2.7:57", true),
            ("192.0.2.7:58", false),
        ] {
            assert_eq!(listeners.contains(source.parse().unwrap()), expected, "{source}");
        }
        assert!(!OwnUdpListeners::default().contains("127.0.0.1:53".parse().unwrap()));
    }
}
