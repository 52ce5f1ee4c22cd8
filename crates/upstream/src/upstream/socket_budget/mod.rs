//! The limit of connections to endpoints, which all workers and upstreams of the process share.
//!
//! | holder | may open a socket |
//! | --- | --- |
//! | an upstream | if it holds less than a quarter of the limit, or if more than half of the limit is free |
//! | the upstreams of a namespace | if they hold less than seven times what is free, see [`SharedLimit`] |
//! | a client | if the upstream has room beyond what the client uses of it, see [`client_slots`] |
//!
//! Requests beyond that wait for a short time, and fail without affecting others. Those that come later wait behind
//! them. While a request waits, the workers close idle connections that stand in its way, as [`idle_demand`] counts.

pub(super) mod client_slots;
mod idle_demand;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout_at};

pub(super) use self::idle_demand::IdleDemand;
use crate::shared_limit::{Held, LimitReached, Share, SharedLimit};

/// The sockets of the whole process.
#[derive(Debug)]
pub struct SocketBudget {
    sockets: SharedLimit,
    /// Requests for which workers should close idle connections of any upstream.
    wanted: IdleDemand,
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
    /// Requests that wait for a socket. What comes later waits behind them.
    waiting: AtomicUsize,
    /// Held by the first of those that wait for the share of the upstream.
    first: Mutex<()>,
    /// Notified when a socket is closed while requests wait.
    closed: Notify,
    /// Requests for which workers should close idle connections of this upstream.
    wanted: IdleDemand,
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

impl SocketLimit {
    /// What the operator can do.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            SocketLimit::Upstream { .. } => {
                "raise maxConnections of its BackendPolicy if the endpoints are not too slow"
            }
            SocketLimit::Queue { .. } => {
                "raise --max-connections, or maxConnections of its BackendPolicy, if the endpoints are not too slow"
            }
            SocketLimit::Process { .. }
            | SocketLimit::Share { .. }
            | SocketLimit::Namespace { .. }
            | SocketLimit::Client { .. } => "raise --max-connections if the endpoints are not too slow",
        }
    }
}

impl SocketBudget {
    /// `limit` is the maximum of sockets of the process.
    pub fn new(limit: usize) -> Self {
        SocketBudget { sockets: SharedLimit::new(limit), wanted: IdleDemand::default(), shedding: Notify::new() }
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

    /// Lets all workers close idle connections.
    pub(super) fn shed(&self) {
        self.shedding.notify_waiters();
    }

    /// Requests for which idle connections of any upstream should be closed.
    pub(super) fn wanted(&self) -> &IdleDemand {
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
        if upstream.waiting() == 0
            && let Some(permit) = self.try_acquire(upstream, namespace)
        {
            return Ok(permit);
        }
        let Some(_waiting) = upstream.enqueue() else { return Err(SocketLimit::Queue { length: MAX_WAITING }) };
        let waiting_for_share = async {
            let demand = upstream.wanted.add();
            self.shed();
            let _first = upstream.first.lock().await;
            loop {
                let closed = upstream.closed.notified();
                if let Some(share) = self.try_share(upstream) {
                    return share;
                }
                if demand.renew() {
                    self.shed();
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
        let demand = self.wanted.add();
        self.shed();
        let still_waits = || {
            if demand.renew() {
                self.shed();
            }
        };
        match self.sockets.take_with(namespace, 1, deadline, still_waits).await {
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

    /// Requests for which idle connections of this upstream should be closed.
    pub(super) fn wanted(&self) -> &IdleDemand {
        &self.wanted
    }

    /// How many requests wait for a socket.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
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
        if self.0.waiting() > 0 {
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

/// Maximum number of requests that wait for a socket of one upstream.
const MAX_WAITING: usize = 1024;
/// How often a request that waits for its upstream's share looks for sockets that other upstreams have closed.
const SHARE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait for a socket, however long the rule allows to connect.
pub(super) const MAX_SOCKET_WAIT: Duration = Duration::from_secs(5);
