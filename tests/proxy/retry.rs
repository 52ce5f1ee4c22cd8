//! Retries: how many times which request is sent, and what the client gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portico::limits::ProxyLimits;
use portico::snapshot::timeouts_and_retries::{RetryPolicy, RetryScope, TimeoutSetting, TimeoutsAndRetries};

use crate::accounting::scrape;
use crate::harness::{
    Endpoint, LONGER_THAN_PAUSES, Options, TestServer, forward, reserve_address, retries, route, upstream,
    with_timeouts_and_retries,
};

/// The sum of the series of a metric that have all of these labels.
pub(crate) fn sum(metrics: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let series = metrics.iter().filter(|(series, _)| series.split('{').next() == Some(name));
    series.filter(|(series, _)| labels.iter().all(|label| series.contains(label))).map(|(_, value)| value).sum()
}

const SHORT: Duration = Duration::from_millis(400);

fn with_attempt_timeout(limit: Duration, policy: TimeoutsAndRetries) -> TimeoutsAndRetries {
    TimeoutsAndRetries { backend_request: TimeoutSetting::After(limit), ..policy }
}

/// An endpoint that performs one step for each request, and the last step for all further requests: `close` closes the
/// connection, `part` sends the beginning of a response before it does, `silent` never responds, and a number is the
/// status of the response.
pub(crate) async fn step_endpoint(steps: &'static [&'static str]) -> Endpoint {
    let next = Arc::new(AtomicUsize::new(0));
    Endpoint::scripted(move |mut stream, _| {
        let next = Arc::clone(&next);
        async move {
            while stream.request().await.is_some() {
                let step = next.fetch_add(1, Ordering::SeqCst);
                match steps[step.min(steps.len() - 1)] {
                    "close" => return,
                    "part" => return stream.send("HTTP/1.1 200").await,
                    "silent" => {
                        stream.read_to_end().await;
                        return;
                    }
                    status => {
                        stream.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 3\r\n\r\n{status}")).await;
                    }
                }
            }
        }
    })
    .await
}

struct Case {
    name: &'static str,
    policy: TimeoutsAndRetries,
    request: &'static str,
    /// Steps of the endpoint.
    endpoint: &'static [&'static str],
    status: u16,
    /// Requests that the endpoint receives.
    attempts: usize,
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const TRAILERS: &str = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn requests_are_retried_as_configured() {
    let cases = [
        Case {
            name: "retried until it succeeds",
            policy: retries(3, &[500, 503]),
            request: GET,
            endpoint: &["500", "503", "500", "200"],
            status: 200,
            attempts: 4,
        },
        Case {
            name: "the last status is returned",
            policy: retries(2, &[500, 503]),
            request: GET,
            endpoint: &["500", "500", "503", "200"],
            status: 503,
            attempts: 3,
        },
        Case {
            name: "other codes are not retried",
            policy: retries(3, &[500]),
            request: GET,
            endpoint: &["502", "200"],
            status: 502,
            attempts: 1,
        },
        Case {
            name: "zero attempts",
            policy: retries(0, &[500]),
            request: GET,
            endpoint: &["500", "200"],
            status: 500,
            attempts: 1,
        },
        Case {
            name: "bodies of idempotent methods are replayed",
            policy: retries(1, &[500]),
            request: PUT,
            endpoint: &["500", "200"],
            status: 200,
            attempts: 2,
        },
        Case {
            name: "bodies of unknown length are replayed",
            policy: retries(1, &[500]),
            request: CHUNKED,
            endpoint: &["500", "200"],
            status: 200,
            attempts: 2,
        },
        Case {
            name: "requests with trailers are not retried",
            policy: retries(1, &[500]),
            request: TRAILERS,
            endpoint: &["500", "200"],
            status: 500,
            attempts: 1,
        },
        Case {
            name: "other methods are not retried",
            policy: retries(3, &[500]),
            request: POST,
            endpoint: &["500", "200"],
            status: 500,
            attempts: 1,
        },
        Case {
            name: "a closed connection without a response is retried",
            policy: retries(3, &[]),
            request: GET,
            endpoint: &["close", "close", "200"],
            status: 200,
            attempts: 3,
        },
        Case {
            name: "a closed connection without a response is retried with the buffered body",
            policy: retries(1, &[500]),
            request: PUT,
            endpoint: &["close", "200"],
            status: 200,
            attempts: 2,
        },
        Case {
            name: "retries after closed connections are limited",
            policy: retries(2, &[]),
            request: GET,
            endpoint: &["close"],
            status: 502,
            attempts: 3,
        },
        Case {
            name: "a closed connection without a response is not retried for other methods",
            policy: retries(3, &[500]),
            request: POST,
            endpoint: &["close", "200"],
            status: 502,
            attempts: 1,
        },
        Case {
            name: "a closed connection without a response is not retried with a body that is not buffered",
            policy: retries(3, &[]),
            request: PUT,
            endpoint: &["close", "200"],
            status: 502,
            attempts: 1,
        },
        Case {
            name: "a closed connection without a response is not retried without retries",
            policy: retries(0, &[]),
            request: GET,
            endpoint: &["close", "200"],
            status: 502,
            attempts: 1,
        },
        Case {
            name: "a part of a response is not retried",
            policy: retries(3, &[]),
            request: GET,
            endpoint: &["part", "200"],
            status: 502,
            attempts: 1,
        },
        Case {
            name: "a timed-out attempt is retried",
            policy: with_attempt_timeout(LONGER_THAN_PAUSES, retries(1, &[])),
            request: PUT,
            endpoint: &["silent", "200"],
            status: 200,
            attempts: 2,
        },
        Case {
            name: "a timed-out attempt is not retried if it is not idempotent",
            policy: with_attempt_timeout(SHORT, retries(1, &[])),
            request: POST,
            endpoint: &["silent", "200"],
            status: 504,
            attempts: 1,
        },
        Case {
            name: "a timed-out attempt is not retried without retries",
            policy: with_attempt_timeout(SHORT, TimeoutsAndRetries::default()),
            request: GET,
            endpoint: &["silent", "200"],
            status: 504,
            attempts: 1,
        },
        Case {
            name: "timed-out attempts are limited",
            policy: with_attempt_timeout(SHORT, retries(1, &[])),
            request: GET,
            endpoint: &["silent"],
            status: 504,
            attempts: 2,
        },
        Case {
            name: "the request timeout ends all attempts",
            policy: TimeoutsAndRetries {
                request: TimeoutSetting::After(LONGER_THAN_PAUSES),
                ..retries(u32::MAX, &[500])
            },
            request: GET,
            endpoint: &["500", "silent"],
            status: 504,
            attempts: 2,
        },
        Case {
            name: "the request timeout ends the back-off",
            policy: TimeoutsAndRetries {
                request: TimeoutSetting::After(SHORT),
                retry: Some(RetryPolicy {
                    max_retries: 1,
                    codes: [500].into(),
                    backoff: Duration::from_secs(60),
                    scope: RetryScope::default(),
                }),
                ..TimeoutsAndRetries::default()
            },
            request: GET,
            endpoint: &["500"],
            status: 504,
            attempts: 1,
        },
    ];
    // At the same time, because some cases wait for a timeout.
    futures_util::future::join_all(cases.map(|case| async move {
        let endpoint = step_endpoint(case.endpoint).await;
        let action = with_timeouts_and_retries(forward(vec![(1, upstream("web", &[endpoint.address]))]), case.policy);
        let server = TestServer::with_routes(vec![route(action)]).await;
        let response = server.request(case.request).await;
        assert_eq!(response.status, case.status, "{}", case.name);
        // The endpoint may read a request after its timeout.
        endpoint.log.wait_for(case.name, |log| log.requests().len() >= case.attempts).await;
        let requests = endpoint.log.requests();
        assert_eq!(requests.len(), case.attempts, "{}", case.name);
        let body = if case.request.contains("hello") { "hello" } else { "" };
        for request in requests {
            let sent = request.split_once("\r\n\r\n").unwrap().1;
            assert!(sent.starts_with(body) && (body.is_empty() == sent.is_empty()), "{}: {request}", case.name);
        }
    }))
    .await;
}

#[tokio::test]
async fn large_body_is_sent_once_and_complete() {
    let endpoint = step_endpoint(&["500", "200"]).await;
    let action =
        with_timeouts_and_retries(forward(vec![(1, upstream("web", &[endpoint.address]))]), retries(3, &[500]));
    let limits = ProxyLimits { max_replay_body: 10, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, vec![route(action)]).await;
    // The first body is too large to be replayed by its Content-Length, the second one by what has been received.
    for (index, request) in [
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\nhello world",
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(server.request(request).await.status, [500, 200][index]);
        let requests = endpoint.log.requests();
        assert_eq!(requests.len(), index + 1);
        assert!(requests[index].ends_with("\r\n\r\nhello world"), "{}", requests[index]);
    }
}

#[tokio::test]
async fn refused_connection_moves_on_without_backoff() {
    let endpoint = Endpoint::ok().await;
    let reserved: Vec<_> = (0..5).map(|_| reserve_address()).collect();
    let mut addresses: Vec<_> = reserved.iter().map(|(address, _)| *address).collect();
    let with_long_backoff = |attempts| {
        let (backoff, scope) = (Duration::from_secs(60), RetryScope::default());
        let retry = RetryPolicy { max_retries: attempts, codes: [].into(), backoff, scope };
        TimeoutsAndRetries { retry: Some(retry), ..TimeoutsAndRetries::default() }
    };
    let action =
        |addresses: &[_], policy| with_timeouts_and_retries(forward(vec![(1, upstream("web", addresses))]), policy);
    // All endpoints refuse and the rule allows no attempts: connecting is not retried either.
    let server = TestServer::with_routes(vec![route(action(&addresses, with_long_backoff(0)))]).await;
    assert_eq!(server.request(POST).await.status, 503);
    assert_eq!(scrape(&server)["portico_upstream_connects_total{outcome=\"refused\"}"], 1.0);
    // One of six endpoints accepts connections; it is reached without back-off, for any method.
    addresses.push(endpoint.address);
    for request in [GET, POST] {
        let server = TestServer::with_routes(vec![route(action(&addresses, with_long_backoff(5)))]).await;
        assert_eq!(server.request(request).await.text(), "ok");
    }
    // Without retries in the rule, connecting is attempted three times.
    let policy =
        TimeoutsAndRetries { request: TimeoutSetting::After(Duration::from_secs(60)), ..TimeoutsAndRetries::default() };
    let server = TestServer::with_routes(vec![route(action(&addresses[..5], policy))]).await;
    assert_eq!(server.request(GET).await.status, 503);
    assert_eq!(scrape(&server)["portico_upstream_connects_total{outcome=\"refused\"}"], 3.0);
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn each_attempt_uses_another_endpoint() {
    let (bad, good) = (step_endpoint(&["503"]).await, Endpoint::ok().await);
    let both = upstream("web", &[bad.address, good.address]);
    let server =
        TestServer::with_routes(vec![route(with_timeouts_and_retries(forward(vec![(1, both)]), retries(1, &[503])))])
            .await;
    let mut client = server.connect().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(good.log.requests().len(), 10);
    assert_eq!(bad.log.requests().len(), 5, "every other request tries the bad endpoint first");
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_total", &[]), 5.0);
}

#[tokio::test]
async fn reset_connection_is_retried_at_another_endpoint() {
    let failing = step_endpoint(&["close"]).await;
    let working = step_endpoint(&["200"]).await;
    let action = forward(vec![(1, upstream("web", &[failing.address, working.address]))]);
    // As the annotations of a Service set them in Kong's dialect.
    let minute = Duration::from_secs(60);
    let policy = TimeoutsAndRetries::per_attempt(minute, minute, minute, 5);
    let server = TestServer::with_routes(vec![route(with_timeouts_and_retries(action, policy))]).await;
    for _ in 0..4 {
        assert_eq!(server.request(GET).await.status, 200);
    }
    assert_eq!((failing.log.requests().len(), working.log.requests().len()), (2, 4));
}

#[tokio::test]
async fn slow_connect_is_retried_at_another_endpoint() {
    let endpoint = Endpoint::ok().await;
    let (unresponsive, _queue, _listener) = crate::endpoints::unresponsive_address().await;
    let both = upstream("web", &[unresponsive, endpoint.address]);
    let server = TestServer::with_routes(vec![route(with_timeouts_and_retries(
        forward(vec![(1, both)]),
        with_attempt_timeout(LONGER_THAN_PAUSES, retries(1, &[])),
    ))])
    .await;
    // Nothing was sent to the first endpoint, so the method does not matter.
    let responses = futures_util::future::join_all((0..4).map(|_| server.request(POST))).await;
    assert!(responses.iter().all(|response| response.text() == "ok"), "{responses:?}");
    // By round robin, two of the four requests go to the unresponsive endpoint first: the timeout of the rule does not
    // eject it.
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_total", &[]), 2.0);
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn started_response_is_not_retried() {
    for (beginning, status, request_count) in
        [("", 200, 3), ("H", 502, 2), ("HTTP/1.1 20", 502, 2), ("HTTP/1.1 100 Continue\r\n\r\n", 502, 2)]
    {
        let endpoint = Endpoint::scripted(move |mut stream, number| async move {
            while stream.request().await.is_some() {
                if number == 0 && stream.log().requests().len() == 2 {
                    return stream.send(beginning).await;
                }
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let server =
            TestServer::with_routes(vec![route(forward(vec![(1, upstream("web", &[endpoint.address]))]))]).await;
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(client.get("/").await.status, status, "{beginning:?}");
        assert_eq!(endpoint.log.requests().len(), request_count, "{beginning:?}");
    }
}
