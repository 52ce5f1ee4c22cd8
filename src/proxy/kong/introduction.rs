//! What an endpoint behind a rule of Kong's is told about the client (`kong-compat.md` §3.6).

use http::header::{FORWARDED, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::proxy::connection::Peer;
use crate::proxy::headers::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP, remove_lookalikes,
};
use crate::proxy::passage;
use crate::proxy::target::Host;

/// `X-Forwarded-For` grows, whoever wrote it. Of the others a trusted peer's word stays, and anybody else's is replaced.
pub(crate) fn introduce(peer: &Peer, headers: &mut HeaderMap, host: &Host, uri: &Uri, port: HeaderValue) {
    remove_lookalikes(headers, &OURS);
    headers.remove(PROXY);
    let address = match passage::address(peer, headers) {
        near if near == peer.address.ip().to_canonical() => peer.client.ip.clone(),
        far => HeaderValue::try_from(far.to_string()).expect("an IP address is a header value"),
    };
    headers.reserve(8);
    let chain = joined(headers, &X_FORWARDED_FOR, &peer.client.ip).unwrap_or_else(|| address.clone());
    headers.insert(X_FORWARDED_FOR, chain);
    headers.insert(X_REAL_IP, address);
    if !peer.client.trusted {
        for name in [FORWARDED, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PATH] {
            headers.remove(name);
        }
        headers.remove(X_FORWARDED_PREFIX);
    }
    let scheme = peer.client.scheme.as_str();
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static(scheme));
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| without_port(host));
    headers.entry(X_FORWARDED_PORT).or_insert_with(|| port);
    if let Ok(path) = HeaderValue::from_str(uri.path()) {
        headers.entry(X_FORWARDED_PATH).or_insert(path);
    }
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
static OURS: [HeaderName; 3] = [X_REAL_IP, X_FORWARDED_PATH, X_FORWARDED_PREFIX];
