//! Rate limit for the writes of one object: at once after a quiet time, then less and less often while changes keep
//! coming.
//!
//! A thousand routes attaching within half a minute cost their Gateway a handful of writes, a single edit is written
//! without delay, and the end of a burst is written as soon as it is detected.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct WriteBackoff {
    written: Option<Instant>,
    changed: Option<Instant>,
    gap: Duration,
}

impl WriteBackoff {
    /// Returns when a change is to be written. An urgent change is delayed only briefly; others wait for a pause in the
    /// changes, up to a limit.
    pub(super) fn due_after_change(&mut self, now: Instant, urgent: bool) -> Instant {
        if self.changed.is_none_or(|last| now.saturating_duration_since(last) >= QUIET) {
            self.gap = Duration::ZERO;
        }
        self.changed = Some(now);
        let Some(written) = self.written else { return now };
        let soonest = now.max(written + self.gap.min(MAX_GAP_URGENT));
        if urgent {
            return soonest;
        }
        (now + BURST_END).min(written + self.gap).max(soonest)
    }

    /// Records a write that started at `started`.
    pub(super) fn record_write(&mut self, started: Instant) {
        self.gap = (self.gap * 2).clamp(MIN_GAP, MAX_GAP);
        self.written = Some(started);
    }
}

const MIN_GAP: Duration = Duration::from_millis(10);
/// A flipped condition is in the status within half a second, including the write.
const MAX_GAP_URGENT: Duration = Duration::from_millis(400);
/// The maximum age of a count of routes while routes keep attaching.
const MAX_GAP: Duration = Duration::from_secs(5);
/// A pause that ends a burst; a client that applies many objects makes about fifty changes a second.
const BURST_END: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_secs(1);
