//! Header handling between client and endpoint: hop-by-hop fields, cookies and the `X-Forwarded-*` fields.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::via::extended_list;
use crate::counted_address::counted_address;
use crate::forwarding_fields::{
    ForwardingFields, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REQUEST_ID,
};
use crate::hop_count::HopCount;
use crate::plugin_api::{Scheme, header_spoofing};
use crate::proxy::ipv4_text::Ipv4Text;
use crate::upstream::ClientSlot;

/// Removes hop-by-hop fields (RFC 9110, section 7.6.1), including those that `Connection` names. Returns the latter.
pub(in crate::proxy) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Vec<HeaderName> {
    strip_and_visit(headers, |_| {}, |_| false).named
}

/// Removes hop-by-hop fields of a request, `Expect`, to which Portico responds itself, fields that a backend could
/// mistake for those that Portico sets, and what an untrusted peer reports about the client in other fields. Takes out
/// the number of hops of every peer: a loop may lead through any other proxy.
///
/// `Connection` does not remove what a trusted peer reports about the client: proxies pass on the `Connection` of
/// clients, which would choose what endpoints learn of them.
pub(in crate::proxy) fn strip_request(headers: &mut HeaderMap, is_trusted: bool) -> StrippedRequest {
    let (mut is_spoofed, mut has_expectation, mut has_client_report, mut has_hops) = (false, false, false, false);
    let mut has_forwarding_field = false;
    let visit = |name: &HeaderName| {
        is_spoofed |= header_spoofing::is_spoofed(name, &MANAGED_HEADERS);
        has_expectation |= name == EXPECT;
        // For speed: most names begin with another letter.
        match name.as_str().as_bytes() {
            [b'f', ..] => has_client_report |= CLIENT_REPORTS.contains(name),
            [b'x', ..] => {
                has_client_report |= CLIENT_REPORTS.contains(name);
                has_forwarding_field |= ForwardingFields::is_field(name);
            }
            [b'v', ..] => has_forwarding_field |= ForwardingFields::is_field(name),
            [b'p', ..] => {
                has_client_report |= CLIENT_REPORTS.contains(name);
                has_hops |= HopCount::is_field(name);
            }
            _ => {}
        }
    };
    let is_report = |name: &HeaderName| is_trusted && (MANAGED_HEADERS.contains(name) || CLIENT_REPORTS.contains(name));
    let StrippedHopByHop { accepts_trailers, named: _ } = strip_and_visit(headers, visit, is_report);
    let hops = if has_hops { HopCount::take(headers) } else { HopCount::ZERO };
    if has_expectation {
        headers.remove(EXPECT);
    }
    if has_client_report && !is_trusted {
        for name in &CLIENT_REPORTS {
            headers.remove(name);
        }
    }
    if is_spoofed {
        header_spoofing::remove_spoofed(headers, &MANAGED_HEADERS);
    }
    StrippedRequest { has_client_report: has_client_report && is_trusted, has_forwarding_field, accepts_trailers, hops }
}

/// What [`strip_request`] has found in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct StrippedRequest {
    /// Whether a trusted peer reports the client in other fields than those that Portico always sets.
    pub(in crate::proxy) has_client_report: bool,
    /// Whether it has [`ForwardingFields`], or had them before `Connection` removed them.
    pub(in crate::proxy) has_forwarding_field: bool,
    /// Whether `TE: trailers` is left.
    pub(in crate::proxy) accepts_trailers: bool,
    /// How many Portico processes have forwarded the request.
    pub(in crate::proxy) hops: HopCount,
}

/// Removes hop-by-hop fields, except `TE: trailers`. Calls `visit` with the names of all other fields, including those
/// that `Connection` names, of which those of `is_kept` stay.
///
/// One pass over the names finds the hop-by-hop fields that exist, since most requests have at most one of them.
fn strip_and_visit(
    headers: &mut HeaderMap,
    mut visit: impl FnMut(&HeaderName),
    is_kept: impl Fn(&HeaderName) -> bool,
) -> StrippedHopByHop {
    let mut seen = [false; HOP_BY_HOP_COUNT];
    for name in headers.keys() {
        match hop_by_hop_index(name) {
            Some(index) => seen[index] = true,
            None => visit(name),
        }
    }
    if seen == [false; HOP_BY_HOP_COUNT] {
        return StrippedHopByHop { accepts_trailers: false, named: Vec::new() };
    }
    let wants_trailers = headers.get_all(TE).iter().any(|value| contains_token(value, "trailers"));
    let named = headers.get_all(CONNECTION).iter().flat_map(connection_options).filter(|name| !is_kept(name));
    let named: Vec<HeaderName> = named.collect();
    for name in &named {
        headers.remove(name);
    }
    for (name, _) in HOP_BY_HOP.iter().zip(seen).filter(|(_, seen)| *seen) {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    StrippedHopByHop { accepts_trailers: wants_trailers, named }
}

/// What [`strip_and_visit`] has found.
struct StrippedHopByHop {
    /// Whether `TE: trailers` is left.
    accepts_trailers: bool,
    /// The fields that `Connection` names.
    named: Vec<HeaderName>,
}

/// The position of the name in [`HOP_BY_HOP`].
#[inline]
fn hop_by_hop_index(name: &HeaderName) -> Option<usize> {
    // For speed: most names have another length.
    if !matches!(name.as_str().len(), 2 | 7 | 10 | 16 | 17) {
        return None;
    }
    HOP_BY_HOP.iter().position(|candidate| candidate == name)
}

const HOP_BY_HOP_COUNT: usize = 6;
static HOP_BY_HOP: [HeaderName; HOP_BY_HOP_COUNT] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The fields that `Connection` names, except Host and Content-Length, whose removal would change the message, and the
/// number of hops, which would be lost.
pub(in crate::proxy) fn connection_options(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tokens
        .filter(|token| !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH && !HopCount::is_field(name))
}

/// Whether a comma-separated list contains the token, ignoring case.
pub(in crate::proxy) fn contains_token(value: &HeaderValue, token: &str) -> bool {
    let mut items = value.as_bytes().split(|byte| *byte == b',');
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Joins the Cookie fields of an HTTP/2 request into one, as HTTP/1 requires (RFC 9113, section 8.2.3).
pub(in crate::proxy) fn join_cookies(headers: &mut HeaderMap) {
    let has_repeated_field = headers.keys_len() < headers.len();
    if !has_repeated_field {
        return;
    }
    let mut fields = headers.get_all(COOKIE).iter();
    if fields.next().is_none() || fields.next().is_none() {
        return;
    }
    let cookies: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&cookies.join(&b"; "[..])).expect("header values joined are a header value");
    headers.insert(COOKIE, joined);
}

/// Forwarding information that all requests of a connection share, formatted once.
#[derive(Debug)]
pub(in crate::proxy) struct ForwardedClient {
    pub(in crate::proxy) trusted: bool,
    pub(in crate::proxy) ip: HeaderValue,
    /// The slot of the peer, which is that of the client unless the peer is trusted.
    pub(in crate::proxy) slot: ClientSlot,
    pub(in crate::proxy) scheme: Scheme,
    /// The public port of the listener that was used last, as a number and formatted.
    port: RefCell<Option<(u16, HeaderValue)>>,
}

impl ForwardedClient {
    pub(in crate::proxy) fn new(ip: IpAddr, trusted: bool, scheme: Scheme) -> Self {
        let slot = ClientSlot::of(counted_address(ip));
        // An IPv4 client stays an IPv4 client on a dual-stack socket.
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ipv4_value(ip),
            IpAddr::V6(ip) => HeaderValue::try_from(ip.to_string()).expect("an IP address is a header value"),
        };
        ForwardedClient { trusted, ip, slot, scheme, port: RefCell::default() }
    }

    /// The public port of the listener that was used last.
    pub(in crate::proxy) fn last_port(&self) -> Option<u16> {
        self.port.borrow().as_ref().map(|(port, _)| *port)
    }

    /// A request uses a listener with this public port.
    pub(in crate::proxy) fn use_port(&self, port: u16) {
        if self.last_port() != Some(port) {
            self.port_value(port);
        }
    }

    pub(in crate::proxy) fn port_value(&self, port: u16) -> HeaderValue {
        let mut cached = self.port.borrow_mut();
        match &*cached {
            Some((known, value)) if *known == port => value.clone(),
            _ => {
                let value = HeaderValue::from(port);
                *cached = Some((port, value.clone()));
                value
            }
        }
    }

    /// Appends the peer to an existing `Forwarded` field, as an element of its own (RFC 7239, section 4).
    pub(in crate::proxy) fn extend_forwarded(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(FORWARDED) {
            return;
        }
        let ip = self.ip.to_str().expect("an IP address is ASCII");
        // An IPv6 address is in brackets, which only a quoted string may contain (section 6).
        let element = if ip.contains(':') { format!("for=\"[{ip}]\"") } else { format!("for={ip}") };
        let element = HeaderValue::try_from(element).expect("an IP address is a header value");
        let list = extended_list(headers, &FORWARDED, &element).unwrap_or(element);
        headers.insert(FORWARDED, list);
    }

    /// Sets the `X-Forwarded-*` fields. Existing values are kept and extended if the peer is trusted, and replaced
    /// otherwise.
    pub(in crate::proxy) fn set_forwarding_headers(
        &self,
        headers: &mut HeaderMap,
        host: &HeaderValue,
        port: &HeaderValue,
    ) {
        let proto = HeaderValue::from_static(self.scheme.as_str());
        // Reserves once instead of growing twice.
        headers.reserve(ForwardingFields::COUNT);
        if self.trusted {
            let before = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
            let mut chain = before.collect::<Vec<_>>().join(&b", "[..]);
            if !chain.is_empty() {
                chain.extend_from_slice(b", ");
            }
            chain.extend_from_slice(self.ip.as_bytes());
            let chain = HeaderValue::from_bytes(&chain).expect("header values joined by commas are a header value");
            headers.insert(X_FORWARDED_FOR, chain);
            headers.entry(X_FORWARDED_PROTO).or_insert_with(|| proto);
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
            headers.entry(X_FORWARDED_PORT).or_insert_with(|| port.clone());
        } else {
            headers.insert(X_FORWARDED_FOR, self.ip.clone());
            headers.insert(X_FORWARDED_PROTO, proto);
            headers.insert(X_FORWARDED_HOST, host.clone());
            headers.insert(X_FORWARDED_PORT, port.clone());
        }
    }
}

fn ipv4_value(ip: Ipv4Addr) -> HeaderValue {
    HeaderValue::from_bytes(Ipv4Text::new(ip).as_bytes()).expect("an IP address is a header value")
}

/// The fields that Portico sets on requests, each on all of them or on those of some rules. Fields that a backend could
/// mistake for one of them, such as `x_real_ip`, are removed from all requests.
pub(in crate::proxy) static MANAGED_HEADERS: [HeaderName; 11] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_REQUEST_ID,
    X_REAL_IP,
    X_FORWARDED_PATH,
    X_FORWARDED_PREFIX,
    X_ORIGINAL_FORWARDED_FOR,
    X_FORWARDED_SCHEME,
    X_SCHEME,
];

/// Fields in which proxies report a client, in addition to those that Portico sets on every request, and `Proxy`: CGI
/// turns it into the variable `HTTP_PROXY`, which many libraries read as a setting (httpoxy).
pub(in crate::proxy) static CLIENT_REPORTS: [HeaderName; 5] =
    [X_REAL_IP, X_FORWARDED_PATH, X_FORWARDED_PREFIX, FORWARDED, HTTPOXY_HEADER];

pub(in crate::proxy) const X_FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
pub(in crate::proxy) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub(in crate::proxy) const X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
pub(in crate::proxy) const X_FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
pub(in crate::proxy) const X_SCHEME: HeaderName = HeaderName::from_static("x-scheme");
pub(in crate::proxy) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(in crate::proxy) const HTTPOXY_HEADER: HeaderName = HeaderName::from_static("proxy");

/// Whether endpoints get something about the certificate of the client in a field with this name.
pub(in crate::proxy) fn is_certificate_field(name: &HeaderName) -> bool {
    let start = name.as_str().bytes().take(CERTIFICATE_START.len());
    start.map(|byte| if byte == b'_' { b'-' } else { byte }).eq(CERTIFICATE_START.bytes())
}

const CERTIFICATE_START: &str = "ssl-client-";

#[cfg(test)]
mod tests {
    use http::header::VIA;

    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let fields = text.lines().map(|line| line.split_once(':').unwrap());
        fields.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.trim().parse().unwrap())).collect()
    }

    fn text(headers: &HeaderMap) -> String {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let cases = [
            ("a: b", "a: b"),
            ("connection: close", ""),
            ("connection: keep-alive, X-Secret\nx-secret: 1\na: b", "a: b"),
            ("connection: x-one\nconnection: x-two\nx-one: 1\nx-two: 2", ""),
            ("te: gzip, Trailers", "te: trailers"),
            ("te: gzip", ""),
            ("connection: te\nte: trailers", "te: trailers"),
            ("upgrade: websocket\nconnection: upgrade", ""),
            ("keep-alive: timeout=5\nproxy-connection: x\ntransfer-encoding: chunked", ""),
            ("connection: host, content-length\nhost: a\ncontent-length: 3", "content-length: 3\nhost: a"),
            ("connection: \", ,,\na: b", "a: b"),
        ];
        for (before, after) in cases {
            let mut headers = headers(before);
            let stripped = strip_request(&mut headers, false);
            assert_eq!(text(&headers), after, "{before}");
            assert_eq!(stripped.accepts_trailers, headers.contains_key(TE), "{before}");
        }
    }

    #[test]
    fn spoofed_forwarding_headers_are_removed() {
        let cases = [
            ("x_forwarded_for: 1\nx-forwarded_for: 2\nx_forwarded-for: 3\na: b", "a: b"),
            ("x_forwarded_proto: 1\nx_forwarded_host: 2\nx_forwarded_port: 3\nx_request_id: 4", ""),
            ("x_forwarded_for: 1\nx_forwarded_for: 2\nconnection: close", ""),
            // Similar names that no backend mistakes for a forwarding header.
            (
                "x_forwarded_by: 1\nx_user: 2\nxxforwardedxfor: 3\n_: 4",
                "_: 4\nx_forwarded_by: 1\nx_user: 2\nxxforwardedxfor: 3",
            ),
            ("x_real_ip: 1\nx-forwarded_path: 2\nx_forwarded_prefix: 3", ""),
            // The exact names are left to `set_forwarding_headers`.
            ("x-forwarded-for: 1\nx-request-id: 2", "x-forwarded-for: 1\nx-request-id: 2"),
        ];
        for (before, after) in cases {
            for is_trusted in [false, true] {
                let mut headers = headers(before);
                let stripped = strip_request(&mut headers, is_trusted);
                let has_forwarding_field = before.contains("x-request-id");
                let expected = StrippedRequest { has_forwarding_field, ..StrippedRequest::default() };
                assert_eq!(stripped, expected, "{before}");
                assert_eq!(text(&headers), after, "{before}, trusted: {is_trusted}");
            }
        }
    }

    #[test]
    fn forwarding_fields_are_noticed() {
        let has_any = |fields: &str, is_trusted| strip_request(&mut headers(fields), is_trusted).has_forwarding_field;
        for name in [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST, &X_FORWARDED_PORT, &X_REQUEST_ID, &VIA] {
            for is_trusted in [false, true] {
                assert!(has_any(&format!("a: b\n{name}: 1"), is_trusted), "{name}");
                assert!(has_any(&format!("connection: {name}\n{name}: 1"), is_trusted), "{name}");
                assert!(!has_any(&format!("connection: {name}\na: b\nx-forwarded-path: /"), is_trusted), "{name}");
            }
        }
    }

    #[test]
    fn hops_are_taken_from_every_peer() {
        for before in [
            "portico-hops: 3\na: b",
            "portico_hops: 3\na: b",
            "connection: close, Portico-Hops\nportico-hops: 3\na: b",
            "portico-hops: 0\nportico_hops: 1, 3\na: b\nproxy: 1",
        ] {
            for is_trusted in [false, true] {
                let mut headers = headers(before);
                assert_eq!(strip_request(&mut headers, is_trusted).hops, HopCount::new(3), "{before}");
                headers.remove(HTTPOXY_HEADER);
                assert_eq!(text(&headers), "a: b", "{before}");
            }
        }
    }

    #[test]
    fn only_trusted_peers_report_clients() {
        let before = "a: b\nforwarded: for=1\nproxy: 2\nx-forwarded-path: 3\nx-forwarded-prefix: 4\nx-real-ip: 5";
        for (is_trusted, after) in [(true, before), (false, "a: b")] {
            let mut headers = headers(before);
            assert_eq!(strip_request(&mut headers, is_trusted).has_client_report, is_trusted);
            assert_eq!(text(&headers), after, "trusted: {is_trusted}");
        }
        let mut headers = headers("x-real-ip: 1\nx-real-ip: 2\nx-real-ip-too: 3");
        strip_request(&mut headers, false);
        assert_eq!(text(&headers), "x-real-ip-too: 3");
    }

    #[test]
    fn clients_cannot_name_what_a_trusted_peer_reports_in_connection() {
        for name in MANAGED_HEADERS.iter().chain(&CLIENT_REPORTS) {
            let before = format!("connection: close, {name}, x-other\n{name}: 1\nx-other: 2");
            for (is_trusted, after) in [(true, format!("{name}: 1")), (false, String::new())] {
                let mut headers = headers(&before);
                strip_request(&mut headers, is_trusted);
                assert_eq!(text(&headers), after, "{name}, trusted: {is_trusted}");
            }
        }
    }

    #[test]
    fn cookies_are_joined_into_one_field() {
        let cases = [
            ("a: b", "a: b"),
            ("cookie: a=1", "cookie: a=1"),
            ("cookie: a=1\nx: y\ncookie: b=2\ncookie: c=3; d=4", "cookie: a=1; b=2; c=3; d=4\nx: y"),
        ];
        for (before, after) in cases {
            let mut headers = headers(before);
            join_cookies(&mut headers);
            assert_eq!(text(&headers), after, "{before}");
        }
    }

    #[test]
    fn forwarding_headers_depend_on_trust() {
        let cases = [
            (
                false,
                "",
                "x-forwarded-for: 10.0.0.1\nx-forwarded-host: h:1\nx-forwarded-port: 80\nx-forwarded-proto: http",
            ),
            (
                false,
                "x-forwarded-for: 6.6.6.6\nx-forwarded-host: evil\nx-forwarded-port: 6\n\
                 x-forwarded-proto: https",
                "x-forwarded-for: 10.0.0.1\nx-forwarded-host: h:1\nx-forwarded-port: 80\nx-forwarded-proto: http",
            ),
            (
                true,
                "forwarded: for=x\nx-forwarded-for: 1.1.1.1\nx-forwarded-for: 2.2.2.2\nx-forwarded-proto: https",
                "forwarded: for=x\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.1\nx-forwarded-host: h:1\n\
                 x-forwarded-port: 80\nx-forwarded-proto: https",
            ),
        ];
        for (trusted, before, after) in cases {
            let mut headers = headers(before);
            let client = ForwardedClient::new("::ffff:10.0.0.1".parse().unwrap(), trusted, Scheme::Http);
            client.set_forwarding_headers(
                &mut headers,
                &HeaderValue::from_static("h:1"),
                &HeaderValue::from_static("80"),
            );
            assert_eq!(text(&headers), after);
        }
    }

    #[test]
    fn addresses_of_clients_are_written_in_full() {
        for address in ["0.0.0.0", "1.20.255.9", "255.255.255.255", "100.10.0.99", "2001:db8::1", "::"] {
            let client = ForwardedClient::new(address.parse().unwrap(), false, Scheme::Http);
            assert_eq!(client.ip, address);
        }
        let mapped = ForwardedClient::new("::ffff:192.0.2.7".parse().unwrap(), false, Scheme::Http);
        assert_eq!(mapped.ip, "192.0.2.7");
    }

    #[test]
    fn forwarded_gets_an_element_for_the_peer() {
        let cases = [
            ("10.0.0.1", "a: b", "a: b"),
            ("10.0.0.1", "forwarded: for=192.0.2.7;proto=https", "forwarded: for=192.0.2.7;proto=https, for=10.0.0.1"),
            ("10.0.0.1", "forwarded: for=192.0.2.7\nforwarded: for=x", "forwarded: for=192.0.2.7, for=x, for=10.0.0.1"),
            ("::ffff:10.0.0.1", "forwarded: for=x", "forwarded: for=x, for=10.0.0.1"),
            ("2001:db8::1", "forwarded: for=x", "forwarded: for=x, for=\"[2001:db8::1]\""),
            ("2001:db8::1", "forwarded: ", "forwarded: for=\"[2001:db8::1]\""),
        ];
        for (peer, before, after) in cases {
            let mut headers = headers(before);
            let client = ForwardedClient::new(peer.parse().unwrap(), true, Scheme::Http);
            client.extend_forwarded(&mut headers);
            assert_eq!(text(&headers), after, "{peer}");
        }
    }

    #[test]
    fn every_hop_by_hop_field_is_found() {
        for (index, name) in HOP_BY_HOP.iter().enumerate() {
            assert_eq!(hop_by_hop_index(name), Some(index), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hop_by_hop_fields_never_pass(
            named in proptest::collection::vec("[ ,a-c]{0,5}|te|TE|upgrade|close|x-keep|host", 0..5),
            te in "[ ,;=a-z.0]{0,12}|trailers|gzip, Trailers",
        ) {
            let mut all = HeaderMap::new();
            for value in &named {
                all.append("connection", HeaderValue::try_from(value).unwrap());
            }
            all.insert("te", HeaderValue::try_from(te).unwrap());
            for name in ["upgrade", "keep-alive", "proxy-connection", "a", "b", "x-keep", "x-other"] {
                all.insert(name, HeaderValue::from_static("1"));
            }
            strip_hop_by_hop(&mut all);
            proptest::prop_assert!(all.contains_key("x-other"));
            for gone in ["connection", "upgrade", "keep-alive", "proxy-connection"] {
                proptest::prop_assert!(!all.contains_key(gone), "{} of {:?}", gone, named);
            }
            proptest::prop_assert!(all.get("te").is_none_or(|te| te == "trailers"));
            let tokens = named.iter().flat_map(|value| value.split(','));
            let tokens: Vec<_> = tokens.map(|token| token.trim().to_lowercase()).collect();
            for name in ["a", "b", "x-keep"] {
                let is_named = tokens.iter().any(|token| token == name);
                proptest::prop_assert_eq!(all.contains_key(name), !is_named, "{:?}", named);
            }
        }

        #[test]
        fn joining_cookies_loses_nothing(cookies in proptest::collection::vec("[a-z=; \"]{0,6}", 0..5)) {
            let mut all = HeaderMap::new();
            for cookie in &cookies {
                all.append(COOKIE, HeaderValue::try_from(cookie).unwrap());
            }
            join_cookies(&mut all);
            let joined: Vec<_> = all.get_all(COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
            let expected: Vec<_> = (!cookies.is_empty()).then(|| cookies.join("; ")).into_iter().collect();
            proptest::prop_assert_eq!(joined, expected);
        }
    }
}
