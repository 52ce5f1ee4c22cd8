//! How often a request is attempted, when it is repeated, and for how long: pure decisions, without a connection.
//!
//! A request is sent again in these cases only:
//! - within one attempt (`attempt.rs`), on a new connection: a kept-alive connection closed without a response, the
//!   method is idempotent and the request has no body; or an HTTP/2 endpoint reports that it did not process the
//!   request, and the replay buffer has the whole sent body,
//! - the endpoint certainly did not process it, and there is another endpoint,
//! - the rule has retries (GEP-1731), and the request was not processed, or it is idempotent, is available as a whole,
//!   and got one of the rule's statuses, no response in the time of one attempt, or a closed connection.
//!
//! Another attempt needs a place in the retry budget of the Service (GEP-3388).

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body::Body;
use tokio::time::Instant;

use super::attempt_error::AttemptError;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::limits::MAX_ENDPOINTS;
use crate::snapshot::timeouts_and_retries::{RetryPolicy, TimeoutsAndRetries};

/// What limits the attempts of a request. The default value is that of requests without timeouts and retries, which are
/// sent to another endpoint only if the first did not process them.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct AttemptPolicy<'r> {
    /// The timeouts and retries of the rule.
    pub(in crate::proxy) rule: Option<&'r TimeoutsAndRetries>,
    /// When a gRPC call ends.
    pub(in crate::proxy) call_deadline: Option<Instant>,
    /// The request is a mirrored copy, which is sent at most once. It says nothing about the health of its endpoint,
    /// and does not count toward the budget of retries.
    pub(in crate::proxy) is_mirror: bool,
}

/// Whether a request may be sent again.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ReplayPolicy {
    /// The whole request is available: its body is empty or completely buffered.
    pub(in crate::proxy) complete: bool,
    /// The method is idempotent.
    pub(in crate::proxy) idempotent: bool,
    /// The request may be sent again at all; within one attempt on a new connection, if a kept-alive connection turns
    /// out to be closed, or if the endpoint did not process the request.
    pub(in crate::proxy) allows_resending: bool,
}

/// When a request and its response must be complete, and the error if they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct TimeLimit {
    pub(in crate::proxy) end: Instant,
    pub(in crate::proxy) error: RequestError,
}

/// What follows an attempt that yielded no response for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextAttempt {
    Never,
    AtOnce,
    /// After the back-off.
    Delayed,
}

impl<'r> AttemptPolicy<'r> {
    /// Whether neither the rule nor the call limits the time or the attempts.
    pub(in crate::proxy) fn is_plain(self) -> bool {
        self.rule.is_none() && self.call_deadline.is_none()
    }

    fn retry(&self) -> Option<&'r RetryPolicy> {
        self.rule?.retry.as_ref()
    }

    /// Whether endpoints that have failed are tried again after all others.
    pub(super) fn repeats_endpoints(&self) -> bool {
        self.retry().is_some()
    }

    /// Whether retries are counted as those of a rule.
    pub(super) fn has_retries(&self) -> bool {
        self.retry().is_some()
    }

    /// How long one attempt may take.
    pub(super) fn attempt_time(&self) -> Option<Duration> {
        self.rule?.backend_request.duration()
    }

    /// When all attempts end that begin now: the earlier of the timeout of the rule and the deadline of the call.
    pub(super) fn time_limit(&self, now: Instant) -> Option<TimeLimit> {
        let of_rule = self.rule.and_then(|rule| rule.request.duration());
        let of_rule = of_rule.map(|limit| TimeLimit { end: now + limit, error: RequestError::RequestTimeout });
        let of_call = self.call_deadline.map(|end| TimeLimit { end, error: RequestError::CallDeadline });
        TimeLimit::earlier(of_rule, of_call)
    }

    /// Whether a body is read before the request is sent, so that it can be sent again.
    pub(super) fn buffers<B: Body>(&self, request: &Request<B>) -> bool {
        let may_retry =
            |retry: &RetryPolicy| retry.max_retries > 0 && (!retry.codes.is_empty() || self.attempt_time().is_some());
        !request.body().is_end_stream() && is_idempotent(request.method()) && self.retry().is_some_and(may_retry)
    }

    /// For a request whose body was buffered, or not: then it is complete only if it has no body.
    pub(super) fn replay(&self, is_complete: bool, method: &Method) -> ReplayPolicy {
        ReplayPolicy {
            complete: is_complete,
            idempotent: is_idempotent(method),
            allows_resending: self.allows_another(0),
        }
    }

    /// Whether another attempt follows this many retries.
    fn allows_another(&self, retries: usize) -> bool {
        let max_retries = |retry: &RetryPolicy| usize::try_from(retry.max_retries).unwrap_or(usize::MAX);
        !self.is_mirror && retries < self.retry().map_or(MAX_ENDPOINTS - 1, max_retries)
    }

    /// Whether the response has one of the rule's retry codes, and the request can be sent again.
    pub(super) fn retries_status(&self, retries: usize, replay: ReplayPolicy, status: StatusCode) -> bool {
        let is_listed = |retry: &RetryPolicy| retry.codes.binary_search(&status.as_u16()).is_ok();
        self.retry().is_some_and(is_listed) && replay.complete && replay.idempotent && self.allows_another(retries)
    }

    /// What follows a failed attempt. `has_others`: whether there is an endpoint that has not failed.
    pub(super) fn after_failure(
        &self,
        retries: usize,
        replay: ReplayPolicy,
        error: &AttemptError,
        has_others: impl FnOnce() -> bool,
    ) -> NextAttempt {
        if !self.allows_another(retries) {
            return NextAttempt::Never;
        }
        let was_not_processed = error.was_not_processed();
        if was_not_processed && has_others() {
            return NextAttempt::AtOnce;
        }
        let is_retried_if_processed =
            matches!(error, AttemptError::NoResponse | AttemptError::Failed(RequestError::BackendRequestTimeout));
        let may_retry = was_not_processed || is_retried_if_processed && replay.complete && replay.idempotent;
        if may_retry && self.retry().is_some() { NextAttempt::Delayed } else { NextAttempt::Never }
    }

    /// The delay before the next attempt, after this many retries.
    pub(super) fn backoff(&self, retries: usize) -> Duration {
        let retries = u32::try_from(retries).unwrap_or(u32::MAX);
        self.retry().map_or(Duration::ZERO, |retry| retry.backoff_delay(retries, fastrand::f64()))
    }
}

impl ReplayPolicy {
    /// For a request whose body is not buffered.
    pub(in crate::proxy) fn unbuffered<B: Body>(request: &Request<B>) -> Self {
        ReplayPolicy {
            complete: request.body().is_end_stream(),
            idempotent: is_idempotent(request.method()),
            allows_resending: true,
        }
    }
}

impl TimeLimit {
    /// The earlier of two limits; the first one if both are equal.
    pub(super) fn earlier(first: Option<TimeLimit>, second: Option<TimeLimit>) -> Option<TimeLimit> {
        [first, second].into_iter().flatten().min_by_key(|limit| limit.end)
    }
}

/// Whether the method is idempotent (RFC 9110, section 9.2.2).
pub(in crate::proxy) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

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

    const WHOLE: ReplayPolicy = ReplayPolicy { complete: true, idempotent: true, allows_resending: true };
    const STREAMED: ReplayPolicy = ReplayPolicy { complete: false, idempotent: true, allows_resending: true };
    const POST: ReplayPolicy = ReplayPolicy { complete: true, idempotent: false, allows_resending: true };

    #[test]
    fn failed_attempts_are_followed_by_others() {
        use NextAttempt::{AtOnce, Delayed, Never};
        let refused = AttemptError::NotConnected(RequestError::ConnectionRefused);
        let timed_out = AttemptError::Failed(RequestError::BackendRequestTimeout);
        let (not_processed, no_response) = (AttemptError::NotProcessed, AttemptError::NoResponse);
        let no_retries = TimeoutsAndRetries::default();
        let (two, none) = (rule(2, &[]), rule(0, &[]));
        let (plain, retried, never) = (AttemptPolicy::default(), policy(&two), policy(&none));
        for (case, policy, retries, replay, error, has_others, expected) in [
            ("another endpoint", plain, 0, STREAMED, refused, true, AtOnce),
            ("the third endpoint", plain, 1, STREAMED, refused, true, AtOnce),
            ("no fourth endpoint", plain, 2, STREAMED, refused, true, Never),
            ("no other endpoint", plain, 0, STREAMED, refused, false, Never),
            ("not processed", plain, 0, POST, not_processed, true, AtOnce),
            ("not sent", plain, 0, POST, AttemptError::NotSent, true, AtOnce),
            ("perhaps processed", plain, 0, WHOLE, no_response, true, Never),
            ("timeouts without retries", policy(&no_retries), 0, WHOLE, timed_out, true, Never),
            ("timeouts without retries, refused", policy(&no_retries), 0, WHOLE, refused, true, AtOnce),
            ("rule with retries, refused", retried, 0, POST, refused, true, AtOnce),
            ("the same endpoint again", retried, 0, POST, refused, false, Delayed),
            ("perhaps processed, idempotent", retried, 1, WHOLE, no_response, true, Delayed),
            ("timeout of the attempt", retried, 1, WHOLE, timed_out, true, Delayed),
            ("perhaps processed, body not kept", retried, 1, STREAMED, no_response, true, Never),
            ("perhaps processed, not idempotent", retried, 1, POST, timed_out, true, Never),
            ("invalid response", retried, 0, WHOLE, AttemptError::Failed(RequestError::InvalidResponse), true, Never),
            ("as many as configured", retried, 2, WHOLE, refused, true, Never),
            ("mirrored copy", AttemptPolicy { is_mirror: true, ..plain }, 0, WHOLE, refused, true, Never),
            ("no retries configured", never, 0, WHOLE, refused, true, Never),
        ] {
            assert_eq!(policy.after_failure(retries, replay, &error, || has_others), expected, "{case}");
        }
    }

    #[test]
    fn responses_with_listed_statuses_are_retried() {
        let rule = rule(1, &[500, 503]);
        for (case, policy, retries, replay, status, expected) in [
            ("listed", policy(&rule), 0, WHOLE, 503, true),
            ("not listed", policy(&rule), 0, WHOLE, 502, false),
            ("last attempt", policy(&rule), 1, WHOLE, 503, false),
            ("body not kept", policy(&rule), 0, STREAMED, 503, false),
            ("not idempotent", policy(&rule), 0, POST, 503, false),
            ("no rule", AttemptPolicy::default(), 0, WHOLE, 503, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(policy.retries_status(retries, replay, status), expected, "{case}");
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
            assert_eq!(policy(rule).buffers(&put()), expected, "{case}");
        }
        let post = Request::post("/").body(Full::new(bytes::Bytes::from_static(b"body"))).unwrap();
        let empty = Request::put("/").body(Empty::<bytes::Bytes>::new()).unwrap();
        assert!(!policy(&with_codes).buffers(&post) && !policy(&with_codes).buffers(&empty));
    }

    #[test]
    fn earlier_time_limit_applies() {
        let now = Instant::now();
        let rule = TimeoutsAndRetries { request: TimeoutSetting::After(2 * SECOND), ..TimeoutsAndRetries::default() };
        for (call, expected) in [
            (None, RequestError::RequestTimeout),
            (Some(SECOND), RequestError::CallDeadline),
            (Some(2 * SECOND), RequestError::RequestTimeout),
            (Some(3 * SECOND), RequestError::RequestTimeout),
        ] {
            let call_deadline = call.map(|call| now + call);
            let policy = AttemptPolicy { rule: Some(&rule), call_deadline, ..AttemptPolicy::default() };
            let limit = policy.time_limit(now).unwrap();
            assert_eq!((limit.error, limit.end), (expected, now + call.unwrap_or(2 * SECOND).min(2 * SECOND)));
        }
        assert_eq!(AttemptPolicy::default().time_limit(now), None);
    }
}
