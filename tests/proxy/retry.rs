//! Retries: how often which request is sent, and what the client gets in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portico::proxy::Limits;
use portico::snapshot::tries::{Limit, Retry, Tries};

use crate::books::scrape;
use crate::harness::{Endpoint, Gate, Options, forward, reserve, route, trying, upstream};

const SHORT: Duration = Duration::from_millis(400);

fn retry(attempts: u32, codes: &[u16]) -> Tries {
    let retry = Retry { attempts, codes: codes.into(), backoff: Duration::from_millis(1) };
    Tries { retry: Some(retry), ..Tries::default() }
}

fn within_each(limit: Duration, tries: Tries) -> Tries {
    Tries { backend_request: Limit::After(limit), ..tries }
}

/// Does for each request what the list says next, and the last thing for all further ones.
async fn following(list: &'static [&'static str]) -> Endpoint {
    let next = Arc::new(AtomicUsize::new(0));
    Endpoint::scripted(move |mut stream, _| {
        let next = Arc::clone(&next);
        async move {
            while stream.request().await.is_some() {
                let step = next.fetch_add(1, Ordering::SeqCst);
                match list[step.min(list.len() - 1)] {
                    "close" => return,
                    "silence" => {
                        stream.rest().await;
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
    tries: Tries,
    request: &'static str,
    endpoint: &'static [&'static str],
    status: u16,
    sees: usize,
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const TRAILERS: &str = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";

// kong-compat §3.8
#[tokio::test]
async fn what_is_sent_how_often() {
    let cases = [
        Case {
            name: "until it is taken",
            tries: retry(3, &[500, 503]),
            request: GET,
            endpoint: &["500", "503", "500", "200"],
            status: 200,
            sees: 4,
        },
        Case {
            name: "the last status is passed on",
            tries: retry(2, &[500, 503]),
            request: GET,
            endpoint: &["500", "500", "503", "200"],
            status: 503,
            sees: 3,
        },
        Case {
            name: "other codes are answers",
            tries: retry(3, &[500]),
            request: GET,
            endpoint: &["502", "200"],
            status: 502,
            sees: 1,
        },
        Case {
            name: "zero is never",
            tries: retry(0, &[500]),
            request: GET,
            endpoint: &["500", "200"],
            status: 500,
            sees: 1,
        },
        Case {
            name: "bodies of idempotent methods are sent again",
            tries: retry(1, &[500]),
            request: PUT,
            endpoint: &["500", "200"],
            status: 200,
            sees: 2,
        },
        Case {
            name: "also of unknown length",
            tries: retry(1, &[500]),
            request: CHUNKED,
            endpoint: &["500", "200"],
            status: 200,
            sees: 2,
        },
        Case {
            name: "but not with trailers",
            tries: retry(1, &[500]),
            request: TRAILERS,
            endpoint: &["500", "200"],
            status: 500,
            sees: 1,
        },
        Case {
            name: "other methods are sent once",
            tries: retry(3, &[500]),
            request: POST,
            endpoint: &["500", "200"],
            status: 500,
            sees: 1,
        },
        Case {
            name: "who closes without an answer may have done it",
            tries: retry(3, &[500]),
            request: GET,
            endpoint: &["close", "200"],
            status: 502,
            sees: 1,
        },
        Case {
            name: "a try that takes too long is followed by another",
            tries: within_each(SHORT, retry(1, &[])),
            request: PUT,
            endpoint: &["silence", "200"],
            status: 200,
            sees: 2,
        },
        Case {
            name: "but not of a method that may do it twice",
            tries: within_each(SHORT, retry(1, &[])),
            request: POST,
            endpoint: &["silence", "200"],
            status: 504,
            sees: 1,
        },
        Case {
            name: "nor without retries",
            tries: within_each(SHORT, Tries::default()),
            request: GET,
            endpoint: &["silence", "200"],
            status: 504,
            sees: 1,
        },
        Case {
            name: "nor more often than the rule says",
            tries: within_each(SHORT, retry(1, &[])),
            request: GET,
            endpoint: &["silence"],
            status: 504,
            sees: 2,
        },
        Case {
            name: "the time for all tries ends them",
            tries: Tries { request: Limit::After(SHORT), ..retry(u32::MAX, &[500]) },
            request: GET,
            endpoint: &["500", "silence"],
            status: 504,
            sees: 2,
        },
        Case {
            name: "also between two",
            tries: Tries {
                request: Limit::After(SHORT),
                retry: Some(Retry { attempts: 1, codes: [500].into(), backoff: Duration::from_secs(60) }),
                ..Tries::default()
            },
            request: GET,
            endpoint: &["500"],
            status: 504,
            sees: 1,
        },
    ];
    for case in cases {
        let endpoint = following(case.endpoint).await;
        let action = trying(forward(vec![(1, upstream("web", &[endpoint.address]))]), case.tries);
        let gate = Gate::open(vec![route(action)]).await;
        let answer = gate.ask(case.request).await;
        assert_eq!(answer.status, case.status, "{}", case.name);
        let seen = endpoint.log.requests();
        assert_eq!(seen.len(), case.sees, "{}", case.name);
        let body = if case.request.contains("hello") { "hello" } else { "" };
        for request in seen {
            let sent = request.split_once("\r\n\r\n").unwrap().1;
            assert!(sent.starts_with(body) && (body.is_empty() == sent.is_empty()), "{}: {request}", case.name);
        }
    }
}

#[tokio::test]
async fn a_large_body_is_sent_once_and_whole() {
    let endpoint = following(&["500", "200"]).await;
    let action = trying(forward(vec![(1, upstream("web", &[endpoint.address]))]), retry(3, &[500]));
    let limits = Limits { replay_body: 10, ..Limits::default() };
    let gate = Gate::with(Options { limits, ..Options::default() }, vec![route(action)]).await;
    // Known to be too large, and found to be.
    for (index, request) in [
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\nhello world",
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(gate.ask(request).await.status, [500, 200][index]);
        let seen = endpoint.log.requests();
        assert_eq!(seen.len(), index + 1);
        assert!(seen[index].ends_with("\r\n\r\nhello world"), "{}", seen[index]);
    }
}

#[tokio::test]
async fn who_refuses_the_connection_is_passed_over_at_once() {
    let endpoint = Endpoint::ok().await;
    let reserved: Vec<_> = (0..5).map(|_| reserve()).collect();
    let mut addresses: Vec<_> = reserved.iter().map(|(address, _)| *address).collect();
    let slow = |attempts| {
        let retry = Retry { attempts, codes: [].into(), backoff: Duration::from_secs(60) };
        Tries { retry: Some(retry), ..Tries::default() }
    };
    let action = |addresses: &[_], tries| trying(forward(vec![(1, upstream("web", addresses))]), tries);
    // Nobody there, and no tries: not even the connection is tried again.
    let gate = Gate::open(vec![route(action(&addresses, slow(0)))]).await;
    assert_eq!(gate.ask(POST).await.status, 503);
    assert_eq!(scrape(&gate)["portico_upstream_connects_total{outcome=\"refused\"}"], 1.0);
    // Of six one answers; it is found without waiting, whatever the method.
    addresses.push(endpoint.address);
    for request in [GET, POST] {
        let gate = Gate::open(vec![route(action(&addresses, slow(5)))]).await;
        assert_eq!(gate.ask(request).await.text(), "ok");
    }
    // Without a retry of the rule three are tried, as ever.
    let tries = Tries { request: Limit::After(Duration::from_secs(60)), ..Tries::default() };
    let gate = Gate::open(vec![route(action(&addresses[..5], tries))]).await;
    assert_eq!(gate.ask(GET).await.status, 503);
    assert_eq!(scrape(&gate)["portico_upstream_connects_total{outcome=\"refused\"}"], 3.0);
}

// kong-compat §3.8
#[tokio::test]
async fn another_endpoint_on_each_try() {
    let (bad, good) = (following(&["503"]).await, Endpoint::ok().await);
    let both = upstream("web", &[bad.address, good.address]);
    let gate = Gate::open(vec![route(trying(forward(vec![(1, both)]), retry(1, &[503])))]).await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(good.log.requests().len(), 10);
    assert_eq!(bad.log.requests().len(), 5, "each is the first for every other request");
    assert_eq!(scrape(&gate)["portico_upstream_retries_total"], 5.0);
}

#[tokio::test]
async fn a_connection_that_takes_too_long_leaves_the_time_of_the_try_to_another() {
    let endpoint = Endpoint::ok().await;
    let (deaf, _queue, _listener) = crate::endpoints::deaf().await;
    let both = upstream("web", &[deaf, endpoint.address]);
    let gate = Gate::open(vec![route(trying(forward(vec![(1, both)]), within_each(SHORT, retry(1, &[]))))]).await;
    // Nothing was sent to the first, so the method does not matter.
    for _ in 0..4 {
        assert_eq!(gate.ask(POST).await.text(), "ok");
    }
    // In turn: that a rule has little time says nothing about the endpoint, which is passed over by nobody.
    assert_eq!(scrape(&gate)["portico_upstream_retries_total"], 2.0);
}

// kong-compat §3.8
#[tokio::test]
async fn what_an_endpoint_has_begun_to_answer_is_not_sent_again() {
    for (begun, status, requests) in
        [("", 200, 3), ("H", 502, 2), ("HTTP/1.1 20", 502, 2), ("HTTP/1.1 100 Continue\r\n\r\n", 502, 2)]
    {
        let endpoint = Endpoint::scripted(move |mut stream, number| async move {
            while stream.request().await.is_some() {
                if number == 0 && stream.log().requests().len() == 2 {
                    return stream.send(begun).await;
                }
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        })
        .await;
        let gate = Gate::open(vec![route(forward(vec![(1, upstream("web", &[endpoint.address]))]))]).await;
        let mut client = gate.client().await;
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(client.get("/").await.status, status, "{begun:?}");
        assert_eq!(endpoint.log.requests().len(), requests, "{begun:?}");
    }
}
