//! One request to a backend: endpoints, attempts, retries, deadlines, mirrors and upgrades. What sends the request is a
//! `Caller`; nothing here knows a connection of a client.
//!
//! ```text
//!   Caller ─▶ attempts, with time_limits or hedging ─▶ OutgoingRequest ─▶ upstream
//!                 ▲       └▶ EndpointResponse or AttemptError ─▶ EndedAttempt
//!                 └────────── another one, or the response ◀────────┤
//!                                  AttemptPolicy, ServiceAttempts ──┘
//! ```

pub(in crate::proxy) mod attempt_policy;
pub(in crate::proxy) mod attempt_timeouts;
pub(in crate::proxy) mod attempts;
pub(in crate::proxy) mod background;
pub(in crate::proxy) mod call_deadline;
pub(in crate::proxy) mod caller;
pub(in crate::proxy) mod destination;
pub(in crate::proxy) mod failover;
pub(in crate::proxy) mod forwarded;
pub(in crate::proxy) mod framing;
pub(in crate::proxy) mod mirror;
pub(in crate::proxy) mod outgoing_request;
pub(in crate::proxy) mod time_limits;
pub(in crate::proxy) mod upgrade;

mod arrival;
mod attempt_error;
mod ended_attempt;
mod hedging;
mod retry_after;
mod service_attempts;
