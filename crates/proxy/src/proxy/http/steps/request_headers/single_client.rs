//! Forwarding headers as ingress-nginx sends them: the client and the scheme that Portico has determined replace lists.

use http::{HeaderMap, HeaderValue};

use super::ForwardedRequest;
use crate::forwarding_fields::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::headers::{
    HTTPOXY_HEADER, X_FORWARDED_SCHEME, X_ORIGINAL_FORWARDED_FOR, X_REAL_IP, X_SCHEME,
};

/// Sets all of them. Those of a trusted peer about the scheme, host and port of its client are kept, and its list of
/// clients becomes `X-Original-Forwarded-For`.
pub(in crate::proxy) fn set_forwarding_headers(
    exchange: &ClientExchange,
    request: &ForwardedRequest<'_>,
    headers: &mut HeaderMap,
    port: HeaderValue,
) {
    if exchange.client.trusted {
        // For other peers, the fields of which backends take one for a variable have been removed.
        headers.remove(HTTPOXY_HEADER);
    }
    let client = match request.client.address {
        // `exchange.client.ip` is the address of the peer, formatted once for all requests of the connection.
        ip if ip == exchange.address.ip().to_canonical() => exchange.client.ip.clone(),
        ip => HeaderValue::try_from(ip.to_string()).expect("an IP address is a header value"),
    };
    headers.reserve(HEADER_COUNT);
    match headers.insert(X_FORWARDED_FOR, client.clone()) {
        Some(list) => drop(headers.insert(X_ORIGINAL_FORWARDED_FOR, list)),
        None => drop(headers.remove(X_ORIGINAL_FORWARDED_FOR)),
    }
    headers.insert(X_REAL_IP, client);
    let scheme = HeaderValue::from_static(request.client.scheme.as_str());
    if exchange.client.trusted {
        headers.entry(X_FORWARDED_PROTO).or_insert_with(|| scheme.clone());
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| request.host.raw.clone());
        headers.entry(X_FORWARDED_PORT).or_insert(port);
    } else {
        headers.insert(X_FORWARDED_PROTO, scheme.clone());
        headers.insert(X_FORWARDED_HOST, request.host.raw.clone());
        headers.insert(X_FORWARDED_PORT, port);
    }
    headers.insert(X_FORWARDED_SCHEME, scheme.clone());
    headers.insert(X_SCHEME, scheme);
}

/// The fields that [`set_forwarding_headers`] sets, `X-Request-ID`, and `Via`.
const HEADER_COUNT: usize = 10;
