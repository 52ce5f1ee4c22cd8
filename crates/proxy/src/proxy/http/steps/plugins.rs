//! Runs the plugins of a rule in place of the backend, and on the response. `access_plugins.rs` runs them before.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use tokio::time::Instant;

use super::backend::{SelectedAction, WrittenTarget};
use super::background_request;
use super::client_info::client_info;
use super::early_exit::EarlyExit;
use super::error_response::ErrorFormat;
use super::order::RequestStep;
use super::plugin_run::{KeptBody, PluginRun, keep_headers_of_request};
use super::reply_budget::ReplyBudget;
use super::reply_response::reply_response;
use super::request_context::{RequestContext, RoutedRequest};
use super::request_record::RequestRecord;
use super::response_filters;
use super::route_captures::RouteCaptures;
use crate::plugin_api::context::{BackgroundPlaces, BackgroundSlot};
use crate::plugin_api::{BodyBudget, Reply, ReplyBody, RespondedRequest, ResponseSource, ShownTarget};
use crate::plugin_chain::chain::{
    AllowedRequest, ChainResponse, ChainState, ForwardingOutcome, ReplacedRequest, SelectedReplacement,
};
use crate::proxy::http::exchange::activity::until_timed_out;
use crate::proxy::http::exchange::body_source::BodySource;
use crate::proxy::http::exchange::filtered_body::FilteredBody;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;

/// Whether a plugin may respond to this request in place of the backend. Most requests need no future for that.
pub(in crate::proxy) fn may_stand_in_for_backend(cx: &RequestContext<'_>) -> bool {
    cx.record.plugin_run.as_ref().is_some_and(|run| run.chain.may_stand_in_for_backend(&run.state))
}

/// Whether a plugin has the phase `before_forward` for this request.
pub(in crate::proxy) fn runs_before_forward(cx: &RequestContext<'_>) -> bool {
    cx.record.plugin_run.as_ref().is_some_and(|run| run.chain.runs_before_forward(&run.state))
}

/// The plugin that takes the place of the backend of this request.
pub(in crate::proxy) fn replacement(cx: &RequestContext<'_>) -> Option<SelectedReplacement> {
    cx.record.plugin_run.as_ref().and_then(|run| run.chain.replacement(&run.state))
}

/// Runs the plugins that may respond in place of the backend. Ends the request if one of them replies.
pub(in crate::proxy) async fn run_before_forward(
    cx: &mut RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    action: SelectedAction<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(), EarlyExit> {
    let RequestRecord { exchange, client, facts, plugin_run, .. } = &mut *cx.record;
    let Some(run) = plugin_run else { return Ok(()) };
    let client = client_info(exchange, client, routed);
    let taken = std::mem::replace(request, Request::new(RequestBody::empty(exchange)));
    let (mut head, body) = taken.into_parts();
    let whole_body = body.is_fully_read().then(|| body.buffered());
    let mut background = BackgroundSlot::default();
    let reply = {
        let allowed = AllowedRequest {
            head: &mut head,
            has_body: !body.is_end_stream(),
            body: whole_body.as_ref(),
            is_upgrade: routed.upgrade.is_some(),
            hops: routed.hops,
            path: routed.path.path(),
            query: routed.path.query(),
            client,
            id: &facts.request_id,
            now: SystemTime::now(),
            background_places: BackgroundPlaces {
                limit: exchange.http.background_sender.background_limit(),
                namespace: routed.rule.id.namespace(),
            },
            background: &mut background,
        };
        let reply = pin!(run.chain.before_forward(allowed, &mut run.state));
        until_timed_out(&exchange.activity, reply).await.ok_or(RequestError::PluginTimeout)?
    };
    *request = Request::from_parts(head, body);
    let Some(reply) = reply else { return Ok(()) };
    if let BackgroundSlot { place: Some(place), request: Some(background) } = background {
        background_request::send(cx, routed, action, background, place);
    }
    Err(EarlyExit::StandIn(reply))
}

/// Runs the plugin that takes the place of the backend, which always replies. The filters have changed the request, and
/// have written these parts of its target.
pub(in crate::proxy) async fn replace_backend(
    cx: &mut RequestContext<'_>,
    routed: &RoutedRequest<'_>,
    action: SelectedAction<'_>,
    replacement: SelectedReplacement,
    request: &mut Request<RequestBody>,
    written: WrittenTarget,
) -> Result<Box<Reply>, RequestError> {
    let RequestRecord { exchange, client, facts, plugin_run, .. } = &mut *cx.record;
    let run = plugin_run.as_mut().expect("the run of the plugins has selected the replacement");
    let client = client_info(exchange, client, routed);
    let taken = std::mem::replace(request, Request::new(RequestBody::empty(exchange)));
    let (head, body) = taken.into_parts();
    let whole_body = body.is_fully_read().then(|| body.buffered());
    let budget = ReplyBudget::new(exchange, routed.rule.id.namespace());
    let mut kept = Vec::new();
    let reply = {
        let written_host = head.headers.get(HOST).filter(|_| written.host).and_then(|host| host.to_str().ok());
        let written_target = head.uri.path_and_query().filter(|_| written.path);
        let replaced = ReplacedRequest {
            head: &head,
            target: ShownTarget {
                path: written_target.map_or(routed.path.path(), PathAndQuery::path),
                raw: written_target.map_or(routed.path.raw(), PathAndQuery::as_str),
                query: routed.path.query(),
                host: written_host.unwrap_or(client.received.host),
            },
            uri_captures: &RouteCaptures::new(routed.matched, routed.path.path()),
            client,
            id: &facts.request_id,
            now: SystemTime::now(),
            has_body: !body.is_end_stream(),
            body: whole_body.as_ref(),
            is_upgrade: routed.upgrade.is_some(),
            hops: routed.hops,
            backend: &action,
            body_budget: &budget,
            kept: &mut kept,
        };
        let reply = pin!(run.chain.replace_backend(replacement, replaced, &mut run.state));
        until_timed_out(&exchange.activity, reply).await.ok_or(RequestError::PluginTimeout)?
    };
    *request = Request::from_parts(head, body);
    if budget.is_exceeded() {
        return Err(RequestError::BufferLimit);
    }
    // The response to HEAD has only the length of the body.
    if let ReplyBody::Collected(body) = &reply.body
        && !body.is_empty()
        && !cx.error_format.is_head()
    {
        // The body may be longer than what the plugin has collected.
        let mut rest = budget.begin();
        let collected = kept.iter().map(|kept| kept.bytes()).sum();
        rest.grow(body.len().saturating_sub(collected)).await.map_err(|_| RequestError::BufferLimit)?;
        kept.push(rest);
        if let Some(run) = &mut cx.record.plugin_run {
            run.kept_body.add_all(kept);
            cx.record.exchange.activity.keeps_body.set(true);
        }
    }
    Ok(reply)
}

/// Runs `after_forward` of the plugins that ran before the request was forwarded, on the response of the endpoint or
/// its error. A plugin may stand in for it, or observe its body. Only if [`runs_before_forward`].
pub(in crate::proxy) fn run_after_forward(
    cx: &mut RequestContext<'_>,
    outcome: Result<Response<BodySource>, EarlyExit>,
) -> Result<Response<BodySource>, EarlyExit> {
    let Some(run) = &mut cx.record.plugin_run else { return outcome };
    let (no_headers, mut observers) = (HeaderMap::new(), Vec::new());
    let response = outcome.as_ref().ok();
    let (status, headers) = (response.map(Response::status), response.map_or(&no_headers, Response::headers));
    let forwarded = ForwardingOutcome { status, headers, now: SystemTime::now(), observers: &mut observers };
    if let Some(reply) = run.chain.after_forward(forwarded, &mut run.state) {
        if let Ok(former) = outcome
            && former.body().is_end_stream()
        {
            former.into_body().release();
        }
        return Err(EarlyExit::StandIn(reply));
    }
    let mut response = outcome?;
    for mut observer in observers {
        if response.body().is_end_stream() {
            // A body without bytes may never be polled.
            observer.end();
        } else {
            response = response.map(|body| FilteredBody::streaming(body, observer));
        }
    }
    Ok(response)
}

/// Attaches the plugins that run for responses without a rule, if the request ended before it had one.
pub(in crate::proxy) fn attach_unmatched(cx: &mut RequestContext<'_>) {
    if cx.record.plugin_run.is_some() || cx.rule.is_some() {
        return;
    }
    let Some(chain) = &cx.view.snapshot.unmatched_plugins else { return };
    cx.record.plugin_run = Some(Box::new(PluginRun {
        chain: Arc::clone(chain),
        state: ChainState::default(),
        responded_at: None,
        source: ResponseSource::Proxy,
        request_line: cx.request_line.take(),
        kept_body: KeptBody::default(),
        kept_encoders: Vec::new(),
    }));
}

/// Runs the response phase of the plugins, and the filters of the body that they add. The response is changed in place,
/// so that the future of a request does not contain several copies of it.
pub(in crate::proxy) async fn run_response(
    cx: &mut RequestContext<'_>,
    response: &mut Response<BodySource>,
    source: &mut ResponseSource,
    now: Instant,
) {
    let record = &mut *cx.record;
    let Some(run) = &mut record.plugin_run else { return };
    run.responded_at = Some(now);
    run.source = *source;
    if !run.chain.may_change_response(&run.state) {
        run.state.apply_response_headers(response.headers_mut());
        return;
    }
    // The response to a request that has already timed out is sent as it is.
    let was_timed_out = record.exchange.activity.timed_out.get();
    let outcome = {
        let phase =
            pin!(run.run_phase(response, *source, &cx.error_format, &record.facts.request_id, &mut record.facts.error));
        until_timed_out(&record.exchange.activity, phase).await
    };
    match outcome {
        Some(new_source) => *source = new_source,
        None if was_timed_out => {}
        None => {
            run.state.body_filters.clear();
            let mut former = std::mem::take(response.headers_mut());
            *response = EarlyExit::Error(RequestError::PluginTimeout).into_response(cx);
            *source = ResponseSource::Proxy;
            if let Some(run) = &cx.record.plugin_run {
                run.keep_headers(&mut former, response.headers_mut());
            }
        }
    }
    let Some(run) = &mut cx.record.plugin_run else { return };
    run.source = *source;
    let filters = std::mem::take(&mut run.state.body_filters);
    if filters.is_empty() {
        return;
    }
    cx.enter(RequestStep::BodyFilters);
    // Boxed, so that the future of requests without body filters stays small.
    Box::pin(response_filters::apply(cx, response, source, filters)).await;
    if let Some(run) = &mut cx.record.plugin_run {
        run.source = *source;
    }
}

/// The headers of a response while plugins have them, apart from its body. Returns them when dropped.
struct HeadGuard<'r> {
    headers: HeaderMap,
    response: &'r mut Response<BodySource>,
}

impl Drop for HeadGuard<'_> {
    fn drop(&mut self) {
        *self.response.headers_mut() = std::mem::take(&mut self.headers);
    }
}

impl PluginRun {
    /// Runs the response phase on the head of the response. Returns where the response comes from.
    async fn run_phase(
        &mut self,
        response: &mut Response<BodySource>,
        source: ResponseSource,
        error_format: &ErrorFormat,
        id: &HeaderValue,
        error: &mut Option<&'static str>,
    ) -> ResponseSource {
        let mut status = response.status();
        let reason = *error;
        // Puts the headers back, also if the phase is cut off.
        let mut head = HeadGuard { headers: std::mem::take(response.headers_mut()), response };
        let HeadGuard { headers, response } = &mut head;
        let mut replace = |reply: Reply, former: &HeaderMap| {
            *error = Some(reply.reason);
            let (mut parts, body) = reply_response(reply, error_format, id).into_parts();
            let former_body = std::mem::replace(response.body_mut(), body);
            if former_body.is_end_stream() {
                former_body.release();
            }
            keep_headers_of_request(former, &mut parts.headers);
            (parts.status, parts.headers)
        };
        let request = RespondedRequest {
            accept: error_format.accept(),
            is_call: error_format.is_call(),
            reason,
            line: self.request_line.as_deref(),
        };
        let chain_response = ChainResponse { status: &mut status, headers, source, id, request, replace: &mut replace };
        let source = self.chain.response(&mut self.state, chain_response).await;
        if !matches!(head.response.body(), BodySource::Upgraded(..)) {
            *head.response.status_mut() = status;
        }
        source
    }
}
