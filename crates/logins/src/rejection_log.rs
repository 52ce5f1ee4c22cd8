//! Why requests were rejected, for the log: at most one line a second, because clients cause them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The log of the rejections of one plugin.
#[derive(Debug)]
pub(crate) struct RejectionLog {
    /// The kind of the plugin.
    plugin: &'static str,
    /// When the last line was written.
    last: Mutex<Option<Instant>>,
    /// Rejections since then.
    omitted: AtomicU64,
}

impl RejectionLog {
    pub(crate) fn new(plugin: &'static str) -> Self {
        RejectionLog { plugin, last: Mutex::default(), omitted: AtomicU64::default() }
    }

    /// `what` was rejected. The reason contains nothing of a credential.
    pub(crate) fn rejected(&self, scope: &str, what: &str, reason: &str) {
        let now = Instant::now();
        // Rejections are not forwarded, so the lock costs no request that is served.
        let mut last = self.last.lock();
        if last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.omitted.fetch_add(1, Relaxed);
            return;
        }
        *last = Some(now);
        drop(last);
        let omitted = self.omitted.swap(0, Relaxed);
        tracing::info!(plugin = self.plugin, scope, what, reason, omitted, "A plugin has rejected a request");
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rejections_are_counted_between_lines() {
        let log = RejectionLog::new("test");
        for expected in [0, 1, 2] {
            log.rejected("global", "token", "the token has expired");
            assert_eq!(log.omitted.load(Relaxed), expected);
        }
        tokio::time::advance(INTERVAL).await;
        log.rejected("global", "token", "the token has expired");
        assert_eq!(log.omitted.load(Relaxed), 0);
    }
}
