//! A histogram of durations that threads update concurrently.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of durations by bucket, with bounds in milliseconds.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [u16],
    /// The count of each bucket: one for each bound, and one for durations that exceed all bounds.
    counts: Box<[AtomicU64]>,
    /// In microseconds.
    sum: AtomicU64,
}

/// The values of a histogram at the time of a scrape.
#[derive(Debug, PartialEq)]
pub(super) struct HistogramSnapshot {
    /// Cumulative count for each bound.
    pub buckets: Vec<(u16, u64)>,
    pub count: u64,
    /// In milliseconds.
    pub sum: f64,
}

impl Histogram {
    /// `bounds` must be in ascending order.
    pub(super) fn new(bounds: &'static [u16]) -> Self {
        Histogram { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub(super) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| u64::from(*bound) * 1000 < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> HistogramSnapshot {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (index, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            buckets.extend(self.bounds.get(index).map(|bound| (*bound, count)));
        }
        HistogramSnapshot { buckets, count, sum: self.sum.load(Ordering::Relaxed) as f64 / 1000.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::new(&[1, 5, 10]);
        for micros in [0, 1000, 1001, 5000, 10_001, 99_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        let sum = 99_017.002;
        assert_eq!(histogram.snapshot(), HistogramSnapshot { buckets: vec![(1, 2), (5, 4), (10, 4)], count: 6, sum });
    }
}
