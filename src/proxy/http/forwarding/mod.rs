//! One request to a backend: endpoints, attempts, retries, deadlines, mirrors and upgrades.

pub(in crate::proxy) mod attempt;
pub(in crate::proxy) mod call_deadline;
pub(in crate::proxy) mod forward;
pub(in crate::proxy) mod mirror;
pub(in crate::proxy) mod outgoing_request;
pub(in crate::proxy) mod replay_buffer;
pub(in crate::proxy) mod request_body;
pub(in crate::proxy) mod retry;
pub(in crate::proxy) mod upgrade;
