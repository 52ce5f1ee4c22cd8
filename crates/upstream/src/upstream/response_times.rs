//! How long the responses of a Service take to begin, as a histogram: an estimate of their 95th percentile.
//!
//! Buckets grow by a quarter of a power of two, so the estimate is at most a quarter above the true value. Once so many
//! times are counted, all counts are halved, so that the estimate follows the Service.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::outcome::{Outcome, OutcomeClass};

/// The times from the start of attempts to the heads of their responses, of all workers.
#[derive(Debug)]
pub struct ResponseTimes {
    buckets: [AtomicU32; BUCKETS],
    /// The sum of the buckets.
    count: AtomicU32,
}

impl Default for ResponseTimes {
    fn default() -> Self {
        ResponseTimes { buckets: [const { AtomicU32::new(0) }; BUCKETS], count: AtomicU32::new(0) }
    }
}

impl ResponseTimes {
    /// Counts the time to the head of a response. All others have none.
    pub(super) fn observe(&self, outcome: &Outcome) {
        match outcome.class {
            OutcomeClass::Responded => {
                if let Some(time) = outcome.waited.exactly() {
                    self.record(time);
                }
            }
            OutcomeClass::Connected
            | OutcomeClass::Completed
            | OutcomeClass::ConnectFailed
            | OutcomeClass::Inconclusive
            | OutcomeClass::Abandoned
            | OutcomeClass::NotProcessed
            | OutcomeClass::Stale
            | OutcomeClass::NoResponse
            | OutcomeClass::TimedOut
            | OutcomeClass::Failed
            | OutcomeClass::Truncated => {}
        }
    }

    pub fn record(&self, time: Duration) {
        self.buckets[bucket(time)].fetch_add(1, Relaxed);
        // One of the threads that count reaches the limit exactly.
        if self.count.fetch_add(1, Relaxed) + 1 == HALVED_AT {
            let kept = self.buckets.iter().map(|bucket| {
                let halved = bucket.load(Relaxed) / 2;
                bucket.store(halved, Relaxed);
                halved
            });
            self.count.store(kept.sum(), Relaxed);
        }
    }

    /// The time within which 95 % of the responses begin. `None` while too few are known.
    pub fn percentile_95(&self) -> Option<Duration> {
        let count: u32 = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum();
        if count < MIN_COUNT {
            return None;
        }
        let wanted = u64::from(count) * 95;
        let mut sum = 0;
        let index = self.buckets.iter().position(|bucket| {
            sum += u64::from(bucket.load(Relaxed)) * 100;
            sum >= wanted
        });
        index.map(upper_bound)
    }
}

/// The bucket of a time: its two most significant bits after the first one, and the position of the first one.
fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(SMALLEST_MICROS, LARGEST_MICROS);
    let exponent = micros.ilog2();
    let quarter = (micros >> (exponent - 2)) & 3;
    ((exponent - SMALLEST_MICROS.ilog2()) * 4) as usize + quarter as usize
}

/// The time at which the next bucket begins.
fn upper_bound(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket as u32 / 4, bucket as u64 % 4);
    Duration::from_micros((5 + quarter) << (octave + SMALLEST_MICROS.ilog2() - 2))
}

/// Shorter times count as this one.
const SMALLEST_MICROS: u64 = 1 << 6;
/// Longer times, of more than a minute, count as this one.
const LARGEST_MICROS: u64 = (1 << 26) - 1;
const BUCKETS: usize = 20 * 4;
/// Fewer times are too few for a percentile.
const MIN_COUNT: u32 = 20;
const HALVED_AT: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn percentile_is_at_most_a_quarter_too_long() {
        for scale in [1, 7, 100, 3000] {
            let times = ResponseTimes::default();
            for percent in 1..=100 {
                times.record(scale * MILLISECOND * percent / 100);
            }
            let (estimate, exact) = (times.percentile_95().unwrap(), scale * MILLISECOND * 95 / 100);
            assert!(exact <= estimate && estimate <= exact * 5 / 4 + MILLISECOND / 10, "{estimate:?} for {exact:?}");
        }
    }

    #[test]
    fn few_times_have_no_percentile() {
        let times = ResponseTimes::default();
        (1..MIN_COUNT).for_each(|_| times.record(MILLISECOND));
        assert_eq!(times.percentile_95(), None);
        times.record(MILLISECOND);
        assert!(times.percentile_95().is_some());
    }

    #[test]
    fn estimate_follows_the_service() {
        let times = ResponseTimes::default();
        (0..10_000).for_each(|_| times.record(MILLISECOND));
        assert!(times.percentile_95().unwrap() < 2 * MILLISECOND);
        (0..HALVED_AT).for_each(|_| times.record(100 * MILLISECOND));
        assert!(times.percentile_95().unwrap() > 99 * MILLISECOND);
    }

    #[test]
    fn shortest_and_longest_times_have_buckets() {
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(60), Duration::MAX] {
            assert!(bucket(time) < BUCKETS, "{time:?}");
        }
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
    }
}
