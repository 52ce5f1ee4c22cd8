//! When which check begins: at most a number of checks per second for the whole process, spread evenly, of which each
//! namespace has a share.
//!
//! ```text
//!   add, renew ─▶ due times by namespace ─▶ next: of those that are due, one of the namespace whose turn it is
//!        ▲                                                                      │
//!        └────── interval × stretch of the namespace × 0.9..1.1 ◀── it has ended ┘
//! ```
//!
//! If all checks together exceed the rate, the namespaces that have most get the same number of checks in a second.
//! Only their intervals are stretched: one that has fewer gets all of its checks.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// A check in the schedule. Never reused, so that the result of a removed check is not taken for that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CheckId(u64);

/// The checks of the process.
#[derive(Debug)]
pub(super) struct CheckSchedule {
    /// The minimum time between the beginnings of two checks.
    spacing: Duration,
    checks: HashMap<CheckId, ScheduledCheck, foldhash::fast::FixedState>,
    /// Those with checks.
    namespaces: BTreeMap<Arc<str>, NamespaceChecks>,
    /// The first check of each namespace that is due next.
    first_due: BTreeSet<(Instant, Arc<str>)>,
    /// The turn of the check that began last.
    turn: u64,
    /// The sum of the frequencies of all checks, in checks per [`DEMAND_PERIOD`].
    demand: u64,
    /// How many checks per [`DEMAND_PERIOD`] a namespace may have that has too many. `None` until it is computed.
    share: Cell<Option<f64>>,
    /// No check begins before.
    free_from: Instant,
    last_id: u64,
    random: fastrand::Rng,
}

/// The checks of the Services of one namespace.
#[derive(Debug, Default)]
struct NamespaceChecks {
    count: usize,
    /// The checks that are not running.
    due: BTreeSet<(Instant, CheckId)>,
    /// The sum of their frequencies.
    demand: u64,
    /// When the next one has its turn, in relation to those of other namespaces.
    turn: u64,
}

#[derive(Debug)]
struct ScheduledCheck {
    /// That of the Service.
    namespace: Arc<str>,
    /// How often it begins, in checks per [`DEMAND_PERIOD`]. 0 if it does not for the time being.
    demand: u64,
    /// When it begins; `None` while it is running.
    due: Option<Instant>,
}

impl CheckSchedule {
    /// `rate`: the maximum number of checks that begin in a second.
    pub(super) fn new(rate: NonZeroU32, random: fastrand::Rng) -> Self {
        CheckSchedule {
            spacing: SPACED_SECOND / rate.get(),
            checks: HashMap::default(),
            namespaces: BTreeMap::new(),
            first_due: BTreeSet::new(),
            turn: 0,
            demand: 0,
            share: Cell::default(),
            free_from: Instant::now(),
            last_id: 0,
            random,
        }
    }

    /// Adds a check that begins at this time. `namespace`: that of the Service.
    pub(super) fn add(&mut self, namespace: &str, interval: Duration, due: Instant) -> CheckId {
        self.last_id += 1;
        let id = CheckId(self.last_id);
        let namespace = match self.namespaces.get_key_value(namespace) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(namespace),
        };
        self.namespaces.entry(Arc::clone(&namespace)).or_default().count += 1;
        self.checks.insert(id, ScheduledCheck { namespace, demand: 0, due: None });
        self.set_demand(id, frequency(interval));
        self.plan(id, due);
        id
    }

    /// Removes a check. If it is running, its result is ignored.
    pub(super) fn remove(&mut self, id: CheckId) {
        self.set_demand(id, 0);
        let Some(removed) = self.checks.remove(&id) else { return };
        self.change_due(&removed.namespace, |due| {
            if let Some(planned) = removed.due {
                due.remove(&(planned, id));
            }
        });
        if let Some(checks) = self.namespaces.get_mut(&removed.namespace) {
            checks.count -= 1;
            if checks.count == 0 {
                self.namespaces.remove(&removed.namespace);
            }
        }
    }

    /// Lets a check begin at this time, unless it begins earlier or is running.
    pub(super) fn hasten(&mut self, id: CheckId, due: Instant) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        if let Some(planned) = check.due.filter(|planned| *planned > due) {
            check.due = Some(due);
            let namespace = Arc::clone(&check.namespace);
            self.change_due(&namespace, |of_namespace| {
                of_namespace.remove(&(planned, id));
                of_namespace.insert((due, id));
            });
        }
    }

    /// The check that begins now, if there is one.
    pub(super) fn next(&mut self, now: Instant) -> Option<CheckId> {
        if self.earliest_begin() > now {
            return None;
        }
        // Usually few are due at a time.
        let is_due = |(due, _): &&(Instant, Arc<str>)| *due <= now;
        let turn_of = |namespace: &Arc<str>| self.namespaces.get(namespace).map_or(0, |checks| checks.turn);
        let due = self.first_due.iter().take_while(is_due);
        let (_, namespace) = due.min_by_key(|(due, namespace)| (turn_of(namespace).max(self.turn), *due))?;
        let namespace = Arc::clone(namespace);
        let checks = self.namespaces.get_mut(&namespace)?;
        self.turn = checks.turn.max(self.turn);
        checks.turn = self.turn + 1;
        let id = self.change_due(&namespace, |due| due.pop_first().map(|(_, id)| id)).flatten()?;
        // Timers fire late, which must not make the rate lower.
        let late = now.checked_sub(TIMER_RESOLUTION).unwrap_or(now);
        self.free_from = self.free_from.max(late) + self.spacing;
        let check = self.checks.get_mut(&id).expect("what is due is removed with its check");
        check.due = None;
        Some(id)
    }

    /// When [`Self::next`] returns another check, if none is added.
    pub(super) fn next_begin(&self) -> Option<Instant> {
        let (due, _) = self.first_due.first()?;
        Some((*due).max(self.earliest_begin()))
    }

    /// Plans the next run of a check that has begun at `began` and ended now: after its interval, `share` of which
    /// passes.
    pub(super) fn renew(&mut self, id: CheckId, interval: Duration, began: Instant, now: Instant, share: f64) {
        if !self.is_running(id) {
            return;
        }
        self.set_demand(id, frequency(interval));
        let stretched = interval.mul_f64(self.stretch(id) * share * self.jitter());
        // Checks never overlap, even if one takes longer than its interval.
        self.plan(id, (began + stretched).max(now));
    }

    /// Plans the next look at a check that [`Self::next`] has just returned, and that is not run now. It takes nothing
    /// of the rate.
    pub(super) fn skip(&mut self, id: CheckId, delay: Duration, now: Instant) {
        if !self.is_running(id) {
            return;
        }
        self.set_demand(id, 0);
        if let Some(checks) = self.checks.get(&id).and_then(|check| self.namespaces.get_mut(&check.namespace)) {
            checks.turn = checks.turn.saturating_sub(1);
        }
        self.free_from = self.free_from.checked_sub(self.spacing).unwrap_or(self.free_from);
        let delay = delay.mul_f64(self.jitter());
        self.plan(id, now + delay);
    }

    fn is_running(&self, id: CheckId) -> bool {
        self.checks.get(&id).is_some_and(|check| check.due.is_none())
    }

    fn plan(&mut self, id: CheckId, due: Instant) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        check.due = Some(due);
        let namespace = Arc::clone(&check.namespace);
        self.change_due(&namespace, |of_namespace| of_namespace.insert((due, id)));
    }

    /// Changes which checks of a namespace are due.
    fn change_due<T>(
        &mut self,
        namespace: &Arc<str>,
        change: impl FnOnce(&mut BTreeSet<(Instant, CheckId)>) -> T,
    ) -> Option<T> {
        let checks = self.namespaces.get_mut(namespace)?;
        let first = |due: &BTreeSet<(Instant, CheckId)>| due.first().map(|(due, _)| *due);
        let before = first(&checks.due);
        let changed = change(&mut checks.due);
        let after = first(&checks.due);
        if before != after {
            if let Some(before) = before {
                self.first_due.remove(&(before, Arc::clone(namespace)));
            }
            if let Some(after) = after {
                self.first_due.insert((after, Arc::clone(namespace)));
            }
        }
        Some(changed)
    }

    /// Sets how often a check begins.
    fn set_demand(&mut self, id: CheckId, demand: u64) {
        let Some(check) = self.checks.get_mut(&id).filter(|check| check.demand != demand) else { return };
        let former = std::mem::replace(&mut check.demand, demand);
        if let Some(checks) = self.namespaces.get_mut(&check.namespace) {
            checks.demand = checks.demand - former + demand;
        }
        self.demand = self.demand - former + demand;
        self.share.set(None);
    }

    fn jitter(&mut self) -> f64 {
        1.0 + JITTER * (2.0 * self.random.f64() - 1.0)
    }

    /// By how much the intervals of the namespace of this check are longer than configured, because all checks exceed
    /// the rate, and those of the namespace its share. At least 1.
    fn stretch(&self, id: CheckId) -> f64 {
        let checks = self.checks.get(&id).and_then(|check| self.namespaces.get(&check.namespace));
        let demand = checks.map_or(0, |checks| checks.demand);
        (demand as f64 / self.share()).max(1.0)
    }

    /// How many checks per [`DEMAND_PERIOD`] a namespace may have: the same number for all that have more, so that all
    /// together are the rate.
    fn share(&self) -> f64 {
        if let Some(share) = self.share.get() {
            return share;
        }
        let mut left = DEMAND_PERIOD.as_secs_f64() / self.spacing.as_secs_f64();
        let mut share = f64::INFINITY;
        if self.demand as f64 > left {
            let mut demands: Vec<u64> = self.namespaces.values().map(|checks| checks.demand).collect();
            demands.sort_unstable();
            for (index, demand) in demands.iter().enumerate() {
                share = left / (demands.len() - index) as f64;
                if *demand as f64 > share {
                    break;
                }
                left -= *demand as f64;
            }
        }
        self.share.set(Some(share));
        share
    }

    /// When the rate permits another check. Timers have a resolution of a millisecond, so checks that follow each other
    /// more closely begin together.
    fn earliest_begin(&self) -> Instant {
        let early = TIMER_RESOLUTION.saturating_sub(self.spacing);
        self.free_from.checked_sub(early).unwrap_or(self.free_from)
    }
}

/// Checks per [`DEMAND_PERIOD`]. An integer, so that the sum of all does not drift.
fn frequency(interval: Duration) -> u64 {
    let millis = interval.as_millis().max(1);
    u64::try_from(DEMAND_PERIOD.as_millis() / millis).unwrap_or(u64::MAX >> 24)
}

/// Long in relation to the longest interval, so that rounding does not matter.
const DEMAND_PERIOD: Duration = Duration::from_secs(10_000_000);
/// By how much an interval is longer or shorter than configured, at most. Checks of several replicas that began at the
/// same time, such as after a restart of all, come apart.
const JITTER: f64 = 0.1;
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);
/// The time in which the checks of a second begin. One that begins late does not delay the next one, which makes the
/// time of any tenth of them shorter by up to a [`TIMER_RESOLUTION`]; with this it is still 100 ms.
const SPACED_SECOND: Duration = Duration::from_millis(1010);

#[cfg(test)]
mod tests {
    use super::*;

    const TEAM: &str = "team";

    fn schedule(rate: u32) -> CheckSchedule {
        CheckSchedule::new(NonZeroU32::new(rate).unwrap(), fastrand::Rng::with_seed(7))
    }

    /// Runs checks that end at once, and returns when each of them began, in milliseconds.
    fn run(schedule: &mut CheckSchedule, interval: Duration, until: Duration) -> Vec<(CheckId, u64)> {
        let start = Instant::now();
        let mut begins = Vec::new();
        let mut phases = fastrand::Rng::with_seed(1);
        let mut is_first = HashMap::<CheckId, bool>::new();
        while let Some(now) = schedule.next_begin().map(|next| next.max(start)).filter(|now| *now < start + until) {
            // Timers fire up to a millisecond late.
            let now = start + Duration::from_millis((now - start).as_nanos().div_ceil(1_000_000) as u64);
            while let Some(id) = schedule.next(now) {
                begins.push((id, (now - start).as_millis() as u64));
                let share =
                    if std::mem::replace(is_first.entry(id).or_insert(true), false) { phases.f64() } else { 1.0 };
                schedule.renew(id, interval, now, now, share);
            }
        }
        begins
    }

    /// The number of checks that began in this time. `run` returns them in order.
    fn begins_between(begins: &[(CheckId, u64)], from: u64, to: u64) -> usize {
        let before = |time: u64| begins.partition_point(|(_, begin)| *begin < time);
        before(to) - before(from)
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_checks_are_spread_evenly() {
        let mut schedule = schedule(200);
        let interval = Duration::from_secs(10);
        for _ in 0..1000 {
            schedule.add(TEAM, interval, Instant::now());
        }
        let begins = run(&mut schedule, interval, Duration::from_secs(300));
        // 100 in a second, after the first ones, which begin as soon as the rate permits.
        let steady = begins_between(&begins, 20_000, 300_000);
        assert!((26_600..=29_400).contains(&steady), "{steady}");
        for from in (0..299_900).step_by(10) {
            let count = begins_between(&begins, from, from + 100);
            assert!(count <= 20, "{count} from {from}");
        }
        // The first checks delay some of the others. The jitter levels this out within minutes.
        let by_second: Vec<_> =
            (200..300).map(|second| begins_between(&begins, second * 1000, (second + 1) * 1000)).collect();
        assert!(by_second.iter().all(|count| (60..=140).contains(count)), "{by_second:?}");
    }

    /// Trap: if the rate were only a limit, some endpoints would never be checked.
    #[tokio::test(start_paused = true)]
    async fn the_rate_stretches_all_intervals_evenly() {
        let mut schedule = schedule(200);
        let interval = Duration::from_secs(1);
        for _ in 0..1000 {
            schedule.add(TEAM, interval, Instant::now());
        }
        let begins = run(&mut schedule, interval, Duration::from_secs(100));
        let count = begins_between(&begins, 10_000, 100_000);
        assert!((17_100..=18_000).contains(&count), "{count}");
        let mut of_each = HashMap::<CheckId, usize>::new();
        for (id, _) in begins.iter().filter(|(_, begin)| *begin >= 10_000) {
            *of_each.entry(*id).or_default() += 1;
        }
        // Almost 18 in 90 seconds at 198 checks per second.
        assert_eq!(of_each.len(), 1000);
        assert!(of_each.values().all(|count| (15..=20).contains(count)), "{:?}", of_each.values().max());
    }

    /// The Service of a team was checked once in 20 s, because another team had 4,000 endpoints.
    #[tokio::test(start_paused = true)]
    async fn many_checks_of_one_namespace_do_not_delay_those_of_others() {
        let mut schedule = schedule(200);
        let interval = Duration::from_secs(1);
        let now = Instant::now();
        for _ in 0..4000 {
            schedule.add("busy", interval, now);
        }
        let few: Vec<_> = (0..20).map(|_| schedule.add(TEAM, interval, now)).collect();
        let begins = run(&mut schedule, interval, Duration::from_secs(100));
        for id in &few {
            let own: Vec<u64> = begins.iter().filter(|(begun, _)| begun == id).map(|(_, begin)| *begin).collect();
            assert!(own.len() >= 95, "{} checks in 100 s", own.len());
            assert!(own[0] < 500, "the first one after {} ms", own[0]);
            let gap = own.windows(2).map(|pair| pair[1] - pair[0]).max();
            assert!(gap.is_some_and(|gap| gap < 1500), "{gap:?}");
        }
        let of_busy = begins_between(&begins, 10_000, 100_000) - few.len() * 90;
        assert!((15_000..=16_300).contains(&of_busy), "the rest of the rate: {of_busy}");
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_with_many_checks_have_the_same_share() {
        let mut schedule = schedule(100);
        let interval = Duration::from_secs(1);
        let [large, larger] = [("large", 500), ("larger", 2000)].map(|(namespace, count)| {
            (0..count).map(|_| schedule.add(namespace, interval, Instant::now())).collect::<Vec<_>>()
        });
        let few = schedule.add(TEAM, interval, Instant::now());
        assert_eq!(schedule.stretch(few), 1.0);
        let begins = run(&mut schedule, interval, Duration::from_secs(100));
        let count = |ids: &[CheckId]| begins.iter().filter(|(id, _)| ids.binary_search(id).is_ok()).count();
        let counts = [count(&large), count(&larger)];
        assert!(counts.iter().all(|count| (4600..=5100).contains(count)), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_high_rate_needs_no_timer_for_each_check() {
        let mut schedule = schedule(10_000);
        let interval = Duration::from_millis(100);
        for _ in 0..1000 {
            schedule.add(TEAM, interval, Instant::now());
        }
        let begins = run(&mut schedule, interval, Duration::from_secs(5));
        let count = begins_between(&begins, 1000, 5000);
        assert!((36_000..=40_400).contains(&count), "{count}");
    }

    #[tokio::test(start_paused = true)]
    async fn removed_checks_neither_begin_nor_count() {
        let mut schedule = schedule(200);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let ids: Vec<_> = (0..1000).map(|_| schedule.add(TEAM, second, now)).collect();
        assert!(schedule.stretch(ids[0]) > 4.9);
        let running = schedule.next(now).unwrap();
        assert_eq!(running, ids[0]);
        assert_eq!(schedule.next(now), None, "the rate permits one in 5.05 ms");
        for id in &ids {
            schedule.remove(*id);
        }
        schedule.renew(running, second, now, now, 1.0);
        assert_eq!((schedule.next_begin(), schedule.demand), (None, 0));
        assert_eq!((schedule.share(), schedule.next(now + second)), (f64::INFINITY, None));
        assert!(schedule.namespaces.is_empty() && schedule.first_due.is_empty());
    }

    /// Otherwise endpoints that are checked only while they are ejected would use up the rate of all others.
    #[tokio::test(start_paused = true)]
    async fn skipped_checks_take_nothing_of_the_rate() {
        let mut schedule = schedule(10);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        for _ in 0..1000 {
            schedule.add(TEAM, second, now);
        }
        for _ in 0..1000 {
            let id = schedule.next(now).expect("none of those before has used up the rate");
            schedule.skip(id, second, now);
        }
        assert_eq!((schedule.next(now), schedule.demand, schedule.share()), (None, 0, f64::INFINITY));
        let later = now + 2 * second;
        let id = schedule.next(later).unwrap();
        schedule.renew(id, second, later, later, 1.0);
        assert!(schedule.demand > 0);
        assert_eq!(schedule.next(later), None, "one in 101 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn checks_do_not_overlap_and_can_be_hastened() {
        let mut schedule = schedule(200);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let id = schedule.add(TEAM, second, now);
        assert_eq!(schedule.next(now), Some(id));
        schedule.hasten(id, now);
        assert_eq!(schedule.next_begin(), None, "it is running");
        schedule.renew(id, second, now, now + 3 * second, 1.0);
        assert_eq!(schedule.next_begin(), Some(now + 3 * second), "it has lasted longer than its interval");
        assert_eq!(schedule.next(now + 3 * second), Some(id));
        schedule.renew(id, 10 * second, now + 3 * second, now + 3 * second, 1.0);
        assert!(schedule.next_begin().unwrap() >= now + 12 * second);
        schedule.hasten(id, now + 4 * second);
        assert_eq!(schedule.next_begin(), Some(now + 4 * second));
        schedule.hasten(id, now + 5 * second);
        assert_eq!(schedule.next_begin(), Some(now + 4 * second), "it begins earlier already");
        assert_eq!(schedule.next(now + 4 * second), Some(id));
    }
}
