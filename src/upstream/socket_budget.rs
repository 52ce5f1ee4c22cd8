//! The limit of connections to endpoints, which all workers and upstreams of the process share.
//!
//! No upstream can take all sockets: it may open one if it holds less than a quarter of the limit, or if more than half
//! of the limit is free. Requests beyond that wait for a short time, and fail without affecting other upstreams.
//! While a request waits, the workers close idle connections that stand in its way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The sockets of the whole process.
#[derive(Debug)]
pub struct SocketBudget {
    limit: usize,
    free: Arc<Semaphore>,
    /// Idle connections of any upstream that workers should close.
    wanted: ShedRequests,
    /// Notified when workers should close idle connections.
    shedding: Notify,
}

/// The sockets of one upstream.
#[derive(Debug, Default)]
pub(super) struct UpstreamSockets {
    /// Sockets that are open or being opened.
    held: AtomicUsize,
    /// Requests that wait for a socket.
    waiting: AtomicUsize,
    /// Notified when a socket is closed while requests wait.
    closed: Notify,
    /// Idle connections of this upstream that workers should close.
    wanted: ShedRequests,
}

/// Permission for one socket. Dropping it permits another one.
#[derive(Debug)]
pub(super) struct SocketPermit {
    // Released first, so that a request that the share lets in finds it.
    _process: OwnedSemaphorePermit,
    _share: ShareGuard,
}

/// The limit that a request has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketLimit {
    /// All sockets of the process are in use.
    Process { limit: usize },
    /// The upstream has its share of the sockets, and less than half of all is free.
    Share { share: usize, limit: usize },
    /// Too many requests already wait for a socket of the upstream.
    Queue { length: usize },
}

impl fmt::Display for SocketLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketLimit::Process { limit } => write!(formatter, "all {limit} connections to endpoints are in use"),
            SocketLimit::Share { share, limit } => write!(
                formatter,
                "the Service has {share} connections, its share of the limit of {limit}, and less than half of the \
                 limit is free"
            ),
            SocketLimit::Queue { length } => {
                write!(formatter, "{length} requests already wait for a connection to the Service")
            }
        }
    }
}

impl SocketBudget {
    /// `limit` is the maximum of sockets of the process.
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        SocketBudget {
            limit,
            free: Arc::new(Semaphore::new(limit)),
            wanted: ShedRequests::default(),
            shedding: Notify::new(),
        }
    }

    /// Whether less than a twentieth of the sockets is free, so that requests which make no progress should give up
    /// theirs.
    pub fn is_scarce(&self) -> bool {
        self.free.available_permits() < self.limit.div_ceil(20)
    }

    /// Ready when idle connections should be closed.
    pub fn shedding(&self) -> Notified<'_> {
        self.shedding.notified()
    }

    /// Idle connections of any upstream that should be closed.
    pub(super) fn wanted(&self) -> &ShedRequests {
        &self.wanted
    }

    /// Waits for a socket, at most for `patience`.
    pub(super) async fn acquire(
        &self,
        upstream: &Arc<UpstreamSockets>,
        patience: Duration,
    ) -> Result<SocketPermit, SocketLimit> {
        if let Some(permit) = self.try_acquire(upstream) {
            return Ok(permit);
        }
        let Some(_waiting) = upstream.enqueue() else { return Err(SocketLimit::Queue { length: MAX_WAITING }) };
        let deadline = Instant::now() + patience;
        let waiting_for_share = async {
            let _shedding = upstream.wanted.add();
            self.shedding.notify_waiters();
            loop {
                let closed = upstream.closed.notified();
                if let Some(share) = self.try_share(upstream) {
                    return share;
                }
                // The sockets of other upstreams count as well, and are not announced here.
                drop(timeout_at(Instant::now() + SHARE_CHECK_INTERVAL, closed).await);
            }
        };
        let Ok(share) = timeout_at(deadline, waiting_for_share).await else {
            return Err(SocketLimit::Share { share: self.share(), limit: self.limit });
        };
        let _shedding = self.wanted.add();
        self.shedding.notify_waiters();
        match timeout_at(deadline, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(process)) => Ok(SocketPermit { _process: process, _share: share }),
            _ => Err(SocketLimit::Process { limit: self.limit }),
        }
    }

    fn try_acquire(&self, upstream: &Arc<UpstreamSockets>) -> Option<SocketPermit> {
        let share = self.try_share(upstream)?;
        let process = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(SocketPermit { _process: process, _share: share })
    }

    fn try_share(&self, upstream: &Arc<UpstreamSockets>) -> Option<ShareGuard> {
        let may_hold_more = |held| held < self.share() || self.free.available_permits() > self.limit / 2;
        upstream.held.fetch_update(Relaxed, Relaxed, |held| may_hold_more(held).then_some(held + 1)).ok()?;
        Some(ShareGuard(Arc::clone(upstream)))
    }

    /// The number of sockets that an upstream can always hold, as long as the process has any.
    fn share(&self) -> usize {
        self.limit.div_ceil(4)
    }
}

impl UpstreamSockets {
    /// Idle connections of this upstream that should be closed.
    pub(super) fn wanted(&self) -> &ShedRequests {
        &self.wanted
    }

    /// Counts a waiting request, unless too many wait.
    fn enqueue(&self) -> Option<WaitingGuard<'_>> {
        let counted =
            self.waiting.fetch_update(Relaxed, Relaxed, |waiting| (waiting < MAX_WAITING).then_some(waiting + 1));
        counted.ok().map(|_| WaitingGuard(self))
    }
}

/// One socket of an upstream's share.
#[derive(Debug)]
struct ShareGuard(Arc<UpstreamSockets>);

impl Drop for ShareGuard {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
        if self.0.waiting.load(Relaxed) > 0 {
            self.0.closed.notify_one();
        }
    }
}

struct WaitingGuard<'a>(&'a UpstreamSockets);

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// The number of idle connections to close: one for each request that waits.
#[derive(Debug, Default)]
pub(super) struct ShedRequests(AtomicUsize);

impl ShedRequests {
    /// Asks for one idle connection until the returned guard is dropped.
    fn add(&self) -> ShedGuard<'_> {
        self.0.fetch_add(1, Relaxed);
        ShedGuard(self)
    }

    /// Whether an idle connection should be closed.
    pub(super) fn is_pending(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Takes one request, if there is one. The caller must close an idle connection for it.
    pub(super) fn take(&self) -> bool {
        // Mostly there is none, which a load finds without writing.
        self.is_pending() && self.0.fetch_update(Relaxed, Relaxed, |requests| requests.checked_sub(1)).is_ok()
    }
}

struct ShedGuard<'a>(&'a ShedRequests);

impl Drop for ShedGuard<'_> {
    fn drop(&mut self) {
        // Nothing to take back if a worker has closed a connection for it.
        self.0.take();
    }
}

/// Maximum number of requests that wait for a socket of one upstream.
const MAX_WAITING: usize = 1024;
/// How often a request that waits for its upstream's share looks for sockets that other upstreams have closed.
const SHARE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait for a socket, however long the rule allows to connect.
pub(super) const MAX_SOCKET_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn take(budget: &SocketBudget, upstream: &Arc<UpstreamSockets>, count: usize) -> Vec<SocketPermit> {
        let mut permits = Vec::new();
        for _ in 0..count {
            permits.push(budget.acquire(upstream, PATIENCE).await.unwrap());
        }
        permits
    }

    #[tokio::test(start_paused = true)]
    async fn one_upstream_cannot_take_all_sockets() {
        let budget = SocketBudget::new(40);
        let (busy, other, third): (Arc<UpstreamSockets>, Arc<UpstreamSockets>, Arc<UpstreamSockets>) =
            Default::default();
        let held = take(&budget, &busy, 20).await;
        let limit = budget.acquire(&busy, PATIENCE).await.unwrap_err();
        assert_eq!(limit, SocketLimit::Share { share: 10, limit: 40 });
        let others = take(&budget, &other, 10).await;
        assert!(budget.acquire(&other, PATIENCE).await.is_err());
        let thirds = take(&budget, &third, 10).await;
        let fourth = Arc::default();
        assert_eq!(budget.acquire(&fourth, PATIENCE).await.unwrap_err(), SocketLimit::Process { limit: 40 });
        assert_eq!(fourth.held.load(Relaxed), 0, "a failed request holds nothing");
        assert!(budget.is_scarce());
        drop((held, others, thirds));
        assert!(!budget.is_scarce());
        assert_eq!(take(&budget, &busy, 20).await.len(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_requests_get_closed_sockets() {
        let budget = Arc::new(SocketBudget::new(8));
        let (busy, other) = (Arc::default(), Arc::default());
        let mut held = take(&budget, &busy, 4).await;
        let mut others = take(&budget, &other, 2).await;
        let waiting = tokio::spawn({
            let (budget, busy) = (Arc::clone(&budget), Arc::clone(&busy));
            async move { budget.acquire(&busy, PATIENCE).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(busy.wanted.take(), "an idle connection of the same upstream would help");
        assert!(!budget.wanted.take(), "others would not");
        held.truncate(1);
        waiting.await.unwrap().unwrap();
        // Sockets of another upstream help too, if more than half is free then.
        held.extend(take(&budget, &busy, 1).await);
        let waiting = tokio::spawn({
            let (budget, busy) = (Arc::clone(&budget), Arc::clone(&busy));
            async move { budget.acquire(&busy, PATIENCE).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        others.clear();
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn queue_of_an_upstream_is_limited() {
        let budget = Arc::new(SocketBudget::new(1));
        let upstream = Arc::new(UpstreamSockets::default());
        let _held = budget.acquire(&upstream, PATIENCE).await.unwrap();
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let (budget, upstream) = (Arc::clone(&budget), Arc::clone(&upstream));
                tokio::spawn(async move { budget.acquire(&upstream, PATIENCE).await.map(drop) })
            })
            .collect();
        while upstream.waiting.load(Relaxed) < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let limit = budget.acquire(&upstream, PATIENCE).await.unwrap_err();
        assert_eq!(limit, SocketLimit::Queue { length: MAX_WAITING });
        for waiting in waiting {
            assert!(waiting.await.unwrap().is_err());
        }
        assert_eq!(upstream.waiting.load(Relaxed), 0);
        assert!(
            !budget.wanted.is_pending() && !upstream.wanted.is_pending(),
            "nothing is shed for a request that has ended"
        );
    }
}
