//! `opentelemetry`: sends traces and logs of requests to a server by OpenTelemetry's protocol, OTLP.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: traces
//! plugin: opentelemetry
//! config:
//!   traces_endpoint: http://collector.monitoring.svc:4318/v1/traces
//!   resource_attributes: {service.name: shop-gateway}
//!   sampling_rate: 0.1
//! ```
//!
//! A request that is recorded has the span `kong`, with a span for each plugin in each phase, and a span
//! `kong.balancer` for each attempt to get a response from an endpoint. The endpoint gets the context of the trace in
//! header fields, whether or not the request is recorded; its parent is the span of its attempt.
//!
//! Requests never wait for the server. What is to be sent waits in a queue, which is limited by `queue` and, together
//! with the queues of all plugins, by `--max-queued-bytes`. A batch is sent again if the server does not respond, or
//! responds with 429, 502, 503 or 504, or with a code of gRPC that the specification of OTLP names; its `Retry-After`
//! or `RetryInfo` is respected up to `queue.max_retry_delay`. What a server rejects of a batch counts as dropped.
//!
//! Credentials in URLs are replaced by `REDACTED`. Logs are the objects of the plugin `http-log`, as JSON in the body
//! of a log record with the identifiers of the trace.

mod queue;
mod spans;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::otlp_delivery::{OtlpProtocol, OtlpSignal};
use crate::plugin_api::batch_queue::{BatchQueue, QueueConfig, QueueSettings};
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::otlp_messages::spans_and_logs::{OtlpResource, encode_log, encode_spans};
use crate::plugin_api::trace::{HeaderType, PropagationConfig, Sampling, SamplingStrategy, TraceFormat};
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, LogCx, Phases, Plugin, PluginKind, RequestCx, ResponseCx, ResponseOutcome,
    record,
};
use crate::plugin_kit::log_entry::LogEntry;
use crate::tracer::{ExportFormat, ExportServer, Tracer, check_rate, parse_response_header, sum_of_timeouts};

/// Sends traces and logs of requests by OTLP.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// URL to which traces are sent, with `http` or `https`, such as `http://collector.monitoring.svc:4318/v1/traces`.
    /// A host without dots is a Service in the namespace of the plugin.
    traces_endpoint: Option<String>,
    /// URL to which logs are sent, such as `http://collector.monitoring.svc:4318/v1/logs`. At least one of both URLs is
    /// required.
    logs_endpoint: Option<String>,
    /// The protocol: `http/protobuf`, `http/json`, or `grpc`, whose URLs have no path, such as
    /// `http://collector.monitoring.svc:4317`. Kong has only the first one.
    protocol: OtlpProtocol,
    /// Deprecated alias of `traces_endpoint`. If both are set, the alias is used.
    endpoint: Option<String>,
    /// Further headers of the requests to the server.
    headers: BTreeMap<String, String>,
    /// Attributes of the gateway, which all spans and logs have. `service.name` is `kong` unless it is set. Unlike in
    /// Kong, values are constant.
    resource_attributes: BTreeMap<String, String>,
    /// The part of the requests that is recorded, from 0 to 1. The default is that of Kong's setting
    /// `tracing_sampling_rate`.
    #[schemars(range(min = 0, max = 1))]
    sampling_rate: f64,
    /// What the decision of the client means.
    sampling_strategy: SamplingStrategy,
    /// Timeout in milliseconds for connecting to the server. A request to the server may take the sum of the three
    /// timeouts, at most 60000.
    connect_timeout: u32,
    /// Timeout in milliseconds for sending a batch.
    send_timeout: u32,
    /// Timeout in milliseconds for the response of the server.
    read_timeout: u32,
    /// Header of the response to the client with the identifier of the trace.
    http_response_header_for_traceid: Option<String>,
    /// How trace contexts pass from clients to endpoints. `default_format` is `w3c` unless it is set.
    #[serde(deserialize_with = "record")]
    propagation: PropagationConfig,
    /// Deprecated: the format in which endpoints get the context, in addition to that of the request. `propagation`
    /// precedes it.
    header_type: HeaderType,
    /// Whether to verify the certificate of the server with the system's root certificates. Kong does not verify it.
    ssl_verify: bool,
    /// How what is sent is collected. An entry of the queue is a request with all its spans, and `max_batch_size` is
    /// 200 unless it is set. If the server does not keep up, the oldest entries are dropped.
    #[serde(deserialize_with = "queue::deserialize_queue")]
    queue: QueueConfig,
    /// Deprecated alias of `queue.max_batch_size`. If both are set, the alias is used.
    batch_span_count: Option<usize>,
    /// Deprecated alias of `queue.max_coalescing_delay`. If both are set, the alias is used.
    batch_flush_delay: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            traces_endpoint: None,
            logs_endpoint: None,
            protocol: OtlpProtocol::default(),
            endpoint: None,
            headers: BTreeMap::new(),
            resource_attributes: BTreeMap::new(),
            sampling_rate: 0.01,
            sampling_strategy: SamplingStrategy::default(),
            connect_timeout: 1000,
            send_timeout: 5000,
            read_timeout: 5000,
            http_response_header_for_traceid: None,
            propagation: PropagationConfig::default(),
            header_type: HeaderType::default(),
            ssl_verify: true,
            queue: queue::default_queue(),
            batch_span_count: None,
            batch_flush_delay: None,
        }
    }
}

pub(crate) struct OpenTelemetry {
    tracer: Tracer,
    resource: OtlpResource,
    traces: Option<Arc<BatchQueue>>,
    logs: Option<Arc<BatchQueue>>,
}

/// `metrics` without an endpoint.
const UNSENT_METRICS: DumpedValue = DumpedValue::Record(&[
    ("enable_bandwidth_metrics", DumpedValue::Flag(false)),
    ("enable_consumer_attribute", DumpedValue::Flag(false)),
    ("enable_latency_metrics", DumpedValue::Flag(false)),
    ("enable_request_metrics", DumpedValue::Flag(false)),
    ("enable_upstream_health_metrics", DumpedValue::Flag(false)),
    ("endpoint", DumpedValue::Nothing),
    ("push_interval", DumpedValue::Number(60.0)),
]);

impl PluginKind for OpenTelemetry {
    const NAME: &'static str = "opentelemetry";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 14;
    const PHASES: Phases = Phases { access: true, response: true, log: true, ..Phases::ACCESS };
    const FAIL_CLOSED: bool = false;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[
        DumpedFields::new(&["access_logs_endpoint"], DumpedValue::Nothing, "3.13"),
        DumpedFields::new(&["metrics"], UNSENT_METRICS, "3.13"),
    ];
    type Config = Config;
    type Plugin = OpenTelemetry;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        check_rate("sampling_rate", config.sampling_rate, &mut invalid);
        let response_header = parse_response_header(config.http_response_header_for_traceid.as_deref(), &mut invalid);
        let propagation = config.propagation.validate(config.header_type, TraceFormat::W3c, &mut invalid);
        let resource = config.resource(cx, &mut invalid);
        let queue = config.queue_settings(cx).map_err(|errors| invalid.extend(errors)).ok();
        let servers = config.servers(cx, &mut invalid);
        let (Some(settings), true) = (queue, invalid.is_empty()) else { return Err(invalid) };
        let [traces, logs] = servers.map(|server| server.map(|server| server.start(settings.clone(), cx)).transpose());
        let mut take = |queue: Result<Option<Arc<BatchQueue>>, Vec<Diagnostic>>| {
            queue.unwrap_or_else(|errors| {
                invalid.extend(errors);
                None
            })
        };
        let (traces, logs) = (take(traces), take(logs));
        // Both servers have the same headers, which are reported once.
        invalid.dedup();
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let sampling = Sampling { rate: config.sampling_rate, strategy: config.sampling_strategy };
        let tracer = Tracer { propagation, sampling, has_short_ids: false, response_header };
        Ok(OpenTelemetry { tracer, resource, traces, logs })
    }
}

impl Plugin for OpenTelemetry {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        self.tracer.access(cx);
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        self.tracer.response(cx);
        ResponseOutcome::Continue
    }

    fn log(&self, cx: &LogCx<'_>) {
        let context = self.tracer.of_log(cx);
        if let Some(queue) = self.traces.as_ref().filter(|_| context.is_sampled) {
            queue.push_for(
                &cx.names.namespace,
                encode_spans(&self.resource, SCOPE, &spans::request_spans(cx, &context)),
            );
        }
        if let Some(queue) = &self.logs {
            let body = String::from_utf8_lossy(&LogEntry::new(cx).to_json()).into_owned();
            let time = cx.clock().start();
            queue.push_for(&cx.names.namespace, encode_log(&self.resource, SCOPE, time, body, &[], Some(&context)));
        }
    }

    fn logs_heads(&self) -> bool {
        true
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        self.tracer.declare_fields(fields);
    }
}

impl Config {
    fn servers(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> [Option<ExportServer<'_>>; 2] {
        let timeouts = [
            ("connect_timeout", self.connect_timeout),
            ("send_timeout", self.send_timeout),
            ("read_timeout", self.read_timeout),
        ];
        let timeout = sum_of_timeouts(timeouts, cx, invalid);
        if self.endpoint.is_some() {
            cx.note(Diagnostic::in_config("endpoint", "is deprecated", "set traces_endpoint instead"));
        }
        let server = |field, url, signal| ExportServer {
            field,
            url,
            headers: &self.headers,
            format: ExportFormat::Otlp(self.protocol, signal),
            timeout,
            ssl_verify: self.ssl_verify,
            tls_files: None,
        };
        let is_set = |url: &&str| !url.is_empty();
        let (traces_field, traces_url) = match &self.endpoint {
            Some(endpoint) => ("endpoint", Some(endpoint)),
            None => ("traces_endpoint", self.traces_endpoint.as_ref()),
        };
        let traces_url = traces_url.map(String::as_str).filter(is_set);
        let logs_url = self.logs_endpoint.as_deref().filter(is_set);
        if traces_url.is_none() && logs_url.is_none() {
            let message = "is missing, and `logs_endpoint` as well";
            let remedy = "set one of both to the URL of the server, such as \
                          http://collector.monitoring.svc:4318/v1/traces";
            invalid.push(Diagnostic::in_config("traces_endpoint", message, remedy));
        }
        [
            traces_url.map(|url| server(traces_field, url, OtlpSignal::Traces)),
            logs_url.map(|url| server("logs_endpoint", url, OtlpSignal::Logs)),
        ]
    }

    fn resource(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> OtlpResource {
        for (name, value) in &self.resource_attributes {
            if value.is_empty() {
                let remedy = "write a value, or remove the attribute";
                invalid.push(Diagnostic::in_config(format!("resource_attributes[{name}]"), "is empty", remedy));
            }
            if value.contains("$(") {
                let message = "has a template, but attributes of the gateway are constant";
                let remedy = "write the value without $(…)";
                invalid.push(Diagnostic::in_config(format!("resource_attributes[{name}]"), message, remedy));
            }
        }
        let defaults = [
            ("service.name", "kong"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", cx.node),
        ];
        let is_default = |(name, _): &(&str, &str)| !self.resource_attributes.contains_key(*name);
        let own = self.resource_attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        OtlpResource::new(defaults.into_iter().filter(is_default).chain(own))
    }

    /// The settings of the queues, after the deprecated fields were applied.
    fn queue_settings(&self, cx: &BuildCx<'_>) -> Result<QueueSettings, Vec<Diagnostic>> {
        let mut queue = self.queue.clone();
        let deprecated = |field: &str, remedy: &str| cx.note(Diagnostic::in_config(field, "is deprecated", remedy));
        if let Some(size) = self.batch_span_count {
            deprecated("batch_span_count", "set queue.max_batch_size instead");
            queue.max_batch_size = size;
        }
        if let Some(delay) = self.batch_flush_delay {
            deprecated("batch_flush_delay", "set queue.max_coalescing_delay instead");
            queue.max_coalescing_delay = delay;
        }
        queue.validate("queue")
    }
}

/// The name of the instrumentation.
const SCOPE: &str = "portico";
