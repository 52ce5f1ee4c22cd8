//! `spec.loadBalancing` without the session persistence: the algorithm and what belongs to it.

use std::sync::Arc;

use super::block_reader::BlockReader;
use super::request_hash::request_hash;
use crate::api::portico::{HashSpec, LoadBalancingSpec, LocalityLevel, LocalitySpec, SlowStartSpec};
use crate::upstream::settings::{
    Balancing, BalancingAlgorithm, FailoverLevel, HashTable, LatencyAverage, Locality, LocalityMode, RequestHash,
    SlowStart, WhenUnhealthy,
};

pub(super) fn translate(spec: &LoadBalancingSpec, block: &mut BlockReader<'_>) -> Balancing {
    let algorithms = BalancingAlgorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    let named = block.choice("algorithm", spec.algorithm.as_ref(), algorithms).unwrap_or_default();
    let (algorithm, hash) = algorithm(named, spec, block);
    Balancing {
        algorithm,
        hash,
        slow_start: spec.slow_start.as_ref().and_then(|spec| slow_start(spec, &mut block.object("slowStart"))),
        locality: spec
            .locality
            .as_ref()
            .map_or_else(Locality::default, |spec| locality(spec, &mut block.object("locality"))),
        panic_threshold_percent: block
            .percent("panicThresholdPercent", spec.panic_threshold_percent, 0)
            .unwrap_or_default(),
        must_exceed_threshold: false,
        when_unhealthy: block
            .choice(
                "whenUnhealthy",
                spec.when_unhealthy.as_ref(),
                [("UseAll", WhenUnhealthy::UseAll), ("Fail", WhenUnhealthy::Fail)],
            )
            .unwrap_or_default(),
    }
}

/// The algorithm with its settings, and what it hashes. `named`: the algorithm with the defaults of its settings.
fn algorithm(
    named: BalancingAlgorithm,
    spec: &LoadBalancingSpec,
    block: &mut BlockReader<'_>,
) -> (BalancingAlgorithm, Option<Arc<RequestHash>>) {
    if spec.peak_ewma.is_some() && named.latency().is_none() {
        block.problem("peakEwma", "it has no effect with this algorithm", "set algorithm to PeakEwma, or remove it");
    }
    if named.is_hashing() != spec.hash.as_ref().is_some_and(|hash| !hash.keys.is_empty()) {
        let message = "it is required for Maglev and RingHash and has no effect otherwise";
        block.problem("hash.keys", message, "add hash.keys, or change the algorithm");
    }
    let hash = spec.hash.as_ref().map(|spec| request_hash(spec, &mut block.object("hash")));
    let algorithm = match named {
        BalancingAlgorithm::RoundRobin | BalancingAlgorithm::LeastRequests | BalancingAlgorithm::Random => named,
        BalancingAlgorithm::PeakEwma(default) => {
            let spec = spec.peak_ewma.clone().unwrap_or_default();
            let mut block = block.object("peakEwma");
            let decay = block.duration("decay", spec.decay.as_ref(), ["1s", "1h"]);
            let penalty = block.duration("failurePenalty", spec.failure_penalty.as_ref(), ["0s", "60s"]);
            BalancingAlgorithm::PeakEwma(LatencyAverage {
                decay: decay.unwrap_or(default.decay),
                failure_penalty: penalty.unwrap_or(default.failure_penalty),
            })
        }
        BalancingAlgorithm::ConsistentHash(table) => {
            BalancingAlgorithm::ConsistentHash(hash_table(table, spec.hash.as_ref(), &mut block.object("hash")))
        }
    };
    (algorithm, hash.map(Arc::new).filter(|_| named.is_hashing()))
}

fn hash_table(named: HashTable, spec: Option<&HashSpec>, block: &mut BlockReader<'_>) -> HashTable {
    match named {
        HashTable::Maglev { table_size } => {
            let size = spec.and_then(|hash| hash.maglev_size);
            HashTable::Maglev { table_size: maglev_size(size, block).unwrap_or(table_size) }
        }
        HashTable::RingHash { points } => {
            let size = spec.and_then(|hash| hash.ring_size);
            HashTable::RingHash { points: block.number("ringSize", size, RING_SIZES).or(points) }
        }
    }
}

const MAGLEV_SIZES: std::ops::RangeInclusive<u32> = 1009..=5_000_011;
const RING_SIZES: std::ops::RangeInclusive<u32> = 1024..=8_388_608;

/// The number of slots, which must be prime: only then does an endpoint's step visit all of them.
fn maglev_size(size: Option<i32>, block: &mut BlockReader<'_>) -> Option<u32> {
    let size = block.number("maglevSize", size, MAGLEV_SIZES)?;
    if !is_prime(size) {
        let primes = nearest_primes(size, &MAGLEV_SIZES);
        let primes: Vec<String> = primes.iter().map(u32::to_string).collect();
        block.problem(
            "maglevSize",
            format!("{size} is not a prime number"),
            format!("use a prime number, such as {}", primes.join(" or ")),
        );
    }
    Some(size)
}

/// Whether a number below 2³² is prime.
fn is_prime(number: u32) -> bool {
    let divisors =
        (3..).step_by(2).take_while(|divisor| u64::from(*divisor) * u64::from(*divisor) <= u64::from(number));
    number == 2
        || (number > 2
            && !number.is_multiple_of(2)
            && divisors.into_iter().all(|divisor: u32| !number.is_multiple_of(divisor)))
}

/// The next prime numbers below and above a number within these bounds, which are primes themselves.
fn nearest_primes(number: u32, bounds: &std::ops::RangeInclusive<u32>) -> Vec<u32> {
    let below = (*bounds.start()..number).rev().find(|number| is_prime(*number));
    let above = (number..=*bounds.end()).find(|number| is_prime(*number));
    below.into_iter().chain(above).collect()
}

fn slow_start(spec: &SlowStartSpec, block: &mut BlockReader<'_>) -> Option<SlowStart> {
    let window = block.duration("window", Some(&spec.window), ["1s", "1h"]);
    let min_weight_percent = block.percent("minWeightPercent", spec.min_weight_percent, 1).unwrap_or(10);
    let aggression = block.thousandths("aggression", spec.aggression.as_ref(), 10).unwrap_or(1000);
    Some(SlowStart { window: window?, min_weight_percent, aggression })
}

/// `ZoneAware` is not served; the verdict says so, and that Auto is in effect.
fn locality(spec: &LocalitySpec, block: &mut BlockReader<'_>) -> Locality {
    let mode = block.choice(
        "mode",
        spec.mode.as_ref(),
        [
            ("Auto", LocalityMode::Auto),
            ("Off", LocalityMode::Off),
            ("PreferSameZone", LocalityMode::PreferSameZone),
            ("PreferSameNode", LocalityMode::PreferSameNode),
            ("ZoneAware", LocalityMode::Auto),
        ],
    );
    let percent = block.number("overprovisioningPercent", spec.overprovisioning_percent, 100..=1000);
    if spec.failover.len() > MAX_FAILOVER_LEVELS {
        let message = format!("it has {} levels", spec.failover.len());
        block.problem("failover", message, format!("use at most {MAX_FAILOVER_LEVELS}"));
    }
    let levels = spec.failover.iter().enumerate();
    let levels = levels.filter_map(|(index, level)| {
        let translated = failover_level(level);
        if translated.is_none() {
            let message = "a level needs exactly one of matchLabels, zone and region";
            block.problem(&format!("failover[{index}]"), message, "keep one of them");
        }
        translated
    });
    Locality {
        failover: levels.collect(),
        mode: mode.unwrap_or_default(),
        overprovisioning_percent: percent.unwrap_or(Locality::default().overprovisioning_percent),
    }
}

/// The endpoints of a level. `None` unless it has exactly one of its fields. Those of labels are not known; the verdict
/// says so.
pub(in crate::compile::policies::backend_policy) fn failover_level(spec: &LocalityLevel) -> Option<FailoverLevel> {
    match (&spec.zone, &spec.region, &spec.match_labels) {
        (Some(zone), None, None) => Some(FailoverLevel::Zone(zone.as_str().into())),
        (None, Some(region), None) => Some(FailoverLevel::Region(region.as_str().into())),
        (None, None, Some(_)) => Some(FailoverLevel::Nothing),
        _ => None,
    }
}

const MAX_FAILOVER_LEVELS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::portico::BALANCING_ALGORITHMS;

    #[test]
    fn the_schema_allows_the_algorithms_that_exist() {
        assert_eq!(BalancingAlgorithm::ALL.map(BalancingAlgorithm::name), BALANCING_ALGORITHMS);
    }

    #[test]
    fn primes_and_their_neighbors_are_found() {
        for (number, expected) in [(1009, true), (65_537, true), (5_000_011, true), (65_536, false), (1_002_001, false)]
        {
            assert_eq!(is_prime(number), expected, "{number}");
        }
        assert_eq!((0..20).filter(|number| is_prime(*number)).collect::<Vec<_>>(), [2, 3, 5, 7, 11, 13, 17, 19]);
        assert_eq!(nearest_primes(65_536, &MAGLEV_SIZES), [65_521, 65_537]);
        assert_eq!(nearest_primes(1010, &MAGLEV_SIZES), [1009, 1013]);
        assert_eq!(nearest_primes(5_000_010, &MAGLEV_SIZES), [4_999_999, 5_000_011]);
    }
}
