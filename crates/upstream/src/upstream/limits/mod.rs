//! Limits of the requests that an upstream has at a time.
//!
//! ```text
//!   RequestSlots ── limits: maxRequests, and the one that AdaptiveConcurrency finds, which counts no tunnels
//!        │             ├ ClientWait: of one client, at most half of the requests that wait for it count for others
//!        │             └ tunnels: the same for those of one client
//!        └ full ─▶ RequestQueue: first come, first served, up to maxPending and queueTimeout
//! ```

mod adaptive;
mod admission_control;
mod client_wait;
mod connection_limits;
mod request_queue;
mod request_slots;

pub(super) use adaptive::AdaptiveConcurrency;
pub(super) use admission_control::SuccessRateWindow;
pub use client_wait::{ClientWait, WaitingFor};
pub(super) use connection_limits::{ConnectionAge, EndpointConnectionLimits};
pub(super) use request_slots::{PlaceInQueue, QueueEnd, RequestSlot, RequestSlots, SlotUse};
