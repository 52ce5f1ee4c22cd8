//! What the limits and the circuit breaker of an upstream have done, for metrics and debug output.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::upstream::circuit_breaker::{CircuitPhase, CircuitReport};
use crate::upstream::settings::OverloadLimit;

/// The state of the limits and the circuit breaker of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverloadReport {
    /// Requests in progress.
    pub active: u32,
    /// How many may be in progress now; `None` without a limit.
    pub limit: Option<u32>,
    /// Requests that wait for a place.
    pub pending: usize,
    /// Retries in progress, if they are limited.
    pub retries: u32,
    /// How many requests, retries and connections were rejected, in the order of [`OverloadLimit::ALL`]; with a dry
    /// run, how many would have been.
    pub rejections: [u64; OverloadLimit::ALL.len()],
    /// `None` without a circuit breaker.
    pub circuit: Option<CircuitReport>,
    pub is_dry_run: bool,
}

impl OverloadReport {
    /// Adds the counts of another upstream. Its circuit breaker counts if it lets less through.
    pub fn add(&mut self, other: &OverloadReport) {
        self.active = self.active.saturating_add(other.active);
        self.limit = self.limit.zip(other.limit).map(|(own, other)| own.saturating_add(other));
        self.pending += other.pending;
        self.retries = self.retries.saturating_add(other.retries);
        for (sum, count) in self.rejections.iter_mut().zip(other.rejections) {
            *sum += count;
        }
        if self.circuit.is_none_or(|circuit| circuit.phase == CircuitPhase::Closed) {
            self.circuit = other.circuit.or(self.circuit);
        }
    }

    /// How many were rejected because of this limit.
    pub fn rejected(&self, limit: OverloadLimit) -> u64 {
        self.rejections[limit as usize]
    }
}

#[derive(Debug, Default)]
pub(super) struct RejectionCounters([AtomicU64; OverloadLimit::ALL.len()]);

impl RejectionCounters {
    pub(super) fn add(&self, limit: OverloadLimit) {
        self.0[limit as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn values(&self) -> [u64; OverloadLimit::ALL.len()] {
        self.0.each_ref().map(|count| count.load(Relaxed))
    }
}
