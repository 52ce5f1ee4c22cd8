//! Many small messages on HTTP/2, as streams of gRPC are, while somebody does not read: nothing ends that nobody has ended.

use bytes::Bytes;
use http::Response;
use portico::upstream::Protocol;
use tokio::sync::watch;

use crate::frames::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, Raw, WINDOW_UPDATE, block, frame, get};
use crate::h2_upstream::endpoint;
use crate::harness::{Endpoint, Gate, Route, forward, route, upstream_of, within};

/// With the five bytes that gRPC puts before each, a message of eleven bytes.
const MESSAGE: &[u8; 16] = b"0123456789abcdef";
/// What the window of a stream takes at once: 128 KiB.
const MANY: usize = 8192;
const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// A stream's window full of messages, each in a frame of its own.
fn messages(stream: u32) -> Vec<u8> {
    frame(DATA, 0, stream, MESSAGE).repeat(MANY)
}

/// Comes back when the proxy has read all that was sent before.
async fn all_is_read(raw: &mut Raw) {
    raw.send(frame(PING, 0, 0, &[7; 8])).await;
    raw.until("an answer to the ping", |frame| frame.kind == PING && frame.flags == ACK).await;
}

fn to(address: std::net::SocketAddr) -> Vec<Route> {
    vec![route(forward(vec![(1, upstream_of(Protocol::Http2, "h2c", &[address]))]))]
}

#[tokio::test]
async fn backends_may_pause_while_clients_send_small_messages() {
    const STREAMS: [u32; 4] = [1, 3, 5, 7];
    let (go, wait) = watch::channel(false);
    let mut builder = ::h2::server::Builder::new();
    builder.initial_window_size(1024).data_frame_budget(usize::MAX);
    let endpoint = endpoint(builder, move |call| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            let (mut body, mut bytes) = (call.request.into_body(), 0);
            while let Some(Ok(data)) = within("more of the body", body.data()).await {
                body.flow_control().release_capacity(data.len()).unwrap();
                bytes += data.len();
            }
            let mut reply = call.reply;
            let mut stream = reply.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from(bytes.to_string()), true).unwrap();
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut raw = Raw::connect(gate.address).await;
    for stream in STREAMS {
        raw.send(frame(HEADERS, END_HEADERS, stream, &block(&POST))).await;
        raw.send(messages(stream)).await;
        all_is_read(&mut raw).await;
    }
    go.send(true).unwrap();
    for stream in STREAMS {
        raw.send(frame(DATA, END_STREAM, stream, &[])).await;
        let answer = raw.until("an answer", |frame| frame.kind == DATA && frame.stream == stream).await;
        assert_eq!(String::from_utf8(answer.payload).unwrap(), (MANY * MESSAGE.len()).to_string());
    }
}

#[tokio::test]
async fn clients_that_do_not_read_small_messages_take_nobody_along() {
    const IDLE: u32 = 6;
    let endpoint = Endpoint::scripted(|stream, _| async move {
        let log = stream.log();
        let mut raw = Raw::accepted(stream.socket).await;
        loop {
            let request = raw.until("a request", |frame| frame.kind == HEADERS).await;
            raw.send(frame(HEADERS, END_HEADERS, request.stream, &block(&[(":status", "200")]))).await;
            if request.stream >= IDLE * 2 {
                raw.send(frame(DATA, END_STREAM, request.stream, b"ok")).await;
            } else {
                raw.send(messages(request.stream)).await;
                all_is_read(&mut raw).await;
            }
            log.note("read");
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut idle = Vec::new();
    for number in 1..=IDLE {
        // SETTINGS_INITIAL_WINDOW_SIZE of 0: not a byte of an answer.
        let mut raw = Raw::with(gate.address, &[0, 4, 0, 0, 0, 0]).await;
        raw.send(get(1)).await;
        endpoint.log.until("its messages", |log| log.requests().len() == number as usize).await;
        idle.push(raw);
    }
    assert_eq!(gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "ok");
    for mut raw in idle {
        raw.send(frame(WINDOW_UPDATE, 0, 1, &16_u32.to_be_bytes())).await;
        let data = raw.until("the first message", |frame| frame.kind == DATA).await;
        assert_eq!(data.payload, MESSAGE);
    }
    assert_eq!(endpoint.log.connections(), 1);
}
