//! Limits what the state of an endpoint takes that all workers share: health, load balancing and its table.

use std::net::SocketAddr;
use std::time::Duration;

use portico::upstream::settings::{Balancing, BalancingAlgorithm, HashTable, LatencyAverage};
use portico::upstream::{EndpointAddress, Endpoints, UpstreamKey, UpstreamRegistry};
use stats_alloc::Region;

use crate::ALLOCATOR;

const ENDPOINTS: usize = 1_000;
const MAX_BYTES: usize = 512;
/// With the part of a table of 65,537 slots of two bytes.
const MAX_BYTES_WITH_TABLE: usize = 700;
/// With 160 points of 12 bytes.
const MAX_BYTES_WITH_RING: usize = 2_560;

/// Returns the measured bytes as text.
pub(crate) fn check() -> String {
    let second = Duration::from_secs(1);
    let measured: Vec<String> = [
        ("round robin", BalancingAlgorithm::RoundRobin, MAX_BYTES),
        ("random", BalancingAlgorithm::Random, MAX_BYTES),
        ("least requests", BalancingAlgorithm::LeastRequests, MAX_BYTES),
        (
            "peak EWMA",
            BalancingAlgorithm::PeakEwma(LatencyAverage { decay: second, failure_penalty: second }),
            MAX_BYTES,
        ),
        ("Maglev", BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 }), MAX_BYTES_WITH_TABLE),
        ("ring hash", BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points: None }), MAX_BYTES_WITH_RING),
    ]
    .into_iter()
    .map(|(name, algorithm, max_bytes)| {
        let bytes = bytes_per_endpoint(algorithm);
        let report = format!("{name} {bytes}");
        assert!(bytes <= max_bytes, "bytes per endpoint: {report}; valgrind --tool=dhat shows the allocations");
        report
    })
    .collect();
    format!("bytes of the state of an endpoint: {}", measured.join(", "))
}

fn bytes_per_endpoint(algorithm: BalancingAlgorithm) -> usize {
    let registry = UpstreamRegistry::default();
    let address = |number: usize| SocketAddr::from(([10, 0, (number / 256) as u8, (number % 256) as u8], 80));
    let addresses = (0..ENDPOINTS).map(address).map(EndpointAddress::Ip).collect();
    let balance = Balancing { algorithm, ..Balancing::default() };
    let region = Region::new(ALLOCATOR);
    let upstream = registry.upstream(&UpstreamKey::default());
    upstream.set_endpoints(Endpoints { addresses, balance, ..Endpoints::default() });
    let change = region.change();
    assert_eq!(upstream.reachable().len(), ENDPOINTS);
    (change.bytes_allocated - change.bytes_deallocated) / ENDPOINTS
}
