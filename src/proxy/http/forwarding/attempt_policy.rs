//! How often a request is attempted, when it is repeated, and for how long: pure decisions, without a connection.
//!
//! A request is sent again in these cases only:
//! - within one attempt (`attempts.rs`), on a new connection: a kept-alive connection closed without a response, the
//!   request is idempotent and has no body; or an HTTP/2 endpoint reports that it did not process the request, and the
//!   replay buffer has the whole sent body,
//! - the endpoint certainly did not process it, and there is another endpoint,
//! - the rule has retries (GEP-1731), and the request was not processed, or it is idempotent, is available as a whole,
//!   and got one of the rule's statuses, no response in the time of one attempt, or a closed connection,
//! - the rule has no retries, but its Service (`service_attempts.rs`), and the outcome meets one of its conditions.
//!
//! Another attempt needs a place in the retry budget of the Service (GEP-3388), unless no connection was established.

use std::time::Duration;

use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;

use super::attempt_error::AttemptError;
use super::attempt_timeouts::AttemptTimeouts;
use super::replay_policy::{ReplayPolicy, is_idempotent};
use super::service_attempts::{RequestRetries, ServiceAttempts, is_overloaded};
use crate::plugin_api::endpoint_timeouts::EndpointTimeouts;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::limits::{MAX_ENDPOINTS, ProxyLimits};
use crate::snapshot::timeouts_and_retries::{RetryPolicy, TimeoutsAndRetries};
use crate::upstream::{ResponseTimes, RetryReason, RetryStop, UpstreamProtocol};

/// What limits the attempts of a request. The default value is that of requests without timeouts and retries, which are
/// sent to another endpoint only if the first did not process them.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct AttemptPolicy<'r> {
    /// The timeouts and retries of the rule.
    pub(in crate::proxy) rule: Option<&'r TimeoutsAndRetries>,
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

    /// Whether the Service limits the time of one attempt. Its owner knows how long its endpoints may take.
    pub(super) fn has_attempt_time_of_service(&self) -> bool {
        self.service.is_some()
            && self.rule.is_none_or(|rule| !rule.sets_response_timeout())
            && self.attempt_time().is_some()
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
        let may_retry =
            |retry: &RetryPolicy| retry.max_retries > 0 && (!retry.codes.is_empty() || self.attempt_time().is_some());
        let is_kept = self.retry().is_some_and(may_retry)
            || self.service_retries().is_some_and(RequestRetries::repeats_processed)
                && protocol == UpstreamProtocol::Http1;
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
        ReplayPolicy {
            complete: is_complete,
            idempotent,
            allows_resending: self.allows_another(0),
            keeps_sent: idempotent && repeats_processed && protocol == UpstreamProtocol::Http2,
        }
    }

    fn is_idempotent(&self, method: &Method) -> bool {
        is_idempotent(method) || self.service_retries().is_some_and(|retries| retries.is_idempotent)
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
        let Some(reason) = error.retry_reason() else { return NextAttempt::Never };
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

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::super::service_attempts::OVERLOADED;
    use super::*;
    use crate::snapshot::timeouts_and_retries::TimeoutSetting;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule(max_retries: u32, codes: &[u16]) -> TimeoutsAndRetries {
        let retry = RetryPolicy { max_retries, codes: codes.into(), backoff: SECOND };
        TimeoutsAndRetries { retry: Some(retry), ..TimeoutsAndRetries::default() }
    }

    fn policy(rule: &TimeoutsAndRetries) -> AttemptPolicy<'_> {
        AttemptPolicy { rule: Some(rule), ..AttemptPolicy::default() }
    }

    const WHOLE: ReplayPolicy =
        ReplayPolicy { complete: true, idempotent: true, allows_resending: true, keeps_sent: false };
    const STREAMED: ReplayPolicy = ReplayPolicy { complete: false, ..WHOLE };
    const POST: ReplayPolicy = ReplayPolicy { idempotent: false, ..WHOLE };
    const ATTEMPTS: NextAttempt = NextAttempt::Stop(RetryStop::Attempts);
    const BODY: NextAttempt = NextAttempt::Stop(RetryStop::Body);

    fn at_once(reason: RetryReason) -> NextAttempt {
        NextAttempt::Retry(Retry { reason, delay: RetryDelay::None })
    }

    fn delayed(reason: RetryReason) -> NextAttempt {
        NextAttempt::Retry(Retry { reason, delay: RetryDelay::Backoff })
    }

    #[test]
    fn failed_attempts_are_followed_by_others() {
        use NextAttempt::Never;
        use RetryReason::{ConnectFailure, RefusedStream, Reset, Timeout};
        let refused = AttemptError::NotConnected(RequestError::ConnectionRefused);
        let timed_out = AttemptError::Failed(RequestError::BackendRequestTimeout);
        let (not_processed, no_response) = (AttemptError::NotProcessed, AttemptError::NoResponse);
        let no_retries = TimeoutsAndRetries::default();
        let (two, none) = (rule(2, &[]), rule(0, &[]));
        let (plain, retried, never) = (AttemptPolicy::default(), policy(&two), policy(&none));
        for (case, policy, retries, replay, error, has_others, expected) in [
            ("another endpoint", plain, 0, STREAMED, refused, true, at_once(ConnectFailure)),
            ("the third endpoint", plain, 1, STREAMED, refused, true, at_once(ConnectFailure)),
            ("no fourth endpoint", plain, 2, STREAMED, refused, true, ATTEMPTS),
            ("no other endpoint", plain, 0, STREAMED, refused, false, Never),
            ("not processed", plain, 0, POST, not_processed, true, at_once(RefusedStream)),
            ("not sent", plain, 0, POST, AttemptError::NotSent, true, at_once(RefusedStream)),
            ("perhaps processed", plain, 0, WHOLE, no_response, true, Never),
            ("timeouts without retries", policy(&no_retries), 0, WHOLE, timed_out, true, Never),
            (
                "timeouts without retries, refused",
                policy(&no_retries),
                0,
                WHOLE,
                refused,
                true,
                at_once(ConnectFailure),
            ),
            ("rule with retries, refused", retried, 0, POST, refused, true, at_once(ConnectFailure)),
            ("the same endpoint again", retried, 0, POST, refused, false, delayed(ConnectFailure)),
            ("perhaps processed, idempotent", retried, 1, WHOLE, no_response, true, delayed(Reset)),
            ("timeout of the attempt", retried, 1, WHOLE, timed_out, true, delayed(Timeout)),
            ("perhaps processed, body not kept", retried, 1, STREAMED, no_response, true, BODY),
            ("perhaps processed, not idempotent", retried, 1, POST, timed_out, true, Never),
            ("invalid response", retried, 0, WHOLE, AttemptError::Failed(RequestError::InvalidResponse), true, Never),
            ("stream reset", retried, 0, WHOLE, AttemptError::StreamReset, true, Never),
            ("as many as configured", retried, 2, WHOLE, refused, true, ATTEMPTS),
            ("mirrored copy", AttemptPolicy { is_mirror: true, ..plain }, 0, WHOLE, refused, true, Never),
            ("no retries configured", never, 0, WHOLE, refused, true, Never),
        ] {
            assert_eq!(policy.next::<()>(retries, replay, Err(&error), || has_others), expected, "{case}");
        }
    }

    #[test]
    fn responses_with_listed_statuses_are_retried() {
        let rule = rule(1, &[500, 503]);
        let retry = delayed(RetryReason::Status);
        for (case, policy, retries, replay, status, expected) in [
            ("listed", policy(&rule), 0, WHOLE, 503, retry),
            ("not listed", policy(&rule), 0, WHOLE, 502, NextAttempt::Never),
            ("last attempt", policy(&rule), 1, WHOLE, 503, ATTEMPTS),
            ("body not kept", policy(&rule), 0, STREAMED, 503, BODY),
            ("not idempotent", policy(&rule), 0, POST, 503, NextAttempt::Never),
            ("no rule", AttemptPolicy::default(), 0, WHOLE, 503, NextAttempt::Never),
        ] {
            let response = Response::builder().status(status).body(()).unwrap();
            assert_eq!(policy.next(retries, replay, Ok(&response), || true), expected, "{case}");
            let overloaded = Response::builder().status(status).header(OVERLOADED, "true").body(()).unwrap();
            let next = policy.next(retries, replay, Ok(&overloaded), || true);
            assert_eq!(next, NextAttempt::Never, "overloaded, {case}");
        }
    }

    #[test]
    fn bodies_are_buffered_only_if_they_may_be_sent_again() {
        let with_codes = rule(1, &[503]);
        let with_timeout = TimeoutsAndRetries { backend_request: TimeoutSetting::After(SECOND), ..rule(1, &[]) };
        let put = || Request::put("/").body(Full::new(bytes::Bytes::from_static(b"body"))).unwrap();
        for (case, rule, expected) in [
            ("statuses", &with_codes, true),
            ("timeout of an attempt", &with_timeout, true),
            ("only unprocessed requests are retried", &rule(1, &[]), false),
            ("no retries", &rule(0, &[503]), false),
        ] {
            assert_eq!(policy(rule).buffers(&put(), UpstreamProtocol::Http1), expected, "{case}");
        }
        let post = Request::post("/").body(Full::new(bytes::Bytes::from_static(b"body"))).unwrap();
        let empty = Request::put("/").body(Empty::<bytes::Bytes>::new()).unwrap();
        let buffers = |request: &Request<_>| policy(&with_codes).buffers(request, UpstreamProtocol::Http1);
        assert!(!buffers(&post));
        assert!(!policy(&with_codes).buffers(&empty, UpstreamProtocol::Http1));
    }
}
