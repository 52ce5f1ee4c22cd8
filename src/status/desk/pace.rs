//! How often one object is written: at once after a quiet time, then less and less often while changes keep coming.
//!
//! A thousand routes that attach within half a minute cost their Gateway a handful of writes, a single edit waits for
//! nothing, and the end of a burst is told as soon as it is seen to be one.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Pace {
    written: Option<Instant>,
    changed: Option<Instant>,
    gap: Duration,
}

impl Pace {
    /// Something changed: the moment, from `now` on, at which the object is to be written. An urgent change never waits
    /// for long; another one waits for a lull, though not for ever.
    pub(super) fn changed(&mut self, now: Instant, urgent: bool) -> Instant {
        if self.changed.is_none_or(|last| now.saturating_duration_since(last) >= QUIET) {
            self.gap = Duration::ZERO;
        }
        self.changed = Some(now);
        let Some(written) = self.written else { return now };
        let soonest = now.max(written + self.gap.min(LONGEST_URGENT));
        if urgent {
            return soonest;
        }
        (now + LULL).min(written + self.gap).max(soonest)
    }

    /// It was written; that began at `started`.
    pub(super) fn wrote(&mut self, started: Instant) {
        self.gap = (self.gap * 2).clamp(SHORTEST, LONGEST);
        self.written = Some(started);
    }
}

const SHORTEST: Duration = Duration::from_millis(10);
/// A condition that flips is told within half a second, with the time of the write.
const LONGEST_URGENT: Duration = Duration::from_millis(400);
/// How old a count of routes may get while they keep attaching.
const LONGEST: Duration = Duration::from_secs(5);
/// So long without a change, and it was the last of its burst. A person's client makes some fifty changes a second.
const LULL: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_secs(1);
