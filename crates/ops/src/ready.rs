//! Readiness: each task that must finish before requests are accepted holds a guard and drops it when done.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Whether the process is ready for requests. Clones share one state.
///
/// Ready means that no guard is held, so the first guard has to be taken before the state is first read.
#[derive(Clone, Debug)]
pub struct Readiness {
    held: Arc<watch::Sender<HeldGuards>>,
}

/// Names of the held guards, in the order in which they were taken.
#[derive(Debug, Default)]
struct HeldGuards {
    names: BTreeMap<u64, String>,
    next_id: u64,
}

/// Makes the process unready while it exists.
#[derive(Debug)]
#[must_use = "dropping the guard marks its task as done"]
pub struct ReadyGuard {
    id: u64,
    held: Arc<watch::Sender<HeldGuards>>,
}

impl Readiness {
    #[expect(clippy::new_without_default, reason = "`default` would hide that a guard has to be taken next")]
    pub fn new() -> Self {
        Readiness { held: Arc::new(watch::Sender::new(HeldGuards::default())) }
    }

    /// Makes the process unready until the guard is dropped. `name` describes the pending task: `first snapshot`.
    pub fn guard(&self, name: impl Into<String>) -> ReadyGuard {
        let mut id = 0;
        self.held.send_modify(|held| {
            id = held.next_id;
            held.next_id += 1;
            held.names.insert(id, name.into());
        });
        ReadyGuard { id, held: self.held.clone() }
    }

    pub fn is_ready(&self) -> bool {
        self.held.borrow().names.is_empty()
    }

    /// Names of the held guards, oldest first.
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
    /// Changes the description of the pending task.
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
    fn ready_only_while_no_guard_is_held() {
        let ready = Readiness::new();
        let listeners = ready.guard("listeners");
        let snapshot = ready.guard("first snapshot");
        let second_listeners = ready.clone().guard("listeners");
        assert_eq!(ready.waiting_for(), ["listeners", "first snapshot", "listeners"]);
        assert!(ready.wait().now_or_never().is_none());
        drop(listeners);
        snapshot.rename("second snapshot");
        assert_eq!(ready.waiting_for(), ["second snapshot", "listeners"]);
        drop(snapshot);
        assert_eq!(ready.waiting_for(), ["listeners"]);
        assert!(!ready.is_ready());
        drop(second_listeners);
        assert!(ready.is_ready());
        assert!(ready.wait().now_or_never().is_some());
        let _draining = ready.guard("draining");
        assert!(!ready.is_ready());
    }

    #[tokio::test]
    async fn dropping_the_last_guard_wakes_waiters() {
        let ready = Readiness::new();
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
