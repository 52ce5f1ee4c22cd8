//! Readiness as values: whoever has something to do before requests may come holds a guard, and drops it when done.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Whether requests may come. Clones speak of the same thing.
///
/// Ready is when no guard is held, so take the first guard before anybody asks.
#[derive(Clone, Debug)]
pub struct Ready {
    held: Arc<watch::Sender<Held>>,
}

/// Names of the guards that are held, in the order in which they were taken.
#[derive(Debug, Default)]
struct Held {
    names: BTreeMap<u64, String>,
    next: u64,
}

/// While this lives, we are not ready.
#[derive(Debug)]
#[must_use = "dropping it says that it is done"]
pub struct ReadyGuard {
    id: u64,
    held: Arc<watch::Sender<Held>>,
}

impl Ready {
    #[expect(clippy::new_without_default, reason = "`default` would hide that a guard has to be taken next")]
    pub fn new() -> Self {
        Ready { held: Arc::new(watch::Sender::new(Held::default())) }
    }

    /// Makes us not ready until the guard is dropped. `name` says what is being waited for: `first snapshot`.
    pub fn guard(&self, name: impl Into<String>) -> ReadyGuard {
        let mut id = 0;
        self.held.send_modify(|held| {
            id = held.next;
            held.next += 1;
            held.names.insert(id, name.into());
        });
        ReadyGuard { id, held: self.held.clone() }
    }

    pub fn is_ready(&self) -> bool {
        self.held.borrow().names.is_empty()
    }

    /// What is still being waited for, oldest first.
    pub fn waiting_for(&self) -> Vec<String> {
        self.held.borrow().names.values().cloned().collect()
    }

    /// Waits until no guard is held.
    pub async fn wait(&self) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| held.names.is_empty()).await.expect("self holds the sender");
    }
}

impl ReadyGuard {
    /// Says from now on that this is being waited for.
    pub fn rename(&self, name: impl Into<String>) {
        self.held.send_modify(|held| {
            held.names.insert(self.id, name.into());
        });
    }
}

impl Drop for ReadyGuard {
    fn drop(&mut self) {
        self.held.send_modify(|held| {
            held.names.remove(&self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn ready_when_all_guards_are_dropped_and_not_any_more_when_one_is_taken() {
        let ready = Ready::new();
        let listeners = ready.guard("listeners");
        let snapshot = ready.guard("first snapshot");
        let twin = ready.clone().guard("listeners");
        assert_eq!(ready.waiting_for(), ["listeners", "first snapshot", "listeners"]);
        assert!(ready.wait().now_or_never().is_none());
        drop(listeners);
        snapshot.rename("second snapshot");
        assert_eq!(ready.waiting_for(), ["second snapshot", "listeners"]);
        drop(snapshot);
        assert_eq!(ready.waiting_for(), ["listeners"]);
        assert!(!ready.is_ready());
        drop(twin);
        assert!(ready.is_ready());
        assert!(ready.wait().now_or_never().is_some());
        let _draining = ready.guard("draining");
        assert!(!ready.is_ready());
    }

    #[tokio::test]
    async fn waiters_are_woken() {
        let ready = Ready::new();
        let guard = ready.guard("first snapshot");
        let waiting = tokio::spawn({
            let ready = ready.clone();
            async move { ready.wait().await }
        });
        tokio::task::yield_now().await;
        drop(guard);
        waiting.await.unwrap();
    }
}
