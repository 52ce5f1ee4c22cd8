//! The counters of one identifier in memory, one for each limit of a plugin, behind a lock of their own.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::limit_rule::{ActiveLimit, LimitDecision, LimitKind, LimitRule, LimitUse};
use super::server_limits::server_key;
use super::sync::SyncedCounters;
use super::table::TableCounters;
use crate::plugin_api::redis::CounterIncrement;

/// The counters.
#[derive(Debug, Default)]
pub struct WindowCounters {
    state: Mutex<WindowState>,
    sync: Option<Box<WindowSync>>,
}

/// How counters are synchronized with a server.
#[derive(Debug)]
pub struct WindowSync {
    /// The common prefix of the keys at the server.
    pub group: String,
    /// The limits, in the order of the counters. None is a bucket.
    pub rules: Arc<[LimitRule]>,
    pub is_queued: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct WindowState {
    windows: SmallVec<[CountedWindow; 2]>,
    /// The first second since 1970 at which no count has an effect any more.
    expires: u64,
    is_retired: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct CountedWindow {
    number: u64,
    counts: LimitUse,
    /// The requests of this window that the server has counted, those of other replicas included.
    at_server: u64,
}

impl WindowCounters {
    /// Counters that are synchronized with a server.
    pub fn synced(sync: WindowSync) -> Self {
        WindowCounters { state: Mutex::default(), sync: Some(Box::new(sync)) }
    }

    /// Counts this amount if all limits admit it, or also if one does not and `counts_rejected` is true. The amount 0
    /// only reads the counts. `None` if the counters are retired.
    pub fn count(&self, limits: &[ActiveLimit], amount: u64, counts_rejected: bool) -> Option<LimitDecision> {
        let mut state = self.state.lock();
        if state.is_retired {
            return None;
        }
        state.windows.resize(limits.len(), CountedWindow::default());
        let mut decision = LimitDecision { is_admitted: true, uses: SmallVec::new() };
        for (window, limit) in state.windows.iter_mut().zip(limits) {
            window.advance_to(limit.number);
            decision.is_admitted &= limit.admits(window.counts, amount);
            decision.uses.push(window.counts);
        }
        if amount > 0 && (decision.is_admitted || counts_rejected) {
            for (window, limit) in state.windows.iter_mut().zip(limits) {
                // A rejected request takes no token of a bucket.
                if decision.is_admitted || !matches!(limit.kind, LimitKind::Bucket { .. }) {
                    window.counts = limit.after(window.counts, amount);
                }
            }
            state.extend(limits);
        }
        Some(decision)
    }

    /// Adds an amount to each limit, if every limit whose amount is not 0 has something left. Amounts may exceed what
    /// is left, as for an endpoint that has already done the work. `None` if the counters are retired.
    pub fn add(&self, limits: &[ActiveLimit], amounts: &[u64]) -> Option<LimitDecision> {
        let mut state = self.state.lock();
        if state.is_retired {
            return None;
        }
        state.windows.resize(limits.len(), CountedWindow::default());
        let mut decision = LimitDecision { is_admitted: true, uses: SmallVec::new() };
        for ((window, limit), amount) in state.windows.iter_mut().zip(limits).zip(amounts) {
            window.advance_to(limit.number);
            decision.is_admitted &= *amount == 0 || limit.admits(window.counts, 1);
            decision.uses.push(window.counts);
        }
        if decision.is_admitted && amounts.iter().any(|amount| *amount > 0) {
            for ((window, limit), amount) in state.windows.iter_mut().zip(limits).zip(amounts) {
                window.counts = limit.after(window.counts, *amount);
            }
            state.extend(limits);
        }
        Some(decision)
    }
}

impl WindowState {
    /// Keeps the counts at least as long as those of these limits have an effect.
    fn extend(&mut self, limits: &[ActiveLimit]) {
        let expires = limits.iter().map(|limit| (limit.now_us / 1_000_000).saturating_add(limit.expires_in() + 1));
        self.expires = self.expires.max(expires.max().unwrap_or_default());
    }
}

impl CountedWindow {
    /// Moves to the window of this number. A clock that is late by one window counts in the newer one; one that was set
    /// back begins again.
    fn advance_to(&mut self, number: u64) {
        if self.number == number || self.number == number + 1 {
            return;
        }
        let previous = if self.number + 1 == number { self.counts.current } else { 0 };
        *self = CountedWindow { number, counts: LimitUse { current: 0, previous }, at_server: 0 };
    }
}

impl TableCounters for WindowCounters {
    fn retire(&self, second: u64) -> bool {
        let mut state = self.state.lock();
        state.is_retired |= state.expires <= second;
        state.is_retired
    }

    fn copy_from(&self, other: &Self) {
        let other = other.state.lock().clone();
        *self.state.lock() = other;
    }
}

impl SyncedCounters for WindowCounters {
    /// The index of the limit, the window, and the amount.
    type Sent = (usize, u64, u64);

    fn is_queued(&self) -> Option<&AtomicBool> {
        self.sync.as_ref().map(|sync| &sync.is_queued)
    }

    fn unsent(&self, now: SystemTime) -> Vec<(Self::Sent, CounterIncrement)> {
        let Some(sync) = &self.sync else { return Vec::new() };
        let state = self.state.lock();
        let unsent = |(index, (window, rule)): (usize, (&CountedWindow, &LimitRule))| {
            let amount = window.counts.current.saturating_sub(window.at_server);
            let limit = rule.at(now);
            if amount == 0 || limit.number != window.number {
                return None;
            }
            let key = server_key(&sync.group, rule, window.number);
            let expires_in = Duration::from_secs(limit.expires_in());
            Some(((index, window.number, amount), CounterIncrement { key, amount, limit: None, expires_in }))
        };
        state.windows.iter().zip(&*sync.rules).enumerate().filter_map(unsent).collect()
    }

    fn merge(&self, (index, number, sent): Self::Sent, total: u64) {
        let mut state = self.state.lock();
        let Some(window) = state.windows.get_mut(index).filter(|window| window.number == number) else { return };
        let expected = window.at_server.saturating_add(sent);
        // If the server has lost data, its total is too low, and the expected one is used.
        let total = total.max(expected);
        window.counts.current = window.counts.current.saturating_add(total - expected);
        window.at_server = total;
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::limit_rule::WindowLength;
    use super::*;

    fn fixed(max: u64, seconds: u64) -> LimitRule {
        LimitRule::new(max, LimitKind::Fixed(WindowLength::Seconds(seconds)))
    }

    fn at(rules: &[LimitRule], second: u64) -> Vec<ActiveLimit> {
        rules.iter().map(|rule| rule.at(UNIX_EPOCH + Duration::from_secs(second))).collect()
    }

    fn admits(counters: &WindowCounters, rules: &[LimitRule], second: u64, counts_rejected: bool) -> bool {
        counters.count(&at(rules, second), 1, counts_rejected).unwrap().is_admitted
    }

    #[test]
    fn requests_count_in_all_windows_or_in_none() {
        let (counters, rules) = (WindowCounters::default(), [fixed(1, 1), fixed(3, 60)]);
        let admitted: Vec<bool> =
            [600, 600, 601, 602, 603, 660].map(|second| admits(&counters, &rules, second, false)).into();
        assert_eq!(admitted, [true, false, true, true, false, true]);
    }

    #[test]
    fn rejected_requests_count_on_request() {
        let rules = [LimitRule::new(2, LimitKind::Sliding { seconds: 10 })];
        for (counts_rejected, later) in [(true, false), (false, true)] {
            let counters = WindowCounters::default();
            for _ in 0..10 {
                admits(&counters, &rules, 109, counts_rejected);
            }
            // Half of the requests of the window before count.
            assert_eq!(admits(&counters, &rules, 115, counts_rejected), later, "{counts_rejected}");
        }
    }

    #[test]
    fn counters_retire_when_no_count_has_an_effect() {
        let (counters, rules) = (WindowCounters::default(), [LimitRule::new(2, LimitKind::Sliding { seconds: 10 })]);
        assert!(admits(&counters, &rules, 109, false));
        assert!(!counters.retire(119), "the request counts in the next window");
        assert!(counters.retire(122));
        assert_eq!(counters.count(&at(&rules, 122), 1, false), None);
    }

    #[test]
    fn late_clocks_count_in_the_newer_window() {
        let (counters, rules) = (WindowCounters::default(), [fixed(1, 10)]);
        assert!(admits(&counters, &rules, 110, false) && !admits(&counters, &rules, 109, false));
        assert!(admits(&counters, &rules, 80, false), "a clock that was set back does not block");
    }

    #[test]
    fn totals_of_the_server_are_merged_and_nothing_is_sent_twice() {
        let rules = [fixed(100, 60)];
        let counters = WindowCounters::synced(WindowSync {
            group: "a".to_owned(),
            rules: rules.clone().into(),
            is_queued: AtomicBool::new(false),
        });
        let now = UNIX_EPOCH + Duration::from_secs(601);
        let current = || counters.count(&at(&rules, 601), 0, false).unwrap().uses[0].current;
        for _ in 0..3 {
            assert!(admits(&counters, &rules, 601, false));
        }
        let (sent, increment) = counters.unsent(now).remove(0);
        assert_eq!((increment.key.as_str(), increment.amount), ("a:60f:10", 3));
        assert!(admits(&counters, &rules, 601, false), "another request during the synchronization");
        counters.merge(sent, 10);
        assert_eq!((current(), counters.unsent(now)[0].1.amount), (11, 1));
        let (sent, _) = counters.unsent(now).remove(0);
        counters.merge(sent, 1);
        assert_eq!((current(), counters.unsent(now).len()), (11, 0), "a lower total is ignored");
        counters.merge((0, 9, 5), 50);
        assert_eq!(current(), 11, "the total of another window");
    }

    #[test]
    fn threads_admit_exactly_the_limit() {
        let (counters, rules) = (WindowCounters::default(), [fixed(700, 60), fixed(1000, 3600)]);
        let admitted: usize = std::thread::scope(|scope| {
            let take = || (0..500).filter(|_| admits(&counters, &rules, 601, true)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 700);
    }
}
