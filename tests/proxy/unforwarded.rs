//! The limit of the bytes of request bodies that clients of HTTP/2 have sent ahead of endpoints.

use std::time::Duration;

use portico::limits::ProxyLimits;
use tokio::sync::watch;

use crate::accounting::{scrape, wait_for_metrics};
use crate::frames::{ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, RST_STREAM};
use crate::frames::{RawConnection, frame, get_request, header_block, header_field};
use crate::h2_upstream::{Http2Endpoint, counting_endpoint};
use crate::harness::{LONGER_THAN_PAUSES, Options, TestServer, h2c_routes_to, with_timeout};

/// One connection waits beyond half of it, which is more than `RESERVED`.
const LIMIT: usize = 400_000;
/// More than the limit, with a body on each stream.
const STREAMS: [u32; 5] = [1, 3, 5, 7, 9];
const FRAME: [u8; 16_000] = [b'x'; 16_000];
/// Less than the window of a stream, which is 128 KiB. A body of which nothing is given back is noticed, because the
/// worker keeps at least 64 KiB in addition when it has given back the other bodies.
const FRAMES: usize = 8;
/// A request whose body the library hides, also if there is none.
const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "a.example:80")];
/// A worker keeps up to this many bytes for later frames.
const RESERVED: f64 = 128.0 * 1024.0;

/// A server whose endpoint responds with the number of bytes of the request. Of requests with the path `/held`, it
/// reads nothing before it is released.
async fn server(limits: ProxyLimits) -> (TestServer, Http2Endpoint, watch::Sender<bool>) {
    let (release, released) = watch::channel(false);
    let mut builder = ::h2::server::Builder::new();
    builder.initial_window_size(1024);
    let endpoint = counting_endpoint(builder, released, |path| path == "/held").await;
    let limits = ProxyLimits { max_unforwarded_bytes: LIMIT, ..limits };
    let options = Options { limits, ..Options::default() };
    let server = TestServer::with_options(options, h2c_routes_to(endpoint.address)).await;
    (server, endpoint, release)
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    let head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a.example")];
    frame(HEADERS, END_HEADERS, stream, &header_block(&head))
}

/// Requests with all frames of their bodies except the last, and a PING after them.
fn large_requests() -> Vec<u8> {
    let request = |stream| [post(stream, "/held"), frame(DATA, 0, stream, &FRAME).repeat(FRAMES)].concat();
    [STREAMS.map(request).concat(), frame(PING, 0, 0, &[7; 8])].concat()
}

fn is_ping_acknowledgment(frame: &Frame) -> bool {
    frame.kind == PING && frame.flags == ACK && frame.payload == [7; 8]
}

pub(crate) async fn wait_for_pause(server: &TestServer) {
    wait_for_metrics(server, "the pause", |metrics| metrics["portico_unforwarded_bytes_pauses_total"] > 0.0).await;
}

/// Waits until all bytes are forwarded or dropped.
pub(crate) async fn wait_until_given_back(server: &TestServer) {
    wait_for_metrics(server, "all bytes to be given back", |metrics| metrics["portico_unforwarded_bytes"] <= RESERVED)
        .await;
}

async fn response_on(raw: &mut RawConnection, stream: u32) -> String {
    let data = raw.wait_for("a response", |frame| frame.kind == DATA && frame.stream == stream).await;
    String::from_utf8(data.payload).unwrap()
}

#[tokio::test]
async fn client_that_sends_more_than_the_limit_waits_for_the_endpoint() {
    let (server, _endpoint, release) = server(ProxyLimits::default()).await;
    let mut raw = RawConnection::connect(server.address).await;
    // Not all bytes may fit into the buffers of the sockets.
    tokio::join!(raw.send(large_requests()), async {
        wait_for_pause(&server).await;
        let metrics = scrape(&server);
        assert_eq!(metrics["portico_unforwarded_bytes_limit"], LIMIT as f64);
        let unforwarded = metrics["portico_unforwarded_bytes"];
        // The other half of the limit has room for the frames that were read last, and for what the worker keeps.
        assert!(unforwarded > RESERVED && unforwarded <= LIMIT as f64, "{unforwarded}");
        // Other connections have a share.
        let mut other = RawConnection::connect(server.address).await;
        other.send([post(1, "/"), frame(DATA, 0, 1, &FRAME), frame(DATA, END_STREAM, 1, &FRAME)].concat()).await;
        assert_eq!(response_on(&mut other, 1).await, (2 * FRAME.len()).to_string());
        release.send(true).unwrap();
    });
    raw.wait_for("the PING acknowledgment", is_ping_acknowledgment).await;
    for stream in STREAMS {
        raw.send(frame(DATA, END_STREAM, stream, &[])).await;
        assert_eq!(response_on(&mut raw, stream).await, (FRAMES * FRAME.len()).to_string());
    }
    wait_until_given_back(&server).await;
}

#[tokio::test]
async fn timeout_of_a_request_ends_the_wait() {
    let (server, _endpoint, _release) =
        server(ProxyLimits { response_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() }).await;
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(large_requests()).await;
    raw.wait_for("the PING acknowledgment", is_ping_acknowledgment).await;
    assert!(scrape(&server)["portico_unforwarded_bytes_pauses_total"] > 0.0);
    let timeouts = "portico_request_errors_total{reason=\"response_timeout\"}";
    wait_for_metrics(&server, "the timeouts", |metrics| metrics.get(timeouts) == Some(&(STREAMS.len() as f64))).await;
    wait_until_given_back(&server).await;
}

#[tokio::test]
async fn connection_that_waits_for_too_long_closes() {
    let limits = ProxyLimits {
        ping_interval: Duration::from_millis(300),
        ping_timeout: LONGER_THAN_PAUSES,
        ..ProxyLimits::default()
    };
    let (server, _endpoint, _release) = server(limits).await;
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(large_requests()).await;
    // The client acknowledges each PING, but a connection that waits does not read the acknowledgment.
    with_timeout("the end of the connection", async {
        while let Some(received) = raw.next_frame().await {
            if received.kind == PING && received.flags == 0 {
                raw.send(frame(PING, ACK, 0, &received.payload)).await;
            }
        }
    })
    .await;
    assert!(scrape(&server)["portico_unforwarded_bytes_pauses_total"] > 0.0);
    wait_until_given_back(&server).await;
}

#[tokio::test]
async fn rejected_request_does_not_hold_up_those_after_it() {
    let (server, _endpoint, _release) = server(ProxyLimits::default()).await;
    let mut raw = RawConnection::connect(server.address).await;
    // A response field instead of those of a request. The client could send a body after this head.
    let rejected = frame(HEADERS, END_HEADERS, 1, &header_field(":status", "200"));
    let body = [frame(DATA, 0, 3, b"abc"), frame(DATA, END_STREAM, 3, b"de")].concat();
    let next = [post(5, "/"), frame(DATA, END_STREAM, 5, b"f")].concat();
    raw.send([rejected, post(3, "/"), body, next].concat()).await;
    raw.wait_for("the reset", |frame| frame.kind == RST_STREAM && frame.stream == 1).await;
    assert_eq!(response_on(&mut raw, 3).await, "5");
    assert_eq!(response_on(&mut raw, 5).await, "1");
}

#[tokio::test]
async fn bodies_count_for_their_requests_if_several_arrive_at_once() {
    let (server, _endpoint, release) = server(ProxyLimits::default()).await;
    let mut raw = RawConnection::connect(server.address).await;
    // The end of this head is a frame of its own, and has no fields.
    let mut split_head = post(7, "/held");
    split_head[4] &= !END_HEADERS;
    split_head.extend(frame(CONTINUATION, END_HEADERS, 7, &[]));
    let connect = frame(HEADERS, END_HEADERS | END_STREAM, 11, &header_block(&CONNECT));
    let heads = [get_request(1), post(3, "/held"), get_request(5), split_head, connect, post(13, "/held")].concat();
    // The endpoint reads only a window of each.
    let bodies = [3, 7, 13].map(|stream| frame(DATA, 0, stream, &FRAME)).concat().repeat(FRAMES);
    tokio::join!(raw.send([heads, bodies].concat()), async {
        wait_for_metrics(&server, "the bodies", |metrics| metrics["portico_unforwarded_bytes"] > RESERVED).await;
        release.send(true).unwrap();
    });
    for stream in [13, 7, 3] {
        raw.send(frame(DATA, END_STREAM, stream, b"ab")).await;
        assert_eq!(response_on(&mut raw, stream).await, (FRAMES * FRAME.len() + 2).to_string());
    }
    wait_until_given_back(&server).await;
}
