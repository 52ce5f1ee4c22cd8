//! The limit of the bytes of bodies that the process keeps in memory, beyond what streams through it: bodies that are
//! read before they are processed, and copies that may be sent once more.
//!
//! ```text
//!   BufferBudget ─ slabs ─▶ WorkerBuffers ─── bytes ─┬▶ BufferedBytes, with each body
//!    (process)               (one thread)            │
//!   Shares ─────── slabs ─▶ NamespaceBytes ─ bytes ──┤
//!     └ clients of a namespace ───────────── bytes ──┘
//! ```
//!
//! Bytes are taken before a body keeps them, and returned when it is dropped. A worker takes and returns slabs, so that
//! most requests do not write to memory that other cores write.
//!
//! A body may be at most as large as what bodies of its namespace can still get afterwards. So clients that send
//! large bodies slowly leave some to smaller bodies, of the same namespace too. All bodies of a client together may
//! take seven times what its namespace can still get, and all bodies of a namespace together seven times what is
//! free, as [`shared_limit`](crate::shared_limit) explains. What a client sends more slowly than [`MIN_RATE`] after
//! [`BASE_TIME`] is not kept further.

mod namespace_bytes;

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::namespace_bytes::{NamespaceBytes, WorkerNamespaces};
use crate::plugin_api::KeptBytes;
use crate::plugin_api::body_budget::BudgetExceeded;
use crate::shared_limit::{HeldByClient, Shares};
use crate::turn_clock;
use crate::upstream::ClientSlot;

/// The limit of all workers.
#[derive(Debug)]
pub(in crate::proxy) struct BufferBudget {
    limit: usize,
    /// What the bodies of each namespace use.
    namespaces: Shares,
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
            namespaces: Shares::default(),
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

    /// Whether less than 15 % of the bytes is free, so that responses whose clients do not read should give up theirs.
    /// A single namespace leaves 12.5 % free.
    pub(in crate::proxy) fn is_scarce(&self) -> bool {
        self.limit.saturating_sub(self.used()) < self.limit.saturating_mul(3).div_ceil(20)
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
    namespaces: WorkerNamespaces,
}

impl WorkerBuffers {
    pub(in crate::proxy) fn new(process: Arc<BufferBudget>) -> Rc<Self> {
        Rc::new(WorkerBuffers { process, free: Cell::new(0), namespaces: WorkerNamespaces::default() })
    }

    /// Bytes of a body that is kept, none so far. `namespace`: that of the object because of which it is kept, a route
    /// or a Service. `client`: that of the request.
    pub(in crate::proxy) fn buffered(
        self: &Rc<Self>,
        kept_for: BufferUse,
        namespace: &str,
        client: ClientSlot,
    ) -> BufferedBytes {
        let namespace = self.namespaces.of(namespace, &self.process.namespaces);
        let client = namespace.of_client(client);
        BufferedBytes { worker: Rc::clone(self), namespace, client, kept_for, bytes: 0, began: turn_clock::now() }
    }

    /// Whether less than 15 % of the bytes is free in the process.
    pub(in crate::proxy) fn is_scarce(&self) -> bool {
        self.process.is_scarce()
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

    /// How many bytes the worker keeps for later bodies.
    fn kept(&self) -> usize {
        if self.process.waiting.load(SeqCst) > 0 { 0 } else { SLAB }
    }

    fn put_back(&self, bytes: usize) {
        let free = self.free.get() + bytes;
        let kept = self.kept();
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
    namespace: Rc<NamespaceBytes>,
    client: HeldByClient,
    kept_for: BufferUse,
    bytes: usize,
    /// When the body began, without the time in which it has waited for bytes.
    began: Instant,
}

/// Why the next part of a body is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum NotKept {
    /// The limit of the process is reached, or the share of the namespace or of the client.
    LimitReached,
    /// The client has sent the body too slowly.
    TooSlow,
}

impl BufferedBytes {
    /// How many bytes the body has taken.
    pub(in crate::proxy) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes bytes for the next part of the body. If there are none, the part must not be kept.
    pub(in crate::proxy) fn try_grow(&mut self, bytes: usize) -> Result<(), NotKept> {
        self.check_rate()?;
        if self.try_take(bytes) {
            return Ok(());
        }
        self.worker.process.refused[self.kept_for as usize].fetch_add(1, Relaxed);
        Err(NotKept::LimitReached)
    }

    /// The body is replaced by one of this length. Returns whether there is room for it; if not, it may not be kept.
    pub(in crate::proxy) fn resize(&mut self, bytes: usize) -> bool {
        match self.bytes.checked_sub(bytes) {
            Some(surplus) => self.shrink(surplus),
            None => return self.try_grow(bytes - self.bytes).is_ok(),
        }
        true
    }

    /// Takes bytes for the next part of the body, and waits up to [`MAX_WAIT`] for them.
    pub(in crate::proxy) async fn grow(&mut self, bytes: usize) -> Result<(), NotKept> {
        self.check_rate()?;
        if self.try_take(bytes) {
            return Ok(());
        }
        let never_fits = self.bytes + bytes > self.worker.process.limit / 16 * 7;
        if never_fits {
            return self.try_grow(bytes);
        }
        let process = Arc::clone(&self.worker.process);
        let _waiting = WaitingBody::new(&process);
        // What other workers keep for later bodies, they return with the next body that ends.
        self.worker.namespaces.return_unused();
        let waiting_since = Instant::now();
        let deadline = waiting_since + MAX_WAIT;
        loop {
            let mut returned = pin!(process.returned.notified());
            returned.as_mut().enable();
            if self.try_take(bytes) {
                self.began += waiting_since.elapsed();
                return Ok(());
            }
            if timeout_at(deadline, returned).await.is_err() {
                self.began += waiting_since.elapsed();
                return self.try_grow(bytes);
            }
        }
    }

    /// Whether the client has sent the body fast enough so far. The timeouts of endpoints apply to responses.
    fn check_rate(&self) -> Result<(), NotKept> {
        let time = BASE_TIME + Duration::from_secs((self.bytes / MIN_RATE) as u64);
        let is_fast =
            self.kept_for == BufferUse::Response || turn_clock::now().saturating_duration_since(self.began) <= time;
        if is_fast { Ok(()) } else { Err(NotKept::TooSlow) }
    }

    fn try_take(&mut self, bytes: usize) -> bool {
        let free = self.worker.free();
        let room = self.namespace.room(free);
        let is_small_enough = self.bytes + bytes <= room.saturating_sub(bytes);
        if !is_small_enough || !self.client.try_grow(bytes, room) {
            return false;
        }
        if !self.namespace.try_take(bytes, free) {
            self.client.shrink(bytes);
            return false;
        }
        let taken = self.worker.try_take(bytes);
        if taken {
            self.bytes += bytes;
        } else {
            self.client.shrink(bytes);
            self.namespace.put_back(bytes, self.worker.kept());
        }
        taken
    }

    fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.client.shrink(bytes);
        // Before bodies that wait are notified, which may be of the same namespace.
        self.namespace.put_back(bytes, self.worker.kept());
        self.worker.put_back(bytes);
    }
}

/// For a plugin that collects a response, and for what is held until a response is sent.
impl KeptBytes for BufferedBytes {
    fn grow(&mut self, bytes: usize) -> LocalBoxFuture<'_, Result<(), BudgetExceeded>> {
        Box::pin(async move { BufferedBytes::grow(self, bytes).await.map_err(|_| BudgetExceeded) })
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for BufferedBytes {
    fn drop(&mut self) {
        self.shrink(self.bytes);
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
/// How long a client may take to send a body that is kept, and a second more for each `MIN_RATE` bytes.
const BASE_TIME: Duration = Duration::from_secs(60);
/// Bytes in a second.
const MIN_RATE: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 10 * SLAB;
    const TEAM: &str = "team";

    fn client(number: u8) -> ClientSlot {
        ClientSlot::numbered(number)
    }

    fn workers<const COUNT: usize>() -> (Arc<BufferBudget>, [Rc<WorkerBuffers>; COUNT]) {
        let process = Arc::new(BufferBudget::new(LIMIT));
        let workers = std::array::from_fn(|_| WorkerBuffers::new(Arc::clone(&process)));
        (process, workers)
    }

    #[test]
    fn bytes_are_returned_with_their_body() {
        let (process, [worker]) = workers();
        let mut body = worker.buffered(BufferUse::Request, TEAM, client(0));
        assert_eq!(process.used(), 0, "an empty body takes nothing");
        for _ in 0..14 {
            body.try_grow(5 * SLAB / 16).unwrap();
        }
        assert_eq!(process.used(), 5 * SLAB);
        assert_eq!(body.try_grow(1), Err(NotKept::LimitReached), "a body can take seven sixteenths");
        assert_eq!((process.refused(BufferUse::Mirror), process.refused(BufferUse::Request)), (0, 1));
        drop(body);
        assert_eq!(process.used(), SLAB, "the worker keeps some for the next body");
        worker.buffered(BufferUse::Mirror, TEAM, client(0)).try_grow(1).unwrap();
        drop(worker);
        assert_eq!(process.used(), 0);
    }

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let (process, [first, second]) = workers();
        let large = keep_all(&first, "large", SLAB);
        assert_eq!((large.len(), process.refused(BufferUse::Request)), (7, 1));
        let small = keep_all(&second, "small", SLAB / 100);
        assert!(small.len() > 80, "{}", small.len());
        assert!(process.used() <= LIMIT);
    }

    #[test]
    fn workers_take_slabs() {
        let (process, [worker]) = workers();
        for _ in 0..100 {
            worker.buffered(BufferUse::Replay, TEAM, client(0)).try_grow(100).unwrap();
        }
        assert_eq!(process.used(), SLAB);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_wait_for_bytes_of_other_workers() {
        let (process, [first, second]) = workers();
        let mut held = first.buffered(BufferUse::Request, TEAM, client(0));
        held.try_grow(LIMIT * 3 / 8).unwrap();
        let mut waiting = second.buffered(BufferUse::Response, TEAM, client(0));
        let release = async {
            tokio::task::yield_now().await;
            assert_eq!(process.waiting.load(SeqCst), 1);
            drop(held);
        };
        let (outcome, ()) = tokio::join!(waiting.grow(LIMIT / 3), release);
        outcome.unwrap();
        assert_eq!((process.waiting.load(SeqCst), process.refused(BufferUse::Response)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends() {
        let (process, [worker]) = workers();
        let mut held = worker.buffered(BufferUse::Request, TEAM, client(0));
        held.try_grow(LIMIT * 3 / 8).unwrap();
        let began = Instant::now();
        assert_eq!(
            worker.buffered(BufferUse::Response, TEAM, client(0)).grow(LIMIT / 3).await,
            Err(NotKept::LimitReached)
        );
        assert_eq!((began.elapsed(), process.refused(BufferUse::Response)), (MAX_WAIT, 1));
    }

    /// Bodies of many clients.
    fn keep_all(worker: &Rc<WorkerBuffers>, namespace: &str, bytes: usize) -> Vec<BufferedBytes> {
        let keep = |number: u8| {
            let mut body = worker.buffered(BufferUse::Request, namespace, client(number % 64));
            body.try_grow(bytes).is_ok().then_some(body)
        };
        (0..=u8::MAX).cycle().map_while(keep).collect()
    }

    fn keep_all_of(worker: &Rc<WorkerBuffers>, slot: ClientSlot, bytes: usize) -> Vec<BufferedBytes> {
        let keep = || {
            let mut body = worker.buffered(BufferUse::Request, TEAM, slot);
            body.try_grow(bytes).is_ok().then_some(body)
        };
        std::iter::from_fn(keep).collect()
    }

    /// One client, which sends many bodies of any size slowly, also over the connections of other workers.
    #[test]
    fn bodies_of_one_client_leave_room_for_those_of_others_in_its_namespace() {
        for bytes in [SLAB / 100, SLAB, 20 * SLAB] {
            let process = Arc::new(BufferBudget::new(800 * SLAB));
            let [first, second] = std::array::from_fn(|_| WorkerBuffers::new(Arc::clone(&process)));
            let many = keep_all_of(&first, client(1), bytes);
            let used = many.len() * bytes;
            assert!((490 * SLAB..=620 * SLAB).contains(&used), "{used} bytes in bodies of {bytes}");
            let more: usize = keep_all_of(&second, client(1), bytes).iter().map(BufferedBytes::bytes).sum();
            assert!(more <= 20 * SLAB, "its bodies of other workers count: {more}");
            for worker in [&first, &second] {
                let mut other = worker.buffered(BufferUse::Request, TEAM, client(2));
                assert_eq!(other.try_grow(20 * SLAB), Ok(()), "bodies of {bytes} bytes leave no room");
            }
        }
    }

    /// The share of a namespace is full long before the process is.
    #[test]
    fn large_bodies_leave_room_for_small_ones_of_their_namespace() {
        let (process, [worker]) = workers();
        let large = keep_all(&worker, TEAM, SLAB);
        assert!(large.len() >= 7, "{}", large.len());
        let small = keep_all(&worker, TEAM, 7);
        assert!(small.len() > 100, "{}", small.len());
        assert!(process.used() <= LIMIT);
    }

    #[test]
    fn one_namespace_leaves_room_for_others() {
        const LIMIT: usize = 800 * SLAB;
        let process = Arc::new(BufferBudget::new(LIMIT));
        let [first, second] = std::array::from_fn(|_| WorkerBuffers::new(Arc::clone(&process)));
        // From the clients of all workers.
        let mut busy = keep_all(&first, "busy", SLAB);
        assert!((690..=700).contains(&busy.len()), "{}", busy.len());
        assert!(keep_all(&second, "busy", SLAB).len() <= 2, "its bodies of other workers count");
        let others = keep_all(&second, "other", SLAB);
        assert!(others.len() >= 70, "{}", others.len());
        assert!(!keep_all(&first, "third", SLAB / 2).is_empty());
        // A namespace with little gets what others return, and those with most get nothing.
        busy.truncate(busy.len() - 10);
        assert!(keep_all(&first, "busy", SLAB).len() <= 2);
        assert!(keep_all(&first, "other", SLAB).len() >= 5);
        drop((busy, others));
        assert!(keep_all(&second, "other", SLAB).len() >= 690, "nothing stays reserved");
    }

    #[test]
    fn many_namespaces_share_the_limit() {
        let (process, [worker]) = workers();
        let kept: Vec<_> = (0..200)
            .map(|number| {
                let mut body = worker.buffered(BufferUse::Request, &format!("namespace {number}"), client(0));
                body.try_grow(SLAB / 100).map(|()| body)
            })
            .collect();
        assert!(kept.iter().all(Result::is_ok));
        assert!(process.used() <= LIMIT);
    }

    #[test]
    fn smallest_limits() {
        for limit in 0..=1 {
            let process = Arc::new(BufferBudget::new(limit));
            let mut body = WorkerBuffers::new(process).buffered(BufferUse::Request, TEAM, client(0));
            assert_eq!(body.try_grow(1), Err(NotKept::LimitReached), "a body may take half of {limit}");
            assert_eq!(body.try_grow(0), Ok(()));
        }
        let process = Arc::new(BufferBudget::new(2));
        let mut body = WorkerBuffers::new(process).buffered(BufferUse::Request, TEAM, client(0));
        assert_eq!(body.try_grow(1), Ok(()));
    }

    /// A client that sends a byte a minute would otherwise keep a body for as long as it wants.
    #[tokio::test(start_paused = true)]
    async fn slow_bodies_get_no_more_bytes() {
        let (process, [worker]) = workers();
        for (kept_for, expected) in [
            (BufferUse::Request, Err(NotKept::TooSlow)),
            (BufferUse::Replay, Err(NotKept::TooSlow)),
            (BufferUse::Mirror, Err(NotKept::TooSlow)),
            (BufferUse::Response, Ok(())),
        ] {
            let mut body = worker.buffered(kept_for, TEAM, client(0));
            body.try_grow(2 * MIN_RATE).unwrap();
            tokio::time::advance(BASE_TIME + Duration::from_secs(2)).await;
            assert_eq!(body.try_grow(1), Ok(()), "larger bodies have more time");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!((body.try_grow(1), body.grow(1).await), (expected, expected), "{kept_for:?}");
            assert_eq!(process.refused(kept_for), 0, "there was room");
        }
    }

    /// The client is not slow while Portico does not read its body.
    #[tokio::test(start_paused = true)]
    async fn waiting_for_bytes_is_not_slowness() {
        let (_process, [first, second]) = workers();
        let mut held = first.buffered(BufferUse::Request, "other", client(0));
        held.try_grow(LIMIT * 3 / 8).unwrap();
        let mut waiting = second.buffered(BufferUse::Request, TEAM, client(0));
        tokio::time::advance(BASE_TIME).await;
        let release = async {
            tokio::time::sleep(MAX_WAIT / 2).await; // The time that the body waits.
            drop(held);
        };
        let (outcome, ()) = tokio::join!(waiting.grow(LIMIT / 3), release);
        assert_eq!((outcome, waiting.try_grow(1)), (Ok(()), Ok(())));
    }
}
