//! Load balancing: which endpoint of an upstream gets the next request or connection.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::endpoint_state::EndpointState;
use super::health::Availability;
use super::settings::BalancingAlgorithm;

/// An endpoint at one of its addresses.
#[derive(Clone, Debug)]
pub struct ResolvedEndpoint {
    pub address: SocketAddr,
    pub state: Arc<EndpointState>,
}

/// A request that may try a half-open endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpenTrial {
    /// The time of the upstream's clock.
    pub(super) now: u64,
    /// Whether the request can be sent again if it fails.
    pub(super) is_repeatable: bool,
}

impl BalancingAlgorithm {
    /// The next endpoint, except those in `avoid`. `turn` is the round-robin position. Ejected endpoints are skipped
    /// unless there are no others. `trial` is set only if any are not available.
    pub(super) fn choose(
        self,
        endpoints: &[ResolvedEndpoint],
        turn: usize,
        avoid: &[SocketAddr],
        trial: Option<HalfOpenTrial>,
    ) -> Option<SocketAddr> {
        let in_turn = |index: usize| &endpoints[(turn.wrapping_add(index)) % endpoints.len()];
        if self == BalancingAlgorithm::RoundRobin && avoid.is_empty() && trial.is_none() {
            return (!endpoints.is_empty()).then(|| in_turn(0).address);
        }
        let candidates = || (0..endpoints.len()).map(in_turn).filter(|endpoint| !avoid.contains(&endpoint.address));
        // One request tries a half-open endpoint; the others do not wait for its result.
        if let Some(HalfOpenTrial { now, is_repeatable }) = trial
            && let Some(first) = candidates().next()
            && first.state.health.claim_half_open(now, is_repeatable)
        {
            return Some(first.address);
        }
        if endpoints.len() > MAX_SCANNED
            && let Some(sampled) = self.choose_sampled(endpoints, turn, avoid)
        {
            return Some(sampled.address);
        }
        let now = trial.map_or(0, |trial| trial.now);
        let is_preferred =
            |endpoint: &&ResolvedEndpoint| endpoint.state.health.availability(now) == Availability::Available;
        let mut healthy: SmallVec<[&ResolvedEndpoint; MAX_SCANNED]> = candidates().filter(is_preferred).collect();
        if healthy.is_empty() {
            healthy = candidates().filter(|endpoint| endpoint.state.health.is_healthy()).collect();
        }
        let chosen = match (&healthy[..], self) {
            ([], _) => candidates().next(),
            (healthy, BalancingAlgorithm::LeastRequests) => {
                healthy.iter().copied().min_by_key(|endpoint| endpoint.state.load.requests())
            }
            // Not the next healthy one after the position: it would get the share of all ejected endpoints before it,
            // too.
            (healthy, _) => Some(healthy[turn % healthy.len()]),
        };
        chosen.map(|endpoint| endpoint.address)
    }

    /// The endpoint whose turn it is, or a healthy one at random instead. With least requests, two at random are
    /// compared. None if a few samples contain no healthy endpoint.
    fn choose_sampled<'e>(
        self,
        endpoints: &'e [ResolvedEndpoint],
        turn: usize,
        avoid: &[SocketAddr],
    ) -> Option<&'e ResolvedEndpoint> {
        let in_turn = (self == BalancingAlgorithm::RoundRobin).then_some(turn % endpoints.len());
        let at_random = (0..MAX_SAMPLES).map(|_| fastrand::usize(..endpoints.len()));
        let mut healthy = in_turn
            .into_iter()
            .chain(at_random)
            .map(|index| &endpoints[index])
            .filter(|endpoint| endpoint.state.health.is_healthy() && !avoid.contains(&endpoint.address));
        match self {
            BalancingAlgorithm::LeastRequests => {
                healthy.by_ref().take(2).min_by_key(|endpoint| endpoint.state.load.requests())
            }
            _ => healthy.next(),
        }
    }
}

/// Of more endpoints, a few are sampled instead of looking at all of them for each request.
const MAX_SCANNED: usize = 16;
/// Samples before all endpoints are looked at after all.
const MAX_SAMPLES: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::endpoint_state::ActiveRequest;
    use super::*;

    const NOW: u64 = 1;

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], u16::try_from(number).unwrap()))
    }

    fn endpoints(count: usize) -> Vec<ResolvedEndpoint> {
        (0..count).map(|number| ResolvedEndpoint { address: address(number), state: Arc::default() }).collect()
    }

    /// How often each endpoint is chosen.
    fn choices(
        algorithm: BalancingAlgorithm,
        endpoints: &[ResolvedEndpoint],
        avoid: &[SocketAddr],
        rounds: usize,
    ) -> BTreeMap<SocketAddr, usize> {
        // No time passes, so no endpoint is half-open.
        let trial = Some(HalfOpenTrial { now: NOW, is_repeatable: true });
        let mut counts = BTreeMap::new();
        for turn in 0..rounds {
            *counts.entry(algorithm.choose(endpoints, turn, avoid, trial).unwrap()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn samples_of_many_endpoints_are_healthy_and_not_avoided() {
        fastrand::seed(1);
        let endpoints = endpoints(4 * MAX_SCANNED);
        let healthy = endpoints.len() - 10;
        for endpoint in &endpoints[..healthy] {
            endpoint.state.health.eject_unreachable(NOW, false);
        }
        for algorithm in [BalancingAlgorithm::RoundRobin, BalancingAlgorithm::LeastRequests] {
            let counts = choices(algorithm, &endpoints, &[address(healthy)], 2_000);
            assert!(counts.keys().copied().eq((healthy + 1..endpoints.len()).map(address)), "{counts:?}");
            assert!(counts.values().all(|count| *count > 100), "of 2,000 requests, 222 each: {counts:?}");
        }
    }

    #[test]
    fn less_busy_of_two_sampled_endpoints_is_chosen() {
        fastrand::seed(1);
        let endpoints = endpoints(20);
        let _requests: Vec<_> =
            endpoints[1..].iter().map(|endpoint| ActiveRequest::new(Arc::clone(&endpoint.state))).collect();
        let counts = choices(BalancingAlgorithm::LeastRequests, &endpoints, &[], 4_000);
        let idle = counts[&address(0)];
        assert!((290..490).contains(&idle), "the idle one of 20 is one of the two in 390 of 4,000 samples: {idle}");
    }
}
