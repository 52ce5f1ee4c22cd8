//! The PROXY header with which connections to endpoints begin if the Service requests it: the endpoint learns the
//! address of the client (<https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>).

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// Both ends of a client's connection, as the client sees them: without the load balancers in front of Portico.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionEnds {
    pub client: SocketAddr,
    pub destination: SocketAddr,
}

impl ProxyProtocol {
    /// The value of the annotation that requests this version.
    pub fn name(self) -> &'static str {
        match self {
            ProxyProtocol::V1 => "v1",
            ProxyProtocol::V2 => "v2",
        }
    }

    /// The header for a connection of Portico itself, such as a health check, which has no client.
    pub(super) fn header_without_client(self) -> Vec<u8> {
        match self {
            ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
            ProxyProtocol::V2 => {
                let mut header = V2_SIGNATURE.to_vec();
                header.extend([V2_COMMAND_LOCAL, UNSPECIFIED_FAMILY, 0, 0]);
                header
            }
        }
    }

    /// The header for a connection.
    pub(super) fn header(self, ends: ConnectionEnds) -> Vec<u8> {
        let ends = ends.of_one_family();
        match self {
            ProxyProtocol::V1 => v1_header(ends),
            ProxyProtocol::V2 => v2_header(ends),
        }
    }
}

impl ConnectionEnds {
    /// A header has addresses of one family, so an IPv4 address together with an IPv6 address is mapped.
    fn of_one_family(self) -> (IpAddr, u16, IpAddr, u16) {
        let ConnectionEnds { client, destination } = self;
        let [source, target] = [client, destination].map(|address| address.ip().to_canonical());
        let [source, target] = match (source, target) {
            (IpAddr::V4(source), target @ IpAddr::V6(_)) => [source.to_ipv6_mapped().into(), target],
            (source @ IpAddr::V6(_), IpAddr::V4(target)) => [source, target.to_ipv6_mapped().into()],
            (source, target) => [source, target],
        };
        (source, client.port(), target, destination.port())
    }
}

fn v1_header((source, source_port, target, target_port): (IpAddr, u16, IpAddr, u16)) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut header = Vec::with_capacity(LONGEST_V1);
    // Writing to a vector does not fail.
    drop(write!(header, "PROXY {family} {source} {target} {source_port} {target_port}\r\n"));
    header
}

fn v2_header((source, source_port, target, target_port): (IpAddr, u16, IpAddr, u16)) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(2 * (size_of::<Ipv6Addr>() + size_of::<u16>()));
    for ip in [source, target] {
        match ip {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    for port in [source_port, target_port] {
        addresses.extend(port.to_be_bytes());
    }
    let family = if source.is_ipv4() { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 };
    let mut header = V2_SIGNATURE.to_vec();
    // At most 36 bytes.
    header.extend([V2_COMMAND_PROXY, family, 0, addresses.len() as u8]);
    header.extend(addresses);
    header
}

/// Two IPv6 addresses without zeros to omit, according to the specification.
const LONGEST_V1: usize = 107;
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 and the command PROXY.
const V2_COMMAND_PROXY: u8 = 0x21;
/// Version 2 and the command LOCAL.
const V2_COMMAND_LOCAL: u8 = 0x20;
const UNSPECIFIED_FAMILY: u8 = 0;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(client: &str, destination: &str) -> ConnectionEnds {
        ConnectionEnds { client: client.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn addresses_have_one_family() {
        for (client, destination, expected) in [
            ("192.0.2.1:5000", "198.51.100.2:443", "PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n"),
            ("[2001:db8::1]:5000", "[2001:db8::2]:443", "PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n"),
            ("[::ffff:192.0.2.1]:1", "[::ffff:198.51.100.2]:2", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n"),
            ("192.0.2.1:1", "[2001:db8::2]:2", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"),
            ("[2001:db8::1]:1", "192.0.2.1:2", "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n"),
        ] {
            let header = ProxyProtocol::V1.header(ends(client, destination));
            assert_eq!(String::from_utf8(header).unwrap(), expected);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let header = ProxyProtocol::V2.header(ends("192.0.2.1:12345", "198.51.100.2:443"));
        let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 1, 187];
        assert_eq!(header, [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat());
    }

    #[test]
    fn connections_without_a_client_say_so() {
        let v1 = ProxyProtocol::V1.header_without_client();
        let addresses = ppp::v1::Header::try_from(&v1[..]).unwrap().addresses;
        assert_eq!(addresses, ppp::v1::Addresses::Unknown);
        let v2 = ProxyProtocol::V2.header_without_client();
        let header = ppp::v2::Header::try_from(&v2[..]).unwrap();
        assert_eq!((header.command, header.header.len()), (ppp::v2::Command::Local, v2.len()));
    }

    proptest! {
        /// Another implementation reads the same addresses.
        #[test]
        fn headers_are_valid(source: IpAddr, target: IpAddr, ports: (u16, u16)) {
            let ends = ConnectionEnds {
                client: SocketAddr::new(source, ports.0),
                destination: SocketAddr::new(target, ports.1),
            };
            let (source, _, target, _) = ends.of_one_family();
            let v1 = ProxyProtocol::V1.header(ends);
            prop_assert!(v1.len() <= LONGEST_V1);
            let addresses = match ppp::v1::Header::try_from(&v1[..]).unwrap().addresses {
                ppp::v1::Addresses::Tcp4(ip) => (ip.source_address.into(), ip.destination_address.into()),
                ppp::v1::Addresses::Tcp6(ip) => (ip.source_address.into(), ip.destination_address.into()),
                ppp::v1::Addresses::Unknown => panic!("no addresses"),
            };
            prop_assert_eq!(addresses, (source, target));
            let v2 = ProxyProtocol::V2.header(ends);
            let header = ppp::v2::Header::try_from(&v2[..]).unwrap();
            prop_assert_eq!(header.header.len(), v2.len());
            let addresses = match header.addresses {
                ppp::v2::Addresses::IPv4(ip) => {
                    (ip.source_address.into(), ip.destination_address.into(), (ip.source_port, ip.destination_port))
                }
                ppp::v2::Addresses::IPv6(ip) => {
                    (ip.source_address.into(), ip.destination_address.into(), (ip.source_port, ip.destination_port))
                }
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(addresses, (source, target, ports));
        }
    }
}
