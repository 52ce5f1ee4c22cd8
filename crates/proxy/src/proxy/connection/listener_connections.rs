//! Tracks the connections of one listening address in one worker, so that they can be closed gracefully or aborted, and
//! idle ones can be evicted at the connection limit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bind_address::BindAddress;
use crate::upstream::Upstream;

#[derive(Debug)]
pub(in crate::proxy) struct ListenerConnections {
    /// The listening address, which is the key of `Snapshot::binds`.
    pub(in crate::proxy) address: BindAddress,
    /// Whether connections start with a TLS handshake.
    pub(in crate::proxy) tls: Cell<bool>,
    ending: Cell<Ending>,
    aborted: Cell<bool>,
    next_id: Cell<u64>,
    registered: RefCell<HashMap<u64, RegisteredConnection, foldhash::fast::FixedState>>,
    /// Evicted connections that have not noticed it yet. Mostly 0, so that connections need no lookup.
    evicted_count: Cell<usize>,
    /// Connections to endpoints that were removed. Mostly 0, so that connections need no lookup.
    removed_count: Cell<usize>,
    all_closed: Notify,
}

/// Whether connections are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Responses ask HTTP/1 clients to close, before idle connections are closed.
    Announced,
    /// Idle connections close now.
    Closing,
}

#[derive(Debug, Default)]
struct RegisteredConnection {
    /// The waker of the connection's task, or None until the task first runs. A task keeps the same waker for its
    /// lifetime, so it is stored once.
    waker: Option<Waker>,
    stage: ConnectionStage,
    evicted: bool,
}

/// What tells whether a connection is idle.
#[derive(Debug, Default)]
enum ConnectionStage {
    /// It has no requests, such as a TCP connection or a tunnel, and is never evicted.
    #[default]
    Stream,
    /// Its bytes are forwarded to this endpoint. It is never evicted either.
    Relay(Box<RelayEndpoint>),
    /// It waits for a PROXY header or a TLS handshake since this time.
    Preparing(Instant),
    /// It has requests.
    Serving(Weak<dyn IdleState>),
}

/// The endpoint of a connection whose bytes are forwarded.
#[derive(Debug)]
struct RelayEndpoint {
    upstream: Arc<Upstream>,
    address: SocketAddr,
    /// The revision of the upstream's endpoints when the endpoint was last looked for.
    checked_revision: Option<u64>,
    /// When the endpoint was found to be removed.
    removed_at: Option<Instant>,
}

impl RelayEndpoint {
    /// Looks for the endpoint if the endpoints have changed. Returns whether it is removed now, if that changed.
    fn check(&mut self, now: Instant) -> Option<bool> {
        let revision = self.upstream.endpoint_revision();
        if self.checked_revision.replace(revision) == Some(revision) {
            return None;
        }
        let was_removed = self.removed_at.is_some();
        let is_removed = !self.upstream.is_configured(self.address);
        if is_removed == was_removed {
            return None;
        }
        self.removed_at = is_removed.then_some(now);
        Some(is_removed)
    }
}

/// The state of a connection that has requests.
pub(in crate::proxy) trait IdleState: std::fmt::Debug {
    /// None from the first byte of a request to the last of its response.
    fn idleness(&self) -> Option<Idleness>;
}

/// How long a connection is idle. The smallest value is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::proxy) struct Idleness {
    /// Whether it has had a request.
    pub(in crate::proxy) had_request: bool,
    pub(in crate::proxy) since: Instant,
}

/// Registration of one connection; dropping it removes the connection.
pub(in crate::proxy) struct ConnectionRegistration {
    connections: Rc<ListenerConnections>,
    id: u64,
    has_waker: bool,
}

impl ListenerConnections {
    pub(in crate::proxy) fn new(address: BindAddress) -> Rc<Self> {
        Rc::new(ListenerConnections {
            address,
            tls: Cell::new(false),
            ending: Cell::new(Ending::No),
            aborted: Cell::new(false),
            next_id: Cell::new(0),
            registered: RefCell::default(),
            evicted_count: Cell::new(0),
            removed_count: Cell::new(0),
            all_closed: Notify::new(),
        })
    }

    pub(in crate::proxy) fn register(self: &Rc<Self>) -> ConnectionRegistration {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.registered.borrow_mut().insert(id, RegisteredConnection::default());
        ConnectionRegistration { connections: Rc::clone(self), id, has_waker: false }
    }

    /// From now on, responses ask HTTP/1 clients to close their connections, so that few are idle, or get a request at
    /// that moment, when [`ListenerConnections::close`] closes them.
    pub(in crate::proxy) fn announce_close(&self) {
        if self.ending.get() == Ending::No {
            self.ending.set(Ending::Announced);
        }
    }

    /// Whether responses ask HTTP/1 clients to close their connections.
    pub(in crate::proxy) fn asks_to_close(&self) -> bool {
        self.ending.get() != Ending::No
    }

    /// Starts a graceful close: idle connections close now, busy ones after the current response.
    pub(in crate::proxy) fn close(&self) {
        self.ending.set(Ending::Closing);
        self.wake_all();
    }

    pub(in crate::proxy) fn is_closing(&self) -> bool {
        self.ending.get() == Ending::Closing
    }

    /// Signals all connections to close at once, and returns how many there are.
    pub(in crate::proxy) fn abort(&self) -> usize {
        self.aborted.set(true);
        self.wake_all();
        self.registered.borrow().len()
    }

    pub(in crate::proxy) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.registered.borrow().is_empty()
    }

    /// Waits until all connections have closed.
    pub(in crate::proxy) async fn wait_until_empty(&self) {
        while !self.registered.borrow().is_empty() {
            self.all_closed.notified().await;
        }
    }

    /// Evicts some idle connections of these listeners, and returns how many: one of 64, so that looking at all of them
    /// is worthwhile.
    pub(in crate::proxy) fn evict_idle<'a>(listeners: impl Iterator<Item = &'a Rc<Self>>) -> usize {
        let mut idle: Vec<(Idleness, &Rc<Self>, u64)> = Vec::new();
        for connections in listeners {
            let registered = connections.registered.borrow();
            let evictable = registered.iter().filter_map(|(id, connection)| Some((connection.idleness()?, *id)));
            idle.extend(evictable.map(|(idleness, id)| (idleness, connections, id)));
        }
        if idle.is_empty() {
            return 0;
        }
        let count = idle.len().div_ceil(64);
        idle.select_nth_unstable_by_key(count - 1, |(idleness, ..)| *idleness);
        for (_, connections, id) in &idle[..count] {
            if let Some(connection) = connections.registered.borrow_mut().get_mut(id) {
                connection.evicted = true;
                connections.evicted_count.set(connections.evicted_count.get() + 1);
                connection.waker.iter().for_each(Waker::wake_by_ref);
            }
        }
        count
    }

    /// Finds the connections whose endpoints were removed from the configuration. Their grace period begins, unless the
    /// endpoint comes back.
    pub(in crate::proxy) fn check_endpoints(&self) {
        let now = Instant::now();
        for connection in self.registered.borrow_mut().values_mut() {
            let ConnectionStage::Relay(endpoint) = &mut connection.stage else { continue };
            let Some(is_removed) = endpoint.check(now) else { continue };
            let others = self.removed_count.get();
            self.removed_count.set(if is_removed { others + 1 } else { others - 1 });
            connection.waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    fn wake_all(&self) {
        for waker in self.registered.borrow().values().filter_map(|connection| connection.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }
}

impl RegisteredConnection {
    /// None for connections that are not evicted. The first bytes of a new connection may be on their way.
    fn idleness(&self) -> Option<Idleness> {
        let idleness = match &self.stage {
            _ if self.evicted => None,
            ConnectionStage::Stream | ConnectionStage::Relay(_) => None,
            ConnectionStage::Preparing(since) => Some(Idleness { had_request: false, since: *since }),
            ConnectionStage::Serving(connection) => connection.upgrade()?.idleness(),
        };
        idleness.filter(|idleness| idleness.since.elapsed() >= MIN_IDLE_TIME)
    }
}

impl ConnectionRegistration {
    /// Stores the waker of the connection's task; only the first call has an effect.
    pub(in crate::proxy) fn set_waker(&mut self, waker: &Waker) {
        if !std::mem::replace(&mut self.has_waker, true) {
            self.update(|connection| connection.waker = Some(waker.clone()));
        }
    }

    /// The connection waits for a PROXY header or a TLS handshake from now on.
    pub(in crate::proxy) fn begin_preparing(&self) {
        self.update(|connection| connection.stage = ConnectionStage::Preparing(Instant::now()));
    }

    /// The connection has requests from now on.
    pub(in crate::proxy) fn begin_serving(&self, connection: Weak<dyn IdleState>) {
        self.update(|registered| registered.stage = ConnectionStage::Serving(connection));
    }

    /// The connection carries a stream of bytes from now on.
    pub(in crate::proxy) fn begin_stream(&self) {
        self.update(|connection| connection.stage = ConnectionStage::Stream);
    }

    /// The bytes of the connection are forwarded to this endpoint from now on.
    pub(in crate::proxy) fn begin_relay(&self, upstream: Arc<Upstream>, address: SocketAddr) {
        let endpoint = RelayEndpoint { upstream, address, checked_revision: None, removed_at: None };
        self.update(|connection| connection.stage = ConnectionStage::Relay(Box::new(endpoint)));
    }

    /// When the endpoint of the connection was found to be removed from the configuration.
    pub(in crate::proxy) fn endpoint_removed_at(&self) -> Option<Instant> {
        if self.connections.removed_count.get() == 0 {
            return None;
        }
        self.update(|connection| match &connection.stage {
            ConnectionStage::Relay(endpoint) => endpoint.removed_at,
            ConnectionStage::Stream | ConnectionStage::Preparing(_) | ConnectionStage::Serving(_) => None,
        })
    }

    /// Whether the connection was evicted since the last call. It must close if it is still idle.
    pub(in crate::proxy) fn take_eviction(&self) -> bool {
        let evicted_count = &self.connections.evicted_count;
        if evicted_count.get() == 0 {
            return false;
        }
        let was_evicted = self.update(|connection| std::mem::take(&mut connection.evicted));
        evicted_count.set(evicted_count.get() - usize::from(was_evicted));
        was_evicted
    }

    fn update<T: Default>(&self, update: impl FnOnce(&mut RegisteredConnection) -> T) -> T {
        self.connections.registered.borrow_mut().get_mut(&self.id).map(update).unwrap_or_default()
    }
}

impl Drop for ConnectionRegistration {
    fn drop(&mut self) {
        self.take_eviction();
        if self.endpoint_removed_at().is_some() {
            self.connections.removed_count.set(self.connections.removed_count.get() - 1);
        }
        let mut registered = self.connections.registered.borrow_mut();
        registered.remove(&self.id);
        if registered.is_empty() {
            self.connections.all_closed.notify_waiters();
        }
    }
}

/// How long a connection must be idle to be evicted: longer than the first bytes of most clients take.
const MIN_IDLE_TIME: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::snapshot::TransportProtocol;

    #[derive(Debug)]
    struct Client(Option<Idleness>);

    impl IdleState for Client {
        fn idleness(&self) -> Option<Idleness> {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_without_requests_are_evicted_first_then_the_longest_idle() {
        let address = BindAddress { socket: (Ipv4Addr::LOCALHOST, 80).into(), transport: TransportProtocol::Tcp };
        let connections = ListenerConnections::new(address);
        let start = Instant::now();
        let client = |had_request, idle_after: Option<u64>| {
            let since = idle_after.map(|seconds| start + Duration::from_secs(seconds));
            Rc::new(Client(since.map(|since| Idleness { had_request, since })))
        };
        // Busy, idle for 8 s after a request, idle for 9 s after a request, without a request for 7 s, and new.
        let clients = [
            client(true, None),
            client(true, Some(2)),
            client(true, Some(1)),
            client(false, Some(3)),
            client(false, Some(10)),
        ];
        let registered: Vec<_> = clients
            .iter()
            .map(|client| {
                let registration = connections.register();
                let state: Rc<dyn IdleState> = Rc::<Client>::clone(client);
                registration.begin_serving(Rc::downgrade(&state));
                registration
            })
            .collect();
        let stream = connections.register();
        tokio::time::advance(Duration::from_secs(10)).await;
        let evict = || {
            assert_eq!(ListenerConnections::evict_idle([&connections].into_iter()), 1);
            registered.iter().position(ConnectionRegistration::take_eviction)
        };
        assert_eq!(evict(), Some(3));
        drop(stream);
        let handshake = connections.register();
        handshake.begin_preparing();
        tokio::time::advance(Duration::from_secs(1)).await;
        // Of connections without requests, the oldest is first. A connection is evicted once.
        assert_eq!(ListenerConnections::evict_idle([&connections].into_iter()), 1);
        assert_eq!(ListenerConnections::evict_idle([&connections].into_iter()), 1);
        assert!(registered[3].take_eviction() && registered[4].take_eviction() && !handshake.take_eviction());
        drop(clients);
        assert_eq!(ListenerConnections::evict_idle([&connections].into_iter()), 1);
        assert!(handshake.take_eviction());
        handshake.begin_stream();
        assert_eq!(ListenerConnections::evict_idle([&connections].into_iter()), 0);
    }
}
