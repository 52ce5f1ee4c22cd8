//! What the active checks of an endpoint have shown, for metrics and debug output.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::CheckType;

/// The last active check of an endpoint that had a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    pub has_passed: bool,
    /// When the check ended.
    pub ended: Instant,
    /// How long it took.
    pub duration: Duration,
    /// Why it has failed, or what the endpoint lacks although it has passed.
    pub message: Option<Arc<str>>,
    /// How many checks in a row had this result.
    pub consecutive: u32,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    Passed,
    Failed,
    /// This process lacked a socket for the check, which says nothing about the endpoint.
    Skipped,
}

impl CheckOutcome {
    const ALL: [CheckOutcome; 3] = [CheckOutcome::Passed, CheckOutcome::Failed, CheckOutcome::Skipped];

    pub fn name(self) -> &'static str {
        match self {
            CheckOutcome::Passed => "passed",
            CheckOutcome::Failed => "failed",
            CheckOutcome::Skipped => "skipped",
        }
    }
}

/// The number of checks of an upstream by type and outcome.
#[derive(Debug, Default)]
pub(super) struct CheckCounters([[AtomicU64; CheckOutcome::ALL.len()]; CheckType::ALL.len()]);

impl CheckCounters {
    pub(super) fn count(&self, check_type: CheckType, outcome: CheckOutcome) {
        self.0[check_type as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// The counters that are not zero.
    pub(super) fn counts(&self) -> Vec<(CheckType, CheckOutcome, u64)> {
        let pairs = CheckType::ALL.into_iter().flat_map(|kind| CheckOutcome::ALL.map(|outcome| (kind, outcome)));
        let counts =
            pairs.map(|(kind, outcome)| (kind, outcome, self.0[kind as usize][outcome as usize].load(Relaxed)));
        counts.filter(|(.., count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_and_outcome_has_a_counter() {
        let counters = CheckCounters::default();
        assert!(counters.counts().is_empty());
        for kind in CheckType::ALL {
            for outcome in CheckOutcome::ALL {
                counters.count(kind, outcome);
            }
        }
        counters.count(CheckType::Grpc, CheckOutcome::Skipped);
        let counts = counters.counts();
        assert_eq!(counts.len(), 12);
        assert_eq!(counts.iter().map(|(.., count)| count).sum::<u64>(), 13);
        assert_eq!(counts.last(), Some(&(CheckType::Grpc, CheckOutcome::Skipped, 2)));
    }
}
