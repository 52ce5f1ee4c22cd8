//! What plugins do with requests that violate a policy: they reject them, or they only write them to the log.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The field `enforcement_mode` of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EnforcementMode {
    /// Reject requests that violate the policy.
    #[default]
    Block,
    /// Forward them, and write a warning to the log of the process.
    LogOnly,
}

/// The log of the violations of one plugin: at most one line a second, because clients cause them.
#[derive(Debug, Default)]
pub(crate) struct ViolationLog {
    /// When the last line was written.
    last: Mutex<Option<Instant>>,
    /// Violations since then.
    omitted: AtomicU64,
}

impl ViolationLog {
    /// Writes what a request has violated. The text may contain bytes of clients, which are escaped, and must contain
    /// no values of them.
    pub(crate) fn record(&self, plugin: &'static str, scope: &str, violation: &str) {
        let now = Instant::now();
        {
            // Only requests with violations take the lock.
            let mut last = self.last.lock();
            if last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
                self.omitted.fetch_add(1, Relaxed);
                return;
            }
            *last = Some(now);
        }
        let omitted = self.omitted.swap(0, Relaxed);
        tracing::warn!(plugin, scope, ?violation, omitted, "A request has violated a policy");
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn violations_are_counted_between_lines() {
        let log = ViolationLog::default();
        for _ in 0..3 {
            log.record("test", "global", "too deep");
        }
        assert_eq!(log.omitted.load(Relaxed), 2);
        tokio::time::advance(INTERVAL).await;
        log.record("test", "global", "too deep");
        assert_eq!(log.omitted.load(Relaxed), 0);
    }
}
