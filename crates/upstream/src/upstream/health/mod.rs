//! Health of an endpoint, shared by all workers, rules and policies. Atomics only.
//!
//! ```text
//!              a connection, or too many requests fail               its time is up
//!   available ────────────────────────────────────────▶ ejected ────────────────────▶ half-open
//!     ▲   ▲                                              │   ▲   a request fails: longer  │
//!     │   └──── a probe or another connection succeeds ──┘   └────────────────────────────┤
//!     └────────────────────────────────────────────────────── enough requests succeed ────┘
//! ```
//!
//! An endpoint that cannot be connected is probed apart from requests. While it is ejected because of its responses,
//! time passes, and then one request at a time shows whether it works again.

mod availability;
mod clock;
mod consecutive;
mod ejection_time;
mod endpoint_health;
mod probing;
mod rates;
mod word;

pub use availability::{Availability, EjectionCause};
pub(super) use clock::UpstreamClock;
pub(super) use consecutive::FailureKind;
pub(super) use ejection_time::ejection_millis;
pub(super) use endpoint_health::{EndpointHealth, HalfOpenStep, TimedEjection};
pub(super) use rates::{RateCounters, RateSample, rate_outliers};
