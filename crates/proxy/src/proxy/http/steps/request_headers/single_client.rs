//! Forwarding headers as ingress-nginx sends them: the client and the scheme that Portico has determined replace lists.

use http::{HeaderMap, HeaderValue};

use super::ForwardedRequest;
use crate::forwarding_fields::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::headers::{
    HTTPOXY_HEADER, X_FORWARDED_SCHEME, X_ORIGINAL_FORWARDED_FOR, X_REAL_IP, X_SCHEME, is_certificate_field,
};

/// Sets all of them. Those of a trusted peer about the scheme, host and port of its client are kept, and its list of
/// clients becomes `X-Original-Forwarded-For`.
pub(in crate::proxy) fn set_forwarding_headers(
    exchange: &ClientExchange,
    request: &ForwardedRequest<'_>,
    headers: &mut HeaderMap,
    port: HeaderValue,
) {
    remove_certificate_fields(headers);
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

/// Removes the fields with which endpoints get what is known of the certificate of the client, in all spellings. Only
/// the steps of a location set them, afterwards.
fn remove_certificate_fields(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_certificate_field(name)).cloned() {
        headers.remove(name);
    }
}

/// The fields that [`set_forwarding_headers`] sets, `X-Request-ID`, and `Via`.
const HEADER_COUNT: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_about_certificates_are_removed_in_all_spellings() {
        let sent =
            ["ssl-client-verify", "ssl_client_subject_dn", "ssl-client_cert", "ssl-client-new", "ssl-clients", "ssl"];
        let mut headers: HeaderMap =
            sent.map(|name| (http::HeaderName::from_static(name), HeaderValue::from_static("1"))).into_iter().collect();
        remove_certificate_fields(&mut headers);
        let mut remaining: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
        remaining.sort_unstable();
        assert_eq!(remaining, ["ssl", "ssl-clients"]);
    }
}
