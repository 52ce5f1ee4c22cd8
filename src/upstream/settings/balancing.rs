//! How requests are divided among the endpoints of an upstream.

use std::sync::Arc;
use std::time::Duration;

use super::RequestHash;

/// The load balancing of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancing {
    pub algorithm: BalancingAlgorithm,
    /// What [`BalancingAlgorithm::RingHash`] and [`BalancingAlgorithm::Maglev`] hash of a request; `None` for the
    /// others.
    pub hash: Option<Arc<RequestHash>>,
    pub slow_start: Option<SlowStart>,
    pub locality: Locality,
    /// If a smaller percentage of the endpoints is available, ejections are ignored, or with [`WhenUnhealthy::Fail`], if
    /// the percentage is not larger, no request is sent. 0: only if none is available.
    pub panic_threshold_percent: u8,
    pub when_unhealthy: WhenUnhealthy,
}

/// The load-balancing algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalancingAlgorithm {
    /// In turn, by weight. Every worker has its own position, so that nothing is shared.
    #[default]
    RoundRobin,
    /// The endpoint with the fewest requests in progress over all workers, in relation to its weight.
    LeastRequests,
    /// The endpoint with the lowest product of its latency, as a moving average that follows peaks at once, and its
    /// requests in progress.
    PeakEwma {
        /// The time in which the influence of an old sample falls to 1/e.
        decay: Duration,
        /// A failure counts as a response after this time, so that an endpoint that fails fast does not attract
        /// requests.
        failure_penalty: Duration,
    },
    Random,
    /// Consistent hashing with a table of `table_size` slots, a prime number.
    Maglev {
        table_size: u32,
    },
    /// Consistent hashing with points on a ring: `points` for the whole ring, or 160 for each endpoint.
    RingHash {
        points: Option<u32>,
    },
}

impl BalancingAlgorithm {
    /// Whether the endpoint depends on a hash of the request.
    pub fn is_hashing(self) -> bool {
        matches!(self, BalancingAlgorithm::Maglev { .. } | BalancingAlgorithm::RingHash { .. })
    }
}

/// How the share of an endpoint grows after it has become available: its weight is multiplied by
/// `max(min_weight_percent / 100, (time / window) ^ (1 / aggression))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    pub window: Duration,
    pub min_weight_percent: u8,
    /// In thousandths; 1000 for linear growth.
    pub aggression: u32,
}

/// Which endpoints are preferred because of where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locality {
    pub mode: LocalityMode,
    /// By how much the available endpoints of a level exceed what it needs: with 140, a level gets all requests until
    /// less than 1/1.4 of its endpoints is available.
    pub overprovisioning_percent: u32,
}

/// What decides the preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalityMode {
    /// `spec.trafficDistribution` of the Service and the hints of its EndpointSlices.
    #[default]
    Auto,
    Off,
    PreferSameZone,
    PreferSameNode,
}

/// What happens to requests if no endpoint is available, or fewer than the panic threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnhealthy {
    /// They are sent to all endpoints, as if none were ejected.
    #[default]
    UseAll,
    /// They fail with 503.
    Fail,
}

impl Default for Locality {
    fn default() -> Self {
        Locality { mode: LocalityMode::default(), overprovisioning_percent: 140 }
    }
}
