//! The circuit breaker of an upstream: while too many requests fail, most get no endpoint, so that the endpoints can
//! recover and clients do not wait. All workers share its state.
//!
//! ```text
//!            too many errors               openFor has passed
//!   closed ─────────────────▶ open ─────────────────────────────▶ half-open: few requests at a time
//!      ▲                       ▲ ▲                                     │  │
//!      │                       │ └──── an error: twice as long ────────┘  │ some successes in a row
//!      │ rampUp has passed     └────── too many errors ─────┐             ▼
//!      └─────────────────────────────────────────────── closing: a growing share of the requests
//! ```
//!
//! Only requests that began in a phase count for it: a timeout from before the circuit opened says nothing about the
//! endpoints of now.
//!
//! A client must not keep a circuit half-open. Requests that are still arriving have places of their own, get none
//! while complete requests come, and leave them to others after ten seconds, whatever they do: first to those of
//! clients whose last request of this kind had a result.

mod phase;
#[cfg(test)]
mod tests;
mod trials;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::health::UpstreamClock;
use super::outcome::EndpointTime;
use super::settings::CircuitBreakerSettings;
use super::sliding_count::{SlidingCount, millis};
use super::socket_budget::client_slots::ClientSlot;
pub use phase::CircuitPhase;
use phase::{PhaseNumber, PhaseStore};
pub use trials::RequestArrival;
use trials::{Trial, TrialEnd, TrialRequest, Trials};

/// The circuit breaker with its settings. The state stays when they change.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    settings: Arc<CircuitBreakerSettings>,
    window: Arc<CircuitWindow>,
    state: Arc<CircuitState>,
}

/// The requests of the last interval.
#[derive(Debug)]
struct CircuitWindow {
    requests: SlidingCount,
    errors: SlidingCount,
    slow: SlidingCount,
}

#[derive(Debug)]
struct CircuitState {
    /// The upstream, for the log.
    name: Box<str>,
    clock: UpstreamClock,
    phase: PhaseStore,
    /// The end of the open phase, or the start of the closing one, in milliseconds of the clock.
    time: AtomicU64,
    consecutive_errors: AtomicU32,
    /// The requests that a half-open circuit is tried with.
    trials: Trials,
    /// Successes in a row of a half-open circuit.
    successes: AtomicU32,
    /// How often the circuit has opened since it was last closed.
    openings: AtomicU32,
    /// How often each phase has begun.
    transitions: [AtomicU64; 4],
    /// Serializes transitions; requests of a phase that lasts never take it.
    changing: Mutex<()>,
}

/// A request that the circuit lets through.
#[derive(Debug)]
pub(super) struct CircuitPass {
    number: PhaseNumber,
    /// The place of the request among the few of a half-open circuit, with the state that has it.
    probe: Option<(Arc<CircuitState>, Trial)>,
}

/// What a request has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CircuitVerdict {
    Success { waited: EndpointTime },
    Error,
}

/// The circuit rejects a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CircuitOpen {
    /// After which time another request is worth the attempt.
    pub(super) retry_after: Duration,
}

/// The state of a circuit breaker, for metrics and debug output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitReport {
    pub phase: CircuitPhase,
    /// How long the circuit stays open; zero in other phases.
    pub open_for: Duration,
    /// Requests and errors in the window.
    pub requests: u64,
    pub errors: u64,
    /// How often each phase has begun, in the order of [`CircuitPhase`].
    pub transitions: [u64; 4],
}

impl CircuitBreaker {
    /// `name` is the upstream, for the log.
    pub(super) fn new(settings: Arc<CircuitBreakerSettings>, name: &str) -> Self {
        let state = CircuitState {
            name: name.into(),
            clock: UpstreamClock::default(),
            phase: PhaseStore::default(),
            time: AtomicU64::new(0),
            consecutive_errors: AtomicU32::new(0),
            trials: Trials::default(),
            successes: AtomicU32::new(0),
            openings: AtomicU32::new(0),
            transitions: [const { AtomicU64::new(0) }; 4],
            changing: Mutex::new(()),
        };
        CircuitBreaker { window: CircuitWindow::new(settings.window), settings, state: Arc::new(state) }
    }

    /// The same circuit with other settings. Its window starts again only if its length changes.
    pub(super) fn with_settings(&self, settings: Arc<CircuitBreakerSettings>) -> Self {
        let window = match settings.window == self.settings.window {
            true => Arc::clone(&self.window),
            false => CircuitWindow::new(settings.window),
        };
        CircuitBreaker { settings, window, state: Arc::clone(&self.state) }
    }

    pub(super) fn settings(&self) -> &Arc<CircuitBreakerSettings> {
        &self.settings
    }

    /// Whether only a part of the requests is sent, or none.
    pub(super) fn is_open(&self) -> bool {
        self.state.phase.load().1 != CircuitPhase::Closed
    }

    /// Whether few requests are sent now, by which the circuit is tried.
    pub(super) fn is_half_open(&self) -> bool {
        let CircuitState { phase, clock, time, .. } = &*self.state;
        match phase.load().1 {
            CircuitPhase::HalfOpen => true,
            // The next request begins the phase.
            CircuitPhase::Open => clock.now() >= time.load(Relaxed),
            CircuitPhase::Closed | CircuitPhase::Closing => false,
        }
    }

    /// Whether a request of this client may be sent now.
    pub(super) fn admit(
        &self,
        arrival: RequestArrival,
        client: Option<ClientSlot>,
    ) -> Result<CircuitPass, CircuitOpen> {
        let CircuitBreaker { settings, state, .. } = self;
        // A transition is followed by another look at most three times: each begins a later phase.
        loop {
            let (number, phase) = state.phase.load();
            let pass = CircuitPass { number, probe: None };
            match phase {
                CircuitPhase::Closed => return Ok(pass),
                CircuitPhase::Open => {
                    let (now, until) = (state.clock.now(), state.time.load(Relaxed));
                    if now < until {
                        return Err(CircuitOpen { retry_after: Duration::from_millis(until - now) });
                    }
                    self.begin(number, CircuitPhase::HalfOpen);
                }
                CircuitPhase::HalfOpen => {
                    let rejected = CircuitOpen { retry_after: Duration::ZERO };
                    let (now, open_until) = (state.clock.now(), state.time.load(Relaxed));
                    let request = TrialRequest { arrival, client };
                    let trial = state.trials.begin(number, request, settings.probes.max(1), open_until, now);
                    let pass = trial.map(|trial| CircuitPass { number, probe: Some((Arc::clone(state), trial)) });
                    return pass.ok_or(rejected);
                }
                CircuitPhase::Closing => {
                    let (passed, ramp_up) = (self.closing_for(), millis(settings.ramp_up));
                    if passed < ramp_up {
                        let share = (passed as f64 / ramp_up as f64).max(MIN_SHARE);
                        let rejected = CircuitOpen { retry_after: Duration::ZERO };
                        return if fastrand::f64() < share { Ok(pass) } else { Err(rejected) };
                    }
                    self.begin(number, CircuitPhase::Closed);
                }
            }
        }
    }

    /// Records what a request has shown, which ends its part in a half-open circuit.
    pub(super) fn record(&self, pass: &mut CircuitPass, verdict: CircuitVerdict) {
        let CircuitBreaker { settings, window, state } = self;
        let (number, phase) = state.phase.load();
        if number != pass.number {
            return pass.end_probe(TrialEnd::Result);
        }
        let slow_after = settings.slow.map(|slow| slow.after);
        let (is_error, is_slow) = match verdict {
            CircuitVerdict::Error => (true, false),
            CircuitVerdict::Success { waited } => (false, slow_after.is_some_and(|after| waited.at_least() > after)),
        };
        match phase {
            CircuitPhase::Open => {}
            CircuitPhase::HalfOpen => {
                if is_error || is_slow {
                    self.begin(number, CircuitPhase::Open);
                } else if state.successes.fetch_add(1, Relaxed) + 1 >= settings.successes.max(1) {
                    self.begin(number, CircuitPhase::Closing);
                }
                // Only now, so that no other request begins meanwhile.
                pass.end_probe(TrialEnd::Result);
            }
            CircuitPhase::Closed | CircuitPhase::Closing => {
                let now = state.clock.now();
                window.requests.add(now);
                if is_error {
                    window.errors.add(now);
                    let consecutive = state.consecutive_errors.fetch_add(1, Relaxed).saturating_add(1);
                    if settings.consecutive.is_some_and(|limit| consecutive >= limit.max(1)) {
                        return self.begin(number, CircuitPhase::Open);
                    }
                } else if state.consecutive_errors.load(Relaxed) != 0 {
                    state.consecutive_errors.store(0, Relaxed);
                }
                if is_slow {
                    window.slow.add(now);
                }
                if (is_error || is_slow) && self.has_too_many(now) {
                    self.begin(number, CircuitPhase::Open);
                }
            }
        }
    }

    pub(super) fn report(&self) -> CircuitReport {
        let CircuitBreaker { settings, window, state } = self;
        let (now, phase) = (state.clock.now(), state.phase.load().1);
        let left = state.time.load(Relaxed).saturating_sub(now);
        // Without requests nothing begins the next phase.
        let phase = match phase {
            CircuitPhase::Open if left == 0 => CircuitPhase::HalfOpen,
            CircuitPhase::Closing if self.closing_for() >= millis(settings.ramp_up) => CircuitPhase::Closed,
            phase => phase,
        };
        CircuitReport {
            phase,
            open_for: Duration::from_millis(if phase == CircuitPhase::Open { left } else { 0 }),
            requests: window.requests.sum(now),
            errors: window.errors.sum(now),
            transitions: state.transitions.each_ref().map(|count| count.load(Relaxed)),
        }
    }

    /// Whether the window has so many errors or slow responses that the circuit opens.
    fn has_too_many(&self, now: u64) -> bool {
        let CircuitBreaker { settings, window, .. } = self;
        let requests = window.requests.sum(now);
        let is_at_least =
            |count: &SlidingCount, percent: u8| count.sum(now) * 100 >= u64::from(percent.max(1)) * requests;
        requests >= u64::from(settings.min_requests.max(1))
            && (is_at_least(&window.errors, settings.error_percent)
                || settings.slow.is_some_and(|slow| is_at_least(&window.slow, slow.percent)))
    }

    /// For how many milliseconds the circuit is closing.
    fn closing_for(&self) -> u64 {
        self.state.clock.now().saturating_sub(self.state.time.load(Relaxed))
    }

    /// Begins a phase, if the one with this number has not ended yet.
    #[cold]
    fn begin(&self, number: PhaseNumber, phase: CircuitPhase) {
        let CircuitBreaker { settings, window, state } = self;
        let _changing = state.changing.lock();
        if state.phase.load().0 != number {
            return;
        }
        let now = state.clock.now();
        let mut open_millis = 0;
        match phase {
            CircuitPhase::Closed => state.openings.store(0, Relaxed),
            CircuitPhase::Open => {
                let openings = state.openings.fetch_add(1, Relaxed);
                open_millis = open_time(settings, openings, fastrand::f64());
                state.time.store(now.saturating_add(open_millis), Relaxed);
            }
            CircuitPhase::HalfOpen => {}
            CircuitPhase::Closing => state.time.store(now, Relaxed),
        }
        window.clear();
        state.consecutive_errors.store(0, Relaxed);
        state.successes.store(0, Relaxed);
        state.transitions[phase as usize].fetch_add(1, Relaxed);
        // Published last, with all that belongs to the phase.
        state.phase.advance(phase);
        let open_for = Duration::from_millis(open_millis);
        match phase {
            CircuitPhase::Open => tracing::info!(upstream = %state.name, ?open_for, "Opened the circuit"),
            CircuitPhase::Closed => tracing::info!(upstream = %state.name, "Closed the circuit"),
            CircuitPhase::HalfOpen | CircuitPhase::Closing => {
                tracing::debug!(upstream = %state.name, ?phase, "Changed the circuit");
            }
        }
    }
}

impl CircuitWindow {
    fn new(interval: Duration) -> Arc<Self> {
        let count = || SlidingCount::new(interval);
        Arc::new(CircuitWindow { requests: count(), errors: count(), slow: count() })
    }

    fn clear(&self) {
        for count in [&self.requests, &self.errors, &self.slow] {
            count.clear();
        }
    }
}

impl CircuitPass {
    /// Whether the request is one of the few of a half-open circuit.
    pub(super) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The request is not sent: it has no place at the Service.
    pub(super) fn not_sent(mut self) {
        self.end_probe(TrialEnd::NotSent);
    }

    fn end_probe(&mut self, end: TrialEnd) {
        if let Some((state, trial)) = self.probe.take() {
            state.trials.end(self.number, trial, end);
        }
    }
}

impl Drop for CircuitPass {
    fn drop(&mut self) {
        self.end_probe(TrialEnd::Abandoned);
    }
}

/// How many milliseconds the circuit is open after this number of openings since it was closed. `random`: in `0..1`,
/// so that processes do not send requests again at the same moment.
fn open_time(settings: &CircuitBreakerSettings, openings: u32, random: f64) -> u64 {
    let doubled = millis(settings.open_for).saturating_mul(1 << openings.min(MAX_DOUBLINGS));
    let limited = doubled.min(millis(settings.max_open_for).max(millis(settings.open_for)));
    (limited as f64 * (1.0 - JITTER + 2.0 * JITTER * random)) as u64
}

/// The share of requests when a circuit begins to close.
const MIN_SHARE: f64 = 0.1;
/// By which part the time of an open circuit varies.
const JITTER: f64 = 0.1;
const MAX_DOUBLINGS: u32 = 30;
