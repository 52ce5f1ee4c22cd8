//! The client of a request: its address, and the scheme, the host and the port that it used.
//!
//! They are read once, from the head as it has arrived: before hop-by-hop fields are removed, which the client chooses
//! with `Connection`, and before Portico adds the peer to what the peer reports. No other step reads them from there.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::counted_address::counted_address;
use crate::forwarding_fields::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::plugin_api::Scheme;
use crate::plugin_api::context::UNKNOWN_CLIENT;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::headers::X_REAL_IP;
use crate::request_target::RequestHost;
use crate::upstream::ClientSlot;

/// The client of a request: what a trusted peer reports about it, otherwise that of the connection.
#[derive(Debug)]
pub(in crate::proxy) struct RequestClient {
    /// [`UNKNOWN_CLIENT`] if a trusted peer wrote something else than an address.
    pub(in crate::proxy) address: IpAddr,
    pub(in crate::proxy) scheme: Scheme,
    /// Boxed, because few requests have one.
    target: Option<Box<ReportedTarget>>,
}

/// What a trusted peer reports about the target that the client used.
#[derive(Debug)]
struct ReportedTarget {
    host: Option<RequestHost>,
    port: Option<u16>,
}

impl RequestClient {
    /// Reads the client of a request. `headers` are those that have arrived.
    pub(in crate::proxy) fn read(exchange: &ClientExchange, headers: &HeaderMap) -> Self {
        let (peer, scheme) = (exchange.address.ip().to_canonical(), exchange.client.scheme);
        if exchange.client.trusted {
            RequestClient::reported(headers, &exchange.http.trusted_ips, peer, scheme)
        } else {
            RequestClient { address: peer, scheme, target: None }
        }
    }

    /// The client as a trusted peer reports it. Of values that may be lists, only the last one is certainly the peer's:
    /// a peer that adds to a list adds it to what the client has sent.
    pub(in crate::proxy) fn reported(headers: &HeaderMap, trusted: &[IpNet], peer: IpAddr, connection: Scheme) -> Self {
        let address = reported_address(headers, trusted, peer);
        let scheme = match last_element(headers, &X_FORWARDED_PROTO).as_ref().map(HeaderValue::as_bytes) {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => Scheme::Https,
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => Scheme::Http,
            _ => connection,
        };
        let host = last_element(headers, &X_FORWARDED_HOST).and_then(RequestHost::parse);
        let port = last_element(headers, &X_FORWARDED_PORT).and_then(|port| port.to_str().ok()?.parse().ok());
        let port = port.filter(|port| *port != 0).or_else(|| host.as_ref()?.port());
        // The port of the listener is that of another scheme.
        let port = port.or_else(|| (scheme != connection).then(|| scheme.port()));
        let has_target = host.is_some() || port.is_some();
        RequestClient { address, scheme, target: has_target.then(|| Box::new(ReportedTarget { host, port })) }
    }

    /// The slot in which requests of the client are counted.
    pub(in crate::proxy) fn slot(&self, exchange: &ClientExchange) -> ClientSlot {
        if exchange.client.trusted { ClientSlot::of(counted_address(self.address)) } else { exchange.client.slot }
    }

    /// The host that the client used. `received` is that of the request.
    pub(in crate::proxy) fn host<'r>(&'r self, received: &'r RequestHost) -> &'r RequestHost {
        self.target.as_ref().and_then(|target| target.host.as_ref()).unwrap_or(received)
    }

    /// The port that the client used. `listener` is that of the listener, as clients see it.
    pub(in crate::proxy) fn port(&self, listener: u16) -> u16 {
        self.target.as_ref().and_then(|target| target.port).unwrap_or(listener)
    }

    /// The port that URLs have after the host, if a trusted peer reports it apart from the host.
    pub(in crate::proxy) fn separate_port(&self) -> Option<u16> {
        let ReportedTarget { host: Some(host), port: Some(port) } = self.target.as_deref()? else { return None };
        (!host.has_port() && *port != self.scheme.port()).then_some(*port)
    }
}

/// The last element of all fields with a name.
fn last_element(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let value = headers.get_all(name).iter().next_back()?;
    match memchr::memrchr(b',', value.as_bytes()) {
        None => Some(value.clone()),
        Some(comma) => HeaderValue::from_bytes(value.as_bytes()[comma + 1..].trim_ascii()).ok(),
    }
}

/// The last address in `X-Forwarded-For` that is not a trusted proxy. Without any, the address in `X-Real-IP`.
fn reported_address(headers: &HeaderMap, trusted: &[IpNet], peer: IpAddr) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = None;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        // Empty elements of a list have no meaning (RFC 9110, section 5.6.1).
        let entries = value.as_bytes().rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            // The trusted peer names a client that Portico cannot identify. Neither the peer nor an earlier entry,
            // which the client may have written, is that client.
            let Some(address) = parse_address(entry) else { return UNKNOWN_CLIENT };
            client = Some(address);
            if !is_trusted(&address) {
                return address;
            }
        }
    }
    // A trusted proxy that sends no `X-Forwarded-For` may send `X-Real-IP` instead. One that sends both may have taken
    // the latter from the client.
    let real_ip = headers.get_all(X_REAL_IP).iter().next_back().filter(|_| client.is_none());
    match real_ip {
        Some(real_ip) => parse_address(real_ip.as_bytes().trim_ascii()).unwrap_or(UNKNOWN_CLIENT),
        None => client.unwrap_or(peer),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(HeaderName, &str)], peer: &str) -> RequestClient {
        let trusted: Vec<IpNet> = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()].into();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        RequestClient::reported(&map, &trusted, peer.parse().unwrap(), Scheme::Http)
    }

    #[test]
    fn client_address_is_the_last_untrusted_one() {
        let cases = [
            (&[][..], None, "10.0.0.1"),
            (&["192.0.2.7"], None, "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7, 10.9.9.9"], None, "192.0.2.7"),
            (&["6.6.6.6", "192.0.2.7", "10.9.9.9"], None, "192.0.2.7"),
            (&["2001:db8::1, ::ffff:192.0.2.7, 2001:db8::2"], None, "192.0.2.7"),
            // With ports, brackets and quotes.
            (&["6.6.6.6, 192.0.2.7:4711"], None, "192.0.2.7"),
            (&["192.0.2.7:4711, 10.9.9.9:80"], None, "192.0.2.7"),
            (&["[2001:db9::7]"], None, "2001:db9::7"),
            (&["[2001:db9::7]:4711 , 10.0.0.2"], None, "2001:db9::7"),
            (&["\"[2001:db9::7]:4711\", [2001:db8::9]:80"], None, "2001:db9::7"),
            (&["[::ffff:192.0.2.7]:4711, \"10.9.9.9\""], None, "192.0.2.7"),
            (&["192.0.2.7, , 10.0.0.2,"], None, "192.0.2.7"),
            (&["", " ,"], None, "10.0.0.1"),
            // An unreadable entry is the client, so its address is unknown.
            (&["10.9.9.9, nonsense"], None, "0.0.0.0"),
            (&["nonsense, 10.9.9.9"], None, "0.0.0.0"),
            (&["unknown"], Some("192.0.2.8"), "0.0.0.0"),
            (&["192.0.2.7:99999"], None, "0.0.0.0"),
            (&["[192.0.2.7]"], None, "0.0.0.0"),
            (&["2001:db9::7%eth0"], None, "0.0.0.0"),
            (&["192.0.2.7\""], None, "0.0.0.0"),
            (&["nonsense, 192.0.2.7"], None, "192.0.2.7"),
            (&[], Some("192.0.2.8"), "192.0.2.8"),
            (&["", ","], Some("192.0.2.8:4711"), "192.0.2.8"),
            (&[], Some("nonsense"), "0.0.0.0"),
            // `X-Forwarded-For` takes precedence over `X-Real-IP`, which the client may have set.
            (&["192.0.2.7"], Some("6.6.6.6"), "192.0.2.7"),
            // Also if it lists only proxies, and the peer itself, which is then the client.
            (&["10.0.0.1"], Some("192.0.2.8"), "10.0.0.1"),
            (&["10.9.9.9, 10.0.0.1"], Some("192.0.2.8"), "10.9.9.9"),
        ];
        for (lists, real_ip, expected) in cases {
            let lists = lists.iter().map(|list| (X_FORWARDED_FOR, *list));
            let headers: Vec<_> = lists.chain(real_ip.map(|real_ip| (X_REAL_IP, real_ip))).collect();
            assert_eq!(read(&headers, "10.0.0.1").address.to_string(), expected, "{headers:?}");
        }
        let forged = [(X_REAL_IP, "6.6.6.6"), (X_REAL_IP, "192.0.2.8")];
        assert_eq!(read(&forged, "10.0.0.1").address.to_string(), "192.0.2.8", "the last one is the peer's");
    }

    #[test]
    fn scheme_host_and_port_are_those_that_the_peer_reports() {
        const PROTO: HeaderName = X_FORWARDED_PROTO;
        const HOST: HeaderName = X_FORWARDED_HOST;
        const PORT: HeaderName = X_FORWARDED_PORT;
        let received = RequestHost::parse(HeaderValue::from_static("internal.svc:24000")).unwrap();
        let cases = [
            (&[][..], "http://internal.svc:24000", 8080),
            (&[(PROTO, "https"), (HOST, "shop.example"), (PORT, "443")], "https://shop.example", 443),
            (&[(PROTO, "HTTPS"), (HOST, "shop.example")], "https://shop.example", 443),
            (&[(PROTO, "https")], "https://internal.svc:24000", 443),
            (&[(PROTO, "http"), (HOST, "shop.example")], "http://shop.example", 8080),
            (&[(HOST, "shop.example:9443"), (PROTO, "https")], "https://shop.example:9443", 9443),
            (&[(HOST, "shop.example"), (PORT, "9443"), (PROTO, "https")], "https://shop.example:9443", 9443),
            (&[(HOST, "shop.example"), (PORT, "80")], "http://shop.example", 80),
            (&[(PORT, "9443")], "http://internal.svc:24000", 9443),
            // Only the last element is certainly from the peer.
            (&[(PROTO, "https, http"), (HOST, "evil.example, shop.example")], "http://shop.example", 8080),
            (&[(PROTO, "http"), (PROTO, "https"), (PORT, "1"), (PORT, "2, 3")], "https://internal.svc:24000", 3),
            // Unreadable.
            (&[(PROTO, "wss"), (HOST, "shop example"), (PORT, "0")], "http://internal.svc:24000", 8080),
            (&[(PROTO, "https,"), (HOST, "shop.example,"), (PORT, "x")], "http://internal.svc:24000", 8080),
        ];
        for (headers, origin, port) in cases {
            let client = read(headers, "10.0.0.1");
            let mut found = format!("{}://{}", client.scheme, client.host(&received).raw.to_str().unwrap());
            if let Some(port) = client.separate_port() {
                found.push_str(&format!(":{port}"));
            }
            assert_eq!((&*found, client.port(8080)), (origin, port), "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn trusted_peer_is_the_client_only_if_it_names_no_other(list in "[0-9a-f.:,\\[\\]\" x]{0,24}") {
            let peer: IpAddr = "10.0.0.1".parse().unwrap();
            let address = read(&[(X_FORWARDED_FOR, &list)], "10.0.0.1").address;
            let names_nobody = list.bytes().all(|byte| byte == b',' || byte == b' ');
            proptest::prop_assert!(names_nobody || address != peer || list.contains("10.0.0.1"), "{}", list);
        }
    }
}
