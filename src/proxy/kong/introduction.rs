//! What an endpoint behind a rule of Kong's is told about the client (`kong-compat.md` §3.6).

use http::header::{FORWARDED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::connection::Peer;
use crate::proxy::headers::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP};
use crate::proxy::passage;
use crate::proxy::request_id::X_REQUEST_ID;
use crate::proxy::target::Host;

/// `X-Forwarded-For` grows, whoever wrote it. Of the others a trusted peer's word stays, and anybody else's is replaced.
/// `path` is the client's, if it can stand in a header.
pub(crate) fn introduce(
    peer: &Peer,
    headers: &mut HeaderMap,
    host: &Host,
    path: Option<HeaderValue>,
    port: HeaderValue,
) {
    headers.remove(PROXY);
    let address = match passage::address(peer, headers) {
        near if near == peer.address.ip().to_canonical() => peer.client.ip.clone(),
        far => HeaderValue::try_from(far.to_string()).expect("an IP address is a header value"),
    };
    headers.reserve(8);
    let chain = joined(headers, &X_FORWARDED_FOR, &peer.client.ip).unwrap_or_else(|| address.clone());
    headers.insert(X_FORWARDED_FOR, chain);
    headers.insert(X_REAL_IP, address);
    let scheme = HeaderValue::from_static(peer.client.scheme.as_str());
    if peer.client.trusted {
        headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| without_port(host));
        headers.entry(X_FORWARDED_PORT).or_insert(port);
        if let Some(path) = path {
            headers.entry(X_FORWARDED_PATH).or_insert(path);
        }
        return;
    }
    headers.remove(FORWARDED);
    headers.remove(X_FORWARDED_PREFIX);
    headers.insert(X_FORWARDED_PROTO, scheme);
    headers.insert(X_FORWARDED_HOST, without_port(host));
    headers.insert(X_FORWARDED_PORT, port);
    match path {
        Some(path) => headers.insert(X_FORWARDED_PATH, path),
        None => headers.remove(X_FORWARDED_PATH),
    };
}

/// Says that `prefix` was taken away from the path, unless a trusted peer has said so of another.
pub(crate) fn tell_prefix(headers: &mut HeaderMap, prefix: &str) {
    if !matches!(prefix, "" | "/")
        && let Ok(prefix) = HeaderValue::from_str(prefix)
    {
        headers.entry(X_FORWARDED_PREFIX).or_insert(prefix);
    }
}

/// Names us as one that the message has passed.
pub(crate) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let via = joined(headers, &VIA, via).unwrap_or_else(|| via.clone());
    headers.insert(VIA, via);
}

/// All lines of a list as one, with one more item. None if there is no list.
fn joined(headers: &HeaderMap, name: &HeaderName, item: &HeaderValue) -> Option<HeaderValue> {
    let mut list = Vec::new();
    for line in headers.get_all(name).iter().filter(|line| !line.is_empty()) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        return None;
    }
    list.extend_from_slice(item.as_bytes());
    Some(HeaderValue::from_bytes(&list).expect("header values joined by commas are a header value"))
}

fn without_port(host: &Host) -> HeaderValue {
    let name = host.name();
    if name.as_bytes() == host.written.as_bytes() {
        return host.written.clone();
    }
    HeaderValue::from_str(&name).unwrap_or_else(|_| host.written.clone())
}

pub(crate) const X_FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
pub(crate) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// CGI makes a variable of it that many libraries read as a setting.
const PROXY: HeaderName = HeaderName::from_static("proxy");
/// What requests have from us.
pub(crate) static OURS: [HeaderName; 8] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_REQUEST_ID,
    X_REAL_IP,
    X_FORWARDED_PATH,
    X_FORWARDED_PREFIX,
];
