//! The latency of an endpoint: a moving average that follows peaks at once and falls slowly (peak EWMA).
//!
//! As in Linkerd (`linkerd/proxy/balance`), except that failures count as slow responses by default: an endpoint that
//! fails fast must not attract requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

use crate::upstream::outcome::{Outcome, OutcomeClass};

/// The estimate: the microseconds as `f32` in the upper half, and the time of the last sample in the lower half, in
/// milliseconds of the upstream's clock. 0: no sample.
#[derive(Debug, Default)]
pub(in crate::upstream) struct EndpointLatency(AtomicU64);

/// What an attempt adds to the estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::upstream) struct LatencySample {
    micros: f32,
}

impl EndpointLatency {
    /// The estimate at this time, in microseconds. `None` without a sample. `decay`: the time in which the influence of
    /// a sample falls to 1/e.
    pub(in crate::upstream) fn estimate(&self, now: u64, decay: Duration) -> Option<f32> {
        let (micros, at) = unpack(self.0.load(Relaxed))?;
        Some((micros * remaining(at, now, decay)).max(MIN_MICROS))
    }

    pub(in crate::upstream) fn record(&self, sample: LatencySample, now: u64, decay: Duration) {
        let next = |packed: u64| {
            let micros = match unpack(packed) {
                Some((estimate, at)) if sample.micros <= estimate => {
                    let weight = remaining(at, now, decay);
                    estimate * weight + sample.micros * (1.0 - weight)
                }
                _ => sample.micros,
            };
            Some(pack(micros, now))
        };
        // Never fails, as `next` always has a value.
        self.0.fetch_update(Relaxed, Relaxed, next).ok();
    }

    /// The estimate of an endpoint without samples of its own.
    pub(in crate::upstream) fn assume(&self, micros: f32, now: u64) {
        self.0.store(pack(micros, now), Relaxed);
    }
}

impl LatencySample {
    /// What this outcome says about latency. `None` if it says nothing.
    pub(in crate::upstream) fn of(outcome: &Outcome, failure_penalty: Duration) -> Option<Self> {
        let latency = match outcome.class {
            OutcomeClass::Responded if outcome.status.is_some_and(is_failure) => {
                let penalty =
                    outcome.retry_after.map_or(failure_penalty, |time| time.min(MAX_RETRY_AFTER).max(failure_penalty));
                Some(outcome.waited.at_least().max(penalty))
            }
            OutcomeClass::Responded => outcome.waited.exactly(),
            OutcomeClass::ConnectFailed | OutcomeClass::NoResponse | OutcomeClass::TimedOut | OutcomeClass::Failed => {
                Some(outcome.waited.at_least().max(failure_penalty))
            }
            OutcomeClass::Connected
            | OutcomeClass::Completed
            | OutcomeClass::Stale
            | OutcomeClass::Truncated
            | OutcomeClass::Inconclusive
            | OutcomeClass::Abandoned
            | OutcomeClass::NotProcessed => None,
        };
        latency.map(|latency| LatencySample { micros: latency.as_secs_f32() * 1e6 })
    }
}

/// Statuses of endpoints that fail or are overloaded. gRPC statuses are mapped to them before.
fn is_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The influence that a sample still has.
fn remaining(at: u32, now: u64, decay: Duration) -> f32 {
    let elapsed = (now as u32).wrapping_sub(at);
    // The sample of another worker may be later.
    let elapsed = if elapsed > u32::MAX / 2 { 0 } else { elapsed };
    (-(elapsed as f32) / (decay.as_secs_f32() * 1e3).max(1.0)).exp()
}

fn pack(micros: f32, now: u64) -> u64 {
    u64::from(micros.max(1.0).to_bits()) << 32 | u64::from(now as u32)
}

fn unpack(packed: u64) -> Option<(f32, u32)> {
    (packed != 0).then(|| (f32::from_bits((packed >> 32) as u32), packed as u32))
}

/// The lowest estimate, so that endpoints without requests do not become infinitely attractive.
const MIN_MICROS: f32 = 1_000.0;
/// The longest time for which an endpoint can ask.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::outcome::EndpointTime;

    const DECAY: Duration = Duration::from_secs(10);

    fn responded(millis: u64, status: u16) -> Outcome {
        Outcome {
            status: Some(StatusCode::from_u16(status).unwrap()),
            waited: EndpointTime::Exactly(Duration::from_millis(millis)),
            ..Outcome::of(OutcomeClass::Responded)
        }
    }

    fn sample(millis: u64) -> LatencySample {
        LatencySample { micros: millis as f32 * 1e3 }
    }

    #[test]
    fn estimate_follows_peaks_and_decays() {
        let latency = EndpointLatency::default();
        assert_eq!(latency.estimate(1, DECAY), None);
        let check = |now, expected: f32| {
            let millis = latency.estimate(now, DECAY).unwrap() / 1e3;
            assert!((millis - expected).abs() < expected / 100.0, "{now}: {millis} instead of {expected}");
        };
        latency.record(sample(10), 1, DECAY);
        check(1, 10.0);
        latency.record(sample(100), 1_001, DECAY);
        check(1_001, 100.0);
        latency.record(sample(20), 11_001, DECAY);
        check(11_001, 100.0 * 0.3679 + 20.0 * 0.6321);
        check(21_001, 49.43 * 0.3679);
        check(500_000, 1.0);
        latency.record(sample(5), 11_000, DECAY);
        check(11_000, 49.43);
    }

    #[test]
    fn clock_may_wrap() {
        let latency = EndpointLatency::default();
        let now = u64::from(u32::MAX) + 1;
        latency.record(sample(100), now - 1_000, DECAY);
        let millis = latency.estimate(now, DECAY).unwrap() / 1e3;
        assert!((90.0..91.0).contains(&millis), "{millis}");
    }

    #[test]
    fn failures_are_slow() {
        let penalty = Duration::from_secs(1);
        let of = |outcome: &Outcome| LatencySample::of(outcome, penalty);
        let retry_after = |seconds| Outcome { retry_after: Some(Duration::from_secs(seconds)), ..responded(3, 503) };
        for (outcome, millis) in [
            (responded(3, 200), Some(3)),
            (responded(3, 404), Some(3)),
            (responded(3, 501), Some(3)),
            (responded(3, 500), Some(1_000)),
            (responded(3, 429), Some(1_000)),
            (responded(4_000, 503), Some(4_000)),
            (retry_after(0), Some(1_000)),
            (retry_after(20), Some(20_000)),
            (retry_after(3_600), Some(30_000)),
            (Outcome::of(OutcomeClass::ConnectFailed), Some(1_000)),
            (Outcome::of(OutcomeClass::NoResponse), Some(1_000)),
            (Outcome::of(OutcomeClass::TimedOut), Some(1_000)),
            (Outcome::of(OutcomeClass::Abandoned), None),
            (Outcome::of(OutcomeClass::NotProcessed), None),
            (Outcome::of(OutcomeClass::Connected), None),
        ] {
            assert_eq!(of(&outcome), millis.map(sample), "{outcome:?}");
        }
        let unhelpful = Outcome { retry_after: Some(Duration::from_secs(9)), ..responded(3, 200) };
        assert_eq!(of(&unhelpful), Some(sample(3)), "only failures ask for time");
    }
}
