//! The load-balancing algorithms: their names and settings, and what they need to know of requests and endpoints.
//! Everything but the choice itself reads these facts, so that another algorithm stands here only.

use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::json_form;

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
    PeakEwma(LatencyAverage),
    Random,
    /// The endpoint that a table assigns to the hash of the request.
    ConsistentHash(HashTable),
}

/// How latencies become an average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyAverage {
    /// The time in which the influence of an old sample falls to 1/e.
    #[serde(serialize_with = "json_form::duration")]
    pub decay: Duration,
    /// A failure counts as a response after this time, so that an endpoint that fails fast does not attract requests.
    #[serde(serialize_with = "json_form::duration")]
    pub failure_penalty: Duration,
}

/// How a table assigns hashes to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HashTable {
    /// `table_size` slots, a prime number.
    Maglev {
        #[serde(rename = "maglevSize")]
        table_size: u32,
    },
    /// Points on a ring: `points` for the whole ring, or 160 for each endpoint.
    RingHash {
        #[serde(rename = "ringSize")]
        points: Option<u32>,
    },
}

impl BalancingAlgorithm {
    /// All algorithms, with the defaults of their settings.
    pub const ALL: [BalancingAlgorithm; 6] = [
        BalancingAlgorithm::RoundRobin,
        BalancingAlgorithm::LeastRequests,
        BalancingAlgorithm::PeakEwma(LatencyAverage::DEFAULT),
        BalancingAlgorithm::Random,
        BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 }),
        BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points: None }),
    ];

    /// The name in `spec.loadBalancing.algorithm` of a BackendPolicy.
    pub fn name(self) -> &'static str {
        match self {
            BalancingAlgorithm::RoundRobin => "RoundRobin",
            BalancingAlgorithm::LeastRequests => "LeastRequests",
            BalancingAlgorithm::PeakEwma(_) => "PeakEwma",
            BalancingAlgorithm::Random => "Random",
            BalancingAlgorithm::ConsistentHash(HashTable::Maglev { .. }) => "Maglev",
            BalancingAlgorithm::ConsistentHash(HashTable::RingHash { .. }) => "RingHash",
        }
    }

    /// The table, if the endpoint depends on a hash of the request.
    pub fn hash_table(self) -> Option<HashTable> {
        if let BalancingAlgorithm::ConsistentHash(table) = self { Some(table) } else { None }
    }

    /// Whether the endpoint depends on a hash of the request.
    pub fn is_hashing(self) -> bool {
        self.hash_table().is_some()
    }

    /// How the latencies of the endpoints are averaged, if the endpoint depends on them.
    pub fn latency(self) -> Option<LatencyAverage> {
        if let BalancingAlgorithm::PeakEwma(average) = self { Some(average) } else { None }
    }

    /// Whether the endpoint depends on the requests that each of them has in progress.
    pub(crate) fn compares_requests(self) -> bool {
        matches!(self, BalancingAlgorithm::LeastRequests | BalancingAlgorithm::PeakEwma(_))
    }
}

/// The name and, if it has any, the settings. The size of a table is a field of the hash in a BackendPolicy.
impl Serialize for BalancingAlgorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("BalancingAlgorithm", 2)?;
        fields.serialize_field("algorithm", self.name())?;
        fields.serialize_field("peakEwma", &self.latency())?;
        fields.end()
    }
}

impl LatencyAverage {
    pub const DEFAULT: LatencyAverage =
        LatencyAverage { decay: Duration::from_secs(10), failure_penalty: Duration::from_secs(1) };
}
