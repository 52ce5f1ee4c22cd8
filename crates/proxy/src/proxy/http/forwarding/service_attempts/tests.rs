//! Which outcomes the settings of a Service retry, and after which delay.

use http::HeaderValue;

use super::*;

const WHOLE: ReplayPolicy = ReplayPolicy {
    complete: true,
    idempotent: true,
    allows_resending: true,
    repeats_within_attempt: true,
    keeps_sent: false,
};
const POST: ReplayPolicy = ReplayPolicy { idempotent: false, ..WHOLE };
const STREAMED: ReplayPolicy = ReplayPolicy { complete: false, ..WHOLE };
const KEPT: ReplayPolicy = ReplayPolicy { keeps_sent: true, ..STREAMED };
const MILLISECOND: Duration = Duration::from_millis(1);

fn on(change: impl FnOnce(&mut RetryConditions)) -> RetrySettings {
    let mut settings = RetrySettings { attempts: 2, on: RetryConditions::default(), ..RetrySettings::default() };
    change(&mut settings.on);
    settings
}

fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}

fn next(
    settings: &RetrySettings,
    retries: usize,
    replay: ReplayPolicy,
    outcome: Result<&Response<()>, &AttemptError>,
) -> NextAttempt {
    RequestRetries::new(settings, &HeaderMap::new()).next(retries, replay, outcome, || true)
}

fn reason(settings: &RetrySettings, outcome: Result<&Response<()>, &AttemptError>) -> Option<RetryReason> {
    match next(settings, 0, WHOLE, outcome) {
        NextAttempt::Retry(retry) => Some(retry.reason),
        NextAttempt::Never | NextAttempt::Stop(_) => None,
    }
}

#[test]
fn each_condition_retries_its_errors_only() {
    let errors = [
        (AttemptError::NotConnected(RequestError::ConnectionRefused), RetryReason::ConnectFailure),
        (AttemptError::NotProcessed, RetryReason::RefusedStream),
        (AttemptError::NotSent, RetryReason::RefusedStream),
        (AttemptError::NoResponse, RetryReason::Reset),
        (AttemptError::StreamReset, RetryReason::Reset),
        (AttemptError::Failed(RequestError::BackendRequestTimeout), RetryReason::Timeout),
    ];
    let settings = [
        (RetryReason::ConnectFailure, on(|on| on.connect_failure = true)),
        (RetryReason::RefusedStream, on(|on| on.refused_stream = true)),
        (RetryReason::Reset, on(|on| on.reset = true)),
        (RetryReason::Timeout, on(|on| on.timeout = true)),
        (RetryReason::Status, on(|on| (on.gateway_error, on.server_error) = (true, true))),
    ];
    for (condition, settings) in &settings {
        for (error, of_error) in &errors {
            let expected = (condition == of_error).then_some(*of_error);
            assert_eq!(reason(settings, Err(error)), expected, "{condition:?} {error:?}");
        }
    }
    for error in [RequestError::InvalidResponse, RequestError::ConnectionLimit, RequestError::ResponseTimeout] {
        for (_, settings) in &settings {
            assert_eq!(reason(settings, Err(&AttemptError::Failed(error))), None, "{error:?}");
        }
    }
}

#[test]
fn each_condition_retries_its_responses_only() {
    let gateway = on(|on| on.gateway_error = true);
    let server = on(|on| on.server_error = true);
    let codes = on(|on| on.codes = [409, 425].into());
    for (status, is_gateway, is_server, is_listed) in [
        (200, false, false, false),
        (409, false, false, true),
        (425, false, false, true),
        (429, false, false, false),
        (500, false, true, false),
        (501, false, false, false),
        (502, true, true, false),
        (503, true, true, false),
        (504, true, true, false),
        (505, false, false, false),
        (599, false, true, false),
    ] {
        let response = response(status, &[]);
        for (settings, expected) in [(&gateway, is_gateway), (&server, is_server), (&codes, is_listed)] {
            assert_eq!(reason(settings, Ok(&response)), expected.then_some(RetryReason::Status), "{status}");
        }
    }
    let by_field = on(|on| on.headers = [HeaderName::from_static("x-retry")].into());
    assert_eq!(reason(&by_field, Ok(&response(200, &[("x-retry", "")]))), Some(RetryReason::Header));
    assert_eq!(reason(&by_field, Ok(&response(200, &[]))), None);
    let by_grpc = on(|on| on.grpc_codes = [8, 14].into());
    for (fields, expected) in [
        (&[("content-type", "application/grpc"), ("grpc-status", "14")][..], true),
        (&[("content-type", "application/grpc+proto"), ("grpc-status", "8")], true),
        (&[("content-type", "application/grpc"), ("grpc-status", "5")], false),
        (&[("content-type", "application/grpc")], false),
        (&[("content-type", "text/plain"), ("grpc-status", "14")], false),
    ] {
        let found = reason(&by_grpc, Ok(&response(200, fields)));
        assert_eq!(found, expected.then_some(RetryReason::GrpcStatus), "{fields:?}");
    }
}

#[test]
fn overloaded_endpoints_are_left_alone() {
    let server = on(|on| on.server_error = true);
    assert_eq!(reason(&server, Ok(&response(503, &[("x-envoy-overloaded", "true")]))), None);
}

#[test]
fn what_may_have_been_processed_must_be_idempotent_and_kept() {
    let settings = on(|on| (on.connect_failure, on.reset, on.server_error) = (true, true, true));
    let refused = AttemptError::NotConnected(RequestError::ConnectionRefused);
    let (reset, failed) = (AttemptError::NoResponse, response(500, &[]));
    let retry = |reason, delay| NextAttempt::Retry(Retry { reason, delay });
    let status = retry(RetryReason::Status, RetryDelay::Backoff);
    for (case, retries, replay, outcome, expected) in [
        ("refused", 0, POST, Err(&refused), retry(RetryReason::ConnectFailure, RetryDelay::None)),
        ("refused too often", 2, POST, Err(&refused), NextAttempt::Stop(RetryStop::Attempts)),
        ("reset", 1, WHOLE, Err(&reset), retry(RetryReason::Reset, RetryDelay::Backoff)),
        ("reset, not idempotent", 0, POST, Err(&reset), NextAttempt::Never),
        ("status", 0, WHOLE, Ok(&failed), status),
        ("status, not idempotent", 0, POST, Ok(&failed), NextAttempt::Never),
        ("status, body not kept", 0, STREAMED, Ok(&failed), NextAttempt::Stop(RetryStop::Body)),
        ("status, body kept while it is sent", 0, KEPT, Ok(&failed), status),
        ("status too often", 2, WHOLE, Ok(&failed), NextAttempt::Stop(RetryStop::Attempts)),
        (
            "response has begun",
            0,
            WHOLE,
            Err(&AttemptError::Failed(RequestError::NoResponse)),
            NextAttempt::Stop(RetryStop::Started),
        ),
    ] {
        assert_eq!(next(&settings, retries, replay, outcome), expected, "{case}");
    }
    let none = RetrySettings { attempts: 0, ..settings };
    assert_eq!(next(&none, 0, WHOLE, Err(&refused)), NextAttempt::Never);
}

#[test]
fn same_endpoint_gets_the_request_after_the_base_delay() {
    let settings = on(|on| on.connect_failure = true);
    let retries = RequestRetries::new(&settings, &HeaderMap::new());
    let refused = AttemptError::NotConnected(RequestError::ConnectionRefused);
    let alone = retries.next::<()>(0, WHOLE, Err(&refused), || false);
    let expected = Retry { reason: RetryReason::ConnectFailure, delay: RetryDelay::SameEndpoint };
    assert_eq!(alone, NextAttempt::Retry(expected));
    assert_eq!(retries.delay(RetryDelay::SameEndpoint, 0, 0.0), settings.backoff.base);
}

#[test]
fn delays_grow_up_to_the_maximum() {
    let backoff = RetryBackoff { base: 10 * MILLISECOND, max: 50 * MILLISECOND };
    let settings = RetrySettings { backoff, ..RetrySettings::default() };
    let retries = RequestRetries::new(&settings, &HeaderMap::new());
    for (delay, count, random, expected) in [
        (RetryDelay::None, 3, 1.0, 0),
        (RetryDelay::Backoff, 0, 0.0, 0),
        (RetryDelay::Backoff, 0, 1.0, 10),
        (RetryDelay::Backoff, 1, 1.0, 20),
        (RetryDelay::Backoff, 2, 0.5, 20),
        (RetryDelay::Backoff, 3, 1.0, 50),
        (RetryDelay::Backoff, 1000, 1.0, 50),
        (RetryDelay::Requested(1000 * MILLISECOND), 0, 0.0, 1000),
        (RetryDelay::Requested(1000 * MILLISECOND), 0, 1.0, 1500),
        (RetryDelay::Requested(Duration::ZERO), 0, 1.0, 10),
    ] {
        let expected = expected * MILLISECOND;
        assert_eq!(retries.delay(delay, count, random), expected, "{delay:?} {count} {random}");
    }
}

#[test]
fn requested_waits_are_limited() {
    let settings =
        RetrySettings { max_retry_after: Duration::from_secs(5), ..on(|on| on.codes = [429, 500, 503].into()) };
    let wait = |status, seconds| match next(&settings, 0, WHOLE, Ok(&response(status, &[("retry-after", seconds)]))) {
        NextAttempt::Retry(retry) => Ok(retry.delay),
        NextAttempt::Stop(stop) => Err(stop),
        NextAttempt::Never => unreachable!("the status is retried"),
    };
    for status in [429, 503] {
        assert_eq!(wait(status, "5"), Ok(RetryDelay::Requested(Duration::from_secs(5))));
        assert_eq!(wait(status, "6"), Err(RetryStop::Deadline), "the client gets the response");
    }
    assert_eq!(wait(500, "6"), Ok(RetryDelay::Backoff), "the field has no meaning there");
    let off = RetrySettings { max_retry_after: Duration::ZERO, ..settings };
    let response = response(503, &[("retry-after", "1")]);
    assert_eq!(next(&off, 0, WHOLE, Ok(&response)), NextAttempt::Stop(RetryStop::Deadline));
}

#[test]
fn idempotency_key_counts_only_if_it_is_trusted() {
    let keyed = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static("k"))]);
    let trusting = RetrySettings { trust_idempotency_key: true, ..RetrySettings::default() };
    let all = RetrySettings { non_idempotent: true, ..RetrySettings::default() };
    let none = HeaderMap::new();
    for (settings, headers, expected) in [
        (&RetrySettings::default(), &keyed, false),
        (&trusting, &keyed, true),
        (&trusting, &none, false),
        (&all, &none, true),
    ] {
        assert_eq!(RequestRetries::new(settings, headers).is_idempotent, expected, "{headers:?}");
    }
}

#[test]
fn request_that_arrives_as_a_retry_is_not_retried() {
    let name = HeaderName::from_static("x-envoy-attempt-count");
    let settings =
        RetrySettings { attempt_header: Some(name.clone()), respects_attempt: true, ..on(|on| on.server_error = true) };
    let ignoring = RetrySettings { respects_attempt: false, ..settings.clone() };
    let failed = response(500, &[]);
    for (settings, value, is_retried, number) in [
        (&settings, None, true, 1),
        (&settings, Some("1"), true, 1),
        (&settings, Some("2"), false, 2),
        (&settings, Some("0"), true, 1),
        (&settings, Some("many"), true, 1),
        (&settings, Some("-2"), true, 1),
        (&ignoring, Some("2"), true, 1),
    ] {
        let headers = value.map(|value| (name.clone(), HeaderValue::from_static(value)));
        let retries = RequestRetries::new(settings, &headers.into_iter().collect());
        let next = retries.next(0, WHOLE, Ok(&failed), || true);
        assert_eq!(matches!(next, NextAttempt::Retry(_)), is_retried, "{value:?}");
        assert_eq!(retries.attempt_header(1), Some((&name, number)), "{value:?}");
        assert_eq!(retries.attempt_header(3), Some((&name, 3)), "{value:?}");
    }
}
