//! Whether somebody else keeps writing what we write: two installations of Portico with one controller name, most often.
//! Both would write for ever, so we do it less and less often, and say so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::compile::verdict::Verdict;

#[derive(Debug, Default)]
pub(super) struct Contest {
    /// What was written last, and when.
    written: Option<(Arc<Verdict>, Instant)>,
    /// How often it had to be written again although we had not changed our mind.
    again: u32,
}

impl Contest {
    pub(super) fn wrote(&mut self, verdict: &Arc<Verdict>, now: Instant) {
        let same = self.written.as_ref().is_some_and(|(before, at)| before == verdict && now < *at + MEMORY);
        self.again = if same { self.again.saturating_add(1) } else { 0 };
        self.written = Some((verdict.clone(), now));
    }

    /// Somebody who mends a status by hand does so once or twice.
    pub(super) fn stands(&self) -> bool {
        self.again >= MANY
    }

    /// Before this moment the same verdict is not written again.
    pub(super) fn earliest(&self, verdict: &Arc<Verdict>) -> Option<Instant> {
        let (before, at) = self.written.as_ref().filter(|_| self.stands())?;
        let wait = FIRST_WAIT.saturating_mul(1 << (self.again - MANY).min(16)).min(LONGEST_WAIT);
        (before == verdict).then(|| *at + wait)
    }
}

const MANY: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longer than the longest wait, so that it is not forgotten meanwhile.
const MEMORY: Duration = Duration::from_secs(300);
