//! Counts events of the last interval, in ten buckets. Atomics only.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The number of events in the last interval.
#[derive(Debug)]
pub(in crate::upstream) struct SlidingCount {
    bucket_millis: u64,
    /// The number of the bucket in the high half, its events in the low half. A bucket is reused when its turn comes
    /// again, so nothing has to run when time passes.
    buckets: [AtomicU64; BUCKETS as usize],
}

impl SlidingCount {
    pub(in crate::upstream) fn new(interval: Duration) -> Self {
        let bucket_millis = millis(interval).div_ceil(BUCKETS).max(1);
        SlidingCount { bucket_millis, buckets: [const { AtomicU64::new(0) }; BUCKETS as usize] }
    }

    /// Counts an event at this time, in milliseconds of a clock that never goes back.
    pub(in crate::upstream) fn add(&self, now: u64) {
        let number = self.number(now);
        let next = |seen: u64| match bucket_number(seen) == number {
            true if events(seen) == u64::from(u32::MAX) => None,
            true => Some(seen + 1),
            false => Some(u64::from(number) << 32 | 1),
        };
        // An error means that the counter is full.
        self.buckets[(u64::from(number) % BUCKETS) as usize].fetch_update(Relaxed, Relaxed, next).ok();
    }

    /// The events of the nine to ten tenths of the interval before this time.
    pub(in crate::upstream) fn sum(&self, now: u64) -> u64 {
        let number = self.number(now);
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        buckets.filter(|seen| u64::from(number.wrapping_sub(bucket_number(*seen))) < BUCKETS).map(events).sum()
    }

    /// Forgets all events.
    pub(in crate::upstream) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// The low half of the number is enough: buckets are compared with those of the last interval.
    fn number(&self, now: u64) -> u32 {
        (now / self.bucket_millis) as u32
    }
}

fn bucket_number(bucket: u64) -> u32 {
    (bucket >> 32) as u32
}

fn events(bucket: u64) -> u64 {
    bucket & u64::from(u32::MAX)
}

/// A duration for the clock of an upstream.
pub(in crate::upstream) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

const BUCKETS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_count_for_nine_to_ten_tenths_of_the_interval() {
        let count = SlidingCount::new(Duration::from_secs(10));
        for _ in 0..5 {
            count.add(1500);
        }
        count.add(2500);
        for (now, expected) in [(2500, 6), (10_999, 6), (11_000, 1), (11_999, 1), (12_000, 0), (1_000_000, 0)] {
            assert_eq!(count.sum(now), expected, "{now}");
        }
        count.clear();
        assert_eq!(count.sum(2500), 0);
    }

    #[test]
    fn shortest_and_longest_intervals_work() {
        for interval in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
            let count = SlidingCount::new(interval);
            count.add(7);
            assert_eq!(count.sum(7), 1, "{interval:?}");
        }
    }

    #[test]
    fn threads_count_every_event() {
        let count = SlidingCount::new(Duration::from_secs(10));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| count.add(42)));
            }
        });
        assert_eq!(count.sum(42), 4000);
    }
}
