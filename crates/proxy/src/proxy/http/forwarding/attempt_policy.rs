//! How often a request is attempted, when it is repeated, and for how long: pure decisions, without a connection.
//!
//! A request is sent again in these cases only:
//! - within one attempt (`attempts.rs`), on a new connection: a kept-alive connection closed without a response, or the
//!   endpoint reset a new one, the request is idempotent and has a small body or none; or an HTTP/2 endpoint reports
//!   that it did not process the request, and the replay buffer has the whole sent body,
//! - the endpoint certainly did not process it, and there is another endpoint,
//! - the rule has retries (GEP-1731), and the request was not processed, or it is idempotent, is available as a whole,
//!   and got one of the rule's statuses, no response in the time of one attempt, or a closed connection; the rules of
//!   ingress-nginx may narrow that, and add other methods and invalid responses,
//! - the rule has no retries, but its Service (`service_attempts.rs`), and the outcome meets one of its conditions.
//!
//! Another attempt needs a place in the retry budget of the Service (GEP-3388), unless no connection was established.

use std::time::Duration;

use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;

use super::attempt_error::AttemptError;
use super::attempt_timeouts::AttemptTimeouts;
use super::service_attempts::{RequestRetries, ServiceAttempts, is_overloaded};
use crate::endpoint_tls::UpstreamProtocol;
use crate::limits::{MAX_ENDPOINTS, ProxyLimits};
use crate::plugin_api::endpoint_timeouts::EndpointTimeouts;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::rule::RuleId;
use crate::snapshot::timeouts_and_retries::{RetryPolicy, RetryScope, TimeoutsAndRetries};
use crate::upstream::settings::RequestTimeouts;
use crate::upstream::{GivenTime, ResponseTimes, RetryReason, RetryStop};

/// What limits the attempts of a request. The default value is that of requests without timeouts and retries, which are
/// sent to another endpoint only if the first did not process them.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct AttemptPolicy<'r> {
    /// The timeouts and retries of the rule.
    pub(in crate::proxy) rule: Option<&'r TimeoutsAndRetries>,
    /// The rule itself, if the request has one.
    pub(in crate::proxy) rule_id: Option<&'r RuleId>,
    /// Those of the Service, for what the rule does not set.
    pub(in crate::proxy) service: Option<&'r ServiceAttempts<'r>>,
    /// The timeouts that plugins have set, which precede those of the rule and of the Service.
    pub(in crate::proxy) plugins: EndpointTimeouts,
    /// When a gRPC call ends.
    pub(in crate::proxy) call_deadline: Option<Instant>,
    /// The request is a mirrored copy, which is sent at most once. It says nothing about the health of its endpoint,
    /// and does not count toward the budget of retries.
    pub(in crate::proxy) is_mirror: bool,
}

impl<'r> AttemptPolicy<'r> {
    /// Whether neither the rule, a plugin nor the call limits the time or the attempts.
    pub(in crate::proxy) fn is_plain(self) -> bool {
        self.rule.is_none() && self.call_deadline.is_none() && self.plugins.is_unset()
    }

    /// The retries of the rule.
    fn retry(&self) -> Option<&'r RetryPolicy> {
        if self.service_retries().is_some() { None } else { self.rule?.retry.as_ref() }
    }

    /// The retries of the Service, if the rule has none.
    fn service_retries(&self) -> Option<&'r RequestRetries<'r>> {
        self.service?.retries.as_ref()
    }

    /// Whether the rule or the Service has retries. Then endpoints that have failed are tried again after all others,
    /// and retries are counted.
    pub(super) fn has_retries(&self) -> bool {
        self.retry().is_some() || self.service_retries().is_some()
    }

    /// Whether the rule, a plugin or the Service sets timeouts or retries.
    pub(super) fn is_configured(&self) -> bool {
        self.rule.is_some() || self.service.is_some() || !self.plugins.is_unset()
    }

    pub(super) fn timeouts(&self) -> AttemptTimeouts {
        AttemptTimeouts::of(self.rule, self.service.and_then(|service| service.timeouts)).replaced_by(self.plugins)
    }

    /// How long one attempt may take.
    pub(super) fn attempt_time(&self) -> Option<Duration> {
        if self.is_configured() { self.timeouts().backend_request.duration() } else { None }
    }

    /// The time that there was for a response, when `limit` has passed without one. `namespace`: that of the Service.
    #[cold]
    pub(super) fn given_time(&self, limit: Duration, namespace: &str) -> GivenTime {
        let of_service = self.service.and_then(|service| service.timeouts);
        let to_endpoint = of_service.and_then(RequestTimeouts::attempt);
        let by_service = of_service.and_then(RequestTimeouts::shortest);
        // Of another namespace than the Service. Its timeouts may be shorter than any response takes.
        let is_foreign = self.rule_id.is_some_and(|rule| rule.namespace() != namespace);
        let has_own_timeouts = self.rule.is_some_and(TimeoutsAndRetries::sets_timeout) || !self.plugins.is_unset();
        let by_route = if is_foreign && has_own_timeouts { None } else { Some(limit) };
        GivenTime { to_endpoint, to_service: by_service.or(by_route) }
    }

    /// The time in which the responses of the Service begin, if they are measured.
    pub(super) fn response_times(&self) -> Option<&'r ResponseTimes> {
        self.service?.response_times
    }

    /// The field with the number of an attempt, which begins at 1, and its value.
    pub(super) fn attempt_header(&self, attempt: u32) -> Option<(&'r HeaderName, u32)> {
        self.service_retries()?.attempt_header(attempt)
    }

    /// Whether a body is read before the request is sent, so that it can be sent again.
    pub(super) fn buffers<B: Body>(&self, request: &Request<B>, protocol: UpstreamProtocol) -> bool {
        let may_retry = |retry: &RetryPolicy| {
            let RetryScope { invalid_responses, non_idempotent, .. } = retry.scope;
            let repeats_processed = !retry.codes.is_empty() || invalid_responses || non_idempotent;
            retry.max_retries > 0
                && (repeats_processed || self.attempt_time().is_some())
                // Over HTTP/2, such a body may be a stream of gRPC messages, which has no end.
                && (is_idempotent(request.method()) || protocol != UpstreamProtocol::Http2)
        };
        let is_kept = self.retry().is_some_and(may_retry)
            || self.service_retries().is_some_and(RequestRetries::repeats_processed)
                && protocol != UpstreamProtocol::Http2;
        is_kept && !request.body().is_end_stream() && self.is_idempotent(request.method())
    }

    /// The most bytes of a body that are kept to send the request again.
    pub(super) fn max_kept_body(&self, limits: &ProxyLimits) -> usize {
        self.service_retries().map_or(limits.max_replay_body, |retries| retries.settings.max_body)
    }

    /// For a request whose body was buffered, or not: then it is complete only if it has no body.
    pub(super) fn replay(&self, is_complete: bool, method: &Method, protocol: UpstreamProtocol) -> ReplayPolicy {
        let idempotent = self.is_idempotent(method);
        let repeats_processed = self.service_retries().is_some_and(RequestRetries::repeats_processed);
        // What only the scope of the rule permits counts as one of its attempts, and is not repeated within one.
        let is_by_scope = !is_idempotent(method)
            && self.service_retries().is_none()
            && self.retry().is_some_and(|retry| retry.scope.non_idempotent);
        ReplayPolicy {
            complete: is_complete,
            idempotent,
            allows_resending: self.allows_another(0),
            repeats_within_attempt: !is_by_scope,
            keeps_sent: idempotent && repeats_processed && protocol == UpstreamProtocol::Http2,
        }
    }

    fn is_idempotent(&self, method: &Method) -> bool {
        is_idempotent(method)
            || self.service_retries().is_some_and(|retries| retries.is_idempotent)
            || self.retry().is_some_and(|retry| retry.scope.non_idempotent)
    }

    /// Whether another attempt follows this many retries.
    fn allows_another(&self, retries: usize) -> bool {
        !self.is_mirror && retries < self.max_retries()
    }

    fn max_retries(&self) -> usize {
        let configured = match (self.service_retries(), self.retry()) {
            (Some(retries), _) => retries.settings.attempts,
            (None, Some(retry)) => retry.max_retries,
            (None, None) => return MAX_ENDPOINTS - 1,
        };
        usize::try_from(configured).unwrap_or(usize::MAX)
    }

    /// What follows an attempt after this many retries. `has_others`: whether there is an endpoint that was not tried.
    pub(super) fn next<B>(
        &self,
        retries: usize,
        replay: ReplayPolicy,
        outcome: Result<&Response<B>, &AttemptError>,
        has_others: impl FnOnce() -> bool,
    ) -> NextAttempt {
        if self.is_mirror || self.max_retries() == 0 {
            return NextAttempt::Never;
        }
        // A proxy before the endpoint has rejected the request. An overloaded one would only get more to do.
        if outcome.is_ok_and(is_overloaded) {
            return NextAttempt::Never;
        }
        match (self.service_retries(), outcome) {
            (Some(of_service), _) => of_service.next(retries, replay, outcome, has_others),
            (None, Ok(response)) => self.after_response(retries, replay, response.status()),
            (None, Err(error)) => self.after_failure(retries, replay, error, has_others),
        }
    }

    /// Whether the response has one of the rule's retry codes, and the request can be sent again.
    fn after_response(&self, retries: usize, replay: ReplayPolicy, status: StatusCode) -> NextAttempt {
        let is_listed = |retry: &RetryPolicy| retry.codes.binary_search(&status.as_u16()).is_ok();
        if !self.retry().is_some_and(is_listed) || !replay.idempotent {
            NextAttempt::Never
        } else if !self.allows_another(retries) {
            NextAttempt::Stop(RetryStop::Attempts)
        } else if !replay.complete {
            NextAttempt::Stop(RetryStop::Body)
        } else {
            NextAttempt::Retry(Retry { reason: RetryReason::Status, delay: RetryDelay::Backoff })
        }
    }

    /// What follows a failed attempt.
    fn after_failure(
        &self,
        retries: usize,
        replay: ReplayPolicy,
        error: &AttemptError,
        has_others: impl FnOnce() -> bool,
    ) -> NextAttempt {
        let Some(reason) = self.failure_reason(error) else { return NextAttempt::Never };
        let was_not_processed = error.was_not_processed();
        let delay = if was_not_processed && has_others() { RetryDelay::None } else { RetryDelay::Backoff };
        let is_retried = match delay {
            RetryDelay::None => true,
            // A stream that was reset had begun.
            _ => self.retry().is_some() && *error != AttemptError::StreamReset,
        };
        if !is_retried || !was_not_processed && !replay.idempotent {
            NextAttempt::Never
        } else if !self.allows_another(retries) {
            NextAttempt::Stop(RetryStop::Attempts)
        } else if !was_not_processed && !replay.complete {
            NextAttempt::Stop(RetryStop::Body)
        } else {
            NextAttempt::Retry(Retry { reason, delay })
        }
    }

    /// The reason to retry after a failure. `None` if it is not retried.
    fn failure_reason(&self, error: &AttemptError) -> Option<RetryReason> {
        let Some(RetryPolicy { scope, .. }) = self.retry() else { return error.retry_reason() };
        let is_included = match error {
            AttemptError::NotConnected(RequestError::ConnectTimeout)
            | AttemptError::Failed(RequestError::BackendRequestTimeout) => scope.timeouts,
            AttemptError::Failed(RequestError::InvalidResponse) => {
                return scope.invalid_responses.then_some(RetryReason::InvalidResponse);
            }
            _ => scope.errors,
        };
        error.retry_reason().filter(|_| is_included)
    }

    /// Whether it is too late for an attempt that would begin now, if the rule limits the time for that.
    pub(super) fn is_after_window(&self, first_started: Instant, now: Instant) -> bool {
        let window = self.retry().and_then(|retry| retry.scope.window);
        window.is_some_and(|window| now.saturating_duration_since(first_started) >= window)
    }

    /// How long a retry waits that follows this many others.
    pub(super) fn delay(&self, delay: RetryDelay, retries: usize) -> Duration {
        let random = fastrand::f64();
        match (self.service_retries(), delay) {
            (Some(of_service), _) => of_service.delay(delay, retries, random),
            (None, RetryDelay::None) => Duration::ZERO,
            (None, RetryDelay::Backoff | RetryDelay::SameEndpoint | RetryDelay::Requested(_)) => {
                let retries = u32::try_from(retries).unwrap_or(u32::MAX);
                self.retry().map_or(Duration::ZERO, |retry| retry.backoff_delay(retries, random))
            }
        }
    }

    /// The error if a retry after this delay cannot begin before the request must be complete. The retries of a rule
    /// begin to wait in any case.
    pub(super) fn missed_limit(&self, now: Instant, delay: Duration) -> Option<RequestError> {
        self.service_retries()?;
        let limit = self.service?.limit?;
        (limit.end.saturating_duration_since(now) <= delay).then_some(limit.error)
    }

    /// Whether the last response tells earlier gateways not to send the request again, after this stop.
    pub(super) fn marks_response(&self, stop: RetryStop) -> bool {
        let respects_attempt = self.service_retries().is_some_and(|retries| retries.settings.respects_attempt);
        respects_attempt && matches!(stop, RetryStop::Budget | RetryStop::Attempts)
    }

    /// How long the first attempt may have no response before a second one begins, if there is to be one.
    pub(super) fn hedge_delay(&self, replay: ReplayPolicy) -> Option<Duration> {
        if !replay.complete || !replay.idempotent {
            return None;
        }
        let hedge = self.service_retries()?.settings.hedge.as_ref()?;
        let delay = hedge.delay.or_else(|| self.response_times()?.percentile_95())?;
        Some(delay.max(MIN_HEDGE_DELAY))
    }

    /// Whether the response ends a request for which two attempts compete.
    pub(super) fn is_good<B>(&self, response: &Response<B>) -> bool {
        self.service_retries().is_none_or(|retries| retries.is_good(response))
    }
}

/// The shortest time after which a second attempt competes with the first one.
const MIN_HEDGE_DELAY: Duration = Duration::from_millis(10);

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextAttempt {
    /// Nothing: its outcome is not one that is retried.
    Never,
    /// Nothing, although its outcome is one that is retried.
    Stop(RetryStop),
    Retry(Retry),
}

/// Another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) reason: RetryReason,
    pub(super) delay: RetryDelay,
}

/// When another attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryDelay {
    /// At once, at another endpoint.
    None,
    /// After the back-off.
    Backoff,
    /// After the back-off, and at least the base of it, since there is no endpoint that was not tried.
    SameEndpoint,
    /// After the wait that the response requests.
    Requested(Duration),
}

/// Whether a request may be sent again.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ReplayPolicy {
    /// The whole request is available: its body is empty or completely buffered.
    pub(in crate::proxy) complete: bool,
    /// The method is idempotent, or the configuration or the client calls the request so.
    pub(in crate::proxy) idempotent: bool,
    /// The request may be sent again at all; within one attempt on a new connection, if a kept-alive connection turns
    /// out to be closed, or if the endpoint did not process the request.
    pub(in crate::proxy) allows_resending: bool,
    /// Within one attempt, also if the endpoint may have processed the request.
    pub(in crate::proxy) repeats_within_attempt: bool,
    /// What was sent of an incomplete body is kept, and sent again also if the endpoint may have processed it. Only
    /// over HTTP/2, where a request whose body has no end, such as a stream of gRPC messages, must not be read in
    /// advance.
    pub(in crate::proxy) keeps_sent: bool,
}

impl ReplayPolicy {
    /// Whether the request may be sent again on another connection if its body is kept while it is sent.
    pub(super) fn may_repeat_small_body(self) -> bool {
        self.allows_resending && self.idempotent && !self.complete
    }

    /// For a request whose body is not buffered.
    pub(in crate::proxy) fn unbuffered<B: Body>(request: &Request<B>) -> Self {
        ReplayPolicy {
            complete: request.body().is_end_stream(),
            idempotent: is_idempotent(request.method()),
            allows_resending: true,
            repeats_within_attempt: true,
            keeps_sent: false,
        }
    }
}

/// Whether the method is idempotent (RFC 9110, section 9.2.2).
pub(in crate::proxy) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

#[cfg(test)]
mod tests;
