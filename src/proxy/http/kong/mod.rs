//! Requests under Kong rules, where their handling differs from the Gateway API's (§3.4 to 3.6 of
//! `docs/kong-compatibility.md`).
//!
//! ```text
//!   Listener ─ merge_slashes ─▶ rule ─▶ check_protocol ─▶ set_forwarding_headers ─▶ prepare_request ─▶ plugins
//!                                          └▶ error, redirect                          └ path, Host       │
//!                                        client ◀── set_response_headers: Via, X-Kong-… ◀── endpoint ◀── filters
//! ```
//!
//! Path and Host are rewritten before plugins run, so that values a plugin writes take precedence.

pub(in crate::proxy) mod forwarding_headers;
pub(in crate::proxy) mod product_headers;

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, SERVER, TE, TRAILER, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use self::forwarding_headers::{append_via, set_forwarded_prefix};
use self::product_headers::KongHeaderMode;
use super::client_connection::Peer;
use super::early_exit::EarlyExit;
use super::headers::{X_FORWARDED_HOST, contains_token, is_grpc};
use super::plugin_run;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_error::RequestError;
use super::response_body::BodySource;
use super::target::{RequestHost, RequestPath};
use crate::plugin_api::chain::Protocols;
use crate::plugin_api::{Scheme, decimal};
use crate::proxy::record::request_record::RequestRecord;
use crate::snapshot::kong::{KongBehavior, UpstreamHost, normalize_path, upstream_path};
use crate::snapshot::rule::Action;

/// Kong-specific state of a request, kept until its response is complete.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct KongRequest {
    /// Whether the listener or the rule belongs to Kong's API. Otherwise only Kong's headers are added.
    is_kong_rule: bool,
    /// The client sent `TE: trailers`.
    accepts_trailers: bool,
}

impl KongRequest {
    /// The state of a new request. None unless Kong's headers are enabled for all rules.
    pub(in crate::proxy) fn initial(peer: &Peer) -> Option<KongRequest> {
        (peer.worker.product_headers.mode == KongHeaderMode::On).then(KongRequest::default)
    }

    /// Replaces an error by its variant with the status and message of Kong.
    pub(in crate::proxy) fn map_error(&self, error: RequestError) -> RequestError {
        match error {
            RequestError::NoEndpoints if self.is_kong_rule => RequestError::NoEndpointsKong,
            RequestError::ConnectionRefused if self.is_kong_rule => RequestError::ConnectionRefusedKong,
            other => other,
        }
    }
}

/// Normalizes the path further, as the routes of Kong listeners expect it: repeated slashes are merged.
pub(in crate::proxy) fn merge_slashes(path: &mut RequestPath) {
    if let Some(merged) = normalize_path(path.path()) {
        path.replace(merged);
    }
}

/// Enables Kong's headers and error messages for this request.
pub(in crate::proxy) fn mark_as_kong(record: &mut RequestRecord) {
    record.kong.get_or_insert_default().is_kong_rule = true;
}

/// Checks the request against the protocols of the rule, which may redirect HTTP to HTTPS.
pub(in crate::proxy) fn check_protocol<B>(
    cx: &RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    request: &Request<B>,
) -> Result<(), EarlyExit> {
    let Some(behavior) = &routed.rule.kong else { return Ok(()) };
    let Protocols { http, https, grpc, grpcs } = behavior.protocols;
    let (peer, headers) = (cx.peer(), request.headers());
    let is_secure = || plugin_run::client_scheme(peer, headers) == Scheme::Https;
    if https && !http && !is_secure() {
        let redirect = behavior.https_redirect;
        if redirect.status == StatusCode::UPGRADE_REQUIRED {
            return Err(RequestError::HttpsOnly.into());
        }
        let location = https_location(request.uri(), &forwarded_host(peer, headers, &routed.host), redirect.port)?;
        return Err(EarlyExit::HttpsRedirect { status: redirect.status, location });
    }
    if (grpc || grpcs) && !http && !https {
        if request.version() != Version::HTTP_2 {
            return Err(RequestError::Http2Only.into());
        }
        if !is_grpc(headers) {
            return Err(RequestError::NotGrpc.into());
        }
        if !grpc && !is_secure() {
            return Err(RequestError::GrpcsOnly.into());
        }
    }
    Ok(())
}

/// The `https` URL of the same target on the same host.
fn https_location(uri: &Uri, host: &str, port: u16) -> Result<HeaderValue, RequestError> {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    HeaderValue::try_from(format!("https://{host}{port}{target}")).map_err(|_| RequestError::InvalidRewrite)
}

/// The host of the redirect: a trusted peer's `X-Forwarded-Host`, otherwise the request's own host.
fn forwarded_host<'h>(peer: &Peer, headers: &'h HeaderMap, host: &'h RequestHost) -> Cow<'h, str> {
    let forwarded = headers.get(X_FORWARDED_HOST).filter(|_| peer.client.trusted);
    match forwarded.and_then(|forwarded| forwarded.to_str().ok()).filter(|forwarded| !forwarded.is_empty()) {
        Some(forwarded) => Cow::Borrowed(forwarded),
        None => host.name(),
    }
}

/// Adds Kong's headers. Under a Kong rule, also rewrites path and Host for the endpoint, and drops upgrades to
/// protocols other than WebSocket.
pub(in crate::proxy) fn prepare_request<B>(
    cx: &mut RequestContext<'_>,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<B>,
) -> Result<(), RequestError> {
    set_request_headers(request, cx.record);
    let Some(behavior) = routed.rule.kong.as_deref() else { return Ok(()) };
    // The request is forwarded without the upgrade.
    routed.upgrade = routed.upgrade.take().filter(|upgrade| upgrade.is_websocket());
    let kong = cx.record.kong.get_or_insert_default();
    kong.accepts_trailers = request.headers().get_all(TE).iter().any(|value| contains_token(value, "trailers"));
    if let Action::Forward(_) = routed.rule.action {
        // A filter that rewrites the path applies to the matched path, so no prefix may be stripped before.
        let is_rewritten = routed.rule.filters.rewrite.as_ref().is_some_and(|rewrite| rewrite.path.is_some());
        if !is_rewritten {
            rewrite_path(behavior, routed, request)?;
        }
        if let UpstreamHost::Fixed(host) = &behavior.host {
            request.headers_mut().insert(HOST, host.clone());
        }
    }
    Ok(())
}

/// Strips the matched prefix and adds the path of the service, or expands the template of the rule.
fn rewrite_path<B>(
    behavior: &KongBehavior,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<B>,
) -> Result<(), RequestError> {
    let (matched, path) = (routed.matched, &routed.path);
    let prefix_length = behavior.strip_path.then(|| matched.length(path.path()));
    let prefix = prefix_length.and_then(|length| path.path().get(..length));
    set_forwarded_prefix(request.headers_mut(), prefix.unwrap_or_default());
    let target = match &behavior.rewrite {
        Some(template) => {
            let expanded = template.expand(&matched.captures(path.path()), path.query());
            parse_target(expanded.ok_or(RequestError::InvalidRewrite)?)?
        }
        None => {
            let upstream = upstream_path(&behavior.path, path.path(), prefix_length);
            // The target as the client wrote it is what the endpoint expects.
            if *upstream == *request.uri().path() && request.uri().authority().is_none() {
                return Ok(());
            }
            join_target(&upstream, path.query())?
        }
    };
    let replaced = RequestPath::parse(request.method(), &target).ok().flatten();
    routed.replaced_path = Some(replaced.ok_or(RequestError::InvalidRewrite)?);
    *request.uri_mut() = target;
    Ok(())
}

fn join_target(path: &str, query: Option<&str>) -> Result<Uri, RequestError> {
    let mut target = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    target.push_str(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    parse_target(target)
}

fn parse_target(target: String) -> Result<Uri, RequestError> {
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| RequestError::InvalidRewrite)?;
    Ok(Uri::from(target))
}

/// Adds `Via` and `X-Kong-Request-Id` to the request.
fn set_request_headers<B>(request: &mut Request<B>, record: &RequestRecord) {
    let Some(kong) = &record.kong else { return };
    let product_headers = &record.peer.worker.product_headers;
    if kong.adds_headers(product_headers.mode) {
        let version = request.version();
        let headers = request.headers_mut();
        append_via(headers, product_headers.via(version));
        headers.insert(X_KONG_REQUEST_ID, record.request_id.clone());
    }
}

impl KongRequest {
    fn adds_headers(&self, mode: KongHeaderMode) -> bool {
        match mode {
            KongHeaderMode::Auto => self.is_kong_rule,
            KongHeaderMode::On => true,
            KongHeaderMode::Off => false,
        }
    }
}

/// Adds Kong's headers to the response, after plugins have run.
pub(in crate::proxy) fn set_response_headers(
    response: &mut Response<BodySource>,
    record: &RequestRecord,
    now: Instant,
) {
    let Some(kong) = &record.kong else { return };
    let is_local = matches!(response.body(), BodySource::Local(_));
    let headers = response.headers_mut();
    if kong.is_kong_rule && !is_local && !kong.accepts_trailers {
        headers.remove(TRAILER);
    }
    let product_headers = &record.peer.worker.product_headers;
    if !kong.adds_headers(product_headers.mode) {
        return;
    }
    let started_at = record.peer.activity.started_at.get();
    headers.insert(X_KONG_REQUEST_ID, record.request_id.clone());
    if is_local {
        headers.insert(SERVER, product_headers.server.clone());
        headers.insert(X_KONG_RESPONSE_LATENCY, milliseconds_header(started_at, now));
    } else {
        let sent = record.peer.activity.sent_at.get().unwrap_or(now);
        append_via(headers, product_headers.via(Version::HTTP_11));
        headers.insert(X_KONG_UPSTREAM_LATENCY, milliseconds_header(sent, now));
        headers.insert(X_KONG_PROXY_LATENCY, milliseconds_header(started_at, sent));
    }
}

/// Sets `Upgrade` on a 426, naming the protocol to use instead. HTTP/2 has no such header fields.
pub(in crate::proxy) fn set_upgrade_headers(error: RequestError, version: Version, headers: &mut HeaderMap) {
    let protocols = match error {
        RequestError::HttpsOnly => "TLS/1.2, HTTP/1.1",
        RequestError::Http2Only => "HTTP/2",
        _ => return,
    };
    if version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocols));
    }
}

fn milliseconds_header(from: Instant, to: Instant) -> HeaderValue {
    decimal::header_value(u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX))
}

const X_KONG_REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
const X_KONG_RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");
const X_KONG_UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
const X_KONG_PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
