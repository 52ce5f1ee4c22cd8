//! The limits of requests and connections to a Service: what is rejected, what waits, and what the client gets.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use portico::upstream::settings::{AdaptiveLimit, OverloadLimit, RequestLimits};
use portico::upstream::{BackendTraffic, EndpointAddress, Endpoints, OverloadReport, Upstream};
use tokio::sync::{Semaphore, watch};

use crate::accounting::scrape;
use crate::h2::Http2Client;
use crate::h2_upstream;
use crate::harness::{
    Client, Endpoint, Options, TEST_TIMEOUT, TestServer, forward, h2c_upstream, route, upstream, with_timeout,
};
use crate::stream;

fn set_limits(upstream: &Upstream, endpoints: &[&Endpoint], limits: RequestLimits) {
    let mut addresses: Vec<_> = endpoints.iter().map(|endpoint| EndpointAddress::Ip(endpoint.address)).collect();
    addresses.sort();
    let traffic = BackendTraffic { overload: limits.into(), ..BackendTraffic::default() };
    upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
}

/// A server whose only route leads to these endpoints, with these limits.
async fn server(endpoints: &[&Endpoint], limits: RequestLimits) -> (TestServer, Arc<Upstream>) {
    let web = upstream("web", &[]);
    set_limits(&web, endpoints, limits);
    (TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await, web)
}

/// An endpoint that responds once for each permit.
async fn held_endpoint() -> (Endpoint, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let of_endpoint = Arc::clone(&permits);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let permits = Arc::clone(&of_endpoint);
        async move {
            while stream.request().await.is_some() {
                permits.acquire().await.unwrap().forget();
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (endpoint, permits)
}

/// A client whose request was sent.
async fn begin(server: &TestServer, path: &str) -> Client {
    let mut client = server.connect().await;
    client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    client
}

async fn received(endpoint: &Endpoint, count: usize) {
    endpoint.log.wait_for("requests", |log| log.requests().len() >= count).await;
}

/// Waits until the state of the limits is as expected.
pub(crate) async fn wait_for(upstream: &Upstream, what: &str, is_expected: impl Fn(&OverloadReport) -> bool) {
    with_timeout(what, async {
        while !is_expected(&upstream.overload_report().unwrap()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn rejections(server: &TestServer, reason: &str) -> f64 {
    let metrics = scrape(server);
    metrics.get(&format!("portico_request_errors_total{{reason=\"{reason}\"}}")).copied().unwrap_or_default()
}

#[tokio::test]
async fn requests_beyond_the_limit_get_503() {
    let (endpoint, permits) = held_endpoint().await;
    for max_requests in [1, 3] {
        let limits = RequestLimits { max_requests: Some(max_requests), ..RequestLimits::default() };
        let (server, web) = server(&[&endpoint], limits).await;
        let before = endpoint.log.requests().len();
        let mut held = Vec::new();
        for _ in 0..max_requests {
            held.push(begin(&server, "/held").await);
        }
        received(&endpoint, before + max_requests as usize).await;
        let rejected = server.request("GET /over HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!((rejected.status, rejected.header("retry-after")), (503, None));
        assert!(rejected.text().contains("Too many requests at a time"), "{}", rejected.text());
        assert_eq!(rejections(&server, "over_limit"), 1.0);
        permits.add_permits(max_requests as usize);
        for mut client in held {
            assert_eq!(client.response().await.status, 200);
        }
        permits.add_permits(1);
        assert_eq!(server.request("GET /later HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 200);
        let report = web.overload_report().unwrap();
        assert_eq!((report.active, report.rejected(OverloadLimit::Requests)), (0, 1));
    }
}

/// A slot is free when the response has ended, not when it has begun.
#[tokio::test]
async fn request_counts_until_its_response_has_ended() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").await;
        stream.request().await;
    })
    .await;
    let limits = RequestLimits { max_requests: Some(1), ..RequestLimits::default() };
    let (server, web) = server(&[&endpoint], limits).await;
    let client = begin(&server, "/").await;
    received(&endpoint, 1).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 503);
    drop(client);
    wait_for(&web, "the end of the request", |report| report.active == 0).await;
}

#[tokio::test]
async fn requests_wait_in_order() {
    let (endpoint, permits) = held_endpoint().await;
    let limits = RequestLimits {
        max_requests: Some(1),
        max_pending: Some(3),
        queue_timeout: TEST_TIMEOUT,
        ..RequestLimits::default()
    };
    let (server, web) = server(&[&endpoint], limits).await;
    let mut clients = Vec::new();
    for (index, path) in ["/first", "/second", "/gone", "/third"].into_iter().enumerate() {
        clients.push(begin(&server, path).await);
        wait_for(&web, "the place in the queue", |report| (report.active, report.pending) == (1, index)).await;
    }
    assert_eq!(server.request("GET /full HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 503);
    assert_eq!(rejections(&server, "over_limit"), 1.0);
    drop(clients.remove(2));
    wait_for(&web, "the client that has disconnected", |report| report.pending == 2).await;
    permits.add_permits(3);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    let paths: Vec<_> =
        endpoint.log.requests().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/first", "/second", "/third"]);
    let report = web.overload_report().unwrap();
    assert_eq!((report.active, report.pending, report.rejected(OverloadLimit::Pending)), (0, 0, 1));
}

#[tokio::test]
async fn requests_that_wait_for_too_long_get_503() {
    let (endpoint, permits) = held_endpoint().await;
    let limits = RequestLimits {
        max_requests: Some(1),
        max_pending: Some(3),
        queue_timeout: std::time::Duration::from_millis(50),
        ..RequestLimits::default()
    };
    let (server, _web) = server(&[&endpoint], limits).await;
    let mut held = begin(&server, "/held").await;
    received(&endpoint, 1).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 503);
    assert_eq!(rejections(&server, "queue_timeout"), 1.0);
    permits.add_permits(1);
    assert_eq!(held.response().await.status, 200);
}

#[tokio::test]
async fn each_endpoint_has_as_many_requests_as_it_may() {
    let ((first, first_permits), (second, second_permits)) = (held_endpoint().await, held_endpoint().await);
    let limits = RequestLimits { max_requests_per_endpoint: Some(2), ..RequestLimits::default() };
    let (server, web) = server(&[&first, &second], limits).await;
    let mut held = Vec::new();
    for count in 1..=4 {
        held.push(begin(&server, "/").await);
        let has_all = || first.log.requests().len() + second.log.requests().len() == count;
        with_timeout("the request", async {
            while !has_all() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!((first.log.requests().len(), second.log.requests().len()), (2, 2));
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 503);
    assert_eq!(rejections(&server, "over_limit"), 1.0);
    assert_eq!(web.overload_report().unwrap().rejected(OverloadLimit::Endpoint), 1);
    first_permits.add_permits(9);
    second_permits.add_permits(9);
    for client in &mut held {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn connections_end_after_their_requests() {
    let endpoint = Endpoint::ok().await;
    let limits = RequestLimits { max_requests_per_connection: Some(2), ..RequestLimits::default() };
    let (server, web) = server(&[&endpoint], limits).await;
    let mut client = server.connect().await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(endpoint.log.connections(), 3);
    set_limits(&web, &[&endpoint], RequestLimits::default());
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(endpoint.log.connections(), 4, "without the limit, a connection is used for all");
}

#[tokio::test]
async fn http2_connections_end_after_their_requests() {
    let endpoint = h2_upstream::echo_endpoint().await;
    let web = h2c_upstream(endpoint.address);
    let limits = RequestLimits { max_requests_per_connection: Some(2), ..RequestLimits::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    let traffic = BackendTraffic { overload: limits.into(), ..BackendTraffic::default() };
    web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await;
    let mut client = server.connect().await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(endpoint.connections(), 3);
}

/// Requests in progress end, and the connection gets no other ones.
#[tokio::test]
async fn http2_connections_end_after_their_time() {
    let (release, released) = watch::channel(false);
    let holds = |path: &str| path == "/hold";
    let endpoint = h2_upstream::counting_endpoint(h2::server::Builder::new(), released, holds).await;
    let web = h2c_upstream(endpoint.address);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    let mut held = begin(&server, "/hold").await;
    with_timeout("the request", async {
        while endpoint.requests() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(endpoint.connections(), 1);
    let limits = RequestLimits { max_connection_age: Some(Duration::from_millis(1)), ..RequestLimits::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    let traffic = BackendTraffic { overload: limits.into(), ..BackendTraffic::default() };
    web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    with_timeout("another connection", async {
        while endpoint.connections() < 2 {
            assert_eq!(client.get("/").await.status, 200);
        }
    })
    .await;
    release.send(true).unwrap();
    assert_eq!(held.response().await.status, 200, "the request in progress");
}

#[tokio::test]
async fn requests_share_the_connections_that_the_service_may_have() {
    let (endpoint, permits) = held_endpoint().await;
    let limits = RequestLimits { max_connections: Some(1), ..RequestLimits::default() };
    let (server, _web) = server(&[&endpoint], limits).await;
    let mut first = begin(&server, "/first").await;
    received(&endpoint, 1).await;
    let mut second = begin(&server, "/second").await;
    permits.add_permits(2);
    assert_eq!((first.response().await.status, second.response().await.status), (200, 200));
    assert_eq!(endpoint.log.requests().len(), 2);
}

#[tokio::test]
async fn calls_get_their_status_for_rejections() {
    let (endpoint, _permits) = held_endpoint().await;
    let limits = RequestLimits { max_requests: Some(1), ..RequestLimits::default() };
    let (server, _web) = server(&[&endpoint], limits).await;
    let _held = begin(&server, "/held").await;
    received(&endpoint, 1).await;
    let client = Http2Client::connect(server.address).await;
    let call = Request::post("http://a/s/m").header("content-type", "application/grpc").body(()).unwrap();
    let response = client.request(call).await.unwrap();
    assert_eq!((response.status, &response.headers["grpc-status"]), (200, &"14".parse().unwrap()));
}

#[tokio::test]
async fn connections_of_tcp_listeners_are_limited() {
    let endpoint = stream::echo_endpoint().await;
    let db = upstream("db", &[]);
    set_limits(&db, &[&endpoint], RequestLimits { max_requests: Some(1), ..RequestLimits::default() });
    let server = stream::start(Options::default(), stream::to_upstream(&db)).await;
    let mut first = server.connect().await;
    first.send("hello").await;
    stream::expect_text(&mut first, "hello").await;
    stream::assert_reset_at_once(&server).await;
    stream::wait_for_outcome(&server, "over_limit", 1.0).await;
    drop(first);
    wait_for(&db, "the end of the connection", |report| report.active == 0).await;
    let mut next = server.connect().await;
    next.send("again").await;
    stream::expect_text(&mut next, "again").await;
}

/// Its first value is 20 or less, and only the times of responses change it.
#[tokio::test]
async fn adaptive_limit_does_not_apply_to_connections_of_tcp_listeners() {
    let endpoint = stream::echo_endpoint().await;
    let db = upstream("db", &[]);
    let adaptive = Some(AdaptiveLimit { min: 1, max: 1 });
    set_limits(&db, &[&endpoint], RequestLimits { adaptive, ..RequestLimits::default() });
    let server = stream::start(Options::default(), stream::to_upstream(&db)).await;
    let mut clients = [server.connect().await, server.connect().await];
    for client in &mut clients {
        client.send("hello").await;
        stream::expect_text(client, "hello").await;
    }
}

#[tokio::test]
async fn dry_run_rejects_nothing() {
    let (endpoint, permits) = held_endpoint().await;
    let web = upstream("web", &[]);
    let limits = RequestLimits { max_requests: Some(1), max_connections: Some(1), ..RequestLimits::default() };
    let traffic = BackendTraffic { overload: limits.into(), is_dry_run: true, ..BackendTraffic::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    let mut clients = [begin(&server, "/").await, begin(&server, "/").await];
    received(&endpoint, 2).await;
    permits.add_permits(2);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(web.overload_report().unwrap().rejected(OverloadLimit::Requests), 1);
}
