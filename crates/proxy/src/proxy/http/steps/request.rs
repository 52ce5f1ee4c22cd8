//! The steps of one request, from its head to the response that is returned.
//!
//! ```text
//!   target ▶ route ▶ protocols ▶ request headers ▶ access plugins ▶ backend ▶ preflight ▶ authorization
//!     └────────┴─────────┴──────────────┴──────────────────┴───────────┴─────────┴─────────────┤
//!                                                                                          EarlyExit
//!     ┌────────────────────┬───────────────────────────────────────────────────────────────────┤
//!   before_forward ▶ request filters ▶ forwarding ▶ response filters ─┴▶ error backend ▶ response plugins ─┐
//!                          └▶ replacement of the backend ─▶ EarlyExit       head ◀ body filters ◀──────────┘
//! ```
//!
//! [`RequestStep`] says why each step has its place.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Request, Response, Version};
use tokio::time::Instant;

use super::accepted_protocols;
use super::access_plugins;
use super::affinity;
use super::backend::{self, SelectedAction};
use super::early_exit::EarlyExit;
use super::error_backend;
use super::external_auth;
use super::fast_cgi;
use super::held_record::HeldRecord;
use super::order::RequestStep;
use super::passed_fields;
use super::plugins;
use super::product_headers;
use super::redirect;
use super::request_context::RequestContext;
use super::request_headers;
use super::request_record::RequestRecord;
use super::routing;
use super::server_assertions;
use super::trailer_header;
use crate::plugin_api::ResponseSource;
use crate::proxy::http::exchange::activity::ActivityPhase;
use crate::proxy::http::exchange::body_source::{BodySource, fit_to_status};
use crate::proxy::http::exchange::client_body::ClientBody;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::paced_body::PacedBody;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::field_policy::ResponseTrailerPolicy;
use crate::proxy::http::fields::hpack;
use crate::proxy::http::forwarding::attempt_policy::ReplayPolicy;
use crate::proxy::http::forwarding::attempts::forward;
use crate::proxy::http::forwarding::destination::Destination;
use crate::proxy::http::forwarding::failover::forward_with_alternatives;
use crate::proxy::http::forwarding::outgoing_request::OutgoingRequest;
use crate::proxy::http::forwarding::time_limits::forward_in_time;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::response_deadline::ResponseDeadline;
use crate::turn_clock;

/// The response to a request, with the record that ends with its body or with the tunnel that follows.
pub(in crate::proxy) struct ServedRequest {
    pub(in crate::proxy) response: Response<BodySource>,
    pub(in crate::proxy) record: HeldRecord,
    /// The HTTP version of the request.
    pub(in crate::proxy) version: Version,
}

/// Handles one request. Errors become responses.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` would contain the arguments twice")]
pub(in crate::proxy) fn serve(
    exchange: Rc<ClientExchange>,
    mut request: Request<ClientBody>,
) -> impl Future<Output = ServedRequest> {
    async move {
        // The configuration is read once: the request uses this snapshot to its end, whatever changes meanwhile.
        let view = exchange.worker().view();
        let version = request.version();
        let mut record = HeldRecord::new(RequestRecord::start(&exchange, &mut request));
        let response = {
            // When it is dropped, which a disconnecting client also does, it selects the metric series of the request.
            let mut cx = RequestContext::new(&view, &mut record, &request);
            let request = request.map(|incoming| RequestBody::new(incoming, &exchange));
            let mut outcome = respond(&mut cx, request).await;
            if let Some(described) = cx.record.described.take() {
                // Boxed, so that the future of requests without error backends stays small.
                outcome = Box::pin(error_backend::replace(&mut cx, outcome, described)).await;
            }
            let mut origin = ResponseOrigin::of(&cx, &outcome);
            let mut response = match outcome {
                Ok(response) => response,
                Err(exit) => exit.into_response(&mut cx),
            };
            apply_request_decisions(&mut cx, &mut response, origin.source);
            plugins::attach_unmatched(&mut cx);
            if cx.record.plugin_run.is_some() {
                cx.enter(RequestStep::ResponsePlugins);
                // If no plugin has this phase, only the headers are set that plugins chose in other phases.
                plugins::run_response(&mut cx, &mut response, &mut origin.source, origin.began_at).await;
            }
            finish_response(&mut cx, &mut response, &origin);
            response
        };
        ServedRequest { response, record, version }
    }
}

/// Forwards the request, unless an earlier step ends it.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` would contain the request twice")]
fn respond(
    cx: &mut RequestContext<'_>,
    mut request: Request<RequestBody>,
) -> impl Future<Output = Result<Response<BodySource>, EarlyExit>> {
    async move {
        let client_sent_head = request.method() == Method::HEAD;
        let mut destination = run_steps_before_forwarding(cx, &mut request).await?;
        cx.enter(RequestStep::Forwarding);
        let has_product_headers = cx.product_header_names().is_some();
        let passes_fields = passed_fields::may_be_passed(cx);
        // A plugin may have changed the method. The response then announces a body that does not follow.
        let lacks_body = request.method() == Method::HEAD && !client_sent_head;
        let record = &mut *cx.record;
        if let Some(heads) = &mut record.facts.heads {
            heads.upstream_target = Some(request.uri().clone());
        }
        if record.plugin_run.is_some() {
            // Plugins, and whatever waited after them, have read the clock in this turn.
            record.exchange.activity.sent_at.set(Some(turn_clock::now()));
        } else if has_product_headers {
            record.exchange.activity.sent_at.set(Some(turn_clock::refresh()));
        }
        let RequestRecord { exchange, facts, .. } = record;
        if let Some(unwritten) = cx.unwritten_forwarding {
            let via = exchange.http.product_headers.via_of_request(has_product_headers, cx.version);
            destination.forwarding = Some(unwritten.fields(&exchange.client, &facts.request_id, via));
        }
        // The destination is not borrowed, because the future would then keep it.
        let is_plain = {
            let policy = destination.policy;
            #[expect(clippy::redundant_pattern_matching, reason = "`is_none` would borrow the destination")]
            let has_settings = matches!(destination.settings, Some(_));
            policy.is_plain() && !has_settings
        };
        let outcome = if destination.upstream.has_alternatives() {
            // Boxed, so that the future of requests to Services without alternatives stays small.
            let forwarding = Box::pin(forward_with_alternatives(exchange, destination, request, &mut facts.attempts));
            let (outcome, limit) = forwarding.await;
            facts.deadline = limit.map(|limit| ResponseDeadline::new(limit.end, limit.error));
            outcome
        } else if is_plain {
            let replay = ReplayPolicy::unbuffered(&request);
            let mut outgoing =
                OutgoingRequest::converted_for_endpoint(Rc::clone(exchange), destination, request, replay)?;
            outgoing.passes_fields = passes_fields;
            forward(&mut outgoing, Some(&mut facts.attempts)).await
        } else {
            // Boxed, so that the future of requests without timeouts and retries stays small.
            let forwarding = Box::pin(forward_in_time(exchange, destination, request, &mut facts.attempts));
            let (outcome, limit) = forwarding.await;
            facts.deadline = limit.map(|limit| ResponseDeadline::new(limit.end, limit.error));
            outcome
        };
        let mut outcome = match outcome {
            Ok(response) => Ok(response.map(BodySource::from)),
            Err(error) => Err(EarlyExit::from(error)),
        };
        if plugins::runs_before_forward(cx) {
            outcome = plugins::run_after_forward(cx, outcome);
        }
        let mut response = outcome?;
        if lacks_body {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        cx.enter(RequestStep::ResponseFilters);
        if response.body().has_received_fields() {
            if passed_fields::may_be_passed(cx) {
                return Ok(response);
            }
            passed_fields::read(&mut response)?;
        }
        cx.apply_response_filters(response.headers_mut());
        // After the filters, which may remove the cookies of the backend.
        affinity::add_to_response(cx.affinity.as_deref(), cx.record.facts.attempts.endpoint(), response.headers_mut());
        if let Some(cookies) = &cx.hash_cookies {
            cookies.add_to_response(response.headers_mut());
        }
        Ok(response)
    }
}

/// The steps before a request is forwarded. They rewrite it for the endpoint.
async fn run_steps_before_forwarding<'r>(
    cx: &mut RequestContext<'r>,
    request: &mut Request<RequestBody>,
) -> Result<Destination<'r>, EarlyExit> {
    cx.enter(RequestStep::Target);
    let target = routing::read_target(cx, request);
    if target.is_err() {
        cx.set_style_without_listener();
    }
    let routed = target.and_then(|target| {
        cx.enter(RequestStep::Route);
        Ok(routing::select_rule(cx, request, target)?)
    });
    // Requests without a rule have traces, too.
    cx.begin_trace(request);
    let mut routed = routed?;
    cx.enter(RequestStep::Protocols);
    accepted_protocols::check(cx, &mut routed, request)?;
    if cx.record.facts.observed.as_ref().is_some_and(|observed| observed.is_dry_run()) {
        return Err(backend::dry_run(cx, routed.rule));
    }
    cx.enter(RequestStep::RequestHeaders);
    request_headers::set(cx, &mut routed, request)?;
    server_assertions::remove_from_request(routed.rule, request.headers_mut());
    error_backend::describe(cx, &routed, request);
    cx.write_trace(request.headers_mut());
    cx.enter(RequestStep::AccessPlugins);
    if let Some(chain) = &routed.rule.plugins {
        cx.write_pending(request.headers_mut());
        if chain.may_wait(&cx.view.snapshot.consumers) {
            // Boxed, so that the future of requests without plugins stays small.
            Box::pin(access_plugins::run(cx, chain, &mut routed, request)).await?;
        } else {
            access_plugins::run_at_once(cx, chain, &mut routed, request)?;
        }
    }
    product_headers::set_request_id(cx, request);
    cx.enter(RequestStep::Backend);
    let action = backend::select(cx, routed.rule)?;
    cx.enter(RequestStep::Preflight);
    action.answer_preflight(cx, routed.rule, request)?;
    cx.enter(RequestStep::Authorization);
    for filter in action.authorization(routed.rule).into_iter().flatten() {
        cx.write_pending(request.headers_mut());
        // Boxed, so that the future of requests without authorization stays small.
        Box::pin(external_auth::authorize(cx, filter, &routed, request)).await?;
    }
    server_assertions::remove_undecided(routed.rule, action, request.headers_mut());
    cx.enter(RequestStep::BeforeForward);
    if action.is_forwarded() && plugins::runs_before_forward(cx) {
        // Boxed, so that the future of requests without such plugins stays small.
        Box::pin(plugins::run_before_forward(cx, &routed, action, request)).await?;
    }
    cx.enter(RequestStep::RequestFilters);
    if action.is_forwarded()
        && let Some(replacement) = plugins::replacement(cx)
    {
        let written = backend::edit_for_replacement(&routed, action, request)?;
        cx.enter(RequestStep::BackendReplacement);
        // Boxed, so that the future of requests without such plugins stays small.
        let reply = Box::pin(plugins::replace_backend(cx, &routed, action, replacement, request, written)).await?;
        return Err(EarlyExit::StandIn(reply));
    }
    match action {
        SelectedAction::Redirect(action) => Err(redirect::redirect(cx, action, &routed)),
        SelectedAction::Forward(backends, backend) => {
            if fast_cgi::needs_length(backend, request) {
                // Boxed, so that the future of other requests stays small.
                Box::pin(fast_cgi::read_to_end(cx, &routed, request)).await?;
            }
            backend::rewrite_request(cx, backends, backend, routed, request)
        }
        SelectedAction::StandIn(failure) => Err(RequestError::InvalidRule(failure).into()),
    }
}

/// Where a response comes from, whose head is not complete yet.
struct ResponseOrigin {
    source: ResponseSource,
    /// When its head was received or generated.
    began_at: Instant,
    /// Whether the connection must close after it.
    must_close: bool,
}

impl ResponseOrigin {
    fn of(cx: &RequestContext<'_>, outcome: &Result<Response<BodySource>, EarlyExit>) -> Self {
        let (source, is_malformed) = match outcome {
            Ok(_) => (ResponseSource::Service, false),
            Err(exit) => (exit.source(), exit.must_close()),
        };
        let must_close = is_malformed || cx.exchange().connections.asks_to_close();
        // What plugins took in `access` is not time of the endpoint: they have refreshed the time of the turn.
        ResponseOrigin { source, began_at: turn_clock::now(), must_close }
    }
}

/// Adds to the head of a response what the request has determined, wherever the response comes from.
fn apply_request_decisions(cx: &mut RequestContext<'_>, response: &mut Response<BodySource>, source: ResponseSource) {
    if let Some(observed) = &mut cx.record.facts.observed {
        observed.set_source(source);
    }
    if let Some(cors_headers) = cx.record.cors_headers.take() {
        cors_headers.apply(response.headers_mut());
    }
    if let Some(authorization) = &cx.record.authorization {
        authorization.change_response(response);
    }
}

/// Completes the head of a response, after plugins have run.
fn finish_response(cx: &mut RequestContext<'_>, response: &mut Response<BodySource>, origin: &ResponseOrigin) {
    let ResponseOrigin { source, began_at, must_close } = *origin;
    cx.enter(RequestStep::ResponseHead);
    fit_to_status(response, cx.error_format.is_head());
    if response.body().may_have_trailers() {
        cx.record.trailers =
            ResponseTrailerPolicy::new(cx.rule, cx.affinity.is_some(), cx.product_header_names(), response);
    }
    trailer_header::remove_unaccepted(cx, response, source);
    product_headers::set_response_headers(cx, response, source, began_at);
    let record = &mut *cx.record;
    record.facts.status = Some(response.status());
    if record.exchange.protocol.is_multiplexed() {
        // There is no field to close the connection, which ends with GOAWAY.
        hpack::set_date(response.headers_mut());
        hpack::mark_changing_values(response.headers_mut());
    } else if must_close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(heads) = &mut record.facts.heads {
        heads.response.clone_from(response.headers());
    }
    if let Some(heads) = record.facts.logged.as_mut().and_then(|logged| logged.captured.as_deref_mut()) {
        record.exchange.worker().log.capture_response(response, heads);
    }
    if let Some(named) = &mut record.facts.named {
        named.set_response(response);
    }
    let activity = &record.exchange.activity;
    // Plugins that ran or waited in between have refreshed the time of the turn.
    let now = if record.plugin_run.is_some() { turn_clock::now() } else { began_at };
    activity.enter_phase(ActivityPhase::SendingResponse, now);
    activity.response_deadline.set(record.facts.deadline.as_ref().map(|deadline| deadline.sleep.deadline()));
    if let Some(rate) = cx.rule.and_then(|rule| rule.options().response_rate) {
        // Last, because the steps before look at the body itself.
        let body = std::mem::replace(response.body_mut(), BodySource::Local(Bytes::new()));
        *response.body_mut() = PacedBody::limit(body, rate);
    }
}
