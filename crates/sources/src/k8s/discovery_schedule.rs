//! When to query the API server again for the kinds that it serves.

use std::time::Duration;

use tokio::time::Instant;

pub(super) struct DiscoverySchedule {
    pub(super) next: Instant,
    /// Remaining delays, in milliseconds, of the burst after a change of CRDs: their kinds are served a moment later.
    burst: &'static [u64],
}

impl DiscoverySchedule {
    pub(super) fn due_now() -> Self {
        DiscoverySchedule { next: Instant::now(), burst: &[] }
    }

    pub(super) fn set_next(&mut self, next: Instant) {
        self.next = next;
    }

    /// Makes the next query due now.
    pub(super) fn expedite(&mut self) {
        self.next = self.next.min(Instant::now());
    }

    pub(super) fn start_burst(&mut self) {
        self.burst = BURST_AFTER_CRD_CHANGE;
        self.expedite();
    }

    /// Schedules the query after a successful one. `kinds_missing`: kinds that were served before are missing from the
    /// response. `crds_forbidden`: CRDs may not be watched.
    pub(super) fn succeeded(&mut self, kinds_missing: bool, crds_forbidden: bool) {
        let delay = match self.burst {
            [first, rest @ ..] => {
                self.burst = rest;
                Duration::from_millis(*first)
            }
            [] if kinds_missing => RECHECK_INTERVAL,
            [] if crds_forbidden => INTERVAL_WITHOUT_CRD_WATCH,
            [] => DEFAULT_INTERVAL,
        };
        self.next = Instant::now() + delay;
    }
}

/// Milliseconds between the queries after a change of CRDs.
const BURST_AFTER_CRD_CHANGE: &[u64] = &[100, 200, 400, 800, 1_600, 3_200, 6_400];
const RECHECK_INTERVAL: Duration = Duration::from_secs(3);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);
/// Used when CRDs may not be watched.
pub(super) const INTERVAL_WITHOUT_CRD_WATCH: Duration = Duration::from_secs(30);
