//! What keeps a Service from more requests than it can take, and the limits that reject some.

mod circuit_breaker;
mod limits;

use std::sync::Arc;

pub use circuit_breaker::*;
pub use limits::*;

/// The settings of what may reject a request before an endpoint is chosen. Each is `None` if it is not configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverloadSettings {
    pub limits: Option<Arc<RequestLimits>>,
    pub circuit_breaker: Option<Arc<CircuitBreakerSettings>>,
}

impl OverloadSettings {
    /// Whether all requests are admitted.
    pub fn is_empty(&self) -> bool {
        *self == OverloadSettings::default()
    }
}

impl From<RequestLimits> for OverloadSettings {
    fn from(limits: RequestLimits) -> Self {
        OverloadSettings { limits: Some(Arc::new(limits)), ..OverloadSettings::default() }
    }
}

impl From<CircuitBreakerSettings> for OverloadSettings {
    fn from(circuit_breaker: CircuitBreakerSettings) -> Self {
        OverloadSettings { circuit_breaker: Some(Arc::new(circuit_breaker)), ..OverloadSettings::default() }
    }
}

/// What has rejected a request, a retry or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadLimit {
    /// `maxRequests`.
    Requests,
    /// The limit that follows the latency.
    Adaptive,
    /// `maxPending`: the queue is full.
    Pending,
    QueueTimeout,
    /// `maxRequestsPerEndpoint`: all endpoints have as many requests as they may.
    Endpoint,
    /// `maxConnections`.
    Connections,
    /// `maxRetries`.
    Retries,
    /// Admission control: too many requests fail.
    Admission,
    Circuit,
}

impl OverloadLimit {
    pub const ALL: [OverloadLimit; 9] = [
        OverloadLimit::Requests,
        OverloadLimit::Adaptive,
        OverloadLimit::Pending,
        OverloadLimit::QueueTimeout,
        OverloadLimit::Endpoint,
        OverloadLimit::Connections,
        OverloadLimit::Retries,
        OverloadLimit::Admission,
        OverloadLimit::Circuit,
    ];

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            OverloadLimit::Requests => "requests",
            OverloadLimit::Adaptive => "adaptive",
            OverloadLimit::Pending => "pending",
            OverloadLimit::QueueTimeout => "queue_timeout",
            OverloadLimit::Endpoint => "endpoint",
            OverloadLimit::Connections => "connections",
            OverloadLimit::Retries => "retries",
            OverloadLimit::Admission => "admission",
            OverloadLimit::Circuit => "circuit",
        }
    }
}
