//! Accepts the connections of a listener, and starts a task for each, which serves it as its port says.
//!
//! ```text
//!   accept queue ─▶ this worker, or one with fewer connections
//!                     ├ plain HTTP ───────────────────▶ client_connection::serve
//!                     └ TCP, TLS, or a PROXY header ──▶ preparation.rs
//! ```

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::sleep;

use super::accept_queue::AcceptQueue;
use super::bind;
use super::client_budget::ClientBudget;
use super::connection_spread::{ConnectionSpread, CountedLoad, HandedConnection};
use super::preparation::{PreparationSteps, prepare_and_forward, prepare_and_serve};
use crate::proxy::connection::listener_connections::ListenerConnections;
use crate::proxy::connection::transport::Transport;
use crate::proxy::http::client::client_connection;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::http_worker::HttpWorker;
use crate::proxy::stream::AssignedStream;
use crate::proxy::telemetry::stats::WorkerStats;
use crate::proxy::worker::Worker;
use crate::snapshot::Served;

/// Accepts the connections of a listener.
pub(super) struct Acceptor {
    pub(super) http: Rc<HttpWorker>,
    pub(super) clients: Arc<ClientBudget>,
    pub(super) connections: Rc<ListenerConnections>,
    pub(super) spread: ConnectionSpread,
}

impl Acceptor {
    pub(super) async fn run(
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
        spawn(stream, peer, &self.http, &self.connections, open);
    }
}

/// Spawns the task that serves a connection until it closes. `address` is the peer's address. `open_guard` counts the
/// connection as open, and is dropped when the connection has closed.
fn spawn(
    stream: TcpStream,
    address: SocketAddr,
    http: &Rc<HttpWorker>,
    connections: &Rc<ListenerConnections>,
    open_guard: impl Sized + 'static,
) {
    let (http, connections) = (Rc::clone(http), Rc::clone(connections));
    // Register before the task runs, so that a listener that closes in the meantime also closes this connection.
    let registration = connections.register();
    let tls = match served(&http.worker, &connections) {
        ServedConnection::Http { tls } => tls,
        ServedConnection::Stream(assigned) => {
            let proxy_header = assigned.options.as_ref().is_some_and(|options| options.reads_proxy_header)
                || http.worker.requires_proxy_header(address);
            let forwarding =
                prepare_and_forward(stream, address, proxy_header, assigned, http, connections, registration);
            return spawn_task(forwarding, open_guard);
        }
    };
    let steps = PreparationSteps { proxy_header: http.worker.requires_proxy_header(address), tls };
    if steps.proxy_header || steps.tls {
        registration.begin_preparing();
        spawn_task(prepare_and_serve(stream, address, steps, http, connections, registration), open_guard);
    } else {
        // A separate future type: plain connections should not reserve the memory that only the extra steps need.
        let exchange = Rc::new(ClientExchange::new(http, connections, address, None));
        spawn_task(client_connection::serve(Transport::Plain(stream), exchange, registration), open_guard);
    }
}

fn spawn_task(connection: impl Future<Output = ()> + 'static, open_guard: impl Sized + 'static) {
    // Not an `async` block, whose future would contain the connection twice.
    tokio::task::spawn_local(connection.map(move |()| drop(open_guard)));
}

/// What an accepted connection is for.
enum ServedConnection {
    Http {
        /// The connection starts with a ClientHello.
        tls: bool,
    },
    Stream(AssignedStream),
}

/// What the address of the connection serves. `connections.tls` keeps whether the address has TLS, for connections that
/// are still in the accept queue after the address has left the snapshot.
fn served(worker: &Worker, connections: &ListenerConnections) -> ServedConnection {
    let view = worker.view();
    match view.bind(&connections.address).map(|bind| &bind.served) {
        Some(Served::Tcp(rule)) => return ServedConnection::Stream(AssignedStream::new(worker, &view, rule)),
        Some(Served::Http(http)) => connections.tls.set(http.tls.is_some()),
        // A TCP socket has no bind of UDP.
        Some(Served::Udp(_)) | None => {}
    }
    ServedConnection::Http { tls: connections.tls.get() }
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

/// Pause after a failure that accepting another connection at once would repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a closing socket waits for TCP handshakes in progress. Clients that connect meanwhile send their SYN again
/// after a second.
const TCP_HANDSHAKE_GRACE: Duration = Duration::from_millis(5);
