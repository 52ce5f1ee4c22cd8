//! What the outcome of an attempt changes.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use super::transitions::HealthChange;
use super::{COUNTS_RATES, FollowUp, HealthState, ObservedEndpoint, OutlierDetection};
use crate::upstream::health::{Availability, EjectionCause, FailureKind, HalfOpenStep};
use crate::upstream::outcome::{GrpcStatus, Outcome, OutcomeClass};
use crate::upstream::settings::{PassiveChecks, is_gateway_error, is_listed_or_server_error};

impl OutlierDetection {
    /// Records what an attempt has shown about an endpoint.
    pub(in crate::upstream) fn record(&self, seen: &ObservedEndpoint<'_>, outcome: &Outcome) -> FollowUp {
        let now = self.clock.now();
        let settings = self.settings.load();
        let checks = &settings.passive;
        match outcome.class {
            OutcomeClass::ConnectFailed => return self.record_unreachable(seen, checks, now),
            OutcomeClass::Connected => self.record_connected(seen, now),
            OutcomeClass::Responded => self.record_response(seen, outcome, checks, now),
            OutcomeClass::Completed => {
                seen.state.health.reset_failures(FailureKind::LocalOrigin);
                self.forget_failures(seen.state, now);
            }
            OutcomeClass::Stale => return self.suspect(seen, now),
            // The endpoint may have closed the connection while it was idle.
            OutcomeClass::NoResponse if outcome.connect_time.is_none() => return self.suspect(seen, now),
            OutcomeClass::NoResponse | OutcomeClass::Failed | OutcomeClass::Truncated | OutcomeClass::TimedOut => {
                self.record_local_origin(seen, outcome, checks, now);
            }
            OutcomeClass::Inconclusive | OutcomeClass::NotProcessed => seen.state.health.release_claim(now),
            OutcomeClass::Abandoned => seen.state.health.release_claim(now + seen.state.health.reconnect_delay()),
        }
        FollowUp::None
    }

    /// A probe, or a request, has opened a connection.
    pub(in crate::upstream) fn record_connected(&self, seen: &ObservedEndpoint<'_>, now: u64) {
        match seen.state.health.record_connected(now) {
            None => self.forget_failures(seen.state, now),
            Some(before) => {
                let cause = match before {
                    Availability::Ejected(cause) => Some(cause),
                    Availability::Available | Availability::Suspect | Availability::HalfOpen => None,
                };
                let to = if seen.state.health.is_healthy() { HealthState::Available } else { HealthState::Ejected };
                self.announce(seen, HealthChange { to, cause, until: None });
            }
        }
    }

    /// A connection to the endpoint looks dead.
    pub(in crate::upstream) fn suspect(&self, seen: &ObservedEndpoint<'_>, now: u64) -> FollowUp {
        let health = &seen.state.health;
        health.release_claim(now);
        if !health.suspect(self.is_probed()) {
            return FollowUp::None;
        }
        self.mark_idle(seen);
        self.announce(seen, HealthChange { to: HealthState::Suspect, cause: None, until: None });
        FollowUp::Probe
    }

    /// A probe, or a request, has not opened a connection.
    fn record_unreachable(&self, seen: &ObservedEndpoint<'_>, checks: &PassiveChecks, now: u64) -> FollowUp {
        let health = &seen.state.health;
        let failures = health.count_failure(FailureKind::Connect);
        if failures < checks.connect_failures.max(1) {
            self.set_has_failures();
            health.release_claim(now);
            return FollowUp::None;
        }
        if !health.eject_unreachable(now, self.is_probed()) {
            return FollowUp::None;
        }
        self.mark_idle(seen);
        self.count_ejection(EjectionCause::Connect);
        let until = health.facts(now, 1).until;
        self.announce(seen, HealthChange { to: HealthState::Ejected, cause: Some(EjectionCause::Connect), until });
        FollowUp::Probe
    }

    fn record_response(&self, seen: &ObservedEndpoint<'_>, outcome: &Outcome, checks: &PassiveChecks, now: u64) {
        let health = &seen.state.health;
        if !self.is_probed() {
            self.record_connected(seen, now);
        }
        let Some(status) = outcome.effective_status() else {
            // The status of the call follows in its trailers. A call that streams messages may not end for long.
            if outcome.grpc_status == GrpcStatus::Streaming {
                self.record_success(seen, checks, now);
            }
            return;
        };
        let is_gateway_error = is_gateway_error(status);
        let is_server_error = is_listed_or_server_error(&checks.statuses, status);
        let compares_rates = self.attention.load(Relaxed) & COUNTS_RATES != 0;
        if compares_rates {
            seen.state.rates.count(is_gateway_error || is_server_error);
        }
        let error = StatusError(status);
        let seen = &ObservedEndpoint { error: seen.error.or(Some(&error)), ..*seen };
        let mut is_failure = compares_rates && (is_gateway_error || is_server_error);
        for (is_error, threshold, kind, cause) in [
            (is_gateway_error, checks.gateway_errors, FailureKind::GatewayError, EjectionCause::GatewayErrors),
            (is_server_error, checks.server_errors, FailureKind::ServerError, EjectionCause::ServerErrors),
        ] {
            if is_error && threshold > 0 {
                is_failure = true;
                self.count_failure(seen, kind, threshold, cause, now);
            } else {
                health.reset_failures(kind);
            }
        }
        if is_failure {
            self.fail_trial(seen, now);
        } else if is_throttled(outcome, status) {
            // It says nothing about the endpoint, which may limit this client only.
            health.release_claim(now);
        } else {
            self.record_success(seen, checks, now);
        }
    }

    fn record_success(&self, seen: &ObservedEndpoint<'_>, checks: &PassiveChecks, now: u64) {
        match seen.state.health.record_success(now, checks.half_open_successes.max(1)) {
            HalfOpenStep::None | HalfOpenStep::Continues => {}
            HalfOpenStep::Recovered(cause) => {
                let cause = cause.or(Some(EjectionCause::ActiveCheck));
                self.announce(seen, HealthChange { to: HealthState::Available, cause, until: None });
            }
        }
        self.forget_failures(seen.state, now);
    }

    fn record_local_origin(&self, seen: &ObservedEndpoint<'_>, outcome: &Outcome, checks: &PassiveChecks, now: u64) {
        if self.attention.load(Relaxed) & COUNTS_RATES != 0 {
            match outcome.class {
                OutcomeClass::Truncated => seen.state.rates.count_late_failure(),
                _ => seen.state.rates.count(true),
            }
        }
        if checks.local_origin_failures == 0 {
            return seen.state.health.release_claim(now);
        }
        let seen = &ObservedEndpoint { error: seen.error.or(Some(&outcome.class)), ..*seen };
        let threshold = checks.local_origin_failures;
        self.count_failure(seen, FailureKind::LocalOrigin, threshold, EjectionCause::LocalOrigin, now);
        self.fail_trial(seen, now);
    }

    /// Counts a failure, and ejects the endpoint if there are enough. More than enough count as well: another worker
    /// may have counted one in between.
    fn count_failure(
        &self,
        seen: &ObservedEndpoint<'_>,
        kind: FailureKind,
        threshold: u32,
        cause: EjectionCause,
        now: u64,
    ) {
        let failures = seen.state.health.count_failure(kind);
        self.set_has_failures();
        if failures >= threshold && !self.eject(seen, cause, now) {
            // Not looked at again before as many more.
            seen.state.health.reset_failures(kind);
        }
    }

    /// A request has failed that may have been one that the endpoint was tried with.
    fn fail_trial(&self, seen: &ObservedEndpoint<'_>, now: u64) {
        let health = &seen.state.health;
        if health.is_half_open(now) {
            let cause = health.facts(now, 1).cause.filter(|cause| *cause != EjectionCause::ActiveCheck);
            if !self.eject(seen, cause.unwrap_or(EjectionCause::LocalOrigin), now) {
                health.release_claim(now);
            }
        }
    }

    /// Idle connections of all workers to this endpoint are not used any more.
    fn mark_idle(&self, seen: &ObservedEndpoint<'_>) {
        seen.state.health.set_mark(self.marks.fetch_add(1, Relaxed).wrapping_add(1));
    }
}

fn is_throttled(outcome: &Outcome, status: u16) -> bool {
    status == 429 && outcome.class == OutcomeClass::Responded
}

/// The status of a response, for the log.
struct StatusError(u16);

impl fmt::Display for StatusError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "status {}", self.0)
    }
}
