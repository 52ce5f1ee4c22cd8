//! XBackendTrafficPolicy: a retry budget and session persistence for Services. Experimental.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::LocalObjectReference;
use super::schema::form;
use super::schema::rule::rule;
use super::schema::transforms::{keyed_by, without_format};
use super::session_persistence::SessionPersistence;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct XBackendTrafficPolicy {
    pub spec: XBackendTrafficPolicySpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct XBackendTrafficPolicySpec {
    #[schemars(length(min = 1, max = 16), transform = keyed_by(["group", "kind", "name"]))]
    pub target_refs: Vec<LocalObjectReference>,
    pub retry_constraint: Option<RetryConstraint>,
    pub session_persistence: Option<SessionPersistence>,
}

/// The limit of retries: the budget, or the minimum rate if that is higher.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryConstraint {
    #[schemars(extend("default" = { "percent": 20, "interval": "10s" }))]
    pub budget: Option<RetryBudget>,
    #[schemars(extend("default" = { "count": 10, "interval": "1s" }))]
    pub min_retry_rate: Option<RetryRate>,
}

/// Maximum share of retries among the requests of the last interval.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    #[schemars(range(min = 0, max = 100), transform = without_format, extend("default" = 20))]
    pub percent: Option<i32>,
    #[schemars(extend("default" = "10s"), transform = form::duration, transform = rule(
        "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "the interval is shorter than a second or longer than an hour; choose one from 1s to 1h",
    ))]
    pub interval: Option<String>,
}

/// Retries that are allowed in any case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryRate {
    /// Number of retries in `interval`.
    #[schemars(range(min = 1, max = 1_000_000), transform = without_format)]
    pub count: Option<i32>,
    /// The time in which they are counted.
    #[schemars(transform = form::duration, transform = rule(
        "duration(self) > duration('0s') && duration(self) <= duration('1h')",
        "the interval is zero or longer than an hour; choose one from 1ms to 1h",
    ))]
    pub interval: Option<String>,
}
