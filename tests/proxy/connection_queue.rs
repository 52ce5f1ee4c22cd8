//! Requests that wait for connections to endpoints: in the order of arrival, and never for connections that are idle.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portico::endpoint_tls::UpstreamProtocol;
use portico::limits::ProxyLimits;
use portico::upstream::settings::RequestLimits;
use portico::upstream::{BackendTraffic, EndpointAddress, Endpoints, Upstream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::h2_upstream::counting_endpoint;
use crate::harness::{Endpoint, EndpointStream, Options, TestServer, forward, route, upstream_with_protocol};

/// Less than the five seconds that a request waits in vain, and more than a busy machine pauses.
const SOON: Duration = Duration::from_millis(4500);

async fn respond(mut stream: EndpointStream) {
    while stream.request().await.is_some() {
        // So that other requests arrive meanwhile.
        tokio::task::yield_now().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    }
}

/// Endpoints with addresses of their own.
async fn endpoints(count: u8) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for number in 1..=count {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, number), 0)).await.unwrap();
        endpoints.push(Endpoint::on_listener(listener, |stream, _| respond(stream)));
    }
    endpoints
}

fn service(protocol: UpstreamProtocol, addresses: Vec<EndpointAddress>, max_connections: Option<u32>) -> Arc<Upstream> {
    let service = upstream_with_protocol(protocol, "web", &[]);
    let limits = RequestLimits { max_connections, ..RequestLimits::default() };
    let traffic = BackendTraffic { overload: limits.into(), ..BackendTraffic::default() };
    service.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    service
}

async fn start(service: Arc<Upstream>, workers: usize, limits: ProxyLimits) -> TestServer {
    let routes = vec![route(forward(vec![(1, service)]))];
    TestServer::with_options(Options { workers, limits, ..Options::default() }, routes).await
}

/// Sends requests, some at a time, each of which gets a response soon.
async fn send_all(name: &str, server: &TestServer, at_a_time: usize, requests: usize) {
    let clients = (0..at_a_time).map(|_| async {
        let mut responses = Vec::new();
        for _ in 0..requests / at_a_time {
            // Another connection for each, so that all workers get some.
            let mut client = server.connect().await;
            let began = Instant::now();
            responses.push((client.get("/").await.status, began.elapsed()));
        }
        responses
    });
    let responses = futures_util::future::join_all(clients).await.concat();
    let late: Vec<_> = responses.iter().filter(|(status, waited)| *status != 200 || *waited >= SOON).collect();
    assert!(late.is_empty(), "{name}: of {}, {late:?} have failed or waited", responses.len());
}

#[tokio::test]
async fn requests_do_not_wait_for_idle_connections_of_other_endpoints() {
    for workers in [1, 4] {
        let endpoints = endpoints(5).await;
        let addresses = endpoints.iter().map(|endpoint| EndpointAddress::Ip(endpoint.address)).collect();
        let service = service(UpstreamProtocol::Http1, addresses, Some(2));
        let server = start(service, workers, ProxyLimits::default()).await;
        send_all(&format!("with {workers} workers"), &server, 4, 400).await;
    }
}

#[tokio::test]
async fn requests_do_not_wait_for_idle_connections_of_other_workers() {
    for workers in [1, 2, 4] {
        let endpoints = endpoints(1).await;
        let addresses = vec![EndpointAddress::Ip(endpoints[0].address)];
        let server = start(service(UpstreamProtocol::Http1, addresses, Some(3)), workers, ProxyLimits::default()).await;
        send_all(&format!("with {workers} workers"), &server, 12, 600).await;
    }
}

/// Otherwise each request that waits would close the connection of the one before, and open one with a handshake.
#[tokio::test]
async fn connections_are_handed_over_to_requests_of_the_same_worker() {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let endpoint = Endpoint::scripted(move |stream, _| {
        count.fetch_add(1, Ordering::Relaxed);
        respond(stream)
    })
    .await;
    let service = service(UpstreamProtocol::Http1, vec![EndpointAddress::Ip(endpoint.address)], Some(1));
    let server = start(service, 1, ProxyLimits::default()).await;
    send_all("one connection", &server, 8, 80).await;
    assert_eq!(opened.load(Ordering::Relaxed), 1);
}

/// The endpoint closes such a connection at once, and a POST that was sent on it failed.
#[tokio::test]
async fn connections_that_end_with_their_response_are_not_handed_over() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        if stream.request().await.is_some() {
            // So that other requests arrive meanwhile.
            tokio::task::yield_now().await;
            let fields = "connection: keep-alive\r\nkeep-alive: timeout=0\r\ncontent-length: 2\r\n";
            stream.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nok")).await;
        }
    })
    .await;
    let service = service(UpstreamProtocol::Http1, vec![EndpointAddress::Ip(endpoint.address)], Some(1));
    let server = start(service, 1, ProxyLimits::default()).await;
    let clients = (0..8).map(|_| async {
        let mut client = server.connect().await;
        for _ in 0..10 {
            let post = "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n";
            client.send(post).await;
            assert_eq!(client.response().await.status, 200);
        }
    });
    futures_util::future::join_all(clients).await;
}

#[tokio::test]
async fn requests_do_not_wait_for_idle_connections_with_http2() {
    for (workers, max_connections) in [(2, 1), (4, 2)] {
        let endpoint = counting_endpoint(h2::server::Builder::new(), watch::channel(true).1, |_| false).await;
        let addresses = vec![EndpointAddress::Ip(endpoint.address)];
        let service = service(UpstreamProtocol::Http2, addresses, Some(max_connections));
        let server = start(service, workers, ProxyLimits::default()).await;
        send_all(&format!("{max_connections} connections of {workers} workers"), &server, 4, 60).await;
    }
}

#[tokio::test]
async fn requests_do_not_wait_for_idle_connections_while_the_process_has_few() {
    let endpoints = endpoints(12).await;
    let addresses = endpoints.iter().map(|endpoint| EndpointAddress::Ip(endpoint.address)).collect();
    let limits = ProxyLimits { max_connections: 16, ..ProxyLimits::default() };
    let server = start(service(UpstreamProtocol::Http1, addresses, None), 2, limits).await;
    send_all("16 connections", &server, 6, 600).await;
}
