//! Why requests were rejected, for the log: at most one line a second, because clients cause them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The log of the rejections of one plugin.
#[derive(Debug, Default)]
pub(super) struct RejectionLog {
    /// When the last line was written.
    last: Mutex<Option<Instant>>,
    /// Rejections since then.
    omitted: AtomicU64,
}

impl RejectionLog {
    /// `what` was rejected. The message contains nothing of a credential.
    pub(super) fn rejected(&self, scope: &str, what: &str, message: &str) {
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
        tracing::info!(scope, what, message, omitted, "openid-connect has rejected a request");
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
