//! The retries that a Service configures: which requests are sent again, how often, and what the client gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server;
use http::{HeaderName, Response};
use portico::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use portico::upstream::settings::{RequestTimeouts, RetryBackoff, RetryConditions, RetrySettings};
use portico::upstream::{BackendTraffic, EndpointAddress, Endpoints, MinRetryRate, OverBudget, RetryLimits, Upstream};

use crate::h2::{Http2Client, post_request};
use crate::h2_upstream::http2_endpoint;
use crate::harness::{
    Endpoint, TestServer, forward, h2c_upstream, header, reserve_address, retries, route, upstream,
    with_timeouts_and_retries,
};
use crate::metrics::scrape;
use crate::retry::{step_endpoint, sum};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const KEYED: &str = "POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: 7\r\ncontent-length: 5\r\n\r\nhello";

/// Sets the traffic of the upstream, whose endpoints stay.
pub(crate) fn set_traffic(upstream: &Upstream, addresses: &[SocketAddr], traffic: BackendTraffic) {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
}

/// So many retries after these outcomes, almost without a delay.
pub(crate) fn settings(attempts: u32, change: impl FnOnce(&mut RetryConditions)) -> RetrySettings {
    let millisecond = Duration::from_millis(1);
    let mut settings = RetrySettings {
        attempts,
        on: RetryConditions::default(),
        backoff: RetryBackoff { base: millisecond, max: millisecond },
        ..RetrySettings::default()
    };
    change(&mut settings.on);
    settings
}

fn traffic(retries: RetrySettings) -> BackendTraffic {
    BackendTraffic { retries: Some(Arc::new(retries)), ..BackendTraffic::default() }
}

async fn server(addresses: &[SocketAddr], traffic: BackendTraffic) -> TestServer {
    let web = upstream("web", addresses);
    set_traffic(&web, addresses, traffic);
    TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await
}

fn refused(server: &TestServer, why: &str) -> f64 {
    sum(&scrape(server), "portico_upstream_retries_refused_total", &[&format!("why=\"{why}\"")])
}

#[tokio::test]
async fn requests_are_retried_as_the_service_configures() {
    let on_status = |attempts| settings(attempts, |on| on.server_error = true);
    let all_methods = RetrySettings { non_idempotent: true, ..on_status(1) };
    let small = RetrySettings { max_body: 4, ..all_methods.clone() };
    let trusting = RetrySettings { trust_idempotency_key: true, ..on_status(1) };
    let gateway = settings(1, |on| on.gateway_error = true);
    let listed = settings(1, |on| on.codes = [418].into());
    let by_field = settings(1, |on| on.headers = [HeaderName::from_static("content-length")].into());
    let reset = settings(1, |on| on.reset = true);
    for (name, settings, request, steps, status, attempts, stop) in [
        ("status", on_status(3), GET, &["500", "503", "200"][..], 200, 3, None),
        ("as often as configured", on_status(1), GET, &["500", "503", "200"], 503, 2, Some("attempts")),
        ("never", on_status(0), GET, &["500", "200"], 500, 1, None),
        ("not idempotent", on_status(1), POST, &["500", "200"], 500, 1, None),
        ("all methods", all_methods, POST, &["500", "200"], 200, 2, None),
        ("body is too large", small, POST, &["500", "200"], 500, 1, Some("body")),
        ("idempotency key", trusting.clone(), KEYED, &["500", "200"], 200, 2, None),
        ("no idempotency key", trusting, POST, &["500", "200"], 500, 1, None),
        ("untrusted idempotency key", on_status(1), KEYED, &["500", "200"], 500, 1, None),
        ("gateway error", gateway.clone(), GET, &["502", "200"], 200, 2, None),
        ("no gateway error", gateway, GET, &["500", "200"], 500, 1, None),
        ("listed status", listed, GET, &["418", "200"], 200, 2, None),
        ("field of the response", by_field, GET, &["200", "200"], 200, 2, Some("attempts")),
        ("closed connection", reset.clone(), GET, &["close", "200"], 200, 2, None),
        ("closed connection, not idempotent", reset.clone(), POST, &["close", "200"], 502, 1, None),
        ("response has begun", reset, GET, &["part", "200"], 502, 1, Some("started")),
        ("closed connection is no status", on_status(1), GET, &["close", "200"], 502, 1, None),
    ] {
        let endpoint = step_endpoint(steps).await;
        let server = server(&[endpoint.address], traffic(settings)).await;
        let response = server.request(request).await;
        assert_eq!((response.status, endpoint.log.requests().len()), (status, attempts), "{name}");
        for why in ["budget", "attempts", "deadline", "body", "started"] {
            assert_eq!(refused(&server, why), f64::from(stop == Some(why)), "{name}: {why}");
        }
        let requests = endpoint.log.requests();
        assert!(requests.iter().all(|seen| seen.ends_with(&request[request.find("\r\n\r\n").unwrap()..])), "{name}");
    }
}

#[tokio::test]
async fn attempt_timeout_is_retried() {
    let (silent, working) = (step_endpoint(&["silent"]).await, Endpoint::ok().await);
    let retries = settings(1, |on| on.timeout = true);
    let limit = Some(Duration::from_millis(200));
    let timeouts = RequestTimeouts { backend_request: limit, ..RequestTimeouts::default() };
    let addresses = [silent.address, working.address];
    let server = server(&addresses, BackendTraffic { timeouts: Some(Arc::new(timeouts)), ..traffic(retries) }).await;
    let mut reached = false;
    for _ in 0..2 {
        // The working endpoint may be paused for longer than the timeout; then both attempts time out.
        let status = server.request(GET).await.status;
        assert!([200, 504].contains(&status), "{status}");
        reached |= !silent.log.requests().is_empty();
    }
    assert!(reached && sum(&scrape(&server), "portico_upstream_retries_total", &["reason=\"timeout\""]) >= 1.0);
}

#[tokio::test]
async fn refused_connections_are_retried_at_another_endpoint_for_any_method() {
    let (dead, _socket) = reserve_address();
    let endpoint = Endpoint::ok().await;
    let server = server(&[dead, endpoint.address], traffic(settings(1, |on| on.connect_failure = true))).await;
    for _ in 0..2 {
        assert_eq!(server.request(POST).await.text(), "ok");
    }
    assert_eq!(endpoint.log.requests().len(), 2);
    let labels = ["reason=\"connect_failure\"", "outcome=\"success\""];
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_total", &labels), 1.0);
}

/// HTTPRoute `retry` precedes, annotations of a Service do not.
#[tokio::test]
async fn retries_of_the_rule_precede() {
    let minute = Duration::from_secs(60);
    let annotated = TimeoutsAndRetries::per_attempt(minute, minute, minute, 5);
    for (rule, status, attempts) in [(retries(1, &[502]), 500, 1), (retries(0, &[]), 500, 1), (annotated, 200, 2)] {
        let endpoint = step_endpoint(&["500", "200"]).await;
        let web = upstream("web", &[endpoint.address]);
        set_traffic(&web, &[endpoint.address], traffic(settings(3, |on| on.server_error = true)));
        let action = with_timeouts_and_retries(forward(vec![(1, web)]), rule);
        let server = TestServer::with_routes(vec![route(action)]).await;
        assert_eq!((server.request(GET).await.status, endpoint.log.requests().len()), (status, attempts));
    }
}

#[tokio::test]
async fn requested_wait_is_limited() {
    let busy = || Endpoint::responding_with("HTTP/1.1 503 X\r\nretry-after: 60\r\ncontent-length: 4\r\n\r\nbusy");
    let on_status = |max_retry_after| RetrySettings {
        max_retry_after: Duration::from_secs(max_retry_after),
        ..settings(1, |on| on.server_error = true)
    };
    let in_30_seconds = RequestTimeouts { request: Some(Duration::from_secs(30)), ..RequestTimeouts::default() };
    for (settings, timeouts) in [
        // The wait is longer than the longest one.
        (on_status(59), RequestTimeouts::default()),
        (on_status(0), RequestTimeouts::default()),
        // The retry could not begin before the request must end.
        (on_status(100), in_30_seconds),
    ] {
        let endpoint = busy().await;
        let traffic = BackendTraffic { timeouts: Some(Arc::new(timeouts)), ..traffic(settings) };
        let server = server(&[endpoint.address], traffic).await;
        let response = server.request(GET).await;
        assert_eq!((response.status, response.text(), endpoint.log.requests().len()), (503, "busy".into(), 1));
        assert_eq!(refused(&server, "deadline"), 1.0);
    }
}

#[tokio::test]
async fn short_wait_is_honored() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while stream.request().await.is_some() {
            let response = match stream.log().requests().len() {
                1 => "HTTP/1.1 429 X\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            };
            stream.send(response).await;
        }
    })
    .await;
    let max_retry_after = Duration::from_secs(5);
    let retries = RetrySettings { max_retry_after, ..settings(1, |on| on.codes = [429].into()) };
    let server = server(&[endpoint.address], traffic(retries)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(server.request(GET).await.text(), "ok");
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn endpoint_sees_the_number_of_the_attempt() {
    let endpoint = step_endpoint(&["500", "500", "200"]).await;
    let name = HeaderName::from_static("x-attempt");
    let retries = RetrySettings { attempt_header: Some(name), ..settings(3, |on| on.server_error = true) };
    let server = server(&[endpoint.address], traffic(retries)).await;
    // What the client sends is replaced.
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-attempt: 9\r\n\r\n";
    assert_eq!(server.request(request).await.status, 200);
    let numbers: Vec<_> =
        endpoint.log.requests().iter().map(|seen| header(seen, "x-attempt").unwrap().to_owned()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
}

/// Long intervals, so that the figure does not depend on the time that the test takes.
fn limits(percent: u32, count: u32) -> Option<RetryLimits> {
    let interval = Duration::from_secs(3600);
    let min_retry_rate = MinRetryRate { count, interval };
    let over_budget = OverBudget::LastOutcome;
    Some(RetryLimits { percent, interval, min_retry_rate, over_budget })
}

#[tokio::test]
async fn retry_storm_stays_within_the_budget() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    let retries = settings(3, |on| on.server_error = true);
    let traffic = BackendTraffic { retry_limits: limits(20, 10), ..traffic(retries) };
    let server = server(&[endpoint.address], traffic).await;
    let mut client = server.connect().await;
    for _ in 0..900 {
        assert_eq!(client.get("/").await.status, 500, "the client gets the response of the endpoint");
    }
    assert_eq!(endpoint.log.requests().len(), 900 + 900 / 5);
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_total", &[]), 180.0);
}

/// Three gateways in a row do not multiply the retries of each other.
#[tokio::test]
async fn chain_of_gateways_multiplies_no_retries() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    let retries = RetrySettings {
        attempt_header: Some(HeaderName::from_static("x-envoy-attempt-count")),
        respects_attempt: true,
        ..settings(3, |on| on.server_error = true)
    };
    let mut servers = Vec::new();
    let mut address = endpoint.address;
    for _ in 0..3 {
        let traffic = BackendTraffic { retry_limits: limits(20, 10), ..traffic(retries.clone()) };
        let gateway = server(&[address], traffic).await;
        address = gateway.address;
        servers.push(gateway);
    }
    let mut client = servers.last().unwrap().connect().await;
    for _ in 0..300 {
        assert_eq!(client.get("/").await.status, 500);
    }
    let attempts = endpoint.log.requests().len();
    assert!(attempts <= 300 * 5 / 4, "{attempts} attempts of 300 requests");
    assert!(attempts >= 300 * 6 / 5, "the last gateway retries as its budget allows, {attempts}");
}

/// A gRPC call is not read in advance, since its stream of messages may have no end.
#[tokio::test]
async fn call_is_retried_after_a_response_of_trailers_only() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let endpoint = http2_endpoint(server::Builder::new(), move |mut call| {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        async move {
            // Both attempts have the first message, before the stream of the client ends.
            let message = call.request.body_mut().data().await.unwrap().unwrap();
            assert_eq!(message, "message");
            let status = if number == 0 { "14" } else { "0" };
            let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", status);
            call.response.send_response(head.body(()).unwrap(), true).unwrap();
        }
    })
    .await;
    let web = h2c_upstream(endpoint.address);
    let retries = RetrySettings { non_idempotent: true, ..settings(1, |on| on.grpc_codes = [14].into()) };
    set_traffic(&web, &[endpoint.address], traffic(retries));
    let server = TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await;
    let mut client = Http2Client::connect(server.address).await;
    let mut request = post_request("/a.B/C");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let (response, mut body) = client.sender.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"message"), false).unwrap();
    let response = crate::harness::with_timeout("the response", response).await.unwrap();
    assert_eq!((&response.headers()["grpc-status"], calls.load(Ordering::SeqCst)), (&"0".parse().unwrap(), 2));
    let labels = ["reason=\"grpc_status\"", "outcome=\"success\""];
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_total", &labels), 1.0);
}

/// Retries that are not configured would hide from an operator that endpoints fail.
#[tokio::test]
async fn without_attempts_no_request_is_sent_again() {
    let ((dead, _dead_socket), working) = (reserve_address(), Endpoint::ok().await);
    let server = server(&[dead, working.address], traffic(settings(0, |_| {}))).await;
    let mut statuses = [server.request(GET).await.status, server.request(GET).await.status];
    statuses.sort();
    assert_eq!(statuses, [200, 503]);
    assert_eq!(working.log.requests().len(), 1);
}

/// A budget that counts only retries in progress allows as many as wait for their back-off (envoyproxy/envoy#24937).
#[tokio::test]
async fn retries_that_wait_use_the_budget() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    let hour = Duration::from_secs(3600);
    let backoff = RetryBackoff { base: hour, max: hour };
    let retries = RetrySettings { backoff, ..settings(3, |on| on.server_error = true) };
    let traffic = BackendTraffic { retry_limits: limits(0, 1), ..traffic(retries) };
    let server = server(&[endpoint.address], traffic).await;
    let mut waiting = server.connect().await;
    waiting.send(GET).await;
    endpoint.log.wait_for("the first attempt", |log| log.requests().len() == 1).await;
    assert_eq!(server.request(GET).await.status, 500, "the only retry waits");
    assert_eq!((endpoint.log.requests().len(), refused(&server, "budget")), (2, 1.0));
}
