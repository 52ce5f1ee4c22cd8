//! Forwarding headers with `X-Real-IP`, `X-Forwarded-Path` and `X-Forwarded-Prefix`, with the values that Kong's
//! documentation of `trusted_ips` and `X-Forwarded-*` defines (§3.6 of `docs/kong-compatibility.md`).

use http::{HeaderMap, HeaderValue};

use super::ForwardedRequest;
use crate::forwarding_fields::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::headers::{HTTPOXY_HEADER, X_FORWARDED_PATH, X_FORWARDED_PREFIX, X_REAL_IP};
use crate::proxy::http::fields::via::extended_list;
use crate::request_target::RequestHost;

/// Sets `X-Real-IP` and `X-Forwarded-*`. The peer is always appended to `X-Forwarded-For`. All other `X-Forwarded-*` of
/// a trusted peer are kept. Those of an untrusted peer are overwritten, unless
/// [`strip_request`](crate::proxy::http::fields::headers::strip_request) has removed them. `path` is None if the path
/// of the request is not a valid header value.
pub(in crate::proxy) fn set_forwarding_headers(
    exchange: &ClientExchange,
    request: &ForwardedRequest<'_>,
    headers: &mut HeaderMap,
    path: Option<HeaderValue>,
    port: HeaderValue,
) {
    if exchange.client.trusted {
        // That of an untrusted peer has been removed.
        headers.remove(HTTPOXY_HEADER);
    }
    let real_ip = match request.client.address {
        // `exchange.client.ip` is the address of the peer, formatted once for all requests of the connection.
        ip if ip == exchange.address.ip().to_canonical() => exchange.client.ip.clone(),
        ip => HeaderValue::try_from(ip.to_string()).expect("an IP address is a header value"),
    };
    headers.reserve(HEADER_COUNT);
    // A list is extended by the peer's address. A new list has `real_ip` instead, which is not the address of the peer
    // if a trusted peer sent `X-Real-IP` without `X-Forwarded-For`.
    let forwarded_for =
        extended_list(headers, &X_FORWARDED_FOR, &exchange.client.ip).unwrap_or_else(|| real_ip.clone());
    headers.insert(X_FORWARDED_FOR, forwarded_for);
    headers.insert(X_REAL_IP, real_ip);
    let scheme = HeaderValue::from_static(exchange.client.scheme.as_str());
    if exchange.client.trusted {
        headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| without_port(request.host));
        headers.entry(X_FORWARDED_PORT).or_insert(port);
        if let Some(path) = path {
            headers.entry(X_FORWARDED_PATH).or_insert(path);
        }
        return;
    }
    headers.insert(X_FORWARDED_PROTO, scheme);
    headers.insert(X_FORWARDED_HOST, without_port(request.host));
    headers.insert(X_FORWARDED_PORT, port);
    if let Some(path) = path {
        headers.insert(X_FORWARDED_PATH, path);
    }
}

/// Sets `X-Forwarded-Prefix` to the stripped prefix, unless the request has this header. It then comes from a trusted
/// peer, because that of an untrusted one has been removed.
pub(in crate::proxy) fn set_forwarded_prefix(headers: &mut HeaderMap, prefix: &str) {
    if let Ok(prefix) = HeaderValue::from_str(prefix) {
        headers.entry(X_FORWARDED_PREFIX).or_insert(prefix);
    }
}

fn without_port(host: &RequestHost) -> HeaderValue {
    if host.is_bare_name() {
        return host.raw.clone();
    }
    HeaderValue::from_str(&host.name()).unwrap_or_else(|_| host.raw.clone())
}

/// The fields that [`set_forwarding_headers`] and [`set_forwarded_prefix`] set, `X-Request-ID`, and `Via` with the id
/// of the product headers.
const HEADER_COUNT: usize = 10;
