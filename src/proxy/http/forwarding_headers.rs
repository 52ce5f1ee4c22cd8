//! Sets the request headers that inform the endpoint about the client. Plugins and filters run afterwards.

use http::header::HOST;
use http::{HeaderValue, Request};

use super::headers::strip_request;
use super::real_ip_headers;
use super::request_body::RequestBody;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_id::X_REQUEST_ID;
use crate::snapshot::rule_options::ForwardingHeaderStyle;

/// Removes hop-by-hop headers and `Expect`, and sets the forwarding headers, request id and Host. Returns whether the
/// client sent `TE: trailers`, which is kept.
pub(in crate::proxy) fn set_forwarding_headers(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> bool {
    let (peer, host) = (cx.peer(), &routed.host);
    let style = routed.rule.options().forwarding_headers;
    // Only for the style with the path. None if the path is not a valid header value.
    let path = match style {
        ForwardingHeaderStyle::Forwarded => None,
        ForwardingHeaderStyle::RealIp => HeaderValue::from_str(request.uri().path()).ok(),
    };
    let headers = request.headers_mut();
    let stripped = strip_request(headers, peer.client.trusted);
    if stripped.has_client_report {
        peer.client.extend_forwarded(headers);
    }
    let port = peer.client.port_value(routed.listener.port);
    match style {
        ForwardingHeaderStyle::Forwarded => peer.client.set_forwarding_headers(headers, &host.raw, &port),
        ForwardingHeaderStyle::RealIp => {
            real_ip_headers::set_forwarding_headers(peer, headers, host, path, port);
        }
    }
    if !routed.rule.plugins.as_ref().is_some_and(|chain| chain.sets_request_id()) {
        headers.insert(X_REQUEST_ID, cx.record.request_id.clone());
    }
    if host.is_overridden {
        headers.insert(HOST, host.raw.clone());
    }
    stripped.accepts_trailers
}
