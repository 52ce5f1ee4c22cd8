//! Traces of all requests, with the attributes of OpenTelemetry's conventions for HTTP.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::stats::RequestSeries;
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome};
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::timing::PhaseTiming;
use crate::plugin_api::trace::attempts::{RequestClock, attempt_error, attempt_spans};
use crate::plugin_api::trace::otlp::{OtlpResource, encode_spans};
use crate::plugin_api::trace::{
    InjectedFormat, Propagation, RequestTrace, Sampling, SamplingStrategy, Span, SpanId, SpanKind, TraceFormat,
};

/// Records requests and sends their spans to a server.
pub struct RequestTracer {
    propagation: Propagation,
    /// The part of the requests that is recorded.
    rate: f64,
    resource: OtlpResource,
    queue: Arc<BatchQueue>,
}

/// What is kept of a request for its spans.
#[derive(Debug)]
pub(in crate::proxy) struct TracedRequest {
    pub(in crate::proxy) context: RequestTrace,
    /// Only of requests that are recorded.
    head: Option<TracedHead>,
}

#[derive(Debug)]
struct TracedHead {
    method: Method,
    target: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

/// The facts of a request that has ended.
pub(in crate::proxy) struct EndedRequest<'r> {
    pub(in crate::proxy) started_instant: Instant,
    pub(in crate::proxy) duration: Duration,
    pub(in crate::proxy) client: IpAddr,
    pub(in crate::proxy) is_tls: bool,
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) error: Option<&'static str>,
    pub(in crate::proxy) request_id: &'r HeaderValue,
    pub(in crate::proxy) attempts: &'r [Attempt],
    pub(in crate::proxy) series: &'r RequestSeries,
}

impl RequestTracer {
    /// `formats`: those that are read, in this order. The first one is written if a request has none.
    pub fn new(rate: f64, formats: &[TraceFormat], resource: OtlpResource, queue: Arc<BatchQueue>) -> Self {
        let propagation = Propagation {
            extract: formats.into(),
            clear: Box::new([]),
            inject: Box::new([InjectedFormat::Preserve]),
            default_format: formats.first().copied().unwrap_or(TraceFormat::W3c),
        };
        RequestTracer { propagation, rate, resource, queue }
    }

    /// The trace of a request. Only trusted peers may decide that it is recorded.
    pub(in crate::proxy) fn begin<B>(&self, request: &Request<B>, is_peer_trusted: bool) -> Box<TracedRequest> {
        let parent = self.propagation.extract(request.headers());
        let strategy = if is_peer_trusted { SamplingStrategy::Parent } else { SamplingStrategy::ParentDrop };
        let sampling = Sampling { rate: self.rate, strategy };
        let is_sampled = sampling.decide(parent.and_then(|parent| parent.is_sampled));
        let head = is_sampled.then(|| TracedHead {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: host(request),
            user_agent: request.headers().get(USER_AGENT).cloned(),
        });
        Box::new(TracedRequest { context: RequestTrace::new(parent, is_sampled, false), head })
    }

    /// Writes the context of the trace for the endpoint.
    pub(in crate::proxy) fn inject(&self, traced: &TracedRequest, headers: &mut HeaderMap) {
        self.propagation.inject(&traced.context, headers);
    }

    /// Adds the spans of a request that has ended to the queue, if it is recorded.
    pub(in crate::proxy) fn end(
        &self,
        traced: &TracedRequest,
        ended: &EndedRequest<'_>,
        plugins: impl Iterator<Item = PhaseTiming>,
    ) {
        let Some(head) = &traced.head else { return };
        let spans = spans(&traced.context, head, ended, plugins);
        self.queue.push(encode_spans(&self.resource, SCOPE, &spans));
    }
}

fn spans(
    context: &RequestTrace,
    head: &TracedHead,
    ended: &EndedRequest<'_>,
    plugins: impl Iterator<Item = PhaseTiming>,
) -> Vec<Span> {
    let clock = RequestClock::new(SystemTime::now() - ended.duration, ended.started_instant);
    let method = known_method(&head.method);
    let mut spans = vec![server_span(context, head, ended, clock)];
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
    for (index, attempt, mut span) in attempt_spans(ended.attempts, context, context.server_span, true, clock) {
        span.name = Cow::Borrowed(method.unwrap_or("HTTP"));
        span.attribute("http.request.method", method.unwrap_or("_OTHER"));
        span.attribute("server.address", attempt.endpoint.ip());
        span.attribute("server.port", attempt.endpoint.port());
        span.attribute("network.peer.address", attempt.endpoint.ip());
        span.attribute("network.peer.port", attempt.endpoint.port());
        if index > 0 {
            span.attribute("http.request.resend_count", index as u64);
        }
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

fn server_span(context: &RequestTrace, head: &TracedHead, ended: &EndedRequest<'_>, clock: RequestClock) -> Span {
    let method = known_method(&head.method);
    let is_failure = ended.status.is_server_error();
    let mut span = Span {
        trace: context.trace,
        id: context.server_span,
        parent: context.parent,
        name: Cow::Borrowed(method.unwrap_or("HTTP")),
        kind: SpanKind::Server,
        start: clock.start(),
        end: clock.after(ended.duration),
        attributes: Vec::new(),
        events: Vec::new(),
        error: is_failure.then(|| Cow::Borrowed(ended.error.unwrap_or_default())),
    };
    span.attribute("http.request.method", method.unwrap_or("_OTHER"));
    if method.is_none() {
        span.attribute("http.request.method_original", shorten(head.method.as_str()));
    }
    span.attribute("url.scheme", if ended.is_tls { "https" } else { "http" });
    // Without the query, which may contain credentials.
    span.attribute("url.path", shorten(head.target.path()));
    if let Some(host) = &head.host {
        span.attribute("server.address", shorten(&String::from_utf8_lossy(host.as_bytes())));
    }
    span.attribute("network.protocol.version", protocol_version(head.version));
    span.attribute("client.address", ended.client);
    if let Some(agent) = &head.user_agent {
        span.attribute("user_agent.original", shorten(&String::from_utf8_lossy(agent.as_bytes())));
    }
    span.attribute("http.response.status_code", ended.status.as_u16());
    match ended.error {
        Some(reason) => span.attribute("error.type", reason),
        None if is_failure => span.attribute("error.type", ended.status.as_str()),
        None => {}
    }
    span.attribute("portico.request_id", String::from_utf8_lossy(ended.request_id.as_bytes()));
    let labels = &ended.series.labels;
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
    span
}

/// The host of the target, or else of the field. A target with a user may contain a password, so it is not used.
fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let of_target = authority.filter(|text| !text.contains('@')).and_then(|text| HeaderValue::try_from(text).ok());
    of_target.or_else(|| request.headers().get(HOST).cloned())
}

/// The name of a method of the conventions. Others could be as many as clients like.
fn known_method(method: &Method) -> Option<&'static str> {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    known.into_iter().find(|name| *name == method.as_str())
}

fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

impl std::fmt::Debug for RequestTracer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RequestTracer").field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// The name of the instrumentation.
const SCOPE: &str = "portico";
