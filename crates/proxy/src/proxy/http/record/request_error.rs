//! The errors of requests, with the status, reason and message of each. No other file maps errors to statuses.

use http::StatusCode;

use crate::plugin_api::completed_request::CONNECTION_REFUSED;
use crate::request_target::TargetError;
use crate::snapshot::regex_steps::RegexInput;
use crate::snapshot::routing::Unrouted;
use crate::snapshot::rule::RouteFailure;
use crate::snapshot::rule_options::ErrorStyle;
use crate::upstream::{NoEndpoint, Overloaded};

/// Why a request did not get a response from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum RequestError {
    /// The request target is invalid; the message says why.
    InvalidTarget(&'static str),
    /// The Host header or `:authority` is missing or invalid; the message says why.
    InvalidHost(&'static str),
    /// The body length or transfer coding can be interpreted in more than one way; the message says why.
    AmbiguousFraming(&'static str),
    /// The request body is truncated or malformed.
    InvalidBody,
    /// The request body exceeds the limit of a plugin.
    BodyTooLarge,
    /// [`RequestError::BodyTooLarge`] by the limit of a plugin, for a client that has waited for an interim response.
    ExpectedBodyTooLarge,
    /// The plugins of the rule did not finish in time.
    PluginTimeout,
    /// The bytes from the client do not parse as a request.
    MalformedRequest,
    /// The major version of HTTP/1 is not 1.
    UnsupportedVersion,
    /// The request target exceeds the longest supported length.
    TargetTooLong,
    /// The path or query exceeds what the regular expressions of routes may be matched with.
    TargetTooLongToMatch,
    /// A header exceeds what the regular expressions of routes may be matched with.
    HeaderTooLongToMatch,
    /// The request head exceeds its size limit.
    HeaderTooLarge,
    /// The request has more header fields than the limit.
    TooManyHeaders,
    ConnectNotSupported,
    /// The rule does not name the method TRACE.
    TraceNotAllowed,
    /// An extended CONNECT for a protocol other than WebSocket, or to an HTTP/2 endpoint.
    UpgradeNotSupported,
    UnsupportedExpectation,
    /// The request has been forwarded by too many Portico processes, or the endpoint is a listener of this process.
    LoopDetected,
    RequestBodyTimeout,
    /// The client sends the request body more slowly than the minimum rate.
    SlowRequestBody,
    /// No listener of this address matches the host.
    NoListener,
    NoRoute,
    /// The host belongs to another listener than the connection.
    MisdirectedRequest,
    /// The rule or its backend is invalid.
    InvalidRule(RouteFailure),
    /// A plain-text request matched a rule that accepts only HTTPS.
    HttpsOnly,
    /// An HTTP/1 request matched a rule that accepts only gRPC.
    Http2Only,
    /// A request that is not gRPC matched a rule that accepts only gRPC.
    NotGrpc,
    /// A plain-text request matched a rule that accepts only gRPC over TLS.
    GrpcsOnly,
    /// The rewritten path is not a valid request target.
    InvalidRewrite,
    /// No endpoint of the authorization server has responded.
    AuthorizationUnavailable,
    /// The authorization server has not responded in time.
    AuthorizationTimeout,
    /// The response of the authorization server is invalid.
    InvalidAuthorization,
    NoEndpoints,
    /// All endpoints are ejected, and the request may not or cannot try one of them.
    Unavailable,
    /// [`RequestError::Unavailable`] in [`ErrorStyle::RingBalancer`].
    RingBalancerUnavailable,
    /// The last attempt failed, and the retry budget of the Service allows no other.
    RetryBudget,
    /// The Service, or each of its endpoints, has as many requests as its limits allow, or too many fail.
    OverLimit,
    /// The request has waited for too long until the Service has fewer.
    QueueTimeout,
    /// The circuit breaker of the Service rejects the request.
    CircuitOpen {
        /// After how many seconds another request is worth the attempt; at least 1.
        retry_after: u32,
    },
    /// [`RequestError::NoEndpoints`] in [`ErrorStyle::RingBalancer`].
    NoRingBalancerPeer,
    /// The limit of connections to endpoints is reached.
    ConnectionLimit,
    /// The limit of bytes that the process keeps is reached.
    BufferLimit,
    /// The endpoint refused the connection, or connecting failed for another reason than a timeout.
    ConnectionRefused,
    /// [`RequestError::ConnectionRefused`] in [`ErrorStyle::RingBalancer`].
    RingBalancerConnectionRefused,
    /// The TLS handshake with the endpoint failed, or its certificate is not valid.
    TlsHandshake,
    ConnectTimeout,
    ResponseTimeout,
    /// `timeouts.request` of the rule.
    RequestTimeout,
    /// `timeouts.backendRequest` of the rule.
    BackendRequestTimeout,
    /// The time in the field `grpc-timeout` of the call.
    CallDeadline,
    /// The endpoint sent an invalid response.
    InvalidResponse,
    /// The endpoint closed the connection without a response.
    NoResponse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    Client,
    Backend,
    Configuration,
}

/// How an error is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct ErrorDetails {
    blame: Blame,
    pub(in crate::proxy) status: StatusCode,
    /// The status for gRPC clients, if it does not follow from `status`.
    pub(in crate::proxy) grpc_status: Option<u16>,
    /// The reason in the access log and in metrics.
    pub(in crate::proxy) reason: &'static str,
    /// The message of the response.
    pub(in crate::proxy) message: &'static str,
    /// The client may send the request again, because it was not processed.
    retryable: bool,
}

impl From<Unrouted> for RequestError {
    fn from(unrouted: Unrouted) -> Self {
        match unrouted {
            Unrouted::NoListener => RequestError::NoListener,
            Unrouted::Misdirected => RequestError::MisdirectedRequest,
            Unrouted::NoRule => RequestError::NoRoute,
            Unrouted::TooLong(RegexInput::Target) => RequestError::TargetTooLongToMatch,
            Unrouted::TooLong(RegexInput::Header) => RequestError::HeaderTooLongToMatch,
        }
    }
}

impl From<NoEndpoint> for RequestError {
    fn from(missing: NoEndpoint) -> Self {
        match missing {
            NoEndpoint::None => RequestError::NoEndpoints,
            NoEndpoint::Unavailable => RequestError::Unavailable,
            NoEndpoint::OverLimit => RequestError::OverLimit,
        }
    }
}

impl From<TargetError> for RequestError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Connect => RequestError::ConnectNotSupported,
            TargetError::Target(invalid) => RequestError::InvalidTarget(invalid.message()),
            TargetError::Host(invalid) => RequestError::InvalidHost(invalid.message()),
        }
    }
}

impl From<Overloaded> for RequestError {
    fn from(overloaded: Overloaded) -> Self {
        match overloaded {
            Overloaded::OverLimit => RequestError::OverLimit,
            Overloaded::QueueTimeout => RequestError::QueueTimeout,
            Overloaded::CircuitOpen { retry_after } => {
                // Rounded up, since a client that comes too early is rejected again.
                let seconds = retry_after.as_millis().div_ceil(1000).max(1);
                RequestError::CircuitOpen { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) }
            }
        }
    }
}

impl RequestError {
    /// The error with the status and message of a style.
    pub(in crate::proxy) fn in_style(self, style: ErrorStyle) -> RequestError {
        match (style, self) {
            (ErrorStyle::RingBalancer, RequestError::NoEndpoints) => RequestError::NoRingBalancerPeer,
            (ErrorStyle::RingBalancer, RequestError::Unavailable) => RequestError::RingBalancerUnavailable,
            (ErrorStyle::RingBalancer, RequestError::ConnectionRefused) => RequestError::RingBalancerConnectionRefused,
            (ErrorStyle::RingBalancer | ErrorStyle::Unavailable, error) => error,
        }
    }

    /// After how many seconds the client may send the request again, if that is known.
    pub(in crate::proxy) fn retry_after(self) -> Option<u32> {
        if let RequestError::CircuitOpen { retry_after } = self { Some(retry_after) } else { None }
    }

    #[rustfmt::skip] // A table.
    pub(in crate::proxy) fn details(self) -> ErrorDetails {
        use Blame::{Client, Backend, Configuration};
        let (blame, status, reason, message, retryable) = match self {
            RequestError::InvalidTarget(message) => (Client, StatusCode::BAD_REQUEST, "invalid_target", message, false),
            RequestError::InvalidHost(message) => (Client, StatusCode::BAD_REQUEST, "invalid_host", message, false),
            RequestError::AmbiguousFraming(message) => (Client, StatusCode::BAD_REQUEST, "ambiguous_framing", message, false),
            RequestError::InvalidBody => (Client, StatusCode::BAD_REQUEST, "invalid_body", "the request body is invalid or truncated", false),
            RequestError::BodyTooLarge => (Client, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Request size limit exceeded", false),
            RequestError::ExpectedBodyTooLarge => (Client, StatusCode::EXPECTATION_FAILED, "body_too_large", "Request size limit exceeded", false),
            RequestError::PluginTimeout => (Configuration, StatusCode::GATEWAY_TIMEOUT, "plugin_timeout", TIMED_OUT, true),
            RequestError::MalformedRequest => (Client, StatusCode::BAD_REQUEST, "malformed_request", "Bad request", false),
            RequestError::UnsupportedVersion => (Client, StatusCode::HTTP_VERSION_NOT_SUPPORTED, "unsupported_version", "HTTP version not supported", false),
            RequestError::TargetTooLong => (Client, StatusCode::URI_TOO_LONG, "target_too_long", "URI too long", false),
            RequestError::TargetTooLongToMatch => (Client, StatusCode::URI_TOO_LONG, "target_too_long_to_match", "the path or query is too long for the regular expressions of the routes", false),
            RequestError::HeaderTooLongToMatch => (Client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_long_to_match", "a header is too long for the regular expressions of the routes", false),
            RequestError::HeaderTooLarge => (Client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large", "Request header or cookie too large", false),
            RequestError::TooManyHeaders => (Client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers", "the request has too many header fields", false),
            RequestError::ConnectNotSupported => (Client, StatusCode::METHOD_NOT_ALLOWED, "connect_not_supported", "Method not allowed", false),
            RequestError::TraceNotAllowed => (Client, StatusCode::METHOD_NOT_ALLOWED, "trace_not_allowed", "Method not allowed", false),
            RequestError::UpgradeNotSupported => (Client, StatusCode::NOT_IMPLEMENTED, "upgrade_not_supported", "CONNECT is supported only for WebSocket, and only to backends that use HTTP/1.1", false),
            RequestError::LoopDetected => (Configuration, StatusCode::LOOP_DETECTED, "loop_detected", "Loop detected", false),
            RequestError::UnsupportedExpectation => (Client, StatusCode::EXPECTATION_FAILED, "unsupported_expectation", "Expectation failed", false),
            RequestError::RequestBodyTimeout => (Client, StatusCode::REQUEST_TIMEOUT, "request_body_timeout", "Request timeout", false),
            RequestError::SlowRequestBody => (Client, StatusCode::REQUEST_TIMEOUT, "slow_request_body", "Request timeout", false),
            RequestError::NoListener => (Client, StatusCode::NOT_FOUND, "no_listener", NO_ROUTE, false),
            RequestError::NoRoute | RequestError::InvalidRule(RouteFailure::NoDefaultBackend) => {
                (Client, StatusCode::NOT_FOUND, "no_route", NO_ROUTE, false)
            }
            RequestError::MisdirectedRequest => (Client, StatusCode::MISDIRECTED_REQUEST, "misdirected_request", "Misdirected request", true),
            RequestError::InvalidRule(RouteFailure::NoBackends) => (Configuration, StatusCode::INTERNAL_SERVER_ERROR, "no_backends", NO_BACKEND, false),
            RequestError::InvalidRule(RouteFailure::InvalidBackend) => (Configuration, StatusCode::INTERNAL_SERVER_ERROR, "invalid_backend", NO_BACKEND, false),
            RequestError::InvalidRule(RouteFailure::Unsupported) => (Configuration, StatusCode::INTERNAL_SERVER_ERROR, "unsupported_rule", UNEXPECTED, false),
            RequestError::InvalidRule(RouteFailure::NoAuthorizationServer) => (Configuration, StatusCode::INTERNAL_SERVER_ERROR, "no_authorization_server", UNEXPECTED, false),
            RequestError::InvalidRule(RouteFailure::NoService | RouteFailure::WithoutService) => (Configuration, StatusCode::SERVICE_UNAVAILABLE, "no_service", NO_SERVICE, false),
            RequestError::InvalidRule(RouteFailure::UnsupportedProtection) => (Configuration, StatusCode::SERVICE_UNAVAILABLE, "unsupported_protection", UNAVAILABLE, false),
            RequestError::HttpsOnly => (Client, StatusCode::UPGRADE_REQUIRED, "https_only", "Please use HTTPS protocol", false),
            RequestError::Http2Only => (Client, StatusCode::UPGRADE_REQUIRED, "http2_only", "Please use HTTP2 protocol", false),
            RequestError::NotGrpc => (Client, StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_grpc", "Non-gRPC request matched gRPC route", false),
            // gRPC clients interpret this status as CANCELLED.
            RequestError::GrpcsOnly => (Client, client_disconnected_status(), "grpcs_only", "gRPC request matched gRPCs route", false),
            RequestError::InvalidRewrite => (Configuration, StatusCode::INTERNAL_SERVER_ERROR, "invalid_rewrite", UNEXPECTED, false),
            RequestError::AuthorizationUnavailable => (Backend, StatusCode::SERVICE_UNAVAILABLE, "external_auth_unavailable", UNAVAILABLE, true),
            RequestError::AuthorizationTimeout => (Backend, StatusCode::SERVICE_UNAVAILABLE, "external_auth_timeout", UNAVAILABLE, true),
            RequestError::InvalidAuthorization => (Backend, StatusCode::INTERNAL_SERVER_ERROR, "external_auth_invalid", UNEXPECTED, true),
            RequestError::NoEndpoints => (Backend, StatusCode::SERVICE_UNAVAILABLE, "no_endpoints", UNAVAILABLE, true),
            RequestError::Unavailable => (Backend, StatusCode::SERVICE_UNAVAILABLE, "unavailable", UNAVAILABLE, true),
            RequestError::RingBalancerUnavailable => (Backend, StatusCode::SERVICE_UNAVAILABLE, "unavailable", NO_PEER, true),
            RequestError::RetryBudget => (Backend, StatusCode::SERVICE_UNAVAILABLE, "retry_budget", UNAVAILABLE, false),
            RequestError::OverLimit => (Configuration, StatusCode::SERVICE_UNAVAILABLE, "over_limit", "Too many requests at a time", true),
            RequestError::QueueTimeout => (Configuration, StatusCode::SERVICE_UNAVAILABLE, "queue_timeout", "Too many requests at a time", true),
            RequestError::CircuitOpen { .. } => (Backend, StatusCode::SERVICE_UNAVAILABLE, "circuit_open", UNAVAILABLE, true),
            RequestError::NoRingBalancerPeer => (Backend, StatusCode::SERVICE_UNAVAILABLE, "no_endpoints", NO_PEER, true),
            RequestError::RingBalancerConnectionRefused => (Backend, StatusCode::BAD_GATEWAY, CONNECTION_REFUSED, INVALID_RESPONSE, true),
            RequestError::ConnectionLimit => (Configuration, StatusCode::SERVICE_UNAVAILABLE, "connection_limit", "Too many requests at a time", true),
            RequestError::BufferLimit => (Configuration, StatusCode::SERVICE_UNAVAILABLE, "buffer_limit", "Too many requests at a time", true),
            RequestError::ConnectionRefused => (Backend, StatusCode::SERVICE_UNAVAILABLE, CONNECTION_REFUSED, UNAVAILABLE, true),
            RequestError::TlsHandshake => (Backend, StatusCode::BAD_GATEWAY, "tls_handshake", INVALID_RESPONSE, false),
            RequestError::ConnectTimeout => (Backend, StatusCode::GATEWAY_TIMEOUT, "connect_timeout", TIMED_OUT, true),
            RequestError::ResponseTimeout => (Backend, StatusCode::GATEWAY_TIMEOUT, "response_timeout", TIMED_OUT, false),
            RequestError::RequestTimeout => (Backend, StatusCode::GATEWAY_TIMEOUT, "request_timeout", TIMED_OUT, false),
            RequestError::BackendRequestTimeout => (Backend, StatusCode::GATEWAY_TIMEOUT, "backend_request_timeout", TIMED_OUT, false),
            RequestError::CallDeadline => (Backend, StatusCode::GATEWAY_TIMEOUT, "call_deadline", TIMED_OUT, false),
            RequestError::InvalidResponse => (Backend, StatusCode::BAD_GATEWAY, "invalid_response", INVALID_RESPONSE, false),
            RequestError::NoResponse => (Backend, StatusCode::BAD_GATEWAY, "no_response", INVALID_RESPONSE, false),
        };
        let grpc_status = match self {
            // No service has the method.
            RequestError::NoRoute | RequestError::NoListener => Some(GRPC_UNIMPLEMENTED),
            RequestError::InvalidRule(RouteFailure::NoBackends | RouteFailure::InvalidBackend) => {
                Some(GRPC_UNAVAILABLE)
            }
            // A connection that was not established, or was lost: clients may repeat the call.
            RequestError::ConnectionRefused
            | RequestError::RingBalancerConnectionRefused
            | RequestError::ConnectTimeout
            | RequestError::TlsHandshake
            | RequestError::NoResponse => Some(GRPC_UNAVAILABLE),
            _ => None,
        };
        ErrorDetails { blame, status, grpc_status, reason, message, retryable }
    }
}

const GRPC_UNIMPLEMENTED: u16 = 12;
const GRPC_UNAVAILABLE: u16 = 14;

/// [`CLIENT_DISCONNECTED_STATUS`] as a status.
pub(in crate::proxy) fn client_disconnected_status() -> StatusCode {
    StatusCode::from_u16(CLIENT_DISCONNECTED_STATUS).expect("three digits are a status")
}

// Reasons of errors for which no error response can be sent.

/// The endpoint closed the connection or stream before its response was complete.
pub(in crate::proxy) const RESPONSE_TRUNCATED: &str = "response_truncated";
/// The authorization server has denied the request.
pub(in crate::proxy) const EXTERNAL_AUTH_DENIED: &str = "external_auth_denied";
/// The client disconnected before the response was complete.
pub(in crate::proxy) const CLIENT_DISCONNECTED: &str = "client_disconnected";
/// The client reads a response more slowly than the minimum rate.
pub(in crate::proxy) const SLOW_CLIENT: &str = "slow_client";
/// Recorded if the client disconnected before a response, and sent with [`RequestError::GrpcsOnly`]. nginx uses the
/// same number.
const CLIENT_DISCONNECTED_STATUS: u16 = 499;
/// An HTTP/2 stream was rejected before it became a request.
pub(in crate::proxy) const REFUSED_STREAM: &str = "refused_stream";
/// The client sent too many HTTP/2 frames that carry no request.
pub(in crate::proxy) const HTTP2_FLOOD: &str = "http2_flood";
pub(in crate::proxy) const HTTP2_FLOOD_STATUS: StatusCode = StatusCode::TOO_MANY_REQUESTS;
/// An upgraded connection exceeded its idle timeout.
pub(in crate::proxy) const TUNNEL_IDLE: &str = "tunnel_idle";
/// One side of an upgraded connection failed.
pub(in crate::proxy) const TUNNEL_BROKEN: &str = "tunnel_broken";
/// An upgraded connection was still open when its listener was removed or the process stopped.
pub(in crate::proxy) const TUNNEL_CLOSED: &str = "tunnel_closed";
/// A message of a WebSocket was longer than the limit of its sender.
pub(in crate::proxy) const CLIENT_MESSAGE_TOO_LARGE: &str = "client_message_too_large";
pub(in crate::proxy) const ENDPOINT_MESSAGE_TOO_LARGE: &str = "endpoint_message_too_large";
/// A frame of a WebSocket whose messages have a limit was invalid.
pub(in crate::proxy) const INVALID_CLIENT_FRAME: &str = "invalid_client_frame";
pub(in crate::proxy) const INVALID_ENDPOINT_FRAME: &str = "invalid_endpoint_frame";

// Kong's messages, which dashboards and clients may match.
const NO_ROUTE: &str = "no Route matched with those values";
const NO_SERVICE: &str = "no Service found with those values";
const NO_BACKEND: &str = "no existing backendRef provided";
const NO_PEER: &str = "failure to get a peer from the ring-balancer";
const UNEXPECTED: &str = "An unexpected error occurred";
const INVALID_RESPONSE: &str = "An invalid response was received from the upstream server";
const UNAVAILABLE: &str = "The upstream server is currently unavailable";
const TIMED_OUT: &str = "The upstream server is timing out";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::HeaderValue;
    use http::header::ALLOW;

    use super::*;
    use crate::proxy::http::steps::error_response::ErrorFormat;

    /// `docs/request-errors.md` explains exactly the reasons that exist.
    #[test]
    fn documentation_lists_every_error() {
        let existing: BTreeSet<String> = every_error().map(row).chain(rows_without_response()).collect();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/request-errors.md");
        let text = std::fs::read_to_string(page).unwrap();
        let documented: BTreeSet<String> =
            text.lines().filter(|line| is_reason(line)).map(|line| cells(line, DOCUMENTED_CELLS)).collect();
        let missing: Vec<_> = existing.difference(&documented).collect();
        let stale: Vec<_> = documented.difference(&existing).collect();
        assert!(missing.is_empty() && stale.is_empty(), "{page}: missing {missing:#?}, obsolete {stale:#?}");
    }

    /// Reason, status, message, responsible party, whether the client may retry. The cells after them are free text.
    const DOCUMENTED_CELLS: usize = 5;

    /// Rows about connections start with the name of a metric instead of a reason.
    fn is_reason(line: &str) -> bool {
        line.starts_with("| `") && !line.starts_with("| `portico_")
    }

    /// The documented cells of an error.
    fn row(error: RequestError) -> String {
        let details = error.details();
        let varies = matches!(
            error,
            RequestError::InvalidTarget(_) | RequestError::InvalidHost(_) | RequestError::AmbiguousFraming(_)
        );
        let message = if varies { "the details" } else { details.message };
        let blame = match details.blame {
            Blame::Client => "client",
            Blame::Backend => "backend",
            Blame::Configuration => "configuration",
        };
        let retryable = if details.retryable { "yes" } else { "no" };
        format!("| `{}` | {} | {message} | {blame} | {retryable} |", details.reason, details.status.as_u16())
    }

    fn rows_without_response() -> impl Iterator<Item = String> {
        let [disconnected, flood] = [CLIENT_DISCONNECTED_STATUS, HTTP2_FLOOD_STATUS.as_u16()]
            .map(|status| format!("{status}, in log and metrics only"));
        let rows = [
            (RESPONSE_TRUNCATED, "that of the response", "backend"),
            (EXTERNAL_AUTH_DENIED, "that of the response", "client"),
            (CLIENT_DISCONNECTED, disconnected.as_str(), "client"),
            (SLOW_CLIENT, "that of the response", "client"),
            (REFUSED_STREAM, "431, or a reset", "client"),
            (HTTP2_FLOOD, flood.as_str(), "client"),
            (TUNNEL_IDLE, "that of the response", "none"),
            (TUNNEL_BROKEN, "that of the response", "none"),
            (TUNNEL_CLOSED, "that of the response", "none"),
            (CLIENT_MESSAGE_TOO_LARGE, "that of the response", "client"),
            (ENDPOINT_MESSAGE_TOO_LARGE, "that of the response", "backend"),
            (INVALID_CLIENT_FRAME, "that of the response", "client"),
            (INVALID_ENDPOINT_FRAME, "that of the response", "backend"),
        ];
        rows.map(|(reason, status, blame)| format!("| `{reason}` | {status} | none | {blame} | no |")).into_iter()
    }

    /// The first cells of a row.
    fn cells(line: &str, count: usize) -> String {
        let cells: Vec<_> = line.split('|').take(count + 1).map(str::trim).collect();
        format!("| {} |", cells[1..].join(" | "))
    }

    /// Each variant once. The match fails to compile for a new variant, which must then be added to the list too.
    fn every_error() -> impl Iterator<Item = RequestError> {
        const TEXT: &str = "";
        let all = [
            RequestError::InvalidTarget(TEXT),
            RequestError::InvalidHost(TEXT),
            RequestError::AmbiguousFraming(TEXT),
            RequestError::MalformedRequest,
            RequestError::UnsupportedVersion,
            RequestError::TargetTooLong,
            RequestError::TargetTooLongToMatch,
            RequestError::HeaderTooLongToMatch,
            RequestError::HeaderTooLarge,
            RequestError::TooManyHeaders,
            RequestError::UpgradeNotSupported,
            RequestError::InvalidBody,
            RequestError::BodyTooLarge,
            RequestError::ExpectedBodyTooLarge,
            RequestError::PluginTimeout,
            RequestError::ConnectNotSupported,
            RequestError::TraceNotAllowed,
            RequestError::UnsupportedExpectation,
            RequestError::LoopDetected,
            RequestError::RequestBodyTimeout,
            RequestError::SlowRequestBody,
            RequestError::MisdirectedRequest,
            RequestError::NoListener,
            RequestError::NoRoute,
            RequestError::InvalidRule(RouteFailure::NoBackends),
            RequestError::InvalidRule(RouteFailure::InvalidBackend),
            RequestError::InvalidRule(RouteFailure::Unsupported),
            RequestError::InvalidRule(RouteFailure::NoService),
            RequestError::InvalidRule(RouteFailure::WithoutService),
            RequestError::InvalidRule(RouteFailure::NoDefaultBackend),
            RequestError::InvalidRule(RouteFailure::UnsupportedProtection),
            RequestError::HttpsOnly,
            RequestError::Http2Only,
            RequestError::NotGrpc,
            RequestError::GrpcsOnly,
            RequestError::InvalidRewrite,
            RequestError::InvalidRule(RouteFailure::NoAuthorizationServer),
            RequestError::AuthorizationUnavailable,
            RequestError::AuthorizationTimeout,
            RequestError::InvalidAuthorization,
            RequestError::NoEndpoints,
            RequestError::Unavailable,
            RequestError::RingBalancerUnavailable,
            RequestError::RetryBudget,
            RequestError::OverLimit,
            RequestError::QueueTimeout,
            RequestError::CircuitOpen { retry_after: 1 },
            RequestError::NoRingBalancerPeer,
            RequestError::RingBalancerConnectionRefused,
            RequestError::ConnectionLimit,
            RequestError::BufferLimit,
            RequestError::ConnectionRefused,
            RequestError::TlsHandshake,
            RequestError::ConnectTimeout,
            RequestError::ResponseTimeout,
            RequestError::RequestTimeout,
            RequestError::BackendRequestTimeout,
            RequestError::CallDeadline,
            RequestError::InvalidResponse,
            RequestError::NoResponse,
        ];
        all.into_iter().inspect(|error| match error {
            RequestError::InvalidTarget(_)
            | RequestError::InvalidHost(_)
            | RequestError::AmbiguousFraming(_)
            | RequestError::TooManyHeaders => {}
            RequestError::MalformedRequest
            | RequestError::UnsupportedVersion
            | RequestError::TargetTooLong
            | RequestError::HeaderTooLarge => {}
            RequestError::TargetTooLongToMatch | RequestError::HeaderTooLongToMatch => {}
            RequestError::UpgradeNotSupported
            | RequestError::InvalidBody
            | RequestError::BodyTooLarge
            | RequestError::ExpectedBodyTooLarge
            | RequestError::PluginTimeout
            | RequestError::ConnectNotSupported
            | RequestError::TraceNotAllowed => {}
            RequestError::UnsupportedExpectation
            | RequestError::LoopDetected
            | RequestError::RequestBodyTimeout
            | RequestError::SlowRequestBody
            | RequestError::MisdirectedRequest
            | RequestError::NoListener
            | RequestError::NoRoute => {}
            RequestError::InvalidRule(
                RouteFailure::NoBackends | RouteFailure::InvalidBackend | RouteFailure::Unsupported,
            ) => {}
            RequestError::InvalidRule(RouteFailure::NoAuthorizationServer)
            | RequestError::AuthorizationUnavailable
            | RequestError::AuthorizationTimeout
            | RequestError::InvalidAuthorization => {}
            RequestError::InvalidRule(
                RouteFailure::NoService
                | RouteFailure::WithoutService
                | RouteFailure::NoDefaultBackend
                | RouteFailure::UnsupportedProtection,
            )
            | RequestError::NoRingBalancerPeer
            | RequestError::RingBalancerConnectionRefused => {}
            RequestError::HttpsOnly | RequestError::Http2Only | RequestError::NotGrpc | RequestError::GrpcsOnly => {}
            RequestError::InvalidRewrite
            | RequestError::NoEndpoints
            | RequestError::Unavailable
            | RequestError::RingBalancerUnavailable
            | RequestError::OverLimit
            | RequestError::RetryBudget
            | RequestError::ConnectionLimit
            | RequestError::BufferLimit
            | RequestError::ConnectionRefused
            | RequestError::ConnectTimeout => {}
            RequestError::TlsHandshake | RequestError::QueueTimeout | RequestError::CircuitOpen { .. } => {}
            RequestError::ResponseTimeout | RequestError::RequestTimeout | RequestError::BackendRequestTimeout => {}
            RequestError::CallDeadline | RequestError::InvalidResponse | RequestError::NoResponse => {}
        })
    }

    /// RFC 9110, section 15.5.6.
    #[test]
    fn method_not_allowed_lists_allowed_methods() {
        let id = HeaderValue::from_static("id");
        for error in every_error() {
            let response = ErrorFormat::default().render_error(&error.details(), &id);
            let is_about_method = matches!(error, RequestError::ConnectNotSupported | RequestError::TraceNotAllowed);
            assert_eq!(response.headers().contains_key(ALLOW), is_about_method, "{error:?}");
        }
    }
}
