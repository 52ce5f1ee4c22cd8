//! The spans of a request, of a connection and of a UDP session, with the attributes of OpenTelemetry's conventions.

use std::borrow::Cow;
use std::time::Duration;

use http::Method;

use super::{EndedRequest, EndedStream, TracedHead};
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome};
use crate::plugin_api::http_version::version_number;
use crate::plugin_api::masking::MaskedAccessField;
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::timing::PhaseTiming;
use crate::plugin_api::trace::attempts::{RequestClock, attempt_error, attempt_spans, authorization_span};
use crate::plugin_api::trace::{RequestTrace, Span, SpanEvent, SpanId, SpanKind};
use crate::proxy::telemetry::stats::RequestSeries;

/// The span of a request comes first.
pub(super) fn request_spans(
    context: &RequestTrace,
    head: &TracedHead,
    ended: &EndedRequest<'_>,
    plugins: impl Iterator<Item = PhaseTiming>,
) -> Vec<Span> {
    let clock = RequestClock::ended(ended.started_instant, ended.duration);
    let method = known_method(&head.method);
    let mut spans = vec![server_span(context, head, ended, clock)];
    spans.extend(phase_spans(context, head, ended, clock));
    for timing in plugins {
        spans.push(Span {
            trace: context.trace,
            id: SpanId::random(),
            parent: Some(context.server_span),
            name: Cow::Owned(format!("plugin {} {}", timing.plugin, timing.phase.as_str())),
            kind: SpanKind::Internal,
            start: clock.at(timing.started_at),
            end: clock.at(timing.started_at + timing.duration),
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        });
    }
    for authorization in ended.authorizations {
        spans.push(authorization_span(context, authorization, clock));
    }
    for (index, attempt, mut span) in attempt_spans(ended.attempts, context, context.server_span, clock) {
        span.name = Cow::Borrowed(method.unwrap_or("HTTP"));
        span.attribute("http.request.method", method.unwrap_or("_OTHER"));
        span.attribute("server.address", attempt.endpoint.ip());
        span.attribute("server.port", attempt.endpoint.port());
        span.attribute("network.peer.address", attempt.endpoint.ip());
        span.attribute("network.peer.port", attempt.endpoint.port());
        if index > 0 {
            span.attribute("http.request.resend_count", index as u64);
        }
        add_moments(&mut span, attempt, clock);
        match attempt.outcome {
            AttemptOutcome::Status(status) => {
                span.attribute("http.response.status_code", status.as_u16());
                if status.is_client_error() || status.is_server_error() {
                    span.attribute("error.type", status.as_str());
                    span.error = Some(Cow::Borrowed(""));
                }
            }
            AttemptOutcome::Failed { .. } | AttemptOutcome::Unfinished => {
                span.attribute("error.type", attempt_error(attempt).unwrap_or_default());
            }
        }
        spans.push(span);
    }
    spans
}

/// The phases of the request that Portico spends itself or with its client: the choice of the rule, and both bodies.
fn phase_spans(
    context: &RequestTrace,
    head: &TracedHead,
    ended: &EndedRequest<'_>,
    clock: RequestClock,
) -> impl Iterator<Item = Span> {
    let end = ended.started_instant + ended.duration;
    let routing = Some(("routing", head.received_at, head.routed_at));
    let request_body = ended.body_ended_at.map(|ended_at| ("request body", head.received_at, ended_at));
    let response_head = ended.attempts.last().and_then(|last| Some(last.started_at + last.first_byte?));
    let response_body = response_head.filter(|_| ended.bytes_out > 0).map(|head| ("response body", head, end));
    [routing, request_body, response_body].into_iter().flatten().map(move |(name, start, end)| Span {
        trace: context.trace,
        id: SpanId::random(),
        parent: Some(context.server_span),
        name: Cow::Borrowed(name),
        kind: SpanKind::Internal,
        start: clock.at(start),
        end: clock.at(end),
        attributes: Vec::new(),
        events: Vec::new(),
        error: None,
    })
}

/// When the endpoint was connected, when TLS was established, and when the head of its response arrived.
fn add_moments(span: &mut Span, attempt: &Attempt, clock: RequestClock) {
    let mut add = |name: &'static str, after: Duration| {
        span.events.push(SpanEvent { time: clock.at(attempt.started_at + after), name: Cow::Borrowed(name) });
    };
    if let Some(connect) = attempt.connect {
        add("connected", connect.saturating_sub(attempt.tls_handshake.unwrap_or_default()));
        if attempt.tls_handshake.is_some() {
            add("tls established", connect);
        }
    }
    if let Some(first_byte) = attempt.first_byte {
        add("response head", first_byte);
    }
}

fn server_span(context: &RequestTrace, head: &TracedHead, ended: &EndedRequest<'_>, clock: RequestClock) -> Span {
    let method = known_method(&head.method);
    let is_failure = ended.status.is_server_error();
    let name = match &head.operation {
        Some(operation) => Cow::Owned(operation.to_string()),
        None => Cow::Borrowed(method.unwrap_or("HTTP")),
    };
    let mut span = Span {
        trace: context.trace,
        id: context.server_span,
        parent: context.parent,
        name,
        kind: SpanKind::Server,
        start: clock.start(),
        end: clock.end(),
        attributes: Vec::new(),
        events: Vec::new(),
        error: is_failure.then(|| Cow::Borrowed(ended.error.unwrap_or_default())),
    };
    span.attribute("http.request.method", method.unwrap_or("_OTHER"));
    if method.is_none() {
        span.attribute("http.request.method_original", shorten(head.method.as_str()));
    }
    span.attribute("url.scheme", if ended.tls.is_some() { "https" } else { "http" });
    if let Some(version) = ended.tls {
        span.attribute("tls.protocol.version", version.trim_start_matches("TLSv"));
    }
    // Without the query, which may contain credentials.
    let path = ended.masked(MaskedAccessField::Path, Cow::Borrowed(head.target.path()));
    span.attribute("url.path", shorten(&path));
    if let Some(host) = &head.host {
        let host = ended.masked(MaskedAccessField::Host, String::from_utf8_lossy(host.as_bytes()));
        span.attribute("server.address", shorten(&host));
    }
    span.attribute("network.protocol.version", version_number(head.version));
    span.attribute("client.address", ended.masked(MaskedAccessField::Client, ended.client.to_string().into()));
    if let Some(agent) = &head.user_agent {
        let agent = ended.masked(MaskedAccessField::UserAgent, String::from_utf8_lossy(agent.as_bytes()));
        span.attribute("user_agent.original", shorten(&agent));
    }
    span.attribute("http.response.status_code", ended.status.as_u16());
    match ended.error {
        Some(reason) => span.attribute("error.type", reason),
        None if is_failure => span.attribute("error.type", ended.status.as_str()),
        None => {}
    }
    span.attribute("portico.request_id", String::from_utf8_lossy(ended.request_id.as_bytes()));
    add_labels(&mut span, ended.series);
    span
}

/// The span of a connection or UDP session, and that of connecting to its endpoint.
pub(super) fn stream_spans(context: &RequestTrace, ended: &EndedStream<'_>) -> Vec<Span> {
    let clock = RequestClock::ended(ended.opened_at, ended.duration);
    let span = |id, parent, name: &'static str, kind, end| Span {
        trace: context.trace,
        id,
        parent,
        name: Cow::Borrowed(name),
        kind,
        start: clock.start(),
        end: clock.after(end),
        attributes: Vec::new(),
        events: Vec::new(),
        error: ended.error.map(Cow::Borrowed),
    };
    let mut session = span(context.server_span, None, ended.protocol, SpanKind::Server, ended.duration);
    session.attribute("network.transport", if ended.protocol == "UDP" { "udp" } else { "tcp" });
    session.attribute("client.address", ended.client.ip());
    session.attribute("client.port", ended.client.port());
    if let Some(name) = ended.server_name {
        session.attribute("server.address", shorten(name));
    }
    session.attribute("portico.bytes_from_client", ended.bytes_in);
    session.attribute("portico.bytes_from_endpoint", ended.bytes_out);
    if let Some(reason) = ended.error {
        session.attribute("error.type", reason);
    }
    add_labels(&mut session, ended.series);
    let mut spans = vec![session];
    if let Some(endpoint) = ended.endpoint {
        let end = ended.connect.unwrap_or(ended.duration);
        let mut connect = span(context.upstream_span, Some(context.server_span), "connect", SpanKind::Client, end);
        connect.attribute("network.peer.address", endpoint.ip());
        connect.attribute("network.peer.port", endpoint.port());
        // A failure after that is one of the session.
        connect.error = connect.error.filter(|_| ended.connect.is_none());
        spans.push(connect);
    }
    spans
}

fn add_labels(span: &mut Span, series: &RequestSeries) {
    let labels = &series.labels;
    let named = [
        ("portico.gateway", &labels.gateway),
        ("portico.listener", &labels.listener),
        ("portico.route", &labels.route),
        ("portico.rule", &labels.rule),
        ("portico.upstream", &labels.backend),
    ];
    for (name, label) in named.into_iter().filter(|(_, label)| !label.is_empty()) {
        span.attribute(name, &**label);
    }
}

/// The name of a method of the conventions. Others could be as many as clients like.
fn known_method(method: &Method) -> Option<&'static str> {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    known.into_iter().find(|name| *name == method.as_str())
}
