//! The limits and the circuit breaker of an upstream, as configured now, with the state that stays when the
//! configuration changes.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Relaxed, Release},
};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::overload_report::{OverloadReport, RejectionCounters};
use super::{Admission, NotAdmitted, Overloaded, QueuedRequest, RetrySlot, TooManyRetries};
use crate::upstream::circuit_breaker::{CircuitBreaker, CircuitOpen, CircuitPass, CircuitVerdict, RequestArrival};
use crate::upstream::health::UpstreamClock;
use crate::upstream::limits::{AdaptiveConcurrency, QueueEnd, RequestSlots, SlotUse, SuccessRateWindow};
use crate::upstream::settings::{
    AdmissionControl, CircuitBreakerSettings, OverloadLimit, OverloadSettings, is_listed_or_server_error,
};
use crate::upstream::socket_budget::client_slots::ClientSlot;

/// What limits the requests of an upstream.
#[derive(Debug, Default)]
pub(in crate::upstream) struct OverloadControl {
    /// Whether there are rules.
    has_rules: AtomicBool,
    rules: ArcSwapOption<OverloadRules>,
    /// Serializes changes; requests never take it.
    setting: Mutex<()>,
}

/// The settings with their state. Requests hold the rules under which they were admitted.
#[derive(Debug)]
pub(super) struct OverloadRules {
    settings: OverloadSettings,
    circuit: Option<CircuitBreaker>,
    adaptive: Option<Arc<AdaptiveConcurrency>>,
    /// The requests that have ended lately, with the settings of admission control.
    success_rate: Option<(AdmissionControl, Arc<SuccessRateWindow>)>,
    /// Limits are computed and counted, but no request is rejected.
    is_dry_run: bool,
    /// Counts the changes of the rules.
    number: u32,
    state: Arc<OverloadState>,
}

/// What all rules of an upstream have in common, until it has none.
#[derive(Debug)]
struct OverloadState {
    clock: UpstreamClock,
    slots: Arc<RequestSlots>,
    /// The number of the rules of now.
    rules: AtomicU32,
    /// Retries in progress.
    retries: Arc<AtomicU32>,
    rejections: RejectionCounters,
}

impl OverloadControl {
    /// Sets what the configuration says. `name` is the upstream, for the log.
    pub(in crate::upstream) fn set(&self, settings: &OverloadSettings, is_dry_run: bool, name: &dyn std::fmt::Display) {
        let _setting = self.setting.lock();
        let before = self.rules.load_full();
        if settings.is_empty() {
            if let Some(before) = before {
                // Requests that wait get their slots.
                before.state.rules.fetch_add(1, Relaxed);
                before.state.slots.set_limit(u32::MAX);
                before.state.slots.set_adaptive_limit(u32::MAX);
                self.has_rules.store(false, Relaxed);
                self.rules.store(None);
            }
            return;
        }
        if before.as_ref().is_some_and(|before| before.settings == *settings && before.is_dry_run == is_dry_run) {
            return;
        }
        let rules = OverloadRules::new(settings, is_dry_run, before.as_deref(), name);
        rules.apply_slot_limit();
        self.rules.store(Some(Arc::new(rules)));
        self.has_rules.store(true, Release);
    }

    /// Admits a request of this client.
    pub(in crate::upstream) fn admit(
        &self,
        client: ClientSlot,
        arrival: RequestArrival,
    ) -> Result<Admission, NotAdmitted> {
        if !self.has_rules.load(Relaxed) {
            return Ok(Admission::default());
        }
        match self.rules.load_full() {
            None => Ok(Admission::default()),
            Some(rules) => rules.admit(client, arrival),
        }
    }

    /// Admits a connection or a session whose bytes are forwarded unparsed. `client`: that of a connection, which may
    /// wait.
    pub(in crate::upstream) fn admit_unparsed(&self, client: Option<ClientSlot>) -> Result<Admission, NotAdmitted> {
        if !self.has_rules.load(Relaxed) {
            return Ok(Admission::default());
        }
        match self.rules.load_full() {
            None => Ok(Admission::default()),
            Some(rules) => rules.admit_unparsed(client),
        }
    }

    /// Whether outcomes of requests are recorded.
    pub(in crate::upstream) fn has_rules(&self) -> bool {
        self.has_rules.load(Relaxed)
    }

    /// The circuit breaker, if there is one.
    pub(in crate::upstream) fn circuit_settings(&self) -> Option<Arc<CircuitBreakerSettings>> {
        if !self.has_rules.load(Relaxed) {
            return None;
        }
        self.rules.load().as_ref()?.circuit.as_ref().map(|circuit| Arc::clone(circuit.settings()))
    }

    /// Whether the circuit breaker, if there is one, lets only a part of the requests through.
    pub(in crate::upstream) fn is_circuit_open(&self) -> bool {
        let rules = self.rules.load();
        let circuit = rules.as_ref().and_then(|rules| rules.circuit.as_ref().filter(|_| !rules.is_dry_run));
        circuit.is_some_and(CircuitBreaker::is_open)
    }

    /// Whether few requests are let through now, by which the circuit breaker finds out whether the endpoints have
    /// recovered.
    #[inline]
    pub(in crate::upstream) fn is_half_open(&self) -> bool {
        self.has_rules.load(Relaxed) && {
            let rules = self.rules.load();
            let circuit = rules.as_ref().and_then(|rules| rules.circuit.as_ref().filter(|_| !rules.is_dry_run));
            circuit.is_some_and(CircuitBreaker::is_half_open)
        }
    }

    /// Counts a request or connection that another part of the upstream has rejected.
    pub(in crate::upstream) fn count_rejection(&self, limit: OverloadLimit) {
        if let Some(rules) = &*self.rules.load() {
            rules.state.rejections.add(limit);
        }
    }

    /// `None` without limits and circuit breaker.
    pub(in crate::upstream) fn report(&self) -> Option<OverloadReport> {
        self.rules.load().as_ref().map(|rules| rules.report())
    }
}

impl OverloadRules {
    fn new(
        settings: &OverloadSettings,
        is_dry_run: bool,
        before: Option<&OverloadRules>,
        name: &dyn std::fmt::Display,
    ) -> Self {
        let OverloadSettings { limits, circuit_breaker } = settings;
        let circuit = circuit_breaker.as_ref().map(|settings| {
            let kept = before.and_then(|before| before.circuit.as_ref());
            match kept {
                Some(kept) => kept.with_settings(Arc::clone(settings)),
                None => CircuitBreaker::new(Arc::clone(settings), &name.to_string()),
            }
        });
        let adaptive = limits.as_ref().and_then(|limits| limits.adaptive).map(|settings| {
            let kept = before.and_then(|before| before.adaptive.clone());
            let adaptive = kept.unwrap_or_else(|| Arc::new(AdaptiveConcurrency::new(settings)));
            adaptive.set_bounds(settings);
            adaptive
        });
        let success_rate = limits.as_ref().and_then(|limits| limits.admission).map(|settings| {
            let kept = before.and_then(|before| before.success_rate.as_ref());
            let kept = kept.filter(|(_, window)| window.interval() == settings.window);
            let window = kept.map(|(_, window)| Arc::clone(window));
            (settings, window.unwrap_or_else(|| Arc::new(SuccessRateWindow::new(settings.window))))
        });
        let state = before.map_or_else(Arc::default, |before| Arc::clone(&before.state));
        let number = state.rules.fetch_add(1, Relaxed).wrapping_add(1);
        OverloadRules { settings: settings.clone(), circuit, adaptive, success_rate, is_dry_run, number, state }
    }

    /// Sets how many requests may be in progress.
    fn apply_slot_limit(&self) {
        let configured = self.settings.limits.as_ref().and_then(|limits| limits.max_requests).unwrap_or(u32::MAX);
        self.state.slots.set_limit(configured);
        self.state.slots.set_adaptive_limit(self.adaptive.as_ref().map_or(u32::MAX, |adaptive| adaptive.limit()));
    }

    /// Admits a connection or a session. The adaptive limit does not apply: it follows the time to the head of
    /// responses, which these do not have.
    fn admit_unparsed(self: Arc<Self>, client: Option<ClientSlot>) -> Result<Admission, NotAdmitted> {
        self.pass_admission_control()?;
        // Bytes are forwarded as they come, so that nothing of it is awaited.
        let circuit = self.pass_circuit(RequestArrival::Complete, client)?;
        let slots = &self.state.slots;
        let slot = match (slots.try_take(SlotUse::Tunnel, client), client) {
            (Some(slot), _) => slot,
            (None, _) if self.is_dry_run => {
                self.state.rejections.add(OverloadLimit::Requests);
                slots.take_anyway(client)
            }
            (None, Some(client)) => {
                circuit.into_iter().for_each(CircuitPass::not_sent);
                return Err(self.enqueue(client, RequestArrival::Complete));
            }
            (None, None) => return Err(self.reject(OverloadLimit::Requests, Overloaded::OverLimit).into()),
        };
        Ok(Admission::hold(self, slot, circuit))
    }

    fn admit(self: Arc<Self>, client: ClientSlot, arrival: RequestArrival) -> Result<Admission, NotAdmitted> {
        self.pass_admission_control()?;
        let circuit = self.pass_circuit(arrival, Some(client))?;
        let slots = &self.state.slots;
        let slot = match slots.try_take(SlotUse::Request, Some(client)) {
            Some(slot) => slot,
            None if self.is_dry_run => {
                self.state.rejections.add(self.slot_limit());
                slots.take_anyway(Some(client))
            }
            None => {
                circuit.into_iter().for_each(CircuitPass::not_sent);
                return Err(self.enqueue(client, arrival));
            }
        };
        Ok(Admission::hold(self, slot, circuit))
    }

    /// Lets a request wait that got no slot, if it may.
    fn enqueue(self: Arc<Self>, client: ClientSlot, arrival: RequestArrival) -> NotAdmitted {
        let max_pending = self.settings.limits.as_ref().map_or(0, |limits| limits.max_pending.unwrap_or(0));
        if max_pending == 0 || self.queue_timeout().is_zero() {
            return NotAdmitted::Overloaded(self.reject(self.slot_limit(), Overloaded::OverLimit));
        }
        match self.state.slots.enqueue(client, max_pending as usize) {
            Ok(place) => NotAdmitted::Queued(Box::new(QueuedRequest { rules: self, place, client, arrival })),
            Err(QueueEnd::Full | QueueEnd::TimedOut) => {
                NotAdmitted::Overloaded(self.reject(OverloadLimit::Pending, Overloaded::OverLimit))
            }
        }
    }

    pub(super) fn queue_timeout(&self) -> Duration {
        self.settings.limits.as_ref().map_or(Duration::ZERO, |limits| limits.queue_timeout)
    }

    /// The limit that determines the number of slots.
    fn slot_limit(&self) -> OverloadLimit {
        let configured = self.settings.limits.as_ref().and_then(|limits| limits.max_requests);
        match configured {
            Some(configured) if configured.max(1) <= self.state.slots.limit() => OverloadLimit::Requests,
            _ => OverloadLimit::Adaptive,
        }
    }

    /// Rejects a share of the requests while too many fail.
    fn pass_admission_control(&self) -> Result<(), Overloaded> {
        let Some((settings, window)) = &self.success_rate else { return Ok(()) };
        let share = window.rejected_share(self.state.clock.now(), settings);
        if share > 0.0 && fastrand::f64() < share {
            self.count_or_reject(OverloadLimit::Admission, Overloaded::OverLimit)?;
        }
        Ok(())
    }

    /// Whether the circuit lets a request through. `None` without a circuit breaker, and if it is only a dry run.
    pub(super) fn pass_circuit(
        &self,
        arrival: RequestArrival,
        client: Option<ClientSlot>,
    ) -> Result<Option<CircuitPass>, Overloaded> {
        let Some(circuit) = &self.circuit else { return Ok(None) };
        match circuit.admit(arrival, client) {
            Ok(pass) => Ok(Some(pass)),
            Err(CircuitOpen { retry_after }) => {
                let retry_after = retry_after.max(Duration::from_secs(1));
                self.count_or_reject(OverloadLimit::Circuit, Overloaded::CircuitOpen { retry_after })?;
                Ok(None)
            }
        }
    }

    fn count_or_reject(&self, limit: OverloadLimit, overloaded: Overloaded) -> Result<(), Overloaded> {
        let overloaded = self.reject(limit, overloaded);
        if self.is_dry_run { Ok(()) } else { Err(overloaded) }
    }

    /// Counts a request that is rejected.
    pub(super) fn reject(&self, limit: OverloadLimit, overloaded: Overloaded) -> Overloaded {
        self.state.rejections.add(limit);
        overloaded
    }

    fn max_retries(&self) -> Option<u32> {
        self.settings.limits.as_ref()?.max_retries.map(|limit| limit.max(1))
    }

    /// A retry in progress; `None` if they are not limited.
    pub(super) fn take_retry(&self) -> Result<Option<RetrySlot>, TooManyRetries> {
        let Some(limit) = self.max_retries() else { return Ok(None) };
        let taken = RetrySlot::take(&self.state.retries, limit).map(Some);
        if taken.is_err() {
            self.state.rejections.add(OverloadLimit::Retries);
        }
        if self.is_dry_run { Ok(taken.unwrap_or(None)) } else { taken }
    }

    /// Whether a response with this status is an error.
    pub(super) fn is_error(&self, status: u16) -> bool {
        let statuses = self.circuit.as_ref().map_or(&[][..], |circuit| &circuit.settings().statuses);
        is_listed_or_server_error(statuses, status)
    }

    pub(super) fn record_success_rate(&self, verdict: CircuitVerdict) {
        if let Some((_, window)) = &self.success_rate {
            window.record(self.state.clock.now(), matches!(verdict, CircuitVerdict::Success { .. }));
        }
    }

    /// Records the time to the head of a response, which the limit follows.
    pub(super) fn record_in_limit(&self, time: Duration) {
        if let Some(adaptive) = &self.adaptive
            && adaptive.record(time, self.state.slots.working()).is_some()
            // A request of earlier rules does not set their limit again.
            && self.state.rules.load(Relaxed) == self.number
        {
            self.apply_slot_limit();
        }
    }

    pub(super) fn record_in_circuit(&self, pass: &mut CircuitPass, verdict: CircuitVerdict) {
        if let Some(circuit) = &self.circuit {
            circuit.record(pass, verdict);
        }
    }

    fn report(&self) -> OverloadReport {
        let OverloadState { slots, retries, rejections, .. } = &*self.state;
        OverloadReport {
            active: slots.active(),
            limit: Some(slots.limit()).filter(|limit| *limit != u32::MAX),
            pending: slots.pending(),
            retries: retries.load(Relaxed),
            rejections: rejections.values(),
            circuit: self.circuit.as_ref().map(CircuitBreaker::report),
            is_dry_run: self.is_dry_run,
        }
    }
}

impl Default for OverloadState {
    fn default() -> Self {
        OverloadState {
            clock: UpstreamClock::default(),
            slots: RequestSlots::new(),
            rules: AtomicU32::new(0),
            retries: Arc::default(),
            rejections: RejectionCounters::default(),
        }
    }
}

impl From<Overloaded> for NotAdmitted {
    fn from(overloaded: Overloaded) -> Self {
        NotAdmitted::Overloaded(overloaded)
    }
}
