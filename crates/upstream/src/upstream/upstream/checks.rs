//! The active checks of an upstream: what is to be checked, and what checks have shown.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Upstream;
use crate::upstream::check_report::{CheckOutcome, CheckReport};
use crate::upstream::configured_endpoints::Endpoints;
use crate::upstream::settings::{ActiveCheck, CheckType};

impl Upstream {
    /// The check of the endpoints.
    pub(in crate::upstream) fn active_check(&self) -> Option<Arc<ActiveCheck>> {
        check_of(&self.configured.load()).cloned()
    }

    /// Whether the endpoint is not ejected.
    pub(in crate::upstream) fn is_healthy(&self, address: SocketAddr) -> bool {
        self.state(address).is_none_or(|state| state.health.is_healthy())
    }

    /// Records the last check of an endpoint. `confirmed`: whether the endpoint may get requests, if this check agrees
    /// with that.
    pub(in crate::upstream) fn record_check(&self, address: SocketAddr, report: CheckReport, confirmed: Option<bool>) {
        let Some(state) = self.state(address) else { return };
        let message = report.message.clone();
        let is_first = state.check.swap(Some(Arc::new(report))).is_none();
        if let Some(has_passed) = confirmed {
            let error = message.as_ref().map(|message| message as &dyn std::fmt::Display);
            self.detection.record_check(&self.observed(address, &state, error), has_passed, is_first);
        }
    }

    /// Ends the effect of checks that are no longer made.
    pub(in crate::upstream) fn forget_checks(&self) {
        for endpoint in self.reachable.load().iter() {
            endpoint.state.check.store(None);
        }
        self.detection.forget_checks();
    }

    pub(in crate::upstream) fn count_check(&self, check_type: CheckType, outcome: CheckOutcome) {
        self.check_counters.count(check_type, outcome);
    }

    /// The number of checks by type and outcome. Empty if there were none.
    pub fn check_counts(&self) -> Vec<(CheckType, CheckOutcome, u64)> {
        self.check_counters.counts()
    }

    /// Called when the endpoints or their settings have changed.
    pub(super) fn announce_checks(&self, had_check: bool) {
        if had_check || check_of(&self.configured.load()).is_some() {
            self.check_queue.add(&self.key);
        }
    }
}

/// The check in these settings.
pub(super) fn check_of(endpoints: &Endpoints) -> Option<&Arc<ActiveCheck>> {
    endpoints.traffic.health.as_ref()?.active.as_ref()
}
