//! The state of one worker that connections of all protocols borrow.
//!
//! ```text
//!   Worker ─ view() ─▶ SnapshotView: the current snapshot, with counters and load-balancing state
//!     └ limits, access log, counters, TLS
//! ```

pub(in crate::proxy) mod snapshot_view;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Cache};
use ipnet::IpNet;
use tokio::time::Instant;

use self::snapshot_view::SnapshotView;
use super::buffer_budget::{BufferBudget, WorkerBuffers};
use super::client_counts::ClientCounts;
use super::connection::handshake_permits::HandshakePermits;
use super::connection::tls::TlsTerminator;
use super::telemetry::access_log::{AccessLogger, WorkerAccessLog};
use super::telemetry::observations::ObservedRequests;
use super::telemetry::request_tracer::RequestTracer;
use super::telemetry::stats::{LocationRequest, ProxyStats, RequestLabels, RequestSeries, WorkerStats};
use super::unforwarded_budget::{UnforwardedBudget, WorkerUnforwarded};
use crate::bind_address::BindAddress;
use crate::limits::ProxyLimits;
use crate::plugin_api::completed_request::Attempt;
use crate::snapshot::Snapshot;

/// What all workers share, whatever the protocol.
#[derive(Clone)]
pub(in crate::proxy) struct WorkerShared {
    pub(in crate::proxy) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(in crate::proxy) limits: ProxyLimits,
    pub(in crate::proxy) log: Arc<AccessLogger>,
    pub(in crate::proxy) stats: Arc<ProxyStats>,
    pub(in crate::proxy) observed: Arc<ObservedRequests>,
    /// Set before the first request if all requests are traced.
    pub(in crate::proxy) tracer: Arc<OnceLock<RequestTracer>>,
    pub(in crate::proxy) tls: Arc<TlsTerminator>,
    /// One permit per TLS handshake of the whole process.
    pub(in crate::proxy) handshake_permits: Arc<HandshakePermits>,
    pub(in crate::proxy) proxy_protocol_peers: Vec<IpNet>,
    /// The connections that are forwarded, by client.
    pub(in crate::proxy) stream_clients: Arc<ClientCounts>,
    /// The UDP sessions by client.
    pub(in crate::proxy) udp_clients: Arc<ClientCounts>,
    /// The bytes of bodies that the whole process keeps.
    pub(in crate::proxy) buffers: Arc<BufferBudget>,
    /// The bytes of request bodies that the whole process has received over HTTP/2, and not yet forwarded.
    pub(in crate::proxy) unforwarded: Arc<UnforwardedBudget>,
}

/// State that the connections of one worker share.
pub(in crate::proxy) struct Worker {
    pub(in crate::proxy) limits: ProxyLimits,
    pub(in crate::proxy) log: WorkerAccessLog,
    pub(in crate::proxy) observed: Arc<ObservedRequests>,
    tracer: Arc<OnceLock<RequestTracer>>,
    pub(in crate::proxy) tls: Arc<TlsTerminator>,
    pub(in crate::proxy) handshake_permits: Arc<HandshakePermits>,
    proxy_protocol_peers: Vec<IpNet>,
    pub(in crate::proxy) stream_clients: Arc<ClientCounts>,
    pub(in crate::proxy) udp_clients: Arc<ClientCounts>,
    /// The bytes of bodies that are kept.
    pub(in crate::proxy) buffers: Rc<WorkerBuffers>,
    /// The bytes of request bodies that were received over HTTP/2, and not yet forwarded.
    pub(in crate::proxy) unforwarded: Rc<WorkerUnforwarded>,
    /// When a missing or invalid PROXY header was last logged.
    pub(in crate::proxy) last_proxy_header_warning: Cell<Option<Instant>>,
    stats: Arc<ProxyStats>,
    pub(in crate::proxy) counters: Arc<WorkerStats>,
    unrouted: OnceCell<Arc<RequestSeries>>,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    view: RefCell<Rc<SnapshotView>>,
}

impl Worker {
    pub(in crate::proxy) fn new(number: usize, shared: WorkerShared) -> Self {
        let mut snapshot = Cache::new(shared.snapshot);
        let view = Rc::new(SnapshotView::new(Arc::clone(snapshot.load())));
        let log = shared.log.add_worker(shared.stats.worker_count());
        log.set_settings(&view.snapshot.access_logs);
        Worker {
            limits: shared.limits,
            log,
            observed: shared.observed,
            tracer: shared.tracer,
            tls: shared.tls,
            handshake_permits: shared.handshake_permits,
            proxy_protocol_peers: shared.proxy_protocol_peers,
            stream_clients: shared.stream_clients,
            udp_clients: shared.udp_clients,
            buffers: WorkerBuffers::new(shared.buffers),
            unforwarded: WorkerUnforwarded::new(shared.unforwarded),
            last_proxy_header_warning: Cell::new(None),
            counters: Arc::clone(shared.stats.worker(number)),
            stats: shared.stats,
            unrouted: OnceCell::new(),
            snapshot: RefCell::new(snapshot),
            view: RefCell::new(view),
        }
    }

    /// The view of the current snapshot. Costs one pointer comparison, and no reference count is shared with other
    /// workers.
    pub(in crate::proxy) fn view(&self) -> Rc<SnapshotView> {
        let mut snapshot = self.snapshot.borrow_mut();
        let current = snapshot.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(current, &view.snapshot) {
            self.log.set_settings(&current.access_logs);
            *view = Rc::new(view.next(Arc::clone(current)));
        }
        Rc::clone(&view)
    }

    /// The tracer of all requests, if there is one.
    pub(in crate::proxy) fn tracer(&self) -> Option<&RequestTracer> {
        self.tracer.get()
    }

    /// The number of workers of the process.
    pub(in crate::proxy) fn worker_count(&self) -> usize {
        self.stats.worker_count()
    }

    /// Drops retired binds without socket and connections.
    pub(in crate::proxy) fn drop_retired_binds(&self, is_gone: impl Fn(&BindAddress) -> bool) {
        let mut view = self.view.borrow_mut();
        if let Some(next) = view.without_retired(is_gone) {
            *view = Rc::new(next);
        }
    }

    /// Whether a peer must begin its connections with a PROXY header.
    pub(in crate::proxy) fn requires_proxy_header(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.proxy_protocol_peers.iter().any(|network| network.contains(&ip))
    }

    pub(in crate::proxy) fn series(&self, labels: RequestLabels) -> Arc<RequestSeries> {
        self.stats.series(&self.counters, labels)
    }

    /// Counts a request error by its reason.
    pub(in crate::proxy) fn count_error(&self, reason: &'static str) {
        self.counters.count_errors(reason, 1);
    }

    pub(in crate::proxy) fn count_errors(&self, reason: &'static str, count: u64) {
        self.counters.count_errors(reason, count);
    }

    /// Counts the attempts of a request that has ended at their endpoints, with `--endpoint-metrics`.
    pub(in crate::proxy) fn count_attempts(&self, backend: &Arc<str>, attempts: &[Attempt]) {
        self.stats.count_attempts(&self.counters, backend, attempts);
    }

    /// Whether requests are counted by the names of their rules.
    pub(in crate::proxy) fn counts_locations(&self) -> bool {
        self.stats.counts_locations()
    }

    /// Counts a request that has ended by the names of its rule.
    pub(in crate::proxy) fn count_location(&self, request: &LocationRequest<'_>) {
        self.stats.count_location(&self.counters, request);
    }

    /// The series of requests that matched no listener.
    pub(in crate::proxy) fn unrouted_series(&self) -> Arc<RequestSeries> {
        Arc::clone(self.unrouted.get_or_init(|| self.series(RequestLabels::default())))
    }
}
