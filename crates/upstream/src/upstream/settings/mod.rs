//! What the configuration says about requests to the endpoints of a Service, whichever rule sends them: plain values,
//! without state.
//!
//! ```text
//!   BackendPolicy, XBackendTrafficPolicy, KongUpstreamPolicy, annotations ─▶ compile ─▶ settings ─▶ upstream
//! ```

mod active_check;
mod balancing;
mod balancing_algorithm;
mod health;
mod overload;
mod request_hash;
mod retries;
mod set_cookie;
mod statuses;
mod timeouts;

pub use active_check::*;
pub use balancing::*;
pub use balancing_algorithm::*;
pub use health::*;
pub use overload::*;
pub use request_hash::*;
pub use retries::*;
pub use set_cookie::*;
pub use statuses::*;
pub use timeouts::*;
