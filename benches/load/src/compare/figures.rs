//! The figures of one server in one round of a case.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Figures {
    /// Microseconds of CPU time per request at the fixed rate.
    #[serde(rename = "cpu_us")]
    pub(crate) cpu_paced: f64,
    /// Microseconds of CPU time per request at full speed, where one wake-up handles several requests.
    #[serde(rename = "cpu_us_full_speed")]
    pub(crate) cpu_full: f64,
    /// Requests per second at full speed.
    #[serde(rename = "requests_per_second")]
    pub(crate) per_second: f64,
    /// Used share of a core at full speed, for the server and for the load generator. If the load generator is at 1,
    /// the server is not saturated.
    pub(crate) busy: f64,
    pub(crate) load_busy: f64,
    /// Latencies at half of the server's capacity, if the case measures them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Latency>,
    /// Resident memory in MiB.
    #[serde(rename = "resident_mib")]
    pub(crate) resident: f64,
    /// Failed and wrong responses.
    pub(crate) bad: u64,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}
