//! Flags of traces.

use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use http::HeaderName;
use thiserror::Error;

use super::otlp::OTLP_SERVERS;
use crate::access_log_syntax::{SamplingRule, SamplingRules};
use crate::quantity::WaitTime;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics")]
pub(super) struct TraceArgs {
    /// URL of a server for traces of all requests by OTLP; without a path, /v1/traces is added, except for grpc
    #[arg(long, value_name = "URL", env = "PORTICO_TRACE_OTLP_ENDPOINT", group = OTLP_SERVERS)]
    trace_otlp_endpoint: Option<String>,

    /// Part of the requests that is recorded, from 0 to 1. Only peers of --trusted-ips may decide that more are
    #[arg(long, value_name = "FRACTION", env = "PORTICO_TRACE_SAMPLING", requires = "trace_otlp_endpoint")]
    #[arg(value_parser = parse_rate, default_value_t = 0.1)]
    trace_sampling: f64,

    /// Rules that decide which part is recorded, separated by commas: the first one that applies decides in place of
    /// --trace-sampling, as in `keep route=HTTPRoute/shop/pay,drop path=/healthz`
    #[arg(long, value_name = "RULE", value_delimiter = ',', env = "PORTICO_TRACE_RULES")]
    #[arg(requires = "trace_otlp_endpoint")]
    trace_rules: Vec<SamplingRule>,

    /// Header whose requests are recorded, also those of clients that are not trusted
    #[arg(long, value_name = "NAME", env = "PORTICO_TRACE_HEADER", requires = "trace_otlp_endpoint")]
    trace_header: Option<HeaderName>,

    /// Maximum number of requests in a second that are recorded because of --trace-header
    #[arg(long, value_name = "NUMBER", env = "PORTICO_TRACE_HEADER_LIMIT", requires = "trace_header")]
    #[arg(value_parser = parse_limit, default_value = "10")]
    trace_header_limit: u32,

    /// Formats in which trace contexts are read, in this order; the first one is written if a request has none. With
    /// `none`, backends get what clients send
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',', env = "PORTICO_TRACE_PROPAGATION")]
    #[arg(default_values_t = [TraceFormatArg::W3c])]
    trace_propagation: Vec<TraceFormatArg>,

    /// Also record requests that have failed, although the rate or the client has not selected them: at most 100 in a
    /// second
    #[arg(long, env = "PORTICO_TRACE_ERRORS", value_parser = BoolishValueParser::new())]
    trace_errors: bool,

    /// Also record requests that have taken at least this time, within the same bound
    #[arg(long, value_name = "DURATION", env = "PORTICO_TRACE_SLOW", requires = "trace_otlp_endpoint")]
    trace_slow: Option<WaitTime>,
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
    // no fields
    None,
}

/// Which requests are traced, and where their traces are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOptions {
    pub endpoint: String,
    pub sampling_rate: f64,
    pub rules: SamplingRules,
    /// A header whose requests are recorded, and how many of them in a second.
    pub header: Option<(HeaderName, u32)>,
    /// Whether requests that have failed are recorded in addition.
    pub errors: bool,
    /// The time from which requests are recorded in addition.
    pub slow: Option<Duration>,
    /// Empty if no fields are read and written.
    pub propagation: Vec<TraceFormatArg>,
}

/// Flags of traces that contradict each other.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum TraceUsageError {
    // The parser of flags would also refuse `false` in the environment.
    #[error("--trace-errors is given without --trace-otlp-endpoint, so there are no traces; add the URL of a server")]
    ErrorsWithoutServer,
    #[error("--trace-propagation has `none` and other formats; give `none` alone, or remove it")]
    NoneAndFormats,
}

impl TraceArgs {
    /// `None` without a server.
    pub(super) fn resolve(self) -> Result<Option<TraceOptions>, TraceUsageError> {
        let has_none = self.trace_propagation.contains(&TraceFormatArg::None);
        if has_none && self.trace_propagation.len() > 1 {
            return Err(TraceUsageError::NoneAndFormats);
        }
        let Some(endpoint) = self.trace_otlp_endpoint else {
            return if self.trace_errors { Err(TraceUsageError::ErrorsWithoutServer) } else { Ok(None) };
        };
        Ok(Some(TraceOptions {
            endpoint,
            sampling_rate: self.trace_sampling,
            rules: SamplingRules(self.trace_rules.into()),
            header: self.trace_header.map(|name| (name, self.trace_header_limit)),
            errors: self.trace_errors,
            slow: self.trace_slow.map(|time| time.0),
            propagation: if has_none { Vec::new() } else { self.trace_propagation },
        }))
    }
}

fn parse_limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=10_000).contains(limit));
    limit.ok_or_else(|| "not in range; write a whole number from 1 to 10000".to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "not in range; write a number from 0 to 1, such as 0.1".to_owned())
}
