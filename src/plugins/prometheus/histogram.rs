//! A histogram of times that all cores add to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Times in milliseconds, by the least bound that they do not exceed.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [u16],
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    /// In microseconds.
    sum: AtomicU64,
}

/// What a scrape says.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    /// How many did not exceed each bound.
    pub buckets: Vec<(u16, u64)>,
    pub count: u64,
    /// In milliseconds.
    pub sum: f64,
}

impl Histogram {
    /// `bounds` ascend.
    pub(super) fn new(bounds: &'static [u16]) -> Self {
        Histogram { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub(super) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = self.bounds.partition_point(|bound| u64::from(*bound) * 1000 < micros);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (at, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            buckets.extend(self.bounds.get(at).map(|bound| (*bound, count)));
        }
        Snapshot { buckets, count, sum: self.sum.load(Ordering::Relaxed) as f64 / 1000.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_every_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::new(&[1, 5, 10]);
        for micros in [0, 1000, 1001, 5000, 10_001, 99_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        let sum = 99_017.002;
        assert_eq!(histogram.snapshot(), Snapshot { buckets: vec![(1, 2), (5, 4), (10, 4)], count: 6, sum });
    }
}
