//! Which bytes of which streams count as sent ahead of endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::Response;
use portico::limits::ProxyLimits;

use crate::accounting::scrape;
use crate::frames::{ACK, DATA, END_HEADERS, HEADERS, PADDED, PING, PREFACE, SETTINGS, WINDOW_UPDATE};
use crate::frames::{RawConnection, frame, get_request, header_block, initial_window_size};
use crate::h2_upstream::{EndpointCall, Http2Endpoint, http2_endpoint};
use crate::harness::{Endpoint, Options, Route, TestServer, forward, h2c_upstream, route, routes_to, with_timeout};
use crate::unforwarded::wait_for_pause;

const FRAME: [u8; 16_000] = [b'x'; 16_000];

/// A server whose endpoint sends an endless response to `GET` requests, and reads nothing of other requests. The
/// counter has the bytes that the endpoint has sent. Requests with other hosts than `a.example` have no route.
pub(crate) async fn endless_server(limits: ProxyLimits) -> (TestServer, Http2Endpoint, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let mut builder = ::h2::server::Builder::new();
    builder.initial_window_size(1024);
    let endpoint = http2_endpoint(builder, move |call| {
        let counter = Arc::clone(&counter);
        async move {
            if call.request.method() == "GET" {
                send_without_end(call, &counter).await;
            } else {
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    let upstream = h2c_upstream(endpoint.address);
    let routes = vec![Route { host: "a.example", ..route(forward(vec![(1, upstream)])) }];
    (TestServer::with_options(Options { limits, ..Options::default() }, routes).await, endpoint, sent)
}

async fn send_without_end(call: EndpointCall, sent: &AtomicUsize) {
    let mut response = call.response;
    let mut stream = response.send_response(Response::new(()), false).unwrap();
    loop {
        stream.reserve_capacity(FRAME.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else { return };
        let data = Bytes::from_static(&FRAME[..capacity.min(FRAME.len())]);
        sent.fetch_add(data.len(), SeqCst);
        if stream.send_data(data, false).is_err() {
            return;
        }
    }
}

/// Waits until a whole round of the proxy's event loop has passed since this is called: it serves another connection.
async fn wait_for_event_loop(server: &TestServer) {
    for _ in 0..2 {
        assert_eq!(server.request("GET / HTTP/1.1\r\nhost: other.example\r\n\r\n").await.status, 404);
    }
}

/// Waits until the endpoint can send nothing more, because the client does not read.
pub(crate) async fn wait_until_blocked(server: &TestServer, sent: &AtomicUsize) {
    with_timeout("the response to block", async {
        let mut rounds = 0;
        while rounds < 10 {
            let before = sent.load(SeqCst);
            wait_for_event_loop(server).await;
            rounds = if before > 0 && sent.load(SeqCst) == before { rounds + 1 } else { 0 };
        }
    })
    .await;
}

/// The beginning of a connection with the largest windows.
pub(crate) fn largest_windows() -> Vec<u8> {
    let largest_window = i32::MAX as u32;
    let settings = frame(SETTINGS, 0, 0, &initial_window_size(largest_window));
    let window = frame(WINDOW_UPDATE, 0, 0, &(largest_window - 65_535).to_be_bytes());
    [PREFACE, &settings, &window, &frame(SETTINGS, ACK, 0, &[])].concat()
}

#[tokio::test]
async fn body_counts_if_its_head_arrived_while_the_client_did_not_read() {
    /// The response holds less than 100,000 bytes, so it does not wait. The bodies hold more than half of the rest: all
    /// but a frame each, which the endpoint's window lets pass.
    const LIMIT: usize = 240_000;
    const STREAMS: [u32; 3] = [3, 5, 7];
    let limits = ProxyLimits { max_unforwarded_bytes: LIMIT, ..ProxyLimits::default() };
    let (server, _endpoint, sent) = endless_server(limits).await;
    let mut raw = RawConnection::connect_without_preface(server.address).await;
    raw.send([largest_windows(), get_request(1)].concat()).await;
    wait_until_blocked(&server, &sent).await;
    assert_eq!(scrape(&server)["portico_unforwarded_bytes_pauses_total"], 0.0);
    // The library cannot acknowledge the PING, so it does not decode the heads behind it yet.
    let head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    let heads = STREAMS.map(|stream| frame(HEADERS, END_HEADERS, stream, &header_block(&head)));
    raw.send([frame(PING, 0, 0, &[7; 8]), heads.concat()].concat()).await;
    wait_for_event_loop(&server).await;
    raw.wait_for("the PING acknowledgment", |frame| frame.kind == PING && frame.flags == ACK).await;
    // All that the window of a stream permits.
    raw.send(STREAMS.map(|stream| frame(DATA, 0, stream, &FRAME).repeat(8)).concat()).await;
    wait_for_pause(&server).await;
}

#[tokio::test]
async fn neither_padding_of_tunnels_nor_forwarded_frames_count() {
    /// Each frame counts 256 bytes until the data of a round is forwarded: a round less than half of the limit, and two
    /// rounds more than that.
    const FRAMES: usize = 100;
    const ROUNDS: usize = 3;
    const LIMIT: usize = 60_000;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await.unwrap();
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        for _ in 0..ROUNDS {
            let mut received = 0;
            while received < FRAMES {
                received += stream.read_some().await.unwrap().len();
            }
            stream.send("all").await;
        }
        stream.read_some().await;
    })
    .await;
    let limits = ProxyLimits { max_unforwarded_bytes: LIMIT, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    let head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a.example"),
        ("sec-websocket-version", "13"),
    ];
    raw.send(frame(HEADERS, END_HEADERS, 1, &header_block(&head))).await;
    raw.wait_for("the tunnel", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    // A pad length, a byte, and the padding.
    let payload = [&[255, b'x'][..], &[0; 255]].concat();
    for _ in 0..ROUNDS {
        raw.send(frame(DATA, PADDED, 1, &payload).repeat(FRAMES)).await;
        let data = raw.wait_for("a response", |frame| frame.kind == DATA && frame.stream == 1).await;
        assert_eq!(data.payload, b"all");
    }
    assert_eq!(scrape(&server)["portico_unforwarded_bytes_pauses_total"], 0.0);
}
