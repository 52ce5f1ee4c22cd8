//! Responses that begin or end before their request does: to a request that is rejected without its body, and from an
//! endpoint that responds while it still reads.

use std::sync::Arc;

use portico::snapshot::rule::{Action, RouteFailure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::harness::{Endpoint, Route, TestServer, forward, h2c_upstream, route, routes_to, with_timeout};

/// More than all socket buffers on the way hold.
const LARGE: usize = 32 * 1024 * 1024;

#[tokio::test]
async fn nothing_after_an_invalid_body_is_a_request() {
    let endpoint = Endpoint::ok().await;
    let mut routes = routes_to(endpoint.address);
    routes.push(Route { path: "/broken", ..route(Action::Fail(RouteFailure::NoService)) });
    let server = TestServer::with_routes(routes).await;
    let bodies =
        ["5\r\nhello\r\n", "5\r\nhelloX", "5\r\nhello\r\n0\r\nx y: z\r\n\r\n", "5\r\nhello\r\n0\r\nx: z\n\r\n"];
    for body in bodies {
        let mut client = server.connect().await;
        let head = "POST /broken HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{head}{body}GET /smuggled HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        let sent = String::from_utf8(client.read_to_end().await.unwrap()).unwrap();
        assert_eq!(sent.matches("HTTP/1.1 ").count(), 1, "{body:?}: {sent}");
    }
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn connection_is_not_used_again_after_an_invalid_response() {
    for rest in ["0\r\nx y: z\r\n\r\n", "x\r\n"] {
        let response = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n{rest}");
        let endpoint = Endpoint::responding_with(response).await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        for requests in 1..=3 {
            let mut client = server.connect().await;
            client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
            assert!(client.try_response().await.is_none(), "{rest:?}: the response is not complete");
            assert_eq!(endpoint.log.connections(), requests, "{rest:?}");
        }
    }
}

#[tokio::test]
async fn upload_goes_on_after_a_whole_response() {
    let response_arrived = Arc::new(Notify::new());
    let may_read = Arc::clone(&response_arrived);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let may_read = Arc::clone(&may_read);
        async move {
            stream.head().await;
            let received = stream.take_buffered().len();
            stream.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            may_read.notified().await;
            let mut rest = vec![0; LARGE - received];
            let is_whole = stream.socket.read_exact(&mut rest).await.is_ok();
            stream.record(if is_whole { "whole" } else { "cut" });
            stream.read_to_end().await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    client.send(vec![b'x'; 1000]).await;
    assert_eq!(client.response().await.status, 202);
    response_arrived.notify_one();
    client.send(vec![b'x'; LARGE - 1000]).await;
    endpoint.log.wait_for("the upload", |log| !log.requests().is_empty()).await;
    assert_eq!(endpoint.log.requests(), ["whole"]);
}

#[tokio::test]
async fn client_may_send_its_whole_request_before_it_reads() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        let mut left = LARGE - stream.take_buffered().len();
        let (mut reader, mut writer) = stream.socket.split();
        let respond = async {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
            writer.write_all(head.as_bytes()).await.ok();
            writer.write_all(&vec![b'r'; LARGE]).await.ok();
        };
        let read = async {
            let mut buffer = vec![0; 64 * 1024];
            while left > 0
                && let Ok(read @ 1..) = reader.read(&mut buffer).await
            {
                left -= read;
            }
        };
        tokio::join!(respond, read);
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {LARGE}\r\n\r\n");
    with_timeout("the upload", async {
        client.send(head).await;
        client.send(vec![b'x'; LARGE]).await;
    })
    .await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.len()), (200, LARGE));
}

/// Responds to the beginning of an upload and closes the connection, which resets it because of what is not read.
async fn rejecting_http1_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large").await;
    })
    .await
}

/// The same over HTTP/2: reads up to the head of the first request, sends a whole response, and closes.
async fn rejecting_http2_endpoint() -> Endpoint {
    const PREFACE: usize = 24;
    const FRAME_HEADER: usize = 9;
    Endpoint::scripted(|mut stream, _| async move {
        // SETTINGS.
        stream.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        let mut received = Vec::new();
        let mut next = PREFACE;
        let stream_id = loop {
            while received.len() < next + FRAME_HEADER {
                let Some(bytes) = stream.read_some().await else { return };
                received.extend_from_slice(&bytes);
            }
            let header = &received[next..next + FRAME_HEADER];
            if header[3] == 1 {
                break [header[5], header[6], header[7], header[8]];
            }
            next += FRAME_HEADER + usize::from(header[1]) * 256 + usize::from(header[2]);
        };
        let [a, b, c, d] = stream_id;
        // HEADERS with END_HEADERS, the status and the length as literals, and DATA with END_STREAM.
        let mut response = vec![0, 0, 9, 1, 4, a, b, c, d, 0x08, 3];
        response.extend_from_slice(b"413\x0f\x0d\x019");
        response.extend_from_slice(&[0, 0, 9, 0, 1, a, b, c, d]);
        response.extend_from_slice(b"too large");
        stream.send(response).await;
    })
    .await
}

#[tokio::test]
async fn early_response_of_an_endpoint_that_closes_reaches_the_client() {
    const UPLOAD: usize = 4 * 1024 * 1024;
    let (http1, http2) = (rejecting_http1_endpoint().await, rejecting_http2_endpoint().await);
    let to_http2 = || vec![route(forward(vec![(1, h2c_upstream(http2.address))]))];
    for (what, routes) in [("HTTP/1", routes_to(http1.address)), ("HTTP/2", to_http2())] {
        let server = TestServer::with_routes(routes).await;
        for attempt in 0..40 {
            let client = server.connect().await;
            let (reader, mut writer) = client.socket.into_split();
            let upload = tokio::spawn(async move {
                let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {UPLOAD}\r\n\r\n");
                drop(writer.write_all(head.as_bytes()).await);
                for _ in 0..UPLOAD / 65_536 {
                    if writer.write_all(&[b'x'; 65_536]).await.is_err() {
                        break;
                    }
                }
                writer
            });
            let mut reader = tokio::io::BufReader::new(reader);
            let mut received = Vec::new();
            with_timeout("the response", async {
                while !received.ends_with(b"too large")
                    && reader.read_buf(&mut received).await.is_ok_and(|read| read > 0)
                {}
            })
            .await;
            let text = String::from_utf8_lossy(&received);
            assert!(text.starts_with("HTTP/1.1 413 "), "{what}, attempt {attempt}: {text}");
            assert!(text.ends_with("too large"), "{what}, attempt {attempt}: {text}");
            // The client has what it needs. For some seconds, the rest of its upload would not be read.
            upload.abort();
        }
    }
}
