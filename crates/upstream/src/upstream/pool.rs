//! Connection pools of one worker: idle connections are kept per endpoint, reused newest first, and never shared
//! between workers.

mod connection;
#[cfg(test)]
mod tests;
mod waiting_requests;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;

use super::connect_attempt::ConnectAttempt;
use super::http1::Http1EndpointConnection;
use super::http2::Http2Connections;
use super::limits::EndpointConnectionLimits;
use super::outlier_detection::OutlierDetection;
use super::socket_budget::client_slots::{self, ClientRequest, ClientSlot, ClientSlots};
use super::socket_budget::{SocketBudget, UpstreamSockets};
use super::worker_endpoints::WorkerEndpoints;
use super::{
    ConnectError, EndpointChoice, EndpointConnector, HedgeCounters, NoEndpoint, Outcome, OutcomeClass, Picked,
    RawConnection, RetryCounters, Upstream, UpstreamCounters, UpstreamTarget, WorkerSubsetting,
};
use crate::endpoint_tls::UpstreamProtocol;
use crate::endpoint_tls::UpstreamServerName;
use crate::turn_clock;
use connection::RequestSender;
pub use connection::UpstreamConnection;
use waiting_requests::{WaitedFor, WaitingRequests};

/// All pools of one worker. `B` is the body type of requests.
pub struct ConnectionPools<B> {
    connector: EndpointConnector,
    idle_limits: IdleLimits,
    subsetting: WorkerSubsetting,
    counters: Arc<UpstreamCounters>,
    /// Keyed by the address of the `Upstream`; the pool's weak reference keeps the allocation, so the key stays unique.
    upstreams: RefCell<HashMap<usize, Rc<UpstreamPool<B>>, foldhash::fast::FixedState>>,
    /// The pool that was used last: the pick of an endpoint and the search for a connection follow each other.
    last: RefCell<Option<Rc<UpstreamPool<B>>>>,
}

/// How many idle connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct IdleLimits {
    pub per_endpoint: usize,
    pub timeout: Duration,
    /// How long a connection may have been idle for [`IdleReuse::Recent`].
    pub recent: Duration,
}

/// Which idle connections may get a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleReuse {
    /// All: if the endpoint closes the connection meanwhile, the request is sent again.
    Any,
    /// Those that were used recently, which the endpoint is not about to close.
    Recent,
}

struct UpstreamPool<B> {
    /// Weak, since pools of several workers must not keep an unused upstream alive.
    upstream: Weak<Upstream>,
    /// The endpoints as this worker uses them.
    endpoints: RefCell<WorkerEndpoints>,
    idle: RefCell<HashMap<SocketAddr, Vec<IdleConnection<B>>, foldhash::fast::FixedState>>,
    /// Requests that wait for a socket, to which idle connections are handed over.
    waiting: WaitingRequests<B>,
    per_endpoint: usize,
    /// HTTP/2 connections, used instead of `idle`. Without TLS there is one entry, without a name.
    http2: RefCell<HashMap<SocketAddr, Vec<NamedConnections<B>>, foldhash::fast::FixedState>>,
    budget: Arc<SocketBudget>,
    /// The sockets of the upstream.
    sockets: Arc<UpstreamSockets>,
    detection: Arc<OutlierDetection>,
    connection_limits: Arc<EndpointConnectionLimits>,
    /// The requests in progress by client.
    clients: Rc<ClientSlots>,
}

type NamedConnections<B> = (Option<Rc<UpstreamServerName>>, Rc<Http2Connections<B>>);

struct IdleConnection<B> {
    connection: Http1EndpointConnection<B>,
    idle_since: Instant,
    /// When the endpoint may close it, as far as it has said so.
    ends_at: Option<Instant>,
    /// The number of marks of the upstream at that time.
    marks: u32,
}

impl<B> IdleConnection<B> {
    /// Whether the endpoint is about to close it, or has done so.
    fn has_ended(&self) -> bool {
        self.ends_at.is_some_and(|end| turn_clock::now() >= end)
    }
}

/// The oldest idle connection of a pool.
struct OldestIdle<B> {
    since: Instant,
    place: IdlePlace<B>,
}

/// Where a pool has an idle connection.
enum IdlePlace<B> {
    /// The first one to this address.
    Http1(SocketAddr),
    /// The oldest of these.
    Http2(Rc<Http2Connections<B>>),
}

impl<B> ConnectionPools<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub fn new(
        connector: EndpointConnector,
        idle_limits: IdleLimits,
        subsetting: WorkerSubsetting,
        counters: Arc<UpstreamCounters>,
    ) -> Self {
        ConnectionPools {
            connector,
            idle_limits,
            subsetting,
            counters,
            upstreams: RefCell::default(),
            last: RefCell::default(),
        }
    }

    /// The newest idle connection to the endpoint, if it may be reused. For HTTP/2, a stream on an open connection.
    /// None for a client that has its share of what the upstream can take.
    pub fn take_idle(
        &self,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        reuse: IdleReuse,
    ) -> Option<UpstreamConnection<B>> {
        let upstream = target.upstream;
        let pool = self.pool(upstream);
        let client = self.try_begin(target, &pool)?;
        let sender = self.idle_sender(target, address, reuse, &pool)?;
        let active_request = upstream.active_request(address);
        Some(UpstreamConnection { sender, address, is_reused: true, _active_request: active_request, client, pool })
    }

    /// What [`Self::take_idle`] finds for a request that was counted for its client.
    fn idle_sender(
        &self,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        reuse: IdleReuse,
        pool: &UpstreamPool<B>,
    ) -> Option<RequestSender<B>> {
        let UpstreamTarget { upstream, server_name: name, .. } = target;
        if upstream.key.protocol == UpstreamProtocol::Http2 {
            // `reuse` does not matter: an endpoint that closes an HTTP/2 connection reports which streams were not
            // processed.
            let permit = pool
                .http2
                .borrow()
                .get(&address)?
                .iter()
                .find(|(connection_name, _)| connection_name == name)?
                .1
                .acquire_at_once(&pool.connection_limits, |marks| upstream.is_marked(address, marks))?;
            self.counters.reused.add(1);
            return Some(RequestSender::Http2(permit));
        }
        let mut endpoints = pool.idle.borrow_mut();
        let idle = endpoints.get_mut(&address)?;
        // Usually the last one; older ones match if several server names are in use. Expired ones are left to `sweep`.
        let newest_index = loop {
            let is_named = |idle: &IdleConnection<B>| idle.connection.monitor().server_name() == name.as_deref();
            let index = idle.iter().rposition(is_named)?;
            let candidate @ IdleConnection { connection, marks, .. } = &idle[index];
            if !upstream.is_marked(address, *marks)
                && !candidate.has_ended()
                && connection.is_silent()
                && !connection.has_reached(&pool.connection_limits)
            {
                break index;
            }
            idle.remove(index);
        };
        let idle_timeout = upstream.idle_timeout().unwrap_or(self.idle_limits.timeout);
        let max_idle_time = match reuse {
            IdleReuse::Any => idle_timeout,
            IdleReuse::Recent => self.idle_limits.recent.min(idle_timeout),
        };
        if turn_clock::now().saturating_duration_since(idle[newest_index].idle_since) >= max_idle_time {
            // The connection that is opened instead is idle afterwards as well. If all requests are of this sort, the
            // old ones would add up.
            let surplus = idle.len().saturating_sub(MAX_AGED);
            idle.drain(..surplus);
            return None;
        }
        let newest = idle.remove(newest_index);
        self.counters.reused.add(1);
        Some(RequestSender::Http1(newest.connection))
    }

    /// Opens a connection, or for HTTP/2 a stream, and records the result in the health of the endpoint. A request that
    /// had to wait for its client's share takes an idle connection if there is one then. A `connect_timeout` applies
    /// only if it is longer than that of the Service or the process.
    pub async fn connect(
        &self,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        reuse: IdleReuse,
        connect_timeout: Option<Duration>,
    ) -> Result<UpstreamConnection<B>, ConnectError> {
        let upstream = target.upstream;
        let connector = self.connector_to(upstream, connect_timeout);
        let connector = &*connector;
        // Counted before connecting, since a request that waits for a connection is in progress, too.
        let active_request = upstream.active_request(address);
        let pool = self.pool(upstream);
        let attempt = ConnectAttempt::begin(upstream, address);
        // Before a connection that several requests wait for: they must not wait for this client.
        let deadline = connector.socket_deadline();
        let mut reused = None;
        let client = match self.try_begin(target, &pool) {
            Some(client) => client,
            None => match target.place_wait.during(self.begin(target, address, deadline, &pool)).await {
                Ok(client) => {
                    reused = self.idle_sender(target, address, reuse, &pool);
                    client
                }
                Err(error) => {
                    attempt.end(target, Some(&error));
                    return Err(error);
                }
            },
        };
        let mut place = None;
        if reused.is_none() && upstream.key.protocol != UpstreamProtocol::Http2 {
            let permit = connector.permit_socket(target, address, deadline, &self.counters);
            let put_back = |address, connection| pool.store(address, connection);
            match pool.waiting.wait_for_place(permit, address, target.server_name.as_ref(), put_back).await {
                Ok(WaitedFor::Permit(permit)) => place = Some(permit),
                Ok(WaitedFor::Idle(connection)) => {
                    self.counters.reused.add(1);
                    reused = Some(RequestSender::Http1(connection));
                }
                Err(error) => {
                    attempt.end(target, Some(&error));
                    return Err(error);
                }
            }
        }
        let is_reused = reused.is_some();
        let sender = match (reused, place) {
            // Nothing was learned about the endpoint.
            (Some(sender), _) => sender,
            (None, place) => {
                let counters = &self.counters;
                let connected = match place {
                    Some(permit) => Http1EndpointConnection::connect(connector, target, address, permit, counters)
                        .await
                        .map(RequestSender::Http1),
                    None => {
                        let connections = pool.http2_connections(address, target.server_name.as_ref());
                        let connecting = connections.connect(connector, target, address, deadline, counters);
                        connecting.await.map(RequestSender::Http2)
                    }
                };
                attempt.end(target, connected.as_ref().err());
                connected?
            }
        };
        Ok(UpstreamConnection { sender, address, is_reused, _active_request: active_request, client, pool })
    }

    /// Counts a request that is sent again.
    pub fn count_replay(&self) {
        self.counters.replayed.add(1);
    }

    /// The counters of the retries of an upstream.
    pub fn retry_counters<'u>(&self, upstream: &'u Upstream) -> &'u RetryCounters {
        upstream.retry_counters(&self.counters.retries)
    }

    /// The counters of hedged requests.
    pub fn hedge_counters(&self) -> &HedgeCounters {
        &self.counters.hedges
    }

    /// Closes connections that were idle for too long or whose endpoint was removed, and drops pools of unused
    /// upstreams.
    pub fn sweep(&self) {
        self.last.take();
        self.upstreams.borrow_mut().retain(|_, pool| {
            let Some(upstream) = pool.upstream.upgrade() else { return false };
            let reachable = upstream.reachable();
            let idle_timeout = upstream.idle_timeout().unwrap_or(self.idle_limits.timeout);
            let mut endpoints = pool.idle.borrow_mut();
            endpoints.retain(|address, idle| {
                let is_reachable = reachable.binary_search_by_key(address, |endpoint| endpoint.address).is_ok();
                idle.retain(|candidate @ IdleConnection { connection, idle_since, marks, .. }| {
                    is_reachable
                        && !upstream.is_marked(*address, *marks)
                        && !candidate.has_ended()
                        && connection.is_silent()
                        && idle_since.elapsed() < idle_timeout
                        && !connection.has_reached(&pool.connection_limits)
                });
                !idle.is_empty()
            });
            pool.http2.borrow_mut().retain(|address, named| {
                let is_reachable = reachable.binary_search_by_key(address, |endpoint| endpoint.address).is_ok();
                let is_marked = |marks| upstream.is_marked(*address, marks);
                sweep_http2(named, is_reachable, idle_timeout, &pool.connection_limits, is_marked);
                !named.is_empty()
            });
            true
        });
    }
}

/// What does not depend on the type of bodies.
impl<B> ConnectionPools<B> {
    /// Picks an endpoint of the upstream.
    pub fn pick(&self, upstream: &Arc<Upstream>, choice: &EndpointChoice<'_>) -> Result<Picked, NoEndpoint> {
        let pool = self.pool(upstream);
        let mut endpoints = pool.endpoints.borrow_mut();
        upstream.pick(&mut endpoints, &self.subsetting, choice)
    }

    /// How connections to the upstream are opened: in the time of its Service, or `connect_timeout` if it is longer.
    fn connector_to(&self, upstream: &Upstream, connect_timeout: Option<Duration>) -> Cow<'_, EndpointConnector> {
        let of_service = upstream.connect_timeout().unwrap_or(self.connector.timeout);
        let timeout = connect_timeout.map_or(of_service, |connect_timeout| connect_timeout.max(of_service));
        if timeout == self.connector.timeout {
            Cow::Borrowed(&self.connector)
        } else {
            Cow::Owned(EndpointConnector { timeout, ..self.connector.clone() })
        }
    }

    /// Opens a connection for the bytes of one client connection, and records the result in the health of the endpoint.
    pub(super) async fn open_raw(
        &self,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        client: ClientSlot,
        proxy_header: &[u8],
    ) -> Result<RawConnection, ConnectError> {
        let server_name = upstream.key.tls.as_ref().and_then(|tls| tls.server_name(None));
        let target = UpstreamTarget::new(upstream, server_name, client);
        let active_request = upstream.active_request(address);
        let connector = self.connector_to(upstream, None);
        let attempt = ConnectAttempt::begin(upstream, address);
        let open = async {
            let deadline = connector.socket_deadline();
            let client = self.begin(&target, address, deadline, &self.pool(upstream)).await?;
            let permit = connector.permit_socket(&target, address, deadline, &self.counters).await?;
            let socket = connector.open_socket(&target, address, proxy_header, permit, &self.counters).await?;
            Ok::<_, ConnectError>((socket, client))
        };
        let opened = open.await;
        attempt.end(&target, opened.as_ref().err());
        if opened.is_ok() {
            // There is no response that would show more.
            upstream.report(address, &Outcome::of(OutcomeClass::Responded));
        }
        let (socket, client) = opened?;
        Ok(RawConnection::new(socket, &self.counters, active_request, client))
    }

    /// Counts a request for its client, unless the client has its share.
    fn try_begin(&self, target: &UpstreamTarget<'_>, pool: &Rc<UpstreamPool<B>>) -> Option<ClientRequest> {
        pool.clients.try_begin(target.client, |requests| self.may_have(requests, target.upstream, pool))
    }

    /// Counts a request for its client, and waits while the client has its share.
    async fn begin(
        &self,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        deadline: Instant,
        pool: &Rc<UpstreamPool<B>>,
    ) -> Result<ClientRequest, ConnectError> {
        let may_have = |requests| self.may_have(requests, target.upstream, pool);
        let begun = pool.clients.begin(target.client, deadline, may_have).await;
        begun.map_err(|limit| ConnectError::limit_reached(target.upstream, address, limit, &self.counters))
    }

    /// Whether a client may have this many requests to the upstream.
    fn may_have(&self, requests: usize, upstream: &Upstream, pool: &UpstreamPool<B>) -> bool {
        let sockets = self.connector.sockets.room(&upstream.sockets, &upstream.key.namespace);
        // Counting open connections takes longer, and matters only if few sockets are left.
        match upstream.key.protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::FastCgi => {
                client_slots::is_within(requests, sockets)
                    || client_slots::is_within(requests, sockets + pool.idle_connections())
            }
            UpstreamProtocol::Http2 => {
                let to_open = sockets.saturating_mul(self.connector.max_streams);
                // Several requests wait until one of them has opened a connection, so all in progress count.
                let room = |open: usize| to_open.saturating_add(open).saturating_sub(pool.clients.in_progress());
                client_slots::is_within(requests, room(0))
                    || client_slots::is_within(requests, room(pool.http2_capacity()))
            }
        }
    }

    /// Closes idle connections while requests wait for a socket: of the upstream that waits for its share, or the
    /// oldest of all.
    pub fn shed_idle(&self) {
        let budget = &self.connector.sockets;
        let upstreams = self.upstreams.borrow();
        for pool in upstreams.values() {
            pool.http2.borrow().values().flatten().for_each(|(_, connections)| connections.close_retired());
            let wanted = pool.sockets.wanted();
            while wanted.is_pending()
                && let Some(oldest) = pool.oldest_idle()
                && wanted.take()
            {
                pool.close_idle(oldest);
            }
        }
        while budget.wanted().is_pending() {
            let idle = upstreams.values().filter_map(|pool| Some((pool.oldest_idle()?, pool)));
            let Some((oldest, pool)) = idle.min_by_key(|(oldest, _)| oldest.since) else { return };
            if budget.wanted().take() {
                pool.close_idle(oldest);
            }
        }
    }

    fn pool(&self, upstream: &Arc<Upstream>) -> Rc<UpstreamPool<B>> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(pool) if std::ptr::eq(pool.upstream.as_ptr(), Arc::as_ptr(upstream)) => Rc::clone(pool),
            _ => Rc::clone(last.insert(self.find_pool(upstream))),
        }
    }

    /// The pool of an upstream, which is created for its first request.
    fn find_pool(&self, upstream: &Arc<Upstream>) -> Rc<UpstreamPool<B>> {
        let mut upstreams = self.upstreams.borrow_mut();
        let pool = upstreams.entry(Arc::as_ptr(upstream).addr()).or_insert_with(|| {
            Rc::new(UpstreamPool {
                upstream: Arc::downgrade(upstream),
                endpoints: RefCell::default(),
                idle: RefCell::default(),
                waiting: WaitingRequests::default(),
                per_endpoint: self.idle_limits.per_endpoint,
                http2: RefCell::default(),
                budget: Arc::clone(&self.connector.sockets),
                sockets: Arc::clone(&upstream.sockets),
                detection: Arc::clone(&upstream.detection),
                connection_limits: Arc::clone(&upstream.connection_limits),
                clients: ClientSlots::new(),
            })
        });
        Rc::clone(pool)
    }
}

impl<B> UpstreamPool<B> {
    /// Keeps an idle connection, unless there are enough, or a request that waits needs it: one of this worker itself,
    /// or another one its socket. If the pool was dropped meanwhile, the connection is closed with it.
    fn store(&self, address: SocketAddr, mut connection: Http1EndpointConnection<B>) {
        connection.become_idle();
        let (idle_since, marks) = (turn_clock::now(), self.detection.marks());
        let ends_at = connection.keep_alive().map(|keep_alive| idle_since + safe_idle_time(keep_alive));
        if connection.has_reached(&self.connection_limits) || ends_at == Some(idle_since) {
            return;
        }
        let wanted = [self.sockets.wanted(), self.budget.wanted()];
        if !self.waiting.is_empty() {
            let may_hand_over = |requests| wanted.iter().all(|wanted| wanted.may_hand_over(requests));
            let Some(kept) = self.waiting.hand_over(address, connection, may_hand_over) else { return };
            connection = kept;
        }
        if wanted.iter().any(|wanted| wanted.take()) {
            return;
        }
        let mut endpoints = self.idle.borrow_mut();
        let idle = endpoints.entry(address).or_default();
        if connection.monitor().server_name().is_some() && idle.len() >= self.per_endpoint && !idle.is_empty() {
            // Connections under rarely used names must not displace those under common ones.
            idle.remove(0);
        }
        if idle.len() < self.per_endpoint {
            idle.push(IdleConnection { connection, idle_since, ends_at, marks });
        }
    }

    fn idle_connections(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// How many requests the open HTTP/2 connections can have in progress.
    fn http2_capacity(&self) -> usize {
        self.http2.borrow().values().flatten().map(|(_, connections)| connections.capacity()).sum()
    }

    /// The oldest idle connection.
    fn oldest_idle(&self) -> Option<OldestIdle<B>> {
        let http1 = self.idle.borrow();
        let http1 = http1.iter().filter_map(|(address, idle)| Some((idle.first()?.idle_since, *address)));
        let http1 = http1.min_by_key(|(since, _)| *since);
        let http2 = self.http2.borrow();
        let http2 = http2.values().flatten();
        let http2 = http2.filter_map(|(_, connections)| Some((connections.oldest_idle()?, connections)));
        let http2 = http2.min_by_key(|(since, _)| *since);
        // An upstream has connections of one protocol only.
        match (http1, http2) {
            (Some((since, address)), _) => Some(OldestIdle { since, place: IdlePlace::Http1(address) }),
            (None, Some((since, connections))) => {
                Some(OldestIdle { since, place: IdlePlace::Http2(Rc::clone(connections)) })
            }
            (None, None) => None,
        }
    }

    /// Closes an idle connection that [`Self::oldest_idle`] has found.
    fn close_idle(&self, oldest: OldestIdle<B>) {
        match oldest.place {
            IdlePlace::Http1(address) => {
                if let Some(idle) = self.idle.borrow_mut().get_mut(&address).filter(|idle| !idle.is_empty()) {
                    idle.remove(0);
                }
            }
            IdlePlace::Http2(connections) => connections.close_oldest_idle(),
        }
    }

    /// The HTTP/2 connections under this server name.
    fn http2_connections(&self, address: SocketAddr, name: Option<&Rc<UpstreamServerName>>) -> Rc<Http2Connections<B>> {
        let mut endpoints = self.http2.borrow_mut();
        let named = endpoints.entry(address).or_default();
        if let Some((_, connections)) = named.iter().find(|(known_name, _)| known_name.as_ref() == name) {
            return Rc::clone(connections);
        }
        if named.len() >= MAX_NAMES {
            // Drops only names whose connections are all closed.
            let is_reachable = true;
            sweep_http2(named, is_reachable, Duration::MAX, &self.connection_limits, |_| false);
        }
        if named.len() >= MAX_NAMES {
            // Clients can choose arbitrary names, so the entry that is idle for the longest time is dropped, never one
            // in use. A client needs one connection per name to displace one connection of other clients.
            let idle = named
                .iter()
                .enumerate()
                .filter_map(|(index, (_, connections))| Some((connections.idle_since()?, index)));
            if let Some((_, longest_idle)) = idle.min() {
                named.remove(longest_idle);
            }
        }
        let connections = Rc::new(Http2Connections::new(Arc::clone(&self.budget), Arc::clone(&self.sockets)));
        named.push((name.cloned(), Rc::clone(&connections)));
        connections
    }
}

/// Closes connections that were idle for too long, or all if the endpoint was removed; drops names without connections.
fn sweep_http2<B>(
    named: &mut Vec<NamedConnections<B>>,
    is_reachable: bool,
    idle_timeout: Duration,
    limits: &EndpointConnectionLimits,
    is_marked: impl Fn(u32) -> bool,
) {
    named.retain(|(_, connections)| {
        connections.sweep(is_reachable, idle_timeout, limits, &is_marked);
        !connections.is_empty()
    });
}

/// How long a connection is kept idle that the endpoint closes after this time. It may have begun to count when it sent
/// the response, which then took as long as a request that arrives too late.
fn safe_idle_time(keep_alive: Duration) -> Duration {
    keep_alive - MAX_TRANSIT.min(keep_alive / 2)
}

/// How much earlier than the endpoint Portico closes an idle connection.
const MAX_TRANSIT: Duration = Duration::from_secs(1);
/// Maximum number of idle connections to an endpoint that are kept when they are too old for a request.
const MAX_AGED: usize = 2;
/// Maximum number of server names per endpoint; more only while all of them are in use.
const MAX_NAMES: usize = 64;
