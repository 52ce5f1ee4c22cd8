//! The transitions of the health of one endpoint. What causes them is decided elsewhere.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::consecutive::{ConsecutiveFailures, FailureKind};
use super::probing::ProbeSeries;
use super::word::{
    ACTIVE_CHECK, AWAITS_CHECK, CAUSES, CLAIMED, CONNECT, DRY_RUN, HALF_OPEN, HealthWord, PROBED, SUSPECT, TIMED,
};
use super::{Availability, EjectionCause};

/// The health of one endpoint. Times are milliseconds of the upstream's clock. Picks read it while an endpoint is not
/// available, and few requests write it.
#[derive(Debug, Default)]
pub(in crate::upstream) struct EndpointHealth {
    /// A [`HealthWord`].
    word: AtomicU64,
    consecutive: ConsecutiveFailures,
    /// Since when the endpoint is available; 0 if it always was.
    in_service_since: AtomicU64,
    probes: ProbeSeries,
    /// Ejections because of responses, at the time of the last one.
    ejections: AtomicU32,
    /// Requests that have succeeded while the endpoint was half-open.
    half_open_successes: AtomicU32,
    /// Incremented when probing has to begin, and the last value for which it has begun.
    ordered_probes: AtomicU32,
    begun_probes: AtomicU32,
    /// The number of the last mark: idle connections that are older are not used.
    mark: AtomicU32,
}

/// What a successful request has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum HalfOpenStep {
    /// The endpoint was not half-open.
    None,
    /// More requests must succeed.
    Continues,
    /// The endpoint is available. It was ejected because of this.
    Recovered(Option<EjectionCause>),
}

/// The health of an endpoint at one time, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct HealthFacts {
    pub(in crate::upstream) availability: Availability,
    /// Why it is, or would be, ejected.
    pub(in crate::upstream) cause: Option<EjectionCause>,
    /// Whether the causes have no effect.
    pub(in crate::upstream) is_dry_run: bool,
    /// When the ejection ends, if time ends it.
    pub(in crate::upstream) until: Option<u64>,
    pub(in crate::upstream) ejections: u32,
    pub(in crate::upstream) connect_failures: u32,
    pub(in crate::upstream) local_origin_failures: u32,
    pub(in crate::upstream) gateway_errors: u32,
    pub(in crate::upstream) server_errors: u32,
}

/// What ejects an endpoint for a time.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct TimedEjection {
    pub(in crate::upstream) cause: EjectionCause,
    pub(in crate::upstream) until: u64,
    /// The number of this ejection.
    pub(in crate::upstream) number: u32,
    pub(in crate::upstream) is_dry_run: bool,
    /// Whether an active check must pass before requests are tried.
    pub(in crate::upstream) awaits_check: bool,
}

impl EndpointHealth {
    /// The health of an endpoint that is added to others.
    pub(in crate::upstream) fn added(now: u64) -> Self {
        EndpointHealth { in_service_since: AtomicU64::new(now), ..EndpointHealth::default() }
    }

    /// Whether the endpoint is not ejected. Suspect ones are not, half-open ones are.
    #[inline]
    pub(in crate::upstream) fn is_healthy(&self) -> bool {
        let packed = self.word.load(Relaxed);
        packed == 0 || {
            let word = HealthWord::unpack(packed);
            word.applied_causes() == 0 && (!word.has(HALF_OPEN) || word.has(DRY_RUN))
        }
    }

    /// Whether the endpoint is ejected because no connection can be opened.
    pub(in crate::upstream) fn is_unreachable(&self) -> bool {
        self.load().has(CONNECT)
    }

    /// Whether the endpoint may get a request.
    #[inline]
    pub(in crate::upstream) fn availability(&self, now: u64) -> Availability {
        match self.word.load(Relaxed) {
            0 => Availability::Available,
            packed => HealthWord::unpack(packed).availability(now),
        }
    }

    /// Whether nothing is to be remembered about the endpoint: it is available, and its last request did not fail.
    pub(in crate::upstream) fn is_clean(&self) -> bool {
        self.word.load(Relaxed) == 0 && self.consecutive.is_zero()
    }

    /// Since when the endpoint is available, in milliseconds of the upstream's clock; 0 if it always was.
    pub(in crate::upstream) fn in_service_since(&self) -> u64 {
        self.in_service_since.load(Relaxed)
    }

    /// Makes the calling request the one that is tried while the endpoint is half-open. Requests that cannot be sent
    /// again do it only if no others have for a second. Returns when the claim ends if no result is reported for it.
    pub(in crate::upstream) fn claim_half_open(&self, now: u64, is_repeatable: bool) -> Option<u64> {
        let until = now + CLAIM_MILLIS;
        let claimed = self.change(|word| {
            let is_due = is_repeatable || word.until.saturating_add(UNREPEATABLE_DELAY_MILLIS) <= now;
            let is_claimable = is_due && word.availability(now) == Availability::HalfOpen;
            let opened = if word.has(TIMED) { HALF_OPEN } else { 0 };
            is_claimable.then(|| HealthWord { until, ..word.with(CLAIMED | opened) })
        });
        claimed.map(|_| until)
    }

    /// The request with this claim is over. Another one may try, unless there was a result or another claim.
    pub(in crate::upstream) fn end_claim(&self, claimed_until: u64, now: u64) {
        self.change(|word| {
            let is_own = word.has(CLAIMED) && word.until == claimed_until;
            is_own.then(|| HealthWord { until: now, ..word.without(CLAIMED) })
        });
    }

    /// The request that is tried has ended without a result. From `next` on, another one may try.
    pub(in crate::upstream) fn release_claim(&self, next: u64) {
        if self.load().has(CLAIMED) {
            self.change(|word| word.has(CLAIMED).then(|| HealthWord { until: next, ..word.without(CLAIMED) }));
        }
    }

    /// How long requests wait before they try again to connect to an endpoint that is not probed, in milliseconds.
    pub(in crate::upstream) fn reconnect_delay(&self) -> u64 {
        let word = self.load();
        if word.has(CONNECT) && !word.has(PROBED) { self.probes.delay() } else { 0 }
    }

    /// Whether a request that fails now ejects the endpoint again.
    pub(in crate::upstream) fn is_half_open(&self, now: u64) -> bool {
        let word = self.load();
        let is_tried = word.has(HALF_OPEN | CLAIMED) || word.until <= now;
        !word.has(DRY_RUN) && word.has(TIMED | HALF_OPEN) && is_tried
    }

    /// A request has succeeded. `needed`: how many must while the endpoint is half-open.
    pub(in crate::upstream) fn record_success(&self, now: u64, needed: u32) -> HalfOpenStep {
        let word = self.load();
        let is_ejected = word.until > now && !word.has(CLAIMED);
        let waits = word.has(CONNECT | ACTIVE_CHECK) || word.has(AWAITS_CHECK) && !word.has(HALF_OPEN);
        let waits = waits && !word.has(DRY_RUN);
        if !word.has(TIMED | HALF_OPEN) || is_ejected || waits {
            return HalfOpenStep::None;
        }
        let successes = self.half_open_successes.fetch_add(1, Relaxed) + 1;
        if successes < needed && !word.has(DRY_RUN) {
            self.change(|word| {
                let is_open = word.has(TIMED | HALF_OPEN);
                is_open.then(|| HealthWord { until: now, ..word.with(HALF_OPEN).without(CLAIMED) })
            });
            return HalfOpenStep::Continues;
        }
        let recovered = self.change(|word| {
            let is_open = word.has(TIMED | HALF_OPEN) && !word.has(CONNECT | ACTIVE_CHECK);
            is_open
                .then(|| HealthWord { until: 0, ..word.without(TIMED | HALF_OPEN | CLAIMED | AWAITS_CHECK | DRY_RUN) })
        });
        let Some(before) = recovered else { return HalfOpenStep::None };
        self.half_open_successes.store(0, Relaxed);
        self.consecutive.reset_all();
        self.in_service_since.store(now, Relaxed);
        HalfOpenStep::Recovered(before.cause(CAUSES))
    }

    /// Ejects the endpoint for a time, or again if a request has failed that it was tried with. Returns whether this
    /// changes anything: failures of requests that began before an ejection do not extend it.
    pub(in crate::upstream) fn eject(&self, now: u64, ejection: TimedEjection) -> bool {
        let TimedEjection { cause, until, number, is_dry_run, awaits_check } = ejection;
        let ejected = self.change(|word| {
            let is_over = word.has(CLAIMED | HALF_OPEN) || word.until <= now;
            let kept = word.flags & (CONNECT | PROBED | ACTIVE_CHECK);
            let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
            let flags = kept | cause.bit() | flag(is_dry_run, DRY_RUN) | flag(awaits_check, AWAITS_CHECK);
            (!word.has(TIMED) || is_over).then_some(HealthWord { flags, until })
        });
        if ejected.is_none() {
            return false;
        }
        self.ejections.store(number, Relaxed);
        self.half_open_successes.store(0, Relaxed);
        self.consecutive.reset_all();
        true
    }

    /// The number of the next ejection. Each `interval` in service reduces it by one.
    pub(in crate::upstream) fn next_ejection(&self, now: u64, interval: u64) -> u32 {
        self.counted_ejections(now, interval).saturating_add(1)
    }

    fn counted_ejections(&self, now: u64, interval: u64) -> u32 {
        let ejections = self.ejections.load(Relaxed);
        if ejections == 0 || self.load().has(TIMED) {
            return ejections;
        }
        let in_service = now.saturating_sub(self.in_service_since());
        ejections.saturating_sub(u32::try_from(in_service / interval.max(1)).unwrap_or(u32::MAX))
    }

    /// No connection could be opened. `is_probed`: probes decide when it is tried again. Returns whether the endpoint
    /// was ejected by this, or again after a request has tried it.
    pub(in crate::upstream) fn eject_unreachable(&self, now: u64, is_probed: bool) -> bool {
        let in_service = now.saturating_sub(self.in_service_since());
        let mut reconnect_at = None;
        let ejected = self.change(|word| {
            let is_retried = word.has(CLAIMED) || word.until <= now;
            if word.has(CONNECT) && (word.has(PROBED) || !is_retried) {
                return None;
            }
            let until = match is_probed {
                // A request that was tried because of another cause does so again once connections can be opened.
                true if word.has(CLAIMED) => now,
                true => word.until,
                false => *reconnect_at.get_or_insert_with(|| {
                    if !word.has(CONNECT) {
                        self.probes.begin(now, in_service);
                    }
                    now + self.probes.next_reconnect()
                }),
            };
            let flags = if is_probed { CONNECT | PROBED } else { CONNECT };
            Some(HealthWord { until, ..word.with(flags).without(SUSPECT | CLAIMED) })
        });
        if is_probed && ejected.is_some_and(|word| !word.has(CONNECT)) {
            self.probes.begin(now, in_service);
        }
        if ejected.is_some() && is_probed {
            self.ordered_probes.fetch_add(1, Relaxed);
        }
        ejected.is_some()
    }

    /// A connection was opened. Returns whether the endpoint was suspect, or ejected because none could be.
    pub(in crate::upstream) fn record_connected(&self, now: u64) -> Option<Availability> {
        self.consecutive.reset(FailureKind::Connect);
        if !self.load().has(CONNECT | SUSPECT) {
            return None;
        }
        let connected = self.change(|word| {
            let was_reconnecting = word.has(CONNECT) && !word.has(PROBED);
            let kept = word.without(CONNECT | PROBED | SUSPECT | if was_reconnecting { CLAIMED } else { 0 });
            let until = if kept.has(CAUSES | HALF_OPEN) { kept.until } else { 0 };
            word.has(CONNECT | SUSPECT).then_some(HealthWord { until, ..kept })
        })?;
        if !connected.has(CONNECT) {
            return Some(Availability::Suspect);
        }
        if !connected.has(PROBED) {
            self.probes.reset();
        }
        if !connected.without(CONNECT).has(CAUSES) {
            self.in_service_since.store(now, Relaxed);
        }
        Some(Availability::Ejected(EjectionCause::Connect))
    }

    /// A connection looks dead. Returns whether the endpoint was available before.
    pub(in crate::upstream) fn suspect(&self, is_probed: bool) -> bool {
        let suspected = self.change(|word| {
            let is_available = word.applied_causes() == 0 && !word.has(SUSPECT | HALF_OPEN);
            is_available.then(|| word.with(SUSPECT))
        });
        if suspected.is_some() && is_probed {
            self.ordered_probes.fetch_add(1, Relaxed);
        }
        suspected.is_some()
    }

    /// The active check fails. Returns whether the endpoint was not ejected by it before.
    pub(in crate::upstream) fn record_failed_check(&self, is_dry_run: bool) -> bool {
        let flags = if is_dry_run { ACTIVE_CHECK | DRY_RUN } else { ACTIVE_CHECK };
        self.change(|word| (!word.has(ACTIVE_CHECK)).then(|| word.with(flags).without(CLAIMED | HALF_OPEN))).is_some()
    }

    /// The active check passes: the endpoint is half-open, or available if `tries_requests` is false. Returns whether
    /// that changes anything: an ejection because of responses must have ended before.
    pub(in crate::upstream) fn record_passed_check(&self, now: u64, tries_requests: bool) -> bool {
        let opened = if tries_requests { HALF_OPEN } else { 0 };
        let passed = self.change(|word| {
            let ends_wait = word.has(AWAITS_CHECK) && !word.has(HALF_OPEN) && word.until <= now;
            let without_check = word.without(ACTIVE_CHECK);
            if word.has(DRY_RUN) {
                let kept = if without_check.has(TIMED) { without_check } else { without_check.without(DRY_RUN) };
                return word.has(ACTIVE_CHECK).then_some(kept);
            }
            let is_timed = without_check.has(TIMED) && word.until > now;
            match word.has(ACTIVE_CHECK) {
                // The check must pass again after the time of the other cause.
                true if is_timed => Some(without_check),
                true => Some(HealthWord { until: if tries_requests { now } else { 0 }, ..without_check.with(opened) }),
                false => ends_wait.then(|| HealthWord { until: now, ..word.with(HALF_OPEN) }),
            }
        });
        if passed.is_some() && self.load().flags & CAUSES == 0 && !tries_requests {
            self.in_service_since.store(now, Relaxed);
        }
        passed.is_some()
    }

    /// Forgets the causes of responses and checks, or only of checks, because other settings apply. Running ejections
    /// of both are not changed by other times: an edit never lengthens them.
    pub(in crate::upstream) fn forget(&self, now: u64, only_checks: bool) -> bool {
        let forgotten = self.change(|word| {
            let causes = if only_checks { ACTIVE_CHECK | AWAITS_CHECK } else { ACTIVE_CHECK | AWAITS_CHECK | TIMED };
            let kept = word.without(causes);
            let kept = if kept.has(TIMED) { kept } else { kept.without(HALF_OPEN | CLAIMED | DRY_RUN) };
            let until = if kept.has(CAUSES) { kept.until } else { 0 };
            word.has(causes | HALF_OPEN).then_some(HealthWord { until, ..kept })
        });
        if forgotten.is_some() && self.is_healthy() {
            self.in_service_since.store(now, Relaxed);
        }
        forgotten.is_some()
    }

    /// Counts a failure. Returns the consecutive failures of this kind.
    pub(in crate::upstream) fn count_failure(&self, kind: FailureKind) -> u32 {
        self.consecutive.add(kind)
    }

    pub(in crate::upstream) fn reset_failures(&self, kind: FailureKind) {
        self.consecutive.reset(kind);
    }

    /// Marks the idle connections so far.
    pub(in crate::upstream) fn set_mark(&self, mark: u32) {
        self.mark.store(mark, Relaxed);
    }

    /// The number of the last mark.
    pub(in crate::upstream) fn mark(&self) -> u32 {
        self.mark.load(Relaxed)
    }

    /// Whether the endpoint is to be probed, and no one has taken that over.
    pub(in crate::upstream) fn take_probe_order(&self) -> Option<u32> {
        let ordered = self.ordered_probes.load(Relaxed);
        let is_new = self.begun_probes.swap(ordered, Relaxed) != ordered;
        (is_new && self.needs_probe(ordered)).then_some(ordered)
    }

    /// The endpoint is to be probed anew.
    pub(in crate::upstream) fn order_probe(&self) {
        self.ordered_probes.fetch_add(1, Relaxed);
    }

    /// Whether the probes of this order are still needed.
    pub(in crate::upstream) fn needs_probe(&self, order: u32) -> bool {
        let word = self.load();
        self.ordered_probes.load(Relaxed) == order && (word.has(SUSPECT) || word.has(CONNECT) && word.has(PROBED))
    }

    /// How long to wait before the next probe, in milliseconds. A suspect endpoint is probed at once.
    pub(in crate::upstream) fn probe_delay(&self, now: u64) -> u64 {
        if self.load().has(CONNECT) { self.probes.next_delay(now) } else { 0 }
    }

    /// `interval`: see [`Self::next_ejection`].
    pub(in crate::upstream) fn facts(&self, now: u64, interval: u64) -> HealthFacts {
        let word = self.load();
        HealthFacts {
            availability: word.availability(now),
            cause: word.cause(CAUSES),
            is_dry_run: word.has(DRY_RUN),
            until: (word.has(TIMED) || word.has(CONNECT) && !word.has(PROBED)).then_some(word.until),
            ejections: self.counted_ejections(now, interval),
            connect_failures: self.consecutive.count(FailureKind::Connect),
            local_origin_failures: self.consecutive.count(FailureKind::LocalOrigin),
            gateway_errors: self.consecutive.count(FailureKind::GatewayError),
            server_errors: self.consecutive.count(FailureKind::ServerError),
        }
    }

    /// Whether the endpoint is available, without any condition.
    pub(in crate::upstream) fn is_plain(&self) -> bool {
        self.word.load(Relaxed) == 0
    }

    pub(in crate::upstream) fn has_failures(&self) -> bool {
        !self.consecutive.is_zero()
    }

    /// Whether anything ejects the endpoint, with an effect or not.
    pub(in crate::upstream) fn has_cause(&self) -> bool {
        self.load().has(CAUSES)
    }

    /// Whether responses or checks eject the endpoint, with an effect or not.
    pub(in crate::upstream) fn is_ejected_by_observation(&self) -> bool {
        self.load().has(TIMED | ACTIVE_CHECK)
    }

    fn load(&self) -> HealthWord {
        HealthWord::unpack(self.word.load(Relaxed))
    }

    /// Changes the state unless `change` returns `None`. Returns the state before.
    fn change(&self, mut change: impl FnMut(HealthWord) -> Option<HealthWord>) -> Option<HealthWord> {
        let changed = |packed| change(HealthWord::unpack(packed)).map(HealthWord::pack);
        self.word.fetch_update(Relaxed, Relaxed, changed).ok().map(HealthWord::unpack)
    }
}

/// How long one request may try a half-open endpoint before another one may.
const CLAIM_MILLIS: u64 = 10_000;
/// How long requests that cannot be sent again leave a half-open endpoint to others.
const UNREPEATABLE_DELAY_MILLIS: u64 = 1_000;

#[cfg(test)]
mod tests;
