//! The variables of a line of the access log, whichever notation names them.

use http::HeaderName;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A value of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineVariable {
    /// Of a variable of another proxy that never has a value here.
    None,
    /// Address and port.
    Client,
    ClientIp,
    ClientPort,
    /// The port that clients see.
    ListenerPort,
    /// The consumer that a plugin authenticated.
    Consumer,
    Time(TimeForm),
    /// Method, target and protocol.
    RequestLine,
    Method,
    /// Path and query.
    Target,
    Path,
    Query,
    /// `?` and the query; nothing without a query.
    QueryWithMark,
    /// `?`, if there is a query.
    QueryMark,
    QueryParameter(Box<str>),
    Protocol,
    Scheme,
    /// Without its port.
    Host,
    /// The host with its port.
    Authority,
    Status,
    /// Bytes of the bodies.
    BytesIn,
    BytesOut,
    /// No value if there are none.
    BytesOutIfAny,
    /// Bytes of bodies and heads.
    RequestBytes,
    ResponseBytes,
    Duration(DurationUnit),
    TlsVersion,
    TlsCipher,
    ServerName,
    Label(SeriesLabel),
    /// The name of the upstream in the dialect of the rule, or else the label.
    UpstreamName,
    /// The name of the upstream that has got the request as a share; empty if none has, and no value for rules of which
    /// none could.
    AlternativeUpstream,
    /// The endpoint of the last attempt.
    Endpoint,
    /// Of all attempts.
    Endpoints,
    EndpointStatuses,
    EndpointTimes,
    EndpointConnectTimes,
    EndpointHeaderTimes,
    /// Bytes of the body of a response that an endpoint sent.
    EndpointBytes,
    /// Milliseconds until the endpoint responded.
    EndpointMilliseconds,
    AttemptCount,
    RequestId,
    TraceId,
    SpanId,
    Error,
    RequestField(HeaderName),
    ResponseField(HeaderName),
}

/// How the time of a request is written, always in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// `2026-11-27T23:28:23.123Z`
    Rfc3339,
    /// `2026-11-27T23:28:23+00:00`
    Iso8601,
    /// `27/Nov/2026:23:28:23 +0000`
    Common,
    /// The same in square brackets.
    BracketedCommon,
    /// Since 1970.
    Seconds,
    Milliseconds,
    Microseconds,
    /// `1700000000.123`
    SecondsAndMilliseconds,
    /// Within the second, with three digits.
    MillisecondsOfSecond,
    /// Within the second, with six digits.
    MicrosecondsOfSecond,
    /// In the notation of `strftime`.
    Pattern(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationUnit {
    /// `1.234`
    Seconds,
    WholeSeconds,
    WholeMilliseconds,
    WholeMicroseconds,
}

/// What the labels of metrics contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesLabel {
    Gateway,
    Listener,
    Route,
    RouteNamespace,
    RouteName,
    Rule,
    /// `namespace/service:port`
    Upstream,
    UpstreamService,
    UpstreamPort,
}

/// A name of a variable in one notation, and its value.
pub(super) type NamedVariable = (&'static str, LineVariable);

/// Finds a variable by its name.
pub(super) fn find(table: &[NamedVariable], name: &str) -> Option<LineVariable> {
    table.iter().find(|(known, _)| *known == name).map(|(_, variable)| variable.clone())
}

/// The form of times for a pattern of `strftime`, or a name of Apache. `None` for another text.
pub(super) fn time_pattern(pattern: &str) -> Option<TimeForm> {
    Some(match pattern {
        "sec" | "%s" => TimeForm::Seconds,
        "msec" => TimeForm::Milliseconds,
        "usec" => TimeForm::Microseconds,
        "msec_frac" => TimeForm::MillisecondsOfSecond,
        "usec_frac" => TimeForm::MicrosecondsOfSecond,
        pattern => {
            let sample = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
            let written = jiff::fmt::strtime::format(pattern, &sample).ok()?;
            // `%n` is a line feed.
            let has_controls = written.contains(char::is_control);
            if !pattern.contains('%') || pattern.contains(['"', '\\']) || has_controls {
                return None;
            }
            TimeForm::Pattern(pattern.into())
        }
    })
}

/// Whether a header field may contain credentials, so that it is not written.
pub(super) fn is_secret_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    let exact = ["authorization", "proxy-authorization", "x-authorization"];
    let parts = ["cookie", "token", "secret", "passw", "apikey", "api-key", "credential", "signature"];
    exact.contains(&name) || parts.iter().any(|part| name.contains(part))
}
