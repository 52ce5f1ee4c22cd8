//! Counts leader-only writes in flight, so that the Lease is released only after the last of them.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Counts the leader-only writes in flight; there is no limit to their number. Clones share one count.
#[derive(Clone, Debug, Default)]
pub struct LeaderWriteGuard(Arc<RwLock<()>>);

/// Held while a leader-only write may be in flight.
#[derive(Debug)]
pub struct LeaderWritePermit {
    _guard: OwnedRwLockReadGuard<()>,
}

impl LeaderWriteGuard {
    pub async fn acquire(&self) -> LeaderWritePermit {
        LeaderWritePermit { _guard: self.0.clone().read_owned().await }
    }

    /// Waits until no write is in flight.
    pub(super) async fn wait_idle(&self) {
        drop(self.0.write().await);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_until_the_last_write_ends() {
        let guard = LeaderWriteGuard::default();
        let (first, second) = (guard.acquire().await, guard.clone().acquire().await);
        drop(first);
        assert!(timeout(Duration::from_secs(9), guard.wait_idle()).await.is_err(), "the second write is in flight");
        drop(second);
        guard.wait_idle().await;
        guard.wait_idle().await;
    }
}
