//! The limit of the bytes of bodies that the process has received and not yet forwarded, on HTTP/2 connections of
//! clients.
//!
//! ```text
//!   UnforwardedBudget ─ slabs ─▶ WorkerUnforwarded ─ bytes ─┬▶ UnforwardedBodies: requests ─┬─ with each connection
//!       (process)                    (one thread)           └▶ UnsentResponses: responses ──┘
//! ```
//!
//! Bytes that have arrived are always counted. What the limit decides is whether a connection that has sent such bytes
//! is read further, and whether the responses of a connection continue. A worker takes and returns slabs, so that most
//! frames do not write to memory that other cores write.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// The limit of all workers.
#[derive(Debug)]
pub(in crate::proxy) struct UnforwardedBudget {
    limit: usize,
    /// How many bytes a worker takes at once. It keeps up to twice as many, also while it is idle.
    slab: usize,
    /// What has arrived, and what workers have taken for later bytes. Can exceed the limit.
    used: AtomicUsize,
    /// How often a connection was not read further.
    pauses: AtomicU64,
}

impl UnforwardedBudget {
    /// All workers together keep at most half of the limit.
    pub(in crate::proxy) fn new(limit: usize, workers: usize) -> Self {
        let slab = (limit / workers.saturating_mul(4).max(1)).min(MAX_SLAB);
        UnforwardedBudget { limit, slab, used: AtomicUsize::new(0), pauses: AtomicU64::new(0) }
    }

    pub(in crate::proxy) fn limit(&self) -> usize {
        self.limit
    }

    pub(in crate::proxy) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    pub(in crate::proxy) fn pauses(&self) -> u64 {
        self.pauses.load(Relaxed)
    }

    fn free(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }
}

/// The bytes of one worker.
#[derive(Debug)]
pub(in crate::proxy) struct WorkerUnforwarded {
    process: Arc<UnforwardedBudget>,
    /// Bytes that this worker has taken, and that have not arrived.
    free: Cell<usize>,
}

impl WorkerUnforwarded {
    pub(in crate::proxy) fn new(process: Arc<UnforwardedBudget>) -> Rc<Self> {
        Rc::new(WorkerUnforwarded { process, free: Cell::new(0) })
    }

    /// How many more bytes the limit permits.
    pub(in crate::proxy) fn free(&self) -> usize {
        self.free.get() + self.process.free()
    }

    /// Whether less than 5 % of the limit is free.
    pub(in crate::proxy) fn is_scarce(&self) -> bool {
        self.free() < self.process.limit / 20
    }

    /// Counts bytes that have arrived, also beyond the limit.
    pub(in crate::proxy) fn add(&self, bytes: usize) {
        let missing = bytes.saturating_sub(self.free.get());
        if missing > 0 {
            let slab = missing.max(self.process.slab);
            let taken = if self.process.free() >= slab { slab } else { missing };
            self.process.used.fetch_add(taken, Relaxed);
            self.free.set(self.free.get() + taken);
        }
        self.free.set(self.free.get() - bytes);
    }

    /// Counts bytes as forwarded or dropped.
    pub(in crate::proxy) fn remove(&self, bytes: usize) {
        let free = self.free.get() + bytes;
        let UnforwardedBudget { limit, slab, .. } = *self.process;
        let kept = if self.process.used() > limit {
            0
        } else if free <= 2 * slab {
            free
        } else {
            slab
        };
        if free > kept {
            self.process.used.fetch_sub(free - kept, Relaxed);
        }
        self.free.set(kept);
    }

    pub(in crate::proxy) fn count_pause(&self) {
        self.process.pauses.fetch_add(1, Relaxed);
    }
}

impl Drop for WorkerUnforwarded {
    fn drop(&mut self) {
        self.process.used.fetch_sub(self.free.get(), Relaxed);
    }
}

/// A few frames of the maximum size.
const MAX_SLAB: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const SLAB: usize = MAX_SLAB;

    #[test]
    fn workers_take_and_return_slabs() {
        let process = Arc::new(UnforwardedBudget::new(10 * SLAB, 2));
        let [first, second] = std::array::from_fn(|_| WorkerUnforwarded::new(Arc::clone(&process)));
        first.add(100);
        assert_eq!((process.used(), first.free(), second.free()), (SLAB, 10 * SLAB - 100, 9 * SLAB));
        first.add(4 * SLAB);
        assert_eq!(process.used(), 4 * SLAB + 100);
        first.remove(4 * SLAB + 100);
        assert_eq!(process.used(), SLAB, "the worker keeps some for later frames");
        drop(first);
        assert_eq!(process.used(), 0);
    }

    #[test]
    fn idle_workers_keep_at_most_half_of_the_limit() {
        let limit = 16 * SLAB;
        let process = Arc::new(UnforwardedBudget::new(limit, 9));
        let workers: [_; 9] = std::array::from_fn(|_| WorkerUnforwarded::new(Arc::clone(&process)));
        let [last, idle @ ..] = &workers;
        for bytes in [1, SLAB, 2 * SLAB, limit] {
            for worker in idle {
                worker.add(bytes);
                worker.remove(bytes);
            }
            assert!(last.free() >= limit / 2, "{} of {limit} after {bytes}", last.free());
        }
    }

    #[test]
    fn bytes_that_have_arrived_count_beyond_the_limit() {
        let process = Arc::new(UnforwardedBudget::new(SLAB / 2, 1));
        let worker = WorkerUnforwarded::new(Arc::clone(&process));
        worker.add(SLAB);
        assert_eq!((process.used(), worker.free()), (SLAB, 0));
        worker.remove(SLAB / 4);
        assert_eq!((process.used(), worker.free()), (SLAB / 4 * 3, 0), "still more than the limit");
        worker.remove(SLAB / 4 * 3);
        assert_eq!(worker.free(), SLAB / 2);
        drop(worker);
        assert_eq!(process.used(), 0);
    }
}
