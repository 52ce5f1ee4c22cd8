//! Bodies of requests and responses: large, slow and truncated ones, back-pressure, and `Expect: 100-continue`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RawConnection, frame, header_block};
use crate::harness::{Endpoint, TestServer, routes_to, with_timeout};

/// Larger than all buffers between client and endpoint together.
const LARGE: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn large_bodies_stream_in_both_directions() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await.unwrap();
        // Echoes the body while it is still being received.
        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        let buffered = stream.take_buffered();
        stream.send(buffered).await;
        let (mut reader, mut writer) = stream.socket.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    let (mut reader, mut writer) = client.socket.into_split();
    let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let expected = block.clone();
    let write = tokio::spawn(async move {
        for _ in 0..LARGE / block.len() {
            writer.write_all(&block).await.unwrap();
        }
        writer
    });
    with_timeout("the echo", async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reader.read_u8().await.unwrap());
        }
        let mut block = vec![0; expected.len()];
        for _ in 0..LARGE / block.len() {
            reader.read_exact(&mut block).await.unwrap();
            assert!(block == expected);
        }
        drop(write.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn slow_client_applies_back_pressure_to_the_endpoint() {
    /// An entry of the endpoint's log after the request: a write has stalled.
    const STALLED: &str = "stalled";
    let sent = Arc::new(AtomicUsize::new(0));
    let endpoint_sent = Arc::clone(&sent);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let sent = Arc::clone(&endpoint_sent);
        async move {
            stream.request().await;
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
            let block = vec![b'x'; 64 * 1024];
            // Ends when a write stalls. Only a timeout shows it: back-pressure causes no event.
            loop {
                let write = stream.socket.write_all(&block);
                if tokio::time::timeout(std::time::Duration::from_millis(500), write).await.is_err() {
                    break;
                }
                sent.fetch_add(block.len(), Ordering::SeqCst);
            }
            stream.record(STALLED);
            stream.read_to_end().await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    endpoint.log.wait_for("the stall", |log| log.requests().iter().any(|entry| entry == STALLED)).await;
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < LARGE / 2, "{sent} bytes were buffered although the client does not read");
}

#[tokio::test]
async fn truncated_response_does_not_appear_complete() {
    // What the endpoint sends before it closes the connection.
    for response in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            let endpoint = Endpoint::scripted(move |mut stream, _| async move {
                stream.request().await;
                stream.send(response).await;
            })
            .await;
            let server = TestServer::with_routes(routes_to(endpoint.address)).await;
            let mut client = server.connect().await;
            client.send(format!("GET / HTTP/{version}\r\nhost: a\r\n\r\n")).await;
            match client.read_to_end().await {
                // Every client can tell a reset from the end of a response.
                Err(_) => {}
                Ok(bytes) => {
                    let text = String::from_utf8(bytes).unwrap();
                    assert!(!text.ends_with("0\r\n\r\n"), "{text:?}");
                    let has_framing =
                        text.contains("content-length: 10") || text.contains("transfer-encoding: chunked");
                    assert!(has_framing || text.is_empty(), "the end of the connection makes {text:?} appear complete");
                }
            }
        }
    }
}

#[tokio::test]
async fn truncated_request_does_not_appear_complete() {
    /// The endpoint's log entry for a connection that ended before the request did.
    const TRUNCATED: &str = "truncated";
    for body in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let endpoint = Endpoint::scripted(|mut stream, _| async move {
            // How much of the request arrives depends on the network, but it must not appear complete. A complete
            // request would be the log entry instead.
            if stream.request().await.is_none() {
                stream.record(TRUNCATED);
            }
        })
        .await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut client = server.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{body}")).await;
        client.socket.shutdown().await.unwrap();
        endpoint.log.wait_for("the end of the request", |log| !log.requests().is_empty()).await;
        assert_eq!(endpoint.log.requests(), [TRUNCATED]);
    }
}

#[tokio::test]
async fn continue_is_sent_only_if_the_body_is_read() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.response().await.status, 100);
    client.send("abc").await;
    assert_eq!(client.response().await.status, 200);
    assert!(!endpoint.log.requests()[0].contains("expect"));

    // No `100 Continue` when the body will not be read.
    let server = TestServer::with_routes(vec![]).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.response().await.status, 404);
}

#[tokio::test]
async fn continue_is_sent_over_http2_too() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let expect = header_block(&[&post[..], &[("expect", "100-continue")]].concat());
    let is_head = |frame: &Frame| frame.kind == HEADERS;
    let continue_block = b"\x08\x03100";

    let mut raw = RawConnection::connect(server.address).await;
    for stream in [1, 3] {
        raw.send(frame(HEADERS, END_HEADERS, stream, &expect)).await;
        let interim = raw.wait_for("100 Continue", is_head).await;
        let received = (interim.flags, interim.stream, &*interim.payload);
        assert_eq!(received, (END_HEADERS, stream, &continue_block[..]));
        raw.send(frame(DATA, END_STREAM, stream, b"abc")).await;
        let head = raw.wait_for("the response", is_head).await;
        assert_eq!((head.stream, head.payload[0]), (stream, 0x88), "200");
    }
    // Another request of the connection, which expects nothing.
    raw.send(frame(HEADERS, END_HEADERS, 5, &header_block(&post))).await;
    raw.send(frame(DATA, END_STREAM, 5, b"abc")).await;
    assert_eq!(raw.wait_for("the response", is_head).await.payload[0], 0x88);
    // The body arrives with the head.
    let with_body = [frame(HEADERS, END_HEADERS, 7, &expect), frame(DATA, END_STREAM, 7, b"abc")].concat();
    raw.send(with_body).await;
    endpoint.log.wait_for("the requests", |log| log.requests().len() == 4).await;
    for request in endpoint.log.requests() {
        assert!(request.ends_with("abc") && !request.contains("expect"), "{request}");
    }

    // No `100 Continue` when the body will not be read.
    let server = TestServer::with_routes(vec![]).await;
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(frame(HEADERS, END_HEADERS, 1, &expect)).await;
    let head = raw.wait_for("the response", is_head).await;
    assert_eq!(head.payload[0], 0x8d, "404");

    // Nor for a client that has reduced the table of its decoder, which the next header block must confirm.
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect_with_settings(server.address, &[0, 1, 0, 0, 0, 0]).await;
    raw.send(frame(HEADERS, END_HEADERS, 1, &expect)).await;
    endpoint.log.wait_for("the connection", |log| log.connections() > 0).await;
    raw.send(frame(DATA, END_STREAM, 1, b"abc")).await;
    let head = raw.wait_for("the response", is_head).await;
    assert_eq!(head.payload[..2], [0x20, 0x88], "an update of the size, and 200");
}

#[tokio::test]
async fn response_may_precede_the_end_of_the_request() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch").await;
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nsome").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (413, "much".to_owned()));
}

#[tokio::test]
async fn bytewise_messages_are_complete() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        for byte in "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".chars() {
            stream.send(byte.to_string()).await;
            tokio::task::yield_now().await;
        }
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for byte in "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".chars() {
        client.send(byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.text(), "ok");
    assert!(endpoint.log.requests()[0].ends_with("\r\n\r\nabc"));
}
