//! The end of an HTTP/2 body: only END_STREAM on the last frame completes it (RFC 9113, section 8.1).

use crate::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawConnection, frame, header_block};
use crate::harness::{Endpoint, TestServer, h2c_routes_to, routes_to};

const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// Error code of the RST_STREAM frames.
const NO_ERROR: [u8; 4] = [0; 4];

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// An upload of which the client sends only a part.
const UPLOAD: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nsome";

fn head() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &header_block(&[(":status", "200")]))
}

fn data(flags: u8) -> Vec<u8> {
    frame(DATA, flags, 1, b"half")
}

fn reset() -> Vec<u8> {
    frame(RST_STREAM, 0, 1, &NO_ERROR)
}

/// A GOAWAY frame without an error: the sender processes the streams up to `last_stream`.
fn goaway(last_stream: u8) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0, 0, 0, last_stream, 0, 0, 0, 0])
}

#[tokio::test]
async fn response_is_complete_only_with_end_stream() {
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_block(&[("x-sum", "4")]));
    let cases = [
        ("a reset", vec![head(), data(0), reset()], false),
        ("a reset before any data", vec![head(), reset()], false),
        ("a GOAWAY and the end of the connection", vec![head(), data(0), goaway(1)], false),
        ("the end of the connection", vec![head(), data(0)], false),
        ("END_STREAM", vec![head(), data(END_STREAM)], true),
        // Servers send this if they respond without reading the whole request.
        ("END_STREAM and a reset", vec![head(), data(END_STREAM), reset()], true),
        ("trailers and a reset", vec![head(), data(0), trailers, reset()], true),
    ];
    for (what, frames, is_complete) in cases {
        // Cases with an unfinished upload take longer, so only some have one.
        let requests = if is_complete || what == "a reset" { &[GET, UPLOAD][..] } else { &[GET] };
        for request in requests {
            let bytes = frames.concat();
            let endpoint = Endpoint::scripted(move |stream, _| {
                let bytes = bytes.clone();
                async move {
                    let mut raw = RawConnection::accept(stream.socket).await;
                    raw.wait_for("the request", |frame| frame.kind == HEADERS).await;
                    raw.send(bytes).await;
                    if !is_complete {
                        return;
                    }
                    while raw.next_frame().await.is_some() {}
                }
            })
            .await;
            let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
            let mut client = server.connect().await;
            client.send(request).await;
            let response = client.try_response().await;
            // The proxy opens no stream before it has the endpoint's SETTINGS. If they come too late, the response is
            // 502 instead of a truncated one.
            let is_truncated_or_502 = response.as_ref().is_none_or(|response| response.status == 502);
            assert_eq!(is_truncated_or_502, !is_complete, "{what}: {response:?}");
        }
    }
}

#[tokio::test]
async fn request_is_complete_only_with_end_stream() {
    let cases = [("a reset", reset(), false), ("a GOAWAY", goaway(0), false), ("END_STREAM", data(END_STREAM), true)];
    for (what, last_frame, is_complete) in cases {
        let endpoint = Endpoint::scripted(|mut stream, _| async move {
            let head = stream.head().await.unwrap();
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let mut body = Vec::new();
            while let Some(more) = stream.read_some().await {
                body.extend(more);
                if body == b"4\r\nhalf\r\n" {
                    stream.record("half");
                }
                if body.ends_with(b"0\r\n\r\n") {
                    return stream.record("whole");
                }
            }
            stream.record("cut");
        })
        .await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut raw = RawConnection::connect(server.address).await;
        raw.send([frame(HEADERS, END_HEADERS, 1, &header_block(&POST)), data(0)].concat()).await;
        endpoint.log.wait_for("half of the body", |log| log.requests().len() == 1).await;
        raw.send(last_frame).await;
        if !is_complete {
            drop(raw.socket);
        }
        endpoint.log.wait_for("the end of the body", |log| log.requests().len() == 2).await;
        assert_eq!(endpoint.log.requests()[1] == "whole", is_complete, "{what}");
    }
}
