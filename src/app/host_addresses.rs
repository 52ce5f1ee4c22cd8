//! Addresses of this machine, reported outside of a Pod for Gateways that listen on all interfaces.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of this machine except loopback and link-local ones. A family without any other address gets its loopback
/// address, so that a Gateway on all interfaces has one to report. Reads `/proc`, so no name service is queried.
pub(super) fn host_addresses() -> Vec<IpAddr> {
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let interfaces = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    with_loopback(local_v4(&trie), global_v6(&interfaces))
}

/// All addresses in order, and the loopback address of a family without any.
fn with_loopback(mut v4: Vec<IpAddr>, mut v6: Vec<IpAddr>) -> Vec<IpAddr> {
    if v4.is_empty() {
        v4.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    if v6.is_empty() {
        v6.push(IpAddr::V6(Ipv6Addr::LOCALHOST));
    }
    let mut addresses = [v4, v6].concat();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Parses `/proc/net/fib_trie`, where `/32 host LOCAL` follows the line `|-- ADDRESS` of a local address.
fn local_v4(trie: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|address| !address.is_loopback() && !address.is_link_local())
        {
            addresses.push(IpAddr::V4(address));
        }
    }
    addresses
}

/// Parses `/proc/net/if_inet6`. Each line has an address in hexadecimal, the index of its interface, the prefix length,
/// the scope (00 is global), flags, and the name of the interface.
fn global_v6(interfaces: &str) -> Vec<IpAddr> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let scope = words.nth(2)?;
        (scope == "00").then_some(IpAddr::V6(Ipv6Addr::from(address)))
    };
    interfaces.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_tables_are_parsed() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        \
                    /0 universe UNICAST\n     |-- 127.0.0.1\n        \
                    /32 host LOCAL\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        \
                    /32 link BROADCAST\n";
        assert_eq!(local_v4(trie), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        let interfaces = "20010db8000000000000000000000001 02 40 00 80 eth0\n\
                          fe800000000000000000000000000001 02 40 20 80 eth0\n\
                          00000000000000000000000000000001 01 80 10 80 lo\n";
        assert_eq!(global_v6(interfaces), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert_eq!((local_v4(""), global_v6("nonsense")), (vec![], vec![]));
    }

    #[test]
    fn each_family_has_an_address() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(with_loopback(vec![], vec![]), addresses(&["127.0.0.1", "::1"]));
        let one = addresses(&["192.0.2.7"]);
        assert_eq!(with_loopback([&one[..], &one].concat(), vec![]), addresses(&["192.0.2.7", "::1"]));
    }
}
