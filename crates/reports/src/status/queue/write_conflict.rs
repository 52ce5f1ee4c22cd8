//! Detects another writer of the same status, most often a second installation with the same controller name. Both
//! would write forever, so Portico writes less and less often and reports the conflict.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::verdict::Verdict;

#[derive(Debug, Default)]
pub(super) struct WriteConflict {
    /// The verdict written last, and when.
    last_write: Option<(Arc<Verdict>, Instant)>,
    /// How many times in a row the last verdict had to be written again.
    rewrites: u32,
}

impl WriteConflict {
    pub(super) fn record_write(&mut self, verdict: &Arc<Verdict>, now: Instant) {
        let is_rewrite =
            self.last_write.as_ref().is_some_and(|(last_verdict, at)| last_verdict == verdict && now < *at + MEMORY);
        self.rewrites = if is_rewrite { self.rewrites.saturating_add(1) } else { 0 };
        self.last_write = Some((verdict.clone(), now));
    }

    /// Whether another writer keeps overwriting the status. A status that a user edited needs only one or two rewrites.
    pub(super) fn is_active(&self) -> bool {
        self.rewrites >= REWRITE_LIMIT
    }

    /// The earliest time to write this verdict, if it was the last one written and the conflict is active.
    pub(super) fn earliest(&self, verdict: &Arc<Verdict>) -> Option<Instant> {
        let (last_verdict, at) = self.last_write.as_ref().filter(|_| self.is_active())?;
        let wait = FIRST_WAIT.saturating_mul(1 << (self.rewrites - REWRITE_LIMIT).min(16)).min(MAX_WAIT);
        (last_verdict == verdict).then(|| *at + wait)
    }
}

const REWRITE_LIMIT: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);
/// After this time, the same verdict counts as new. Longer than the longest wait, so that a conflict does not end
/// during a wait.
const MEMORY: Duration = Duration::from_secs(300);
