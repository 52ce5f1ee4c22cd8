//! When an endpoint is ejected because of its responses.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{ActiveCheck, json_form};

/// The health checks of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// At most this percentage of the endpoints is ejected because of responses. One always may be, but the last
    /// available one only with `ejects_last`. Endpoints to which no connection can be opened count, but are not
    /// limited.
    pub max_ejection_percent: u8,
    /// Whether responses eject the last available endpoint, too.
    pub ejects_last: bool,
    pub passive: PassiveChecks,
    pub active: Option<Arc<ActiveCheck>>,
}

/// What requests show. Counts are consecutive; 0 switches a check off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PassiveChecks {
    pub connect_failures: u32,
    /// Connections that closed without a response, invalid responses, timeouts.
    pub local_origin_failures: u32,
    /// What [`is_gateway_error`](super::is_gateway_error) counts.
    pub gateway_errors: u32,
    /// Server errors, or else `statuses`: `is_listed_or_server_error`.
    pub server_errors: u32,
    /// What counts for `server_errors`, sorted. Empty for the default.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub statuses: Box<[u16]>,
    /// A timeout counts only if the endpoint had at least this time.
    #[serde(serialize_with = "json_form::duration")]
    pub timeout_after: Duration,
    /// How often rates are compared, and ejection times fall.
    #[serde(serialize_with = "json_form::duration")]
    pub interval: Duration,
    #[serde(serialize_with = "json_form::duration")]
    pub base_ejection: Duration,
    #[serde(serialize_with = "json_form::duration")]
    pub max_ejection: Duration,
    /// Successful requests after which an endpoint that was ejected is healthy.
    pub half_open_successes: u32,
    pub success_rate: Option<SuccessRate>,
    pub failure_percentage: Option<FailurePercentage>,
}

impl PassiveChecks {
    /// Whether a check counts the statuses of responses.
    pub(in crate::upstream) fn counts_statuses(&self) -> bool {
        self.gateway_errors > 0 || self.server_errors > 0
    }

    /// Whether a check compares the rates of endpoints.
    pub(in crate::upstream) fn counts_rates(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }
}

/// Ejects endpoints whose success rate is lower than that of the others: below `mean - factor * standard deviation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRate {
    /// The check is off if fewer endpoints have `min_requests` in an interval.
    pub min_endpoints: u32,
    pub min_requests: u32,
    /// In thousandths.
    #[serde(serialize_with = "json_form::thousandths")]
    pub stdev_factor: u32,
}

/// Ejects endpoints of whose requests at least this percentage fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailurePercentage {
    pub threshold: u8,
    pub min_endpoints: u32,
    pub min_requests: u32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        HealthSettings { max_ejection_percent: 50, ejects_last: false, passive: PassiveChecks::default(), active: None }
    }
}

impl Default for PassiveChecks {
    fn default() -> Self {
        PassiveChecks {
            connect_failures: 1,
            local_origin_failures: 5,
            gateway_errors: 0,
            server_errors: 0,
            statuses: Box::default(),
            timeout_after: Duration::from_secs(5),
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            half_open_successes: 1,
            success_rate: None,
            failure_percentage: None,
        }
    }
}
