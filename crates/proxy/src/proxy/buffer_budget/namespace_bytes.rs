//! The bytes of bodies that one worker keeps for the objects of one namespace.
//!
//! A worker takes slabs from the share of the namespace, as it does from the limit of the process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::SLAB;
use crate::shared_limit::{HeldByClient, HeldShare, Share, Shares};
use crate::upstream::ClientSlot;

/// The namespaces of which one worker keeps bodies.
#[derive(Debug, Default)]
pub(super) struct WorkerNamespaces(RefCell<HashMap<Box<str>, Rc<NamespaceBytes>, FixedState>>);

impl WorkerNamespaces {
    /// The bytes of this namespace, of which `shares` has those of all workers.
    pub(super) fn of(&self, namespace: &str, shares: &Shares) -> Rc<NamespaceBytes> {
        let mut namespaces = self.0.borrow_mut();
        if let Some(known) = namespaces.get(namespace) {
            return Rc::clone(known);
        }
        if namespaces.len() == namespaces.capacity() {
            // Before the table grows, so that namespaces without bodies hold no slabs and no memory for long.
            namespaces.retain(|_, bytes| bytes.used.get() > 0);
        }
        let share = shares.of(namespace);
        let taken = RefCell::new(share.hold_nothing());
        let bytes = Rc::new(NamespaceBytes { share, taken, used: Cell::new(0) });
        namespaces.insert(namespace.into(), Rc::clone(&bytes));
        bytes
    }

    /// Returns what no body uses to the shares.
    pub(super) fn return_unused(&self) {
        for bytes in self.0.borrow().values() {
            bytes.shrink_to(0);
        }
    }
}

/// The bytes of one namespace on one worker.
#[derive(Debug)]
pub(super) struct NamespaceBytes {
    /// What all workers have taken for the namespace.
    share: Arc<Share>,
    /// What the worker has taken from the share of the namespace.
    taken: RefCell<HeldShare>,
    /// The part of it that bodies use.
    used: Cell<usize>,
}

impl NamespaceBytes {
    /// Nothing yet, for a body of this client.
    pub(super) fn of_client(&self, client: ClientSlot) -> HeldByClient {
        self.share.hold_nothing_for(client.index())
    }

    /// How many more bytes bodies of the namespace may take on this worker, if `free` bytes of the process are free.
    pub(super) fn room(&self, free: usize) -> usize {
        let unused = self.taken.borrow().units() - self.used.get();
        self.share.room_with(unused, free)
    }

    /// Takes bytes, if the share of the namespace permits them while `free` bytes of the process are free.
    pub(super) fn try_take(&self, bytes: usize, free: usize) -> bool {
        let mut taken = self.taken.borrow_mut();
        let used = self.used.get();
        let missing = (used + bytes).saturating_sub(taken.units());
        let has_taken = missing == 0 && taken.is_permitted(free);
        if !has_taken && !taken.try_grow(missing.max(SLAB), free) {
            // Only as much as bodies use.
            let unused = taken.units() - used;
            taken.shrink(unused);
            if !taken.try_grow(bytes, free) {
                return false;
            }
        }
        self.used.set(used + bytes);
        true
    }

    /// Returns bytes, of which the worker keeps up to `kept` for later bodies.
    pub(super) fn put_back(&self, bytes: usize, kept: usize) {
        self.used.set(self.used.get() - bytes);
        if self.taken.borrow().units() - self.used.get() > 2 * kept {
            self.shrink_to(kept);
        }
    }

    fn shrink_to(&self, kept: usize) {
        let mut taken = self.taken.borrow_mut();
        let surplus = taken.units().saturating_sub(self.used.get() + kept);
        taken.shrink(surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: usize = 100 * SLAB;

    #[test]
    fn bytes_of_all_workers_count() {
        let shares = Shares::default();
        let workers = [WorkerNamespaces::default(), WorkerNamespaces::default()];
        let [first, second] = workers.each_ref().map(|worker| worker.of("team", &shares));
        assert!(first.try_take(3 * SLAB, FREE) && second.try_take(2 * SLAB, FREE));
        assert_eq!(shares.of("team").held(), 5 * SLAB);
        assert!(!second.try_take(3 * SLAB, SLAB), "seven times what is free");
        assert!(second.try_take(2 * SLAB, SLAB));
        first.put_back(3 * SLAB, SLAB);
        second.put_back(4 * SLAB, SLAB);
        assert_eq!(shares.of("team").held(), 2 * SLAB, "the workers keep some for later bodies");
        workers[0].return_unused();
        workers[1].return_unused();
        assert_eq!(shares.of("team").held(), 0);
    }

    #[test]
    fn slabs_do_not_exceed_the_share() {
        let (shares, worker) = (Shares::default(), WorkerNamespaces::default());
        let bytes = worker.of("team", &shares);
        assert!(bytes.try_take(10, FREE));
        assert_eq!(shares.of("team").held(), SLAB);
        assert!(!bytes.try_take(10, 2), "20 are more than seven times 2");
        assert!(bytes.try_take(10, 3));
        assert_eq!(shares.of("team").held(), 20);
    }

    #[test]
    fn many_bodies_take_few_slabs() {
        let (shares, worker) = (Shares::default(), WorkerNamespaces::default());
        for _ in 0..100 {
            let bytes = worker.of("team", &shares);
            assert!(bytes.try_take(100, FREE));
        }
        assert_eq!(shares.of("team").held(), SLAB);
    }

    #[test]
    fn deleted_namespace_holds_its_share_until_its_bodies_end() {
        let (shares, worker) = (Shares::default(), WorkerNamespaces::default());
        let deleted = worker.of("deleted", &shares);
        assert!(deleted.try_take(SLAB, FREE));
        for number in 0..10_000 {
            assert!(worker.of(&format!("namespace {number}"), &shares).try_take(0, FREE));
        }
        assert!(worker.0.borrow().len() < 100, "{}", worker.0.borrow().len());
        // It comes back.
        let same = worker.of("deleted", &shares);
        assert!(Rc::ptr_eq(&same, &deleted));
        assert_eq!(shares.of("deleted").held(), SLAB);
        deleted.put_back(SLAB, 0);
        assert_eq!(shares.of("deleted").held(), 0);
    }
}
