//! The handle of the running data plane: start, reconcile with the snapshot, drain.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use ipnet::IpNet;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::bind;
use super::client_budget::ClientBudget;
use super::connection_spread::{ConnectionSpread, WorkerLoads};
use super::worker_thread::{self, ProcessShared, TcpWorkerSocket, WorkerCommand, WorkerSocket};
use crate::bind_address::BindAddress;
use crate::http1::NameCase;
use crate::limits::ProxyLimits;
use crate::proxy::buffer_budget::BufferBudget;
use crate::proxy::client_counts::ClientCounts;
use crate::proxy::connection::handshake_permits::HandshakePermits;
use crate::proxy::connection::tls::{TlsPolicy, TlsTerminator};
use crate::proxy::http::exchange::http_worker::HttpWorkerShared;
use crate::proxy::http::fields::product_names::{ProductHeaderMode, ProductHeaders, ProductToken};
use crate::proxy::telemetry::access_log::AccessLogger;
use crate::proxy::telemetry::observations::ObservedRequests;
use crate::proxy::telemetry::request_tracer::RequestTracer;
use crate::proxy::telemetry::stats::{LocationMetrics, ProxyStats};
use crate::proxy::unforwarded_budget::UnforwardedBudget;
use crate::proxy::worker::WorkerShared;
use crate::proxy::{BindState, BindStates, RejectedPaths};
use crate::snapshot::{Snapshot, TransportProtocol};
use crate::upstream::{OwnSockets, SocketBudget, WorkerSubsetting};

/// Settings of the data plane. Listeners and routes come from the snapshot.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The number of workers, each with its own thread.
    pub workers: NonZeroUsize,
    pub limits: ProxyLimits,
    /// Peers whose forwarding headers are trusted (`--trusted-ips`).
    pub trusted_ips: Vec<IpNet>,
    /// Paths that are rejected (`--reject-paths`).
    pub rejected_paths: RejectedPaths,
    /// The case in which the names of header fields are forwarded, for HTTP/1.
    pub name_case: NameCase,
    pub access_log: Arc<AccessLogger>,
    pub tls: TlsPolicy,
    /// Peers that begin every connection with a PROXY header (`--proxy-protocol-from`).
    pub proxy_protocol_peers: Vec<IpNet>,
    /// Allows other processes to listen on the same port.
    pub allow_port_sharing: bool,
    /// When `Via`, `Server` and the latency headers are added, and with which product token (`--product-token`).
    pub product_headers: ProductHeaderMode,
    pub product_token: ProductToken,
    /// Maximum label sets of the request metrics (`--metrics-max-series`).
    pub max_series: usize,
    /// Counts attempts by endpoint (`--endpoint-metrics`).
    pub counts_endpoints: bool,
    /// Counts requests by the names of their rules (`--nginx-metrics`).
    pub location_metrics: Option<LocationMetrics>,
}

/// The running data plane. Dropping it stops it at once; `drain` stops it gracefully.
#[derive(Debug)]
pub struct Proxy {
    snapshot: Arc<ArcSwap<Snapshot>>,
    workers: Vec<mpsc::Sender<WorkerCommand>>,
    loads: Arc<WorkerLoads>,
    stats: Arc<ProxyStats>,
    observed: Arc<ObservedRequests>,
    tracer: Arc<OnceLock<RequestTracer>>,
    own_sockets: Arc<OwnSockets>,
    allow_port_sharing: bool,
    /// The lock serializes `reconcile` and `drain`.
    listening: Mutex<ListeningState>,
}

#[derive(Debug, Default)]
struct ListeningState {
    addresses: BTreeSet<BindAddress>,
    /// The addresses of the snapshot of the last `reconcile`, if all of them are bound.
    complete: Option<Arc<BTreeSet<BindAddress>>>,
    /// Set by `drain`; no address is bound afterwards.
    drained: bool,
}

impl Proxy {
    /// Starts the workers. No address is bound before the first `reconcile`.
    pub fn start(config: ProxyConfig, snapshot: Arc<ArcSwap<Snapshot>>) -> io::Result<Proxy> {
        let count = config.workers.get();
        let lost_lines = Arc::clone(config.access_log.lost_lines());
        let limits = config.limits;
        let buffers = Arc::new(BufferBudget::new(limits.max_buffered_bytes));
        let unforwarded = Arc::new(UnforwardedBudget::new(limits.max_unforwarded_bytes, count));
        let stats = ProxyStats::new(count, config.max_series, lost_lines)
            .with_endpoints(config.counts_endpoints)
            .with_locations(config.location_metrics)
            .with_budgets(Arc::clone(&buffers), Arc::clone(&unforwarded));
        let stats = Arc::new(stats);
        let observed: Arc<ObservedRequests> = Arc::default();
        let tracer: Arc<OnceLock<RequestTracer>> = Arc::default();
        let own_sockets: Arc<OwnSockets> = Arc::default();
        let shared = ProcessShared {
            clients: Arc::new(ClientBudget::new(limits.max_connections)),
            http: HttpWorkerShared {
                trusted_ips: config.trusted_ips,
                rejected_paths: config.rejected_paths,
                name_case: config.name_case,
                product_headers: Arc::new(ProductHeaders::new(config.product_headers, config.product_token)),
                upstream_sockets: Arc::new(SocketBudget::new(limits.max_upstream_connections)),
                own_sockets: Arc::clone(&own_sockets),
                subsetting: WorkerSubsetting::new(count, limits.max_upstream_connections),
            },
            worker: WorkerShared {
                snapshot: Arc::clone(&snapshot),
                stream_clients: ClientCounts::new(limits.max_stream_connections_per_client),
                udp_clients: ClientCounts::new(limits.max_udp_sessions_per_client),
                handshake_permits: HandshakePermits::new(limits.max_handshakes),
                limits,
                log: config.access_log,
                stats: Arc::clone(&stats),
                observed: Arc::clone(&observed),
                tracer: Arc::clone(&tracer),
                tls: Arc::new(TlsTerminator::new(&config.tls).map_err(io::Error::other)?),
                proxy_protocol_peers: config.proxy_protocol_peers,
                buffers,
                unforwarded,
            },
        };
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, receiver) = mpsc::channel(COMMAND_QUEUE);
            // If a later worker cannot be started, dropping the senders ends the earlier threads.
            worker_thread::start(number, shared.clone(), receiver)?;
            workers.push(sender);
        }
        Ok(Proxy {
            snapshot,
            workers,
            loads: WorkerLoads::new(count),
            stats,
            observed,
            tracer,
            own_sockets,
            allow_port_sharing: config.allow_port_sharing,
            listening: Mutex::default(),
        })
    }

    /// The statistics, to be registered as a metrics collector.
    pub fn stats(&self) -> Arc<ProxyStats> {
        Arc::clone(&self.stats)
    }

    /// Traces all requests from now on. Only the first call has an effect.
    pub fn trace(&self, tracer: RequestTracer) {
        self.tracer.get_or_init(|| tracer);
    }

    /// The requests that are observed.
    pub fn observed_requests(&self) -> Arc<ObservedRequests> {
        Arc::clone(&self.observed)
    }

    /// The sockets on which this process listens. The proxy sets those of the snapshot; the caller adds its own.
    pub fn own_sockets(&self) -> Arc<OwnSockets> {
        Arc::clone(&self.own_sockets)
    }

    /// The number of open client connections of each worker.
    pub fn connections_by_worker(&self) -> Vec<usize> {
        self.loads.open()
    }

    /// Makes all workers use the current snapshot if this process already listens on exactly its addresses, as after an
    /// edit of a route. Otherwise, returns false and does nothing; call [`Proxy::reconcile`] then.
    pub async fn refresh(&self) -> bool {
        let listening = self.listening.lock().await;
        let is_complete = listening
            .complete
            .as_ref()
            .is_some_and(|addresses| Arc::ptr_eq(addresses, self.snapshot.load().binds.addresses()));
        if is_complete {
            self.send_to_all(WorkerCommand::Refresh).await;
        }
        is_complete
    }

    /// Listens on exactly the addresses of the current snapshot, and returns the state of each. Failed addresses are
    /// retried by the next call.
    ///
    /// Call it, or [`Proxy::refresh`], after every swap of the snapshot and before the next swap. Connections in the
    /// accept queue of an address that the next snapshot lacks are handled by this snapshot, so all workers must have
    /// loaded it.
    pub async fn reconcile(&self) -> BindStates {
        let mut listening = self.listening.lock().await;
        if listening.drained {
            return BindStates::new();
        }
        self.send_to_all(WorkerCommand::Refresh).await;
        let wanted = Arc::clone(self.snapshot.load().binds.addresses());
        let gone: Vec<_> = listening.addresses.difference(&wanted).copied().collect();
        // Before any of them can be reached, and while the others still can.
        self.publish_own_sockets(listening.addresses.union(&wanted));
        // New addresses first, so that moving from one address to the wildcard address, or back, leaves no gap.
        let mut binds = BindStates::new();
        for address in wanted.iter().copied() {
            let state = if listening.addresses.contains(&address) {
                BindState::Bound
            } else {
                // A port that this process is about to release may be shared; otherwise it would appear to be in use.
                let port = |address: &BindAddress| (address.transport, address.socket.port());
                let allow_sharing = self.allow_port_sharing || gone.iter().any(|gone| port(gone) == port(&address));
                self.bind(address, allow_sharing).await
            };
            if state == BindState::Bound && listening.addresses.insert(address) {
                tracing::info!(%address, "Listening");
            }
            binds.insert(address, state);
        }
        if !gone.is_empty() {
            self.send_to_all(|done| WorkerCommand::Unbind(gone.clone(), done)).await;
        }
        for address in gone {
            listening.addresses.remove(&address);
            tracing::info!(%address, "Stopped listening");
        }
        self.publish_own_sockets(listening.addresses.iter());
        listening.complete = binds.values().all(|state| *state == BindState::Bound).then_some(wanted);
        binds
    }

    fn publish_own_sockets<'a>(&self, addresses: impl Iterator<Item = &'a BindAddress>) {
        let connections = addresses.filter(|address| address.transport == TransportProtocol::Tcp);
        self.own_sockets.set_listeners(connections.map(|address| address.socket));
    }

    async fn bind(&self, address: BindAddress, allow_sharing: bool) -> BindState {
        let sockets = match self.open_sockets(address, allow_sharing) {
            Ok(sockets) => sockets,
            Err(state) => return state,
        };
        let mut sockets = sockets.into_iter();
        let outcomes = self
            .send_to_all(|done| {
                let socket = sockets.next().expect("there are as many sockets as workers");
                WorkerCommand::Bind(address, socket, done)
            })
            .await;
        let failure = outcomes.into_iter().find_map(|outcome| match outcome {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("a worker thread has ended".to_owned()),
        });
        let Some(failure) = failure else { return BindState::Bound };
        // Bound by all workers or by none, so that the next attempt finds the address free.
        self.send_to_all(|done| WorkerCommand::Unbind(vec![address], done)).await;
        BindState::Failed(failure)
    }

    fn open_sockets(&self, address: BindAddress, allow_sharing: bool) -> Result<Vec<WorkerSocket>, BindState> {
        let workers = self.workers.len();
        Ok(match address.transport {
            TransportProtocol::Tcp => {
                let listeners = bind::listen(address.socket, workers, allow_sharing)?.into_iter();
                let sockets = listeners.zip(ConnectionSpread::for_listeners(&self.loads));
                let socket = |(listener, (spread, handed_over))| TcpWorkerSocket { listener, spread, handed_over };
                sockets.map(socket).map(WorkerSocket::Tcp).collect()
            }
            TransportProtocol::Udp => {
                let sockets = bind::receive_datagrams(address.socket, workers, allow_sharing)?;
                sockets.into_iter().map(WorkerSocket::Udp).collect()
            }
        })
    }

    /// Asks HTTP/1 clients to close their connections, with their next response, so that [`Proxy::drain`] closes none
    /// on which a request is arriving.
    pub async fn announce_close(&self) {
        self.send_to_all(WorkerCommand::AnnounceClose).await;
    }

    /// Stops listening, lets requests in flight finish until the timeout, and then closes the remaining connections and
    /// UDP sessions. Returns how many were closed.
    pub async fn drain(&self, timeout: Duration) -> usize {
        // The lock is released at once, since `reconcile` returns early from now on.
        *self.listening.lock().await = ListeningState { drained: true, ..ListeningState::default() };
        let end = Instant::now() + timeout;
        self.send_to_all(|done| WorkerCommand::Drain(end, done)).await.into_iter().flatten().sum()
    }

    /// Sends a command to every worker and waits for all results. None for a worker that has ended.
    async fn send_to_all<T>(&self, mut command: impl FnMut(oneshot::Sender<T>) -> WorkerCommand) -> Vec<Option<T>> {
        let results = self.workers.iter().map(|worker| {
            let (done, result) = oneshot::channel();
            let command = command(done);
            async move {
                worker.send(command).await.ok()?;
                result.await.ok()
            }
        });
        join_all(results).await
    }
}

/// Capacity of a worker's command queue; the sender waits for the result anyway.
const COMMAND_QUEUE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// The control plane calls the methods of `Proxy` from a multi-threaded runtime.
    #[test]
    fn proxy_handle_is_send_and_sync() {
        fn sent<T: Send>(_: impl Fn(&'static Proxy) -> T) {}
        fn shared<T: Send + Sync>() {}
        shared::<Proxy>();
        sent(Proxy::reconcile);
        sent(|proxy| proxy.drain(Duration::ZERO));
    }
}
