//! `spec.health`: how the health of endpoints is determined.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::active_check::ActiveCheckSpec;
use super::field_forms::{decimal, duration_between, error_status};
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::each;

/// How the health of endpoints is determined. `passive`, with `maxEjectionPercent`, and `active` are blocks of their
/// own: each may be that of another policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthSpec {
    /// The largest share of the endpoints that passive checks eject, in percent; defaults to 50. 0 ejects none of them.
    /// Otherwise one endpoint may always be ejected, but never the last one. Endpoints to which no connection can be
    /// opened are not limited.
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i32>,
    /// Checks of the responses to requests of clients.
    pub passive: Option<PassiveCheckSpec>,
    /// Requests that Portico sends to each endpoint.
    pub active: Option<ActiveCheckSpec>,
}

/// Checks of the responses to requests of clients. Counters are consecutive; 0 switches a check off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "duration(has(self.baseEjection) ? self.baseEjection : '30s') \
     <= duration(has(self.maxEjection) ? self.maxEjection : '300s')",
    "baseEjection is longer than maxEjection, which defaults to 300s; shorten baseEjection, or lengthen maxEjection",
))]
pub struct PassiveCheckSpec {
    /// Connections that could not be opened; defaults to 1.
    #[schemars(range(min = 0, max = 100))]
    pub connect_failures: Option<i32>,
    /// Connections that closed without a response, invalid responses, and timeouts; defaults to 5.
    #[schemars(range(min = 0, max = 100))]
    pub local_origin_failures: Option<i32>,
    /// Responses with status 502, 503 or 504; defaults to 0.
    #[schemars(range(min = 0, max = 100))]
    pub gateway_errors: Option<i32>,
    /// Responses with status 500 to 599 except 501 and 505, or with one of `statuses`; defaults to 0.
    #[schemars(range(min = 0, max = 100))]
    pub server_errors: Option<i32>,
    /// What counts for `serverErrors`, in place of 500 to 599 except 501 and 505.
    #[serde(default)]
    #[schemars(length(max = 16), transform = each(error_status))]
    pub statuses: Vec<i32>,
    /// A timeout counts only if the endpoint had this time for the response; defaults to 5s.
    #[schemars(transform = duration_between("0s", "1h"))]
    pub timeout_after: Option<String>,
    /// How often rates are compared, and ejection times of endpoints in service fall; defaults to 10s.
    #[schemars(transform = duration_between("1s", "1h"))]
    pub interval: Option<String>,
    /// The first ejection lasts for this time, the second for twice as long, and so on; defaults to 30s.
    #[schemars(transform = duration_between("1s", "1h"))]
    pub base_ejection: Option<String>,
    /// No ejection lasts longer; defaults to 300s.
    #[schemars(transform = duration_between("1s", "24h"))]
    pub max_ejection: Option<String>,
    /// Successful requests after an ejection until the endpoint is healthy; defaults to 1.
    #[schemars(range(min = 1, max = 100))]
    pub half_open_successes: Option<i32>,
    /// Ejects endpoints whose success rate is much lower than that of the others.
    pub success_rate: Option<SuccessRateSpec>,
    /// Ejects endpoints of whose requests too many fail.
    pub failure_percentage: Option<FailurePercentageSpec>,
}

/// Ejects endpoints whose success rate is lower than the mean of all minus `stdevFactor` standard deviations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRateSpec {
    /// Endpoints with enough requests that the comparison needs; defaults to 5.
    #[schemars(range(min = 2, max = 1000))]
    pub min_endpoints: Option<i32>,
    /// Requests of an endpoint in an interval that the comparison needs; defaults to 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i32>,
    /// Number of standard deviations; defaults to `"1.9"`. Above 0, at most 100.
    #[schemars(transform = decimal, transform = rule(
        "double(self) > 0.0 && double(self) <= 100.0",
        "the number is out of range; choose one above 0 and at most 100",
    ))]
    pub stdev_factor: Option<String>,
}

/// Ejects endpoints of whose requests at least `threshold` percent fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailurePercentageSpec {
    /// Percentage of failed requests; defaults to 85.
    #[schemars(range(min = 1, max = 100))]
    pub threshold: Option<i32>,
    /// Endpoints with enough requests that the check needs; defaults to 5.
    #[schemars(range(min = 1, max = 1000))]
    pub min_endpoints: Option<i32>,
    /// Requests of an endpoint in an interval that the check needs; defaults to 50.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i32>,
}
