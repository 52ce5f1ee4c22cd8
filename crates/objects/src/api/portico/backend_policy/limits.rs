//! `spec.limits`: how much the endpoints of a Service get at a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::{count, decimal, duration_between, percent};
use crate::api::gateway::schema::rule::rule;

/// Limits of each process of Portico. An absent field is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "(has(self.queueTimeout) && duration(self.queueTimeout) > duration('0s')) == has(self.maxPending)",
    "requests wait only if maxPending and queueTimeout are both set; add the missing one, or remove the other",
))]
pub struct LimitsSpec {
    /// Connections to all endpoints.
    #[schemars(transform = count)]
    pub max_connections: Option<i32>,
    /// Requests in progress.
    #[schemars(transform = count)]
    pub max_requests: Option<i32>,
    /// Requests that wait because the other limits are reached.
    #[schemars(transform = count)]
    pub max_pending: Option<i32>,
    /// How long a request may wait; defaults to 0s: requests do not wait.
    #[schemars(transform = duration_between("0s", "1h"))]
    pub queue_timeout: Option<String>,
    /// Requests in progress of one endpoint.
    #[schemars(transform = count)]
    pub max_requests_per_endpoint: Option<i32>,
    /// A connection is closed after this number of requests.
    #[schemars(transform = count)]
    pub max_requests_per_connection: Option<i32>,
    /// Retries in progress.
    #[schemars(transform = count)]
    pub max_retries: Option<i32>,
    /// A connection gets no new requests after this time, 10 % more or less.
    #[schemars(transform = duration_between("1s", "9999h"))]
    pub max_connection_age: Option<String>,
    /// A limit of requests in progress that follows the latency of the endpoints.
    pub adaptive: Option<AdaptiveLimitSpec>,
    /// Rejects a share of the requests while too many fail.
    pub admission: Option<AdmissionControlSpec>,
}

/// A limit of requests in progress that follows the latency of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "(has(self.min) ? self.min : 10) <= (has(self.max) ? self.max : 1000)",
    "min, which defaults to 10, is greater than max, which defaults to 1000; reduce min, or increase max",
))]
pub struct AdaptiveLimitSpec {
    /// The limit is never lower; defaults to 10.
    #[schemars(transform = count)]
    pub min: Option<i32>,
    /// The limit is never higher; defaults to 1000.
    #[schemars(transform = count)]
    pub max: Option<i32>,
}

/// Rejects a share of the requests while too many fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionControlSpec {
    /// Requests are rejected while a smaller share of them succeeds, in percent; defaults to 95.
    #[schemars(transform = percent)]
    pub threshold_percent: Option<i32>,
    /// How fast the share of rejected requests grows; defaults to `"1.0"`, linear growth. Above 0, at most 10.
    #[schemars(transform = decimal, transform = rule(
        "double(self) > 0.0 && double(self) <= 10.0",
        "the number is out of range; choose one above 0 and at most 10",
    ))]
    pub aggression: Option<String>,
    /// The largest share of requests that is rejected, in percent; defaults to 80.
    #[schemars(transform = percent)]
    pub max_reject_percent: Option<i32>,
    /// The time over which successes are counted; defaults to 30s.
    #[schemars(transform = duration_between("1s", "1h"))]
    pub window: Option<String>,
}
