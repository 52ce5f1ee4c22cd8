//! Where a body of HTTP/2 ends: with the flag of its last frame, and with nothing else (RFC 9113, section 8.1).

use portico::upstream::Protocol;

use crate::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, block, frame};
use crate::harness::{Endpoint, Gate, forward, route, to, upstream_of};

const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// Of RST_STREAM and GOAWAY.
const NO_ERROR: [u8; 4] = [0; 4];

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// Of which the rest never comes.
const UPLOAD: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nsome";

fn head() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "200")]))
}

fn data(flags: u8) -> Vec<u8> {
    frame(DATA, flags, 1, b"half")
}

fn reset() -> Vec<u8> {
    frame(RST_STREAM, 0, 1, &NO_ERROR)
}

/// Everything up to the first stream is served.
fn goodbye(last: u8) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])
}

#[tokio::test]
async fn an_answer_is_whole_when_its_last_frame_says_so() {
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-sum", "4")]));
    let cases = [
        ("a reset", vec![head(), data(0), reset()], false),
        ("a reset before any of it", vec![head(), reset()], false),
        ("a goodbye and the end", vec![head(), data(0), goodbye(1)], false),
        ("the end", vec![head(), data(0)], false),
        ("the flag", vec![head(), data(END_STREAM)], true),
        // As servers do that have answered and do not want the rest of the request.
        ("the flag and a reset", vec![head(), data(END_STREAM), reset()], true),
        ("trailers and a reset", vec![head(), data(0), trailers, reset()], true),
    ];
    for (what, frames, whole) in cases {
        // A broken upload costs the client a while, so not in every case.
        let requests = if whole || what == "a reset" { &[GET, UPLOAD][..] } else { &[GET] };
        for request in requests {
            let bytes = frames.concat();
            let endpoint = Endpoint::scripted(move |stream, _| {
                let bytes = bytes.clone();
                async move {
                    let mut raw = Raw::accepted(stream.socket).await;
                    raw.until("the request", |frame| frame.kind == HEADERS).await;
                    raw.send(bytes).await;
                    if !whole {
                        return;
                    }
                    while raw.next().await.is_some() {}
                }
            })
            .await;
            let backend = upstream_of(Protocol::Http2, "h2c", &[endpoint.address]);
            let gate = Gate::open(vec![route(forward(vec![(1, backend)]))]).await;
            let mut client = gate.client().await;
            client.send(request).await;
            let answer = client.try_answer(false).await;
            // Without its settings in time the endpoint has taken nothing, and nothing is broken off.
            let cut = answer.as_ref().is_none_or(|answer| answer.status == 502);
            assert_eq!(cut, !whole, "{what}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_request_is_whole_when_its_last_frame_says_so() {
    let cases = [("a reset", reset(), false), ("a goodbye", goodbye(0), false), ("the flag", data(END_STREAM), true)];
    for (what, ending, whole) in cases {
        let endpoint = Endpoint::scripted(|mut stream, _| async move {
            let head = stream.head().await.unwrap();
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let mut body = Vec::new();
            while let Some(more) = stream.more().await {
                body.extend(more);
                if body == b"4\r\nhalf\r\n" {
                    stream.note("half");
                }
                if body.ends_with(b"0\r\n\r\n") {
                    return stream.note("whole");
                }
            }
            stream.note("cut");
        })
        .await;
        let gate = Gate::open(to(endpoint.address)).await;
        let mut raw = Raw::connect(gate.address).await;
        raw.send([frame(HEADERS, END_HEADERS, 1, &block(&POST)), data(0)].concat()).await;
        endpoint.log.until("half of it", |log| log.requests().len() == 1).await;
        raw.send(ending).await;
        if !whole {
            drop(raw.socket);
        }
        endpoint.log.until("its end", |log| log.requests().len() == 2).await;
        assert_eq!(endpoint.log.requests()[1] == "whole", whole, "{what}");
    }
}
