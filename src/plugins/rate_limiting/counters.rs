//! The counters of one identifier, one for each period. Threads update them concurrently without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::window::{Period, Window};

/// The requests of one identifier in each period.
#[derive(Debug, Default)]
pub(super) struct LimitCounters {
    /// By [`Period`]; see [`WindowCount`].
    counts: [AtomicU64; 6],
    /// For counters that are synchronized with a Redis server.
    pub shared: Option<Box<ServerCounts>>,
}

#[derive(Debug)]
pub(super) struct ServerCounts {
    /// Prefix of the keys at the server.
    pub key_prefix: String,
    /// The counts at the server, in the format of `LimitCounters::counts`.
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
    pub limit: u64,
    pub window: Window,
}

impl LimitCounters {
    pub(super) fn for_server(name: String) -> Self {
        let shared = ServerCounts { key_prefix: name, counts: Default::default(), is_queued: AtomicBool::new(false) };
        LimitCounters { counts: Default::default(), shared: Some(Box::new(shared)) }
    }

    /// Counts a request in every period, or in none if one of the limits is reached. Returns whether the request was
    /// counted, and calls `used` with the previous count of each period. `None` if the counters are retired.
    pub(super) fn try_take(&self, limits: &[WindowLimit], mut used: impl FnMut(u64)) -> Option<bool> {
        for (at, limit) in limits.iter().enumerate() {
            if let Err(bits) = self.try_increment(limit) {
                for limit in &limits[..at] {
                    self.decrement(limit);
                }
                if bits == RETIRED {
                    return None;
                }
                for limit in limits {
                    used(self.used(limit));
                }
                return Some(false);
            }
        }
        for limit in limits {
            // With concurrent requests, the remaining number may be reported too low, but never too high.
            used(self.used(limit).saturating_sub(1).min(limit.limit - 1));
        }
        Some(true)
    }

    /// Fails with the current value if the limit is reached.
    fn try_increment(&self, limit: &WindowLimit) -> Result<u64, u64> {
        let cell = &self.counts[limit.period as usize];
        cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let now = WindowCount::from_bits(bits).in_window(&limit.window);
            (bits != RETIRED && now.count < limit.limit).then(|| WindowCount { count: now.count + 1, ..now }.to_bits())
        })
    }

    fn decrement(&self, limit: &WindowLimit) {
        let cell = &self.counts[limit.period as usize];
        let _ended = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let count = WindowCount::from_bits(bits);
            // In a new window, the count to revert no longer exists.
            let same = bits != RETIRED && count.in_window(&limit.window) == count && count.count > 0;
            same.then(|| WindowCount { count: count.count - 1, ..count }.to_bits())
        });
    }

    fn used(&self, limit: &WindowLimit) -> u64 {
        WindowCount::from_bits(self.counts[limit.period as usize].load(Ordering::Relaxed))
            .in_window(&limit.window)
            .count
    }

    /// Retires the counters if all windows with counts have ended. A thread that still holds them looks the identifier
    /// up again, so that no count is lost.
    pub(super) fn retire(&self, second: u64) -> bool {
        let seen: [u64; 6] = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        let is_over = Period::ALL.iter().zip(seen).all(|(period, bits)| {
            let count = WindowCount::from_bits(bits);
            count.count == 0 || count.in_window(&period.window(second)) != count
        });
        if !is_over {
            return false;
        }
        for (at, count) in self.counts.iter().enumerate() {
            if count.compare_exchange(seen[at], RETIRED, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                // A request was counted concurrently. The windows of the other counters have ended, so they restart at
                // 0.
                for count in &self.counts[..at] {
                    count.store(0, Ordering::Relaxed);
                }
                return false;
            }
        }
        true
    }

    /// Copies the counts of other counters.
    pub(super) fn copy_from(&self, other: &LimitCounters) {
        for (count, other) in self.counts.iter().zip(&other.counts) {
            count.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The requests in this window that were not yet sent to the server.
    pub(super) fn unsent(&self, limit: &WindowLimit) -> u64 {
        let Some(shared) = &self.shared else { return 0 };
        let known = WindowCount::from_bits(shared.counts[limit.period as usize].load(Ordering::Relaxed));
        self.used(limit).saturating_sub(known.in_window(&limit.window).count)
    }

    /// Merges the total of the server, which includes the `sent` local requests.
    pub(super) fn merge_total(&self, limit: &WindowLimit, sent: u64, total: u64) {
        let Some(shared) = &self.shared else { return };
        let known = &shared.counts[limit.period as usize];
        let before = WindowCount::from_bits(known.load(Ordering::Relaxed)).in_window(&limit.window);
        let local = before.count + sent;
        // After a loss of data, the total of the server is too low, and the local count is used.
        let total = total.max(local).min(LIMIT_BOUND - 1);
        let of_others = total - local;
        let count = &self.counts[limit.period as usize];
        let learned = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let now = WindowCount::from_bits(bits).in_window(&limit.window);
            (bits != RETIRED && now.window == before.window)
                .then(|| WindowCount { count: (now.count + of_others).min(LIMIT_BOUND - 1), ..now }.to_bits())
        });
        if learned.is_ok() {
            known.store(WindowCount { count: total, ..before }.to_bits(), Ordering::Relaxed);
        }
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

    /// The count as seen from this window. Another thread may already have started the next window; then the count of
    /// that one is used. A count of any other window is obsolete, even if the clock was set back.
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
            limit: *limit,
            window: period.window(second),
        };
        limits.iter().map(limit).collect()
    }

    fn take(cell: &LimitCounters, limits: &[WindowLimit]) -> (bool, Vec<u64>) {
        let mut used = Vec::new();
        (cell.try_take(limits, |count| used.push(count)).unwrap(), used)
    }

    #[test]
    fn counts_stop_at_the_limit_and_restart_per_window() {
        let cell = LimitCounters::default();
        let at = |second| limits(&[(Period::Second, 2), (Period::Minute, 3)], second);
        assert_eq!(take(&cell, &at(600)), (true, vec![0, 0]));
        assert_eq!(take(&cell, &at(600)), (true, vec![1, 1]));
        assert_eq!(take(&cell, &at(600)), (false, vec![2, 2]), "the limit per second is reached");
        assert_eq!(take(&cell, &at(601)), (true, vec![0, 2]));
        assert_eq!(
            take(&cell, &at(601)),
            (false, vec![1, 3]),
            "the limit per minute is reached; the second is reverted"
        );
        assert_eq!(take(&cell, &at(660)), (true, vec![0, 0]));
    }

    #[test]
    fn late_clocks_do_not_restart_the_previous_window() {
        let cell = LimitCounters::default();
        let at = |second| limits(&[(Period::Second, 2)], second);
        assert!(take(&cell, &at(601)).0 && take(&cell, &at(601)).0);
        assert_eq!(take(&cell, &at(600)), (false, vec![2]));
        assert_eq!(take(&cell, &at(601)), (false, vec![2]));
        assert_eq!(take(&cell, &at(590)), (true, vec![0]), "a clock that was set back does not block");
    }

    #[test]
    fn counters_retire_when_all_windows_have_ended() {
        let cell = LimitCounters::default();
        let both = limits(&[(Period::Second, 9), (Period::Minute, 9)], 600);
        assert!(take(&cell, &both).0);
        assert!(!cell.retire(600) && !cell.retire(659));
        assert_eq!(take(&cell, &limits(&[(Period::Minute, 9)], 659)), (true, vec![1]));
        assert!(cell.retire(660));
        assert_eq!(cell.try_take(&limits(&[(Period::Hour, 9)], 660), |_| {}), None);
        assert!(LimitCounters::default().retire(0), "unused counters can retire");
    }

    #[test]
    fn server_totals_are_merged_and_nothing_is_sent_twice() {
        let cell = LimitCounters::for_server("a".to_owned());
        let minute = limits(&[(Period::Minute, 100)], 600);
        for _ in 0..3 {
            assert!(take(&cell, &minute).0);
        }
        assert_eq!(cell.unsent(&minute[0]), 3);
        assert!(take(&cell, &minute).0, "another request during the synchronization");
        cell.merge_total(&minute[0], 3, 10);
        assert_eq!((cell.used(&minute[0]), cell.unsent(&minute[0])), (11, 1));
        cell.merge_total(&minute[0], 1, 1);
        assert_eq!((cell.used(&minute[0]), cell.unsent(&minute[0])), (11, 0), "a lower total is ignored");
        let next = limits(&[(Period::Minute, 100)], 660);
        cell.merge_total(&next[0], 0, 5);
        assert_eq!((cell.used(&next[0]), cell.unsent(&next[0])), (5, 0));
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let cell = LimitCounters::default();
        let both = limits(&[(Period::Minute, 1000), (Period::Hour, 700)], 600);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..500).filter(|_| take(&cell, &both).0).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 700);
        assert_eq!(cell.used(&both[0]), 700, "rejected requests are not counted");
    }
}
