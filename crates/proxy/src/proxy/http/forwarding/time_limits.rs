//! Forwards a request within a time: that of its rule or Service, or the deadline of its call. Its body is read before
//! if it may be sent again.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http_body::Body;
use tokio::time::timeout_at;

use super::attempt_policy::AttemptPolicy;
use super::attempt_timeouts::TimeLimit;
use super::attempts::forward;
use super::caller::{Caller, RepeatableBody, until_timed_out};
use super::destination::Destination;
use super::forwarded::{ForwardError, Forwarded};
use super::outgoing_request::{OutgoingRequest, UnsentRequest};
use super::service_attempts::ServiceAttempts;
use crate::plugin_api::completed_request::AttemptOutcome;
use crate::proxy::http::record::request_attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::turn_clock;
use crate::upstream::{Outcome, OutcomeClass};

/// Forwards a request under a rule or to a Service with timeouts or retries, or of a call with a deadline. Also returns
/// when the response must be complete.
pub(in crate::proxy) async fn forward_in_time<C: Caller>(
    caller: &Rc<C>,
    destination: Destination<'_>,
    request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>) {
    let limit = destination.time_limit(turn_clock::now());
    let (outcome, limit, _) = forward_until(limit, caller, destination, request, attempts).await;
    (outcome, limit)
}

/// Forwards a request that must be complete at `limit`, which may have begun before. Also returns what another upstream
/// can get if no endpoint of this one could be reached: boxed, since few requests need it.
pub(super) async fn forward_until<C: Caller>(
    limit: Option<TimeLimit>,
    caller: &Rc<C>,
    mut destination: Destination<'_>,
    mut request: Request<C::Body>,
    attempts: &mut Attempts,
) -> (Forwarded<C>, Option<TimeLimit>, Option<Box<UnsentRequest<C::Body>>>) {
    let (rule, settings) = (destination.policy.rule, destination.settings.take());
    let mut service = settings.as_deref().map(|settings| ServiceAttempts::new(settings, rule, &request));
    if let Some(limit) = limit.filter(|limit| limit.end <= turn_clock::now()) {
        return (Err(limit.error.into()), None, None);
    }
    if let Some(service) = &mut service {
        service.limit = limit;
    }
    let policy = AttemptPolicy { service: service.as_ref(), ..destination.policy };
    if policy.is_configured() {
        caller.set_timeouts(&policy.timeouts());
    }
    let destination = Destination { policy, ..destination };
    let mut sent: Option<OutgoingRequest<'_, C>> = None;
    let forwarding = async {
        let protocol = destination.upstream.key.protocol;
        let is_complete = request.body().is_end_stream()
            || policy.buffers(&request, protocol) && buffer(&**caller, &mut request, &destination).await?;
        let replay = policy.replay(is_complete, request.method(), protocol);
        let outgoing =
            sent.insert(OutgoingRequest::converted_for_endpoint(Rc::clone(caller), destination, request, replay)?);
        let response = forward(outgoing, Some(attempts)).await?;
        Ok::<_, ForwardError>((response, outgoing.attempt_deadline))
    };
    let outcome = match limit {
        None => forwarding.await,
        Some(limit) => match timeout_at(limit.end, forwarding).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // What a client limits says nothing about the Service.
                if limit.error == RequestError::RequestTimeout
                    && let Some(outgoing) = &mut sent
                {
                    report_request_timeout(outgoing, attempts, policy.timeouts().total().unwrap_or_default());
                }
                return (Err(limit.error.into()), None, None);
            }
        },
    };
    match outcome {
        Ok((response, attempt_deadline)) => {
            let of_attempt = attempt_deadline.map(|end| TimeLimit { end, error: RequestError::BackendRequestTimeout });
            (Ok(response), TimeLimit::earlier(of_attempt, limit), None)
        }
        Err(error) => {
            let unsent = sent.as_mut().and_then(OutgoingRequest::take_unsent);
            (Err(error), limit, unsent.map(Box::new))
        }
    }
}

/// The time for the request has passed while an attempt waited for the endpoint.
fn report_request_timeout<C: Caller>(outgoing: &mut OutgoingRequest<'_, C>, attempts: &Attempts, limit: Duration) {
    let Some(attempt) = attempts.as_slice().last() else { return };
    if attempt.outcome != AttemptOutcome::Unfinished || outgoing.policy.is_mirror {
        return;
    }
    let (waited, given) = (outgoing.waited(attempt.started_at), outgoing.given(limit));
    // Connecting reports that it was given up.
    let endpoint = if outgoing.state.is_connecting { None } else { Some(outgoing.endpoint) };
    outgoing.observers(endpoint).report(&Outcome { waited, given, ..Outcome::of(OutcomeClass::TimedOut) });
}

/// Reads the body, so that the request can be sent again. Returns whether all of it was read.
async fn buffer<C: Caller>(
    caller: &C,
    request: &mut Request<C::Body>,
    destination: &Destination<'_>,
) -> Result<bool, RequestError> {
    let max_bytes = destination.policy.max_kept_body(caller.limits());
    let buffering = request.body_mut().buffer(max_bytes, &destination.upstream.key.namespace);
    until_timed_out(caller, pin!(buffering)).await.unwrap_or_else(|| Err(caller.timeout_error()))
}
