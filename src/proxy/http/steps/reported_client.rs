//! The client as trusted peers report it in headers: its address and scheme.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::plugin_api::Scheme;
use crate::plugin_api::context::UNKNOWN_CLIENT;
use crate::proxy::client_counts::counted_address;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REAL_IP};
use crate::upstream::ClientSlot;

/// The client's address: the last address in `X-Forwarded-For` that is not a trusted proxy. For an untrusted peer it is
/// the peer's own address. [`UNKNOWN_CLIENT`] if a trusted peer wrote something else than an address.
pub(in crate::proxy) fn client_address(exchange: &ClientExchange, headers: &HeaderMap) -> IpAddr {
    let peer_address = exchange.address.ip().to_canonical();
    if exchange.client.trusted {
        forwarded_address(headers, &exchange.http.trusted_ips, peer_address)
    } else {
        peer_address
    }
}

/// The slot in which requests of the client are counted.
pub(in crate::proxy) fn client_slot(exchange: &ClientExchange, headers: &HeaderMap) -> ClientSlot {
    if exchange.client.trusted {
        ClientSlot::of(counted_address(client_address(exchange, headers)))
    } else {
        exchange.client.slot
    }
}

/// The client's address according to a trusted peer.
pub(in crate::proxy) fn forwarded_address(headers: &HeaderMap, trusted: &[IpNet], peer_address: IpAddr) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer_address;
    let mut lists_others = false;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        // Empty elements of a list have no meaning (RFC 9110, section 5.6.1).
        let entries = value.as_bytes().rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            // The trusted peer names a client that Portico cannot identify. Neither the peer nor an earlier entry,
            // which the client may have written, is that client.
            let Some(address) = parse_address(entry) else { return UNKNOWN_CLIENT };
            // The last entry may be the peer itself, which Portico has added.
            lists_others |= address != peer_address;
            client = address;
            if !is_trusted(&address) {
                return client;
            }
        }
    }
    // A trusted proxy that sends no `X-Forwarded-For` may send `X-Real-IP` instead.
    match headers.get(X_REAL_IP) {
        Some(real_ip) if !lists_others => parse_address(real_ip.as_bytes().trim_ascii()).unwrap_or(UNKNOWN_CLIENT),
        _ => client,
    }
}

/// Parses an address with or without a port. Load balancers write `192.0.2.1:4711`, `[2001:db8::1]:4711` or
/// `[2001:db8::1]`, and any of these in quotes.
fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let entry = entry.strip_prefix(b"\"").and_then(|entry| entry.strip_suffix(b"\"")).unwrap_or(entry);
    let text = std::str::from_utf8(entry).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.or_else(in_brackets).map(|address| address.to_canonical())
}

/// The scheme that the client used: `X-Forwarded-Proto` of a trusted peer, otherwise that of the connection.
pub(in crate::proxy) fn client_scheme(exchange: &ClientExchange, headers: &HeaderMap) -> Scheme {
    let connection_scheme = exchange.client.scheme;
    if !exchange.client.trusted {
        return connection_scheme;
    }
    match headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => Scheme::Https,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => Scheme::Http,
        _ => connection_scheme,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_address_is_the_last_untrusted_one() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()].into();
        let cases = [
            // The last entry is the one that Portico added for the peer.
            ("10.0.0.1", &["10.0.0.1"][..], None, "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.7, 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.9.9.9, 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.7", "10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["2001:db8::1, ::ffff:192.0.2.7, 2001:db8::2, 10.0.0.1"], None, "192.0.2.7"),
            // With ports, brackets and quotes.
            ("10.0.0.1", &["6.6.6.6, 192.0.2.7:4711, 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7:4711, 10.9.9.9:80,10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["[2001:db9::7], 10.0.0.1"], None, "2001:db9::7"),
            ("10.0.0.1", &["[2001:db9::7]:4711 , 10.0.0.1"], None, "2001:db9::7"),
            ("10.0.0.1", &["\"[2001:db9::7]:4711\", [2001:db8::9]:80, 10.0.0.1"], None, "2001:db9::7"),
            ("10.0.0.1", &["[::ffff:192.0.2.7]:4711, \"10.9.9.9\", 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7, , 10.0.0.1,"], None, "192.0.2.7"),
            ("10.0.0.1", &["", "10.0.0.1"], None, "10.0.0.1"),
            // An unreadable entry is the client, so its address is unknown.
            ("10.0.0.1", &["10.9.9.9, nonsense, 10.0.0.1"], None, "0.0.0.0"),
            ("10.0.0.1", &["nonsense, 10.9.9.9, 10.0.0.1"], None, "0.0.0.0"),
            ("10.0.0.1", &["unknown, 10.0.0.1"], Some("192.0.2.8"), "0.0.0.0"),
            ("10.0.0.1", &["192.0.2.7:99999, 10.0.0.1"], None, "0.0.0.0"),
            ("10.0.0.1", &["[192.0.2.7], 10.0.0.1"], None, "0.0.0.0"),
            ("10.0.0.1", &["2001:db9::7%eth0, 10.0.0.1"], None, "0.0.0.0"),
            ("10.0.0.1", &["192.0.2.7\", 10.0.0.1"], None, "0.0.0.0"),
            ("10.0.0.1", &["nonsense, 192.0.2.7, 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["10.0.0.1"], Some("192.0.2.8"), "192.0.2.8"),
            ("10.0.0.1", &[], Some("192.0.2.8:4711"), "192.0.2.8"),
            // `X-Forwarded-For` takes precedence over `X-Real-IP`, which the client may have set.
            ("10.0.0.1", &["192.0.2.7, 10.0.0.1"], Some("6.6.6.6"), "192.0.2.7"),
            ("10.0.0.1", &["10.0.0.1"], Some("nonsense"), "0.0.0.0"),
        ];
        for (exchange, lists, real_ip, expected) in cases {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(list));
            }
            if let Some(real_ip) = real_ip {
                headers.insert(X_REAL_IP, HeaderValue::from_static(real_ip));
            }
            let address = forwarded_address(&headers, &trusted, exchange.parse().unwrap());
            assert_eq!(address.to_string(), expected, "{lists:?} {real_ip:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn trusted_peer_is_the_client_only_if_it_names_no_other(list in "[0-9a-f.:,\\[\\]\" x]{0,24}") {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::try_from(format!("{list}, 10.0.0.1")).unwrap());
            let exchange = "10.0.0.1".parse().unwrap();
            let address = forwarded_address(&headers, &["10.0.0.1/32".parse().unwrap()], exchange);
            let names_nobody = list.bytes().all(|byte| byte == b',' || byte == b' ');
            proptest::prop_assert!(names_nobody || address != exchange || list.contains("10.0.0.1"), "{}", list);
        }
    }
}
