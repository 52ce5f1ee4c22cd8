//! Sets the request headers that inform the endpoint about the client. Plugins and filters run afterwards.

use http::header::{EXPECT, HOST};
use http::{HeaderValue, Request};

use super::headers::{self, join_cookies, strip_request};
use super::kong::forwarding_headers as kong_headers;
use super::request_body::RequestBody;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_id::X_REQUEST_ID;

/// Removes hop-by-hop headers and `Expect`, joins the Cookie fields, and sets the forwarding headers, request id and
/// Host.
pub(in crate::proxy) fn set_forwarding_headers(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) {
    let (peer, host) = (cx.peer(), &routed.host);
    // Only under Kong rules. The inner value is None if the path is not a valid header value.
    let kong_path = routed.rule.kong.as_ref().map(|_| HeaderValue::from_str(request.uri().path()).ok());
    let headers = request.headers_mut();
    strip_request(
        headers,
        if kong_path.is_some() { &kong_headers::FORWARDING_HEADERS } else { &headers::MANAGED_HEADERS },
    );
    headers.remove(EXPECT);
    join_cookies(headers);
    let port = peer.client.port_value(routed.listener.port);
    match kong_path {
        None => peer.client.set_forwarding_headers(headers, &host.raw, &port),
        Some(path) => kong_headers::set_forwarding_headers(peer, headers, host, path, port),
    }
    headers.insert(X_REQUEST_ID, cx.record.request_id.clone());
    if host.is_overridden {
        headers.insert(HOST, host.raw.clone());
    }
}
