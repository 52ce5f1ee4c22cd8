//! Hedged requests: a second attempt begins while the first one has no response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::upstream::settings::{HedgeSettings, RetrySettings};
use portico::upstream::{BackendTraffic, MinRetryRate, OverBudget, RetryLimits};
use tokio::sync::Semaphore;

use crate::harness::{Endpoint, TestServer, forward, route, upstream};
use crate::metrics::scrape;
use crate::polling;
use crate::retry::{step_endpoint, sum};
use crate::service_retries::{set_traffic, settings};

const DELAY: Duration = Duration::from_millis(10);
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";

fn hedged(retry_limits: Option<RetryLimits>) -> BackendTraffic {
    let hedge = Some(HedgeSettings { delay: Some(DELAY) });
    let retries = RetrySettings { hedge, ..settings(0, |_| {}) };
    BackendTraffic { retries: Some(Arc::new(retries)), retry_limits, ..BackendTraffic::default() }
}

async fn server(addresses: &[SocketAddr], traffic: BackendTraffic) -> TestServer {
    let web = upstream("web", addresses);
    set_traffic(&web, addresses, traffic);
    TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await
}

fn hedges(server: &TestServer, outcome: &str) -> f64 {
    sum(&scrape(server), "portico_upstream_hedges_total", &[&format!("outcome=\"{outcome}\"")])
}

/// Half of the requests are sent first to the endpoint that does not respond, and wait no longer than the others.
#[tokio::test]
async fn silent_endpoint_is_overtaken() {
    let (silent, working) = (step_endpoint(&["silent"]).await, Endpoint::ok().await);
    let server = server(&[silent.address, working.address], hedged(None)).await;
    for _ in 0..4 {
        assert_eq!(server.request(GET).await.text(), "ok");
    }
    // The working endpoint may be paused for longer than the delay, and is then overtaken by nothing.
    assert!(hedges(&server, "second") >= 2.0 && hedges(&server, "failed") == 0.0);
    // A cancelled attempt is neither a retry nor a failure.
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_total", &[]), 0.0);
    silent
        .log
        .wait_for("the end of cancelled attempts", |log| {
            log.ended.load(std::sync::atomic::Ordering::SeqCst) == log.connections()
        })
        .await;
}

/// The first attempt has the only good response, after the second one has failed.
#[tokio::test]
async fn first_good_response_counts() {
    let failing = step_endpoint(&["500"]).await;
    let failed = Arc::clone(&failing.log);
    let slow = Endpoint::scripted(move |mut stream, _| {
        let failed = Arc::clone(&failed);
        async move {
            while stream.request().await.is_some() {
                failed.wait_for("the failed attempt", |log| !log.requests().is_empty()).await;
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow").await;
            }
        }
    })
    .await;
    let server = server(&[slow.address, failing.address], hedged(None)).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(server.request(GET).await.status);
    }
    // A request that is sent to the failing endpoint first has a response before the second attempt is due, unless the
    // machine pauses.
    assert!(statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn second_attempt_needs_the_budget_another_endpoint_and_an_idempotent_request() {
    let hour = Duration::from_secs(3600);
    let over_budget = OverBudget::LastOutcome;
    let min_retry_rate = MinRetryRate { count: 0, interval: hour };
    let none = RetryLimits { percent: 0, interval: hour, min_retry_rate, over_budget };
    for (case, endpoints, limits, request, not_sent) in
        [("budget", 2, Some(none), GET, 1.0), ("alone", 1, None, GET, 1.0), ("not idempotent", 2, None, POST, 0.0)]
    {
        // Each endpoint responds once it is known that there is no second attempt.
        let is_known = Arc::new(Semaphore::new(0));
        let mut started = Vec::new();
        for _ in 0..endpoints {
            let is_known = Arc::clone(&is_known);
            started.push(
                Endpoint::scripted(move |mut stream, _| {
                    let is_known = Arc::clone(&is_known);
                    async move {
                        while stream.request().await.is_some() {
                            is_known.acquire().await.unwrap().forget();
                            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                        }
                    }
                })
                .await,
            );
        }
        let addresses: Vec<_> = started.iter().map(|endpoint| endpoint.address).collect();
        let server = server(&addresses, hedged(limits)).await;
        let respond = async {
            if not_sent > 0.0 {
                polling::until("no second attempt", || async { hedges(&server, "not_sent") == not_sent }).await;
            } else {
                tokio::time::sleep(4 * DELAY).await; // What is not even considered is no event.
            }
            is_known.add_permits(endpoints);
        };
        let (response, ()) = tokio::join!(server.request(request), respond);
        assert_eq!(response.text(), "ok", "{case}");
        let requests: usize = started.iter().map(|endpoint| endpoint.log.requests().len()).sum();
        assert_eq!((requests, hedges(&server, "not_sent")), (1, not_sent), "{case}");
    }
}
