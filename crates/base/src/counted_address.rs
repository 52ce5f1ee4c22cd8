//! Under which address what a client has open is counted.

use std::net::{IpAddr, Ipv6Addr};

/// The address under which a client is counted. A network of IPv6 with 64 bits is usually one client, which may use any
/// of its addresses.
pub fn counted_address(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}
