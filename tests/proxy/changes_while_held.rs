//! Changes of the configuration while requests and handshakes hold shares of a limit: what they hold counts until they
//! end, whatever has become of their route or listener, and then all of it is free again.

use std::sync::Arc;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::proxy::BindState;
use portico::snapshot::rule::{Action, RouteFailure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::accounting::wait_for_metrics;
use crate::harness::{
    Client, Endpoint, Options, Route, TEST_TIMEOUT, TestServer, forward, route, upstream, with_timeout,
};
use crate::metrics::scrape;
use crate::plugins::{ScriptedPlugin, route_with_plugins};
use crate::polling::until;
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, replace_listeners, start_tls_server};

/// The bytes of bodies that the process keeps.
const LIMIT: usize = 100_000;
/// What a worker keeps for later bodies.
const KEPT_BY_WORKER: f64 = (2 * 16 * 1024) as f64;
/// Clients whose bodies take almost all of the share of one client, which is three quarters of the limit.
const HOLDERS: usize = 8;
const HELD_BYTES: usize = 9_000;

/// Reads whole bodies for a plugin of a route in this namespace.
fn route_that_reads_bodies(namespace: &'static str, path: &'static str, endpoint: &Endpoint) -> Route {
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    Route { namespace, path, ..route_with_plugins(vec![ScriptedPlugin::reading_bodies(LIMIT)], action) }
}

/// Clients that have sent all but the last byte of their bodies.
async fn hold_bodies(server: &TestServer, path: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..HOLDERS {
        let mut client = server.connect().await;
        let length = HELD_BYTES + 1;
        client.send(format!("POST {path} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {length}\r\n\r\n")).await;
        client.send(vec![b'x'; HELD_BYTES]).await;
        clients.push(client);
        let held = (clients.len() * HELD_BYTES) as f64;
        wait_for_metrics(server, "a body is kept", |metrics| metrics["portico_buffered_bytes"] >= held).await;
    }
    clients
}

async fn post(server: &TestServer, path: &str, length: usize) -> u16 {
    let mut client = server.connect().await;
    client.send(format!("POST {path} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {length}\r\n\r\n")).await;
    client.send(vec![b'y'; length]).await;
    client.response().await.status
}

#[tokio::test]
async fn bodies_of_a_deleted_namespace_count_until_they_end() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { max_buffered_bytes: LIMIT, ..ProxyLimits::default() };
    let busy = || route_that_reads_bodies("busy", "/busy", &endpoint);
    let new = || route_that_reads_bodies("new", "/new", &endpoint);
    let server = TestServer::with_options(Options { limits, ..Options::default() }, vec![busy()]).await;
    let refused = "portico_buffered_bytes_refused_total{use=\"request\"}";
    for round in 0..3 {
        let mut holders = hold_bodies(&server, "/busy").await;
        // The namespace is deleted, and another one uses what it has left.
        server.replace_routes(vec![new()]);
        assert_eq!(post(&server, "/busy", 1).await, 404);
        assert_eq!(post(&server, "/new", 1_000).await, 200);
        let held = scrape(&server)["portico_buffered_bytes"];
        assert!(held >= (HOLDERS * HELD_BYTES) as f64, "round {round}: {held}");
        // It comes back before its bodies have ended, and some end by themselves, others with their clients.
        server.replace_routes(vec![busy(), new()]);
        for client in &mut holders[..HOLDERS / 2] {
            client.send("z").await;
            assert_eq!(client.response().await.status, 200, "round {round}");
        }
        drop(holders);
        wait_for_metrics(&server, "all bytes to be returned", |metrics| {
            metrics["portico_buffered_bytes"] <= KEPT_BY_WORKER
        })
        .await;
        // The next round needs the whole share again.
        assert_eq!(scrape(&server)[refused], 0.0, "round {round}");
    }
}

fn tls_listener(namespace: &'static str) -> TlsListener {
    let action = Action::Fail(RouteFailure::NoService);
    let routes = vec![Route { namespace, ..route(action) }];
    TlsListener { hostname: "", certificates: vec![certificate(&["a.example"])], routes }
}

/// Clients that stop after their ClientHello, each with a permit for its handshake.
async fn hold_handshakes(server: &TestServer, count: usize) -> Vec<TcpStream> {
    let connector = TestTlsConnector::new();
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(&connector.client_hello("a.example")).await.unwrap();
        with_timeout("the response to the ClientHello", socket.read_u8()).await.unwrap();
        sockets.push(socket);
    }
    sockets
}

async fn wait_without_connections(server: &TestServer) {
    until("the end of all connections", async || server.proxy.stats().connections() == 0).await;
}

#[tokio::test]
async fn handshakes_return_their_permits_after_their_listener_has_changed() {
    const PERMITS: usize = 4;
    let limits = ProxyLimits { max_handshakes: PERMITS, handshake_timeout: TEST_TIMEOUT, ..ProxyLimits::default() };
    let server = start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("first")]).await;
    for round in 0..3 {
        let held = hold_handshakes(&server, PERMITS).await;
        // The listener gets another certificate and other routes, is removed, and comes back.
        replace_listeners(&server.snapshot, server.address, vec![tls_listener("second")]);
        server.proxy.reconcile().await;
        // The clients of some leave now, those of the others after the removal.
        let rest: Vec<_> = held.into_iter().skip(PERMITS / 2).collect();
        server.snapshot.store(Arc::default());
        server.proxy.reconcile().await;
        assert!(TcpStream::connect(server.address).await.is_err(), "round {round}: the listener is removed");
        replace_listeners(&server.snapshot, server.address, vec![tls_listener("first")]);
        let binds = server.proxy.reconcile().await;
        assert_eq!(binds.get(&BindAddress::tcp(server.address)), Some(&BindState::Bound));
        drop(rest);
        wait_without_connections(&server).await;
        // Without a permit for each, some would have to wait until others have stalled.
        drop(hold_handshakes(&server, PERMITS).await);
        wait_without_connections(&server).await;
        TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    }
    let metrics = scrape(&server);
    for outcome in ["stalled", "overload"] {
        let name = format!("portico_tls_handshakes_total{{outcome=\"{outcome}\"}}");
        assert_eq!(metrics[&name], 0.0, "{outcome}");
    }
}
