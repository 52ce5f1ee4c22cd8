//! How much the endpoints of an upstream get at a time.

use std::time::Duration;

use serde::Serialize;

use super::super::json_form;

/// Limits of one process for an upstream. `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestLimits {
    pub max_connections: Option<u32>,
    /// Requests in progress.
    pub max_requests: Option<u32>,
    /// Requests that wait for a place. Without `queue_timeout`, none do.
    pub max_pending: Option<u32>,
    /// How long a request may wait for a place.
    #[serde(serialize_with = "json_form::duration", skip_serializing_if = "Duration::is_zero")]
    pub queue_timeout: Duration,
    pub max_requests_per_endpoint: Option<u32>,
    /// A connection is closed after this number of requests.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in progress.
    pub max_retries: Option<u32>,
    /// A connection gets no more requests after this time, 10 % more or less.
    #[serde(serialize_with = "json_form::duration")]
    pub max_connection_age: Option<Duration>,
    pub adaptive: Option<AdaptiveLimit>,
    pub admission: Option<AdmissionControl>,
}

/// A limit of requests in progress that follows the latency of the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdaptiveLimit {
    pub min: u32,
    pub max: u32,
}

/// Rejects a part of the requests while too many fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionControl {
    /// The success rate below which requests are rejected.
    pub threshold_percent: u8,
    /// In thousandths; 1000 for linear growth.
    #[serde(serialize_with = "json_form::thousandths")]
    pub aggression: u32,
    pub max_reject_percent: u8,
    #[serde(serialize_with = "json_form::duration")]
    pub window: Duration,
}
