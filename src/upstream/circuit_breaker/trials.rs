//! The requests that a half-open circuit is tried with, in all workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::phase::PhaseNumber;

/// Whether all of a request has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestArrival {
    Complete,
    /// Its client still sends the body, as slowly as it likes.
    Partial,
}

/// The trials of the requests that have arrived, and of those that are still arriving. Neither take places of the
/// others.
#[derive(Debug, Default)]
pub(super) struct Trials {
    complete: TrialPlaces,
    partial: TrialPlaces,
}

/// Places for as many requests as the circuit is tried with at a time.
#[derive(Debug, Default)]
struct TrialPlaces {
    /// The number of the phase in the high half, then 16 bits with the number of the round, and as many with the places
    /// that are taken.
    taken: AtomicU64,
    /// When the last place was taken.
    taken_at: AtomicU64,
}

/// A place of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    arrival: RequestArrival,
    round: u16,
}

impl Trials {
    /// Takes a place, unless `limit` are taken. `open_until`: when the circuit was open for the last time.
    pub(super) fn begin(
        &self,
        number: PhaseNumber,
        arrival: RequestArrival,
        limit: u32,
        open_until: u64,
        now: u64,
    ) -> Option<Trial> {
        let places = self.places(arrival);
        if arrival == RequestArrival::Partial
            && now < open_until.max(self.complete.taken_at.load(Relaxed)).saturating_add(PARTIAL_DELAY_MILLIS)
        {
            return None;
        }
        let round = places.take(number, limit, now)?;
        Some(Trial { arrival, round })
    }

    pub(super) fn end(&self, number: PhaseNumber, trial: Trial) {
        self.places(trial.arrival).give_back(number, trial.round);
    }

    fn places(&self, arrival: RequestArrival) -> &TrialPlaces {
        match arrival {
            RequestArrival::Complete => &self.complete,
            RequestArrival::Partial => &self.partial,
        }
    }
}

impl TrialPlaces {
    /// Takes a place, and returns its round. Each round has `limit` places. If all are taken, and the last one was
    /// taken long ago, another round begins. Two workers that decide in the same moment may begin one each.
    fn take(&self, number: PhaseNumber, limit: u32, now: u64) -> Option<u16> {
        let is_over = now >= self.taken_at.load(Relaxed).saturating_add(TRIAL_MILLIS);
        let mut round = 0;
        let next = |seen: u64| {
            let (mut current, mut taken) =
                if number.is_high_half_of(seen) { ((seen >> 16) as u16, seen as u16) } else { (0, 0) };
            if u32::from(taken) >= limit {
                if !is_over {
                    return None;
                }
                (current, taken) = (current.wrapping_add(1), 0);
            }
            round = current;
            Some(number.in_high_half() | u64::from(current) << 16 | u64::from(taken + 1))
        };
        self.taken.fetch_update(Relaxed, Relaxed, next).ok()?;
        self.taken_at.store(now, Relaxed);
        Some(round)
    }

    fn give_back(&self, number: PhaseNumber, round: u16) {
        let next = |seen: u64| {
            let is_current = number.is_high_half_of(seen) && (seen >> 16) as u16 == round;
            (is_current && seen as u16 > 0).then(|| seen - 1)
        };
        // An error means that another phase or round has begun since.
        self.taken.fetch_update(Relaxed, Relaxed, next).ok();
    }
}

/// How long requests may keep the places if others come. Their results count nevertheless, when they have some.
pub(super) const TRIAL_MILLIS: u64 = 10_000;
/// How long requests that are still arriving leave a half-open circuit to complete ones.
const PARTIAL_DELAY_MILLIS: u64 = 1_000;
