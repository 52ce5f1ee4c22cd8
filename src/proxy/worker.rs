//! One worker: a thread with its own runtime, its own sockets, its own pools, and nothing shared on a request's way.

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
use super::access_log::AccessLog;
use super::body::RequestBody;
use super::group::Group;
use super::kong::naming::Naming;
use super::limits::Limits;
use super::mirror::Mirrors;
use super::request_id::RequestIds;
use super::spares::Spares;
use super::stats::{Labels, Ledger, Series, Stats};
use super::tls::Terminator;
use super::view::View;
use crate::snapshot::Snapshot;
use crate::upstream::{BUFFER, Dial, HYPER_FIELDS, Keep, Pools};

/// What all workers are given.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) limits: Limits,
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) naming: Arc<Naming>,
    pub(crate) log: Arc<AccessLog>,
    pub(crate) stats: Arc<Stats>,
    /// One permit per connection of the whole process, of clients and to endpoints.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) sockets: Arc<Semaphore>,
    pub(crate) tls: Arc<Terminator>,
    /// One permit per handshake of the whole process.
    pub(crate) handshakes: Arc<Semaphore>,
    pub(crate) balancers: Vec<IpNet>,
}

/// What a worker can be told. Each command is answered when it is done.
pub(crate) enum Command {
    /// Goes by the present snapshot, and lets go of the one before.
    Look(oneshot::Sender<()>),
    Bind(SocketAddr, StdListener, oneshot::Sender<io::Result<()>>),
    Unbind(SocketAddr, oneshot::Sender<()>),
    Drain(Instant, oneshot::Sender<usize>),
}

/// What the requests of one worker share.
pub(crate) struct Worker {
    pub(crate) limits: Limits,
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) naming: Arc<Naming>,
    pub(crate) log: Arc<AccessLog>,
    pub(crate) pools: Pools<RequestBody>,
    pub(crate) mirrors: Rc<Mirrors>,
    pub(crate) request_ids: RequestIds,
    pub(crate) spares: Spares,
    pub(crate) http: http1::Builder,
    pub(crate) tls: Arc<Terminator>,
    pub(crate) handshakes: Arc<Semaphore>,
    balancers: Vec<IpNet>,
    /// When somebody was last told about a balancer that sends no PROXY header.
    pub(crate) warned: Cell<Option<Instant>>,
    stats: Arc<Stats>,
    pub(crate) ledger: Arc<Ledger>,
    unrouted: OnceCell<Arc<Series>>,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    view: RefCell<Rc<View>>,
}

pub(crate) fn start(number: usize, shared: Shared, commands: mpsc::Receiver<Command>) -> io::Result<JoinHandle<()>> {
    // Built on its own thread, which it must not leave.
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
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the worker's thread ended")))?;
    Ok(handle)
}

impl Worker {
    fn new(number: usize, shared: Shared) -> Self {
        let limits = shared.limits;
        let ledger = Arc::clone(shared.stats.ledger(number));
        let dial = Dial {
            timeout: limits.connect_timeout,
            sockets: shared.sockets,
            max_head: limits.max_answer_head,
            max_fields: limits.max_answer_fields,
            streams: limits.upstream_streams,
            ping_interval: limits.ping_interval,
            ping_timeout: limits.ping_timeout,
        };
        let keep = Keep { per_endpoint: limits.idle_per_endpoint, idle: limits.upstream_idle };
        let mut http = http1::Builder::new();
        http.half_close(false)
            .keep_alive(true)
            // The connection's own timer knows the difference between an idle client and a slow one.
            .header_read_timeout(None)
            .max_header_size(limits.max_head)
            .max_buf_size(limits.max_head.max(BUFFER));
        if limits.max_fields != HYPER_FIELDS {
            http.max_headers(limits.max_fields);
        }
        let traffic = &ledger.traffic;
        let mirroring = Arc::clone(&ledger.mirroring);
        let mirrors = Mirrors::new(&limits, dial.clone(), keep, Arc::clone(traffic), mirroring);
        let mut snapshot = Cache::new(shared.snapshot);
        let view = Rc::new(View::new(Arc::clone(snapshot.load())));
        Worker {
            trusted: shared.trusted,
            naming: shared.naming,
            log: shared.log,
            pools: Pools::new(dial, keep, Arc::clone(traffic)),
            mirrors: Rc::new(mirrors),
            request_ids: RequestIds::default(),
            spares: Spares::default(),
            http,
            tls: shared.tls,
            handshakes: shared.handshakes,
            balancers: shared.balancers,
            warned: Cell::new(None),
            stats: shared.stats,
            ledger,
            unrouted: OnceCell::new(),
            snapshot: RefCell::new(snapshot),
            view: RefCell::new(view),
            limits,
        }
    }

    /// The present snapshot. Costs a look at one pointer, and shares no reference count with other workers.
    pub(crate) fn view(&self) -> Rc<View> {
        let mut snapshot = self.snapshot.borrow_mut();
        let current = snapshot.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(current, &view.snapshot) {
            *view = Rc::new(view.followed_by(Arc::clone(current)));
        }
        Rc::clone(&view)
    }

    /// Forgets how addresses were served that left the snapshot and have no socket and no connection any more.
    fn forget_binds(&self, is_gone: impl Fn(&SocketAddr) -> bool) {
        let mut view = self.view.borrow_mut();
        if let Some(next) = view.without(is_gone) {
            *view = Rc::new(next);
        }
    }

    /// Whether a peer begins its connections with a PROXY header.
    pub(crate) fn is_balancer(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.balancers.iter().any(|network| network.contains(&ip))
    }

    pub(crate) fn series(&self, labels: Labels) -> Arc<Series> {
        self.stats.series(&self.ledger, labels)
    }

    /// Counts a fault by its word.
    pub(crate) fn fault(&self, word: &'static str) {
        self.ledger.faults(word, 1);
    }

    pub(crate) fn faults(&self, word: &'static str, count: u64) {
        self.ledger.faults(word, count);
    }

    /// The series of requests that got no further than their address.
    pub(crate) fn unrouted(&self) -> Arc<Series> {
        Arc::clone(self.unrouted.get_or_init(|| self.series(Labels::default())))
    }
}

/// One address that is listened on.
struct Bound {
    group: Rc<Group>,
    stop: oneshot::Sender<()>,
    accepting: TaskHandle<()>,
}

impl Bound {
    /// Accepts what is queued already, closes the socket, and tells the connections to leave.
    async fn close(self) -> Rc<Group> {
        drop(self.stop);
        // A panic there is in the log; the socket is closed either way.
        drop(self.accepting.await);
        self.group.close();
        self.group
    }
}

async fn run(worker: Rc<Worker>, permits: Arc<Semaphore>, mut commands: mpsc::Receiver<Command>) {
    let mut bound: BTreeMap<SocketAddr, Bound> = BTreeMap::new();
    // Listeners that are closed, with connections that may still be there. Draining must know them too.
    let mut leaving: Vec<Rc<Group>> = Vec::new();
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = sweeps.tick() => {
                // A worker without requests would keep an old snapshot and its upstreams alive.
                worker.view();
                worker.pools.sweep();
                worker.mirrors.sweep();
                leaving.retain(|group| !group.is_empty());
                worker.forget_binds(|address| {
                    !bound.contains_key(address) && leaving.iter().all(|group| group.address != *address)
                });
                continue;
            }
        };
        // Whoever asked may have stopped waiting for the answer; the command is done all the same.
        match command {
            None => return,
            Some(Command::Look(done)) => {
                worker.view();
                done.send(()).ok();
            }
            Some(Command::Bind(address, socket, done)) => {
                let outcome = TcpListener::from_std(socket).map(|listener| {
                    let group = Group::new(address);
                    let (stop, stopped) = oneshot::channel();
                    let accepting = tokio::task::spawn_local(accept(
                        Rc::clone(&worker),
                        listener,
                        Rc::clone(&group),
                        Arc::clone(&permits),
                        stopped,
                    ));
                    bound.insert(address, Bound { group, stop, accepting });
                });
                done.send(outcome).ok();
            }
            Some(Command::Unbind(address, done)) => {
                if let Some(bound) = bound.remove(&address) {
                    let group = bound.close().await;
                    leaving.push(Rc::clone(&group));
                    // Ends with its last connection.
                    tokio::task::spawn_local(drain(vec![group], Instant::now() + worker.limits.listener_leave));
                }
                done.send(()).ok();
            }
            Some(Command::Drain(end, done)) => {
                for (_, bound) in std::mem::take(&mut bound) {
                    leaving.push(bound.close().await);
                }
                let groups = std::mem::take(&mut leaving);
                // On its own, so that sweeping goes on.
                tokio::task::spawn_local(async move { done.send(drain(groups, end).await).ok() });
            }
        }
    }
}

/// Waits for the connections to leave, and ends those that have not by then. Returns how many that were.
async fn drain(groups: Vec<Rc<Group>>, end: Instant) -> usize {
    let mut cut = 0;
    for group in groups {
        if timeout_at(end, group.emptied()).await.is_err() {
            cut += group.cut();
            group.emptied().await;
        }
    }
    cut
}

async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    group: Rc<Group>,
    permits: Arc<Semaphore>,
    mut stopped: oneshot::Receiver<()>,
) {
    // Beyond the limit of connections one waits here, and the others in the system's queue. No worker keeps a permit while
    // nobody comes to it: another may have clients for it.
    let mut waiting: Option<(TcpStream, SocketAddr)> = None;
    let mut failing = false;
    loop {
        let accepted = async {
            if waiting.is_none() {
                waiting = Some(listener.accept().await?);
                if permits.available_permits() == 0 {
                    worker.ledger.delayed.add(1);
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
            Err(error) if belongs_to_one_connection(&error) => worker.ledger.accept_errors.add(1),
            Err(error) => {
                // Out of file descriptors or memory. Accepting at once again would fail as often as the loop can turn.
                worker.ledger.accept_errors.add(1);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, address = %group.address, "Cannot accept connections; trying again");
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
    // What the system has accepted for us already is served; tokio would not ask it again without an event.
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
    group: &Rc<Group>,
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    worker.ledger.accepted.add(1);
    let open = Open { ledger: Arc::clone(&worker.ledger), _permit: permit };
    accept::start(stream, address, worker, group, open);
}

/// Counted as open until dropped, also by a panic.
struct Open {
    ledger: Arc<Ledger>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ledger.closed.add(1);
    }
}

fn belongs_to_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// How often idle connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
