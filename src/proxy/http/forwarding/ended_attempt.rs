//! An attempt that has ended: it is reported and recorded, and decides whether another one follows.

use std::ops::ControlFlow;
use std::time::Duration;

use http::{HeaderValue, Response};
use tokio::time::Instant;

use super::attempt_error::AttemptError;
use super::caller::Caller;
use super::endpoint_response::EndpointResponse;
use super::next_attempt::{NextAttempt, Retry};
use super::outgoing_request::OutgoingRequest;
use super::service_attempts::OVERLOADED;
use crate::plugin_api::completed_request::AttemptOutcome;
use crate::proxy::http::record::attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::turn_clock;
use crate::upstream::{Outcome, OutcomeClass, OverBudget, RetryReason, RetryStop};

/// The outcome of one attempt.
pub(super) type AttemptResult<C> = Result<Response<EndpointResponse<<C as Caller>::Body>>, AttemptError>;

/// The outcome of a request that was forwarded.
pub(super) type Forwarded<C> = Result<Response<EndpointResponse<<C as Caller>::Body>>, RequestError>;

/// An attempt that has ended.
pub(super) struct EndedAttempt<C: Caller> {
    pub(super) started_at: Instant,
    /// The number of retries so far, with this attempt.
    pub(super) retries: usize,
    /// Why the attempt was made, if it is a retry.
    pub(super) reason: Option<RetryReason>,
    pub(super) outcome: AttemptResult<C>,
}

/// Another attempt follows.
pub(super) struct AnotherAttempt {
    pub(super) delay: Duration,
    pub(super) reason: RetryReason,
    /// The error of the request if the caller gives up before.
    pub(super) error: RequestError,
}

impl<C: Caller> EndedAttempt<C> {
    /// Reports and records the outcome, and decides what follows. Returns the outcome of the request, unless another
    /// attempt follows; then its place in the budget is taken, the response is discarded, and the endpoint is avoided.
    pub(super) fn judge(
        mut self,
        outgoing: &mut OutgoingRequest<'_, C>,
        mut attempts: Option<&mut Attempts>,
    ) -> ControlFlow<Forwarded<C>, AnotherAttempt> {
        self.report(outgoing, attempts.as_deref_mut());
        let next = self.next(outgoing);
        if let Some(reason) = self.reason.filter(|_| outgoing.policy.has_retries()) {
            let is_successful = self.outcome.is_ok() && next == NextAttempt::Never;
            outgoing.caller.pools().retry_counters().count(reason, is_successful);
        }
        let stop = match next {
            NextAttempt::Never => return ControlFlow::Break(self.last_outcome(outgoing)),
            NextAttempt::Stop(stop) => Err((stop, None)),
            NextAttempt::Retry(retry) => self.begin_retry(outgoing, retry),
        };
        let (stop, error) = match stop {
            Ok(another) => {
                if let Ok(response) = self.outcome {
                    response.into_body().discard();
                }
                return ControlFlow::Continue(another);
            }
            Err(stop) => stop,
        };
        outgoing.caller.pools().retry_counters().count_stop(stop);
        if let Some(attempts) = attempts {
            attempts.stop(stop);
        }
        if let Ok(response) = &mut self.outcome
            && outgoing.policy.marks_response(stop)
        {
            response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
        }
        ControlFlow::Break(match error {
            Some(error) => Err(error),
            None => self.last_outcome(outgoing),
        })
    }

    /// What follows, as far as the outcome and the request decide it. The endpoint is avoided if it is a retry.
    fn next(&self, outgoing: &mut OutgoingRequest<'_, C>) -> NextAttempt {
        let (upstream, endpoint, replay) = (outgoing.target.upstream, outgoing.endpoint, outgoing.replay);
        let search = &mut outgoing.search;
        let mut is_avoided = false;
        let has_others = || {
            search.avoid(endpoint);
            is_avoided = true;
            search.has_others(upstream)
        };
        let next = outgoing.policy.next(self.retries, replay, self.outcome.as_ref(), has_others);
        if !matches!(next, NextAttempt::Retry(_)) {
            return next;
        }
        if !is_avoided {
            search.avoid(endpoint);
        }
        if outgoing.caller.has_timed_out() {
            return NextAttempt::Never;
        }
        if replay.keeps_sent {
            // An attempt that has timed out, or got a response, has not taken the body back.
            outgoing.restore_body(true);
        }
        if outgoing.can_be_sent() { next } else { NextAttempt::Stop(RetryStop::Body) }
    }

    /// Takes the place of a retry in the budget. Otherwise says what prevents it, and the error of the request if it is
    /// not the outcome of this attempt.
    fn begin_retry(
        &self,
        outgoing: &OutgoingRequest<'_, C>,
        retry: Retry,
    ) -> Result<AnotherAttempt, (RetryStop, Option<RequestError>)> {
        let Retry { reason, delay } = retry;
        let delay = outgoing.policy.delay(delay, self.retries);
        if let Some(error) = outgoing.policy.missed_limit(Instant::now(), delay) {
            return Err((RetryStop::Deadline, self.outcome.is_err().then_some(error)));
        }
        // Before the delay, so that requests that wait for their retry count. An endpoint that was not reached has no
        // more to do because of the retry.
        if reason != RetryReason::ConnectFailure {
            outgoing.target.upstream.take_retry().map_err(|over_budget| match over_budget {
                OverBudget::LastOutcome => (RetryStop::Budget, None),
                OverBudget::Reject => (RetryStop::Budget, Some(RequestError::RetryBudget)),
            })?;
        }
        let error = self.outcome.as_ref().err().map_or(RequestError::ResponseTimeout, AttemptError::request_error);
        Ok(AnotherAttempt { delay, reason, error })
    }

    /// The outcome of the request, if this attempt is the last one.
    fn last_outcome(self, outgoing: &mut OutgoingRequest<'_, C>) -> Forwarded<C> {
        match self.outcome {
            Ok(response) => {
                outgoing.recycle();
                Ok(response)
            }
            Err(error) => Err(error.request_error()),
        }
    }

    /// Reports the outcome to the upstream, and records it as that of the last attempt.
    pub(super) fn report(&self, outgoing: &mut OutgoingRequest<'_, C>, attempts: Option<&mut Attempts>) {
        let total = turn_clock::now() - self.started_at;
        let connect_time = outgoing.connect_time.take();
        let class = match &self.outcome {
            // Connecting reports that it was given up.
            Err(_) if outgoing.is_connecting || outgoing.is_repeated_failure => None,
            _ if outgoing.policy.is_mirror => None,
            Ok(_) => Some(OutcomeClass::Responded),
            Err(error) => error.outcome(),
        };
        outgoing.is_connecting = false;
        if let Some(class) = class {
            let status = self.outcome.as_ref().ok().map(Response::status);
            let head_time = status.map(|_| total);
            if let (Some(head_time), Some(times)) = (head_time, outgoing.policy.response_times()) {
                times.record(head_time);
            }
            outgoing.target.upstream.report(outgoing.endpoint, &Outcome { class, status, connect_time, head_time });
        }
        let handshake_time = outgoing.target.handshake_time.take();
        if let Some(attempts) = attempts {
            attempts.end(self.recorded_outcome(), total, connect_time, handshake_time);
        }
    }

    /// The outcome as records contain it.
    pub(super) fn recorded_outcome(&self) -> AttemptOutcome {
        match &self.outcome {
            Ok(response) => AttemptOutcome::Status(response.status()),
            Err(error) => {
                let details = error.request_error().details();
                AttemptOutcome::Failed { reason: details.reason, status: details.status }
            }
        }
    }
}
