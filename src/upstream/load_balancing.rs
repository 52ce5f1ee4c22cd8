//! Load balancing: which endpoint of an upstream gets the next request or connection.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::health::EndpointHealth;

/// The load-balancing algorithm. The connection pools of each worker apply it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadBalancing {
    /// In turn. Every worker has its own position, so that nothing is shared.
    #[default]
    RoundRobin,
    /// The endpoint with the fewest requests in progress over all workers; in turn among equals.
    LeastRequests,
}

/// A resolved endpoint with its health, which is kept as long as the address stays.
#[derive(Clone, Debug)]
pub struct ResolvedEndpoint {
    pub address: SocketAddr,
    pub health: Arc<EndpointHealth>,
}

/// When an ejected endpoint may be probed, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    /// The time of the upstream's clock.
    pub(super) now: u64,
    /// How long a probe may take.
    pub(super) timeout: u64,
}

impl LoadBalancing {
    /// The next endpoint, except those in `avoid`. `turn` is the round-robin position. Ejected endpoints are skipped
    /// unless there are no others. `probing` is set only if any are ejected.
    pub(super) fn choose(
        self,
        endpoints: &[ResolvedEndpoint],
        turn: usize,
        avoid: &[SocketAddr],
        probing: Option<Probing>,
    ) -> Option<SocketAddr> {
        let in_turn = |index: usize| &endpoints[(turn.wrapping_add(index)) % endpoints.len()];
        if self == LoadBalancing::RoundRobin && avoid.is_empty() && probing.is_none() {
            return (!endpoints.is_empty()).then(|| in_turn(0).address);
        }
        let candidates = || (0..endpoints.len()).map(in_turn).filter(|endpoint| !avoid.contains(&endpoint.address));
        // One request probes an ejected endpoint; the others do not wait for its result.
        if let Some(Probing { now, timeout }) = probing
            && let Some(first) = candidates().next()
            && first.health.claim_probe(now, timeout)
        {
            return Some(first.address);
        }
        let healthy: SmallVec<[&ResolvedEndpoint; 16]> =
            candidates().filter(|endpoint| endpoint.health.is_healthy()).collect();
        let chosen = match (&healthy[..], self) {
            ([], _) => candidates().next(),
            (healthy, LoadBalancing::LeastRequests) => {
                healthy.iter().copied().min_by_key(|endpoint| endpoint.health.requests())
            }
            // Not the next healthy one after the position: it would get the share of all ejected endpoints before it,
            // too.
            (healthy, LoadBalancing::RoundRobin) => Some(healthy[turn % healthy.len()]),
        };
        chosen.map(|endpoint| endpoint.address)
    }
}
