//! Minimum data rates of clients. The grace period is short here, and the timeouts that restart with each byte are not.

use std::time::Duration;

use bytes::Bytes;
use portico::limits::ProxyLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::accounting::wait_for_metrics;
use crate::h2::{Http2Client, get_request, post_request, read_body, read_response, send_some};
use crate::harness::{Endpoint, Options, TestServer, routes_to, with_timeout};

const GRACE_PERIOD: Duration = Duration::from_millis(300);
/// A megabyte per second: the slow clients of these tests do not reach it.
const LIMITS: ProxyLimits = ProxyLimits {
    client_min_rate: 1_000_000,
    response_min_rate: 1_000_000,
    min_rate_grace_period: GRACE_PERIOD,
    ..ProxyLimits::DEFAULT
};
/// Bytes of a request's body for which its client may take three seconds in addition to the grace period, so that the
/// response begins before the client is too slow.
const BEGINNING: usize = 3_000_000;

async fn server(endpoint: &Endpoint) -> TestServer {
    TestServer::with_options(Options { limits: LIMITS, ..Options::default() }, routes_to(endpoint.address)).await
}

/// Sends more than all buffers hold.
async fn large_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while stream.request().await.is_some() {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n").await;
            stream.send(vec![b'x'; 50_000_000]).await;
        }
    })
    .await
}

/// Responds with half of a body to the beginning of a request's.
async fn early_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        let mut received = 0;
        while received < BEGINNING
            && let Some(bytes) = stream.read_some().await
        {
            received += bytes.len();
        }
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
        stream.read_to_end().await;
    })
    .await
}

async fn wait_for_error(server: &TestServer, reason: &str) {
    let name = format!("portico_request_errors_total{{reason=\"{reason}\"}}");
    wait_for_metrics(server, reason, |metrics| metrics.get(&name) == Some(&1.0)).await;
}

#[tokio::test]
async fn client_that_sends_its_body_too_slowly_gets_408() {
    let endpoint = Endpoint::ok().await;
    let server = server(&endpoint).await;
    let (mut reader, mut writer) = server.connect().await.socket.into_split();
    let upload = tokio::spawn(async move {
        let mut next: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nx";
        while writer.write_all(next).await.is_ok() {
            sleep(GRACE_PERIOD / 20).await; // Slower than the minimum rate.
            next = b"x";
        }
    });
    let mut response = [0; 12];
    with_timeout("a response", reader.read_exact(&mut response)).await.unwrap();
    assert_eq!(response, *b"HTTP/1.1 408");
    wait_for_error(&server, "slow_request_body").await;
    upload.abort();
}

#[tokio::test]
async fn stream_whose_body_is_too_slow_gets_408() {
    let endpoint = Endpoint::ok().await;
    let server = server(&endpoint).await;
    let client = Http2Client::connect(server.address).await;
    let (response, _body) = client.start_with_body(post_request("/")).await;
    assert_eq!(read_response(response).await.unwrap().status, 408);
    wait_for_error(&server, "slow_request_body").await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn response_that_has_begun_is_aborted_if_the_request_body_is_too_slow() {
    let endpoint = early_endpoint().await;
    let server = server(&endpoint).await;
    let mut client = server.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", BEGINNING + 1)).await;
    client.send(vec![b'x'; BEGINNING]).await;
    let mut received = Vec::new();
    // Orderly or not.
    drop(with_timeout("the end of the connection", client.socket.read_to_end(&mut received)).await);
    let received = String::from_utf8(received).unwrap();
    assert!(received.starts_with("HTTP/1.1 200") && received.ends_with("\r\n\r\nha"), "{received}");
    wait_for_error(&server, "slow_request_body").await;
}

#[tokio::test]
async fn response_that_has_begun_on_a_stream_is_aborted_if_the_request_body_is_too_slow() {
    let endpoint = early_endpoint().await;
    let server = server(&endpoint).await;
    let client = Http2Client::connect(server.address).await;
    let (response, mut body) = client.start_with_body(post_request("/")).await;
    send_some(&mut body, Bytes::from(vec![b'x'; BEGINNING])).await.unwrap();
    let mut response = with_timeout("the head", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(read_body(response.body_mut()).await.unwrap_err().is_reset());
    wait_for_error(&server, "slow_request_body").await;
}

#[tokio::test]
async fn response_to_a_client_that_reads_too_slowly_is_aborted() {
    let endpoint = large_endpoint().await;
    let server = server(&endpoint).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wait_for_error(&server, "slow_client").await;
    assert_eq!(client.try_response().await, None, "the response is truncated");
}

#[tokio::test]
async fn response_on_a_stream_that_is_read_too_slowly_is_aborted() {
    let endpoint = large_endpoint().await;
    let server = server(&endpoint).await;
    let client = Http2Client::connect(server.address).await;
    let (response, _) = client.start(get_request("/")).await;
    wait_for_error(&server, "slow_client").await;
    assert!(read_response(response).await.unwrap_err().is_reset());
}

#[tokio::test]
async fn slow_endpoint_does_not_count() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
        sleep(GRACE_PERIOD * 2).await; // Longer than the grace period.
        stream.send("lf").await;
    })
    .await;
    let server = server(&endpoint).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "half");
    let client = Http2Client::connect(server.address).await;
    assert_eq!(client.get("/").await.body, b"half");
}
