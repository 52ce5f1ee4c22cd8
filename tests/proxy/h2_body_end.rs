//! The end of an HTTP/2 body: only END_STREAM on the last frame completes it (RFC 9113, section 8.1).

use portico::upstream::UpstreamProtocol;

use crate::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawConnection, frame, header_block};
use crate::harness::{Endpoint, TestServer, forward, route, routes_to, upstream_with_protocol};

const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// Error code of RST_STREAM and GOAWAY.
const NO_ERROR: [u8; 4] = [0; 4];

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// The rest of this body never arrives.
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

/// GOAWAY: streams up to `last` are served.
fn goaway(last: u8) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])
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
        // Servers do this that respond without reading the rest of the request.
        ("END_STREAM and a reset", vec![head(), data(END_STREAM), reset()], true),
        ("trailers and a reset", vec![head(), data(0), trailers, reset()], true),
    ];
    for (what, frames, whole) in cases {
        // An interrupted upload takes the client a while, so not in every case.
        let requests = if whole || what == "a reset" { &[GET, UPLOAD][..] } else { &[GET] };
        for request in requests {
            let bytes = frames.concat();
            let endpoint = Endpoint::scripted(move |stream, _| {
                let bytes = bytes.clone();
                async move {
                    let mut raw = RawConnection::accept(stream.socket).await;
                    raw.wait_for("the request", |frame| frame.kind == HEADERS).await;
                    raw.send(bytes).await;
                    if !whole {
                        return;
                    }
                    while raw.next_frame().await.is_some() {}
                }
            })
            .await;
            let backend = upstream_with_protocol(UpstreamProtocol::Http2, "h2c", &[endpoint.address]);
            let server = TestServer::with_routes(vec![route(forward(vec![(1, backend)]))]).await;
            let mut client = server.connect().await;
            client.send(request).await;
            let answer = client.try_response(false).await;
            // An endpoint whose SETTINGS come too late has received no request; that results in 502 instead of a
            // truncated response.
            let cut = answer.as_ref().is_none_or(|answer| answer.status == 502);
            assert_eq!(cut, !whole, "{what}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn request_is_complete_only_with_end_stream() {
    let cases = [("a reset", reset(), false), ("a GOAWAY", goaway(0), false), ("END_STREAM", data(END_STREAM), true)];
    for (what, ending, whole) in cases {
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
        raw.send(ending).await;
        if !whole {
            drop(raw.socket);
        }
        endpoint.log.wait_for("its end", |log| log.requests().len() == 2).await;
        assert_eq!(endpoint.log.requests()[1] == "whole", whole, "{what}");
    }
}
