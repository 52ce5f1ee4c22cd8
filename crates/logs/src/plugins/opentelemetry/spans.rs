//! The spans of a request, with the names and attributes of Kong's plugin.

use std::borrow::Cow;

use crate::plugin_api::LogCx;
use crate::plugin_api::http_version::decimal_version;
use crate::plugin_api::timing::PluginPhase;
use crate::plugin_api::trace::attempts::{RequestClock, attempt_spans, attempt_status, authorization_span};
use crate::plugin_api::trace::{RequestTrace, Span, SpanId, SpanKind};
use crate::plugin_kit::log_entry::logged_url;

/// All spans of a request, that of the request first.
pub(super) fn request_spans(cx: &LogCx<'_>, context: &RequestTrace) -> Vec<Span> {
    let clock = cx.clock();
    let mut spans = vec![root_span(cx, context, clock)];
    for timing in cx.timings.all() {
        let phase = match timing.phase {
            PluginPhase::Access | PluginPhase::BeforeForward => "access",
            PluginPhase::Response => "header_filter",
            PluginPhase::Body => "body_filter",
        };
        spans.push(Span {
            trace: context.trace,
            id: SpanId::random(),
            parent: Some(context.server_span),
            name: Cow::Owned(format!("kong.{phase}.plugin.{}", timing.plugin)),
            kind: SpanKind::Internal,
            start: clock.at(timing.started_at),
            end: clock.at(timing.started_at + timing.duration),
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        });
    }
    for call in cx.request.authorizations {
        spans.push(authorization_span(context, call, clock));
    }
    for (index, attempt, mut span) in attempt_spans(cx.request.attempts, context, context.server_span, clock) {
        span.name = Cow::Borrowed("kong.balancer");
        span.attribute("try_count", index as u64 + 1);
        span.attribute("net.peer.ip", attempt.endpoint.ip());
        span.attribute("net.peer.port", attempt.endpoint.port());
        if let Some(status) = attempt_status(attempt) {
            span.attribute("http.status_code", status);
        }
        spans.push(span);
    }
    spans
}

fn root_span(cx: &LogCx<'_>, context: &RequestTrace, clock: RequestClock) -> Span {
    let status = cx.summary.status;
    let error = cx.request.error.map(Cow::Borrowed);
    let mut span = Span {
        trace: context.trace,
        id: context.server_span,
        parent: context.parent,
        name: Cow::Borrowed("kong"),
        kind: SpanKind::Server,
        start: clock.start(),
        end: clock.end(),
        attributes: Vec::new(),
        events: Vec::new(),
        error: error.or_else(|| status.is_server_error().then_some(Cow::Borrowed(""))),
    };
    if let Some(heads) = cx.request.heads {
        span.attribute("http.method", heads.method.as_str());
        span.attribute("http.url", logged_url(heads, cx.request.credentials));
        span.attribute("http.host", String::from_utf8_lossy(heads.host.as_bytes()));
        span.attribute("http.scheme", heads.scheme.as_str());
        span.attribute("http.flavor", decimal_version(heads.version));
        span.attribute("http.client_ip", heads.client);
        span.attribute("net.peer.ip", heads.client);
    }
    span.attribute("http.route", &*cx.names.route);
    span.attribute("http.status_code", status.as_u16());
    span.attribute("kong.request.id", String::from_utf8_lossy(cx.request.id.as_bytes()));
    if let Some(consumer) = &cx.identity.consumer {
        span.attribute("kong.consumer", &**consumer.reported_id());
    }
    span
}
