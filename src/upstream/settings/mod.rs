//! What the configuration says about requests to the endpoints of a Service, whichever rule sends them: plain values,
//! without state.
//!
//! ```text
//!   BackendPolicy, XBackendTrafficPolicy, KongUpstreamPolicy, annotations ─▶ compile ─▶ settings ─▶ upstream
//! ```

mod active_check;
mod balancing;
mod balancing_algorithm;
mod circuit_breaker;
mod health;
mod limits;
mod overload;
mod request_hash;
mod retries;
mod set_cookie;
mod statuses;
mod timeouts;

pub use active_check::{
    ActiveCheck, CheckFailureKind, CheckKind, CheckResult, CheckType, FailureThresholds, InitialHealth, StatusRanges,
};
pub use balancing::{Balancing, FailoverLevel, Locality, LocalityMode, SlowStart, WhenUnhealthy};
pub use balancing_algorithm::{BalancingAlgorithm, HashTable, LatencyAverage};
pub use circuit_breaker::{CircuitBreakerSettings, FallbackResponse, SlowRequests};
pub use health::{FailurePercentage, HealthSettings, PassiveChecks, SuccessRate};
pub use limits::{AdaptiveLimit, AdmissionControl, RequestLimits};
pub use overload::OverloadSettings;
pub use request_hash::{CombineKeys, HashKey, HashSource, RequestHash};
pub use retries::{HedgeSettings, ResetHeader, RetryConditions, RetrySettings, TimeFormat};
pub use set_cookie::{SameSite, SetCookie};
pub use statuses::{is_gateway_error, is_listed_or_server_error, is_server_error};
pub use timeouts::RequestTimeouts;
