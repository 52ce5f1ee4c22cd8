//! Polls conditions that have no event, such as the state of another process, in asynchronous tests.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Polls until the condition is true, and panics with `event` if it is not within the timeout.
pub(crate) async fn until<F: Future<Output = bool>>(event: &str, condition: impl FnMut() -> F) {
    assert!(becomes_true(condition).await, "timed out waiting for: {event}");
}

/// Polls until the condition is true, and returns whether it is within the timeout.
pub(crate) async fn becomes_true<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) -> bool {
    let deadline = Instant::now() + TIMEOUT;
    while !condition().await {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL_INTERVAL).await; // There is no event to wait for.
    }
    true
}

/// Only a failing test takes that long. Longer than any pause of a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
