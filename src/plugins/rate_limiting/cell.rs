//! The counters of one identifier, one for each period: numbers that all cores add to, and no lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::window::{Period, Window};

/// What somebody has used of each period.
#[derive(Debug, Default)]
pub(super) struct Cell {
    /// By [`Period`]; see [`Count`].
    counts: [AtomicU64; 6],
    /// Of counters that a server adds up.
    pub shared: Option<Box<Shared>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// What the names of the counters begin with.
    pub name: String,
    /// What the server knows, as in `Cell::counts`.
    known: [AtomicU64; 6],
    /// Whether it is in line for being sent.
    pub is_in_line: AtomicBool,
}

/// A counter in 64 bits: 24 for the window, by its number modulo 2^24, and 40 for the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    window: u64,
    count: u64,
}

/// One more than the largest limit.
pub(super) const MOST: u64 = COUNT_MASK;
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const WINDOW_MASK: u64 = (1 << 24) - 1;
/// Of a cell that is no longer in the table. No count is as large as that.
const RETIRED: u64 = u64::MAX;

/// A limit in the window that lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub period: Period,
    pub limit: u64,
    pub window: Window,
}

impl Cell {
    pub(super) fn named(name: String) -> Self {
        let shared = Shared { name, known: Default::default(), is_in_line: AtomicBool::new(false) };
        Cell { counts: Default::default(), shared: Some(Box::new(shared)) }
    }

    /// Counts one more in every period, or in none if one of them is used up, and says whether there was room and what had
    /// been used before. None if these are no longer anybody's counters.
    pub(super) fn take(&self, limits: &[Limit], mut used: impl FnMut(u64)) -> Option<bool> {
        for (at, limit) in limits.iter().enumerate() {
            if let Err(bits) = self.add_one(limit) {
                for limit in &limits[..at] {
                    self.take_back(limit);
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
            // Others may have come in between: what is left is then told as less, never as more.
            used(self.used(limit).saturating_sub(1).min(limit.limit - 1));
        }
        Some(true)
    }

    /// What stands there if there is no room.
    fn add_one(&self, limit: &Limit) -> Result<u64, u64> {
        let cell = &self.counts[limit.period as usize];
        cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let now = Count::of(bits).seen_from(&limit.window);
            (bits != RETIRED && now.count < limit.limit).then(|| Count { count: now.count + 1, ..now }.bits())
        })
    }

    fn take_back(&self, limit: &Limit) {
        let cell = &self.counts[limit.period as usize];
        let _ended = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let count = Count::of(bits);
            // If a new window has begun, what was taken is gone with the old one.
            let same = bits != RETIRED && count.seen_from(&limit.window) == count && count.count > 0;
            same.then(|| Count { count: count.count - 1, ..count }.bits())
        });
    }

    fn used(&self, limit: &Limit) -> u64 {
        Count::of(self.counts[limit.period as usize].load(Ordering::Relaxed)).seen_from(&limit.window).count
    }

    /// Takes it out of use if every window that something was counted in has ended. Whoever has it in hand then looks it up
    /// again, so that nothing is counted that nobody would find.
    pub(super) fn retire(&self, second: u64) -> bool {
        let seen: [u64; 6] = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        let is_over = Period::ALL.iter().zip(seen).all(|(period, bits)| {
            let count = Count::of(bits);
            count.count == 0 || count.seen_from(&period.window(second)) != count
        });
        if !is_over {
            return false;
        }
        for (at, count) in self.counts.iter().enumerate() {
            if count.compare_exchange(seen[at], RETIRED, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                // Somebody came meanwhile. What stood in the others had ended.
                for count in &self.counts[..at] {
                    count.store(0, Ordering::Relaxed);
                }
                return false;
            }
        }
        true
    }

    /// Begins with what others count.
    pub(super) fn start_from(&self, other: &Cell) {
        for (count, other) in self.counts.iter().zip(&other.counts) {
            count.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// What was counted in this window and the server does not know yet.
    pub(super) fn unsent(&self, limit: &Limit) -> u64 {
        let Some(shared) = &self.shared else { return 0 };
        let known = Count::of(shared.known[limit.period as usize].load(Ordering::Relaxed));
        self.used(limit).saturating_sub(known.seen_from(&limit.window).count)
    }

    /// Takes over what the server counts, `sent` of ours included.
    pub(super) fn learn(&self, limit: &Limit, sent: u64, total: u64) {
        let Some(shared) = &self.shared else { return };
        let known = &shared.known[limit.period as usize];
        let before = Count::of(known.load(Ordering::Relaxed)).seen_from(&limit.window);
        let ours = before.count + sent;
        // A server that lost what it knew knows less: then ours is what counts.
        let total = total.max(ours).min(MOST - 1);
        let of_others = total - ours;
        let count = &self.counts[limit.period as usize];
        let learned = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let now = Count::of(bits).seen_from(&limit.window);
            (bits != RETIRED && now.window == before.window)
                .then(|| Count { count: (now.count + of_others).min(MOST - 1), ..now }.bits())
        });
        if learned.is_ok() {
            known.store(Count { count: total, ..before }.bits(), Ordering::Relaxed);
        }
    }
}

impl Count {
    fn of(bits: u64) -> Self {
        if bits == RETIRED {
            return Count { window: 0, count: 0 };
        }
        Count { window: bits >> COUNT_BITS, count: bits & COUNT_MASK }
    }

    fn bits(self) -> u64 {
        self.window << COUNT_BITS | self.count
    }

    /// As it counts for somebody in this window. Cores read the clock one after another, so one may already be in the next
    /// window; then that is what counts. Anything else is from another time, also if the clock was set back.
    fn seen_from(self, window: &Window) -> Self {
        let number = window.number & WINDOW_MASK;
        let is_next = self.window == (number + 1) & WINDOW_MASK;
        if self.window == number || is_next { self } else { Count { window: number, count: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(limits: &[(Period, u64)], second: u64) -> Vec<Limit> {
        let limit =
            |(period, limit): &(Period, u64)| Limit { period: *period, limit: *limit, window: period.window(second) };
        limits.iter().map(limit).collect()
    }

    fn take(cell: &Cell, limits: &[Limit]) -> (bool, Vec<u64>) {
        let mut used = Vec::new();
        (cell.take(limits, |count| used.push(count)).unwrap(), used)
    }

    #[test]
    fn it_counts_until_the_limit_and_anew_in_the_next_window() {
        let cell = Cell::default();
        let at = |second| limits(&[(Period::Second, 2), (Period::Minute, 3)], second);
        assert_eq!(take(&cell, &at(600)), (true, vec![0, 0]));
        assert_eq!(take(&cell, &at(600)), (true, vec![1, 1]));
        assert_eq!(take(&cell, &at(600)), (false, vec![2, 2]), "the second is full");
        assert_eq!(take(&cell, &at(601)), (true, vec![0, 2]));
        assert_eq!(take(&cell, &at(601)), (false, vec![1, 3]), "the minute is full, and the second keeps its room");
        assert_eq!(take(&cell, &at(660)), (true, vec![0, 0]));
    }

    #[test]
    fn a_core_whose_clock_is_behind_does_not_begin_the_old_window_again() {
        let cell = Cell::default();
        let at = |second| limits(&[(Period::Second, 2)], second);
        assert!(take(&cell, &at(601)).0 && take(&cell, &at(601)).0);
        assert_eq!(take(&cell, &at(600)), (false, vec![2]));
        assert_eq!(take(&cell, &at(601)), (false, vec![2]));
        assert_eq!(take(&cell, &at(590)), (true, vec![0]), "a clock that was set back does not block for long");
    }

    #[test]
    fn it_retires_when_every_window_has_ended_and_counts_no_more() {
        let cell = Cell::default();
        let both = limits(&[(Period::Second, 9), (Period::Minute, 9)], 600);
        assert!(take(&cell, &both).0);
        assert!(!cell.retire(600) && !cell.retire(659));
        assert_eq!(take(&cell, &limits(&[(Period::Minute, 9)], 659)), (true, vec![1]));
        assert!(cell.retire(660));
        assert_eq!(cell.take(&limits(&[(Period::Hour, 9)], 660), |_| {}), None);
        assert!(Cell::default().retire(0), "nothing was counted");
    }

    #[test]
    fn what_others_counted_is_learned_and_nothing_sent_twice() {
        let cell = Cell::named("a".to_owned());
        let minute = limits(&[(Period::Minute, 100)], 600);
        for _ in 0..3 {
            assert!(take(&cell, &minute).0);
        }
        assert_eq!(cell.unsent(&minute[0]), 3);
        assert!(take(&cell, &minute).0, "one more while it is on its way");
        cell.learn(&minute[0], 3, 10);
        assert_eq!((cell.used(&minute[0]), cell.unsent(&minute[0])), (11, 1));
        cell.learn(&minute[0], 1, 1);
        assert_eq!((cell.used(&minute[0]), cell.unsent(&minute[0])), (11, 0), "a server that forgot is not believed");
        let next = limits(&[(Period::Minute, 100)], 660);
        cell.learn(&next[0], 0, 5);
        assert_eq!((cell.used(&next[0]), cell.unsent(&next[0])), (5, 0));
    }

    #[test]
    fn never_more_than_the_limit_on_any_number_of_threads() {
        let cell = Cell::default();
        let both = limits(&[(Period::Minute, 1000), (Period::Hour, 700)], 600);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..500).filter(|_| take(&cell, &both).0).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 700);
        assert_eq!(cell.used(&both[0]), 700, "what was refused is not counted");
    }
}
