//! Sets the headers that tell the endpoint about the client, before the proxy, plugins and filters add headers.

use http::header::{EXPECT, HOST};
use http::{HeaderValue, Request};

use super::headers::{self, join_cookies, strip_request};
use super::kong::forwarding_headers as kong_headers;
use super::request_body::RequestBody;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_id::X_REQUEST_ID;

/// Removes hop-by-hop headers and sets the forwarding headers.
pub(super) fn set_forwarding_headers(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) {
    let (peer, host) = (cx.peer(), &routed.host);
    let path = routed.rule.kong.as_ref().map(|_| HeaderValue::from_str(request.uri().path()).ok());
    let headers = request.headers_mut();
    strip_request(headers, if path.is_some() { &kong_headers::FORWARDING_HEADERS } else { &headers::MANAGED_HEADERS });
    headers.remove(EXPECT);
    join_cookies(headers);
    let port = peer.client.port_value(routed.listener.port);
    match path {
        None => peer.client.set_forwarding_headers(headers, &host.raw, &port),
        Some(path) => kong_headers::set_forwarding_headers(peer, headers, host, path, port),
    }
    headers.insert(X_REQUEST_ID, cx.record.request_id.clone());
    if host.is_overridden {
        headers.insert(HOST, host.raw.clone());
    }
}
