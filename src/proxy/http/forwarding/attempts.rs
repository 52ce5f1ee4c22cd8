//! Forwards a request: the attempts to get its response, one after the other, over one or several endpoints.
//!
//! ```text
//!   admit ─▶ choose an endpoint ─▶ attempt ─▶ report ─▶ response, held with the admission
//!                  ▲                             │
//!                  └──── budget, back-off ◀──────┘ AttemptPolicy
//! ```

use std::ops::ControlFlow;
use std::rc::Rc;

use http::Request;
use http_body::Body;
use tokio::time::{sleep, timeout_at};

use super::attempt_policy::AttemptPolicy;
use super::attempt_timeouts::TimeLimit;
use super::caller::{Caller, RepeatableBody, until_timed_out};
use super::destination::Destination;
pub(super) use super::ended_attempt::Forwarded;
use super::ended_attempt::{AnotherAttempt, EndedAttempt};
use super::forward_error::ForwardError;
use super::hedging::{attempt_hedged, attempt_in_time};
use super::outgoing_request::OutgoingRequest;
use super::service_attempts::ServiceAttempts;
use crate::plugin_api::completed_request::AttemptOutcome;
use crate::proxy::http::record::attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::turn_clock;
use crate::upstream::{NotAdmitted, Outcome, OutcomeClass};

/// Forwards a request under a rule or to a Service with timeouts or retries, or of a call with a deadline. Also returns
/// when the response must be complete.
pub(in crate::proxy) async fn forward_in_time<C: Caller>(
    caller: &Rc<C>,
    destination: Destination<'_>,
    request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>) {
    let limit = destination.time_limit(turn_clock::now());
    forward_until(limit, caller, destination, request, attempts).await
}

/// Forwards a request that must be complete at `limit`, which may have begun before.
pub(super) async fn forward_until<C: Caller>(
    limit: Option<TimeLimit>,
    caller: &Rc<C>,
    mut destination: Destination<'_>,
    mut request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>) {
    let (rule, settings) = (destination.policy.rule, destination.settings.take());
    let mut service = settings.as_deref().map(|settings| ServiceAttempts::new(settings, rule, &request));
    if let Some(limit) = limit.filter(|limit| limit.end <= turn_clock::now()) {
        return (Err(limit.error.into()), None);
    }
    if let Some(service) = &mut service {
        service.limit = limit;
    }
    let policy = AttemptPolicy { service: service.as_ref(), ..destination.policy };
    if policy.is_configured() {
        caller.set_timeouts(&policy.timeouts());
    }
    let upstream = destination.upstream;
    let destination = Destination { policy, ..destination };
    let mut sent: Option<OutgoingRequest<'_, C>> = None;
    let forwarding = async {
        let protocol = destination.upstream.key.protocol;
        let is_complete = request.body().is_end_stream()
            || policy.buffers(&request, protocol) && buffer(&**caller, &mut request, &destination).await?;
        let replay = policy.replay(is_complete, request.method(), protocol);
        let outgoing = sent.insert(OutgoingRequest::new(Rc::clone(caller), destination, request, replay)?);
        let response = forward(outgoing, Some(attempts)).await?;
        Ok::<_, ForwardError>((response, outgoing.attempt_deadline))
    };
    let outcome = match limit {
        None => forwarding.await,
        Some(limit) => match timeout_at(limit.end, forwarding).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // What a client limits says nothing about the Service.
                if limit.error == RequestError::RequestTimeout {
                    upstream.record_request_timeout();
                    if let Some(outgoing) = &sent {
                        report_request_timeout(outgoing, attempts);
                    }
                }
                return (Err(limit.error.into()), None);
            }
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
    let mut admission = match outgoing.admit() {
        Ok(admission) => admission,
        Err(NotAdmitted::Overloaded(overloaded)) => {
            return Err(ForwardError::rejected(outgoing.target.upstream, overloaded));
        }
        // Boxed, since few requests wait.
        Err(NotAdmitted::Queued(request)) => {
            let waited = until_timed_out(&*outgoing.caller, Box::pin(request.wait())).await;
            let admitted = waited.ok_or_else(|| outgoing.caller.timeout_error())?;
            admitted.map_err(|overloaded| ForwardError::rejected(outgoing.target.upstream, overloaded))?
        }
    };
    let mut retries = 0;
    let mut reason = None;
    loop {
        let (upstream, may_repeat) = (outgoing.target.upstream, outgoing.policy.has_retries());
        let next = outgoing.search.next(outgoing.caller.pools(), upstream, may_repeat);
        outgoing.endpoint = next.map_err(RequestError::from)?;
        let started_at = turn_clock::now();
        if let Some(attempts) = &mut attempts {
            attempts.start(outgoing.endpoint, outgoing.search.pick(), started_at);
            if let Some(parent) = &mut outgoing.trace_parent {
                parent.begin(attempts.as_slice().len() - 1);
            }
        }
        if outgoing.policy.is_configured() {
            outgoing.caller.record_progress();
        }
        outgoing.attempt_deadline = outgoing.policy.attempt_time().map(|time| started_at + time);
        let hedge_delay = if retries == 0 { outgoing.policy.hedge_delay(outgoing.replay) } else { None };
        // Boxed, so that the future of requests with one attempt at a time stays small.
        let attempt = if let Some(delay) = hedge_delay {
            Box::pin(attempt_hedged(outgoing, started_at, delay, attempts.as_deref_mut())).await
        } else {
            let outcome = match outgoing.attempt_deadline {
                None => outgoing.attempt().await,
                Some(_) => Box::pin(attempt_in_time(outgoing)).await,
            };
            EndedAttempt { started_at, retries, reason, outcome }
        };
        // Not borrowed here, since the future would then keep the outcome while it waits.
        let AnotherAttempt { delay, reason: next_reason, error } =
            match attempt.judge(outgoing, attempts.as_deref_mut(), &mut admission) {
                ControlFlow::Break(Ok(mut response)) => {
                    response.body_mut().hold(admission);
                    return Ok(response);
                }
                ControlFlow::Break(Err(error)) => return Err(error),
                ControlFlow::Continue(another) => another,
            };
        if !delay.is_zero() {
            // Boxed, since few requests wait.
            until_timed_out(&*outgoing.caller, Box::pin(sleep(delay))).await.ok_or(error)?;
        }
        retries += 1;
        reason = Some(next_reason);
        // A second attempt that has competed with the first one has a number, too.
        outgoing.number += 1;
    }
}

/// The time for the request has passed while an attempt waited for the endpoint.
fn report_request_timeout<C: Caller>(outgoing: &OutgoingRequest<'_, C>, attempts: &Attempts) {
    let Some(attempt) = attempts.as_slice().last() else { return };
    if attempt.outcome != AttemptOutcome::Unfinished || outgoing.is_connecting || outgoing.policy.is_mirror {
        return;
    }
    let total = turn_clock::now() - attempt.started_at;
    let waited = outgoing.waited(total.saturating_sub(outgoing.connect_time.unwrap_or_default()));
    outgoing.target.upstream.report(outgoing.endpoint, &Outcome { waited, ..Outcome::of(OutcomeClass::TimedOut) });
}

/// Reads the body, so that the request can be sent again. Returns whether all of it was read.
async fn buffer<C: Caller>(
    caller: &C,
    request: &mut Request<C::Body>,
    destination: &Destination<'_>,
) -> Result<bool, RequestError> {
    let max_bytes = destination.policy.max_kept_body(caller.limits());
    let buffering = request.body_mut().buffer(max_bytes, &destination.upstream.key.namespace);
    until_timed_out(caller, buffering).await.unwrap_or_else(|| Err(caller.timeout_error()))
}

#[cfg(test)]
mod tests;
