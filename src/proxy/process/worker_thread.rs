//! The thread of one worker, with its own runtime: it opens and closes listeners, and accepts their connections.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdpSocket};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle as TaskHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::accept_queue::AcceptQueue;
use super::client_budget::ClientBudget;
use super::connection_spread::{ConnectionSpread, CountedLoad, HandedConnection};
use super::{accept, bind};
use crate::proxy::connection::listener_connections::ListenerConnections;
use crate::proxy::http::exchange::http_worker::{HttpWorker, HttpWorkerShared};
use crate::proxy::record::stats::WorkerStats;
use crate::proxy::udp::UdpListeners;
use crate::proxy::worker::{Worker, WorkerShared};
use crate::snapshot::BindAddress;

/// What all workers of the process share.
#[derive(Clone)]
pub(in crate::proxy) struct ProcessShared {
    pub(in crate::proxy) worker: WorkerShared,
    pub(in crate::proxy) http: HttpWorkerShared,
    /// The client connections of the whole process.
    pub(in crate::proxy) clients: Arc<ClientBudget>,
}

/// A command to a worker. The worker reports completion over the channel.
pub(in crate::proxy) enum WorkerCommand {
    /// Loads the current snapshot and releases the previous one.
    Refresh(oneshot::Sender<()>),
    Bind(BindAddress, WorkerSocket, oneshot::Sender<io::Result<()>>),
    Unbind(Vec<BindAddress>, oneshot::Sender<()>),
    /// Asks HTTP/1 clients to close their connections, with their next response.
    AnnounceClose(oneshot::Sender<()>),
    /// Closes all listeners gracefully, and aborts the connections that remain at the given time. Reports how many
    /// were aborted.
    Drain(Instant, oneshot::Sender<usize>),
}

/// The socket of one worker.
pub(in crate::proxy) enum WorkerSocket {
    Tcp(TcpWorkerSocket),
    Udp(StdUdpSocket),
}

/// The listening socket of one worker, and the connections that other workers accept for it.
pub(in crate::proxy) struct TcpWorkerSocket {
    pub(in crate::proxy) listener: StdListener,
    pub(in crate::proxy) spread: ConnectionSpread,
    pub(in crate::proxy) handed_over: mpsc::Receiver<HandedConnection>,
}

pub(in crate::proxy) fn start(
    number: usize,
    shared: ProcessShared,
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
            let http = HttpWorker::new(number, Worker::new(number, shared.worker), shared.http);
            runtime.block_on(run(Rc::new(http), shared.clients, commands));
        }
    })?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the worker thread has ended")))?;
    Ok(handle)
}

/// One listening address for TCP.
struct BoundListener {
    connections: Rc<ListenerConnections>,
    stop: oneshot::Sender<()>,
    accepting: TaskHandle<()>,
}

impl BoundListener {
    fn start(
        address: BindAddress,
        socket: TcpWorkerSocket,
        http: Rc<HttpWorker>,
        clients: Arc<ClientBudget>,
    ) -> io::Result<Self> {
        let TcpWorkerSocket { listener, spread, handed_over } = socket;
        let queue = AcceptQueue::new(listener)?;
        let connections = ListenerConnections::new(address);
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor { http, clients, connections: Rc::clone(&connections), spread };
        let accepting = tokio::task::spawn_local(acceptor.run(queue, handed_over, stopped));
        Ok(BoundListener { connections, stop, accepting })
    }

    /// Accepts the queued connections, closes the socket, and signals the connections to close.
    async fn close(self) -> Rc<ListenerConnections> {
        drop(self.stop);
        // A panic of that task is logged; the socket is closed either way.
        drop(self.accepting.await);
        self.connections.close();
        self.connections
    }
}

/// Closes listeners at the same time, since each waits for handshakes in progress.
async fn close_all(listeners: impl Iterator<Item = BoundListener>) -> Vec<Rc<ListenerConnections>> {
    join_all(listeners.map(BoundListener::close)).await
}

/// Finds the connections whose endpoints were removed, of listeners that are open or closing.
fn check_endpoints(bound: &BTreeMap<BindAddress, BoundListener>, closing: &[Rc<ListenerConnections>]) {
    for connections in bound.values().map(|listener| &listener.connections).chain(closing) {
        connections.check_endpoints();
    }
}

async fn run(http: Rc<HttpWorker>, clients: Arc<ClientBudget>, mut commands: mpsc::Receiver<WorkerCommand>) {
    let worker = &http.worker;
    let mut bound: BTreeMap<BindAddress, BoundListener> = BTreeMap::new();
    let udp = Rc::new(UdpListeners::new(Rc::clone(&http)));
    // Connections of closed listeners that may still be open. Draining waits for them too.
    let mut closing: Vec<Rc<ListenerConnections>> = Vec::new();
    let mut is_leaving = false;
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut shedding = pin!(http.upstream_sockets.shedding());
        // Registered before idle connections are closed: a notification that arrives while another branch is selected
        // would be lost.
        shedding.as_mut().enable();
        http.pools.shed_idle();
        http.mirror_sender.shed_idle();
        let command = tokio::select! {
            command = commands.recv() => command,
            () = clients.full() => {
                let open = bound.values().map(|listener| &listener.connections).chain(&closing);
                worker.counters.evicted.add(ListenerConnections::evict_idle(open) as u64);
                continue;
            }
            () = shedding => continue,
            _ = sweeps.tick() => {
                // Loads the current snapshot: without requests, the old one and its upstreams would stay alive.
                worker.view();
                http.pools.sweep();
                http.mirror_sender.sweep();
                check_endpoints(&bound, &closing);
                closing.retain(|connections| !connections.is_empty());
                worker.drop_retired_binds(|address| {
                    !bound.contains_key(address)
                        && !udp.is_bound(address)
                        && closing.iter().all(|connections| connections.address != *address)
                });
                continue;
            }
        };
        // `.ok()`: the command is executed even if its sender no longer waits for the result.
        match command {
            None => return,
            Some(WorkerCommand::Refresh(done)) => {
                worker.view();
                check_endpoints(&bound, &closing);
                done.send(()).ok();
            }
            Some(WorkerCommand::Bind(address, socket, done)) => {
                let outcome = match socket {
                    WorkerSocket::Tcp(socket) => {
                        let listener = BoundListener::start(address, socket, Rc::clone(&http), Arc::clone(&clients));
                        listener.map(|listener| {
                            if is_leaving {
                                listener.connections.announce_close();
                            }
                            drop(bound.insert(address, listener));
                        })
                    }
                    WorkerSocket::Udp(socket) => udp.bind(address, socket),
                };
                done.send(outcome).ok();
            }
            Some(WorkerCommand::Unbind(addresses, done)) => {
                let listeners: Vec<_> = addresses.iter().filter_map(|address| bound.remove(address)).collect();
                let (closed, ()) = join(close_all(listeners.into_iter()), udp.close(&addresses)).await;
                closing.extend(closed.iter().map(Rc::clone));
                // The task ends with the last connection.
                tokio::task::spawn_local(drain(closed, Instant::now() + worker.limits.listener_grace_period));
                done.send(()).ok();
            }
            Some(WorkerCommand::AnnounceClose(done)) => {
                is_leaving = true;
                bound.values().for_each(|listener| listener.connections.announce_close());
                done.send(()).ok();
            }
            Some(WorkerCommand::Drain(end, done)) => {
                closing.extend(close_all(std::mem::take(&mut bound).into_values()).await);
                let (listeners, udp) = (std::mem::take(&mut closing), Rc::clone(&udp));
                // In a separate task, so that sweeping continues.
                tokio::task::spawn_local(async move {
                    let (connections, sessions) = join(drain(listeners, end), udp.drain(end)).await;
                    done.send(connections + sessions).ok()
                });
            }
        }
    }
}

/// Waits for the connections to close, and aborts the remaining ones at `end`. Returns how many were aborted.
async fn drain(listeners: Vec<Rc<ListenerConnections>>, end: Instant) -> usize {
    let mut aborted = 0;
    for connections in listeners {
        if timeout_at(end, connections.wait_until_empty()).await.is_err() {
            aborted += connections.abort();
            connections.wait_until_empty().await;
        }
    }
    aborted
}

/// Accepts the connections of a listener.
struct Acceptor {
    http: Rc<HttpWorker>,
    clients: Arc<ClientBudget>,
    connections: Rc<ListenerConnections>,
    spread: ConnectionSpread,
}

impl Acceptor {
    async fn run(
        self,
        queue: AcceptQueue,
        mut handed_over: mpsc::Receiver<HandedConnection>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let (worker, clients) = (&self.http.worker, &self.clients);
        let mut progress = AcceptProgress::default();
        loop {
            let error = tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(handed) = handed_over.recv() => {
                    self.start_handed(handed);
                    continue;
                }
                error = self.accept_until_error(&queue, &mut progress) => error,
            };
            worker.counters.accept_errors.add(1);
            if is_connection_error(&error) {
                continue;
            }
            // Out of file descriptors or memory. Retrying at once would busy-loop.
            if !std::mem::replace(&mut progress.is_failing, true) {
                tracing::warn!(%error, address = %self.connections.address, "Cannot accept connections; retrying");
            }
            sleep(ACCEPT_PAUSE).await;
        }
        if let Some((stream, peer)) = progress.waiting
            && let Some(permit) = clients.try_acquire()
        {
            self.start(stream, peer, permit);
        }
        // When the socket closes, the kernel resets connections whose TCP handshake is in progress. So no new
        // handshakes are started, and those in progress get time to end. Then the connections in the accept queue are
        // served. If the filter cannot be set, only connections in a TCP handshake are lost.
        if bind::ignore_new_clients(queue.listener()).is_ok() {
            sleep(TCP_HANDSHAKE_GRACE).await;
        }
        // From here on, other workers keep the connections that they accept.
        handed_over.close();
        while let Some(handed) = handed_over.recv().await {
            self.start_handed(handed);
        }
        // The event loop would not report the queued connections again.
        while let Ok((stream, peer)) = queue.accept_now() {
            let Some(permit) = clients.try_acquire() else { return };
            self.start(stream, peer, permit);
        }
    }

    /// Accepts and starts connections, until accepting one has failed. The task does not check its other events between
    /// two connections; tokio's cooperative budget ends a long series.
    async fn accept_until_error(&self, queue: &AcceptQueue, progress: &mut AcceptProgress) -> io::Error {
        loop {
            if progress.waiting.is_none() {
                match poll_fn(|cx| queue.poll_accept(cx)).await {
                    Ok(accepted) => progress.waiting = Some(accepted),
                    Err(error) => return error,
                }
                progress.is_failing = false;
                if self.clients.is_full() {
                    self.http.worker.counters.delayed.add(1);
                }
            }
            let permit = self.clients.acquire().await;
            if let Some((stream, peer)) = progress.waiting.take() {
                self.start_or_hand_over(stream, peer, permit);
            }
        }
    }

    /// Starts a connection here, or on a worker that has clearly fewer of them.
    fn start_or_hand_over(&self, stream: StdStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let Some(other) = self.spread.less_loaded() else { return self.start(stream, peer, permit) };
        if let Err(HandedConnection { stream, permit, .. }) = self.spread.hand_over(other, stream, peer, permit) {
            self.start(stream, peer, permit);
        }
    }

    fn start_handed(&self, HandedConnection { stream, peer, permit, load }: HandedConnection) {
        self.start_counted(stream, peer, (permit, load));
    }

    fn start(&self, stream: StdStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        self.start_counted(stream, peer, (permit, self.spread.count()));
    }

    /// `counted` counts the connection as open until dropped, for the process and for the worker.
    fn start_counted(&self, stream: StdStream, peer: SocketAddr, counted: (OwnedSemaphorePermit, CountedLoad)) {
        let counters = &self.http.worker.counters;
        // The connection closes if its socket cannot be added to the event loop.
        let Ok(stream) = TcpStream::from_std(stream) else { return counters.accept_errors.add(1) };
        counters.accepted.add(1);
        let open = OpenConnection { counters: Arc::clone(counters), _counted: counted };
        accept::spawn(stream, peer, &self.http, &self.connections, open);
    }
}

/// What remains when accepting is interrupted.
#[derive(Default)]
struct AcceptProgress {
    /// At the connection limit one connection waits here, and the others in the accept queue. A worker holds no permit
    /// without a connection, since another worker may need it.
    waiting: Option<(StdStream, SocketAddr)>,
    /// Accepting has failed the last time.
    is_failing: bool,
}

/// Counts a connection as open until dropped, also by a panic.
struct OpenConnection {
    counters: Arc<WorkerStats>,
    _counted: (OwnedSemaphorePermit, CountedLoad),
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.counters.closed.add(1);
    }
}

/// Whether only the connection that was to be accepted has failed.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// How often idle connections to endpoints are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failure that accepting another connection at once would repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a closing socket waits for TCP handshakes in progress. Clients that connect meanwhile send their SYN again
/// after a second.
const TCP_HANDSHAKE_GRACE: Duration = Duration::from_millis(5);
