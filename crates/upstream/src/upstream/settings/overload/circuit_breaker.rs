//! When an upstream gets no requests for a while, because too many have failed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Serialize, Serializer};

use super::super::json_form;

/// The circuit breaker of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreakerSettings {
    #[serde(serialize_with = "json_form::duration")]
    pub window: Duration,
    /// The circuit stays closed while the window has fewer requests.
    pub min_requests: u32,
    pub error_percent: u8,
    #[serde(flatten)]
    pub slow: Option<SlowRequests>,
    /// Consecutive errors that open the circuit, however many requests the window has.
    pub consecutive: Option<u32>,
    /// What counts as an error besides requests without a response, sorted; empty for 500 to 599.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub statuses: Box<[u16]>,
    /// How long the circuit is open. Doubles each time it opens again, up to `max_open_for`.
    #[serde(serialize_with = "json_form::duration")]
    pub open_for: Duration,
    #[serde(serialize_with = "json_form::duration")]
    pub max_open_for: Duration,
    /// Requests at a time while the circuit is half-open.
    pub probes: u32,
    /// Successful requests in a row that close a half-open circuit.
    pub successes: u32,
    /// The time over which the share of admitted requests grows to all of them.
    #[serde(serialize_with = "json_form::duration")]
    pub ramp_up: Duration,
    /// The response while the circuit is open; 503 if `None`.
    #[serde(serialize_with = "as_response")]
    pub fallback: Option<FallbackResponse>,
}

/// Responses that are slow count as errors if they are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlowRequests {
    #[serde(rename = "slowAfter", serialize_with = "json_form::duration")]
    pub after: Duration,
    #[serde(rename = "slowPercent")]
    pub percent: u8,
}

/// A response that replaces that of the endpoints. Clients get all of it, so nothing of it is hidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FallbackResponse {
    #[serde(serialize_with = "json_form::status")]
    pub status: StatusCode,
    #[serde(serialize_with = "json_form::public_headers", skip_serializing_if = "HeaderMap::is_empty")]
    pub headers: HeaderMap,
    #[serde(serialize_with = "json_form::text_of_bytes", skip_serializing_if = "Bytes::is_empty")]
    pub body: Bytes,
}

/// The other fallback is a backend, which is not a setting of the circuit breaker here.
fn as_response<S: Serializer>(response: &Option<FallbackResponse>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fallback<'a> {
        response: &'a FallbackResponse,
    }

    response.as_ref().map(|response| Fallback { response }).serialize(serializer)
}
