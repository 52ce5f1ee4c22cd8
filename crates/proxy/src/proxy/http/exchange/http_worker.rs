//! The state of one worker that its HTTP requests share, around the state that TCP connections use too.
//!
//! TCP connections borrow the pools of connections to endpoints, too, since both have the same round-robin position and
//! the same limit of connections. The pools are here because their type depends on the body of requests.

use std::rc::Rc;
use std::sync::Arc;

use ipnet::IpNet;

use super::request_body::RequestBody;
use crate::http1::NameCase;
use crate::proxy::http::fields::header_map_pool::HeaderMapPool;
use crate::proxy::http::fields::product_names::ProductHeaders;
use crate::proxy::http::forwarding::mirror::BackgroundSender;
use crate::proxy::http::record::request_id::RequestIds;
use crate::proxy::rejected_paths::RejectedPaths;
use crate::proxy::worker::Worker;
use crate::upstream::{ConnectionPools, EndpointConnector, IdleLimits, OwnSockets, SocketBudget, WorkerSubsetting};

/// What the HTTP requests of all workers share.
#[derive(Clone)]
pub(in crate::proxy) struct HttpWorkerShared {
    pub(in crate::proxy) trusted_ips: Vec<IpNet>,
    pub(in crate::proxy) rejected_paths: RejectedPaths,
    /// The case in which the names of header fields are forwarded, for HTTP/1.
    pub(in crate::proxy) name_case: NameCase,
    pub(in crate::proxy) product_headers: Arc<ProductHeaders>,
    /// The connections to endpoints of the whole process.
    pub(in crate::proxy) upstream_sockets: Arc<SocketBudget>,
    /// The sockets to which no connections are opened.
    pub(in crate::proxy) own_sockets: Arc<OwnSockets>,
    /// The endpoints of large upstreams that each worker uses.
    pub(in crate::proxy) subsetting: WorkerSubsetting,
}

/// State that the requests of one worker share.
pub(in crate::proxy) struct HttpWorker {
    pub(in crate::proxy) worker: Worker,
    pub(in crate::proxy) trusted_ips: Vec<IpNet>,
    pub(in crate::proxy) rejected_paths: RejectedPaths,
    pub(in crate::proxy) name_case: NameCase,
    pub(in crate::proxy) product_headers: Arc<ProductHeaders>,
    pub(in crate::proxy) upstream_sockets: Arc<SocketBudget>,
    pub(in crate::proxy) pools: ConnectionPools<RequestBody>,
    pub(in crate::proxy) background_sender: Rc<BackgroundSender>,
    pub(in crate::proxy) request_ids: RequestIds,
    pub(in crate::proxy) header_maps: HeaderMapPool,
}

impl HttpWorker {
    pub(in crate::proxy) fn new(number: usize, worker: Worker, shared: HttpWorkerShared) -> Self {
        let limits = &worker.limits;
        let connector = EndpointConnector {
            timeout: limits.connect_timeout,
            sockets: Arc::clone(&shared.upstream_sockets),
            own_sockets: shared.own_sockets,
            max_head: limits.max_response_head,
            max_fields: limits.max_response_fields,
            name_case: shared.name_case,
            max_streams: limits.max_upstream_streams,
            ping_interval: limits.upstream_ping_interval,
            ping_timeout: limits.ping_timeout,
        };
        let idle_limits = IdleLimits {
            per_endpoint: limits.max_idle_per_endpoint,
            timeout: limits.upstream_idle_timeout,
            recent: limits.max_idle_for_unrepeatable,
        };
        let upstream_counters = &worker.counters.upstream;
        let mirror_counters = Arc::clone(&worker.counters.mirrored);
        let subsetting = WorkerSubsetting { worker: number, ..shared.subsetting };
        let mirror_pools =
            ConnectionPools::new(connector.clone(), idle_limits, subsetting, Arc::clone(upstream_counters));
        let background_sender =
            BackgroundSender::new(limits, mirror_pools, mirror_counters, Rc::clone(&worker.buffers));
        HttpWorker {
            trusted_ips: shared.trusted_ips,
            rejected_paths: shared.rejected_paths,
            name_case: shared.name_case,
            product_headers: shared.product_headers,
            upstream_sockets: shared.upstream_sockets,
            pools: ConnectionPools::new(connector, idle_limits, subsetting, Arc::clone(upstream_counters)),
            background_sender: Rc::new(background_sender),
            request_ids: RequestIds::default(),
            header_maps: HeaderMapPool::default(),
            worker,
        }
    }
}
