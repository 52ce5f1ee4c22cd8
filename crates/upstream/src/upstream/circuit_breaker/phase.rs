//! The phase of a circuit with its number, in one atomic: a request that began in an earlier phase is recognized.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

/// What a circuit lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CircuitPhase {
    /// All requests.
    Closed = 0,
    /// No request.
    Open = 1,
    /// A few requests at a time.
    HalfOpen = 2,
    /// A share of the requests that grows.
    Closing = 3,
}

impl CircuitPhase {
    /// All phases, in the order of their numbers in metrics.
    pub const ALL: [CircuitPhase; 4] =
        [CircuitPhase::Closed, CircuitPhase::Open, CircuitPhase::HalfOpen, CircuitPhase::Closing];

    /// The name in metrics and debug output.
    pub fn name(self) -> &'static str {
        match self {
            CircuitPhase::Closed => "closed",
            CircuitPhase::Open => "open",
            CircuitPhase::HalfOpen => "half_open",
            CircuitPhase::Closing => "closing",
        }
    }
}

/// Counts the phases of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PhaseNumber(u32);

impl PhaseNumber {
    pub(super) fn in_high_half(self) -> u64 {
        u64::from(self.0) << 32
    }

    pub(super) fn is_high_half_of(self, value: u64) -> bool {
        (value >> 32) as u32 == self.0
    }
}

/// The phase in the low two bits, its number in the others.
#[derive(Debug, Default)]
pub(super) struct PhaseStore(AtomicU64);

impl PhaseStore {
    pub(super) fn load(&self) -> (PhaseNumber, CircuitPhase) {
        let value = self.0.load(Acquire);
        (PhaseNumber((value >> 2) as u32), CircuitPhase::ALL[(value & 3) as usize])
    }

    /// Begins the next phase. The caller serializes the calls.
    pub(super) fn advance(&self, phase: CircuitPhase) {
        let number = self.load().0.0.wrapping_add(1);
        self.0.store(u64::from(number) << 2 | phase as u64, Release);
    }
}
