//! The headers of a request that depend on its rule: what is removed, what informs the endpoint about the client and
//! the proxy, and the path and Host that its options rewrite. Before plugins, which see and change all of them.
//!
//! ```text
//!   framing, copy for logs ▶ forwarding headers ▶ limit of hops ▶ Via ▶ upstream_target.rs
//!                                 └ real_ip.rs, single_client.rs
//! ```

mod real_ip;
mod single_client;
mod upstream_target;

use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body::Body;

use super::early_exit::EarlyExit;
use super::product_headers;
use super::request_client::RequestClient;
use super::request_context::{RequestContext, RoutedRequest};
use super::unwritten_forwarding::UnwrittenForwarding;
use crate::forwarding_fields::X_REQUEST_ID;
use crate::hop_count::HopCount;
use crate::plugin_api::Framing;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::field_policy::{changes_requests, fields_of_connection};
use crate::proxy::http::fields::headers::{StrippedRequest, contains_token, strip_request};
use crate::proxy::http::record::request_error::RequestError;
use crate::request_target::RequestHost;
use crate::snapshot::rule_options::{ForwardingHeaderStyle, TrailerHeader};

/// Removes and sets the headers that depend on the rule, and rewrites path and Host as its options say.
pub(super) fn set(
    cx: &mut RequestContext<'_>,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    // Both as the client has sent them.
    if let Some(chain) = &routed.rule.plugins {
        routed.framing = body_framing(routed, request);
        if chain.logs_heads(&cx.view.snapshot.consumers) {
            cx.copy_heads(routed, request);
        }
    }
    let stripped = set_forwarding_headers(cx, routed, request);
    routed.may_have_te = stripped.accepts_trailers;
    // Before anything sends a request. Most requests have no number.
    if stripped.hops > HopCount::ZERO && stripped.hops.get() >= cx.exchange().worker().limits.max_hops {
        return Err(RequestError::LoopDetected.into());
    }
    routed.hops = stripped.hops.next();
    if cx.unwritten_forwarding.is_none() {
        product_headers::set_via(cx, request);
    }
    cx.accepts_trailers = match routed.rule.options().trailer_header {
        TrailerHeader::Forwarded => true,
        TrailerHeader::IfAccepted => routed.may_have_te,
    };
    upstream_target::rewrite(routed, request)?;
    Ok(())
}

/// The framing of the request body, as plugins see it.
fn body_framing(routed: &RoutedRequest<'_>, request: &Request<RequestBody>) -> Framing {
    let headers = request.headers();
    let has_token = |name, token| headers.get(name).is_some_and(|value| contains_token(value, token));
    Framing {
        is_chunked: has_token(TRANSFER_ENCODING, "chunked"),
        // The body of a tunnel is what the client sends through it.
        has_body: routed.upgrade.is_none() && !request.body().is_end_stream(),
        expects_continue: has_token(EXPECT, "100-continue"),
    }
}

/// Removes hop-by-hop headers, `Expect` and the number of hops, and sets the forwarding headers, request id and Host.
/// Those except Host are left to the sender of the request if no step before reads or changes them.
fn set_forwarding_headers(
    cx: &mut RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &mut Request<RequestBody>,
) -> StrippedRequest {
    if request.body().may_have_trailers() {
        restrict_trailers(cx, routed, request);
    }
    let (exchange, host) = (cx.exchange(), &routed.host);
    let style = routed.rule.options().forwarding_headers;
    // Only for the style with the path.
    let path = path_value(style, request.uri());
    let headers = request.headers_mut();
    let stripped = strip_request(headers, exchange.client.trusted);
    if host.is_overridden {
        headers.insert(HOST, host.raw.clone());
    }
    let forwarded = ForwardedRequest { client: &cx.record.client, host, listener_port: routed.listener.port };
    let unwritten = UnwrittenForwarding::is_possible(&exchange.client, routed.rule, stripped)
        .then_some(UnwrittenForwarding { port: routed.listener.port });
    if unwritten.is_some() {
        exchange.client.use_port(routed.listener.port);
    } else {
        set_headers(exchange, style, &forwarded, path, stripped, headers);
        let has_plugin_id = routed.rule.plugins.as_ref().is_some_and(|chain| chain.sets_request_id());
        if !has_plugin_id {
            headers.insert(X_REQUEST_ID, cx.record.facts.request_id.clone());
        }
    }
    cx.unwritten_forwarding = unwritten;
    stripped
}

/// What forwarding headers contain about a request.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct ForwardedRequest<'r> {
    pub(in crate::proxy) client: &'r RequestClient,
    pub(in crate::proxy) host: &'r RequestHost,
    /// The port of the listener, as clients see it.
    pub(in crate::proxy) listener_port: u16,
}

/// Sets the forwarding headers in headers that [`strip_request`] has stripped. `path` is that of [`path_value`].
pub(in crate::proxy) fn set_headers(
    exchange: &ClientExchange,
    style: ForwardingHeaderStyle,
    request: &ForwardedRequest<'_>,
    path: Option<HeaderValue>,
    stripped: StrippedRequest,
    headers: &mut HeaderMap,
) {
    if stripped.has_client_report {
        exchange.client.extend_forwarded(headers);
    }
    let of_listener = exchange.client.port_value(request.listener_port);
    let port = match request.client.port(request.listener_port) {
        port if port == request.listener_port => of_listener,
        port => HeaderValue::from(port),
    };
    match style {
        ForwardingHeaderStyle::Forwarded => exchange.client.set_forwarding_headers(headers, &request.host.raw, &port),
        ForwardingHeaderStyle::RealIp => {
            real_ip::set_forwarding_headers(exchange, request, headers, path, port);
        }
        ForwardingHeaderStyle::SingleClient => {
            single_client::set_forwarding_headers(exchange, request, headers, port);
        }
    }
}

/// The path of the request if the style forwards it. None also if it is not a valid header value.
pub(in crate::proxy) fn path_value(style: ForwardingHeaderStyle, uri: &Uri) -> Option<HeaderValue> {
    match style {
        ForwardingHeaderStyle::Forwarded | ForwardingHeaderStyle::SingleClient => None,
        ForwardingHeaderStyle::RealIp => HeaderValue::from_str(uri.path()).ok(),
    }
}

/// Tells a body that may have trailers which fields must not be among them. Before the hop-by-hop fields are removed.
fn restrict_trailers(cx: &RequestContext<'_>, routed: &RoutedRequest<'_>, request: &mut Request<RequestBody>) {
    if changes_requests(routed.rule, cx.product_header_names()) {
        request.body_mut().set_rule(routed.rule);
    }
    let of_connection = fields_of_connection(request.headers());
    if !of_connection.is_empty() {
        *request.body_mut().no_trailers() = of_connection;
    }
}
