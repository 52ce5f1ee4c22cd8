//! One worker: a thread with its own runtime, sockets and connection pools. Workers share nothing on the request path.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use hyper::server::conn::http1;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle as TaskHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::accept;
use super::access_log::AccessLogger;
use super::header_map_pool::HeaderMapPool;
use super::kong::product_headers::ProductHeaders;
use super::limits::ProxyLimits;
use super::listener_connections::ListenerConnections;
use super::mirror::Mirrors;
use super::request_body::RequestBody;
use super::request_id::RequestIds;
use super::stats::{ProxyStats, RequestLabels, RequestSeries, WorkerStats};
use super::tls::TlsTerminator;
use super::view::SnapshotView;
use crate::snapshot::{BindAddress, Snapshot};
use crate::upstream::{ConnectionPools, EndpointConnector, HYPER_DEFAULT_FIELDS, IdleLimits, READ_BUFFER};

/// State that all workers share.
#[derive(Clone)]
pub(super) struct WorkerShared {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) limits: ProxyLimits,
    pub(super) trusted_ips: Vec<IpNet>,
    pub(super) product_headers: Arc<ProductHeaders>,
    pub(super) log: Arc<AccessLogger>,
    pub(super) stats: Arc<ProxyStats>,
    /// One permit per client connection, and per endpoint connection, of the whole process.
    pub(super) connections: Arc<Semaphore>,
    pub(super) sockets: Arc<Semaphore>,
    pub(super) tls: Arc<TlsTerminator>,
    /// One permit per TLS handshake of the whole process.
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) proxy_protocol_peers: Vec<IpNet>,
}

/// A command to a worker, which reports its completion.
pub(super) enum WorkerCommand {
    /// Loads the current snapshot and releases the previous one.
    Refresh(oneshot::Sender<()>),
    Bind(BindAddress, StdListener, oneshot::Sender<io::Result<()>>),
    Unbind(BindAddress, oneshot::Sender<()>),
    Drain(Instant, oneshot::Sender<usize>),
}

/// State that the requests of one worker share.
pub(super) struct Worker {
    pub(super) limits: ProxyLimits,
    pub(super) trusted_ips: Vec<IpNet>,
    pub(super) product_headers: Arc<ProductHeaders>,
    pub(super) log: Arc<AccessLogger>,
    pub(super) pools: ConnectionPools<RequestBody>,
    pub(super) mirrors: Rc<Mirrors>,
    pub(super) request_ids: RequestIds,
    pub(super) header_maps: HeaderMapPool,
    pub(super) http: http1::Builder,
    pub(super) tls: Arc<TlsTerminator>,
    pub(super) handshakes: Arc<Semaphore>,
    proxy_protocol_peers: Vec<IpNet>,
    /// When a missing PROXY header was last logged.
    pub(super) proxy_header_warned: Cell<Option<Instant>>,
    stats: Arc<ProxyStats>,
    pub(super) counters: Arc<WorkerStats>,
    unrouted: OnceCell<Arc<RequestSeries>>,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    view: RefCell<Rc<SnapshotView>>,
}

pub(super) fn start(
    number: usize,
    shared: WorkerShared,
    commands: mpsc::Receiver<WorkerCommand>,
) -> io::Result<JoinHandle<()>> {
    // The runtime is built on its own thread, since it is not `Send`.
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let handle = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        if ready.send(Ok(())).is_ok() {
            let connections = Arc::clone(&shared.connections);
            runtime.block_on(run(Rc::new(Worker::new(number, shared)), connections, commands));
        }
    })?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the worker thread has ended")))?;
    Ok(handle)
}

impl Worker {
    fn new(number: usize, shared: WorkerShared) -> Self {
        let limits = shared.limits;
        let counters = Arc::clone(shared.stats.worker(number));
        let connector = EndpointConnector {
            timeout: limits.connect_timeout,
            permits: shared.sockets,
            max_head: limits.max_response_head,
            max_fields: limits.max_response_fields,
            max_streams: limits.max_upstream_streams,
            ping_interval: limits.ping_interval,
            ping_timeout: limits.ping_timeout,
        };
        let idle_limits =
            IdleLimits { per_endpoint: limits.max_idle_per_endpoint, timeout: limits.upstream_idle_timeout };
        let mut http = http1::Builder::new();
        http.half_close(false)
            .keep_alive(true)
            // The connection's own timer distinguishes idle clients from slow ones.
            .header_read_timeout(None)
            .max_header_size(limits.max_request_head)
            .max_buf_size(limits.max_request_head.max(READ_BUFFER));
        if limits.max_request_fields != HYPER_DEFAULT_FIELDS {
            http.max_headers(limits.max_request_fields);
        }
        let upstream_counters = &counters.traffic;
        let mirror_counters = Arc::clone(&counters.mirrored);
        let mirrors =
            Mirrors::new(&limits, connector.clone(), idle_limits, Arc::clone(upstream_counters), mirror_counters);
        let mut snapshot = Cache::new(shared.snapshot);
        let view = Rc::new(SnapshotView::new(Arc::clone(snapshot.load())));
        Worker {
            trusted_ips: shared.trusted_ips,
            product_headers: shared.product_headers,
            log: shared.log,
            pools: ConnectionPools::new(connector, idle_limits, Arc::clone(upstream_counters)),
            mirrors: Rc::new(mirrors),
            request_ids: RequestIds::default(),
            header_maps: HeaderMapPool::default(),
            http,
            tls: shared.tls,
            handshakes: shared.handshakes,
            proxy_protocol_peers: shared.proxy_protocol_peers,
            proxy_header_warned: Cell::new(None),
            stats: shared.stats,
            counters,
            unrouted: OnceCell::new(),
            snapshot: RefCell::new(snapshot),
            view: RefCell::new(view),
            limits,
        }
    }

    /// The view of the current snapshot. Costs one pointer comparison, and no reference count is shared with other
    /// workers.
    pub(super) fn view(&self) -> Rc<SnapshotView> {
        let mut snapshot = self.snapshot.borrow_mut();
        let current = snapshot.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(current, &view.snapshot) {
            *view = Rc::new(view.next(Arc::clone(current)));
        }
        Rc::clone(&view)
    }

    /// Drops retired binds without socket and connections.
    fn drop_retired_binds(&self, is_gone: impl Fn(&BindAddress) -> bool) {
        let mut view = self.view.borrow_mut();
        if let Some(next) = view.without_retired(is_gone) {
            *view = Rc::new(next);
        }
    }

    /// Whether a peer must begin its connections with a PROXY header.
    pub(super) fn requires_proxy_header(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.proxy_protocol_peers.iter().any(|network| network.contains(&ip))
    }

    pub(super) fn series(&self, labels: RequestLabels) -> Arc<RequestSeries> {
        self.stats.series(&self.counters, labels)
    }

    /// Counts a request error by its reason.
    pub(super) fn count_error(&self, word: &'static str) {
        self.counters.count_errors(word, 1);
    }

    pub(super) fn count_errors(&self, word: &'static str, count: u64) {
        self.counters.count_errors(word, count);
    }

    /// The series of requests that matched no listener.
    pub(super) fn unrouted_series(&self) -> Arc<RequestSeries> {
        Arc::clone(self.unrouted.get_or_init(|| self.series(RequestLabels::default())))
    }
}

/// One listening address.
struct BoundListener {
    group: Rc<ListenerConnections>,
    stop: oneshot::Sender<()>,
    accepting: TaskHandle<()>,
}

impl BoundListener {
    /// Accepts the queued connections, closes the socket, and signals the connections to close.
    async fn close(self) -> Rc<ListenerConnections> {
        drop(self.stop);
        // A panic of that task is logged; the socket is closed either way.
        drop(self.accepting.await);
        self.group.close();
        self.group
    }
}

async fn run(worker: Rc<Worker>, permits: Arc<Semaphore>, mut commands: mpsc::Receiver<WorkerCommand>) {
    let mut bound: BTreeMap<BindAddress, BoundListener> = BTreeMap::new();
    // Closed listeners with connections that may remain open. Draining waits for them too.
    let mut leaving: Vec<Rc<ListenerConnections>> = Vec::new();
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = sweeps.tick() => {
                // Otherwise a worker without requests would keep an old snapshot and its upstreams alive.
                worker.view();
                worker.pools.sweep();
                worker.mirrors.sweep();
                leaving.retain(|group| !group.is_empty());
                worker.drop_retired_binds(|address| {
                    !bound.contains_key(address) && leaving.iter().all(|group| group.address != *address)
                });
                continue;
            }
        };
        // The sender may no longer wait for the result; the command is executed all the same.
        match command {
            None => return,
            Some(WorkerCommand::Refresh(done)) => {
                worker.view();
                done.send(()).ok();
            }
            Some(WorkerCommand::Bind(address, socket, done)) => {
                let outcome = TcpListener::from_std(socket).map(|listener| {
                    let group = ListenerConnections::new(address);
                    let (stop, stopped) = oneshot::channel();
                    let accepting = tokio::task::spawn_local(accept(
                        Rc::clone(&worker),
                        listener,
                        Rc::clone(&group),
                        Arc::clone(&permits),
                        stopped,
                    ));
                    bound.insert(address, BoundListener { group, stop, accepting });
                });
                done.send(outcome).ok();
            }
            Some(WorkerCommand::Unbind(address, done)) => {
                if let Some(bound) = bound.remove(&address) {
                    let group = bound.close().await;
                    leaving.push(Rc::clone(&group));
                    // The task ends with the last connection.
                    tokio::task::spawn_local(drain(vec![group], Instant::now() + worker.limits.listener_grace_period));
                }
                done.send(()).ok();
            }
            Some(WorkerCommand::Drain(end, done)) => {
                for (_, bound) in std::mem::take(&mut bound) {
                    leaving.push(bound.close().await);
                }
                let groups = std::mem::take(&mut leaving);
                // In a separate task, so that sweeping continues.
                tokio::task::spawn_local(async move { done.send(drain(groups, end).await).ok() });
            }
        }
    }
}

/// Waits for the connections to close, and closes the remaining ones at `end`. Returns how many were closed.
async fn drain(groups: Vec<Rc<ListenerConnections>>, end: Instant) -> usize {
    let mut cut = 0;
    for group in groups {
        if timeout_at(end, group.wait_until_empty()).await.is_err() {
            cut += group.abort();
            group.wait_until_empty().await;
        }
    }
    cut
}

async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    group: Rc<ListenerConnections>,
    permits: Arc<Semaphore>,
    mut stopped: oneshot::Receiver<()>,
) {
    // Beyond the connection limit one connection waits here, and the others in the accept queue. A worker holds no
    // permit without a connection, since another worker may need it.
    let mut waiting: Option<(TcpStream, SocketAddr)> = None;
    let mut failing = false;
    loop {
        let accepted = async {
            if waiting.is_none() {
                waiting = Some(listener.accept().await?);
                if permits.available_permits() == 0 {
                    worker.counters.delayed.add(1);
                }
            }
            Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)
        };
        let accepted: io::Result<_> = tokio::select! {
            biased;
            _ = &mut stopped => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(permit) => {
                failing = false;
                if let Some((stream, address)) = waiting.take() {
                    start_connection(&worker, &group, stream, address, permit);
                }
            }
            Err(error) if is_connection_error(&error) => worker.counters.accept_errors.add(1),
            Err(error) => {
                // Out of file descriptors or memory. Retrying at once would busy-loop.
                worker.counters.accept_errors.add(1);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, address = %group.address, "Cannot accept connections; retrying");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if let Some((stream, address)) = waiting
        && let Ok(permit) = Arc::clone(&permits).try_acquire_owned()
    {
        start_connection(&worker, &group, stream, address, permit);
    }
    // Connections in the accept queue are served; tokio's listener would not try to accept them without a new event.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, address)) = listener.accept() {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            start_connection(&worker, &group, stream, address, permit);
        }
    }
}

fn start_connection(
    worker: &Rc<Worker>,
    group: &Rc<ListenerConnections>,
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    worker.counters.accepted.add(1);
    let open = OpenConnection { stats: Arc::clone(&worker.counters), _permit: permit };
    accept::spawn(stream, address, worker, group, open);
}

/// Counts a connection as open until dropped, also by a panic.
struct OpenConnection {
    stats: Arc<WorkerStats>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.stats.closed.add(1);
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// How often idle connections to endpoints are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
