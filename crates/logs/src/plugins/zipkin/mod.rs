//! `zipkin`: sends traces of requests to a Zipkin server.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: traces
//! plugin: zipkin
//! config:
//!   http_endpoint: http://zipkin.monitoring.svc:9411/api/v2/spans
//!   sample_ratio: 0.1
//!   static_tags: [{name: environment, value: production}]
//! ```
//!
//! A request that is recorded has a span with the name of its method, and spans within it: one such as `GET (proxy)`
//! from the first plugin to the end, and one such as `GET (balancer try 1)` for each attempt to get a response from an
//! endpoint. The endpoint gets the context of the trace in header fields, whether or not the request is recorded; its
//! parent is the span of its attempt.
//!
//! Requests never wait for the server. What is to be sent waits in a queue, which is limited by `queue` and, together
//! with the queues of all plugins, by `--max-queued-bytes`. A batch is sent again unless the server responds with 400
//! or 413; the `Retry-After` of a server is respected up to `queue.max_retry_delay`.

mod spans;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::batch_queue::{BatchQueue, QueueConfig};
use crate::plugin_api::trace::{HeaderType, PropagationConfig, Sampling, SamplingStrategy, TraceFormat};
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, LogCx, Phases, Plugin, PluginKind, RequestCx, ResponseCx, ResponseOutcome,
    record,
};
use crate::tracer::{ExportFormat, ExportServer, Tracer, check_rate, parse_response_header, sum_of_timeouts};

/// Sends traces of requests to Zipkin.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// URL to which spans are sent, such as `http://zipkin.monitoring.svc:9411/api/v2/spans`. A host without dots is a
    /// Service in the namespace of the plugin. Without it, contexts pass to endpoints and nothing is sent.
    http_endpoint: Option<String>,
    /// Name of the gateway in spans.
    local_service_name: String,
    /// Name of the service in spans of attempts, if the route has no Service.
    default_service_name: Option<String>,
    /// The part of the requests that is recorded, from 0 to 1, unless the client has decided.
    #[schemars(range(min = 0, max = 1))]
    sample_ratio: f64,
    /// What the decision of the client means.
    sampling_strategy: SamplingStrategy,
    /// Whether the span of a request has the identifier of the credential.
    include_credential: bool,
    /// Length of the identifiers of new traces in bytes: 16 or 8.
    traceid_byte_count: u8,
    /// Header of requests with further tags, such as `a=b; c=d`. At most 32 tags are read.
    tags_header: String,
    /// Tags of the span of each request.
    static_tags: Vec<StaticTag>,
    /// The name of the span of a request.
    http_span_name: SpanName,
    /// Timeout in milliseconds for connecting to the server. A request to the server may take the sum of the three
    /// timeouts, at most 60000.
    connect_timeout: u32,
    /// Timeout in milliseconds for sending a batch.
    send_timeout: u32,
    /// Timeout in milliseconds for the response of the server.
    read_timeout: u32,
    /// Header of the response to the client with the identifier of the trace.
    http_response_header_for_traceid: Option<String>,
    /// How the durations of phases are written.
    phase_duration_flavor: PhaseFlavor,
    /// How trace contexts pass from clients to endpoints. `default_format` is `b3` unless it is set.
    #[serde(deserialize_with = "record")]
    propagation: PropagationConfig,
    /// Deprecated: the format in which endpoints get the context, in addition to that of the request. `propagation`
    /// precedes it.
    header_type: HeaderType,
    /// Deprecated alias of `propagation.default_format`. `propagation` precedes it.
    default_header_type: TraceFormat,
    /// Whether to verify the certificate of the server with the system's root certificates. Kong does not verify it.
    ssl_verify: bool,
    /// How spans are collected. An entry of the queue is a request with all its spans. If the server does not keep up,
    /// the oldest entries are dropped.
    #[serde(deserialize_with = "record")]
    queue: QueueConfig,
}

/// A tag with a constant value.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StaticTag {
    /// Name of the tag. `error`, `lc`, and names that begin with `http.`, `kong.` or `peer.` are reserved.
    name: String,
    /// Value of the tag.
    value: String,
}

/// The name of the span of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SpanName {
    /// The method.
    Method,
    /// The method and the path.
    MethodPath,
}

/// How the durations of phases are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PhaseFlavor {
    /// As annotations with the beginning and the end of each phase, such as `kas` and `kaf`.
    Annotations,
    /// As tags such as `kong.access.duration_ms`.
    Tags,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            http_endpoint: None,
            local_service_name: "kong".to_owned(),
            default_service_name: None,
            sample_ratio: 0.001,
            sampling_strategy: SamplingStrategy::Parent,
            include_credential: true,
            traceid_byte_count: 16,
            tags_header: "Zipkin-Tags".to_owned(),
            static_tags: Vec::new(),
            http_span_name: SpanName::Method,
            connect_timeout: 2000,
            send_timeout: 5000,
            read_timeout: 5000,
            http_response_header_for_traceid: None,
            phase_duration_flavor: PhaseFlavor::Annotations,
            propagation: PropagationConfig::default(),
            header_type: HeaderType::default(),
            default_header_type: TraceFormat::B3,
            ssl_verify: true,
            queue: QueueConfig::default(),
        }
    }
}

pub(crate) struct Zipkin {
    tracer: Tracer,
    recorder: spans::SpanRecorder,
    queue: Option<Arc<BatchQueue>>,
}

impl PluginKind for Zipkin {
    const NAME: &'static str = "zipkin";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 100_000;
    const PHASES: Phases = Phases { access: true, response: true, log: true, ..Phases::ACCESS };
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = Zipkin;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        check_rate("sample_ratio", config.sample_ratio, &mut invalid);
        let response_header = parse_response_header(config.http_response_header_for_traceid.as_deref(), &mut invalid);
        let propagation = config.propagation.validate(config.header_type, config.default_header_type, &mut invalid);
        if ![8, 16].contains(&config.traceid_byte_count) {
            let message = format!("{} is not a valid length", config.traceid_byte_count);
            invalid.push(Diagnostic::in_config("traceid_byte_count", message, "use 16 or 8"));
        }
        let tags_header = HeaderName::from_bytes(config.tags_header.as_bytes()).map_err(|_| {
            let message = format!("{:?} is not a valid header name", config.tags_header);
            invalid.push(Diagnostic::in_config("tags_header", message, "use letters, digits and `-`"));
        });
        if config.local_service_name.is_empty() {
            let remedy = "write a name, or remove it for `kong`";
            invalid.push(Diagnostic::in_config("local_service_name", "is empty", remedy));
        }
        for (index, tag) in config.static_tags.iter().enumerate() {
            if config.static_tags[..index].iter().any(|other| other.name == tag.name) {
                let message = format!("another tag has the name {:?}", tag.name);
                invalid.push(Diagnostic::in_config(
                    format!("static_tags[{index}].name"),
                    message,
                    "remove one of them",
                ));
            }
            if let Some(problem) = spans::tag_problem(&tag.name) {
                let remedy = "use another name, such as environment";
                invalid.push(Diagnostic::in_config(format!("static_tags[{index}].name"), problem, remedy));
            }
        }
        let timeouts = [
            ("connect_timeout", config.connect_timeout),
            ("send_timeout", config.send_timeout),
            ("read_timeout", config.read_timeout),
        ];
        let timeout = sum_of_timeouts(timeouts, cx, &mut invalid);
        let settings = config.queue.validate("queue").map_err(|errors| invalid.extend(errors)).ok();
        let (Some(settings), Ok(tags_header), true) = (settings, tags_header, invalid.is_empty()) else {
            return Err(invalid);
        };
        let no_headers = BTreeMap::new();
        let server = config.http_endpoint.as_deref().filter(|url| !url.is_empty()).map(|url| ExportServer {
            field: "http_endpoint",
            url,
            headers: &no_headers,
            format: ExportFormat::Zipkin,
            timeout,
            ssl_verify: config.ssl_verify,
            tls_files: None,
        });
        let queue = server.map(|server| server.start(settings, cx)).transpose()?;
        let sampling = Sampling { rate: config.sample_ratio, strategy: config.sampling_strategy };
        let has_short_ids = config.traceid_byte_count == 8;
        let tracer = Tracer { propagation, sampling, has_short_ids, response_header };
        Ok(Zipkin { tracer, recorder: spans::SpanRecorder::new(config, tags_header, cx.node), queue })
    }
}

impl Plugin for Zipkin {
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
        let Some(queue) = &self.queue else { return };
        let context = self.tracer.of_log(cx);
        if context.is_sampled {
            queue.push_for(&cx.names.namespace, self.recorder.encode(cx, &context));
        }
    }

    fn logs_heads(&self) -> bool {
        true
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        self.tracer.declare_fields(fields);
    }
}
