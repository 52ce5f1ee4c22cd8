//! Flags of traces.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::quantity::WaitTime;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics")]
pub(super) struct TraceArgs {
    /// URL of a server for traces of all requests by OTLP; without a path, /v1/traces is added, except for grpc
    #[arg(long, value_name = "URL", env = "PORTICO_TRACE_OTLP_ENDPOINT")]
    trace_otlp_endpoint: Option<String>,

    /// Protocol of the server for traces
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        env = "PORTICO_TRACE_OTLP_PROTOCOL",
        requires = "trace_otlp_endpoint"
    )]
    #[arg(default_value_t = OtlpProtocolArg::HttpProtobuf)]
    trace_otlp_protocol: OtlpProtocolArg,

    /// Part of the requests that is recorded, from 0 to 1. Only peers of --trusted-ips may decide that more are
    #[arg(long, value_name = "FRACTION", env = "PORTICO_TRACE_SAMPLING", requires = "trace_otlp_endpoint")]
    #[arg(value_parser = parse_rate, default_value_t = 0.1)]
    trace_sampling: f64,

    /// Formats in which trace contexts are read, in this order; the first one is written if a request has none
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',', env = "PORTICO_TRACE_PROPAGATION")]
    #[arg(default_values_t = [TraceFormatArg::W3c])]
    trace_propagation: Vec<TraceFormatArg>,

    /// Also record requests that have failed, although the rate or the client has not selected them: at most 100 in a
    /// second
    #[arg(long, env = "PORTICO_TRACE_ERRORS", value_parser = BoolishValueParser::new(), requires = "trace_otlp_endpoint")]
    trace_errors: bool,

    /// Also record requests that have taken at least this time, within the same bound
    #[arg(long, value_name = "DURATION", env = "PORTICO_TRACE_SLOW", requires = "trace_otlp_endpoint")]
    trace_slow: Option<WaitTime>,

    /// File with headers of the requests to the server, such as `Authorization: Bearer TOKEN`, one in each line
    #[arg(long, value_name = "FILE", env = "PORTICO_TRACE_HEADERS_FILE", requires = "trace_otlp_endpoint")]
    trace_headers_file: Option<PathBuf>,
}

/// A protocol of OTLP, in the words of OpenTelemetry's `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OtlpProtocolArg {
    Grpc,
    #[value(name = "http/protobuf")]
    HttpProtobuf,
    #[value(name = "http/json")]
    HttpJson,
}

/// A format of trace contexts, and the fields that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceFormatArg {
    // traceparent and tracestate
    W3c,
    // X-B3-TraceId and others, or b3
    B3,
    // b3
    B3Single,
    // uber-trace-id
    Jaeger,
    // ot-tracer-traceid and others
    Ot,
    // x-datadog-trace-id and others
    Datadog,
    // X-Amzn-Trace-Id
    Aws,
    // X-Cloud-Trace-Context
    Gcp,
    // X-Instana-T and others
    Instana,
}

/// Where traces of all requests are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOptions {
    pub endpoint: String,
    pub protocol: OtlpProtocolArg,
    pub sampling: f64,
    /// Whether requests that have failed are recorded in addition.
    pub errors: bool,
    /// The time from which requests are recorded in addition.
    pub slow: Option<Duration>,
    pub propagation: Vec<TraceFormatArg>,
    pub headers_file: Option<PathBuf>,
}

impl TraceArgs {
    /// `None` without a server.
    pub(super) fn resolve(self) -> Option<TraceOptions> {
        Some(TraceOptions {
            endpoint: self.trace_otlp_endpoint?,
            protocol: self.trace_otlp_protocol,
            sampling: self.trace_sampling,
            errors: self.trace_errors,
            slow: self.trace_slow.map(|time| time.0),
            propagation: self.trace_propagation,
            headers_file: self.trace_headers_file,
        })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "not in range; write a number from 0 to 1, such as 0.1".to_owned())
}
