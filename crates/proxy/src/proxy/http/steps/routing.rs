//! From the head of a request to its rule: reads the target, and selects the listener and the rule. Ambiguous targets
//! are rejected.

use http::header::HOST;
use http::{Method, Request, Version};

use super::condition_fields::ConditionFields;
use super::early_exit::EarlyExit;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_headers::ForwardedRequest;
use crate::hop_count::HopCount;
use crate::http2_frames::{FRAGMENT_HOST, UNREADABLE_HOST};
use crate::plugin_api::Framing;
use crate::proxy::connection::tls::TlsSession;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::headers::join_cookies;
use crate::proxy::http::forwarding::framing;
use crate::proxy::http::forwarding::upgrade::Upgrade;
use crate::proxy::http::record::named_request::NamedRequest;
use crate::proxy::http::record::request_error::RequestError;
use crate::request_target::{self, InvalidHost, RequestHost, RequestPath, TargetError};
use crate::snapshot::regex_steps::RegexSteps;
use crate::snapshot::router::{Matched, RoutingRequest};
use crate::snapshot::routing::Unrouted;

/// The host and path to match and to forward, and the requested upgrade.
pub(in crate::proxy) struct RequestTarget {
    pub(in crate::proxy) host: RequestHost,
    pub(in crate::proxy) path: RequestPath,
    pub(in crate::proxy) upgrade: Option<Box<Upgrade>>,
}

/// Checks the head of the request and reads its target.
pub(in crate::proxy) fn read_target(
    cx: &RequestContext<'_>,
    request: &mut Request<RequestBody>,
) -> Result<RequestTarget, EarlyExit> {
    let exchange = cx.exchange();
    if let Some(error) = exchange.activity.ambiguity.get() {
        return Err(error.into());
    }
    let upgrade = Upgrade::take(request)?;
    framing::check_request(request)?;
    // Before fields are counted: a browser sends each cookie in a field of its own in HTTP/2.
    join_cookies(request.headers_mut());
    if request.headers().len() > exchange.worker().limits.max_request_fields {
        return Err(RequestError::TooManyHeaders.into());
    }
    let local = exchange.connections.address.socket;
    let target = request_target::read(request.method(), request.version(), request.uri(), request.headers(), local);
    let (host, path) = target.map_err(|error| target_error(request, error))?;
    let path = path.ok_or(EarlyExit::ServerOptions)?;
    exchange.http.rejected_paths.check(path.path()).map_err(RequestError::InvalidTarget)?;
    Ok(RequestTarget { host, path, upgrade })
}

/// Finds the rule of the request. The most specific listener for its host handles it; other listeners are not searched.
pub(in crate::proxy) fn select_rule<'r>(
    cx: &mut RequestContext<'r>,
    request: &Request<RequestBody>,
    target: RequestTarget,
) -> Result<RoutedRequest<'r>, RequestError> {
    let RequestTarget { host, mut path, upgrade } = target;
    let name = host.name();
    let client_tls = cx.exchange().tls.as_deref().map(TlsSession::for_routing);
    let bind = cx.view.http_bind(&cx.exchange().connections.address).ok_or(Unrouted::NoListener)?;
    let listener = bind.select_listener(client_tls, &name)?;
    cx.listener = Some(listener);
    let record = &*cx.record;
    let forwarded = ForwardedRequest { client: &record.client, host: &host, listener_port: listener.port };
    let fields =
        ConditionFields::new(&record.exchange, request.headers(), forwarded, request.uri(), &record.facts.request_id);
    let routing_request = RoutingRequest {
        path: path.path(),
        raw_path: path.raw_path(),
        query: path.query(),
        method: request.method(),
        headers: request.headers(),
        forwarded: Some(&fields),
        authority: host.raw.as_bytes(),
        listener_port: listener.port,
        scheme: record.exchange.client.scheme,
        server_name: record.exchange.tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
        regex_steps: RegexSteps::new(record.exchange.worker().limits.max_regex_steps),
    };
    let matched = listener.route(&name, &routing_request);
    if matched.is_err() {
        cx.style_without_rule = listener.style_without_rule(&name, &routing_request);
    }
    let Matched { rule, path: matched, normalized, names_method } = matched?;
    let regex_steps = routing_request.regex_steps.remaining();
    drop(fields);
    if let Some(normalized) = normalized {
        path.replace(normalized);
    }
    cx.rule = Some(rule);
    let options = rule.options();
    if !options.access_log {
        cx.record.facts.logged = None;
    }
    if let Some(telemetry) = &options.telemetry {
        let facts = &mut cx.record.facts;
        let worker = cx.record.exchange.worker();
        let is_in_line = facts.logged.is_some() && worker.log.reads_telemetry();
        facts.named = NamedRequest::new(telemetry, request, is_in_line, worker.counts_locations());
    }
    if let Some(observed) = &mut cx.record.facts.observed {
        observed.set_path(matched);
    }
    // The response to TRACE repeats the request with its credentials, so a rule has to name it.
    if request.method() == Method::TRACE && !names_method {
        return Err(RequestError::TraceNotAllowed);
    }
    Ok(RoutedRequest {
        listener,
        rule,
        matched,
        host,
        path,
        replaced_path: None,
        has_plugin_path: false,
        upgrade,
        framing: Framing::default(),
        regex_steps,
        may_have_te: false,
        hops: HopCount::ZERO,
        client: cx.exchange().counted_client.get(),
    })
}

/// The error of a request without a usable target. An HTTP/2 request that was rejected before it was read has a Host
/// field that says why, after its own one if it has one.
#[cold]
fn target_error(request: &Request<RequestBody>, error: TargetError) -> RequestError {
    let is_marked = request.version() == Version::HTTP_2
        && matches!(error, TargetError::Host(InvalidHost::Several | InvalidHost::Malformed));
    let mark = request.headers().get_all(HOST).iter().take(2).last().filter(|_| is_marked);
    match mark.map(|mark| mark.as_bytes()) {
        Some(FRAGMENT_HOST) => RequestError::InvalidTarget("the target has a fragment"),
        Some(UNREADABLE_HOST) => {
            RequestError::InvalidTarget("its header block, or an earlier one of the connection, cannot be read")
        }
        _ => error.into(),
    }
}
