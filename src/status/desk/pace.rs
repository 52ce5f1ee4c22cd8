//! How often one object is written: at once after a quiet time, then less and less often while changes keep coming.
//!
//! A thousand routes that attach within seconds cost their Gateway a handful of writes, and a single edit waits for nothing.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    gap: Duration,
}

impl Pace {
    /// The earliest moment, from `now` on, at which the object may be written.
    pub(super) fn opens(&mut self, now: Instant) -> Instant {
        let Some(last) = self.last else { return now };
        if now.saturating_duration_since(last) >= QUIET {
            *self = Pace::default();
            return now;
        }
        now.max(last + self.gap)
    }

    /// It was written; that began at `started`.
    pub(super) fn wrote(&mut self, started: Instant) {
        self.gap = (self.gap * 2).clamp(SHORTEST, LONGEST);
        self.last = Some(started);
    }
}

const SHORTEST: Duration = Duration::from_millis(10);
/// With the time of a write, the last of a burst of changes is told within half a second.
const LONGEST: Duration = Duration::from_millis(400);
/// Longer than the longest gap by far, so that a steady stream of changes never counts as quiet.
const QUIET: Duration = Duration::from_secs(1);
