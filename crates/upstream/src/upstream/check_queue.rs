//! Which upstreams have changed in a way that concerns their active checks: the configuration and DNS add them, the
//! scheduler of the checks takes them.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::UpstreamKey;

/// The upstreams whose endpoints or checks have changed, or that were dropped. A key is listed once, however often its
/// upstream changes, so there are no more than upstreams with checks.
#[derive(Debug, Default)]
pub(super) struct CheckQueue {
    changed: Mutex<BTreeSet<UpstreamKey>>,
    added: Notify,
}

impl CheckQueue {
    /// Adds an upstream.
    pub(super) fn add(&self, key: &UpstreamKey) {
        self.changed.lock().insert(key.clone());
        self.added.notify_one();
    }

    /// Waits for changes, and takes all of them. Nothing is lost if the future is dropped.
    pub(super) async fn take(&self) -> BTreeSet<UpstreamKey> {
        loop {
            let changed = std::mem::take(&mut *self.changed.lock());
            if !changed.is_empty() {
                return changed;
            }
            self.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn changes_are_taken_once() {
        let queue = CheckQueue::default();
        let key = |port| UpstreamKey { port, ..UpstreamKey::default() };
        assert!(queue.take().now_or_never().is_none());
        for port in [2, 1, 2] {
            queue.add(&key(port));
        }
        assert_eq!(queue.take().await, BTreeSet::from([key(1), key(2)]));
        assert!(queue.take().now_or_never().is_none());
        let mut waiting = Box::pin(queue.take());
        assert!(waiting.as_mut().now_or_never().is_none());
        queue.add(&key(3));
        assert_eq!(waiting.await, BTreeSet::from([key(3)]));
    }
}
