//! Upgraded connections and streams: WebSocket over HTTP/1.1 and HTTP/2, and upgrades that are rejected.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request};
use portico::limits::ProxyLimits;
use portico::snapshot::external_auth::ExternalAuthFilter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::accounting::{access_log_records, scrape};
use crate::external_auth::{authorization_server, guarded_routes, http_filter};
use crate::h2::{Http2Client, read_body, read_response};
use crate::harness::{
    Client, Endpoint, LONGER_THAN_PAUSES, Options, TEST_TIMEOUT, TestServer, forward, h2c_upstream, route, routes_to,
    upstream, with_timeout,
};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: a.example\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An endpoint that switches to the requested protocol, sends `hello `, echoes every byte, and sends `bye` at the end.
async fn echo_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.record(&head);
        let protocol = crate::harness::header(&head, "upgrade").unwrap_or("none").to_owned();
        stream
            .send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\
                 sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-endpoint: 1\r\n\r\nhello "
            ))
            .await;
        let buffered = stream.take_buffered();
        stream.send(buffered).await;
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stream.socket.read(&mut bytes).await {
            stream.send(&bytes[..read]).await;
        }
        // The client has closed its direction; that of the endpoint is still open.
        stream.send("bye").await;
    })
    .await
}

/// Reads as many bytes as the text has, which must be the text.
async fn expect_text(client: &mut Client, text: &str) {
    let mut bytes = client.take_buffered();
    while bytes.len() < text.len() {
        let mut more = vec![0; text.len() - bytes.len()];
        let read = with_timeout("bytes of the tunnel", client.socket.read(&mut more)).await.unwrap();
        assert_ne!(read, 0, "the tunnel ended after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&more[..read]);
    }
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[tokio::test]
async fn websocket_works() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    let response = client.response().await;
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("connection"), Some("upgrade"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(response.header("x-request-id").is_some());
    expect_text(&mut client, "hello ").await;
    for word in ["one", "GET / HTTP/1.1\r\n\r\n", "\n\n", "\0\u{7f}"] {
        client.send(word).await;
        expect_text(&mut client, word).await;
    }
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"bye", "the direction to the client stays open");
    let received = endpoint.log.requests().remove(0);
    for field in
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "x-forwarded-for: 127.0.0.1"]
    {
        assert!(received.contains(&format!("\r\n{field}\r\n")), "no {field} in {received}");
    }
}

#[tokio::test]
async fn bytes_after_the_handshake_are_not_lost() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(format!("{HANDSHAKE}eager\nbytes without end of line")).await;
    assert_eq!(client.response().await.status, 101);
    expect_text(&mut client, "hello eager\nbytes without end of line").await;
}

#[tokio::test]
async fn tunnel_streams_in_both_directions() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.response().await.status, 101);
    expect_text(&mut client, "hello ").await;
    let (mut reader, mut writer) = client.socket.into_split();
    let bytes: Vec<u8> = (0..=255).cycle().take(4 << 20).collect();
    let sent = bytes.clone();
    let upload = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer
    });
    let mut received = vec![0; bytes.len()];
    with_timeout("the echo", reader.read_exact(&mut received)).await.unwrap();
    assert!(received == bytes);
    drop(upload.await.unwrap());
}

#[tokio::test]
async fn endpoint_may_decline_an_upgrade() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send(HANDSHAKE).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
    }
    assert_eq!(endpoint.log.connections(), 1);
}

#[tokio::test]
async fn switch_to_another_protocol_is_invalid() {
    for upgrade_fields in ["upgrade: other\r\n", "", "upgrade: websocket\r\nupgrade: other\r\n"] {
        let endpoint = Endpoint::responding_with(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{upgrade_fields}\r\n"
        ))
        .await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        assert_eq!(server.request(HANDSHAKE).await.status, 502, "{upgrade_fields}");
    }
}

#[tokio::test]
async fn idle_tunnel_is_closed_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let endpoint = echo_endpoint().await;
    let limits = ProxyLimits { upgrade_idle_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let log = portico::proxy::access_log::AccessLogDestination::File(path.clone());
    let server =
        TestServer::with_options(Options { limits, log, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(format!("{HANDSHAKE}12345")).await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(client.read_to_end().await.unwrap_or_default(), b"hello 12345");
    endpoint.log.wait_for("the end of the connection", |log| log.ended.load(SeqCst) == 1).await;
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    server.log.finish();
    let record = access_log_records(&path).remove(0);
    assert_eq!((&record["status"], &record["error"]), (&101.into(), &"tunnel_idle".into()));
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&5.into(), &11.into()));
}

#[tokio::test]
async fn draining_closes_tunnels_at_its_deadline() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.response().await.status, 101);
    expect_text(&mut client, "hello ").await;
    let metrics = scrape(&server);
    assert_eq!((metrics["portico_connections"], metrics["portico_tunnels"]), (1.0, 1.0));
    let draining = server.proxy.drain(LONGER_THAN_PAUSES);
    let exchange = async {
        client.send("still here").await;
        expect_text(&mut client, "still here").await;
    };
    assert_eq!(tokio::join!(draining, exchange).0, 1);
    client.read_to_end().await.unwrap_or_default();
    assert_eq!(scrape(&server)["portico_tunnels"], 0.0);
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"tunnel_closed\"}"], 1.0);
}

#[tokio::test]
async fn removed_listener_closes_its_tunnels() {
    let endpoint = echo_endpoint().await;
    let limits = ProxyLimits { tunnel_grace_period: Duration::from_millis(100), ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.response().await.status, 101);
    expect_text(&mut client, "hello ").await;
    server.snapshot.store(std::sync::Arc::default());
    server.proxy.reconcile().await;
    client.read_to_end().await.unwrap_or_default();
    endpoint.log.wait_for("the end of the connection", |log| log.ended.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn broken_tunnels_are_counted() {
    let endpoint = Endpoint::scripted(|mut stream, number| async move {
        stream.head().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        if number == 0 {
            stream.socket.set_zero_linger().unwrap();
        } else {
            stream.read_to_end().await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    for number in 1..=2 {
        let mut client = server.connect().await;
        client.send(HANDSHAKE).await;
        assert_eq!(client.response().await.status, 101);
        if number == 1 {
            client.read_to_end().await.unwrap_or_default();
        } else {
            client.socket.set_zero_linger().unwrap();
        }
        drop(client);
        with_timeout("the end of the tunnel to be counted", async {
            while server.proxy.stats().connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"tunnel_broken\"}"], f64::from(number));
    }
}

/// An extended CONNECT request (RFC 8441).
fn extended_connect(protocol: &'static str) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri("http://a.example/chat");
    request.extension(Protocol::from_static(protocol)).header("sec-websocket-version", "13").body(()).unwrap()
}

#[tokio::test]
async fn websocket_over_http2_reaches_an_http1_endpoint() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    // The SETTINGS that enable extended CONNECT arrive before the first response.
    assert_eq!(client.get("/").await.status, 502);
    assert!(client.sender.is_extended_connect_protocol_enabled());
    let (response, mut stream) = client.start_with_body(extended_connect("websocket")).await;
    let response = with_timeout("a response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    for absent in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(absent), "{absent}");
    }
    assert_eq!(response.headers()["x-endpoint"], "1");
    let mut body = response.into_body();
    stream.send_data(Bytes::from_static(b"one "), false).unwrap();
    stream.send_data(Bytes::from_static(b"two "), true).unwrap();
    let (bytes, _) = read_body(&mut body).await.unwrap();
    assert_eq!(bytes, b"hello one two bye");
    let received = endpoint.log.requests().pop().unwrap();
    assert!(received.starts_with("GET /chat HTTP/1.1\r\n"), "{received}");
    for field in ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "host: a.example"] {
        assert!(received.contains(&format!("\r\n{field}\r\n")), "no {field} in {received}");
    }
    assert_eq!(crate::harness::header(&received, "sec-websocket-key").unwrap().len(), 24);
}

#[tokio::test]
async fn unsupported_extended_connects_are_rejected() {
    let endpoint = Endpoint::ok().await;
    let mut routes = routes_to(endpoint.address);
    let h2c = h2c_upstream(endpoint.address);
    routes.push(crate::harness::Route { host: "h2c.example", ..route(forward(vec![(1, h2c)])) });
    let server = TestServer::with_routes(routes).await;
    let client = Http2Client::connect(server.address).await;
    assert_eq!(client.get("/").await.status, 200);
    // The endpoint responds without switching protocols. A success status would open a tunnel for the client.
    let status_of = |request| async {
        let (response, _stream) = client.start_with_body(request).await;
        read_response(response).await.unwrap().status
    };
    assert_eq!(status_of(extended_connect("websocket")).await, 502);
    assert_eq!(status_of(extended_connect("connect-udp")).await, 501);
    let mut to_h2c = extended_connect("websocket");
    *to_h2c.uri_mut() = "http://h2c.example/".parse().unwrap();
    assert_eq!(status_of(to_h2c).await, 501);
}

#[tokio::test]
async fn http2_tunnel_ends_with_its_connection() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    client.get("/").await;
    let (response, stream) = client.start_with_body(extended_connect("websocket")).await;
    assert_eq!(with_timeout("a response", response).await.unwrap().status(), 200);
    client.connection.abort();
    drop((client, stream));
    endpoint.log.wait_for("the end of the connection", |log| log.ended.load(SeqCst) == 2).await;
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
}

#[tokio::test]
async fn upgrades_are_authorized() {
    let (endpoint, authorization) = (echo_endpoint().await, authorization_server().await);
    let filter = ExternalAuthFilter { max_body: 100, ..http_filter(upstream("auth", &[authorization.address])) };
    let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE.replace("/chat", "/denied")).await;
    assert_eq!(client.response().await.status, 401);
    client.send(HANDSHAKE).await;
    assert_eq!(client.response().await.status, 101);
    expect_text(&mut client, "hello ").await;
    let client = Http2Client::connect(server.address).await;
    client.get("/denied").await;
    // The client would take 204 for an open tunnel.
    for (path, status) in [("/denied", 401), ("/empty", 500), ("/chat", 200)] {
        let mut request = extended_connect("websocket");
        *request.uri_mut() = format!("http://a.example{path}").parse().unwrap();
        let (response, _stream) = client.start_with_body(request).await;
        assert_eq!(with_timeout("a response", response).await.unwrap().status(), status, "{path}");
    }
    assert_eq!(endpoint.log.requests().len(), 2);
}
