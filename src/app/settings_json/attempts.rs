//! `retry`, `retryBudget` and `timeouts`.

use http::HeaderName;
use serde_json::{Value, json};

use super::form::{duration, list, object};
use crate::upstream::settings::{RequestTimeouts, ResetHeader, RetryConditions, RetrySettings, TimeFormat};
use crate::upstream::{OverBudget, RetryLimits};

pub(super) fn retry(settings: &RetrySettings) -> Value {
    let RetrySettings {
        attempts,
        on,
        base,
        max,
        max_retry_after,
        reset_header,
        non_idempotent,
        trust_idempotency_key,
        max_body,
        hedge,
        attempt_header,
        respects_attempt,
    } = settings;
    let reset_header = reset_header.as_ref().map(|ResetHeader { name, format }| {
        let format = match format {
            TimeFormat::Seconds => "Seconds",
            TimeFormat::UnixTimestamp => "UnixTimestamp",
        };
        json!({"name": name.as_str(), "format": format})
    });
    let header_names: Vec<&str> = on.headers.iter().map(HeaderName::as_str).collect();
    object([
        ("attempts", Some(json!(attempts))),
        ("retryOn", list(&conditions(on))),
        ("codes", list(&on.codes)),
        ("grpcCodes", list(&on.grpc_codes)),
        ("headers", list(&header_names)),
        ("backoff", Some(json!({"base": duration(*base), "max": duration(*max)}))),
        ("maxRetryAfter", Some(duration(*max_retry_after))),
        ("resetHeader", reset_header),
        ("nonIdempotent", Some(json!(non_idempotent))),
        ("trustIdempotencyKey", Some(json!(trust_idempotency_key))),
        ("maxBody", Some(json!(size(*max_body)))),
        ("hedge", hedge.map(|hedge| object([("delay", hedge.delay.map(duration))]))),
        ("attemptHeader", attempt_header.as_ref().map(|name| json!(name.as_str()))),
        ("respectAttempt", Some(json!(respects_attempt))),
    ])
}

/// The names of the conditions.
fn conditions(on: &RetryConditions) -> Vec<&'static str> {
    let RetryConditions {
        connect_failure,
        refused_stream,
        reset,
        timeout,
        gateway_error,
        server_error,
        codes,
        grpc_codes,
        headers,
    } = on;
    let named = [
        ("ConnectFailure", *connect_failure),
        ("RefusedStream", *refused_stream),
        ("Reset", *reset),
        ("Timeout", *timeout),
        ("GatewayError", *gateway_error),
        ("ServerError", *server_error),
        ("Codes", !codes.is_empty()),
        ("GrpcCodes", !grpc_codes.is_empty()),
        ("RetriableHeader", !headers.is_empty()),
    ];
    named.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
}

/// Bytes in the largest unit in which they are a whole number.
fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{}Mi", bytes >> 20),
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{}Ki", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

pub(super) fn retry_budget(limits: &RetryLimits) -> Value {
    let RetryLimits { percent, interval, min_count, min_interval, over_budget } = *limits;
    object([
        ("percent", Some(json!(percent))),
        ("interval", Some(duration(interval))),
        ("minRetryRate", Some(json!({"count": min_count, "interval": duration(min_interval)}))),
        // Only an XBackendTrafficPolicy requires that.
        ("overBudget", (over_budget == OverBudget::Reject).then(|| json!("Reject"))),
    ])
}

pub(super) fn timeouts(timeouts: &RequestTimeouts) -> Value {
    let RequestTimeouts { connect, idle, request, backend_request, stream_idle, max_duration } = *timeouts;
    object([
        ("connect", connect.map(duration)),
        ("idle", idle.map(duration)),
        ("request", request.map(duration)),
        ("backendRequest", backend_request.map(duration)),
        ("streamIdle", stream_idle.map(duration)),
        ("maxDuration", max_duration.map(duration)),
    ])
}
