//! Detects another writer of the same status, most often a second installation with the same controller name. Both
//! would write forever, so this one writes less and less often and reports the conflict.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::compile::verdict::Verdict;

#[derive(Debug, Default)]
pub(super) struct WriteConflict {
    /// The verdict written last, and when.
    written: Option<(Arc<Verdict>, Instant)>,
    /// How often the same verdict had to be written again.
    rewrites: u32,
}

impl WriteConflict {
    pub(super) fn record_write(&mut self, verdict: &Arc<Verdict>, now: Instant) {
        let same = self.written.as_ref().is_some_and(|(before, at)| before == verdict && now < *at + MEMORY);
        self.rewrites = if same { self.rewrites.saturating_add(1) } else { 0 };
        self.written = Some((verdict.clone(), now));
    }

    /// A status corrected by hand needs one or two rewrites.
    pub(super) fn is_active(&self) -> bool {
        self.rewrites >= REWRITE_LIMIT
    }

    /// The earliest time to write the same verdict again.
    pub(super) fn earliest(&self, verdict: &Arc<Verdict>) -> Option<Instant> {
        let (before, at) = self.written.as_ref().filter(|_| self.is_active())?;
        let wait = FIRST_WAIT.saturating_mul(1 << (self.rewrites - REWRITE_LIMIT).min(16)).min(MAX_WAIT);
        (before == verdict).then(|| *at + wait)
    }
}

const REWRITE_LIMIT: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Longer than the longest wait, so that the conflict is not forgotten in between.
const MEMORY: Duration = Duration::from_secs(300);
