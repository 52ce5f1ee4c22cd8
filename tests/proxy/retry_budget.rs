//! The retry budget of a Service (GEP-3388): how many failed requests are sent again, and what the others get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::upstream::{BackendTraffic, EndpointAddress, Endpoints, RetryLimits, Upstream};

use crate::accounting::scrape;
use crate::harness::{
    Endpoint, TestServer, forward, reserve_address, retries, route, routes_to, upstream, with_timeouts_and_retries,
};

/// The intervals are long, so that a test ends within them.
fn limits(percent: u32, min_count: u32) -> RetryLimits {
    let [interval, min_interval] = [Duration::from_secs(3600); 2];
    RetryLimits { percent, interval, min_count, min_interval, over_budget: OverBudget::Reject }
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
    assert_eq!(metrics["portico_upstream_retries_total"], 3.0);
    assert_eq!(metrics["portico_upstream_retries_refused_total"], 3.0);
    assert_eq!(metrics["portico_request_errors_total{reason=\"retry_budget\"}"], 3.0);
    // A policy that is removed or raised has an effect at once.
    set_limits(&web, &[endpoint.address], Some(limits(0, 5)));
    assert_eq!(statuses(&server, 2).await, [500, 503]);
    set_limits(&web, &[endpoint.address], None);
    assert_eq!(statuses(&server, 2).await, [500, 500]);
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
    assert_eq!(scrape(&server)["portico_upstream_retries_refused_total"], 0.0);
}

/// Rules without `retry` send a request to another endpoint if the first one refuses the connection.
#[tokio::test]
async fn another_endpoint_needs_the_budget_too() {
    let ((dead, _dead_socket), (dead_too, _dead_too_socket)) = (reserve_address(), reserve_address());
    let web = upstream("web", &[dead, dead_too]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    for (limits, reason) in [(None, "connection_refused"), (Some(limits(0, 0)), "retry_budget")] {
        set_limits(&web, &[dead, dead_too], limits);
        let before = scrape(&server);
        let name = format!("portico_request_errors_total{{reason=\"{reason}\"}}");
        assert_eq!(statuses(&server, 1).await, [503]);
        assert_eq!(scrape(&server)[&*name], before.get(&*name).unwrap_or(&0.0) + 1.0, "{reason}");
    }
}

#[tokio::test]
async fn services_without_limits_are_not_counted() {
    let endpoint = failing_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    assert_eq!(statuses(&server, 2).await, [500, 500]);
    assert!(!upstream("web", &[endpoint.address]).admit().limits_retries());
}
