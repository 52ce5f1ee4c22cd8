//! Idle connections without buffers: whatever a client does next has the same effect as on a connection with buffers.
//!
//! Here a connection is parked immediately after each response.

use std::time::Duration;

use portico::limits::ProxyLimits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::accounting::{scrape, wait_for_metrics};
use crate::exhaustion::until_all_may_give_way;
use crate::frames::{self, DATA, RawConnection};
use crate::harness::{
    Client, Endpoint, LONGER_THAN_PAUSES, Options, TEST_TIMEOUT, TestServer, routes_to, with_timeout,
};
use crate::tls_harness::{TestTlsConnector, TlsClient, TlsListener, certificate, start_tls_server};

const SHORT: Duration = Duration::from_millis(100);
const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

fn parking() -> ProxyLimits {
    ProxyLimits { park_after: Duration::ZERO, ..ProxyLimits::default() }
}

async fn start(limits: ProxyLimits, endpoint: &Endpoint) -> TestServer {
    TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await
}

async fn start_tls(limits: ProxyLimits, endpoint: &Endpoint) -> TestServer {
    let certificates = vec![certificate(&["a.example"])];
    let listener = TlsListener { hostname: "", certificates, routes: routes_to(endpoint.address) };
    start_tls_server(Options { limits, ..Options::default() }, vec![listener]).await
}

async fn connect_tls(server: &TestServer) -> TlsClient {
    TestTlsConnector::new().connect(server, "a.example").await.unwrap()
}

async fn wait_for_parked(server: &TestServer, count: u32) {
    let condition = format!("{count} parked connections");
    wait_for_metrics(server, &condition, |metrics| metrics["portico_parked_connections"] == f64::from(count)).await;
}

/// Sends requests on a connection that is parked before each of them.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(server: &TestServer, client: &mut Client<S>) {
    for _ in 0..3 {
        wait_for_parked(server, 1).await;
        assert_eq!(client.get("/").await.status, 200);
    }
    wait_for_parked(server, 1).await;
    // The first byte of a request ends parking.
    client.send(&GET[..1]).await;
    wait_for_parked(server, 0).await;
    client.send(&GET[1..]).await;
    assert_eq!(client.response().await.status, 200);
    // Several requests at once.
    wait_for_parked(server, 1).await;
    client.send(GET.repeat(3)).await;
    for _ in 0..3 {
        assert_eq!(client.response().await.status, 200);
    }
    wait_for_parked(server, 1).await;
    assert_eq!(scrape(server)["portico_connections"], 1.0);
}

#[tokio::test]
async fn requests_on_parked_connections_are_served() {
    let endpoint = Endpoint::ok().await;
    let server = start(parking(), &endpoint).await;
    let mut client = server.connect().await;
    exchange(&server, &mut client).await;
    drop(client);
    wait_for_metrics(&server, "no connection", |metrics| {
        metrics["portico_connections"] == 0.0 && metrics["portico_parked_connections"] == 0.0
    })
    .await;
    let server = start_tls(parking(), &endpoint).await;
    exchange(&server, &mut connect_tls(&server).await).await;
    assert_eq!(endpoint.log.requests().len(), 14);
}

#[tokio::test]
async fn a_connection_in_use_keeps_its_buffers() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { park_after: TEST_TIMEOUT * 2, ..ProxyLimits::default() };
    let server = start(limits, &endpoint).await;
    let mut client = server.connect().await;
    // A connection without a request has no buffers yet.
    wait_for_parked(&server, 1).await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(scrape(&server)["portico_parked_connections"], 0.0);
    }
}

#[tokio::test]
async fn the_beginning_of_a_pipelined_request_is_kept() {
    let endpoint = Endpoint::ok().await;
    let server = start(parking(), &endpoint).await;
    for beginning in [&GET[..1], &GET[..20], &GET[..GET.len() - 1]] {
        let mut client = server.connect().await;
        client.send(format!("{GET}{beginning}")).await;
        assert_eq!(client.response().await.status, 200);
        // The same worker parks another connection meanwhile.
        let mut other = server.connect().await;
        assert_eq!(other.get("/").await.status, 200);
        wait_for_parked(&server, 1).await;
        client.send(&GET[beginning.len()..]).await;
        assert_eq!(client.response().await.status, 200, "after {beginning:?}");
        wait_for_parked(&server, 2).await;
        drop((client, other));
        wait_for_parked(&server, 0).await;
    }
    // Empty lines between requests mean nothing.
    let mut client = server.connect().await;
    client.send(format!("{GET}\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    wait_for_parked(&server, 1).await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn an_incomplete_request_on_a_parked_connection_times_out() {
    let endpoint = Endpoint::ok().await;
    let server = start(ProxyLimits { header_timeout: SHORT, ..parking() }, &endpoint).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    wait_for_parked(&server, 1).await;
    client.send("GET / HTTP/1.1\r\nhost").await;
    assert_eq!(client.read_to_end().await.unwrap(), b"");
}

#[tokio::test]
async fn a_malformed_request_on_a_parked_connection_is_rejected() {
    let endpoint = Endpoint::ok().await;
    let server = start(parking(), &endpoint).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    for request in ["GET / HTTP/1.1\nhost: a\n\n", "\0\r\n\r\n"] {
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.status, 200);
        wait_for_parked(&server, 2).await;
        client.send(request).await;
        assert_eq!(client.response().await.status, 400, "{request:?}");
        assert_eq!(client.read_to_end().await.unwrap(), b"");
        wait_for_parked(&server, 1).await;
    }
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_parked_connection_is_closed_after_the_idle_timeout() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { client_idle_timeout: LONGER_THAN_PAUSES, ..parking() };
    let server = start(limits.clone(), &endpoint).await;
    let plain = async {
        let mut unused = server.connect().await;
        let mut used = server.connect().await;
        assert_eq!(used.get("/").await.status, 200);
        wait_for_parked(&server, 2).await;
        assert_eq!(unused.read_to_end().await.unwrap(), b"");
        assert_eq!(used.read_to_end().await.unwrap(), b"");
    };
    // With TLS, rustls reports an end without close_notify as an error.
    let tls_server = start_tls(limits, &endpoint).await;
    let with_tls = async {
        let mut unused = connect_tls(&tls_server).await;
        let mut used = connect_tls(&tls_server).await;
        assert_eq!(used.get("/").await.status, 200);
        assert_eq!(unused.read_to_end().await.unwrap(), b"");
        assert_eq!(used.read_to_end().await.unwrap(), b"");
    };
    tokio::join!(plain, with_tls);
}

#[tokio::test]
async fn draining_closes_parked_connections() {
    let endpoint = Endpoint::ok().await;
    let server = start(parking(), &endpoint).await;
    let mut unused = server.connect().await;
    let mut used = server.connect().await;
    assert_eq!(used.get("/").await.status, 200);
    wait_for_parked(&server, 2).await;
    let (aborted, (), ()) = tokio::join!(
        server.proxy.drain(TEST_TIMEOUT),
        async { assert_eq!(unused.read_to_end().await.unwrap(), b"") },
        async { assert_eq!(used.read_to_end().await.unwrap(), b"") },
    );
    assert_eq!(aborted, 0);
}

#[tokio::test]
async fn the_drain_deadline_aborts_parked_connections() {
    let endpoint = Endpoint::ok().await;
    let server = start(parking(), &endpoint).await;
    let mut client = server.connect().await;
    wait_for_parked(&server, 1).await;
    assert_eq!(server.proxy.drain(Duration::ZERO).await, 1);
    client.read_to_end().await.unwrap_or_default();
}

#[tokio::test]
async fn a_parked_connection_ends_with_its_client() {
    let endpoint = Endpoint::ok().await;
    let server = start(parking(), &endpoint).await;
    for had_request in [false, true] {
        let mut client = server.connect().await;
        if had_request {
            assert_eq!(client.get("/").await.status, 200);
        }
        wait_for_parked(&server, 1).await;
        // Only the direction to the proxy.
        client.socket.shutdown().await.unwrap();
        assert_eq!(client.read_to_end().await.unwrap(), b"");
        let client = server.connect().await;
        wait_for_parked(&server, 1).await;
        client.socket.set_zero_linger().unwrap();
        drop(client);
        wait_for_metrics(&server, "no connection", |metrics| metrics["portico_connections"] == 0.0).await;
    }
    let server = start_tls(parking(), &endpoint).await;
    for had_request in [false, true] {
        let mut client = connect_tls(&server).await;
        if had_request {
            assert_eq!(client.get("/").await.status, 200);
        }
        wait_for_parked(&server, 1).await;
        // Sends close_notify.
        client.socket.shutdown().await.unwrap();
        assert_eq!(client.read_to_end().await.unwrap(), b"");
        wait_for_metrics(&server, "no connection", |metrics| metrics["portico_connections"] == 0.0).await;
    }
    assert_eq!(scrape(&server)["portico_parked_connections"], 0.0);
}

#[tokio::test]
async fn parked_connections_give_way_to_new_ones() {
    let endpoint = Endpoint::ok().await;
    let server = start(ProxyLimits { max_connections: 2, ..parking() }, &endpoint).await;
    let mut kept = server.connect().await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut unused = server.connect().await;
    wait_for_parked(&server, 2).await;
    until_all_may_give_way().await;
    let mut new = server.connect().await;
    assert_eq!(new.get("/").await.status, 200);
    assert_eq!(unused.read_to_end().await.unwrap(), b"");
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(scrape(&server)["portico_connections_evicted_total"], 1.0);
}

#[tokio::test]
async fn a_parked_connection_can_be_upgraded() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        stream.head().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
        stream.read_to_end().await;
    })
    .await;
    let server = start(parking(), &endpoint).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    wait_for_parked(&server, 1).await;
    client
        .send(
            "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status, 101);
    let mut greeting = client.take_buffered();
    while greeting.len() < 5 {
        assert_ne!(with_timeout("the tunnel", client.socket.read_buf(&mut greeting)).await.unwrap(), 0);
    }
    assert_eq!(greeting, b"hello");
    let metrics = scrape(&server);
    assert_eq!((metrics["portico_tunnels"], metrics["portico_parked_connections"]), (1.0, 0.0));
}

#[tokio::test]
async fn http2_begins_on_a_parked_connection_and_is_not_parked() {
    let endpoint = Endpoint::ok().await;
    let server = start(parking(), &endpoint).await;
    let mut raw = RawConnection::connect_without_preface(server.address).await;
    wait_for_parked(&server, 1).await;
    raw.send(&frames::PREFACE[..10]).await;
    wait_for_parked(&server, 0).await;
    raw.send(&frames::PREFACE[10..]).await;
    raw.send(frames::frame(frames::SETTINGS, 0, 0, b"")).await;
    raw.send(frames::get_request(1)).await;
    raw.wait_for("a response", |frame| frame.kind == DATA && frame.payload == b"ok").await;
    let metrics = scrape(&server);
    assert_eq!((metrics["portico_http2_connections"], metrics["portico_parked_connections"]), (1.0, 0.0));
}

/// rustls accepts more of a response than the socket does, and the rest follows while the connection is parked.
#[tokio::test]
async fn responses_over_tls_are_sent_to_their_end() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let size: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n")).await;
            stream.send(vec![b'x'; size]).await;
        }
    })
    .await;
    let server = start_tls(parking(), &endpoint).await;
    let mut client = connect_tls(&server).await;
    // The buffers of the sockets hold more than the smallest response and less than the largest.
    for number in 1..24 {
        let size = number * 256 * 1024;
        client.send(format!("GET /{size} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        // The connection is parked if all buffers together hold the response.
        timeout(SHORT, wait_for_parked(&server, 1)).await.ok();
        assert_eq!(client.response().await.body.len(), size);
    }
}
