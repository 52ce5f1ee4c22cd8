//! What keeps a Service from more requests than it can take.

use std::sync::Arc;

use super::{CircuitBreakerSettings, RequestLimits};

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
