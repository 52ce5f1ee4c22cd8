//! The steps of one request, from its head to the response that is returned.
//!
//! ```text
//!   read_target ─▶ select_rule ─▶ protocols ─▶ forwarding headers ─▶ path, Host ─▶ plugins ─▶ CORS ─┐
//!        └──────────────┴─────────────┴────────────── EarlyExit ─────────┴───────────┴──────────┤   │
//!   client ◀── finish_response ◀──────────────────────────┬───────────┬────────────┬────────────┘   │
//!                                                         forward ◀─ action ◀─ authorization ◀──────┘
//! ```

use std::convert::Infallible;
use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Request, Response, Version};
use tokio::time::Instant;

use super::accepted_protocols;
use super::early_exit::EarlyExit;
use super::external_auth;
use super::forwarding_headers::set_forwarding_headers;
use super::plugin_run;
use super::product_headers;
use super::request_context::RequestContext;
use super::routing;
use super::rule_action::{self, Destination};
use super::session;
use super::target;
use super::trailer_header;
use super::upstream_target;
use crate::hop_count::HopCount;
use crate::plugin_api::ResponseSource;
use crate::proxy::http::client::activity::ActivityPhase;
use crate::proxy::http::client::client_body::ClientBody;
use crate::proxy::http::client::client_connection::Peer;
use crate::proxy::http::client::response_body::{BodySource, ResponseBody};
use crate::proxy::http::fields::field_policy::ResponseTrailerPolicy;
use crate::proxy::http::fields::framing;
use crate::proxy::http::fields::hpack;
use crate::proxy::http::forwarding::call_deadline;
use crate::proxy::http::forwarding::forward;
use crate::proxy::http::forwarding::outgoing_request::{OutgoingRequest, ReplayPolicy};
use crate::proxy::http::forwarding::request_body::RequestBody;
use crate::proxy::http::forwarding::retry;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_record::RequestRecord;
use crate::turn_clock;

/// Handles one request. Errors become responses, so the result is infallible.
pub(in crate::proxy) async fn serve(
    peer: Rc<Peer>,
    mut request: Request<ClientBody>,
) -> Result<Response<ResponseBody>, Infallible> {
    // The configuration is read once: the request uses this snapshot to its end, whatever changes meanwhile.
    let view = peer.worker().view();
    let version = request.version();
    let mut record = RequestRecord::start(&peer, &mut request);
    let response = {
        let mut cx = RequestContext::new(&view, &mut record, &request);
        let request = request.map(|incoming| RequestBody::new(incoming, version, &peer));
        let outcome = respond(&mut cx, request).await;
        let mut pending = begin_response(&mut cx, outcome);
        if cx.record.plugin_run.is_some() {
            plugin_run::run_response(&mut cx, &mut pending.response, &mut pending.source, pending.began_at).await;
        }
        finish_response(&mut cx, pending)
    };
    Ok(attach_record(response, record, version))
}

/// Forwards the request, unless an earlier step ends it.
async fn respond(
    cx: &mut RequestContext<'_>,
    mut request: Request<RequestBody>,
) -> Result<Response<BodySource>, EarlyExit> {
    let client_sent_head = request.method() == Method::HEAD;
    let destination = prepare(cx, &mut request).await?;
    let reports_latencies = cx.product_header_names().is_some();
    // A plugin may have changed the method. The response then announces a body that does not follow.
    let lacks_body = request.method() == Method::HEAD && !client_sent_head;
    let record = &mut *cx.record;
    if let Some(heads) = &mut record.heads {
        heads.upstream_target = Some(request.uri().clone());
    }
    if record.plugin_run.is_some() {
        // Plugins, and whatever waited after them, have read the clock in this turn.
        record.peer.activity.sent_at.set(Some(turn_clock::now()));
    } else if reports_latencies {
        record.peer.activity.sent_at.set(Some(turn_clock::refresh()));
    }
    let mut response = match (destination.timeouts_and_retries, destination.call_deadline) {
        (None, None) => {
            let replay = ReplayPolicy::unbuffered(&request);
            let mut outgoing = OutgoingRequest::new(Rc::clone(&record.peer), destination, request, replay)?;
            forward::forward(&mut outgoing, Some(record)).await?
        }
        // Boxed, so that the future of requests without timeouts and retries stays small.
        (Some(policy), None) => Box::pin(retry::forward_with_retries(destination, policy, request, record)).await?,
        (_, Some(deadline)) => Box::pin(call_deadline::forward_until(deadline, destination, request, record)).await?,
    };
    if lacks_body {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    cx.apply_response_filters(response.headers_mut());
    // After the filters, which may remove the cookies of the backend.
    session::add_to_response(cx, response.headers_mut());
    Ok(response)
}

/// The steps before a request is forwarded. They rewrite it for the endpoint.
async fn prepare<'r>(
    cx: &mut RequestContext<'r>,
    request: &mut Request<RequestBody>,
) -> Result<Destination<'r>, EarlyExit> {
    let target = target::read_target(cx, request)?;
    let mut routed = routing::select_rule(cx, request, target)?;
    accepted_protocols::check(cx, &routed, request)?;
    if cx.record.observed.as_ref().is_some_and(|observed| observed.is_dry_run()) {
        return Err(rule_action::dry_run(cx, routed.rule));
    }
    if routed.rule.plugins.as_ref().is_some_and(|chain| chain.logs_heads(&cx.view.snapshot.consumers)) {
        cx.record.copy_heads(&routed, request);
    }
    let stripped = set_forwarding_headers(cx, &routed, request);
    routed.may_have_te = stripped.accepts_trailers;
    // Before anything sends a request. Most requests have no number.
    if stripped.hops > HopCount::ZERO && stripped.hops.get() >= cx.peer().worker().limits.max_hops {
        return Err(RequestError::LoopDetected.into());
    }
    routed.hops = stripped.hops.next();
    product_headers::set_request_headers(cx, request);
    trailer_header::record_te(cx, &routed);
    upstream_target::rewrite(&mut routed, request)?;
    if let Some(chain) = &routed.rule.plugins {
        if chain.may_wait(&cx.view.snapshot.consumers) {
            // Boxed, so that the future of requests without plugins stays small.
            Box::pin(plugin_run::run_access(cx, chain, &mut routed, request)).await?;
        } else {
            plugin_run::run_access_at_once(cx, chain, &mut routed, request)?;
        }
    }
    let action = rule_action::select(cx, &routed, request)?;
    for filter in action.authorization(routed.rule).into_iter().flatten() {
        // Boxed, so that the future of requests without authorization stays small.
        Box::pin(external_auth::authorize(cx, filter, &routed, request)).await?;
    }
    action.apply(cx, routed, request)
}

/// A response before and during the response phase of the plugins.
struct PendingResponse {
    response: Response<BodySource>,
    source: ResponseSource,
    /// When its head was received or generated.
    began_at: Instant,
    /// Whether the connection must close after it.
    must_close: bool,
}

/// Builds the head of a response, wherever it comes from.
fn begin_response(cx: &mut RequestContext<'_>, outcome: Result<Response<BodySource>, EarlyExit>) -> PendingResponse {
    let must_close = cx.peer().connections.asks_to_close() || outcome.as_ref().is_err_and(EarlyExit::must_close);
    let source = outcome.as_ref().map_or_else(EarlyExit::source, |_| ResponseSource::Service);
    if let Some(observed) = &mut cx.record.observed {
        observed.set_source(source);
    }
    let mut response = outcome.unwrap_or_else(|exit| exit.into_response(cx));
    if let Some(cors_headers) = cx.record.cors_headers.take() {
        cors_headers.apply(response.headers_mut());
    }
    if let Some(authorization) = &cx.record.authorization {
        authorization.change_response(&mut response);
    }
    // What plugins took in `access` is not counted as time of the endpoint: they have refreshed the time of the turn.
    PendingResponse { response, source, began_at: turn_clock::now(), must_close }
}

/// Completes the head of a response, after plugins have run.
fn finish_response(cx: &mut RequestContext<'_>, pending: PendingResponse) -> Response<BodySource> {
    let PendingResponse { mut response, source, began_at, must_close } = pending;
    framing::fit_to_status(&mut response, cx.error_format.is_head());
    if response.body().may_have_trailers() {
        cx.record.trailers = ResponseTrailerPolicy::new(cx, &mut response);
    }
    trailer_header::remove_unaccepted(cx, &mut response, source);
    product_headers::set_response_headers(cx, &mut response, source, began_at);
    let record = &mut *cx.record;
    record.status = Some(response.status());
    if cx.version >= Version::HTTP_2 {
        // There is no field to close the connection, which ends with GOAWAY.
        hpack::set_date(response.headers_mut());
        hpack::mark_changing_values(response.headers_mut());
    } else if must_close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(heads) = &mut record.heads {
        heads.response.clone_from(response.headers());
    }
    let activity = &record.peer.activity;
    // Plugins that ran or waited in between have refreshed the time of the turn.
    let now = if record.plugin_run.is_some() { turn_clock::now() } else { began_at };
    activity.enter_phase(ActivityPhase::SendingResponse, now);
    activity.response_deadline.set(record.deadline.as_ref().map(|deadline| deadline.sleep.deadline()));
    response
}

/// Attaches the record to the response. The record is finished with the response body, or with the tunnel that follows.
fn attach_record(
    response: Response<BodySource>,
    mut record: RequestRecord,
    version: Version,
) -> Response<ResponseBody> {
    let (head, source) = response.into_parts();
    let BodySource::Upgraded(upgrade, endpoint) = source else {
        return Response::from_parts(head, ResponseBody::new(source, record, version));
    };
    // The timeouts that the rule sets for a response do not apply to an upgraded connection.
    record.deadline = None;
    let mut response = Response::from_parts(head, ResponseBody::for_tunnel());
    upgrade.accept(&mut response);
    record.status = Some(response.status());
    (*upgrade).start_tunnel(endpoint, record);
    response
}
