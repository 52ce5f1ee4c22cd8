//! Forwards a request: the attempts to get its response, one after the other, over one or several endpoints.
//!
//! ```text
//!   admit ─▶ choose an endpoint ─▶ attempt ─▶ report ─▶ response, held with the admission
//!                  ▲                             │
//!                  └──── budget, back-off ◀──────┘ AttemptPolicy
//! ```

use std::rc::Rc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt_error::AttemptError;
use super::attempt_policy::{NextAttempt, TimeLimit};
use super::caller::{Caller, RepeatableBody, until_timed_out};
use super::destination::Destination;
use super::endpoint_response::EndpointResponse;
use super::outgoing_request::OutgoingRequest;
use crate::plugin_api::completed_request::AttemptOutcome;
use crate::proxy::http::record::attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::turn_clock;
use crate::upstream::{Admission, Outcome, OutcomeClass};

/// The outcome of a request that was forwarded.
type Forwarded<C> = Result<Response<EndpointResponse<<C as Caller>::Body>>, RequestError>;

/// Forwards a request under a rule with timeouts or retries, or of a call with a deadline. Also returns when the
/// response must be complete.
pub(in crate::proxy) async fn forward_in_time<C: Caller>(
    caller: &Rc<C>,
    destination: Destination<'_>,
    mut request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>) {
    let policy = destination.policy;
    if let Some(rule) = policy.rule {
        caller.set_timeouts(rule);
    }
    let limit = policy.time_limit(Instant::now());
    let forwarding = async {
        let is_complete = request.body().is_end_stream()
            || policy.buffers(&request) && buffer(&**caller, &mut request, &destination).await?;
        let replay = policy.replay(is_complete, request.method());
        let mut outgoing = OutgoingRequest::new(Rc::clone(caller), destination, request, replay)?;
        let response = forward(&mut outgoing, Some(attempts)).await?;
        Ok::<_, RequestError>((response, outgoing.attempt_deadline))
    };
    let outcome = match limit {
        None => forwarding.await,
        Some(limit) => match timeout_at(limit.end, forwarding).await {
            Ok(outcome) => outcome,
            Err(_) => return (Err(limit.error), None),
        },
    };
    match outcome {
        Ok((response, attempt_deadline)) => {
            let of_attempt = attempt_deadline.map(|end| TimeLimit { end, error: RequestError::BackendRequestTimeout });
            (Ok(response), TimeLimit::earlier(of_attempt, limit))
        }
        Err(error) => (Err(error), limit),
    }
}

/// Forwards a request: to one endpoint, and to others as its policy allows it. `attempts`: where they are recorded.
pub(in crate::proxy) async fn forward<C: Caller>(
    outgoing: &mut OutgoingRequest<'_, C>,
    mut attempts: Option<&mut Attempts>,
) -> Forwarded<C> {
    let admission = if outgoing.policy.is_mirror { Admission::default() } else { outgoing.target.upstream.admit() };
    let mut retries = 0;
    loop {
        let (upstream, may_repeat) = (outgoing.target.upstream, outgoing.policy.repeats_endpoints());
        let next = outgoing.search.next(outgoing.caller.pools(), upstream, may_repeat);
        outgoing.endpoint = next.map_err(RequestError::from)?;
        let started_at = turn_clock::now();
        if let Some(attempts) = &mut attempts {
            attempts.start(outgoing.endpoint, started_at);
        }
        if outgoing.policy.rule.is_some() {
            outgoing.caller.record_progress();
        }
        outgoing.attempt_deadline = outgoing.policy.attempt_time().map(|time| Instant::now() + time);
        let outcome = match outgoing.attempt_deadline {
            None => outgoing.attempt().await,
            // Boxed, so that the future of requests without this timeout stays small.
            Some(deadline) => Box::pin(timeout_at(deadline, outgoing.attempt()))
                .await
                .unwrap_or(Err(AttemptError::Failed(RequestError::BackendRequestTimeout))),
        };
        // Not borrowed here, since the future would then keep the outcome while it waits.
        let attempt = EndedAttempt { started_at, retries, outcome };
        let FailedAttempt { error, next } = match attempt.judge(outgoing, attempts.as_deref_mut()) {
            Ok(mut response) => {
                outgoing.recycle();
                response.body_mut().hold(admission);
                return Ok(response);
            }
            Err(failed) => failed,
        };
        if next == NextAttempt::Never {
            return Err(error);
        }
        // Before the delay, so that requests that wait for their retry count.
        if !admission.take_retry() {
            outgoing.caller.pools().count_refused_retry();
            return Err(RequestError::RetryBudget);
        }
        let delay = if next == NextAttempt::Delayed { outgoing.policy.backoff(retries) } else { Duration::ZERO };
        if !delay.is_zero() {
            // Boxed, since few requests wait.
            until_timed_out(&*outgoing.caller, Box::pin(sleep(delay))).await.ok_or(error)?;
        }
        retries += 1;
        if outgoing.policy.has_retries() {
            outgoing.caller.pools().count_retry();
        }
    }
}

/// The time for which an overloaded endpoint asks.
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let asks = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let value = asks.then(|| response.headers().get(RETRY_AFTER))??;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An attempt whose outcome is not the response of the caller.
struct FailedAttempt {
    /// The error of the request if no other attempt follows.
    error: RequestError,
    next: NextAttempt,
}

/// An attempt that has ended.
struct EndedAttempt<C: Caller> {
    started_at: Instant,
    /// The number of retries so far, with this attempt.
    retries: usize,
    outcome: Result<Response<EndpointResponse<C::Body>>, AttemptError>,
}

impl<C: Caller> EndedAttempt<C> {
    /// Reports and records the outcome, and decides what follows. Returns the response if it is that of the caller;
    /// otherwise the endpoint is avoided.
    fn judge(
        self,
        outgoing: &mut OutgoingRequest<'_, C>,
        attempts: Option<&mut Attempts>,
    ) -> Result<Response<EndpointResponse<C::Body>>, FailedAttempt> {
        self.report(outgoing, attempts);
        let policy = outgoing.policy;
        let EndedAttempt { retries, outcome, .. } = self;
        let error = match outcome {
            Ok(response) if !policy.retries_status(retries, outgoing.replay, response.status()) => {
                return Ok(response);
            }
            Ok(response) => {
                response.into_body().discard();
                outgoing.search.avoid(outgoing.endpoint);
                // This error is returned only if a timeout expires before the retry.
                return Err(FailedAttempt { error: RequestError::ResponseTimeout, next: NextAttempt::Delayed });
            }
            Err(error) => error,
        };
        outgoing.search.avoid(outgoing.endpoint);
        let is_possible = outgoing.can_be_sent() && !outgoing.caller.has_timed_out();
        let next = policy
            .after_failure(retries, outgoing.replay, &error, || outgoing.search.has_others(outgoing.target.upstream));
        let next = if is_possible { next } else { NextAttempt::Never };
        Err(FailedAttempt { error: error.request_error(), next })
    }

    /// Reports the outcome to the upstream, and records it.
    fn report(&self, outgoing: &mut OutgoingRequest<'_, C>, attempts: Option<&mut Attempts>) {
        let total = turn_clock::now() - self.started_at;
        let connect_time = outgoing.connect_time.take();
        let class = match &self.outcome {
            // Connecting reports that it was given up.
            Err(_) if outgoing.is_connecting => None,
            _ if outgoing.policy.is_mirror => None,
            Ok(_) => Some(OutcomeClass::Responded),
            Err(error) => error.outcome(),
        };
        outgoing.is_connecting = false;
        if let Some(class) = class {
            let status = self.outcome.as_ref().ok().map(Response::status);
            let head_time = status.map(|_| total);
            let retry_after = self.outcome.as_ref().ok().and_then(retry_after);
            let outcome = Outcome { class, status, connect_time, head_time, retry_after };
            outgoing.target.upstream.report(outgoing.endpoint, &outcome);
        }
        let handshake_time = outgoing.target.handshake_time.take();
        let Some(attempts) = attempts else { return };
        let outcome = match &self.outcome {
            Ok(response) => AttemptOutcome::Status(response.status()),
            Err(error) => {
                let details = error.request_error().details();
                AttemptOutcome::Failed { reason: details.reason, status: details.status }
            }
        };
        attempts.end(outcome, total, connect_time, handshake_time);
    }
}

/// Reads the body, so that the request can be sent again. Returns whether all of it was read.
async fn buffer<C: Caller>(
    caller: &C,
    request: &mut Request<C::Body>,
    destination: &Destination<'_>,
) -> Result<bool, RequestError> {
    let buffering = request.body_mut().buffer(caller.limits().max_replay_body, &destination.upstream.key.namespace);
    until_timed_out(caller, buffering).await.unwrap_or_else(|| Err(caller.timeout_error()))
}

#[cfg(test)]
mod tests;
