//! Counts the events of the last interval, in ten slots. Atomics only.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Counts the events of the last interval, in slots of a tenth of it, or of 1 ms if that is longer.
#[derive(Debug)]
pub(super) struct SlidingCount {
    slot_millis: AtomicU64,
    /// How many slots the interval has.
    length: AtomicUsize,
    /// The number of the slot in the high half, and its events in the low half. A slot is reused when its turn comes
    /// again, so nothing has to run when time passes.
    slots: [AtomicU64; SLOTS],
}

impl SlidingCount {
    pub(super) fn new(interval: Duration) -> Self {
        let (slot_millis, length) = slots_of(interval);
        let slots = [const { AtomicU64::new(0) }; SLOTS];
        SlidingCount { slot_millis: slot_millis.into(), length: length.into(), slots }
    }

    /// Counts an event at this time, in milliseconds of a clock that never goes back.
    #[inline]
    pub(super) fn add(&self, now: u64) {
        let number = self.number(now);
        let slot = self.slot(number);
        let seen = slot.load(Relaxed);
        if slot_number(seen) == number && events(seen) < NEARLY_FULL {
            // If another thread reuses the slot meanwhile, the event counts for the later one.
            slot.fetch_add(1, Relaxed);
            return;
        }
        let next = |seen: u64| match slot_number(seen) == number {
            true if events(seen) == u64::from(u32::MAX) => None,
            true => Some(seen + 1),
            false => Some(u64::from(number) << 32 | 1),
        };
        // An error means that the counter is full.
        slot.fetch_update(Relaxed, Relaxed, next).ok();
    }

    /// Takes back an event that was added at this time.
    pub(super) fn take_back(&self, now: u64) {
        let number = self.number(now);
        let next = |seen: u64| (slot_number(seen) == number && events(seen) > 0).then(|| seen - 1);
        // An error means that the slot was reused meanwhile.
        self.slot(number).fetch_update(Relaxed, Relaxed, next).ok();
    }

    /// The events of the interval before this time, of which up to a tenth is not counted any more.
    pub(super) fn sum(&self, now: u64) -> u64 {
        let (number, length) = (self.number(now), self.length.load(Relaxed));
        let slots = self.slots.iter().map(|slot| slot.load(Relaxed));
        let is_recent = |seen: &u64| (number.wrapping_sub(slot_number(*seen)) as usize) < length;
        slots.filter(is_recent).map(events).sum()
    }

    /// Begins anew, with another interval. An event that is added at the same time may be lost.
    pub(super) fn restart(&self, interval: Duration) {
        let (slot_millis, length) = slots_of(interval);
        self.slot_millis.store(slot_millis, Relaxed);
        self.length.store(length, Relaxed);
        self.clear();
    }

    /// Forgets all events.
    pub(super) fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Relaxed));
    }

    /// The low half of the number is enough: slots are compared with those of the last interval.
    #[inline]
    fn number(&self, now: u64) -> u32 {
        (now / self.slot_millis.load(Relaxed)) as u32
    }

    fn slot(&self, number: u32) -> &AtomicU64 {
        &self.slots[number as usize % SLOTS]
    }
}

/// The length of the slots of an interval, in milliseconds, and their number.
fn slots_of(interval: Duration) -> (u64, usize) {
    let millis = millis(interval).max(1);
    let slot_millis = millis.div_ceil(SLOTS as u64);
    // At most `SLOTS`, since a slot is at least a tenth of the interval.
    (slot_millis, millis.div_ceil(slot_millis) as usize)
}

/// A duration for the clock of an upstream.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

fn slot_number(slot: u64) -> u32 {
    (slot >> 32) as u32
}

fn events(slot: u64) -> u64 {
    slot & u64::from(u32::MAX)
}

/// More events are added with care, so that concurrent ones do not overflow a slot.
const NEARLY_FULL: u64 = u32::MAX as u64 - 4096;
/// Of ten slots, the oldest is at least nine tenths of the interval away when it is reused.
const SLOTS: usize = 10;

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
    fn events_are_taken_back_unless_their_slot_was_reused() {
        let count = SlidingCount::new(Duration::from_secs(10));
        count.add(1500);
        count.add(1500);
        count.take_back(1500);
        assert_eq!(count.sum(1500), 1);
        count.add(11_500);
        count.take_back(1500);
        assert_eq!(count.sum(11_500), 1);
    }

    /// Trap: with ten slots of a millisecond, an interval of one would last for ten.
    #[test]
    fn shortest_and_longest_intervals_work() {
        for (interval, end) in [
            (Duration::ZERO, Some(8)),
            (Duration::from_millis(1), Some(8)),
            (Duration::from_millis(3), Some(10)),
            (Duration::MAX, None),
        ] {
            let count = SlidingCount::new(interval);
            count.add(7);
            assert_eq!(count.sum(7), 1, "{interval:?}");
            if let Some(end) = end {
                assert_eq!((count.sum(end - 1), count.sum(end)), (1, 0), "{interval:?}");
            }
        }
    }

    #[test]
    fn restart_forgets_events_and_changes_the_interval() {
        let count = SlidingCount::new(Duration::from_secs(10));
        count.add(1500);
        count.restart(Duration::from_secs(1));
        assert_eq!(count.sum(1500), 0);
        count.add(1500);
        assert_eq!((count.sum(2399), count.sum(2500)), (1, 0));
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
