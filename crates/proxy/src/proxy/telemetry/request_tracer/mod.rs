//! Traces of all requests, with the attributes of OpenTelemetry's conventions for HTTP.
//!
//! ```text
//!   routed request ─▶ TraceSelection ─▶ RequestTracing ─▶ fields of the endpoint
//!                                          └ at the end: spans.rs ─▶ BatchQueue
//! ```
//!
//! A request that is not recorded costs the decision, and the fields for its endpoint: mostly a [`BegunTrace`], whose
//! field is written with the head of the request.

mod selection;
mod spans;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use tokio::time::Instant;

pub use self::selection::{HeaderSelection, LateRecording, TraceSelection};
use self::spans::{request_spans, stream_spans};
use super::access_log::host_name;
use super::stats::RequestSeries;
use crate::access_log_syntax::LineFacts;
use crate::begun_trace::BegunTrace;
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::completed_request::{Attempt, AuthorizationCall};
use crate::plugin_api::http_version::protocol_name;
use crate::plugin_api::masking::{LogMask, MaskedAccessField};
use crate::plugin_api::otlp_messages::spans_and_logs::{OtlpResource, encode_spans};
use crate::plugin_api::timing::PhaseTiming;
use crate::plugin_api::trace::{Propagation, RandomIds, RequestTrace, TraceFormat};
use crate::snapshot::HttpListener;
use crate::snapshot::gateway_traces::{GatewayTraces, GatewayTracing};
use crate::snapshot::rule::RouteRule;
use crate::snapshot::rule_telemetry::RuleTracing;
use crate::turn_clock;

/// Records requests and sends their spans to a server.
pub struct RequestTracer {
    propagation: Propagation,
    selection: TraceSelection,
    resource: OtlpResource,
    queue: Arc<BatchQueue>,
}

/// What is known of the trace of a request.
#[derive(Debug, Default)]
pub(in crate::proxy) enum RequestTracing {
    /// There is no tracer, the request is not routed yet, or nothing of it is recorded or written.
    #[default]
    Off,
    /// The request is not recorded, and had no fields of a trace.
    Begun(BegunTrace),
    Kept(Box<TracedRequest>),
}

/// What is kept of a request for its spans.
#[derive(Debug)]
pub(in crate::proxy) struct TracedRequest {
    context: RequestTrace,
    /// Only of requests that are recorded, or may be at their end.
    head: Option<Box<TracedHead>>,
}

#[derive(Debug)]
struct TracedHead {
    method: Method,
    target: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// When the head was complete.
    received_at: Instant,
    /// When the rule was found, or it was clear that there is none.
    routed_at: Instant,
    is_by_header: bool,
    /// The name of the span in place of the method.
    operation: Option<Arc<str>>,
}

/// Where a request was routed to, which decides how it is traced.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct TracedPlace<'r> {
    pub(in crate::proxy) traces: &'r GatewayTraces,
    pub(in crate::proxy) listener: Option<&'r HttpListener>,
    pub(in crate::proxy) rule: Option<&'r RouteRule>,
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

impl<'r> TracedPlace<'r> {
    /// What the Gateway has set.
    fn own(&self) -> Option<&'r GatewayTracing> {
        self.traces.of(&self.listener?.gateway)
    }

    /// What the rule has set.
    fn of_rule(&self) -> Option<&'r RuleTracing> {
        Some(&self.rule?.options().telemetry.as_ref()?.tracing)
    }
}

impl RequestTracer {
    /// `formats`: those that are read, in this order. The first one is written if a request has none.
    pub fn new(
        selection: TraceSelection,
        formats: &[TraceFormat],
        resource: OtlpResource,
        queue: Arc<BatchQueue>,
    ) -> Self {
        RequestTracer { propagation: Propagation::preserving(formats), selection, resource, queue }
    }

    /// The trace of a request that was routed. `may_have_trace`: it may have fields of W3C Trace Context.
    pub(in crate::proxy) fn begin<B>(
        &self,
        request: &Request<B>,
        place: TracedPlace<'_>,
        is_peer_trusted: bool,
        may_have_trace: bool,
    ) -> RequestTracing {
        let own = place.own();
        let of_rule = place.of_rule();
        if of_rule.is_some_and(|tracing| tracing.is_off) {
            return RequestTracing::Off;
        }
        let propagation = self.propagation(own);
        let has_no_fields = propagation.is_only_w3c() && !(may_have_trace && has_trace(request.headers()));
        let begins_anew = has_no_fields || of_rule.is_some_and(|tracing| tracing.ignores_parent);
        let parent = if begins_anew { None } else { propagation.extract(request.headers()) };
        let host = OnceCell::new();
        let rate = self.selection.rate(own, || LineFacts {
            gateway: place.listener.map_or("", |listener| &listener.gateway),
            host: host.get_or_init(|| lower_case_host(request)),
            listener: place.listener.map_or("", |listener| &listener.name),
            method: request.method().as_str(),
            path: request.uri().path(),
            protocol: protocol_name(request.version()),
            route: place.rule.map_or("", |rule| &rule.id.route),
            ..LineFacts::default()
        });
        let parent_is_sampled = parent.and_then(|parent| parent.is_sampled);
        RandomIds::with(|random| {
            let selected = self.selection.decide(rate, parent_is_sampled, is_peer_trusted, request.headers(), random);
            let may_be_recorded = selected.is_sampled || self.selection.late.is_active();
            if !may_be_recorded {
                if has_no_fields {
                    return RequestTracing::Begun(BegunTrace::new(random.u64(), random.u64()));
                }
                if !propagation.has_fields() {
                    return RequestTracing::Off;
                }
            }
            let head = may_be_recorded.then(|| {
                let operation = of_rule.and_then(|tracing| tracing.operation.clone());
                Box::new(TracedHead::new(request, selected.is_by_header, operation))
            });
            let context = RequestTrace::with_random(parent, selected.is_sampled, false, random);
            RequestTracing::Kept(Box::new(TracedRequest { context, head }))
        })
    }

    /// Writes the context of the trace for the endpoint.
    pub(in crate::proxy) fn inject(&self, traced: &TracedRequest, place: TracedPlace<'_>, headers: &mut HeaderMap) {
        self.propagation(place.own()).inject(&traced.context, headers);
    }

    fn propagation<'t>(&'t self, own: Option<&'t GatewayTracing>) -> &'t Propagation {
        own.and_then(|own| own.propagation.as_ref()).unwrap_or(&self.propagation)
    }

    /// Adds the spans of a request that has ended to the queue, if it is recorded.
    pub(in crate::proxy) fn end(
        &self,
        traced: &TracedRequest,
        ended: &EndedRequest<'_>,
        plugins: impl Iterator<Item = PhaseTiming>,
    ) {
        let Some(head) = &traced.head else { return };
        let reason = if !traced.context.is_sampled {
            let reason = self.selection.late.reason(ended.status, ended.error, ended.duration);
            if reason.is_none() {
                return;
            }
            reason
        } else {
            head.is_by_header.then_some("header")
        };
        let mut spans = request_spans(&traced.context, head, ended, plugins);
        if let Some(reason) = reason {
            spans[0].attribute("portico.recorded_because", reason);
        }
        self.queue.push(encode_spans(&self.resource, SCOPE, &spans));
    }

    /// Adds the spans of a connection or UDP session that has ended to the queue, if it is recorded. It carries no
    /// context, so the decision is made here. Returns its trace if it is recorded.
    pub(in crate::proxy) fn end_stream(&self, traces: &GatewayTraces, ended: &EndedStream<'_>) -> Option<RequestTrace> {
        let labels = &ended.series.labels;
        let rate = self.selection.rate(traces.of(&labels.gateway), || LineFacts {
            gateway: &labels.gateway,
            host: ended.server_name.unwrap_or_default(),
            listener: &labels.listener,
            protocol: ended.protocol,
            route: &labels.route,
            ..LineFacts::default()
        });
        let decide =
            |random: &mut RandomIds| self.selection.decide(rate, None, false, &HeaderMap::new(), random).is_sampled;
        let is_selected = RandomIds::with(decide);
        let is_late = !is_selected && ended.error.is_some() && self.selection.late.takes_failed_stream();
        if !is_selected && !is_late {
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

impl RequestTracing {
    /// The context of the trace.
    pub(in crate::proxy) fn context(&self) -> Option<RequestTrace> {
        match self {
            RequestTracing::Off => None,
            RequestTracing::Begun(trace) => Some(RequestTrace::from(*trace)),
            RequestTracing::Kept(traced) => Some(traced.context),
        }
    }

    /// The context of the trace, if the request is recorded.
    pub(in crate::proxy) fn recorded(&self) -> Option<&RequestTrace> {
        match self {
            RequestTracing::Kept(traced) if traced.context.is_sampled => Some(&traced.context),
            _ => None,
        }
    }

    /// The request, if spans of it are or may be sent.
    pub(in crate::proxy) fn recordable(&self) -> Option<&TracedRequest> {
        match self {
            RequestTracing::Kept(traced) if traced.head.is_some() => Some(traced),
            _ => None,
        }
    }
}

impl TracedHead {
    fn new<B>(request: &Request<B>, is_by_header: bool, operation: Option<Arc<str>>) -> Self {
        TracedHead {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: host(request),
            user_agent: request.headers().get(USER_AGENT).cloned(),
            // The clock of the turn stands still while a request is routed.
            received_at: turn_clock::now(),
            routed_at: Instant::now(),
            is_by_header,
            operation,
        }
    }
}

/// Whether the header has fields of W3C Trace Context.
fn has_trace(headers: &HeaderMap) -> bool {
    TraceFormat::W3c.fields().iter().any(|name| headers.contains_key(name))
}

/// The host of the target, or else of the field. A target with a user may contain a password, so it is not used.
fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let of_target = authority.filter(|text| !text.contains('@')).and_then(|text| HeaderValue::try_from(text).ok());
    of_target.or_else(|| request.headers().get(HOST).cloned())
}

/// The name of the host for rules, which are written without ports.
fn lower_case_host<B>(request: &Request<B>) -> String {
    let host = host(request);
    host.as_ref().map_or(Cow::Borrowed(""), host_name).to_ascii_lowercase()
}

impl std::fmt::Debug for RequestTracer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RequestTracer").field("selection", &self.selection).finish_non_exhaustive()
    }
}

/// The name of the instrumentation.
const SCOPE: &str = "portico";
