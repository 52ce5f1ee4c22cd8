//! Forwards a request: the attempts to get its response, one after the other, over one or several endpoints, each over
//! pooled connections or else a new one.
//!
//! ```text
//!   admit ─▶ choose an endpoint ─▶ attempt ─▶ report ─▶ response, held with the admission
//!                  ▲                             │
//!                  └──── budget, back-off ◀──────┘ AttemptPolicy
//! ```

use std::cell::Cell;
use std::ops::ControlFlow;
use std::pin::pin;
use std::rc::Rc;

use http::Response;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt_error::{AttemptError, http2_error};
use super::attempt_policy::ReplayPolicy;
use super::caller::{Caller, until_timed_out};
use super::ended_attempt::{AnotherAttempt, AttemptResult, EndedAttempt, EndpointConnection};
use super::forwarded::{ForwardError, Forwarded};
use super::hedging::attempt_hedged;
use super::outgoing_request::OutgoingRequest;
use crate::proxy::http::record::request_attempts::Attempts;
use crate::proxy::http::record::request_error::RequestError;
use crate::turn_clock;
use crate::upstream::{
    Admission, ConnectError, EndpointError, IdleReuse, IncomingBody, MIN_CLIENT_DELAY, NoEndpoint, NotAdmitted,
    Outcome, OutcomeClass, RequestArrival, RequestFailure,
};

/// Forwards a request: to one endpoint, and to others as its policy allows it. `attempts`: where they are recorded.
pub(in crate::proxy) async fn forward<C: Caller>(
    outgoing: &mut OutgoingRequest<'_, C>,
    mut attempts: Option<&mut Attempts>,
) -> Forwarded<C> {
    if outgoing.is_read_before_trial() {
        // Boxed, since circuits are seldom half-open.
        Box::pin(outgoing.read_before_trial()).await?;
    }
    outgoing.admission = match outgoing.admit() {
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
    if outgoing.arrival() == RequestArrival::Partial
        && let Some(wait) = outgoing.admission.client_wait()
    {
        outgoing.caller.count_waits(wait);
    }
    let mut retries = 0;
    let mut reason = None;
    loop {
        let (upstream, may_repeat) = (outgoing.target.upstream, outgoing.policy.has_retries());
        let next = outgoing.search.next(outgoing.caller.pools(), upstream, may_repeat);
        let endpoint = next.inspect_err(|reason| match reason {
            NoEndpoint::None | NoEndpoint::Unavailable if retries == 0 => outgoing.is_settled = false,
            // After others, which decide.
            NoEndpoint::None | NoEndpoint::Unavailable => {}
            NoEndpoint::OverLimit => outgoing.is_settled = true,
        });
        outgoing.begin_attempt(endpoint.map_err(RequestError::from)?);
        let started_at = turn_clock::now();
        if let Some(attempts) = &mut attempts {
            attempts.start(outgoing.endpoint, outgoing.search.pick(), started_at);
            outgoing.trace.begin_attempt(attempts.as_slice().len() - 1);
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
                Some(_) => Box::pin(outgoing.attempt_in_time()).await,
            };
            EndedAttempt { started_at, retries, reason, outcome, other_settles: false }
        };
        // Not borrowed here, since the future would then keep the outcome while it waits.
        let AnotherAttempt { delay, reason: next_reason, error } =
            match attempt.report_and_decide(outgoing, attempts.as_deref_mut()) {
                ControlFlow::Break(outcome) => return outcome,
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

impl<'u, C: Caller> OutgoingRequest<'u, C> {
    /// Admits the request to its upstream.
    fn admit(&mut self) -> Result<Admission, NotAdmitted> {
        match self.admitted.take() {
            Some(admission) => Ok(*admission),
            None if self.policy.is_mirror => Ok(Admission::default()),
            None => self.target.upstream.admit(self.target.client, self.arrival()),
        }
    }

    /// Sends the request to its endpoint, within the time of one attempt.
    pub(super) async fn attempt_in_time(&mut self) -> AttemptResult<C> {
        match self.attempt_deadline {
            None => self.attempt().await,
            Some(deadline) => timeout_at(deadline, self.attempt())
                .await
                .unwrap_or(Err(AttemptError::Failed(RequestError::BackendRequestTimeout))),
        }
    }

    /// Sends the request to its endpoint. A new connection must be established by the deadline of the attempt.
    pub(super) async fn attempt(&mut self) -> AttemptResult<C> {
        let mut may_resend_unprocessed = self.replay.allows_resending;
        if let Some(outcome) = self.send_on_idle(&mut may_resend_unprocessed).await {
            return outcome;
        }
        // Boxed: connecting is rare, and its state would otherwise enlarge the future of every client connection.
        Box::pin(self.send_on_new(may_resend_unprocessed)).await
    }

    /// Sends the request on a connection that is opened for it, or that becomes free meanwhile.
    async fn send_on_new(&mut self, mut may_resend_unprocessed: bool) -> AttemptResult<C> {
        let mut unsent_left = MAX_UNSENT;
        let mut may_repeat_reset = true;
        loop {
            let began = Instant::now();
            self.state.is_connecting = true;
            let connected = self.connect().await;
            self.state.is_connecting = false;
            // One that became free meanwhile was not connected for this request, which only waited.
            let is_reused = connected.as_ref().is_ok_and(|connection| connection.is_reused());
            self.state.connect_time = (!is_reused).then(|| began.elapsed());
            let connection = connected?;
            let is_http2 = connection.is_http2();
            match self.send(connection).await {
                Err(AttemptError::NotProcessed) if may_resend_unprocessed && self.can_be_sent() => {
                    may_resend_unprocessed = false;
                    self.caller.pools().count_replay();
                }
                // Another request has opened the connection, and the endpoint has announced its end since.
                Err(AttemptError::NotSent) if (is_http2 || is_reused) && unsent_left > 0 => unsent_left -= 1,
                Err(AttemptError::NoResponse) if is_reused && unsent_left > 0 && self.may_resend_now() => {
                    unsent_left -= 1;
                    self.report_stale();
                    self.caller.pools().count_replay();
                }
                Err(AttemptError::Complaint) if unsent_left > 0 && self.may_resend_after_complaint() => {
                    unsent_left -= 1;
                    self.caller.pools().count_replay();
                }
                // Before a response, an endpoint resets connections with requests that it has not read.
                Err(AttemptError::NoResponse) if may_repeat_reset && self.state.was_reset && self.may_resend_now() => {
                    may_repeat_reset = false;
                    self.report_reset();
                    self.caller.pools().count_replay();
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends the request on a kept-alive connection. Returns None if the request must be sent on a new connection.
    async fn send_on_idle(&mut self, may_resend_unprocessed: &mut bool) -> Option<AttemptResult<C>> {
        let reuse = self.idle_reuse();
        loop {
            let connection = self.caller.pools().take_idle(&self.target, self.endpoint, reuse)?;
            match self.send(connection).await {
                Err(AttemptError::NotSent) => {}
                Err(AttemptError::NotProcessed) if *may_resend_unprocessed && self.can_be_sent() => {
                    *may_resend_unprocessed = false;
                    self.caller.pools().count_replay();
                    return None;
                }
                Err(AttemptError::NoResponse) if self.may_resend_now() => {
                    self.report_stale();
                    self.caller.pools().count_replay();
                    // If one connection is stale, other kept-alive ones may be too.
                    return None;
                }
                Err(AttemptError::Complaint) if self.may_resend_after_complaint() => {
                    self.caller.pools().count_replay();
                    return None;
                }
                outcome => return Some(outcome),
            }
        }
    }

    /// Whether the request is sent again if the endpoint closes a kept-alive connection instead of responding.
    fn may_resend_after_close(&self) -> bool {
        let is_repeatable = self.replay.complete && self.replay.idempotent && self.replay.allows_resending;
        self.replay.repeats_within_attempt && (self.keeps_body || is_repeatable)
    }

    /// The same after the connection was closed: all that was sent is kept.
    fn may_resend_now(&self) -> bool {
        self.may_resend_after_close() && self.can_be_sent()
    }

    /// The endpoint has ended the connection because of other requests. Whether this one is sent again on another one.
    fn may_resend_after_complaint(&self) -> bool {
        let ReplayPolicy { idempotent, allows_resending, repeats_within_attempt, .. } = self.replay;
        idempotent && allows_resending && repeats_within_attempt && self.can_be_sent()
    }

    /// The endpoint has reset a connection that was opened for the request, which is sent again.
    fn report_reset(&self) {
        if !self.policy.is_mirror {
            let connect_time = self.state.connect_time;
            let outcome = Outcome { connect_time, ..Outcome::of(OutcomeClass::NoResponse) };
            self.target.upstream.report(self.endpoint, &outcome);
        }
    }

    /// The endpoint has closed a kept-alive connection. Others may be dead as well.
    fn report_stale(&self) {
        if !self.policy.is_mirror {
            self.target.upstream.report(self.endpoint, &Outcome::of(OutcomeClass::Stale));
        }
    }

    fn idle_reuse(&self) -> IdleReuse {
        if self.may_resend_after_close() { IdleReuse::Any } else { IdleReuse::Recent }
    }

    async fn connect(&mut self) -> Result<EndpointConnection<C>, AttemptError> {
        let caller = Rc::clone(&self.caller);
        let (pools, address, began) = (caller.pools(), self.endpoint, Instant::now());
        caller.begin_connecting();
        let limit = Cell::new(None);
        let connect = async {
            let rule_timeout = caller.connect_timeout();
            let connecting = pools.connect(&self.target, address, self.idle_reuse(), rule_timeout);
            let rule_deadline = rule_timeout.map(|timeout| began + timeout);
            let deadline = [self.attempt_deadline, rule_deadline].into_iter().flatten().min();
            let Some(deadline) = deadline else { return connecting.await };
            // A timeout of the rule does not count against the endpoint's health; only the global connect timeout does.
            timeout_at(deadline, connecting).await.unwrap_or_else(|_| {
                limit.set(Some(began.elapsed()));
                Err(ConnectError::TimedOut(address, began.elapsed()))
            })
        };
        let connected = until_timed_out(&*caller, pin!(connect)).await;
        self.state.connect_limit = if connected.is_some() { limit.get() } else { Some(began.elapsed()) };
        let Some(connected) = connected else {
            return Err(AttemptError::NotConnected(RequestError::ConnectTimeout));
        };
        caller.end_connecting();
        connected.map_err(|error| {
            tracing::debug!(%error, upstream = %self.target.upstream.key, "Cannot connect");
            AttemptError::from_connect_error(&error)
        })
    }

    /// Begins to send the request, and keeps what a second attempt needs: its head stays where it is, except on HTTP/2,
    /// whose library takes it. Not a part of [`Self::send`], whose future would contain the copy for HTTP/2.
    fn begin_sending<'c>(
        &mut self,
        connection: &'c mut EndpointConnection<C>,
        caller: &'c C,
    ) -> impl Future<Output = Result<Response<IncomingBody>, RequestFailure<C::Body>>> + use<'c, 'u, C> {
        let mut kept_body = self.prepare();
        let copy = if connection.is_http2() { self.copy_with(kept_body.take()) } else { None };
        let (added, informational) = (self.added_fields(), self.informational.clone());
        let on_informational = move |head| caller.take_informational(head, &informational);
        let sending = connection.send(&mut self.sendable, kept_body, added, self.passes_fields, on_informational);
        if copy.is_some() {
            self.sendable = copy;
        }
        sending
    }

    // Not an `async fn`, whose future would contain its arguments twice.
    fn send(&mut self, mut connection: EndpointConnection<C>) -> impl Future<Output = AttemptResult<C>> {
        self.state.is_repeated_failure = false;
        async move {
            let caller = Rc::clone(&self.caller);
            let outcome = until_timed_out(&*caller, pin!(self.begin_sending(&mut connection, &caller))).await;
            match outcome {
                None => Err(AttemptError::Failed(caller.timeout_error())),
                Some(Ok(response)) => self.accept_response(response, connection),
                Some(Err(error)) => Err(self.send_error(error, &connection)),
            }
        }
    }

    /// Why there is no response. Afterwards [`OutgoingRequest::can_be_sent`] says whether the request can be repeated.
    fn send_error(&mut self, error: RequestFailure<C::Body>, connection: &EndpointConnection<C>) -> AttemptError {
        let error = match error {
            RequestFailure::Failed(error) => error,
            RequestFailure::Unsent(request) => {
                connection.retire();
                self.put_back(*request);
                return AttemptError::NotSent;
            }
        };
        if let Some(error) = self.caller.body_error() {
            return AttemptError::Failed(error);
        }
        tracing::debug!(%error, address = %connection.address, "No response");
        if http2_error(&error).is_some_and(h2::Error::is_go_away) {
            connection.retire();
        }
        self.state.was_reset = matches!(error, EndpointError::Reset);
        let error = match AttemptError::from_endpoint_error(&error) {
            // In TLS 1.3, an endpoint rejects a client certificate only after the handshake.
            AttemptError::NoResponse if connection.was_rejected() => AttemptError::Failed(RequestError::TlsHandshake),
            // An endpoint that has begun to respond has processed the request.
            AttemptError::NoResponse if connection.has_begun_response() => {
                AttemptError::Failed(RequestError::NoResponse)
            }
            AttemptError::NoResponse if connection.has_complaint() => AttemptError::Complaint,
            error => error,
        };
        self.state.is_repeated_failure = error == AttemptError::NoResponse && !connection.claim_failure();
        // A connection of HTTP/2 ends for all of its clients.
        let is_own = error == AttemptError::StreamReset || error == AttemptError::NoResponse && !connection.is_http2();
        self.state.was_awaiting_client =
            is_own && self.caller.awaits_client() && self.client_time() >= MIN_CLIENT_DELAY;
        let is_closed = self.keeps_body && error == AttemptError::NoResponse
            || self.replay.idempotent && error == AttemptError::Complaint;
        self.restore_body(is_closed || error == AttemptError::NotProcessed || self.replay.keeps_sent);
        error
    }
}

/// How often a request may move on to another connection, if it was not sent at all on one that other requests have
/// used, or got no response on one that was idle, or that the endpoint has ended because of other requests.
const MAX_UNSENT: u32 = 2;

#[cfg(test)]
mod tests;
