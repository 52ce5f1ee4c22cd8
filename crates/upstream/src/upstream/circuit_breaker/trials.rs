//! The requests that a half-open circuit is tried with, in all workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::phase::PhaseNumber;
use crate::upstream::socket_budget::client_slots::{ClientSlot, SLOTS};

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
    /// A bit for each client whose last request that was still arriving has no result. It may never have one, so the
    /// requests of other clients come first.
    unfinished: AtomicU64,
}

/// A request that a half-open circuit may be tried with.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrialRequest {
    pub(super) arrival: RequestArrival,
    pub(super) client: Option<ClientSlot>,
}

/// How a trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrialEnd {
    Result,
    /// Its client has left, or has not sent all of it in time.
    Abandoned,
    /// The endpoint has nothing of it.
    NotSent,
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
    request: TrialRequest,
    round: u16,
}

impl Trials {
    /// Takes a place, unless `limit` are taken. `open_until`: when the circuit was open for the last time.
    pub(super) fn begin(
        &self,
        number: PhaseNumber,
        request: TrialRequest,
        limit: u32,
        open_until: u64,
        now: u64,
    ) -> Option<Trial> {
        let TrialRequest { arrival, client } = request;
        if arrival == RequestArrival::Partial && now < self.earliest_partial(client, open_until) {
            return None;
        }
        let round = self.places(arrival).take(number, limit, now)?;
        if arrival == RequestArrival::Partial {
            self.unfinished.fetch_or(bit(client), Relaxed);
        }
        Some(Trial { request, round })
    }

    pub(super) fn end(&self, number: PhaseNumber, trial: Trial, end: TrialEnd) {
        let TrialRequest { arrival, client } = trial.request;
        if arrival == RequestArrival::Partial && end != TrialEnd::Abandoned {
            self.unfinished.fetch_and(!bit(client), Relaxed);
        }
        self.places(arrival).give_back(number, trial.round);
    }

    /// From when on a request that is still arriving may get a place: after complete ones, and those of other clients.
    fn earliest_partial(&self, client: Option<ClientSlot>, open_until: u64) -> u64 {
        let after_complete = open_until.max(self.complete.taken_at.load(Relaxed)).saturating_add(PARTIAL_DELAY_MILLIS);
        if self.unfinished.load(Relaxed) & bit(client) == 0 {
            return after_complete;
        }
        after_complete.max(self.partial.taken_at.load(Relaxed).saturating_add(UNFINISHED_DELAY_MILLIS))
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

/// The bit of a client; none without one.
fn bit(client: Option<ClientSlot>) -> u64 {
    const { assert!(SLOTS <= u64::BITS as usize, "each client has a bit") };
    client.map_or(0, |client| 1 << client.index())
}

/// How long requests may keep the places if others come. Their results count nevertheless, when they have some.
pub(super) const TRIAL_MILLIS: u64 = 10_000;
/// After how long a client gets the place of a request that was still arriving if its last one has no result. The place
/// has been free for others for half of the time.
pub(super) const UNFINISHED_DELAY_MILLIS: u64 = 2 * TRIAL_MILLIS;
/// How long requests that are still arriving leave a half-open circuit to complete ones.
const PARTIAL_DELAY_MILLIS: u64 = 1_000;
