//! The thread of one worker, with its own runtime: it opens and closes listeners.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener as StdListener, UdpSocket as StdUdpSocket};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle as TaskHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::accept::Acceptor;
use super::accept_queue::AcceptQueue;
use super::client_budget::ClientBudget;
use super::connection_spread::{ConnectionSpread, HandedConnection};
use crate::bind_address::BindAddress;
use crate::proxy::connection::listener_connections::ListenerConnections;
use crate::proxy::http::exchange::http_worker::{HttpWorker, HttpWorkerShared};
use crate::proxy::udp::UdpListeners;
use crate::proxy::worker::{Worker, WorkerShared};

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
        http.background_sender.shed_idle();
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
                http.background_sender.sweep();
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

/// How often idle connections to endpoints are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
