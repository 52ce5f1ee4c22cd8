//! Rate limit for the writes of one object: at once after a quiet time, then less and less often while changes keep
//! coming.
//!
//! A thousand routes attaching within half a minute cost their Gateway at most 20 writes, also when an API server under
//! load accepts them by fits and starts. A single edit is written without delay, and the state after a burst as soon as
//! the end of the burst is detected.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct WriteBackoff {
    last_write: Option<Instant>,
    last_change: Option<Instant>,
    /// When the first change of the current burst came.
    burst_start: Option<Instant>,
    /// The minimum time from one write to the next.
    gap: Duration,
}

impl WriteBackoff {
    /// Returns when a change is to be written. An urgent change is delayed only briefly; any other change waits for a
    /// pause in the changes, up to a limit.
    pub(super) fn due_after_change(&mut self, now: Instant, urgent: bool) -> Instant {
        let pause = self.last_change.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        if pause >= QUIET {
            self.gap = Duration::ZERO;
        }
        if pause >= MAX_BURST_END {
            self.burst_start = None;
        }
        let burst_start = *self.burst_start.get_or_insert(now);
        self.last_change = Some(now);
        let Some(last_write) = self.last_write else { return now };
        let soonest = now.max(last_write + self.gap.min(MAX_GAP_URGENT));
        if urgent {
            return soonest;
        }
        let burst_end = (now.saturating_duration_since(burst_start) / 10).clamp(MIN_BURST_END, MAX_BURST_END);
        (now + burst_end).min(last_write + self.gap).max(soonest)
    }

    /// Records a write that started at `started`.
    pub(super) fn record_write(&mut self, started: Instant) {
        self.gap = (self.gap * 2).clamp(MIN_GAP, MAX_GAP);
        self.last_write = Some(started);
    }
}

/// The gap after the first write of a burst.
const MIN_GAP: Duration = Duration::from_millis(10);
/// The largest gap before an urgent change. A flipped condition is in the status within half a second, including the
/// write.
const MAX_GAP_URGENT: Duration = Duration::from_millis(400);
/// The maximum age of a count of routes while routes keep attaching.
const MAX_GAP: Duration = Duration::from_secs(5);
/// A pause that ends a burst is a tenth of the burst, within these limits. A client that applies many objects makes
/// about fifty changes a second, with longer pauses the busier the API server is.
const MIN_BURST_END: Duration = Duration::from_millis(200);
const MAX_BURST_END: Duration = Duration::from_millis(500);
/// A time without changes after which the next change is written at once.
const QUIET: Duration = Duration::from_secs(1);
