//! Sets of IP addresses, as lists of addresses and networks configure them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Address ranges, each as its first and last address, in ascending order and without overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRanges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AddressRanges {
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => ranges_contain(&self.v4, Ipv4Addr::to_bits(address)),
            IpAddr::V6(address) => ranges_contain(&self.v6, Ipv6Addr::to_bits(address)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for AddressRanges {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        let mut ranges = AddressRanges::default();
        for network in networks {
            match network {
                IpNet::V4(net) => ranges.v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => ranges.v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        merge_ranges(&mut ranges.v4);
        merge_ranges(&mut ranges.v6);
        ranges
    }
}

/// Parses an address or network. An IPv4-mapped IPv6 network becomes an IPv4 network, because client addresses are
/// converted in the same way.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let net = text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| IpNet::from(address)))?;
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match IpAddr::V6(v6.network()).to_canonical() {
            mapped @ IpAddr::V4(_) => IpNet::new(mapped, v6.prefix_len() - 96).ok(),
            IpAddr::V6(_) => Some(net),
        },
        _ => Some(net),
    }
}

/// Sorts ranges and merges those that overlap.
fn merge_ranges<N: Copy + Ord>(ranges: &mut Vec<(N, N)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|range, previous| {
        let overlaps = range.0 <= previous.1;
        if overlaps {
            previous.1 = previous.1.max(range.1);
        }
        overlaps
    });
}

fn ranges_contain<N: Copy + Ord>(ranges: &[(N, N)], address: N) -> bool {
    let starting_before = ranges.partition_point(|(first, _)| *first <= address);
    starting_before > 0 && address <= ranges[starting_before - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_networks_are_merged() {
        let ranges: AddressRanges = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/31", "::ffff:192.0.2.0/127"]
            .map(parse_network)
            .into_iter()
            .flatten()
            .collect();
        assert_eq!((ranges.v4.len(), ranges.v6.len()), (3, 0));
        for (address, is_contained) in
            [("10.255.0.1", true), ("11.0.0.0", false), ("192.0.2.6", true), ("192.0.2.1", true), ("192.0.2.2", false)]
        {
            assert_eq!(ranges.contains(address.parse().unwrap()), is_contained, "{address}");
        }
    }

    #[test]
    fn texts_that_are_no_networks_are_rejected() {
        for text in ["", "10.0.0.0/33", "shop.example", "10.0.0.0/-1", "10.0.0", "::1/129"] {
            assert_eq!(parse_network(text), None, "{text}");
        }
    }
}
