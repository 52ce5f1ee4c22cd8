//! The headers that identify the proxy, `Via`, `Server` and the id of the request, and those that report its latencies.

use http::header::{SERVER, VIA};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use tokio::time::Instant;

use super::request_context::RequestContext;
use crate::plugin_api::{ResponseSource, decimal};
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::via::append_via;

/// Adds `Via` to a request, which RFC 9110, section 7.6.3 requires of all proxies. If the product headers are written,
/// it has the product token.
pub(in crate::proxy) fn set_via<B>(cx: &RequestContext<'_>, request: &mut Request<B>) {
    let product_headers = &cx.exchange().http.product_headers;
    let via = product_headers.via_of_request(cx.product_header_names().is_some(), request.version());
    append_via(request.headers_mut(), via);
}

/// Adds the id of the request, if the product headers are written. After plugins, which neither see nor replace it.
pub(in crate::proxy) fn set_request_id<B>(cx: &RequestContext<'_>, request: &mut Request<B>) {
    if let Some(names) = cx.product_header_names() {
        request.headers_mut().insert(&names.request_id, cx.record.facts.request_id.clone());
    }
}

/// Adds the product headers to a response, after plugins have run.
pub(in crate::proxy) fn set_response_headers(
    cx: &RequestContext<'_>,
    response: &mut Response<BodySource>,
    source: ResponseSource,
    now: Instant,
) {
    let Some(names) = cx.product_header_names() else { return };
    let is_local = source != ResponseSource::Service;
    // An error after an endpoint was selected, such as its timeout, also has the latency of the endpoint.
    let was_forwarded = !is_local || source == ResponseSource::Proxy && cx.record.facts.attempts.endpoint().is_some();
    let headers = response.headers_mut();
    let exchange = cx.exchange();
    let started_at = exchange.activity.started_at.get();
    headers.insert(&names.request_id, cx.record.facts.request_id.clone());
    if is_local {
        let server = &exchange.http.product_headers.server;
        // With this `Via`, Kong leaves `Server` to the plugin that has generated the response.
        if headers.get(VIA) != Some(server) {
            headers.insert(SERVER, server.clone());
        }
    } else {
        append_via(headers, exchange.http.product_headers.via(Version::HTTP_11));
    }
    if was_forwarded || cx.record.facts.is_stored {
        let sent = exchange.activity.sent_at.get().unwrap_or(now);
        headers.insert(&names.upstream_latency, milliseconds_header(sent, now));
        headers.insert(&names.proxy_latency, milliseconds_header(started_at, sent));
    } else {
        headers.insert(&names.response_latency, milliseconds_header(started_at, now));
    }
}

/// Adds the product headers to the response to input that could not be parsed as a request.
pub(in crate::proxy) fn set_rejection_headers(exchange: &ClientExchange, id: &HeaderValue, headers: &mut HeaderMap) {
    let view = exchange.worker().view();
    let bind = view.http_bind(&exchange.connections.address);
    let option = bind.and_then(|bind| bind.style_without_listener().product_headers);
    let Some(names) = exchange.http.product_headers.names(option) else { return };
    let now = Instant::now();
    let started = exchange.activity.head_started_at().unwrap_or(now);
    headers.insert(&names.request_id, id.clone());
    headers.insert(SERVER, exchange.http.product_headers.server.clone());
    headers.insert(&names.response_latency, milliseconds_header(started, now));
}

fn milliseconds_header(from: Instant, to: Instant) -> HeaderValue {
    decimal::header_value(u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX))
}
