//! Hostile HTTP/2 endpoints: frames without a request, and responses without an end. The connection or the stream ends,
//! and other requests are served.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, RawConnection, SETTINGS, WINDOW_UPDATE, frame,
};
use crate::h2::{Http2Client, get_request};
use crate::harness::{TestServer, h2c_routes_to, with_timeout};

/// `:status: 200`, an entry of the static table.
const STATUS_200: &[u8] = &[0x88];

/// More than any frame limit and the socket buffers take.
const MAX_WRITES: usize = 200_000;

/// An endpoint that responds to the first request of a connection, and then repeats these bytes until the connection
/// is closed. It reports how often it could write them.
async fn flooding_endpoint(bytes: Vec<u8>) -> (SocketAddr, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report, writes) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (bytes, report) = (bytes.clone(), report.clone());
            tokio::spawn(async move {
                let mut raw = RawConnection::accept(socket).await;
                raw.wait_for("a request", |frame| frame.kind == HEADERS).await;
                raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, STATUS_200)).await;
                let (mut reader, mut writer) = raw.socket.into_split();
                // It must read, because Portico stops reading when it cannot write.
                tokio::spawn(async move {
                    let mut sink = vec![0; 64 * 1024];
                    while let Ok(1..) = reader.read(&mut sink).await {}
                });
                let mut written = 0;
                while written < MAX_WRITES && writer.write_all(&bytes).await.is_ok() {
                    written += 1;
                }
                report.send(written).await.ok();
            });
        }
    });
    (address, writes)
}

#[tokio::test]
async fn frame_floods_of_an_idle_endpoint_close_its_connection() {
    let floods: [(&str, Vec<u8>); 4] = [
        ("ping", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("unknown", frame(0xee, 0, 0, &[])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ];
    for (what, bytes) in floods {
        let (address, mut writes) = flooding_endpoint(bytes).await;
        let server = TestServer::with_routes(h2c_routes_to(address)).await;
        let client = Http2Client::connect(server.address).await;
        assert_eq!(client.get("/").await.status, 200, "{what}");
        let written = with_timeout("the end of the flood", writes.recv()).await.unwrap();
        assert!(written < MAX_WRITES, "{what}: all {written} writes were accepted");
        assert_eq!(client.get("/").await.status, 200, "{what}: another connection serves the next request");
    }
}

#[tokio::test]
async fn informational_responses_without_end_fail_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut raw = RawConnection::accept(socket).await;
        let is_request = |frame: &crate::frames::Frame| frame.kind == HEADERS;
        let first = raw.wait_for("a request", is_request).await.stream;
        for _ in 0..20 {
            raw.send(frame(HEADERS, END_HEADERS, first, b"\x08\x03103")).await;
        }
        raw.send(frame(HEADERS, END_HEADERS, first, STATUS_200)).await;
        raw.send(frame(DATA, END_STREAM, first, b"x")).await;
        let second = raw.wait_for("a request", is_request).await.stream;
        for _ in 0..100 {
            raw.send(frame(HEADERS, END_HEADERS, second, b"\x08\x03103")).await;
        }
        let reset = raw.wait_for("a reset", |frame| frame.kind == RST_STREAM).await;
        assert_eq!(reset.stream, second);
        let third = raw.wait_for("a request", is_request).await.stream;
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, third, STATUS_200)).await;
        raw.read_to_end().await;
    });
    let server = TestServer::with_routes(h2c_routes_to(address)).await;
    let client = Http2Client::connect(server.address).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.request(get_request("/")).await.unwrap().status);
    }
    assert_eq!(statuses, [200, 502, 200]);
    assert!(!endpoint.is_finished());
}
