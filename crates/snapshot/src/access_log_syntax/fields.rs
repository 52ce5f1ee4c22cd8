//! The fields of an access-log line, by the names that `--access-log-fields` accepts.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogField {
    Time,
    Client,
    Method,
    Host,
    Path,
    Query,
    Protocol,
    Status,
    BytesIn,
    BytesOut,
    DurationMs,
    ConnectMs,
    Tls,
    Sni,
    Gateway,
    Listener,
    Route,
    Rule,
    Upstream,
    Address,
    Picked,
    Circuit,
    Limited,
    Tries,
    RetryStop,
    Consumer,
    RequestId,
    TraceId,
    SpanId,
    Error,
    UserAgent,
}

impl AccessLogField {
    /// All fields with their names, in the default order.
    pub const ALL: &[(AccessLogField, &str)] = &[
        (AccessLogField::Time, "time"),
        (AccessLogField::Client, "client"),
        (AccessLogField::Method, "method"),
        (AccessLogField::Host, "host"),
        (AccessLogField::Path, "path"),
        (AccessLogField::Query, "query"),
        (AccessLogField::Protocol, "protocol"),
        (AccessLogField::Status, "status"),
        (AccessLogField::BytesIn, "bytes_in"),
        (AccessLogField::BytesOut, "bytes_out"),
        (AccessLogField::DurationMs, "duration_ms"),
        (AccessLogField::ConnectMs, "connect_ms"),
        (AccessLogField::Tls, "tls"),
        (AccessLogField::Sni, "sni"),
        (AccessLogField::Gateway, "gateway"),
        (AccessLogField::Listener, "listener"),
        (AccessLogField::Route, "route"),
        (AccessLogField::Rule, "rule"),
        (AccessLogField::Upstream, "upstream"),
        (AccessLogField::Address, "address"),
        (AccessLogField::Picked, "picked"),
        (AccessLogField::Circuit, "circuit"),
        (AccessLogField::Limited, "limited"),
        (AccessLogField::Tries, "tries"),
        (AccessLogField::RetryStop, "retry_stop"),
        (AccessLogField::Consumer, "consumer"),
        (AccessLogField::RequestId, "request_id"),
        (AccessLogField::TraceId, "trace_id"),
        (AccessLogField::SpanId, "span_id"),
        (AccessLogField::Error, "error"),
        (AccessLogField::UserAgent, "user_agent"),
    ];

    /// The fields that are written by default.
    pub fn defaults() -> Vec<AccessLogField> {
        AccessLogField::ALL.iter().map(|(field, _)| *field).filter(|field| field.is_default()).collect()
    }

    /// Whether the field is written by default. Queries and consumers are written only if configured, for privacy;
    /// the time to connect, because only TCP connections have one; circuits and limits, because `error` names them; and
    /// attempts and picks, because those of most requests are alike; and traces, because most requests have none.
    pub fn is_default(self) -> bool {
        !matches!(
            self,
            AccessLogField::Query
                | AccessLogField::Consumer
                | AccessLogField::ConnectMs
                | AccessLogField::Picked
                | AccessLogField::Circuit
                | AccessLogField::Limited
                | AccessLogField::Tries
                | AccessLogField::RetryStop
                | AccessLogField::TraceId
                | AccessLogField::SpanId
        )
    }

    /// Whether the value is a label of the series of the request.
    pub fn is_label(self) -> bool {
        matches!(
            self,
            AccessLogField::Gateway
                | AccessLogField::Listener
                | AccessLogField::Route
                | AccessLogField::Rule
                | AccessLogField::Upstream
        )
    }

    /// The prefix in a text line. Self-explanatory values have none.
    pub fn text_prefix(self) -> &'static str {
        match self {
            AccessLogField::Time
            | AccessLogField::Client
            | AccessLogField::Method
            | AccessLogField::Host
            | AccessLogField::Path
            | AccessLogField::Protocol
            | AccessLogField::Status
            | AccessLogField::DurationMs => "",
            AccessLogField::Query => "query=",
            AccessLogField::BytesIn => "in=",
            AccessLogField::BytesOut => "out=",
            AccessLogField::ConnectMs => "connect=",
            AccessLogField::Tls => "tls=",
            AccessLogField::Sni => "sni=",
            AccessLogField::Gateway => "gateway=",
            AccessLogField::Listener => "listener=",
            AccessLogField::Route => "route=",
            AccessLogField::Rule => "rule=",
            AccessLogField::Upstream => "upstream=",
            AccessLogField::Address => "address=",
            AccessLogField::Picked => "picked=",
            AccessLogField::Circuit => "circuit=",
            AccessLogField::Limited => "limited=",
            AccessLogField::Tries => "tries=",
            AccessLogField::RetryStop => "retry_stop=",
            AccessLogField::Consumer => "consumer=",
            AccessLogField::RequestId => "id=",
            AccessLogField::TraceId => "trace=",
            AccessLogField::SpanId => "span=",
            AccessLogField::Error => "error=",
            AccessLogField::UserAgent => "agent=",
        }
    }
}

impl fmt::Display for AccessLogField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) =
            AccessLogField::ALL.iter().find(|(field, _)| field == self).expect("`ALL` contains every field");
        formatter.write_str(name)
    }
}

impl FromStr for AccessLogField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entry = AccessLogField::ALL.iter().find(|(_, name)| *name == text);
        entry.map(|(field, _)| *field).ok_or_else(|| {
            let known: Vec<_> = AccessLogField::ALL.iter().map(|(_, name)| *name).collect();
            format!("there is no field `{text}`; use a comma-separated list of {}", known.join(", "))
        })
    }
}
