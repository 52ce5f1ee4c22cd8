//! Traces of all requests, with the attributes of OpenTelemetry's conventions for HTTP.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::stats::RequestSeries;
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome, AuthorizationCall};
use crate::plugin_api::masking::{LogMask, MaskedAccessField};
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::timing::PhaseTiming;
use crate::plugin_api::trace::attempts::{RequestClock, attempt_error, attempt_spans, authorization_span};
use crate::plugin_api::trace::otlp::{OtlpResource, encode_spans};
use crate::plugin_api::trace::{
    InjectedFormat, Propagation, RequestTrace, Sampling, SamplingStrategy, Span, SpanEvent, SpanId, SpanKind,
    TraceFormat,
};
use crate::turn_clock;

/// Records requests and sends their spans to a server.
pub struct RequestTracer {
    propagation: Propagation,
    /// The part of the requests that is recorded.
    rate: f64,
    late: LateRecording,
    resource: OtlpResource,
    queue: Arc<BatchQueue>,
}

/// Which requests are recorded although the rate, or the client, has not selected them: a decision at their end.
#[derive(Debug, Default)]
pub struct LateRecording {
    /// Those with a status of 500 or above, and calls of gRPC that Portico has ended with an error.
    pub errors: bool,
    /// Those that have taken at least this time.
    pub slow: Option<Duration>,
    /// The current second since `started_at`, and how many requests were recorded in it.
    recorded: AtomicU64,
    started_at: OnceLock<Instant>,
}

/// What is kept of a request for its spans.
#[derive(Debug)]
pub(in crate::proxy) struct TracedRequest {
    pub(in crate::proxy) context: RequestTrace,
    /// Only of requests that are recorded, or may be at their end.
    head: Option<TracedHead>,
    /// When the head was complete.
    received_at: Instant,
    /// When the rule was found, or it was clear that there is none.
    routed_at: Option<Instant>,
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
    /// The version of TLS, such as `TLSv1.3`.
    pub(in crate::proxy) tls: Option<&'static str>,
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) error: Option<&'static str>,
    pub(in crate::proxy) request_id: &'r HeaderValue,
    pub(in crate::proxy) attempts: &'r [Attempt],
    /// In order: that of the rule, then that of the backend.
    pub(in crate::proxy) authorizations: &'r [AuthorizationCall],
    /// When the last byte of the body of the request arrived. `None` if it has none, or was not read to its end.
    pub(in crate::proxy) body_ended_at: Option<Instant>,
    /// Bytes of the body of the response.
    pub(in crate::proxy) bytes_out: u64,
    /// Those of the plugins of the route.
    pub(in crate::proxy) masks: &'r [Arc<LogMask>],
    pub(in crate::proxy) series: &'r RequestSeries,
}

/// The facts of a connection or UDP session that has ended.
pub(in crate::proxy) struct EndedStream<'r> {
    /// `TCP`, `TLS` or `UDP`.
    pub(in crate::proxy) protocol: &'static str,
    pub(in crate::proxy) opened_at: Instant,
    pub(in crate::proxy) duration: Duration,
    pub(in crate::proxy) client: SocketAddr,
    pub(in crate::proxy) server_name: Option<&'r str>,
    /// The endpoint that was last tried.
    pub(in crate::proxy) endpoint: Option<SocketAddr>,
    /// The time until an endpoint was connected.
    pub(in crate::proxy) connect: Option<Duration>,
    pub(in crate::proxy) bytes_in: u64,
    pub(in crate::proxy) bytes_out: u64,
    pub(in crate::proxy) error: Option<&'static str>,
    pub(in crate::proxy) series: &'r RequestSeries,
}

impl EndedRequest<'_> {
    /// The value without what the masks cover, as in the access log.
    fn masked<'t>(&self, field: MaskedAccessField, value: Cow<'t, str>) -> Cow<'t, str> {
        self.masks.iter().fold(value, |value, mask| mask.mask_access_field(field, value))
    }
}

impl RequestTracer {
    /// `formats`: those that are read, in this order. The first one is written if a request has none.
    pub fn new(
        rate: f64,
        late: LateRecording,
        formats: &[TraceFormat],
        resource: OtlpResource,
        queue: Arc<BatchQueue>,
    ) -> Self {
        let propagation = Propagation {
            extract: formats.into(),
            clear: Box::new([]),
            inject: Box::new([InjectedFormat::Preserve]),
            default_format: formats.first().copied().unwrap_or(TraceFormat::W3c),
        };
        RequestTracer { propagation, rate, late, resource, queue }
    }

    /// The trace of a request. Only trusted peers may decide that it is recorded.
    pub(in crate::proxy) fn begin<B>(&self, request: &Request<B>, is_peer_trusted: bool) -> Box<TracedRequest> {
        let parent = self.propagation.extract(request.headers());
        let strategy = if is_peer_trusted { SamplingStrategy::Parent } else { SamplingStrategy::ParentDrop };
        let sampling = Sampling { rate: self.rate, strategy };
        let is_sampled = sampling.decide(parent.and_then(|parent| parent.is_sampled));
        let may_be_recorded = is_sampled || self.late.is_active();
        let head = may_be_recorded.then(|| TracedHead {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: host(request),
            user_agent: request.headers().get(USER_AGENT).cloned(),
        });
        Box::new(TracedRequest {
            context: RequestTrace::new(parent, is_sampled, false),
            head,
            received_at: turn_clock::now(),
            routed_at: None,
        })
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
        let reason =
            if traced.context.is_sampled { None } else { self.late.reason(ended.status, ended.error, ended.duration) };
        if !traced.context.is_sampled && reason.is_none() {
            return;
        }
        let mut spans = spans(traced, head, ended, plugins);
        if let Some(reason) = reason {
            spans[0].attribute("portico.recorded_because", reason);
        }
        self.queue.push(encode_spans(&self.resource, SCOPE, &spans));
    }
}

impl RequestTracer {
    /// Adds the spans of a connection or UDP session that has ended to the queue, if it is recorded. It carries no
    /// context, so the decision is made here. Returns its trace if it is recorded.
    pub(in crate::proxy) fn end_stream(&self, ended: &EndedStream<'_>) -> Option<RequestTrace> {
        let sampling = Sampling { rate: self.rate, strategy: SamplingStrategy::ParentDrop };
        let is_sampled = sampling.decide(None);
        let is_late = !is_sampled && self.late.errors && ended.error.is_some() && self.late.has_room();
        if !is_sampled && !is_late {
            return None;
        }
        let trace = RequestTrace::new(None, true, false);
        let mut spans = stream_spans(&trace, ended);
        if is_late {
            spans[0].attribute("portico.recorded_because", "error");
        }
        self.queue.push(encode_spans(&self.resource, SCOPE, &spans));
        Some(trace)
    }
}

/// The span of a connection or UDP session, and that of connecting to its endpoint.
fn stream_spans(context: &RequestTrace, ended: &EndedStream<'_>) -> Vec<Span> {
    let clock = RequestClock::new(SystemTime::now() - ended.duration, ended.opened_at);
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

impl TracedRequest {
    /// Whether spans of the request are or may be sent.
    pub(in crate::proxy) fn may_be_recorded(&self) -> bool {
        self.head.is_some()
    }

    /// The rule was found, or there is none.
    pub(in crate::proxy) fn end_routing(&mut self) {
        if self.may_be_recorded() {
            // The clock of the turn stands still while a request is routed.
            self.routed_at = Some(Instant::now());
        }
    }
}

impl LateRecording {
    pub fn new(errors: bool, slow: Option<Duration>) -> Self {
        LateRecording { errors, slow, ..LateRecording::default() }
    }

    fn is_active(&self) -> bool {
        self.errors || self.slow.is_some()
    }

    /// Why a request is recorded at its end. `None` if it is not, or if there were too many in this second.
    fn reason(&self, status: StatusCode, error: Option<&str>, duration: Duration) -> Option<&'static str> {
        // Errors of calls of gRPC have status 200, and those of clients are no failures.
        let has_failed = status.is_server_error() || (error.is_some() && !status.is_client_error());
        let is_error = self.errors && has_failed;
        let is_slow = self.slow.is_some_and(|limit| duration >= limit);
        let reason = if is_error { "error" } else { "slow" };
        ((is_error || is_slow) && self.has_room()).then_some(reason)
    }

    /// Takes one of the places of this second.
    fn has_room(&self) -> bool {
        let second = self.started_at.get_or_init(turn_clock::now).elapsed().as_secs();
        let take = |recorded: u64| {
            let (last, count) = (recorded >> 32, recorded & u64::from(u32::MAX));
            let count = if last == second { count } else { 0 };
            (count < MAX_LATE_PER_SECOND).then_some((second << 32) | (count + 1))
        };
        self.recorded.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

fn spans(
    traced: &TracedRequest,
    head: &TracedHead,
    ended: &EndedRequest<'_>,
    plugins: impl Iterator<Item = PhaseTiming>,
) -> Vec<Span> {
    let context = &traced.context;
    let clock = RequestClock::new(SystemTime::now() - ended.duration, ended.started_instant);
    let method = known_method(&head.method);
    let mut spans = vec![server_span(context, head, ended, clock)];
    spans.extend(phase_spans(traced, ended, clock));
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
        spans.push(authorization_span(context, authorization, clock.after(ended.duration), clock));
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
fn phase_spans(traced: &TracedRequest, ended: &EndedRequest<'_>, clock: RequestClock) -> impl Iterator<Item = Span> {
    let context = &traced.context;
    let end = ended.started_instant + ended.duration;
    let routing = traced.routed_at.map(|routed_at| ("routing", traced.received_at, routed_at));
    let request_body = ended.body_ended_at.map(|ended_at| ("request body", traced.received_at, ended_at));
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
    span.attribute("network.protocol.version", protocol_version(head.version));
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

/// The most requests of a process in a second that are recorded only because of their end.
const MAX_LATE_PER_SECOND: u64 = 100;
/// The name of the instrumentation.
const SCOPE: &str = "portico";

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of these requests, with its status, error and seconds, is recorded, and why.
    fn reasons(late: &LateRecording, requests: &[(u16, Option<&'static str>, u64)]) -> Vec<Option<&'static str>> {
        let reason = |&(status, error, seconds): &(u16, Option<&'static str>, u64)| {
            late.reason(StatusCode::from_u16(status).unwrap(), error, Duration::from_secs(seconds))
        };
        requests.iter().map(reason).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_recorded_because_of_their_end() {
        let requests = [
            (200, None, 0),
            (404, Some("no_route"), 2),
            (500, None, 0),
            (200, Some("timeout"), 0),
            (499, Some("client_disconnected"), 3),
        ];
        let (error, slow) = (Some("error"), Some("slow"));
        for (late, expected) in [
            (LateRecording::default(), [None; 5]),
            (LateRecording::new(true, None), [None, None, error, error, None]),
            (LateRecording::new(false, Some(Duration::from_secs(2))), [None, slow, None, None, slow]),
            (LateRecording::new(true, Some(Duration::from_secs(2))), [None, slow, error, error, slow]),
        ] {
            assert_eq!(reasons(&late, &requests), expected, "{late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_has_a_bound() {
        let late = LateRecording::new(true, None);
        let failed = [(500, None, 0); 150];
        for _ in 0..2 {
            assert_eq!(reasons(&late, &failed).iter().flatten().count(), 100);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}
