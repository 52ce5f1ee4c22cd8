//! An attempt that has ended: the head of its response is checked, it is reported and recorded, and decides whether
//! another one follows.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Response, StatusCode, Version};
use tokio::time::Instant;

use super::attempt_error::AttemptError;
use super::attempt_policy::{NextAttempt, Retry};
use super::caller::Caller;
use super::forwarded::{EndpointResponse, Forwarded};
use super::framing;
use super::outgoing_request::OutgoingRequest;
use super::retry_after::requested_wait;
use super::service_attempts::{OVERLOADED, is_overloaded};
use crate::plugin_api::completed_request::AttemptOutcome;
use crate::plugin_api::media_type::is_grpc;
use crate::proxy::http::fields::field_policy::ConnectionFields;
use crate::proxy::http::fields::headers::strip_hop_by_hop;
use crate::proxy::http::record::request_attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::router::is_call;
use crate::turn_clock;
use crate::upstream::{
    EndpointBody, GRPC_STATUS, GivenTime, GrpcStatus, IncomingBody, Outcome, OutcomeClass, OutcomeObservers,
    OverBudget, RetryReason, RetryStop, UpstreamConnection,
};

/// A connection to an endpoint, over which the request of a caller is sent.
pub(super) type EndpointConnection<C> = UpstreamConnection<<C as Caller>::Body>;

/// The outcome of one attempt.
pub(super) type AttemptResult<C> = Result<Response<EndpointResponse<<C as Caller>::Body>>, AttemptError>;

/// An attempt that has ended.
pub(super) struct EndedAttempt<C: Caller> {
    pub(super) started_at: Instant,
    /// The number of retries so far, with this attempt.
    pub(super) retries: usize,
    /// Why the attempt was made, if it is a retry.
    pub(super) reason: Option<RetryReason>,
    pub(super) outcome: AttemptResult<C>,
    /// Whether another attempt that has competed with it has ended with anything but an outage, so that no other
    /// upstream gets the request.
    pub(super) other_settles: bool,
}

/// What an attempt means for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptRole {
    /// Its outcome is that of the request, or decides whether another attempt follows.
    Decisive,
    /// Another one that was sent at the same time decides.
    Competitor,
}

/// Another attempt follows.
pub(super) struct AnotherAttempt {
    pub(super) delay: Duration,
    pub(super) reason: RetryReason,
    /// The error of the request if the caller gives up before.
    pub(super) error: RequestError,
}

impl<C: Caller> OutgoingRequest<'_, C> {
    /// Checks the head of the response and removes its hop-by-hop headers.
    pub(super) fn accept_response(
        &mut self,
        mut response: Response<IncomingBody>,
        connection: EndpointConnection<C>,
    ) -> AttemptResult<C> {
        const INVALID: AttemptError = AttemptError::Failed(RequestError::InvalidResponse);
        if response.headers().len() > self.caller.limits().max_response_fields {
            return Err(INVALID);
        }
        let switched = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // A 101 for a protocol that was not requested is an invalid response.
            // The next attempt may still have the right one.
            let is_accepted = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.is_accepted_by(response.headers()));
            Some(self.upgrade.take_if(|_| is_accepted).ok_or(INVALID)?)
        } else if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.is_misleading(response.status())) {
            return Err(INVALID);
        } else {
            None
        };
        framing::normalize_response(response.headers_mut()).map_err(AttemptError::Failed)?;
        let named = strip_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        let Some(upgrade) = switched else {
            if !named.is_empty() {
                response.extensions_mut().insert(ConnectionFields(named));
            }
            return Ok(response.map(|incoming| EndpointResponse::Body(EndpointBody::new(incoming, connection))));
        };
        let endpoint = connection.into_upgraded().ok_or(INVALID)?;
        Ok(response.map(|_| EndpointResponse::Upgraded(upgrade, Box::new(endpoint))))
    }
}

impl<C: Caller> EndedAttempt<C> {
    /// Reports and records the outcome, and decides what follows. Returns the outcome of the request, unless another
    /// attempt follows; then its place in the budget is taken, the response is discarded, and the endpoint is avoided.
    pub(super) fn report_and_decide(
        mut self,
        outgoing: &mut OutgoingRequest<'_, C>,
        mut attempts: Option<&mut Attempts>,
    ) -> ControlFlow<Forwarded<C>, AnotherAttempt> {
        self.report(outgoing, attempts.as_deref_mut(), AttemptRole::Decisive);
        // A request that was processed once is never new to another upstream.
        let is_outage = self.is_outage() && !self.other_settles;
        outgoing.is_settled = !is_outage || outgoing.is_settled && self.retries > 0;
        let next = self.next(outgoing);
        if let Some(reason) = self.reason.filter(|_| outgoing.policy.has_retries()) {
            let is_successful = self.outcome.is_ok() && next == NextAttempt::Never;
            outgoing.retry_counters().count(reason, is_successful);
        }
        let stop = match next {
            NextAttempt::Never => return ControlFlow::Break(self.last_outcome(outgoing)),
            NextAttempt::Stop(stop) => Err((stop, None)),
            NextAttempt::Retry(retry) => {
                let first = attempts.as_deref().and_then(|attempts| attempts.as_slice().first());
                let first_started = first.map_or(self.started_at, |first| first.started_at);
                self.begin_retry(outgoing, retry, first_started)
            }
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
        outgoing.retry_counters().count_stop(stop);
        if let Some(attempts) = attempts {
            attempts.stop(stop);
        }
        if let Ok(response) = &mut self.outcome
            && outgoing.policy.marks_response(stop)
        {
            response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
        }
        ControlFlow::Break(match error {
            Some(error) => Err(error.into()),
            None => self.last_outcome(outgoing),
        })
    }

    /// Whether the endpoint was out of service, and certainly did not process the request.
    pub(super) fn is_outage(&self) -> bool {
        self.outcome.as_ref().is_err_and(AttemptError::is_outage)
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
        outgoing: &mut OutgoingRequest<'_, C>,
        retry: Retry,
        first_started: Instant,
    ) -> Result<AnotherAttempt, (RetryStop, Option<RequestError>)> {
        let Retry { reason, delay } = retry;
        let delay = outgoing.policy.delay(delay, self.retries);
        if let Some(error) = outgoing.policy.missed_limit(turn_clock::now(), delay) {
            return Err((RetryStop::Deadline, self.outcome.is_err().then_some(error)));
        }
        if outgoing.policy.is_after_window(first_started, turn_clock::now() + delay) {
            return Err((RetryStop::Deadline, None));
        }
        // First the limit, which is given back with the admission: a retry that is not sent must not use the budget.
        if !outgoing.admission.take_retry() {
            return Err((RetryStop::Budget, None));
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

    /// The outcome of the request, if this attempt is the last one. The body of a response holds the admission.
    fn last_outcome(self, outgoing: &mut OutgoingRequest<'_, C>) -> Forwarded<C> {
        match self.outcome {
            Ok(mut response) => {
                outgoing.recycle();
                outgoing.admission.end_retry();
                response.body_mut().hold(std::mem::take(&mut outgoing.admission), outgoing.search.take_trial());
                Ok(response)
            }
            Err(error) => Err(error.request_error().into()),
        }
    }

    /// What a failure to connect has shown about the upstream. Connecting itself reports it about the endpoint.
    fn class_of_connecting(&self, outgoing: &OutgoingRequest<'_, C>) -> Option<OutcomeClass> {
        match &self.outcome {
            // This process itself would be the endpoint.
            Err(AttemptError::NotConnected(RequestError::LoopDetected)) | Ok(_) => None,
            Err(AttemptError::NotConnected(_)) if outgoing.state.connect_limit.is_some() => {
                Some(OutcomeClass::TimedOut)
            }
            Err(AttemptError::NotConnected(_)) => Some(OutcomeClass::ConnectFailed),
            Err(error) => error.outcome(),
        }
    }

    /// Reports the outcome, and records it as that of the last attempt.
    pub(super) fn report(
        &mut self,
        outgoing: &mut OutgoingRequest<'_, C>,
        attempts: Option<&mut Attempts>,
        role: AttemptRole,
    ) {
        let total = turn_clock::now() - self.started_at;
        let connect_time = outgoing.state.connect_time.take();
        let counts_for_service = role == AttemptRole::Decisive && outgoing.admission.is_held();
        let counts_status = outgoing.target.upstream.counts_statuses() || counts_for_service;
        let response = self.outcome.as_ref().ok();
        let grpc_status = response.filter(|_| counts_status).map(grpc_status).unwrap_or_default();
        let class = self.class(outgoing, grpc_status);
        let is_ignored = !counts_for_service
            && outgoing.policy.response_times().is_none()
            && outgoing.target.upstream.ignores_responses();
        outgoing.state.is_connecting = false;
        let outcome = |class| Outcome {
            status: response.map(Response::status),
            grpc_status,
            connect_time,
            waited: outgoing.waited(self.started_at),
            given: self.given(outgoing),
            retry_after: response.and_then(requested_delay),
            ..Outcome::of(class)
        };
        match class {
            Some(OutcomeClass::Responded) if is_ignored => self.report_response(outgoing, false),
            Some(class) => {
                let (outcome, endpoint) = (outcome(class), Some(outgoing.endpoint));
                self.observers(outgoing, endpoint, role).report(&outcome);
                if class == OutcomeClass::Responded {
                    self.report_response(outgoing, outcome.awaits_status());
                }
            }
            None => {
                if let Some(outcome) = self.class_of_connecting(outgoing).map(outcome) {
                    self.observers(outgoing, None, role).report(&outcome);
                }
            }
        }
        let handshake_time = outgoing.target.handshake_time.take();
        if let Some(attempts) = attempts {
            attempts.end(self.recorded_outcome(), total, connect_time, handshake_time);
        }
    }

    /// What the attempt has shown about its endpoint. `None` for what connecting reports, or another request.
    fn class(&self, outgoing: &OutgoingRequest<'_, C>, grpc_status: GrpcStatus) -> Option<OutcomeClass> {
        match &self.outcome {
            Err(_) if outgoing.state.is_connecting || outgoing.state.is_repeated_failure => None,
            // What a copy shows does not count. If it was the trial of a half-open endpoint, another one may follow.
            _ if outgoing.policy.is_mirror => Some(OutcomeClass::Inconclusive),
            // The endpoint, or a proxy in front of it, has rejected the request without an attempt.
            Ok(response) if is_overloaded(response) => Some(OutcomeClass::NotProcessed),
            Ok(_) if outgoing.has_client_deadline && grpc_status.is_deadline_exceeded() => {
                Some(OutcomeClass::Inconclusive)
            }
            Ok(_) => Some(OutcomeClass::Responded),
            // Servers end requests whose clients do not send them.
            Err(_) if outgoing.state.was_awaiting_client => Some(OutcomeClass::Inconclusive),
            Err(error) => error.outcome(),
        }
    }

    /// The time that there was for a response, if there was none in time.
    fn given(&self, outgoing: &OutgoingRequest<'_, C>) -> GivenTime {
        match &self.outcome {
            Err(AttemptError::NotConnected(_)) => {
                outgoing.state.connect_limit.map_or_else(GivenTime::default, |limit| outgoing.given(limit))
            }
            Err(AttemptError::Failed(RequestError::BackendRequestTimeout)) => {
                outgoing.given(outgoing.policy.attempt_time().unwrap_or_default())
            }
            // It has not run while the client was awaited, and has begun again with each part that was sent.
            Err(AttemptError::Failed(RequestError::ResponseTimeout)) => outgoing.given(Duration::ZERO),
            _ => GivenTime::default(),
        }
    }

    fn observers<'j>(
        &self,
        outgoing: &'j mut OutgoingRequest<'_, C>,
        endpoint: Option<SocketAddr>,
        role: AttemptRole,
    ) -> OutcomeObservers<'j> {
        let observers = outgoing.observers(endpoint);
        match role {
            AttemptRole::Decisive => observers,
            AttemptRole::Competitor => OutcomeObservers { admission: None, ..observers },
        }
    }

    /// Lets the body of a response report its end.
    fn report_response(&mut self, outgoing: &OutgoingRequest<'_, C>, awaits_status: bool) {
        match self.outcome.as_mut().map(Response::body_mut) {
            Ok(EndpointResponse::Body(body)) if awaits_status => body.report_end_of_call(outgoing.has_client_deadline),
            Ok(EndpointResponse::Body(body)) => body.report_end(),
            // The rest is up to the client as much as to the endpoint.
            Ok(EndpointResponse::Upgraded(..)) => {
                outgoing.target.upstream.report(outgoing.endpoint, &Outcome::of(OutcomeClass::Completed));
            }
            Err(_) => {}
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

/// The time for which an overloaded endpoint asks.
fn requested_delay<B>(response: &Response<B>) -> Option<Duration> {
    let asks = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if asks { requested_wait(response.headers(), None, SystemTime::now()) } else { None }
}

/// What the head of a response says about a gRPC call. Without a body, its status is in the head.
fn grpc_status<B>(response: &Response<B>) -> GrpcStatus {
    let headers = response.headers();
    match headers.get(GRPC_STATUS) {
        Some(status) if is_grpc(headers) => GrpcStatus::read(status),
        None if is_call(headers) => GrpcStatus::Pending,
        // The trailers of gRPC-Web are a part of its body.
        Some(_) | None => GrpcStatus::None,
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    /// Trap: the status of gRPC-Web is in the body, so a response that waits for it in trailers would never count.
    #[test]
    fn only_grpc_has_its_status_in_trailers() {
        for (content_type, status, expected) in [
            ("application/grpc", None, GrpcStatus::Pending),
            ("Application/gRPC+proto", None, GrpcStatus::Pending),
            ("application/grpc", Some("14"), GrpcStatus::Received(14)),
            ("application/grpc-web+proto", None, GrpcStatus::None),
            ("application/grpc-web-text", Some("14"), GrpcStatus::Received(14)),
            ("application/json", Some("14"), GrpcStatus::None),
        ] {
            let mut response = Response::builder().header(CONTENT_TYPE, content_type);
            if let Some(status) = status {
                response = response.header(GRPC_STATUS, status);
            }
            assert_eq!(grpc_status(&response.body(()).unwrap()), expected, "{content_type}, {status:?}");
        }
    }
}
