//! Rate limit for the writes of one object: at once after a quiet time, then less and less often while changes keep
//! coming.
//!
//! A burst of changes costs about nine writes, and then one in three seconds. If the changes come with pauses, as from
//! an API server under load, it is at most one a second. A single edit is written without delay, and the state
//! after a burst as soon as the end of the burst is detected.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct WriteBackoff {
    last_write: Option<Instant>,
    /// The number of recent writes at the time of the last one: each counts less the older it is.
    recent_at_last_write: f64,
}

impl WriteBackoff {
    /// Returns when a change is to be written. An urgent change is delayed only briefly; any other change waits for a
    /// pause in the changes, up to a limit.
    pub(super) fn due_after_change(&self, now: Instant, urgent: bool) -> Instant {
        let Some(last_write) = self.last_write else { return now };
        let gap = self.gap(now);
        if urgent {
            return now.max(last_write + gap.min(MAX_GAP_URGENT));
        }
        let pause = (gap / 10).clamp(MIN_PAUSE, MAX_PAUSE);
        (now + pause).min(last_write + gap).max(last_write + gap.min(MIN_GAP_WITH_PAUSES)).max(now)
    }

    /// Records a write that started at `started`.
    pub(super) fn record_write(&mut self, started: Instant) {
        self.recent_at_last_write = (self.recent_writes(started) + 1.0).min(MAX_RECENT_WRITES);
        self.last_write = Some(started);
    }

    fn recent_writes(&self, now: Instant) -> f64 {
        let since_last = self.last_write.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        (self.recent_at_last_write - since_last.div_duration_f64(RECENT)).max(0.0)
    }

    /// The time from one write to the next while changes keep coming. It about doubles with each recent write.
    fn gap(&self, now: Instant) -> Duration {
        MIN_GAP.mul_f64(self.recent_writes(now).exp2() - 1.0)
    }
}

/// How long a write counts as recent: changes that come evenly are written once in this time.
const RECENT: Duration = Duration::from_secs(3);
/// The gap is 5 s at most.
const MAX_RECENT_WRITES: f64 = 9.0;
/// The gap after the first write of a burst.
const MIN_GAP: Duration = Duration::from_millis(10);
/// The largest gap before an urgent change. A flipped condition is in the status within half a second, including the
/// write.
const MAX_GAP_URGENT: Duration = Duration::from_millis(400);
/// The smallest gap before a write because of a pause, once gaps are longer than this.
const MIN_GAP_WITH_PAUSES: Duration = Duration::from_secs(1);
/// The pause after which the changes may be over, a tenth of the gap within these limits. A client that applies many
/// objects makes about fifty changes a second, with longer pauses the busier the API server is.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_millis(500);
