//! Responses over HTTP/2 to requests whose body the client has not sent yet. Clients such as curl report a stream that
//! is reset before they have sent the body as an error, although they have the whole response.

use std::future::poll_fn;

use bytes::Bytes;
use h2::Reason;
use portico::limits::ProxyLimits;
use portico::snapshot::rule::{Action, RouteFailure};

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, RawConnection, frame, header_block};
use crate::h2::{Http2Client, post_request, read_response};
use crate::harness::{Endpoint, Route, TestServer, route, routes_to, with_timeout};

/// More than is discarded of a body after its response, with what the flow control allows the client to send.
const LIMIT: usize = 1024 * 1024;

/// Rejects requests for `/rejected`, and forwards others to an endpoint that responds before it has read the body.
async fn start() -> TestServer {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large").await;
        stream.read_to_end().await;
    })
    .await;
    let mut routes = routes_to(endpoint.address);
    routes.push(Route { path: "/rejected", ..route(Action::Fail(RouteFailure::NoService)) });
    TestServer::with_routes(routes).await
}

/// Sends a request, and its body after the response. Returns whether the stream was reset.
async fn is_reset(raw: &mut RawConnection, stream: u32, path: &str) -> bool {
    let head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a.example")];
    raw.send(frame(HEADERS, END_HEADERS, stream, &header_block(&head))).await;
    raw.wait_for("the response", |frame| frame.stream == stream && frame.flags & END_STREAM != 0).await;
    raw.send(frame(DATA, END_STREAM, stream, b"the body")).await;
    let next = [(":method", "GET"), (":scheme", "http"), (":path", "/rejected"), (":authority", "a.example")];
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, &header_block(&next))).await;
    loop {
        let frame = raw.next_frame().await.expect("the connection stays open");
        match frame.kind {
            RST_STREAM => return true,
            HEADERS | DATA if frame.stream == stream + 2 && frame.flags & END_STREAM != 0 => return false,
            _ => {}
        }
    }
}

#[tokio::test]
async fn body_may_follow_the_response() {
    let server = start().await;
    for path in ["/rejected", "/"] {
        let mut raw = RawConnection::connect(server.address).await;
        let mut resets = 0;
        // A test that is paused for seconds sends the body too late.
        for stream in [1, 5, 9, 13, 17] {
            if !is_reset(&mut raw, stream, path).await {
                break;
            }
            resets += 1;
        }
        assert!(resets < 5, "{path}: all streams were reset before the body");
    }
}

#[tokio::test]
async fn upload_that_goes_on_is_reset() {
    assert!(ProxyLimits::default().stream_window < LIMIT as u32 / 2);
    let server = start().await;
    for path in ["/rejected", "/"] {
        let client = Http2Client::connect(server.address).await;
        let (response, mut body) = client.start_with_body(post_request(path)).await;
        assert!(read_response(response).await.unwrap().status >= 400);
        let mut sent = 0;
        let reason = with_timeout("the reset", async {
            loop {
                body.reserve_capacity(16 * 1024);
                match poll_fn(|cx| body.poll_capacity(cx)).await {
                    Some(Ok(capacity)) => {
                        sent += capacity;
                        drop(body.send_data(Bytes::from(vec![b'x'; capacity]), false));
                    }
                    _ => return poll_fn(|cx| body.poll_reset(cx)).await,
                }
            }
        })
        .await;
        assert_eq!(reason.unwrap(), Reason::NO_ERROR, "{path}");
        assert!(sent < LIMIT, "{path}: {sent} bytes");
    }
}
