//! `limits` and `circuitBreaker`.

use serde_json::{Value, json};

use super::form::{backend_reference, duration, list, object, thousandths};
use crate::upstream::BackendTraffic;
use crate::upstream::settings::{
    AdaptiveLimit, AdmissionControl, CircuitBreakerSettings, FallbackResponse, OverloadSettings, RequestLimits,
};

/// The settings by the path in `spec`; `None` for blocks that are absent.
pub(in crate::app) fn overload_blocks(traffic: &BackendTraffic) -> [(&'static str, Option<Value>); 2] {
    let OverloadSettings { limits: request_limits, circuit_breaker: breaker } = &traffic.overload;
    let fallback = traffic.alternatives.as_ref().and_then(|alternatives| alternatives.circuit_fallback.as_ref());
    let backend = fallback.map(backend_reference);
    [
        ("limits", request_limits.as_deref().map(limits)),
        ("circuitBreaker", breaker.as_deref().map(|breaker| circuit_breaker(breaker, backend))),
    ]
}

fn limits(limits: &RequestLimits) -> Value {
    let RequestLimits {
        max_connections,
        max_requests,
        max_pending,
        queue_timeout,
        max_requests_per_endpoint,
        max_requests_per_connection,
        max_retries,
        max_connection_age,
        adaptive,
        admission,
    } = limits;
    let count = |limit: &Option<u32>| limit.map(|limit| json!(limit));
    let admission = admission.map(|settings| {
        let AdmissionControl { threshold_percent, aggression, max_reject_percent, window } = settings;
        object([
            ("thresholdPercent", Some(json!(threshold_percent))),
            ("aggression", Some(thousandths(aggression))),
            ("maxRejectPercent", Some(json!(max_reject_percent))),
            ("window", Some(duration(window))),
        ])
    });
    object([
        ("maxConnections", count(max_connections)),
        ("maxRequests", count(max_requests)),
        ("maxPending", count(max_pending)),
        ("queueTimeout", (!queue_timeout.is_zero()).then(|| duration(*queue_timeout))),
        ("maxRequestsPerEndpoint", count(max_requests_per_endpoint)),
        ("maxRequestsPerConnection", count(max_requests_per_connection)),
        ("maxRetries", count(max_retries)),
        ("maxConnectionAge", max_connection_age.map(duration)),
        ("adaptive", adaptive.map(|AdaptiveLimit { min, max }| json!({"min": min, "max": max}))),
        ("admission", admission),
    ])
}

/// `fallback`: the reference to the backend that gets the requests while the circuit is open.
pub(super) fn circuit_breaker(settings: &CircuitBreakerSettings, fallback: Option<Value>) -> Value {
    let CircuitBreakerSettings {
        window,
        min_requests,
        error_percent,
        slow,
        consecutive,
        statuses,
        open_for,
        max_open_for,
        probes,
        successes,
        ramp_up,
        fallback: response,
    } = settings;
    let fallback = match (response, fallback) {
        (Some(response), _) => Some(json!({"response": fallback_response(response)})),
        (None, backend) => backend.map(|backend| json!({"backendRef": backend})),
    };
    object([
        ("window", Some(duration(*window))),
        ("minRequests", Some(json!(min_requests))),
        ("errorPercent", Some(json!(error_percent))),
        ("slowAfter", slow.map(|slow| duration(slow.after))),
        ("slowPercent", slow.map(|slow| json!(slow.percent))),
        ("consecutive", consecutive.map(|count| json!(count))),
        ("statuses", list(statuses)),
        ("openFor", Some(duration(*open_for))),
        ("maxOpenFor", Some(duration(*max_open_for))),
        ("probes", Some(json!(probes))),
        ("successes", Some(json!(successes))),
        ("rampUp", Some(duration(*ramp_up))),
        ("fallback", fallback),
    ])
}

/// Clients get all of it.
fn fallback_response(response: &FallbackResponse) -> Value {
    let FallbackResponse { status, headers, body } = response;
    let texts = headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
    let headers: Vec<Value> = texts.map(|(name, value)| json!({"name": name, "value": value})).collect();
    object([
        ("status", Some(json!(status.as_u16()))),
        ("headers", list(&headers)),
        ("body", (!body.is_empty()).then(|| json!(String::from_utf8_lossy(body)))),
    ])
}
