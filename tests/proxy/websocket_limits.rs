//! WebSockets whose messages have limits: what each side gets, over HTTP/1.1 and HTTP/2.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request};
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::accounting::scrape;
use crate::h2::{Http2Client, read_body};
use crate::harness::{Client, Endpoint, Route, TestServer, forward, route, upstream, with_timeout};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: a.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         sec-websocket-extensions: permessage-deflate\r\n\r\n";
/// A message of the endpoint.
const HELLO: &[u8] = b"\x81\x05hello";
/// A message with ten bytes, and the first six of another one. The mask is zero.
const SHORT: &[u8] = b"\x81\x8a\0\0\0\x000123456789\x01\x86\0\0\0\x00abcdef";
/// Five more bytes, and a close frame.
const TOO_LONG: &[u8] = b"\x80\x85\0\0\0\x00ghijk\x88\x80\0\0\0\0";
const CLOSED_TOO_LARGE: &[u8] = b"\x88\x13\x03\xf1Payload Too Large";
const CLOSED_INVALID: &[u8] = b"\x88\x10\x03\xeaProtocol Error";
const CLOSED_GOING_AWAY: &[u8] = b"\x88\x0c\x03\xe9Going Away";

/// An endpoint that sends a message, records the head and all bytes up to a close frame, and closes.
async fn endpoint(message: &'static [u8]) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.record(&head);
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        stream.send(message).await;
        let mut received = stream.take_buffered();
        while !received.windows(2).any(|bytes| matches!(bytes, b"\x88\x8c" | b"\x88\x90" | b"\x88\x93")) {
            let mut more = [0; 100];
            match stream.socket.read(&mut more).await {
                Ok(read @ 1..) => received.extend_from_slice(&more[..read]),
                Ok(0) | Err(_) => break,
            }
        }
        let text: String = received.iter().map(|byte| char::from(*byte)).collect();
        stream.record(&text);
    })
    .await
}

async fn server(endpoint: &Endpoint) -> TestServer {
    let limited = chain(&[(
        REGISTRY.find("websocket-size-limit").unwrap(),
        json!({"client_max_payload": 10, "upstream_max_payload": 20}),
    )]);
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    TestServer::with_routes(vec![Route { plugins: Some(limited), path: "/chat", ..route(action) }]).await
}

async fn expect_refused(server: &TestServer, endpoint: &Endpoint) {
    let recorded = endpoint.log.requests();
    let [head, received] = &recorded[..] else { panic!("{recorded:?}") };
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    let received: Vec<u8> = received.chars().map(|character| character as u8).collect();
    assert!(received.starts_with(SHORT), "{received:?}");
    // Masked: the status 1001 and its text.
    let close = &received[SHORT.len()..];
    let payload: Vec<u8> = close[6..].iter().zip(close[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    assert_eq!((&close[..2], &payload[..]), (&b"\x88\x8c"[..], &b"\x03\xe9Going Away"[..]));
    expect_reason(server, "client_message_too_large").await;
}

/// Waits for the end of the tunnel.
async fn expect_reason(server: &TestServer, reason: &str) {
    with_timeout("the end of the tunnel to be counted", async {
        while scrape(server)["portico_tunnels"] > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(scrape(server)[&*format!("portico_request_errors_total{{reason=\"{reason}\"}}")], 1.0);
}

/// The next bytes of the tunnel.
async fn received(client: &mut Client, length: usize) -> Vec<u8> {
    let mut bytes = client.take_buffered();
    while bytes.len() < length {
        let mut byte = [0];
        with_timeout("a message", client.socket.read_exact(&mut byte)).await.unwrap();
        bytes.extend(byte);
    }
    bytes
}

// docs/kong-compatibility.md, 5.20
#[tokio::test]
async fn message_that_is_too_long_closes_both_sides() {
    let endpoint = endpoint(HELLO).await;
    let server = server(&endpoint).await;
    let mut client = server.connect().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.response().await.status, 101);
    client.send(SHORT).await;
    assert_eq!(received(&mut client, HELLO.len()).await, HELLO);
    // In parts, of which the first one is the beginning of a header.
    let (first, rest) = TOO_LONG.split_at(1);
    client.send(first).await;
    client.send(rest).await;
    assert_eq!(client.read_to_end().await.unwrap(), CLOSED_TOO_LARGE);
    expect_refused(&server, &endpoint).await;
}

/// A client need not wait for the response to the handshake, though it must not assume that it succeeds.
#[tokio::test]
async fn messages_sent_with_the_handshake_are_limited() {
    let endpoint = endpoint(HELLO).await;
    let server = server(&endpoint).await;
    let mut client = server.connect().await;
    client.send([HANDSHAKE.as_bytes(), SHORT, TOO_LONG].concat()).await;
    assert_eq!(client.response().await.status, 101);
    let received = client.read_to_end().await.unwrap();
    // The refused message may have been read first.
    let expected = [CLOSED_TOO_LARGE.to_vec(), [HELLO, CLOSED_TOO_LARGE].concat()];
    assert!(expected.contains(&received), "{received:?}");
    expect_refused(&server, &endpoint).await;
}

// docs/kong-compatibility.md, 5.20
#[tokio::test]
async fn frames_that_are_refused_have_their_reason() {
    let long: &[u8] = b"\x81\x15123456789012345678901";
    let masked: &[u8] = b"\x81\x85\0\0\0\0hello";
    for (message, sent, closed, reason) in [
        (HELLO, HELLO, CLOSED_INVALID, "invalid_client_frame"),
        (masked, b"", CLOSED_GOING_AWAY, "invalid_endpoint_frame"),
        (long, b"", CLOSED_GOING_AWAY, "endpoint_message_too_large"),
    ] {
        let endpoint = endpoint(message).await;
        let server = server(&endpoint).await;
        let mut client = server.connect().await;
        client.send(HANDSHAKE).await;
        assert_eq!(client.response().await.status, 101);
        // What the endpoint may send arrives before the client sends what it must not.
        if !sent.is_empty() {
            assert_eq!(received(&mut client, sent.len()).await, sent);
            client.send(sent).await;
        }
        assert_eq!(received(&mut client, closed.len()).await, closed, "{reason}");
        drop(client);
        expect_reason(&server, reason).await;
    }
}

// docs/kong-compatibility.md, 5.20
#[tokio::test]
async fn message_over_http2_that_is_too_long_closes_both_sides() {
    let endpoint = endpoint(HELLO).await;
    let server = server(&endpoint).await;
    let client = Http2Client::connect(server.address).await;
    // The SETTINGS that enable extended CONNECT arrive before the first response.
    assert_eq!(client.get("/").await.status, 404);
    let request = Request::builder().method(Method::CONNECT).uri("http://a.example/chat");
    let request = request.extension(Protocol::from_static("websocket")).header("sec-websocket-version", "13");
    let (response, mut stream) = client.start_with_body(request.body(()).unwrap()).await;
    let response = with_timeout("a response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    for part in [SHORT, TOO_LONG] {
        stream.send_data(Bytes::from_static(part), false).unwrap();
    }
    let (bytes, _) = read_body(&mut response.into_body()).await.unwrap();
    // The refused message may have been read first.
    assert!(bytes == CLOSED_TOO_LARGE || bytes == [HELLO, CLOSED_TOO_LARGE].concat(), "{bytes:?}");
    expect_refused(&server, &endpoint).await;
}
