//! Many small messages over HTTP/2, as in gRPC streams, while the receiver does not read: streams must not be reset.

use tokio::sync::watch;

use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RawConnection, WINDOW_UPDATE, frame, get_request, header_block,
    initial_window_size,
};
use crate::h2_upstream::counting_endpoint;
use crate::harness::{Endpoint, TestServer, h2c_routes_to};

/// A gRPC message: the prefix of five bytes and eleven bytes of payload.
const MESSAGE: &[u8; 16] = b"0123456789abcdef";
/// The window of a stream is 128 KiB.
const MESSAGES_PER_WINDOW: usize = 8192;
const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// Enough messages to fill the window of a stream, each in its own frame.
fn messages(stream: u32) -> Vec<u8> {
    frame(DATA, 0, stream, MESSAGE).repeat(MESSAGES_PER_WINDOW)
}

/// Waits until the peer has read all frames sent before.
async fn wait_until_read(raw: &mut RawConnection) {
    raw.send(frame(PING, 0, 0, &[7; 8])).await;
    raw.wait_for("the PING acknowledgment", |frame| frame.kind == PING && frame.flags == ACK).await;
}

#[tokio::test]
async fn backend_may_pause_while_clients_send_small_messages() {
    const STREAMS: [u32; 4] = [1, 3, 5, 7];
    let (release, released) = watch::channel(false);
    let mut builder = ::h2::server::Builder::new();
    builder.initial_window_size(1024).data_frame_budget(usize::MAX);
    let endpoint = counting_endpoint(builder, released, |_| true).await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    for stream in STREAMS {
        raw.send(frame(HEADERS, END_HEADERS, stream, &header_block(&POST))).await;
        raw.send(messages(stream)).await;
        wait_until_read(&mut raw).await;
    }
    release.send(true).unwrap();
    for stream in STREAMS {
        raw.send(frame(DATA, END_STREAM, stream, &[])).await;
        let response = raw.wait_for("a response", |frame| frame.kind == DATA && frame.stream == stream).await;
        assert_eq!(String::from_utf8(response.payload).unwrap(), (MESSAGES_PER_WINDOW * MESSAGE.len()).to_string());
    }
}

#[tokio::test]
async fn unread_small_messages_do_not_affect_other_clients() {
    /// Clients that read no body.
    const IDLE_CLIENTS: u32 = 6;
    let endpoint = Endpoint::scripted(|stream, _| async move {
        let log = stream.log();
        let mut raw = RawConnection::accept(stream.socket).await;
        loop {
            let request = raw.wait_for("a request", |frame| frame.kind == HEADERS).await;
            raw.send(frame(HEADERS, END_HEADERS, request.stream, &header_block(&[(":status", "200")]))).await;
            // Stream IDs of clients are odd, so this is the request after those of the idle clients.
            if request.stream >= IDLE_CLIENTS * 2 {
                raw.send(frame(DATA, END_STREAM, request.stream, b"ok")).await;
            } else {
                raw.send(messages(request.stream)).await;
                wait_until_read(&mut raw).await;
            }
            log.record("read");
        }
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let mut idle = Vec::new();
    for number in 1..=IDLE_CLIENTS {
        let mut raw = RawConnection::connect_with_settings(server.address, &initial_window_size(0)).await;
        raw.send(get_request(1)).await;
        endpoint.log.wait_for("the proxy to read the messages", |log| log.requests().len() == number as usize).await;
        idle.push(raw);
    }
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "ok");
    for mut raw in idle {
        raw.send(frame(WINDOW_UPDATE, 0, 1, &16_u32.to_be_bytes())).await;
        let data = raw.wait_for("the first message", |frame| frame.kind == DATA).await;
        assert_eq!(data.payload, MESSAGE);
    }
    assert_eq!(endpoint.log.connections(), 1);
}
