//! The limit of connections to endpoints, which all workers and upstreams of the process share.
//!
//! | holder | may open a socket |
//! | --- | --- |
//! | an upstream | if it holds less than a quarter of the limit, or if more than half of the limit is free |
//! | the upstreams of a namespace | if they hold less than seven times what is free, see [`SharedLimit`] |
//! | a client | if the upstream has room beyond what the client uses of it, see [`client_slots`] |
//!
//! Requests beyond that wait for a short time, and fail without affecting others. While a request waits, the workers
//! close idle connections that stand in its way.

pub(super) mod client_slots;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout_at};

use crate::shared_limit::{Held, LimitReached, Share, SharedLimit};

/// The sockets of the whole process.
#[derive(Debug)]
pub struct SocketBudget {
    sockets: SharedLimit,
    /// Idle connections of any upstream that workers should close.
    wanted: ShedRequests,
    /// Notified when workers should close idle connections.
    shedding: Notify,
}

/// The sockets of one upstream.
#[derive(Debug, Default)]
pub(super) struct UpstreamSockets {
    /// What all upstreams of the namespace hold. Set by the first request that needs a socket.
    namespace: OnceLock<Arc<Share>>,
    /// Sockets that are open or being opened.
    held: AtomicUsize,
    /// The most sockets that the configuration allows; 0 for no limit but the shares.
    limit: AtomicUsize,
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
    _process: Held,
    _share: ShareGuard,
}

/// The limit that a request has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketLimit {
    /// All sockets of the process are in use.
    Process { limit: usize },
    /// The upstream has its share of the sockets, and less than half of all is free.
    Share { share: usize, limit: usize },
    /// The upstream has as many sockets as the configuration allows.
    Upstream { limit: usize },
    /// The namespace has its share of the sockets.
    Namespace { held: usize, limit: usize },
    /// The client has its share of what the upstream may have.
    Client { requests: usize },
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
            SocketLimit::Upstream { limit } => {
                write!(formatter, "the Service has {limit} connections, as many as its policy allows")
            }
            SocketLimit::Namespace { held, limit } => write!(
                formatter,
                "the Services of the namespace have {held} connections, their share of the limit of {limit}"
            ),
            SocketLimit::Client { requests } => write!(
                formatter,
                "a client has {requests} requests to the Service in progress, its share of what the Service can take"
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
        SocketBudget { sockets: SharedLimit::new(limit), wanted: ShedRequests::default(), shedding: Notify::new() }
    }

    /// Whether less than 15 % of the sockets is free, so that requests which make no progress should give up theirs. A
    /// single namespace leaves 12.5 % free.
    pub fn is_scarce(&self) -> bool {
        self.sockets.free() < (self.sockets.limit().saturating_mul(3)).div_ceil(20)
    }

    /// Whether more than half of the sockets is free.
    pub(super) fn is_ample(&self) -> bool {
        self.sockets.free() > self.sockets.limit() / 2
    }

    /// How many sockets the upstream can open now.
    pub(super) fn room(&self, upstream: &UpstreamSockets, namespace: &str) -> usize {
        let (free, held) = (self.sockets.free(), upstream.held.load(Relaxed));
        let of_upstream = self.share().saturating_sub(held).max(free.saturating_sub(self.sockets.limit() / 2));
        let of_upstream = of_upstream.min(upstream.limit().saturating_sub(held));
        of_upstream.min(upstream.namespace(self, namespace).room(free))
    }

    /// Ready when idle connections should be closed.
    pub fn shedding(&self) -> Notified<'_> {
        self.shedding.notified()
    }

    /// Idle connections of any upstream that should be closed.
    pub(super) fn wanted(&self) -> &ShedRequests {
        &self.wanted
    }

    /// Waits for a socket of an upstream in this namespace, at most until `deadline`.
    pub(super) async fn acquire(
        &self,
        upstream: &Arc<UpstreamSockets>,
        namespace: &str,
        deadline: Instant,
    ) -> Result<SocketPermit, SocketLimit> {
        let namespace = upstream.namespace(self, namespace);
        if let Some(permit) = self.try_acquire(upstream, namespace) {
            return Ok(permit);
        }
        let Some(_waiting) = upstream.enqueue() else { return Err(SocketLimit::Queue { length: MAX_WAITING }) };
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
        let limit = self.sockets.limit();
        let Ok(share) = timeout_at(deadline, waiting_for_share).await else {
            let (held, configured) = (upstream.held.load(Relaxed), upstream.limit());
            return Err(match held >= configured {
                true => SocketLimit::Upstream { limit: configured },
                false => SocketLimit::Share { share: self.share(), limit },
            });
        };
        let _shedding = self.wanted.add();
        self.shedding.notify_waiters();
        match self.sockets.take(namespace, 1, deadline).await {
            Ok(process) => Ok(SocketPermit { _process: process, _share: share }),
            Err(LimitReached::Share) => Err(SocketLimit::Namespace { held: namespace.held(), limit }),
            Err(LimitReached::All) => Err(SocketLimit::Process { limit }),
        }
    }

    fn try_acquire(&self, upstream: &Arc<UpstreamSockets>, namespace: &Arc<Share>) -> Option<SocketPermit> {
        let share = self.try_share(upstream)?;
        let process = self.sockets.try_take(namespace, 1).ok()?;
        Some(SocketPermit { _process: process, _share: share })
    }

    fn try_share(&self, upstream: &Arc<UpstreamSockets>) -> Option<ShareGuard> {
        let limit = upstream.limit();
        let may_hold_more =
            |held| held < limit && (held < self.share() || self.sockets.free() > self.sockets.limit() / 2);
        upstream.held.fetch_update(Relaxed, Relaxed, |held| may_hold_more(held).then_some(held + 1)).ok()?;
        Some(ShareGuard(Arc::clone(upstream)))
    }

    /// The number of sockets that an upstream can always hold, as long as the process has any.
    fn share(&self) -> usize {
        self.sockets.limit().div_ceil(4)
    }
}

impl UpstreamSockets {
    /// What all upstreams of the namespace hold, `namespace` being that of this one.
    fn namespace(&self, budget: &SocketBudget, namespace: &str) -> &Arc<Share> {
        self.namespace.get_or_init(|| budget.sockets.share(namespace))
    }

    /// Sets the most sockets that the upstream may have; connections beyond it stay until they are closed.
    pub(super) fn set_limit(&self, limit: Option<u32>) {
        self.limit.store(limit.map_or(0, |limit| limit.max(1) as usize), Relaxed);
    }

    fn limit(&self) -> usize {
        match self.limit.load(Relaxed) {
            0 => usize::MAX,
            limit => limit,
        }
    }

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
