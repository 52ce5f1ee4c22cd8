//! How many endpoints responses may eject, and the ejections by them and by active checks.

use std::sync::atomic::Ordering::Relaxed;

use super::transitions::HealthChange;
use super::{HealthState, ObservedEndpoint, OutlierDetection};
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::health::{EjectionCause, TimedEjection, ejection_millis};
use crate::upstream::settings::HealthSettings;

impl OutlierDetection {
    /// Ejects an endpoint because of its responses, unless too many are ejected. Returns whether it is allowed.
    pub(super) fn eject(&self, seen: &ObservedEndpoint<'_>, cause: EjectionCause, now: u64) -> bool {
        // One ejection at a time, so that several workers do not eject more than are allowed together.
        let members = self.members.lock();
        let settings = self.settings.load();
        if !self.may_eject(seen.state, &settings) {
            return false;
        }
        let checks = &settings.passive;
        let health = &seen.state.health;
        let interval = u64::try_from(checks.interval.as_millis()).unwrap_or(u64::MAX);
        let number = health.next_ejection(now, interval);
        let until = now + ejection_millis(checks.base_ejection, checks.max_ejection, number);
        let (is_dry_run, awaits_check) = (self.is_dry_run(), settings.active.is_some());
        let is_ejected = health.eject(now, TimedEjection { cause, until, number, is_dry_run, awaits_check });
        drop(members);
        if is_ejected {
            self.count_ejection(cause);
            let to = if is_dry_run { HealthState::DryEjected } else { HealthState::Ejected };
            self.announce(seen, HealthChange { to, cause: Some(cause), until: Some(until) });
        }
        true
    }

    /// Records the result of an active check. `is_first`: no check has ended before. A failure acts at once then, and a
    /// success needs no request to confirm it. The caller has counted consecutive results.
    ///
    /// The number of endpoints that checks eject is not limited: a check is about the endpoint and not about requests
    /// that it got, and requests of a Service whose checks all fail are to go elsewhere.
    pub(in crate::upstream) fn record_check(&self, seen: &ObservedEndpoint<'_>, passed: bool, is_first: bool) {
        let now = self.clock.now();
        let health = &seen.state.health;
        let cause = Some(EjectionCause::ActiveCheck);
        if passed {
            if health.record_passed_check(now, !is_first) {
                let to = if health.is_healthy() { HealthState::Available } else { HealthState::HalfOpen };
                self.announce(seen, HealthChange { to, cause, until: None });
            }
            return;
        }
        if health.record_failed_check(self.is_dry_run()) {
            self.count_ejection(EjectionCause::ActiveCheck);
            let to = if self.is_dry_run() { HealthState::DryEjected } else { HealthState::Ejected };
            self.announce(seen, HealthChange { to, cause, until: None });
        }
    }

    /// Whether one more endpoint may be ejected. None may by 0 percent. Otherwise one always may, also of two: a cap in
    /// percent alone would never eject anything in a small set (envoy#3263). The last one that is available only may
    /// with `ejects_last`. Endpoints to which no connection can be opened count, but are not limited.
    fn may_eject(&self, endpoint: &EndpointState, settings: &HealthSettings) -> bool {
        if settings.max_ejection_percent == 0 {
            return false;
        }
        let current = self.current.load();
        let others = || current.iter().filter(|other| !std::ptr::eq(&***other, endpoint));
        let ejected = others().filter(|state| state.health.has_cause()).count();
        let by_responses = others().any(|state| state.health.is_ejected_by_observation());
        let is_last = !settings.ejects_last && ejected + 1 >= current.len();
        let is_within = 100 * (ejected + 1) <= usize::from(settings.max_ejection_percent) * current.len();
        !is_last && (!by_responses || is_within)
    }

    pub(super) fn count_ejection(&self, cause: EjectionCause) {
        self.ejections[cause as usize].fetch_add(1, Relaxed);
    }
}
