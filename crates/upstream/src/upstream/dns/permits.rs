//! Permits for lookups: how many run at the same time, and how many of them for one namespace.
//!
//! A namespace has at most its share of the permits, so a few namespaces whose lookups take long leave room for others.
//! If all permits are in use, the waiting namespaces take turns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The namespaces of the objects that use a name, at least one.
pub type UsingNamespaces = BTreeSet<Arc<str>>;

/// A pool of permits.
pub(super) struct LookupPermits {
    /// The most permits that one namespace can hold.
    share: usize,
    state: Mutex<PoolState>,
}

/// A permit is free only if no waiting lookup may have it.
#[derive(Default)]
struct PoolState {
    free: usize,
    /// The namespaces that hold permits or wait for one.
    namespaces: BTreeMap<Arc<str>, NamespaceState>,
    /// The waiting lookups.
    waiting: BTreeMap<LookupId, oneshot::Sender<LookupPermit>>,
    /// Numbers lookups and grants in their order.
    next_number: u64,
}

#[derive(Default)]
struct NamespaceState {
    held: usize,
    /// In the order of their arrival. A lookup of several namespaces waits in each of them.
    waiting: BTreeSet<LookupId>,
    /// The number of the last grant.
    last_grant: u64,
}

type LookupId = u64;

/// Permission for one lookup. Dropping it permits another one.
pub(super) struct LookupPermit {
    pool: Arc<LookupPermits>,
    namespace: Arc<str>,
}

impl LookupPermits {
    pub(super) fn new(count: usize, share: usize) -> Arc<Self> {
        Arc::new(LookupPermits { share, state: Mutex::new(PoolState { free: count, ..PoolState::default() }) })
    }

    /// Waits for a permit of one of these namespaces. Nothing is left behind if the future is dropped.
    pub(super) async fn acquire(self: &Arc<Self>, namespaces: &UsingNamespaces) -> LookupPermit {
        let granted = {
            let mut state = self.state.lock();
            if state.free > 0
                && let Some(namespace) = state.least_busy(namespaces, self.share)
            {
                return state.grant(self, namespace);
            }
            state.enqueue(namespaces)
        };
        let (lookup, receiver) = granted;
        let _waiting = WaitingGuard { pool: self, lookup, namespaces };
        receiver.await.expect("a waiting lookup is removed only with a permit or by its guard")
    }

    /// Gives a permit that became free to the next lookup that may have it. There is at most one: either no permit was
    /// free before, or only the namespace that returned the permit may hold another one.
    fn grant_next(self: &Arc<Self>) {
        let granted = {
            let mut state = self.state.lock();
            state.next_lookup(self.share).map(|(lookup, namespace)| {
                let sender = state.waiting.remove(&lookup).expect("lookups wait in both places");
                for queue in state.namespaces.values_mut() {
                    queue.waiting.remove(&lookup);
                }
                (sender, state.grant(self, namespace))
            })
        };
        if let Some((sender, permit)) = granted {
            // The lookup may have ended meanwhile. The permit is dropped then, here or with the receiver, but not while
            // the state is locked.
            drop(sender.send(permit));
        }
    }
}

impl PoolState {
    /// Which of these namespaces holds the fewest permits, and less than its share.
    fn least_busy(&self, namespaces: &UsingNamespaces, share: usize) -> Option<Arc<str>> {
        let held = |namespace: &Arc<str>| self.namespaces.get(namespace).map_or(0, |state| state.held);
        namespaces.iter().filter(|namespace| held(namespace) < share).min_by_key(|namespace| held(namespace)).cloned()
    }

    fn grant(&mut self, pool: &Arc<LookupPermits>, namespace: Arc<str>) -> LookupPermit {
        self.free -= 1;
        self.next_number += 1;
        let state = self.namespaces.entry(Arc::clone(&namespace)).or_default();
        state.held += 1;
        state.last_grant = self.next_number;
        LookupPermit { pool: Arc::clone(pool), namespace }
    }

    fn enqueue(&mut self, namespaces: &UsingNamespaces) -> (LookupId, oneshot::Receiver<LookupPermit>) {
        self.next_number += 1;
        let lookup = self.next_number;
        for namespace in namespaces {
            self.namespaces.entry(Arc::clone(namespace)).or_default().waiting.insert(lookup);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(lookup, sender);
        (lookup, receiver)
    }

    /// The first lookup of the namespace whose last grant is the longest ago, among those that may hold another permit.
    fn next_lookup(&self, share: usize) -> Option<(LookupId, Arc<str>)> {
        if self.free == 0 {
            return None;
        }
        let eligible = self.namespaces.iter().filter(|(_, state)| state.held < share && !state.waiting.is_empty());
        let (namespace, state) = eligible.min_by_key(|(_, state)| state.last_grant)?;
        Some((*state.waiting.first()?, Arc::clone(namespace)))
    }

    /// Forgets a namespace that holds nothing and waits for nothing.
    fn forget_if_unused(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(|state| state.held == 0 && state.waiting.is_empty()) {
            self.namespaces.remove(namespace);
        }
    }
}

impl Drop for LookupPermit {
    fn drop(&mut self) {
        {
            let mut state = self.pool.state.lock();
            state.free += 1;
            if let Some(namespace) = state.namespaces.get_mut(&self.namespace) {
                namespace.held -= 1;
            }
            state.forget_if_unused(&self.namespace);
        }
        self.pool.grant_next();
    }
}

/// A waiting lookup, which stops waiting when this is dropped.
struct WaitingGuard<'a> {
    pool: &'a LookupPermits,
    lookup: LookupId,
    namespaces: &'a UsingNamespaces,
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.waiting.remove(&self.lookup);
        for namespace in self.namespaces {
            if let Some(queue) = state.namespaces.get_mut(namespace) {
                queue.waiting.remove(&self.lookup);
            }
            state.forget_if_unused(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;

    fn namespaces(names: &[&str]) -> UsingNamespaces {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn try_acquire(pool: &Arc<LookupPermits>, names: &[&str]) -> Option<LookupPermit> {
        pool.acquire(&namespaces(names)).now_or_never()
    }

    fn waiting(pool: &Arc<LookupPermits>, names: &[&str]) -> BoxFuture<'static, LookupPermit> {
        let (pool, namespaces) = (Arc::clone(pool), namespaces(names));
        let mut acquiring = async move { pool.acquire(&namespaces).await }.boxed();
        assert!((&mut acquiring).now_or_never().is_none(), "{names:?} has to wait");
        acquiring
    }

    #[tokio::test]
    async fn namespaces_leave_room_for_others() {
        let pool = LookupPermits::new(4, 2);
        let mut busy: Vec<_> = (0..2).map(|_| try_acquire(&pool, &["busy"]).unwrap()).collect();
        let mut queued = waiting(&pool, &["busy"]);
        let other = try_acquire(&pool, &["other"]).expect("others have room");
        let shared = try_acquire(&pool, &["busy", "third"]).expect("counts for the namespace that has room");
        assert_eq!(&*shared.namespace, "third");
        // All permits are in use: what is returned goes to the namespace whose last permit is the longest ago.
        let (mut second, mut new) = (waiting(&pool, &["other"]), waiting(&pool, &["new"]));
        busy.pop();
        assert!((&mut queued).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let new = (&mut new).now_or_never().expect("its turn");
        drop(shared);
        let queued = (&mut queued).now_or_never().expect("its last permit is the longest ago");
        drop((queued, new));
        let second = (&mut second).now_or_never().expect("nothing else waits");
        drop((busy, other, second));
        let state = pool.state.lock();
        assert!(state.free == 4 && state.namespaces.is_empty() && state.waiting.is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn lookups_that_end_while_they_wait_leave_nothing_behind() {
        let pool = LookupPermits::new(1, 1);
        let held = try_acquire(&pool, &["a"]).unwrap();
        let (abandoned, granted) = (waiting(&pool, &["a", "b"]), waiting(&pool, &["b"]));
        drop(abandoned);
        // The permit is granted to the lookup, which ends before it takes it.
        drop(held);
        drop(granted);
        assert!(try_acquire(&pool, &["c"]).is_some());
        let state = pool.state.lock();
        assert!(state.free == 1 && state.namespaces.is_empty() && state.waiting.is_empty());
    }
}
