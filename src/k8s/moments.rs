//! Moments: as the API writes them, and waiting for one that may never come.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

/// To the microsecond, as in Leases and events.
pub(super) fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// Waits until then; for ever, if that is never.
pub async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
