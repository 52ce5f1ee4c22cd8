//! Timestamps in the API's format, and waiting for an optional deadline.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

/// The current time with microseconds, as `MicroTime` fields of Leases and Events have it.
pub(super) fn now_micros() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// Sleeps until the deadline, or forever if there is none.
pub async fn sleep_until_deadline(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
