//! The limit of the bytes of bodies that the process keeps in memory, beyond what streams through it: bodies that are
//! read before they are processed, and copies that may be sent once more.
//!
//! ```text
//!   BufferBudget ─ slabs ─▶ WorkerBuffers ─ bytes ─▶ BufferedBytes, with each body
//!    (process)               (one thread)
//! ```
//!
//! Bytes are taken before a body keeps them, and returned when it is dropped. A worker takes and returns slabs, so that
//! most requests do not write to memory that other cores write.
//!
//! A body may be at most as large as what is free afterwards. So clients that send large bodies slowly can take half of
//! the limit and more, but always leave some to smaller bodies.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The limit of all workers.
#[derive(Debug)]
pub(in crate::proxy) struct BufferBudget {
    limit: usize,
    /// What bodies use, and what workers have taken for later ones.
    used: AtomicUsize,
    /// Bodies that wait for bytes.
    waiting: AtomicUsize,
    /// Notified when bytes are returned while bodies wait.
    returned: Notify,
    /// Bodies that did not get bytes, by [`BufferUse`].
    refused: [AtomicU64; BufferUse::ALL.len()],
}

/// What a body is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum BufferUse {
    /// The body of a request, for a plugin that reads it.
    Request,
    /// The body of a request, to be sent again.
    Replay,
    /// The body of a request, to be mirrored.
    Mirror,
    /// The body of a response, for a filter.
    Response,
}

impl BufferUse {
    pub(in crate::proxy) const ALL: [(BufferUse, &'static str); 4] = [
        (BufferUse::Request, "request"),
        (BufferUse::Replay, "replay"),
        (BufferUse::Mirror, "mirror"),
        (BufferUse::Response, "response"),
    ];
}

impl BufferBudget {
    pub(in crate::proxy) fn new(limit: usize) -> Self {
        BufferBudget {
            limit,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            returned: Notify::new(),
            refused: Default::default(),
        }
    }

    pub(in crate::proxy) fn limit(&self) -> usize {
        self.limit
    }

    pub(in crate::proxy) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// How many bodies of this use did not get bytes.
    pub(in crate::proxy) fn refused(&self, kept_for: BufferUse) -> u64 {
        self.refused[kept_for as usize].load(Relaxed)
    }

    fn try_take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(SeqCst, SeqCst, fits).is_ok()
    }

    fn put_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.returned.notify_waiters();
        }
    }
}

/// The bytes of one worker.
#[derive(Debug)]
pub(in crate::proxy) struct WorkerBuffers {
    process: Arc<BufferBudget>,
    /// Bytes that this worker has taken, and that no body uses.
    free: Cell<usize>,
}

impl WorkerBuffers {
    pub(in crate::proxy) fn new(process: Arc<BufferBudget>) -> Rc<Self> {
        Rc::new(WorkerBuffers { process, free: Cell::new(0) })
    }

    /// Bytes of a body that is kept, none so far.
    pub(in crate::proxy) fn buffered(self: &Rc<Self>, kept_for: BufferUse) -> BufferedBytes {
        BufferedBytes { worker: Rc::clone(self), kept_for, bytes: 0 }
    }

    fn free(&self) -> usize {
        self.free.get() + self.process.limit.saturating_sub(self.process.used.load(Relaxed))
    }

    fn try_take(&self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.free.get());
        let taken = match missing {
            0 => 0,
            _ if self.process.try_take(missing.max(SLAB)) => missing.max(SLAB),
            _ if self.process.try_take(missing) => missing,
            _ => return false,
        };
        self.free.set(self.free.get() + taken - bytes);
        true
    }

    fn put_back(&self, bytes: usize) {
        let free = self.free.get() + bytes;
        let kept = if self.process.waiting.load(SeqCst) > 0 { 0 } else { SLAB };
        if free > 2 * kept {
            self.process.put_back(free - kept);
        }
        self.free.set(if free > 2 * kept { kept } else { free });
    }
}

impl Drop for WorkerBuffers {
    fn drop(&mut self) {
        self.process.put_back(self.free.get());
    }
}

/// The bytes of one body. Dropping it returns them.
#[derive(Debug)]
pub(in crate::proxy) struct BufferedBytes {
    worker: Rc<WorkerBuffers>,
    kept_for: BufferUse,
    bytes: usize,
}

/// The limit of the process is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct BufferLimitReached;

impl BufferedBytes {
    /// Takes bytes for the next part of the body. If there are none, the part must not be kept.
    pub(in crate::proxy) fn try_grow(&mut self, bytes: usize) -> Result<(), BufferLimitReached> {
        if self.try_take(bytes) {
            return Ok(());
        }
        self.worker.process.refused[self.kept_for as usize].fetch_add(1, Relaxed);
        Err(BufferLimitReached)
    }

    /// Takes bytes for the next part of the body, and waits up to [`MAX_WAIT`] for them.
    pub(in crate::proxy) async fn grow(&mut self, bytes: usize) -> Result<(), BufferLimitReached> {
        if self.try_take(bytes) {
            return Ok(());
        }
        let never_fits = self.bytes + bytes > self.worker.process.limit / 2;
        if never_fits {
            return self.try_grow(bytes);
        }
        let process = Arc::clone(&self.worker.process);
        let _waiting = WaitingBody::new(&process);
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            let mut returned = pin!(process.returned.notified());
            returned.as_mut().enable();
            if self.try_take(bytes) {
                return Ok(());
            }
            if timeout_at(deadline, returned).await.is_err() {
                return self.try_grow(bytes);
            }
        }
    }

    fn try_take(&mut self, bytes: usize) -> bool {
        let is_small_enough = self.bytes + bytes <= self.worker.free().saturating_sub(bytes);
        let taken = is_small_enough && self.worker.try_take(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for BufferedBytes {
    fn drop(&mut self) {
        self.worker.put_back(self.bytes);
    }
}

struct WaitingBody<'b>(&'b BufferBudget);

impl<'b> WaitingBody<'b> {
    fn new(budget: &'b BufferBudget) -> Self {
        budget.waiting.fetch_add(1, SeqCst);
        WaitingBody(budget)
    }
}

impl Drop for WaitingBody<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// How many bytes a worker takes at once, and keeps for later bodies.
const SLAB: usize = 16 * 1024;
/// How long a body waits for bytes, as requests wait for connections.
const MAX_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 10 * SLAB;

    fn workers<const COUNT: usize>() -> (Arc<BufferBudget>, [Rc<WorkerBuffers>; COUNT]) {
        let process = Arc::new(BufferBudget::new(LIMIT));
        let workers = std::array::from_fn(|_| WorkerBuffers::new(Arc::clone(&process)));
        (process, workers)
    }

    #[test]
    fn bytes_are_returned_with_their_body() {
        let (process, [worker]) = workers();
        let mut body = worker.buffered(BufferUse::Request);
        assert_eq!(process.used(), 0, "an empty body takes nothing");
        for _ in 0..5 {
            body.try_grow(SLAB).unwrap();
        }
        assert_eq!(process.used(), 5 * SLAB);
        assert_eq!(body.try_grow(1), Err(BufferLimitReached), "a body can take half");
        assert_eq!((process.refused(BufferUse::Mirror), process.refused(BufferUse::Request)), (0, 1));
        drop(body);
        assert_eq!(process.used(), SLAB, "the worker keeps some for the next body");
        worker.buffered(BufferUse::Mirror).try_grow(1).unwrap();
        drop(worker);
        assert_eq!(process.used(), 0);
    }

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let (process, [first, second]) = workers();
        let keep = |worker: &Rc<WorkerBuffers>, bytes| {
            let mut body = worker.buffered(BufferUse::Request);
            body.try_grow(bytes).is_ok().then_some(body)
        };
        let large: Vec<_> = std::iter::from_fn(|| keep(&first, SLAB)).collect();
        assert_eq!((large.len(), process.refused(BufferUse::Request)), (9, 1));
        let small: Vec<_> = std::iter::from_fn(|| keep(&second, SLAB / 100)).collect();
        assert!(small.len() > 90, "{}", small.len());
        assert!(process.used() <= LIMIT);
    }

    #[test]
    fn workers_take_slabs() {
        let (process, [worker]) = workers();
        for _ in 0..100 {
            worker.buffered(BufferUse::Replay).try_grow(100).unwrap();
        }
        assert_eq!(process.used(), SLAB);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_wait_for_bytes_of_other_workers() {
        let (process, [first, second]) = workers();
        let mut held = first.buffered(BufferUse::Request);
        held.try_grow(LIMIT / 2).unwrap();
        let mut waiting = second.buffered(BufferUse::Response);
        let release = async {
            tokio::task::yield_now().await;
            assert_eq!(process.waiting.load(SeqCst), 1);
            drop(held);
        };
        let (outcome, ()) = tokio::join!(waiting.grow(LIMIT / 2), release);
        outcome.unwrap();
        assert_eq!((process.waiting.load(SeqCst), process.refused(BufferUse::Response)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends() {
        let (process, [worker]) = workers();
        let mut held = worker.buffered(BufferUse::Request);
        held.try_grow(LIMIT / 2).unwrap();
        let began = Instant::now();
        assert_eq!(worker.buffered(BufferUse::Response).grow(LIMIT / 3).await, Err(BufferLimitReached));
        assert_eq!((began.elapsed(), process.refused(BufferUse::Response)), (MAX_WAIT, 1));
    }
}
