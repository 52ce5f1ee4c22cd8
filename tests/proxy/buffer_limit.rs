//! The limit of the bytes of bodies that the process keeps in memory.

use portico::limits::ProxyLimits;
use portico::snapshot::rule::Action;
use tokio::net::TcpSocket;

use crate::accounting::scrape;
use crate::harness::{Client, Endpoint, Options, Route, TestServer, forward, upstream, with_timeout};
use crate::mirror::{mirror, mirrored_routes};
use crate::plugins::{ScriptedPlugin, route_with_plugins};

const LIMIT: usize = 100_000;
/// The largest body that can be kept.
const LARGEST: usize = LIMIT * 7 / 16;

async fn server_with_limit(routes: Vec<Route>) -> TestServer {
    let limits = ProxyLimits { max_buffered_bytes: LIMIT, ..ProxyLimits::default() };
    TestServer::with_options(Options { limits, ..Options::default() }, routes).await
}

/// Bodies are read for a plugin before they are forwarded.
fn routes_that_read_bodies(endpoint: &Endpoint) -> Vec<Route> {
    let action: Action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    vec![route_with_plugins(vec![ScriptedPlugin::reading_bodies(10 * LIMIT)], action)]
}

async fn send_head(client: &mut Client, length: usize) {
    client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {length}\r\n\r\n")).await;
}

fn buffered_bytes(server: &TestServer) -> f64 {
    scrape(server)["portico_buffered_bytes"]
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    with_timeout(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn body_beyond_the_limit_gets_503() {
    let endpoint = Endpoint::ok().await;
    let server = server_with_limit(routes_that_read_bodies(&endpoint)).await;
    let mut client = server.connect().await;
    send_head(&mut client, LARGEST + 1).await;
    client.send(vec![b'x'; LARGEST + 1]).await;
    let response = client.response().await;
    assert_eq!(response.status, 503);
    assert!(response.text().contains("Too many requests at a time"), "{}", response.text());
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_request_errors_total{reason=\"buffer_limit\"}"], 1.0);
    assert_eq!(metrics["portico_buffered_bytes_refused_total{use=\"request\"}"], 1.0);
    assert_eq!(metrics["portico_buffered_bytes_limit"], LIMIT as f64);
    assert!(endpoint.log.requests().is_empty());
    // The next body finds room.
    let mut client = server.connect().await;
    send_head(&mut client, LARGEST).await;
    client.send(vec![b'x'; LARGEST]).await;
    assert_eq!(client.response().await.status, 200);
}

/// A client that has sent all but the last byte of a body.
async fn client_that_holds_a_body(server: &TestServer, path: &str) -> Client {
    let mut client = server.connect().await;
    client.send(format!("POST {path} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {LARGEST}\r\n\r\n")).await;
    client.send(vec![b'x'; LARGEST - 1]).await;
    wait_until("the body to be kept", || buffered_bytes(server) >= (LARGEST - 1) as f64).await;
    client
}

#[tokio::test]
async fn body_waits_while_others_are_kept() {
    /// Fits only without the other body.
    const LENGTH: usize = 40_000;
    let endpoint = Endpoint::ok().await;
    let server = server_with_limit(routes_that_read_bodies(&endpoint)).await;
    let holder = client_that_holds_a_body(&server, "/").await;
    let mut client = server.connect().await;
    send_head(&mut client, LENGTH).await;
    client.send(vec![b'y'; LENGTH]).await;
    drop(holder);
    assert_eq!(client.response().await.status, 200);
    assert_eq!(endpoint.log.requests().len(), 1);
    assert_eq!(scrape(&server)["portico_buffered_bytes_refused_total{use=\"request\"}"], 0.0);
}

/// All of its bodies fit into the process, and fill the share of the namespace.
#[tokio::test]
async fn slow_bodies_of_one_client_leave_room_for_others_of_the_same_route() {
    let endpoint = Endpoint::ok().await;
    let server = server_with_limit(routes_that_read_bodies(&endpoint)).await;
    let mut slow = Vec::new();
    // Large ones, and then ones that fit into what those have left.
    for length in [20_000; 6].into_iter().chain([1_000; 10]).chain([100; 12]).chain([5; 24]) {
        let mut client = server.connect().await;
        send_head(&mut client, length + 1).await;
        client.send(vec![b'x'; length]).await;
        slow.push(client);
    }
    wait_until("the bodies", || buffered_bytes(&server) > (LIMIT / 2) as f64).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Client::from_stream(socket.connect(server.address).await.unwrap());
    for length in [7, 5000, 7] {
        let began = tokio::time::Instant::now();
        send_head(&mut other, length).await;
        other.send(vec![b'y'; length]).await;
        assert_eq!(other.response().await.status, 200, "{length} bytes");
        assert!(began.elapsed().as_secs() < 3, "{length} bytes have waited");
    }
    drop(slow);
}

/// Each of the slow bodies would fit, as long as a byte is free.
#[tokio::test]
async fn slow_clients_of_a_namespace_leave_room_for_other_namespaces() {
    const CLIENTS: usize = 110;
    let endpoint = Endpoint::ok().await;
    let mut routes = routes_that_read_bodies(&endpoint);
    routes.extend(routes_that_read_bodies(&endpoint).into_iter().map(|route| Route {
        namespace: "busy",
        path: "/busy",
        ..route
    }));
    let server = server_with_limit(routes).await;
    let mut slow = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.connect().await;
        client.send("POST /busy HTTP/1.1\r\nhost: a.example\r\ncontent-length: 1000\r\n\r\n").await;
        client.send(vec![b'x'; 999]).await;
        slow.push(client);
    }
    let refused = "portico_buffered_bytes_refused_total{use=\"request\"}";
    // The last body that is kept may exceed the share.
    let expected = (CLIENTS - (LIMIT * 7 / 8).div_ceil(999)) as f64;
    wait_until("the bodies beyond the share", || scrape(&server)[refused] >= expected).await;
    assert!(buffered_bytes(&server) > (LIMIT * 3 / 4) as f64, "a namespace that is alone may have most");
    let mut client = server.connect().await;
    send_head(&mut client, 5000).await;
    client.send(vec![b'y'; 5000]).await;
    assert_eq!(client.response().await.status, 200);
    drop(slow);
}

#[tokio::test]
async fn requests_are_not_mirrored_beyond_the_limit() {
    const LENGTH: usize = 40_000;
    let (original, copies) = (Endpoint::ok().await, Endpoint::ok().await);
    let mut routes = mirrored_routes(&original, vec![mirror(upstream("copy", &[copies.address]), 1, 1)]);
    routes.extend(routes_that_read_bodies(&original).into_iter().map(|route| Route { path: "/read", ..route }));
    let server = server_with_limit(routes).await;
    let holder = client_that_holds_a_body(&server, "/read").await;
    let mut client = server.connect().await;
    send_head(&mut client, LENGTH).await;
    client.send(vec![b'y'; LENGTH]).await;
    assert_eq!(client.response().await.status, 200);
    let name = "portico_mirrored_requests_total{outcome=\"buffer_limit\"}";
    wait_until("the copy to be counted", || scrape(&server)[name] == 1.0).await;
    assert_eq!(scrape(&server)["portico_buffered_bytes_refused_total{use=\"mirror\"}"], 1.0);
    assert!(copies.log.requests().is_empty());
    drop(holder);
    wait_until("the bytes to be returned", || buffered_bytes(&server) < LARGEST as f64).await;
    send_head(&mut client, 1000).await;
    client.send(vec![b'y'; 1000]).await;
    assert_eq!(client.response().await.status, 200);
    copies.log.wait_for("the copy", |log| log.requests().len() == 1).await;
}
