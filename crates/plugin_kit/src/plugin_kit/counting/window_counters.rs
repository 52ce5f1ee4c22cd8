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
use crate::plugin_kit::redis::CounterIncrement;

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct WindowCounters {
    state: Mutex<WindowState>,
    sync: Option<Box<WindowSync>>,
}

/// How counters are synchronized with a server.
#[derive(Debug)]
pub(crate) struct WindowSync {
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

/// The counts of one limit.
#[derive(Clone, Copy, Debug, Default)]
struct CountedWindow {
    /// For a bucket, the interval with which it was counted; 0 if it was not.
    number: u64,
    counts: LimitUse,
    /// The requests of this window that the server has counted, those of other replicas included. For a bucket, which
    /// is never synchronized, the limit with which it was counted.
    at_server: u64,
}

/// Where the counts of limits are among those of an identifier. Limits that are configured later have other places, so
/// those that stay keep their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CountSlots {
    /// In the order of the limits.
    slots: Box<[usize]>,
    /// The slots that counters need to have.
    needed: usize,
}

impl CountSlots {
    pub(crate) fn new(slots: Box<[usize]>) -> Self {
        let needed = slots.iter().max().map_or(0, |last| last + 1);
        CountSlots { slots, needed }
    }
}

impl WindowCounters {
    /// Counters that are synchronized with a server.
    pub(crate) fn synced(sync: WindowSync) -> Self {
        let is_bucket = |rule: &LimitRule| matches!(rule.kind, LimitKind::Bucket { .. });
        debug_assert!(!sync.rules.iter().any(is_bucket), "buckets have no window that several replicas can add to");
        WindowCounters { state: Mutex::default(), sync: Some(Box::new(sync)) }
    }

    /// Counts this amount if all limits admit it, or also if one does not and `counts_rejected` is true. The amount 0
    /// only reads the counts. `None` if the counters are retired.
    pub(crate) fn count(&self, limits: &[ActiveLimit], amount: u64, counts_rejected: bool) -> Option<LimitDecision> {
        self.count_in(limits, (0..limits.len(), limits.len()), amount, counts_rejected)
    }

    /// The same without counting rejected requests, for limits that have these slots.
    pub(crate) fn count_in_slots(
        &self,
        limits: &[ActiveLimit],
        slots: &CountSlots,
        amount: u64,
    ) -> Option<LimitDecision> {
        self.count_in(limits, (slots.slots.iter().copied(), slots.needed), amount, false)
    }

    fn count_in(
        &self,
        limits: &[ActiveLimit],
        (slots, needed): (impl Iterator<Item = usize> + Clone, usize),
        amount: u64,
        counts_rejected: bool,
    ) -> Option<LimitDecision> {
        let mut state = self.state.lock();
        if state.is_retired {
            return None;
        }
        let windows = state.with_slots(needed);
        let mut decision = LimitDecision { is_admitted: true, uses: SmallVec::new() };
        let mut is_longer = false;
        for (slot, limit) in slots.clone().zip(limits) {
            let window = &mut windows[slot];
            is_longer |= window.advance_to(limit);
            decision.is_admitted &= limit.admits(window.counts, amount);
            decision.uses.push(window.counts);
        }
        if amount > 0 && (decision.is_admitted || counts_rejected) {
            for (slot, limit) in slots.zip(limits) {
                // A rejected request takes no token of a bucket.
                if decision.is_admitted || !matches!(limit.kind, LimitKind::Bucket { .. }) {
                    windows[slot].counts = limit.after(windows[slot].counts, amount);
                }
            }
            is_longer = true;
        }
        if is_longer {
            state.extend(limits);
        }
        Some(decision)
    }

    /// Adds an amount to each limit, if every limit whose amount is not 0 has something left. Amounts may exceed what
    /// is left, as for an endpoint that has already done the work. `None` if the counters are retired.
    pub(crate) fn add_in_slots(
        &self,
        limits: &[ActiveLimit],
        CountSlots { slots, needed }: &CountSlots,
        amounts: &[u64],
    ) -> Option<LimitDecision> {
        let mut state = self.state.lock();
        if state.is_retired {
            return None;
        }
        let windows = state.with_slots(*needed);
        let mut decision = LimitDecision { is_admitted: true, uses: SmallVec::new() };
        let mut is_longer = false;
        for ((slot, limit), amount) in slots.iter().zip(limits).zip(amounts) {
            let window = &mut windows[*slot];
            is_longer |= window.advance_to(limit);
            decision.is_admitted &= *amount == 0 || limit.admits(window.counts, 1);
            decision.uses.push(window.counts);
        }
        if decision.is_admitted && amounts.iter().any(|amount| *amount > 0) {
            for ((slot, limit), amount) in slots.iter().zip(limits).zip(amounts) {
                windows[*slot].counts = limit.after(windows[*slot].counts, *amount);
            }
            is_longer = true;
        }
        if is_longer {
            state.extend(limits);
        }
        Some(decision)
    }
}

impl WindowState {
    /// The windows, at least this many. Those of limits that are not in the configuration stay as they are.
    fn with_slots(&mut self, needed: usize) -> &mut [CountedWindow] {
        if self.windows.len() < needed {
            self.windows.resize(needed, CountedWindow::default());
        }
        &mut self.windows
    }

    /// Keeps the counts at least as long as those of these limits have an effect.
    fn extend(&mut self, limits: &[ActiveLimit]) {
        let expires = limits.iter().map(|limit| (limit.now_us / 1_000_000).saturating_add(limit.expires_in() + 1));
        self.expires = self.expires.max(expires.max().unwrap_or_default());
    }
}

impl CountedWindow {
    /// Moves to the window of a limit. A clock that is late by one window counts in the newer one; one that was set
    /// back begins again. Returns whether the counts may have an effect for longer than before.
    fn advance_to(&mut self, limit: &ActiveLimit) -> bool {
        if let LimitKind::Bucket { interval_us } = limit.kind {
            let (interval_before, max_before) = (self.number, self.at_server);
            let is_changed = interval_before > 0 && (interval_before, max_before) != (interval_us, limit.max);
            if is_changed {
                self.counts = limit.of_changed_bucket(self.counts, interval_before, max_before);
            }
            (self.number, self.at_server) = (interval_us, limit.max);
            return is_changed;
        }
        let number = limit.number;
        if self.number != number && self.number != number + 1 {
            let previous = if self.number + 1 == number { self.counts.current } else { 0 };
            *self = CountedWindow { number, counts: LimitUse { current: 0, previous }, at_server: 0 };
        }
        false
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
    fn limits_keep_their_counts_in_their_slots() {
        let (counters, [minute, hour]) = (WindowCounters::default(), [fixed(9, 60), fixed(9, 3600)]);
        let current = |rules: &[LimitRule], slots: &[usize]| {
            let decision = counters.count_in_slots(&at(rules, 601), &CountSlots::new(slots.into()), 1).unwrap();
            decision.uses.iter().map(|counts| counts.current).collect::<Vec<_>>()
        };
        assert_eq!(current(std::slice::from_ref(&hour), &[1]), [0]);
        assert_eq!(current(&[minute.clone(), hour], &[0, 1]), [0, 1], "one is added");
        assert_eq!(current(&[minute], &[0]), [1], "one is removed");
    }

    #[test]
    fn buckets_keep_their_tokens_when_their_rate_or_size_changes() {
        let bucket = |max, interval_us| LimitRule::new(max, LimitKind::Bucket { interval_us });
        let take = |counters: &WindowCounters, rule: LimitRule, amount| {
            counters.count(&at(&[rule], 600), amount, false).unwrap().is_admitted
        };
        for (max, interval_us, left) in [(10, 1_000_000, 3), (10, 60_000_000, 3), (10, 1, 3), (20, 1, 13), (5, 1, 0)] {
            let counters = WindowCounters::default();
            assert!(take(&counters, bucket(10, 1_000_000), 7));
            assert!(!take(&counters, bucket(max, interval_us), left + 1), "{max} {interval_us}");
            assert!(left == 0 || take(&counters, bucket(max, interval_us), left), "{max} {interval_us}");
        }
        // An empty bucket that gets smaller is empty, and not one that a clock was set back for.
        let counters = WindowCounters::default();
        assert!(take(&counters, bucket(1000, 1_000_000), 1000));
        assert!(!take(&counters, bucket(1, 1_000_000), 1));
        // One that becomes slow is kept for as long as it needs to be full again, also if it only rejects.
        let counters = WindowCounters::default();
        assert!(take(&counters, bucket(10, 1), 10) && !take(&counters, bucket(10, 60_000_000), 1));
        assert!(!counters.retire(1000));
        let (counters, slots) = (WindowCounters::default(), CountSlots::new([0].into()));
        for (interval_us, amount) in [(1, 10), (60_000_000, 0)] {
            assert!(counters.add_in_slots(&at(&[bucket(10, interval_us)], 600), &slots, &[amount]).is_some());
        }
        assert!(!counters.retire(1000));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "buckets have no window"]
    fn buckets_are_never_synchronized() {
        let rules = [LimitRule::new(1, LimitKind::Bucket { interval_us: 1 })].into();
        WindowCounters::synced(WindowSync { group: String::new(), rules, is_queued: AtomicBool::new(false) });
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
