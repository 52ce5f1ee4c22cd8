//! The admission of one request to an upstream: its limits, its circuit breaker, its retries.
//!
//! ```text
//!   admit ─▶ admission control ─▶ circuit ─▶ slot ─▶ Admission, held until the end of the response
//!                 │                  │         └ all taken ─▶ QueuedRequest ─▶ circuit ─▶ Admission
//!                 └──────────────────┴─────────────────┴─▶ Overloaded
//! ```
//!
//! An upstream without such settings pays for one load of a flag.

mod overload_control;
mod overload_report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::circuit_breaker::{CircuitPass, CircuitVerdict, RequestArrival};
pub use super::limits::{ClientWait, WaitingFor};
use super::limits::{PlaceInQueue, QueueEnd, RequestSlot};
use super::outcome::{EndpointTime, GrpcStatus, Outcome, OutcomeClass};
use super::settings::OverloadLimit;
use super::socket_budget::client_slots::ClientSlot;
pub(super) use overload_control::OverloadControl;
use overload_control::OverloadRules;
pub use overload_report::OverloadReport;

/// A request that was admitted. Held until its response or its tunnel has ended.
#[derive(Debug, Default)]
pub struct Admission {
    /// `None` for an upstream without limits and circuit breaker.
    held: Option<Box<HeldAdmission>>,
}

/// What an admitted request holds of the limits of its upstream.
#[derive(Debug)]
struct HeldAdmission {
    rules: Arc<OverloadRules>,
    slot: RequestSlot,
    circuit: Option<CircuitPass>,
    /// The request is being sent again, and has no response yet.
    retry: Option<RetrySlot>,
    call: CallState,
}

/// What is known of a gRPC call, whose status arrives with the end of its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CallState {
    /// It is no call, or its response has not begun.
    #[default]
    None,
    /// The response has begun.
    Begun { waited: EndpointTime },
    /// The call has counted as a success of a half-open circuit when its first message arrived.
    Streaming,
}

/// Why a request was not admitted at once.
#[derive(Debug)]
pub enum NotAdmitted {
    Overloaded(Overloaded),
    /// It waits until there are fewer requests.
    Queued(Box<QueuedRequest>),
}

/// Why an upstream takes no request now. No endpoint has seen the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overloaded {
    /// There are too many requests, or too many fail.
    OverLimit,
    /// The request has waited for its place for too long.
    QueueTimeout,
    /// The circuit breaker rejects the request.
    CircuitOpen {
        /// After which time another request is worth the attempt; at least 1 s.
        retry_after: Duration,
    },
}

impl Overloaded {
    /// Whether the fallback of the circuit breaker takes the place of the upstream.
    pub fn has_fallback(self) -> bool {
        match self {
            Overloaded::CircuitOpen { .. } => true,
            Overloaded::OverLimit | Overloaded::QueueTimeout => false,
        }
    }
}

impl fmt::Display for Overloaded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Overloaded::OverLimit => "the Service has as many requests as its limits allow",
            Overloaded::QueueTimeout => "the request has waited for too long until the Service has fewer",
            Overloaded::CircuitOpen { .. } => "the circuit of the Service is open",
        })
    }
}

/// A request that waits until its upstream has fewer. Dropping it ends the wait.
#[derive(Debug)]
pub struct QueuedRequest {
    rules: Arc<OverloadRules>,
    place: PlaceInQueue,
    client: ClientSlot,
    arrival: RequestArrival,
}

impl QueuedRequest {
    /// Waits for a place, at most as long as the settings allow.
    pub async fn wait(self) -> Result<Admission, Overloaded> {
        let QueuedRequest { rules, place, client, arrival } = self;
        let slot = match place.wait(rules.queue_timeout()).await {
            Ok(slot) => slot,
            Err(QueueEnd::Full) => return Err(rules.reject(OverloadLimit::Pending, Overloaded::OverLimit)),
            Err(QueueEnd::TimedOut) => return Err(rules.reject(OverloadLimit::QueueTimeout, Overloaded::QueueTimeout)),
        };
        // The circuit may have opened meanwhile.
        let circuit = rules.pass_circuit(arrival, Some(client))?;
        Ok(Admission::hold(rules, slot, circuit))
    }
}

/// Waits for the turn of a request that has to.
pub(super) async fn in_turn(admitted: Result<Admission, NotAdmitted>) -> Result<Admission, Overloaded> {
    match admitted {
        Ok(admission) => Ok(admission),
        Err(NotAdmitted::Overloaded(overloaded)) => Err(overloaded),
        // Boxed, since few requests wait.
        Err(NotAdmitted::Queued(request)) => Box::pin(request.wait()).await,
    }
}

impl Admission {
    fn hold(rules: Arc<OverloadRules>, slot: RequestSlot, circuit: Option<CircuitPass>) -> Self {
        let held = HeldAdmission { rules, slot, circuit, retry: None, call: CallState::None };
        Admission { held: Some(Box::new(held)) }
    }

    /// Whether the statuses of responses count, which gRPC calls have in their trailers.
    pub fn counts_statuses(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the limit of retries in progress allows the request to be sent once more, which is then counted. The
    /// retry budget of the Service limits it as well.
    pub fn take_retry(&mut self) -> bool {
        let Some(held) = self.held.as_mut().filter(|held| held.retry.is_none()) else { return true };
        match held.rules.take_retry() {
            Ok(retry) => {
                held.retry = retry;
                true
            }
            Err(TooManyRetries) => false,
        }
    }

    /// The request is not sent again: its response has begun. How long the rest takes is up to its client as well.
    pub fn end_retry(&mut self) {
        if let Some(held) = &mut self.held {
            held.retry = None;
        }
    }

    /// The client and an endpoint exchange bytes from now on, for as long as they want.
    pub(super) fn become_tunnel(&mut self) {
        if let Some(held) = &mut self.held {
            held.slot.become_tunnel();
        }
    }

    /// Whether limits or a circuit breaker depend on the outcome.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// What counts the request while it waits for its client. `None` if nothing limits the requests.
    pub fn client_wait(&mut self) -> Option<&ClientWait> {
        self.held.as_mut()?.slot.client_wait()
    }

    /// What an outcome says about the Service. `None` for what its client has caused, and for what is not known yet.
    pub(super) fn verdict(&mut self, outcome: &Outcome) -> Option<CircuitVerdict> {
        self.held.as_mut()?.verdict(outcome)
    }

    pub(super) fn record_in_circuit(&mut self, verdict: Option<CircuitVerdict>) {
        if let (Some(held), Some(verdict)) = (&mut self.held, verdict)
            && let Some(pass) = &mut held.circuit
        {
            held.rules.record_in_circuit(pass, verdict);
        }
    }

    pub(super) fn record_success_rate(&mut self, verdict: Option<CircuitVerdict>) {
        if let (Some(held), Some(verdict)) = (&self.held, verdict) {
            held.rules.record_success_rate(verdict);
        }
    }

    /// Records the time to the head of a response, which the adaptive limit follows.
    pub(super) fn record_in_limit(&mut self, outcome: &Outcome) {
        let Some(held) = &self.held else { return };
        match outcome.class {
            OutcomeClass::Responded => {
                if let Some(time) = outcome.waited.exactly() {
                    held.rules.record_in_limit(time);
                }
            }
            OutcomeClass::Connected
            | OutcomeClass::Completed
            | OutcomeClass::ConnectFailed
            | OutcomeClass::Inconclusive
            | OutcomeClass::Abandoned
            | OutcomeClass::NotProcessed
            | OutcomeClass::Stale
            | OutcomeClass::NoResponse
            | OutcomeClass::TimedOut
            | OutcomeClass::Failed
            | OutcomeClass::Truncated => {}
        }
    }
}

impl HeldAdmission {
    fn verdict(&mut self, outcome: &Outcome) -> Option<CircuitVerdict> {
        let call = std::mem::take(&mut self.call);
        match outcome.class {
            OutcomeClass::Responded => match outcome.effective_status() {
                Some(status) => self.verdict_on_status(status, call, outcome.waited),
                None => self.verdict_on_call(call, outcome),
            },
            OutcomeClass::ConnectFailed | OutcomeClass::NoResponse | OutcomeClass::TimedOut | OutcomeClass::Failed => {
                Some(CircuitVerdict::Error)
            }
            // Any other response was recorded already.
            OutcomeClass::Truncated => (call != CallState::None).then_some(CircuitVerdict::Error),
            // The endpoint has not processed the request, the attempt goes on, or the response was recorded already.
            OutcomeClass::Connected
            | OutcomeClass::Completed
            | OutcomeClass::Stale
            | OutcomeClass::Inconclusive
            | OutcomeClass::Abandoned
            | OutcomeClass::NotProcessed => None,
        }
    }

    fn verdict_on_status(&self, status: u16, call: CallState, waited: EndpointTime) -> Option<CircuitVerdict> {
        if self.rules.is_error(status) {
            return Some(CircuitVerdict::Error);
        }
        match call {
            CallState::None => Some(CircuitVerdict::Success { waited }),
            CallState::Begun { waited } => Some(CircuitVerdict::Success { waited }),
            CallState::Streaming => None,
        }
    }

    /// The status of a call is not known yet.
    fn verdict_on_call(&mut self, call: CallState, outcome: &Outcome) -> Option<CircuitVerdict> {
        if outcome.grpc_status != GrpcStatus::Streaming {
            self.call = CallState::Begun { waited: outcome.waited };
            return None;
        }
        let is_probe = self.circuit.as_ref().is_some_and(CircuitPass::is_probe);
        match call {
            // A stream may last for long, and other requests wait for the trial.
            CallState::Begun { waited } if is_probe => {
                self.call = CallState::Streaming;
                Some(CircuitVerdict::Success { waited })
            }
            call => {
                self.call = call;
                None
            }
        }
    }
}

/// One of the retries in progress of an upstream, until dropped.
#[derive(Debug)]
struct RetrySlot(Arc<AtomicU32>);

impl RetrySlot {
    fn take(retries: &Arc<AtomicU32>, limit: u32) -> Result<Self, TooManyRetries> {
        let next = |active| (active < limit).then_some(active + 1);
        retries.fetch_update(Relaxed, Relaxed, next).map_err(|_| TooManyRetries)?;
        Ok(RetrySlot(Arc::clone(retries)))
    }
}

impl Drop for RetrySlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The upstream has as many retries in progress as it may have.
#[derive(Debug)]
struct TooManyRetries;
