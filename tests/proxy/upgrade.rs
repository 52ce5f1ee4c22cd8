//! Upgraded connections and streams: WebSocket and other protocols.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request};
use portico::proxy::ProxyLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::accounting::{records, scrape};
use crate::h2::{Http2Client as Http2, read_body, read_response};
use crate::harness::{
    Client, Endpoint, Options, TEST_TIMEOUT, TestServer, forward, route, routes_to, upstream_with_protocol,
    with_timeout,
};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: a.example\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Switches to a protocol that echoes every byte.
async fn echo() -> Endpoint {
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
        let begun = stream.take_buffered();
        stream.send(begun).await;
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stream.socket.read(&mut bytes).await {
            stream.send(&bytes[..read]).await;
        }
        // The client has closed its direction; the other one is still open.
        stream.send("bye").await;
    })
    .await
}

/// Reads exactly this text.
async fn expect(client: &mut Client, text: &str) {
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
    let endpoint = echo().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    let answer = client.response(false).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(answer.header("x-request-id").is_some());
    expect(&mut client, "hello ").await;
    for word in ["one", "GET / HTTP/1.1\r\n\r\n", "\n\n", "\0\u{7f}"] {
        client.send(word).await;
        expect(&mut client, word).await;
    }
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"bye", "the other direction stays open");
    let seen = endpoint.log.requests().remove(0);
    for field in
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "x-forwarded-for: 127.0.0.1"]
    {
        assert!(seen.contains(&format!("\r\n{field}\r\n")), "no {field} in {seen}");
    }
}

#[tokio::test]
async fn bytes_after_the_handshake_are_not_lost() {
    let endpoint = echo().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(format!("{HANDSHAKE}eager\nbytes without end of line")).await;
    assert_eq!(client.response(false).await.status, 101);
    expect(&mut client, "hello eager\nbytes without end of line").await;
}

#[tokio::test]
async fn tunnel_streams_in_both_directions() {
    let endpoint = echo().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.response(false).await.status, 101);
    expect(&mut client, "hello ").await;
    let (mut reader, mut writer) = client.socket.into_split();
    let bytes: Vec<u8> = (0..=255).cycle().take(4 << 20).collect();
    let sent = bytes.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer
    });
    let mut received = vec![0; bytes.len()];
    with_timeout("the echo", reader.read_exact(&mut received)).await.unwrap();
    assert!(received == bytes);
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn endpoint_may_decline_an_upgrade() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send(HANDSHAKE).await;
        let answer = client.response(false).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    }
    assert_eq!(endpoint.log.connections(), 1);
}

#[tokio::test]
async fn switch_to_another_protocol_is_invalid() {
    for switched in ["upgrade: other\r\n", "", "upgrade: websocket\r\nupgrade: other\r\n"] {
        let endpoint = Endpoint::responding_with(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{switched}\r\n"
        ))
        .await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        assert_eq!(server.request(HANDSHAKE).await.status, 502, "{switched}");
    }
}

#[tokio::test]
async fn idle_tunnel_is_closed_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let endpoint = echo().await;
    let limits = ProxyLimits { tunnel_idle_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let log = portico::proxy::access_log::AccessLogDestination::File(path.clone());
    let server =
        TestServer::with_options(Options { limits, log, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(format!("{HANDSHAKE}12345")).await;
    assert_eq!(client.response(false).await.status, 101);
    assert_eq!(client.read_to_end().await.unwrap_or_default(), b"hello 12345");
    endpoint.log.wait_for("its end", |log| log.ended.load(SeqCst) == 1).await;
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    server.log.finish();
    let record = records(&path).remove(0);
    assert_eq!((&record["status"], &record["error"]), (&101.into(), &"tunnel_idle".into()));
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&5.into(), &11.into()));
}

#[tokio::test]
async fn draining_closes_tunnels_at_its_deadline() {
    let endpoint = echo().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.response(false).await.status, 101);
    expect(&mut client, "hello ").await;
    let metrics = scrape(&server);
    assert_eq!((metrics["portico_connections"], metrics["portico_tunnels"]), (1.0, 1.0));
    let draining = server.proxy.drain(Duration::from_millis(300));
    let talking = async {
        client.send("still here").await;
        expect(&mut client, "still here").await;
    };
    assert_eq!(tokio::join!(draining, talking).0, 1);
    client.read_to_end().await.unwrap_or_default();
    assert_eq!(scrape(&server)["portico_tunnels"], 0.0);
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"tunnel_closed\"}"], 1.0);
}

#[tokio::test]
async fn removed_listener_closes_its_tunnels() {
    let endpoint = echo().await;
    let limits = ProxyLimits { tunnel_grace_period: Duration::from_millis(100), ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.response(false).await.status, 101);
    expect(&mut client, "hello ").await;
    server.snapshot.store(std::sync::Arc::default());
    server.proxy.reconcile().await;
    client.read_to_end().await.unwrap_or_default();
    endpoint.log.wait_for("its end", |log| log.ended.load(SeqCst) == 1).await;
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
        assert_eq!(client.response(false).await.status, 101);
        if number == 1 {
            client.read_to_end().await.unwrap_or_default();
        } else {
            client.socket.set_zero_linger().unwrap();
        }
        drop(client);
        with_timeout("its end to be counted", async {
            while server.proxy.stats().connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"tunnel_broken\"}"], f64::from(number));
    }
}

fn connect(protocol: &'static str) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri("http://a.example/chat");
    request.extension(Protocol::from_static(protocol)).header("sec-websocket-version", "13").body(()).unwrap()
}

#[tokio::test]
async fn websocket_over_http2_reaches_an_http1_endpoint() {
    let endpoint = echo().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2::connect(server.address).await;
    // Extended CONNECT must be enabled by the SETTINGS, which precede the first response.
    assert_eq!(client.get("/").await.status, 502);
    assert!(client.send.is_extended_connect_protocol_enabled());
    let (answer, mut stream) = client.start(connect("websocket"), false).await;
    let answer = with_timeout("a response", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    for absent in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(absent), "{absent}");
    }
    assert_eq!(answer.headers()["x-endpoint"], "1");
    let mut body = answer.into_body();
    stream.send_data(Bytes::from_static(b"one "), false).unwrap();
    stream.send_data(Bytes::from_static(b"two "), true).unwrap();
    let (bytes, _) = read_body(&mut body).await.unwrap();
    assert_eq!(bytes, b"hello one two bye");
    let seen = endpoint.log.requests().pop().unwrap();
    assert!(seen.starts_with("GET /chat HTTP/1.1\r\n"), "{seen}");
    for field in ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "host: a.example"] {
        assert!(seen.contains(&format!("\r\n{field}\r\n")), "no {field} in {seen}");
    }
    assert_eq!(crate::harness::header(&seen, "sec-websocket-key").unwrap().len(), 24);
}

#[tokio::test]
async fn unsupported_extended_connects_are_rejected() {
    let plain = Endpoint::ok().await;
    let mut routes = routes_to(plain.address);
    let multiplexed = upstream_with_protocol(portico::upstream::UpstreamProtocol::Http2, "h2c", &[plain.address]);
    routes.push(crate::harness::Route { host: "h2c.example", ..route(forward(vec![(1, multiplexed)])) });
    let server = TestServer::with_routes(routes).await;
    let client = Http2::connect(server.address).await;
    assert_eq!(client.get("/").await.status, 200);
    // The endpoint has not switched protocols; a success would open a tunnel for the client.
    let ask = |request| async {
        let (answer, _stream) = client.start(request, false).await;
        read_response(answer).await.unwrap().status
    };
    assert_eq!(ask(connect("websocket")).await, 502);
    assert_eq!(ask(connect("connect-udp")).await, 501);
    let mut elsewhere = connect("websocket");
    *elsewhere.uri_mut() = "http://h2c.example/".parse().unwrap();
    assert_eq!(ask(elsewhere).await, 501);
}

#[tokio::test]
async fn http2_tunnel_ends_with_its_connection() {
    let endpoint = echo().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2::connect(server.address).await;
    client.get("/").await;
    let (answer, stream) = client.start(connect("websocket"), false).await;
    assert_eq!(with_timeout("a response", answer).await.unwrap().status(), 200);
    client.connection.abort();
    drop((client, stream));
    endpoint.log.wait_for("its end", |log| log.ended.load(SeqCst) == 2).await;
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
}
