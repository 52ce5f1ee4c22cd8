//! What the configuration says about requests to the endpoints of a Service, whichever rule sends them: plain values,
//! without state.
//!
//! ```text
//!   BackendPolicy, XBackendTrafficPolicy, KongUpstreamPolicy, annotations ─▶ compile ─▶ settings ─▶ upstream
//!                                                                                        └─▶ JSON for operators
//! ```
//!
//! As JSON, settings have the form of the blocks of a BackendPolicy, whatever object has set them, with the fields in
//! the order of the types. Fields that are not set are null or left out. Fields that BackendPolicies do not have are
//! those of other kinds. `json_form.rs` has the forms of values: a field that may have a credential takes one that
//! hides it.

mod active_check;
mod balancing;
mod balancing_algorithm;
mod health;
pub(in crate::upstream) mod json_form;
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
