//! The load balancing of Kong's kinds.

use std::sync::Arc;
use std::time::Duration;

use super::fields::{HASHING, Notation, UpstreamFields};
use super::findings::Findings;
use super::hash_input::HashInput;
use crate::upstream::settings::{
    Balancing, BalancingAlgorithm, CombineKeys, HashKey, HashTable, LatencyAverage, RequestHash, WhenUnhealthy,
};

/// The load balancing; `None` if the fields say nothing about it. `checks_health`: whether Kong would take endpoints
/// out of service.
pub(super) fn translate(
    fields: &UpstreamFields<'_>,
    checks_health: bool,
    findings: &mut Findings,
) -> Option<Balancing> {
    let threshold = threshold(fields, findings);
    let hash_keys = hash_keys(fields, findings);
    let algorithm = algorithm(fields, &hash_keys, findings);
    let fails_if_unhealthy = checks_health || threshold > 0;
    if algorithm.is_none() && !fails_if_unhealthy {
        return None;
    }
    let algorithm = algorithm.unwrap_or_default();
    let hash = algorithm.is_hashing().then(|| {
        Arc::new(RequestHash {
            keys: hash_keys.into(),
            combine: CombineKeys::First,
            bounded_load_percent: None,
            subset_size: None,
        })
    });
    Some(Balancing {
        algorithm,
        hash,
        panic_threshold_percent: threshold,
        must_exceed_threshold: threshold > 0,
        // Kong has no peer for a request if its checks have found no healthy one.
        when_unhealthy: if fails_if_unhealthy { WhenUnhealthy::Fail } else { WhenUnhealthy::default() },
        ..Balancing::default()
    })
}

/// The algorithm; `None` if there is none, or an unknown one.
fn algorithm(fields: &UpstreamFields<'_>, keys: &[HashKey], findings: &mut Findings) -> Option<BalancingAlgorithm> {
    let field = fields.notation.field("algorithm");
    let found = match fields.algorithm {
        None => None,
        Some(HASHING) => Some(hashing(fields)),
        Some("round-robin") => Some(BalancingAlgorithm::RoundRobin),
        Some("least-connections") => Some(BalancingAlgorithm::LeastRequests),
        Some("latency") => Some(BalancingAlgorithm::PeakEwma(LATENCY_AVERAGE)),
        // New sessions go to the endpoints in turn.
        Some("sticky-sessions") => Some(BalancingAlgorithm::RoundRobin),
        Some(other) => {
            let message = format!("{other:?} is not a load-balancing algorithm, so round-robin is used");
            let remedy = "write round-robin, least-connections, consistent-hashing, latency or sticky-sessions";
            findings.problem(&field, message, remedy);
            None
        }
    };
    let is_hashing = found.is_some_and(BalancingAlgorithm::is_hashing);
    for (is_set, name) in [(fields.slots.is_some(), "slots"), (!keys.is_empty(), "hashOn")] {
        if is_set && !is_hashing {
            let message = "it configures hashing, which is not enabled, so it has no effect";
            findings.note(fields.notation.field(name), message, "remove it");
        }
    }
    if is_hashing && keys.is_empty() {
        let message = "nothing of the request is hashed, so round-robin is used";
        findings.note(&field, message, format!("set {}", fields.notation.field("hashOn")));
        return Some(BalancingAlgorithm::RoundRobin);
    }
    found
}

fn hashing(fields: &UpstreamFields<'_>) -> BalancingAlgorithm {
    let points = fields.slots.and_then(|slots| u32::try_from(slots).ok());
    BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points })
}

/// What is hashed: the input, and its fallback for requests without it.
fn hash_keys(fields: &UpstreamFields<'_>, findings: &mut Findings) -> Vec<HashKey> {
    let Some(first) = fields.hash_on.and_then(HashInput::key) else {
        if fields.hash_fallback.is_some_and(|fallback| fallback != HashInput::Nothing) {
            let (field, input) = match fields.notation {
                Notation::KongUpstreamPolicy => ("spec.hashOnFallback", "spec.hashOn"),
                Notation::KongIngress => ("upstream.hash_fallback", "upstream.hash_on"),
            };
            let message = format!("{input} has no input, so the fallback has no effect");
            findings.note(field, message, format!("set {input}, or remove it"));
        }
        return Vec::new();
    };
    // A request without the first input lacks an equal one, too.
    let fallback = fields.hash_fallback.filter(|fallback| Some(*fallback) != fields.hash_on);
    [Some(first), fallback.and_then(HashInput::key)].into_iter().flatten().collect()
}

/// The percentage of endpoints of which more must be healthy.
fn threshold(fields: &UpstreamFields<'_>, findings: &mut Findings) -> u8 {
    let Some(threshold) = fields.threshold else { return 0 };
    if !(0.0..=100.0).contains(&threshold) {
        let message = format!("{threshold} is not a percentage, so it has no effect");
        findings.problem(fields.notation.field("healthchecks.threshold"), message, "write a number from 0 to 100");
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    let whole = threshold as u8;
    if f64::from(whole) < threshold {
        let message = format!("fractions of a percent have no effect: {whole} is used");
        findings.note(fields.notation.field("healthchecks.threshold"), message, "write a whole number");
    }
    whole
}

/// Kong's balancer by latency forgets a sample in the time of `decay`.
const LATENCY_AVERAGE: LatencyAverage =
    LatencyAverage { decay: Duration::from_secs(10), failure_penalty: Duration::from_secs(1) };
