//! When which check begins: at most a number of checks per second for the whole process, spread evenly.
//!
//! ```text
//!   add, renew ─▶ due times, sorted ─▶ next: the first one, if it is due and the rate permits another check
//!        ▲                                                                      │
//!        └─────────────── interval × stretch × 0.9..1.1 ◀── the check has ended ┘
//! ```

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
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
    /// The checks that are not running.
    due: BTreeSet<(Instant, CheckId)>,
    /// The sum of the frequencies of all checks, in checks per [`DEMAND_PERIOD`].
    demand: u64,
    /// No check begins before.
    free_from: Instant,
    last_id: u64,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct ScheduledCheck {
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
            due: BTreeSet::new(),
            demand: 0,
            free_from: Instant::now(),
            last_id: 0,
            random,
        }
    }

    /// Adds a check that begins at this time.
    pub(super) fn add(&mut self, interval: Duration, due: Instant) -> CheckId {
        self.last_id += 1;
        let id = CheckId(self.last_id);
        self.demand += frequency(interval);
        self.due.insert((due, id));
        self.checks.insert(id, ScheduledCheck { demand: frequency(interval), due: Some(due) });
        id
    }

    /// Removes a check. If it is running, its result is ignored.
    pub(super) fn remove(&mut self, id: CheckId) {
        let Some(removed) = self.checks.remove(&id) else { return };
        self.demand -= removed.demand;
        if let Some(due) = removed.due {
            self.due.remove(&(due, id));
        }
    }

    /// Lets a check begin at this time, unless it begins earlier or is running.
    pub(super) fn hasten(&mut self, id: CheckId, due: Instant) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        if let Some(planned) = check.due.filter(|planned| *planned > due) {
            self.due.remove(&(planned, id));
            self.due.insert((due, id));
            check.due = Some(due);
        }
    }

    /// The check that begins now, if there is one.
    pub(super) fn next(&mut self, now: Instant) -> Option<CheckId> {
        let (due, id) = *self.due.first()?;
        if due.max(self.earliest_begin()) > now {
            return None;
        }
        self.due.remove(&(due, id));
        // Timers fire late, which must not make the rate lower.
        let late = now.checked_sub(TIMER_RESOLUTION).unwrap_or(now);
        self.free_from = self.free_from.max(late) + self.spacing;
        let check = self.checks.get_mut(&id).expect("what is due is removed with its check");
        check.due = None;
        Some(id)
    }

    /// When [`Self::next`] returns another check, if none is added.
    pub(super) fn next_begin(&self) -> Option<Instant> {
        let (due, _) = self.due.first()?;
        Some((*due).max(self.earliest_begin()))
    }

    /// Plans the next run of a check that has begun at `began` and ended now: after its interval, `share` of which
    /// passes.
    pub(super) fn renew(&mut self, id: CheckId, interval: Duration, began: Instant, now: Instant, share: f64) {
        let Some(check) = self.checks.get_mut(&id).filter(|check| check.due.is_none()) else { return };
        self.demand = self.demand - check.demand + frequency(interval);
        check.demand = frequency(interval);
        let stretched = interval.mul_f64(self.stretch() * share * self.jitter());
        // Checks never overlap, even if one takes longer than its interval.
        self.plan(id, (began + stretched).max(now));
    }

    /// Plans the next look at a check that [`Self::next`] has just returned, and that is not run now. It takes nothing
    /// of the rate.
    pub(super) fn skip(&mut self, id: CheckId, delay: Duration, now: Instant) {
        let Some(check) = self.checks.get_mut(&id).filter(|check| check.due.is_none()) else { return };
        self.demand -= std::mem::take(&mut check.demand);
        self.free_from = self.free_from.checked_sub(self.spacing).unwrap_or(self.free_from);
        let delay = delay.mul_f64(self.jitter());
        self.plan(id, now + delay);
    }

    fn plan(&mut self, id: CheckId, due: Instant) {
        if let Some(check) = self.checks.get_mut(&id) {
            check.due = Some(due);
            self.due.insert((due, id));
        }
    }

    fn jitter(&mut self) -> f64 {
        1.0 + JITTER * (2.0 * self.random.f64() - 1.0)
    }

    /// By how much all intervals are longer than configured, because the checks exceed the rate. At least 1.
    fn stretch(&self) -> f64 {
        let demand_per_second = self.demand as f64 / DEMAND_PERIOD.as_secs_f64();
        (demand_per_second * self.spacing.as_secs_f64()).max(1.0)
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
            schedule.add(interval, Instant::now());
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
            schedule.add(interval, Instant::now());
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

    #[tokio::test(start_paused = true)]
    async fn a_high_rate_needs_no_timer_for_each_check() {
        let mut schedule = schedule(10_000);
        let interval = Duration::from_millis(100);
        for _ in 0..1000 {
            schedule.add(interval, Instant::now());
        }
        let begins = run(&mut schedule, interval, Duration::from_secs(5));
        let count = begins_between(&begins, 1000, 5000);
        assert!((36_000..=40_400).contains(&count), "{count}");
    }

    #[tokio::test(start_paused = true)]
    async fn removed_checks_neither_begin_nor_count() {
        let mut schedule = schedule(200);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let ids: Vec<_> = (0..1000).map(|_| schedule.add(second, now)).collect();
        assert!(schedule.stretch() > 4.9);
        let running = schedule.next(now).unwrap();
        assert_eq!(running, ids[0]);
        assert_eq!(schedule.next(now), None, "the rate permits one in 5.05 ms");
        for id in &ids {
            schedule.remove(*id);
        }
        schedule.renew(running, second, now, now, 1.0);
        assert_eq!((schedule.next_begin(), schedule.demand), (None, 0));
        assert_eq!((schedule.stretch(), schedule.next(now + second)), (1.0, None));
    }

    /// Otherwise endpoints that are checked only while they are ejected would use up the rate of all others.
    #[tokio::test(start_paused = true)]
    async fn skipped_checks_take_nothing_of_the_rate() {
        let mut schedule = schedule(10);
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        for _ in 0..1000 {
            schedule.add(second, now);
        }
        for _ in 0..1000 {
            let id = schedule.next(now).expect("none of those before has used up the rate");
            schedule.skip(id, second, now);
        }
        assert_eq!((schedule.next(now), schedule.demand, schedule.stretch()), (None, 0, 1.0));
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
        let id = schedule.add(second, now);
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
