//! `spec.circuitBreaker`: when Portico stops sending requests because too many fail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::{count, duration_between, error_status, percent};
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::{each, keyed_by};
use crate::api::gateway::{BackendObjectReference, Header};

/// When Portico stops sending requests because too many fail. Each process has a circuit of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "has(self.slowAfter) == has(self.slowPercent)",
    "slowAfter and slowPercent need each other; add the missing one, or remove the other",
))]
#[schemars(transform = rule(
    "duration(has(self.openFor) ? self.openFor : '10s') <= duration(has(self.maxOpenFor) ? self.maxOpenFor : '60s')",
    "openFor is longer than maxOpenFor, which defaults to 60s; shorten openFor, or lengthen maxOpenFor",
))]
pub struct CircuitBreakerSpec {
    /// The time over which requests are counted; defaults to 10s.
    #[schemars(transform = duration_between("1s", "1h"))]
    pub window: Option<String>,
    /// The circuit stays closed while there were fewer requests in the window; defaults to 20.
    #[schemars(transform = count)]
    pub min_requests: Option<i32>,
    /// The share of failed requests that opens the circuit, in percent; defaults to 50.
    #[schemars(transform = percent)]
    pub error_percent: Option<i32>,
    /// A response after this time is slow.
    #[schemars(transform = duration_between("1ms", "1h"))]
    pub slow_after: Option<String>,
    /// The share of slow responses that opens the circuit, in percent.
    #[schemars(transform = percent)]
    pub slow_percent: Option<i32>,
    /// Consecutive failures that open the circuit, however many requests there were.
    #[schemars(transform = count)]
    pub consecutive: Option<i32>,
    /// The statuses of failed requests, in place of 500 to 599 except 501 and 505. Requests without a response always
    /// count as failed.
    #[serde(default)]
    #[schemars(length(max = 16), transform = each(error_status))]
    pub statuses: Vec<i32>,
    /// How long the circuit is open at first; doubles each time it opens again. Defaults to 10s.
    #[schemars(transform = duration_between("1s", "1h"))]
    pub open_for: Option<String>,
    /// The circuit is never open for longer at a time; defaults to 60s.
    #[schemars(transform = duration_between("1s", "24h"))]
    pub max_open_for: Option<String>,
    /// Requests at a time that test the endpoints afterwards; defaults to 1.
    #[schemars(range(min = 1, max = 100))]
    pub probes: Option<i32>,
    /// Consecutive successes of these requests that close the circuit; defaults to 5.
    #[schemars(range(min = 1, max = 100))]
    pub successes: Option<i32>,
    /// The time over which the share of requests then grows from 10 % to all of them; defaults to 10s.
    #[schemars(transform = duration_between("0s", "1h"))]
    pub ramp_up: Option<String>,
    /// The response to requests while the circuit is open; defaults to one with status 503.
    pub fallback: Option<CircuitFallback>,
}

/// The response to requests while the circuit is open: exactly one of response, backendRef and stale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "[has(self.response), has(self.backendRef), has(self.stale)].filter(is_set, is_set).size() == 1",
    "a fallback needs exactly one of response, backendRef and stale; keep one of them",
))]
pub struct CircuitFallback {
    /// A response that is always the same.
    pub response: Option<FallbackResponseSpec>,
    /// The backend that gets the requests. One of another namespace requires a ReferenceGrant there.
    pub backend_ref: Option<BackendObjectReference>,
    /// Not supported yet: the last response in the cache.
    pub stale: Option<StaleFallback>,
}

/// A response that is always the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FallbackResponseSpec {
    /// Status of the response; defaults to 503.
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<i32>,
    /// Header fields of the response.
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]))]
    pub headers: Vec<Header>,
    /// Body of the response; defaults to an empty one.
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
}

/// Not supported yet: the last response in the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct StaleFallback {}
