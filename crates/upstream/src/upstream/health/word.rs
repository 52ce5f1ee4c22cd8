//! The state of an endpoint in one word, which changes by compare and swap.
//!
//! ```text
//!   63                                                  16 15       10 9       0
//!   ┌─────────────────────────────────────────────────────┬───────────┬─────────┐
//!   │ until: milliseconds of the upstream's clock         │ others    │ causes  │
//!   └─────────────────────────────────────────────────────┴───────────┴─────────┘
//! ```

use super::{Availability, EjectionCause};

/// An unpacked state. The default is that of an available endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HealthWord {
    pub(super) flags: u16,
    /// When the ejection ends, or else the claim of the request that the endpoint is tried with.
    pub(super) until: u64,
}

/// A connection looks dead, and no other one has been tried yet.
pub(super) const SUSPECT: u16 = 1 << 10;
/// Requests are tried, one at a time.
pub(super) const HALF_OPEN: u16 = 1 << 11;
/// A request is being tried.
pub(super) const CLAIMED: u16 = 1 << 12;
/// The causes of responses and checks are counted, but have no effect.
pub(super) const DRY_RUN: u16 = 1 << 13;
/// After its time, an active check must pass before requests are tried.
pub(super) const AWAITS_CHECK: u16 = 1 << 14;
/// Probes decide when connections are possible again, instead of requests after a time.
pub(super) const PROBED: u16 = 1 << 15;

pub(super) const CONNECT: u16 = EjectionCause::Connect.bit();
pub(super) const ACTIVE_CHECK: u16 = EjectionCause::ActiveCheck.bit();
/// The causes that end after a time.
pub(super) const TIMED: u16 = EjectionCause::TIMED_BITS;
pub(super) const CAUSES: u16 = CONNECT | ACTIVE_CHECK | TIMED;
const FLAG_BITS: u32 = 16;

const _: () = assert!(CAUSES < SUSPECT, "the bit of a cause has another meaning, too");

impl HealthWord {
    pub(super) fn unpack(packed: u64) -> Self {
        HealthWord { flags: (packed & u64::from(u16::MAX)) as u16, until: packed >> FLAG_BITS }
    }

    pub(super) fn pack(self) -> u64 {
        self.until.min(u64::MAX >> FLAG_BITS) << FLAG_BITS | u64::from(self.flags)
    }

    pub(super) fn has(self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    pub(super) fn with(self, flags: u16) -> Self {
        HealthWord { flags: self.flags | flags, ..self }
    }

    pub(super) fn without(self, flags: u16) -> Self {
        HealthWord { flags: self.flags & !flags, ..self }
    }

    /// The causes that have an effect.
    pub(super) fn applied_causes(self) -> u16 {
        self.flags & if self.has(DRY_RUN) { CONNECT } else { CAUSES }
    }

    /// The first cause of these.
    pub(super) fn cause(self, causes: u16) -> Option<EjectionCause> {
        EjectionCause::ALL.into_iter().find(|cause| self.flags & causes & cause.bit() != 0)
    }

    pub(super) fn availability(self, now: u64) -> Availability {
        let applied = self.applied_causes();
        let is_open = self.has(HALF_OPEN) && !self.has(DRY_RUN);
        let is_over = self.until <= now;
        let Some(cause) = self.cause(applied) else {
            return match (is_open, self.has(SUSPECT)) {
                (true, _) if is_over => Availability::HalfOpen,
                // The endpoint is tried with another request.
                (true, _) => Availability::Ejected(EjectionCause::ActiveCheck),
                (false, true) => Availability::Suspect,
                (false, false) => Availability::Available,
            };
        };
        // Probes, and active checks, decide apart from requests.
        let waits = applied & CONNECT != 0 && self.has(PROBED)
            || applied & ACTIVE_CHECK != 0
            || self.has(AWAITS_CHECK) && !is_open && applied & TIMED != 0;
        if is_over && !waits { Availability::HalfOpen } else { Availability::Ejected(cause) }
    }
}
