//! The retry budget of a Service (GEP-3388): how many failed requests are sent again, and what the others get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::upstream::{BackendTraffic, EndpointAddress, Endpoints, MinRetryRate, OverBudget, RetryLimits, Upstream};

use crate::accounting::scrape;
use crate::harness::{
    Endpoint, TestServer, forward, reserve_address, retries, route, upstream, with_timeouts_and_retries,
};
use crate::retry::sum;

/// The intervals are long, so that a test ends within them.
fn limits(percent: u32, count: u32) -> RetryLimits {
    let interval = Duration::from_secs(3600);
    let min_retry_rate = MinRetryRate { count, interval };
    RetryLimits { percent, interval, min_retry_rate, over_budget: OverBudget::Reject }
}

fn set_limits(upstream: &Upstream, addresses: &[SocketAddr], retry_limits: Option<RetryLimits>) {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    let traffic = BackendTraffic { retry_limits, ..BackendTraffic::default() };
    upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

async fn failing_endpoint() -> Endpoint {
    Endpoint::responding_with("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await
}

async fn statuses(server: &TestServer, requests: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(server.request(GET).await.status);
    }
    statuses
}

#[tokio::test]
async fn retries_over_budget_get_503() {
    let endpoint = failing_endpoint().await;
    let web = upstream("web", &[endpoint.address]);
    set_limits(&web, &[endpoint.address], Some(limits(0, 3)));
    let action = || with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), retries(2, &[500]));
    let server = TestServer::with_routes(vec![route(action())]).await;
    // Three requests to the endpoint, of which two are retries; then one retry is left.
    assert_eq!(statuses(&server, 3).await, [500, 503, 503]);
    assert_eq!(endpoint.log.requests().len(), 3 + 2 + 1);
    // The counters are kept when the snapshot changes.
    server.replace_routes(vec![route(action())]);
    assert_eq!(statuses(&server, 1).await, [503]);
    let metrics = scrape(&server);
    let labels = ["upstream=\"default/web:80\"", "reason=\"status\""];
    assert_eq!(sum(&metrics, "portico_upstream_retries_total", &labels), 3.0);
    assert_eq!(sum(&metrics, "portico_upstream_retries_refused_total", &["why=\"budget\""]), 3.0);
    assert_eq!(metrics["portico_request_errors_total{reason=\"retry_budget\"}"], 3.0);
    // A policy that is removed or raised has an effect at once.
    set_limits(&web, &[endpoint.address], Some(limits(0, 5)));
    assert_eq!(statuses(&server, 2).await, [500, 503]);
    // Without a policy, the client gets the last response. The default limits allow at least ten retries in a second.
    set_limits(&web, &[endpoint.address], None);
    assert_eq!(statuses(&server, 2).await, [500, 500]);
}

/// Only a policy that configures the limits replaces the last response.
#[tokio::test]
async fn last_response_is_returned_over_budget() {
    let endpoint = failing_endpoint().await;
    let web = upstream("web", &[endpoint.address]);
    let limits = RetryLimits { over_budget: OverBudget::LastOutcome, ..limits(0, 1) };
    set_limits(&web, &[endpoint.address], Some(limits));
    let action = with_timeouts_and_retries(forward(vec![(1, web)]), retries(3, &[500]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    assert_eq!(statuses(&server, 3).await, [500, 500, 500]);
    assert_eq!(endpoint.log.requests().len(), 3 + 1);
    let metrics = scrape(&server);
    assert_eq!(sum(&metrics, "portico_upstream_retries_refused_total", &["why=\"budget\""]), 3.0);
    assert!(!metrics.contains_key("portico_request_errors_total{reason=\"retry_budget\"}"));
}

#[tokio::test]
async fn percentage_of_requests_is_retried() {
    let endpoint = failing_endpoint().await;
    let web = upstream("web", &[endpoint.address]);
    set_limits(&web, &[endpoint.address], Some(limits(50, 0)));
    let action = with_timeouts_and_retries(forward(vec![(1, web)]), retries(1, &[500]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    // The client of a request that was retried gets the status of the retry.
    assert_eq!(statuses(&server, 6).await, [503, 500, 503, 500, 503, 500]);
}

#[tokio::test]
async fn requests_that_are_not_retried_keep_their_response() {
    let endpoint = failing_endpoint().await;
    let web = upstream("web", &[endpoint.address]);
    set_limits(&web, &[endpoint.address], Some(limits(0, 0)));
    let action = with_timeouts_and_retries(forward(vec![(1, web)]), retries(1, &[502]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    assert_eq!(statuses(&server, 2).await, [500, 500]);
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_refused_total", &[]), 0.0);
}

/// An endpoint that refused the connection has no more to do because the request is sent to another one.
#[tokio::test]
async fn refused_connections_are_outside_of_the_budget() {
    let ((dead, _dead_socket), (dead_too, _dead_too_socket)) = (reserve_address(), reserve_address());
    let web = upstream("web", &[dead, dead_too]);
    set_limits(&web, &[dead, dead_too], Some(limits(0, 0)));
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    assert_eq!(statuses(&server, 1).await, [503]);
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_request_errors_total{reason=\"connection_refused\"}"], 1.0);
    assert_eq!(metrics["portico_upstream_connects_total{outcome=\"refused\"}"], 2.0);
    assert_eq!(sum(&metrics, "portico_upstream_retries_refused_total", &["why=\"budget\""]), 0.0);
}
