//! Tests of the decisions whether a request is attempted again.

use http_body_util::{Empty, Full};

use super::super::service_attempts::OVERLOADED;
use super::*;
use crate::snapshot::timeouts_and_retries::{RetryScope, TimeoutSetting};

const SECOND: Duration = Duration::from_secs(1);

fn rule(max_retries: u32, codes: &[u16]) -> TimeoutsAndRetries {
    scoped_rule(max_retries, codes, RetryScope::default())
}

fn scoped_rule(max_retries: u32, codes: &[u16], scope: RetryScope) -> TimeoutsAndRetries {
    let retry = RetryPolicy { max_retries, codes: codes.into(), backoff: SECOND, scope };
    TimeoutsAndRetries { retry: Some(retry), ..TimeoutsAndRetries::default() }
}

fn policy(rule: &TimeoutsAndRetries) -> AttemptPolicy<'_> {
    AttemptPolicy { rule: Some(rule), ..AttemptPolicy::default() }
}

const WHOLE: ReplayPolicy = ReplayPolicy {
    complete: true,
    idempotent: true,
    allows_resending: true,
    repeats_within_attempt: true,
    keeps_sent: false,
};
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
        ("timeouts without retries, refused", policy(&no_retries), 0, WHOLE, refused, true, at_once(ConnectFailure)),
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
fn failures_are_retried_as_the_scope_says() {
    use NextAttempt::Never;
    use RetryReason::{ConnectFailure, InvalidResponse, Reset, Timeout};
    let refused = AttemptError::NotConnected(RequestError::ConnectionRefused);
    let slow = AttemptError::NotConnected(RequestError::ConnectTimeout);
    let timed_out = AttemptError::Failed(RequestError::BackendRequestTimeout);
    let invalid = AttemptError::Failed(RequestError::InvalidResponse);
    let closed = AttemptError::NoResponse;
    let none = RetryScope { errors: false, timeouts: false, ..RetryScope::default() };
    let errors = scoped_rule(1, &[503], RetryScope { errors: true, ..none });
    let timeouts = scoped_rule(1, &[503], RetryScope { timeouts: true, ..none });
    let invalid_responses = scoped_rule(1, &[], RetryScope { invalid_responses: true, ..none });
    let any_method = scoped_rule(1, &[503], RetryScope { non_idempotent: true, ..RetryScope::default() });
    for (case, rule, replay, error, expected) in [
        ("errors, refused", &errors, WHOLE, refused, at_once(ConnectFailure)),
        ("errors, closed", &errors, WHOLE, closed, delayed(Reset)),
        ("errors, slow", &errors, WHOLE, slow, Never),
        ("errors, timed out", &errors, WHOLE, timed_out, Never),
        ("errors, invalid", &errors, WHOLE, invalid, Never),
        ("timeouts, refused", &timeouts, WHOLE, refused, Never),
        ("timeouts, closed", &timeouts, WHOLE, closed, Never),
        ("timeouts, slow", &timeouts, WHOLE, slow, at_once(ConnectFailure)),
        ("timeouts, timed out", &timeouts, WHOLE, timed_out, delayed(Timeout)),
        ("invalid, refused", &invalid_responses, WHOLE, refused, Never),
        ("invalid", &invalid_responses, WHOLE, invalid, delayed(InvalidResponse)),
        ("invalid, body not kept", &invalid_responses, STREAMED, invalid, BODY),
        ("invalid, not idempotent", &invalid_responses, POST, invalid, Never),
        ("any method, stream reset", &any_method, WHOLE, AttemptError::StreamReset, Never),
    ] {
        assert_eq!(policy(rule).next::<()>(0, replay, Err(&error), || true), expected, "{case}");
    }
    let replay = |rule, protocol| policy(rule).replay(true, &Method::POST, protocol).idempotent;
    let post = || Request::post("/").body(Full::new(bytes::Bytes::from_static(b"body"))).unwrap();
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        assert_eq!((replay(&errors, protocol), replay(&any_method, protocol)), (false, true));
        assert!(!policy(&errors).buffers(&post(), protocol));
        // A call whose messages have no end must not be read in advance.
        assert_eq!(policy(&any_method).buffers(&post(), protocol), protocol == UpstreamProtocol::Http1);
    }
}

#[test]
fn attempts_begin_within_the_window() {
    let window = Some(5 * SECOND);
    let rule = scoped_rule(9, &[], RetryScope { window, ..RetryScope::default() });
    let now = Instant::now();
    let has_passed = |policy: AttemptPolicy<'_>, seconds| policy.is_after_window(now, now + seconds * SECOND);
    assert_eq!([0, 4, 5].map(|seconds| has_passed(policy(&rule), seconds)), [false, false, true]);
    assert!(!has_passed(AttemptPolicy::default(), 60));
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
