//! When an upstream gets no requests for a while, because too many have failed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// The circuit breaker of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreakerSettings {
    pub window: Duration,
    /// The circuit stays closed while the window has fewer requests.
    pub min_requests: u32,
    pub error_percent: u8,
    pub slow: Option<SlowRequests>,
    /// Consecutive errors that open the circuit, however many requests the window has.
    pub consecutive: Option<u32>,
    /// What counts as an error besides requests without a response, sorted; empty for 500 to 599.
    pub statuses: Box<[u16]>,
    /// How long the circuit is open. Doubles each time it opens again, up to `max_open_for`.
    pub open_for: Duration,
    pub max_open_for: Duration,
    /// Requests at a time while the circuit is half-open.
    pub probes: u32,
    /// Successful requests in a row that close a half-open circuit.
    pub successes: u32,
    /// The time over which the share of admitted requests grows to all of them.
    pub ramp_up: Duration,
    /// The response while the circuit is open; 503 if `None`.
    pub fallback: Option<FallbackResponse>,
}

/// Responses that are slow count as errors if they are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowRequests {
    pub after: Duration,
    pub percent: u8,
}

/// A response that replaces that of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}
