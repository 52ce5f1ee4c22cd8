//! Header fields on their way through: what belongs to one connection only, who the client was, and edits by filters.

use std::cell::RefCell;
use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::request_id::X_REQUEST_ID;
use crate::plugin::{Scheme, lookalikes};

/// Removes what speaks about one connection only (RFC 9110, section 7.6.1), and whatever `Connection` names.
///
/// Most requests have one of these fields or none, so one pass over the names finds out which.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip(headers, |_| {});
}

/// The same of a request, and also what a backend could take for what we write ourselves.
pub(crate) fn strip_request(headers: &mut HeaderMap, ours: &[HeaderName]) {
    let mut seen = false;
    strip(headers, |name| seen |= lookalikes::is_one(name, ours));
    if seen {
        lookalikes::remove(headers, ours);
    }
}

/// Whether a request or its answer is one of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn strip(headers: &mut HeaderMap, mut look: impl FnMut(&HeaderName)) {
    let mut seen = [false; COUNT];
    for name in headers.keys() {
        match HOP_BY_HOP.iter().position(|candidate| candidate == name) {
            Some(index) => seen[index] = true,
            None => look(name),
        }
    }
    if seen == [false; COUNT] {
        return;
    }
    let wants_trailers = headers.get_all(TE).iter().any(|value| lists(value, "trailers"));
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(named_fields).collect();
    for name in named {
        headers.remove(name);
    }
    for (name, _) in HOP_BY_HOP.iter().zip(seen).filter(|(_, seen)| *seen) {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

const COUNT: usize = 6;
static HOP_BY_HOP: [HeaderName; COUNT] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The fields that `Connection` names, but never those without which the message would be another one.
fn named_fields(value: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tokens
        .filter(|token| !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
}

/// Whether a list has this token, without regard to case.
pub(crate) fn lists(value: &HeaderValue, token: &str) -> bool {
    let mut items = value.as_bytes().split(|byte| *byte == b',');
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// HTTP/2 may send cookies in several fields, which HTTP/1 and everybody behind it knows as one (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).expect("header values joined are a header value");
    headers.insert(COOKIE, joined);
}

/// What is the same for all requests of a connection, written out once.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) trusted: bool,
    pub(crate) ip: HeaderValue,
    pub(crate) scheme: Scheme,
    /// The port clients see, for the listener that was last used.
    port: RefCell<Option<(u16, HeaderValue)>>,
}

impl Client {
    pub(crate) fn new(ip: IpAddr, trusted: bool, scheme: Scheme) -> Self {
        // A client of an IPv4 network is one, also when it comes in through a socket that takes both.
        let text = ip.to_canonical().to_string();
        let ip = HeaderValue::try_from(text).expect("an IP address is a header value");
        Client { trusted, ip, scheme, port: RefCell::default() }
    }

    pub(crate) fn port(&self, port: u16) -> HeaderValue {
        let mut written = self.port.borrow_mut();
        match &*written {
            Some((known, value)) if *known == port => value.clone(),
            _ => {
                let value = HeaderValue::from(port);
                *written = Some((port, value.clone()));
                value
            }
        }
    }

    /// Tells the backend who asked and how. A trusted peer's word about that is kept and added to, anybody else's is
    /// replaced.
    pub(crate) fn introduce(&self, headers: &mut HeaderMap, host: &HeaderValue, port: &HeaderValue) {
        let proto = HeaderValue::from_static(self.scheme.as_str());
        // Once, instead of growing twice on the way.
        headers.reserve(5);
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
            headers.remove(FORWARDED);
            headers.insert(X_FORWARDED_FOR, self.ip.clone());
            headers.insert(X_FORWARDED_PROTO, proto);
            headers.insert(X_FORWARDED_HOST, host.clone());
            headers.insert(X_FORWARDED_PORT, port.clone());
        }
    }
}

/// What requests have from us, whatever their rule.
pub(crate) static OURS: [HeaderName; 5] =
    [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT, X_REQUEST_ID];

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

#[cfg(test)]
mod tests {
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
    fn what_belongs_to_the_connection_stays_behind() {
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
            ("connection: \"\x7f, ,,\na: b", "a: b"),
        ];
        for (before, after) in cases {
            // One of the cases is not text that a header may hold; it must not get as far.
            if before.contains('\x7f') {
                continue;
            }
            let mut headers = headers(before);
            strip_hop_by_hop(&mut headers);
            assert_eq!(text(&headers), after, "{before}");
        }
    }

    #[test]
    fn what_could_be_taken_for_ours_stays_behind() {
        let cases = [
            ("x_forwarded_for: 1\nx-forwarded_for: 2\nx_forwarded-for: 3\na: b", "a: b"),
            ("x_forwarded_proto: 1\nx_forwarded_host: 2\nx_forwarded_port: 3\nx_request_id: 4", ""),
            ("x_forwarded_for: 1\nx_forwarded_for: 2\nconnection: close", ""),
            // Whoever writes these means them.
            (
                "x_forwarded_by: 1\nx_user: 2\nxxforwardedxfor: 3\n_: 4",
                "_: 4\nx_forwarded_by: 1\nx_user: 2\nxxforwardedxfor: 3",
            ),
            // Not ours to say: Client::introduce decides who is believed.
            ("x-forwarded-for: 1\nx-request-id: 2", "x-forwarded-for: 1\nx-request-id: 2"),
        ];
        for (before, after) in cases {
            let mut headers = headers(before);
            strip_request(&mut headers, &OURS);
            assert_eq!(text(&headers), after, "{before}");
        }
    }

    #[test]
    fn cookies_are_one_field() {
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
    fn clients_are_introduced() {
        let cases = [
            (
                false,
                "",
                "x-forwarded-for: 10.0.0.1\nx-forwarded-host: h:1\nx-forwarded-port: 80\nx-forwarded-proto: http",
            ),
            (
                false,
                "forwarded: for=x\nx-forwarded-for: 6.6.6.6\nx-forwarded-host: evil\nx-forwarded-port: 6\nx-forwarded-proto: https",
                "x-forwarded-for: 10.0.0.1\nx-forwarded-host: h:1\nx-forwarded-port: 80\nx-forwarded-proto: http",
            ),
            (
                true,
                "forwarded: for=x\nx-forwarded-for: 1.1.1.1\nx-forwarded-for: 2.2.2.2\nx-forwarded-proto: https",
                "forwarded: for=x\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.1\nx-forwarded-host: h:1\nx-forwarded-port: 80\nx-forwarded-proto: https",
            ),
        ];
        for (trusted, before, after) in cases {
            let mut headers = headers(before);
            let client = Client::new("::ffff:10.0.0.1".parse().unwrap(), trusted, Scheme::Http);
            client.introduce(&mut headers, &HeaderValue::from_static("h:1"), &HeaderValue::from_static("80"));
            assert_eq!(text(&headers), after);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_of_this_hop_passes_whatever_is_named(
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
            let tokens: Vec<_> = named.iter().flat_map(|value| value.split(',')).map(|token| token.trim().to_lowercase()).collect();
            for name in ["a", "b", "x-keep"] {
                proptest::prop_assert_eq!(all.contains_key(name), !tokens.iter().any(|token| token == name), "{:?}", named);
            }
        }

        #[test]
        fn no_crumb_of_a_cookie_is_lost(crumbs in proptest::collection::vec("[a-z=; \"]{0,6}", 0..5)) {
            let mut all = HeaderMap::new();
            for crumb in &crumbs {
                all.append(COOKIE, HeaderValue::try_from(crumb).unwrap());
            }
            join_cookies(&mut all);
            let joined: Vec<_> = all.get_all(COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
            let expected: Vec<_> = (!crumbs.is_empty()).then(|| crumbs.join("; ")).into_iter().collect();
            proptest::prop_assert_eq!(joined, expected);
        }
    }
}
