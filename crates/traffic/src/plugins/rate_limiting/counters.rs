//! The counters of one identifier, one for each period. Threads update them concurrently without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use super::redis_counters::counter_increment;
use crate::plugin_kit::counting::{Period, SyncedCounters, TableCounters, Window, unix_second};
use crate::plugin_kit::redis::CounterIncrement;

/// The requests of one identifier in each period.
#[derive(Debug, Default)]
pub(super) struct LimitCounters {
    /// By [`Period`]; see [`WindowCount`].
    counts: [AtomicU64; 6],
    /// `None` for counters that are not synchronized with a Redis server.
    pub server_counts: Option<Box<ServerCounts>>,
}

/// What a replica knows about the counters at the server.
#[derive(Debug)]
pub(super) struct ServerCounts {
    /// Prefix of the keys at the server.
    pub key_prefix: String,
    /// The counts at the server after the last synchronization, in the format of `LimitCounters::counts`.
    counts: [AtomicU64; 6],
    /// Whether the counters are queued for synchronization.
    pub is_queued: AtomicBool,
}

/// A counter in 64 bits: 24 bits for the window number modulo 2^24, and 40 bits for the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WindowCount {
    window: u64,
    count: u64,
}

/// One more than the largest limit.
pub(super) const LIMIT_BOUND: u64 = COUNT_MASK;
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const WINDOW_MASK: u64 = (1 << 24) - 1;
/// Marks counters that are no longer in the table. No count is that large.
const RETIRED: u64 = u64::MAX;

/// A limit and its current window.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowLimit {
    pub period: Period,
    pub max_count: u64,
    pub window: Window,
}

impl LimitCounters {
    pub(super) fn for_server(key_prefix: String) -> Self {
        let server = ServerCounts { key_prefix, counts: Default::default(), is_queued: AtomicBool::new(false) };
        LimitCounters { counts: Default::default(), server_counts: Some(Box::new(server)) }
    }

    /// Counts a request in every period, or in none if one of the limits is reached. Returns whether the request was
    /// counted, and passes the previous count of each period to `report_used`. `None` if the counters are retired.
    pub(super) fn try_count(&self, limits: &[WindowLimit], mut report_used: impl FnMut(u64)) -> Option<bool> {
        for (index, limit) in limits.iter().enumerate() {
            if let Err(bits) = self.try_increment(limit) {
                for limit in &limits[..index] {
                    self.decrement(limit);
                }
                if bits == RETIRED {
                    return None;
                }
                for limit in limits {
                    report_used(self.used(limit));
                }
                return Some(false);
            }
        }
        for limit in limits {
            // With concurrent requests, the remaining number may be reported too low, but never too high.
            report_used(self.used(limit).saturating_sub(1).min(limit.max_count - 1));
        }
        Some(true)
    }

    /// Adds a request. Fails with the current bits if the limit is reached or the counters are retired.
    fn try_increment(&self, limit: &WindowLimit) -> Result<u64, u64> {
        let counter = &self.counts[limit.period as usize];
        counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let current = WindowCount::from_bits(bits).in_window(&limit.window);
            (bits != RETIRED && current.count < limit.max_count)
                .then(|| WindowCount { count: current.count + 1, ..current }.to_bits())
        })
    }

    fn decrement(&self, limit: &WindowLimit) {
        let counter = &self.counts[limit.period as usize];
        let decremented = |bits| {
            let current = WindowCount::from_bits(bits);
            // In a new window, the request to subtract is no longer counted.
            let is_counted = bits != RETIRED && current.in_window(&limit.window) == current && current.count > 0;
            is_counted.then(|| WindowCount { count: current.count - 1, ..current }.to_bits())
        };
        counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decremented).ok();
    }

    /// The requests counted in this window.
    fn used(&self, limit: &WindowLimit) -> u64 {
        WindowCount::from_bits(self.counts[limit.period as usize].load(Ordering::Relaxed))
            .in_window(&limit.window)
            .count
    }

    /// The number of requests in this window that were not yet sent to the server.
    fn unsent_in(&self, limit: &WindowLimit) -> u64 {
        let Some(server) = &self.server_counts else { return 0 };
        let at_server = WindowCount::from_bits(server.counts[limit.period as usize].load(Ordering::Relaxed));
        self.used(limit).saturating_sub(at_server.in_window(&limit.window).count)
    }

    /// Merges the total of the server. It includes the requests that this replica has just `sent`, and those of other
    /// replicas.
    fn merge_total(&self, limit: &WindowLimit, sent: u64, total: u64) {
        let Some(server) = &self.server_counts else { return };
        let server_counter = &server.counts[limit.period as usize];
        let before = WindowCount::from_bits(server_counter.load(Ordering::Relaxed)).in_window(&limit.window);
        let expected = before.count + sent;
        // If the server has lost data, its total is too low, and the expected one is used.
        let total = total.max(expected).min(LIMIT_BOUND - 1);
        let from_others = total - expected;
        let counter = &self.counts[limit.period as usize];
        let merged = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let current = WindowCount::from_bits(bits).in_window(&limit.window);
            (bits != RETIRED && current.window == before.window)
                .then(|| WindowCount { count: (current.count + from_others).min(LIMIT_BOUND - 1), ..current }.to_bits())
        });
        if merged.is_ok() {
            server_counter.store(WindowCount { count: total, ..before }.to_bits(), Ordering::Relaxed);
        }
    }
}

impl TableCounters for LimitCounters {
    fn retire(&self, second: u64) -> bool {
        let seen: [u64; 6] = std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed));
        let have_ended = Period::ALL.iter().zip(seen).all(|(period, bits)| {
            let last = WindowCount::from_bits(bits);
            last.count == 0 || last.in_window(&period.window(second)) != last
        });
        if !have_ended {
            return false;
        }
        for (index, counter) in self.counts.iter().enumerate() {
            if counter.compare_exchange(seen[index], RETIRED, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                // A request was counted concurrently. The counters before this one are already marked as retired. Their
                // windows have ended, so they restart at 0.
                for marked in &self.counts[..index] {
                    marked.store(0, Ordering::Relaxed);
                }
                return false;
            }
        }
        true
    }

    fn copy_from(&self, other: &Self) {
        for (counter, other) in self.counts.iter().zip(&other.counts) {
            counter.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl SyncedCounters for LimitCounters {
    type Sent = (WindowLimit, u64);

    fn is_queued(&self) -> Option<&AtomicBool> {
        self.server_counts.as_ref().map(|server| &server.is_queued)
    }

    fn unsent(&self, now: SystemTime) -> Vec<(Self::Sent, CounterIncrement)> {
        let (Some(server), second) = (&self.server_counts, unix_second(now)) else { return Vec::new() };
        let unsent = |period: Period| {
            let limit = WindowLimit { period, max_count: u64::MAX, window: period.window(second) };
            let unsent = self.unsent_in(&limit);
            (unsent > 0).then(|| ((limit, unsent), counter_increment(&server.key_prefix, &limit, unsent, second)))
        };
        Period::ALL.into_iter().filter_map(unsent).collect()
    }

    fn merge(&self, (limit, sent): Self::Sent, total: u64) {
        self.merge_total(&limit, sent, total);
    }
}

impl WindowCount {
    fn from_bits(bits: u64) -> Self {
        if bits == RETIRED {
            return WindowCount { window: 0, count: 0 };
        }
        WindowCount { window: bits >> COUNT_BITS, count: bits & COUNT_MASK }
    }

    fn to_bits(self) -> u64 {
        self.window << COUNT_BITS | self.count
    }

    /// The count of this window, or of the next one if another thread has already started it. A count of any other
    /// window is obsolete, even if the clock was set back: the result is then 0 in this window.
    fn in_window(self, window: &Window) -> Self {
        let number = window.number & WINDOW_MASK;
        let is_next = self.window == (number + 1) & WINDOW_MASK;
        if self.window == number || is_next { self } else { WindowCount { window: number, count: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(limits: &[(Period, u64)], second: u64) -> Vec<WindowLimit> {
        let limit = |(period, limit): &(Period, u64)| WindowLimit {
            period: *period,
            max_count: *limit,
            window: period.window(second),
        };
        limits.iter().map(limit).collect()
    }

    fn take(counters: &LimitCounters, limits: &[WindowLimit]) -> (bool, Vec<u64>) {
        let mut used = Vec::new();
        (counters.try_count(limits, |count| used.push(count)).unwrap(), used)
    }

    #[test]
    fn counts_stop_at_the_limit_and_restart_per_window() {
        let counters = LimitCounters::default();
        let limits_at = |second| limits(&[(Period::Second, 2), (Period::Minute, 3)], second);
        assert_eq!(take(&counters, &limits_at(600)), (true, vec![0, 0]));
        assert_eq!(take(&counters, &limits_at(600)), (true, vec![1, 1]));
        assert_eq!(take(&counters, &limits_at(600)), (false, vec![2, 2]), "the limit per second is reached");
        assert_eq!(take(&counters, &limits_at(601)), (true, vec![0, 2]));
        assert_eq!(
            take(&counters, &limits_at(601)),
            (false, vec![1, 3]),
            "the limit per minute is reached, and the count per second is reverted"
        );
        assert_eq!(take(&counters, &limits_at(660)), (true, vec![0, 0]));
    }

    #[test]
    fn late_clocks_count_in_the_newer_window() {
        let counters = LimitCounters::default();
        let limits_at = |second| limits(&[(Period::Second, 2)], second);
        assert!(take(&counters, &limits_at(601)).0 && take(&counters, &limits_at(601)).0);
        assert_eq!(take(&counters, &limits_at(600)), (false, vec![2]));
        assert_eq!(take(&counters, &limits_at(601)), (false, vec![2]));
        assert_eq!(take(&counters, &limits_at(590)), (true, vec![0]), "a clock that was set back does not block");
    }

    #[test]
    fn counters_retire_when_all_windows_have_ended() {
        let counters = LimitCounters::default();
        let both = limits(&[(Period::Second, 9), (Period::Minute, 9)], 600);
        assert!(take(&counters, &both).0);
        assert!(!counters.retire(600) && !counters.retire(659));
        assert_eq!(take(&counters, &limits(&[(Period::Minute, 9)], 659)), (true, vec![1]));
        assert!(counters.retire(660));
        assert_eq!(counters.try_count(&limits(&[(Period::Hour, 9)], 660), |_| {}), None);
        assert!(LimitCounters::default().retire(0), "unused counters can retire");
    }

    #[test]
    fn server_totals_are_merged_and_nothing_is_sent_twice() {
        let counters = LimitCounters::for_server("a".to_owned());
        let minute = limits(&[(Period::Minute, 100)], 600);
        for _ in 0..3 {
            assert!(take(&counters, &minute).0);
        }
        assert_eq!(counters.unsent_in(&minute[0]), 3);
        assert!(take(&counters, &minute).0, "another request during the synchronization");
        counters.merge_total(&minute[0], 3, 10);
        assert_eq!((counters.used(&minute[0]), counters.unsent_in(&minute[0])), (11, 1));
        counters.merge_total(&minute[0], 1, 1);
        assert_eq!((counters.used(&minute[0]), counters.unsent_in(&minute[0])), (11, 0), "a lower total is ignored");
        let next = limits(&[(Period::Minute, 100)], 660);
        counters.merge_total(&next[0], 0, 5);
        assert_eq!((counters.used(&next[0]), counters.unsent_in(&next[0])), (5, 0));
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let counters = LimitCounters::default();
        let both = limits(&[(Period::Minute, 1000), (Period::Hour, 700)], 600);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..500).filter(|_| take(&counters, &both).0).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 700);
        assert_eq!(counters.used(&both[0]), 700, "rejected requests are not counted");
    }
}
