//! An upstream with many endpoints, and the connection pools of a worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use portico::http1::NameCase;
use portico::upstream::settings::{Balancing, BalancingAlgorithm, HashTable, LatencyAverage};
use portico::upstream::{
    ConnectionPools, EndpointAddress, EndpointConnector, Endpoints, IdleLimits, SocketBudget, Upstream, UpstreamKey,
    UpstreamRegistry, WorkerSubsetting,
};

/// All algorithms with their default settings.
pub(crate) const ALGORITHMS: [(&str, BalancingAlgorithm); 6] = [
    ("round robin", BalancingAlgorithm::RoundRobin),
    ("random", BalancingAlgorithm::Random),
    ("least requests", BalancingAlgorithm::LeastRequests),
    ("peak EWMA", BalancingAlgorithm::PeakEwma(LatencyAverage { decay: DECAY, failure_penalty: PENALTY })),
    ("Maglev", BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 })),
    ("ring hash", BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points: None })),
];

const DECAY: Duration = Duration::from_secs(10);
const PENALTY: Duration = Duration::from_secs(1);

pub(crate) fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (number / 256) as u8, (number % 256) as u8], 80))
}

/// An upstream with the endpoints of these numbers, in ascending order.
pub(crate) fn upstream_with(numbers: impl Iterator<Item = u16>, balance: &Balancing) -> Arc<Upstream> {
    let upstream = UpstreamRegistry::default().upstream(&UpstreamKey::default());
    set_endpoints(&upstream, numbers, balance);
    upstream
}

pub(crate) fn set_endpoints(upstream: &Upstream, numbers: impl Iterator<Item = u16>, balance: &Balancing) {
    let addresses = numbers.map(address).map(EndpointAddress::Ip).collect();
    upstream.set_endpoints(Endpoints { addresses, balance: balance.clone(), ..Endpoints::default() });
}

/// The pools of one worker.
pub(crate) fn pools() -> ConnectionPools<Empty<Bytes>> {
    let seconds = Duration::from_secs(10);
    let connector = EndpointConnector {
        timeout: seconds,
        sockets: Arc::new(SocketBudget::new(100_000)),
        own_sockets: Arc::default(),
        max_head: 1_000,
        max_fields: 10,
        name_case: NameCase::Lower,
        max_streams: 100,
        ping_interval: seconds,
        ping_timeout: seconds,
    };
    let idle_limits = IdleLimits { per_endpoint: 1, timeout: seconds, recent: seconds };
    ConnectionPools::new(connector, idle_limits, WorkerSubsetting::new(1, 100_000), Arc::default())
}
