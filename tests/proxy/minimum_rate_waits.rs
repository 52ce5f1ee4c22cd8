//! Which waits count toward the minimum data rates of clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use portico::limits::ProxyLimits;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::accounting::{scrape, wait_for_metrics};
use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, RawConnection, WINDOW_UPDATE};
use crate::frames::{frame, get_request, header_block};
use crate::h2::{Http2Client, post_request, read_body, read_response};
use crate::h2_upstream::http2_endpoint;
use crate::harness::{Endpoint, Options, Route, TestServer, h2c_routes_to, routes_to, with_timeout};

/// Clients that are fast enough need less, also on a slow machine.
const GRACE_PERIOD: Duration = Duration::from_millis(400);

async fn server(limits: ProxyLimits, routes: Vec<Route>) -> TestServer {
    let limits = ProxyLimits { min_rate_grace_period: GRACE_PERIOD, ..limits };
    TestServer::with_options(Options { limits, ..Options::default() }, routes).await
}

#[tokio::test]
async fn endpoint_that_pauses_after_a_small_frame_does_not_count() {
    /// Less than a frame that is forwarded at once, and more than the endpoint's window.
    const FRAME: [u8; 900] = [b'x'; 900];
    let (progress, mut received) = watch::channel(0);
    let mut builder = ::h2::server::Builder::new();
    builder.initial_window_size(500);
    let endpoint = http2_endpoint(builder, move |call| {
        let progress = progress.clone();
        async move {
            let mut body = call.request.into_body();
            while let Some(Ok(data)) = with_timeout("more of the body", body.data()).await {
                let is_first = *progress.borrow() == 0;
                progress.send_modify(|received| *received += data.len());
                if is_first {
                    sleep(12 * GRACE_PERIOD).await; // Longer than the client may take.
                }
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            let mut response = call.response;
            response.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    // With the frames, the client may take nine grace periods more than the first one: longer than a pause.
    let limits = ProxyLimits { client_min_rate: 250, ..ProxyLimits::default() };
    let server = server(limits, h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    // The endpoint's window applies when its SETTINGS have arrived.
    assert_eq!(client.get("/").await.status, 200);
    let (mut response, mut body) = client.start_with_body(post_request("/")).await;
    body.send_data(Bytes::from_static(&FRAME), false).unwrap();
    with_timeout("the endpoint's window to be full", received.wait_for(|received| *received > 0)).await.unwrap();
    // This frame waits for the endpoint.
    body.send_data(Bytes::from_static(b"x"), false).unwrap();
    let all_received = received.wait_for(|received| *received > FRAME.len());
    tokio::select! {
        _ = with_timeout("the endpoint to read further", all_received) => {}
        response = &mut response => panic!("{response:?}"),
    }
    sleep(2 * GRACE_PERIOD).await; // Portico notices a client that is too slow within a grace period.
    drop(body.send_data(Bytes::new(), true));
    assert_eq!(read_response(response).await.unwrap().status, 200);
}

#[tokio::test]
async fn client_is_too_slow_if_the_endpoint_reads_further_after_it_has_responded() {
    /// Less than a frame that is forwarded at once, and more than the endpoint's window.
    const FRAME: [u8; 900] = [b'x'; 900];
    let (release, released) = watch::channel(false);
    let mut builder = ::h2::server::Builder::new();
    builder.initial_window_size(500);
    let endpoint = http2_endpoint(builder, move |call| {
        let mut released = released.clone();
        async move {
            let is_upload = call.request.method() == "POST";
            let mut response = call.response;
            if !is_upload {
                response.send_response(Response::new(()), true).unwrap();
                return;
            }
            let mut body = call.request.into_body();
            let first = body.data().await.unwrap().unwrap();
            let mut stream = response.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"ha"), false).unwrap();
            released.wait_for(|released| *released).await.unwrap();
            body.flow_control().release_capacity(first.len()).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
        }
    })
    .await;
    let limits = ProxyLimits { client_min_rate: 10_000, ..ProxyLimits::default() };
    let server = server(limits, h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    // The endpoint's window applies when its SETTINGS have arrived.
    assert_eq!(client.get("/").await.status, 200);
    let (response, mut body) = client.start_with_body(post_request("/")).await;
    body.send_data(Bytes::from_static(&FRAME), false).unwrap();
    let mut response = with_timeout("the head", response).await.unwrap();
    let data = with_timeout("the data", response.body_mut().data()).await.unwrap().unwrap();
    assert_eq!(data, "ha");
    sleep(2 * GRACE_PERIOD).await; // The last timer of the body expires while it waits for the endpoint.
    release.send(true).unwrap();
    assert!(read_body(response.body_mut()).await.unwrap_err().is_reset());
    let name = "portico_request_errors_total{reason=\"slow_request_body\"}";
    wait_for_metrics(&server, "the error", |metrics| metrics.get(name) == Some(&1.0)).await;
}

#[tokio::test]
async fn client_that_leaves_after_sending_its_body_is_not_slow() {
    let forwarded = Arc::new(Notify::new());
    let notify = Arc::clone(&forwarded);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let notify = Arc::clone(&notify);
        async move {
            stream.head().await.unwrap();
            while !stream.read_some().await.unwrap().ends_with(b"0\r\n\r\n") {
                notify.notify_one();
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            stream.read_some().await;
        }
    })
    .await;
    // With the first bytes, the client may take three seconds more than the grace period: longer than a pause.
    let limits = ProxyLimits { client_min_rate: 1, ..ProxyLimits::default() };
    let server = server(limits, routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    with_timeout("the data", forwarded.notified()).await;
    client.send("0\r\n\r\n").await;
    let mut response = Vec::new();
    while !response.ends_with(b"half") {
        assert_ne!(with_timeout("the response", client.socket.read_buf(&mut response)).await.unwrap(), 0);
    }
    sleep(10 * GRACE_PERIOD).await; // Longer than the client may take.
    drop(client);
    let error = |reason: &str| format!("portico_request_errors_total{{reason=\"{reason}\"}}");
    wait_for_metrics(&server, "the end of the request", |metrics| {
        metrics.keys().any(|name| name.starts_with("portico_request_errors_total"))
    })
    .await;
    assert_eq!(scrape(&server).get(&error("client_disconnected")), Some(&1.0));
}

#[tokio::test]
async fn pause_of_a_connection_does_not_count() {
    /// The client's window.
    const WINDOW: usize = 65_535;
    /// More than the window and what Portico buffers.
    const RESPONSE: usize = 400_000;
    let (release, released) = watch::channel(false);
    let mut builder = ::h2::server::Builder::new();
    builder.initial_window_size(1024);
    let endpoint = http2_endpoint(builder, move |call| {
        let mut released = released.clone();
        async move {
            let is_upload = call.request.method() == "POST";
            let mut response = call.response;
            if is_upload {
                released.wait_for(|released| *released).await.unwrap();
            }
            let mut body = call.request.into_body();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            let mut stream = response.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from(vec![b'x'; RESPONSE]), true).unwrap();
        }
    })
    .await;
    // With what it has read, the client may take four grace periods more than the first one: longer than a pause. With
    // what is buffered, it may take less than 17 more.
    let limits = ProxyLimits { response_min_rate: 36_000, max_unforwarded_bytes: 40_000, ..ProxyLimits::default() };
    let server = server(limits, h2c_routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(get_request(1)).await;
    let mut received = 0;
    while received < WINDOW {
        received += raw.wait_for("the response", |frame| frame.kind == DATA).await.payload.len();
    }
    // The response has waited, too. Now it waits for the client's window, and so does not wait again.
    let pauses = "portico_unforwarded_bytes_pauses_total";
    let before = scrape(&server)[pauses];
    let head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    let upload = [frame(HEADERS, END_HEADERS, 3, &header_block(&head)), frame(DATA, 0, 3, &[b'x'; 16_000]).repeat(4)];
    raw.send(upload.concat()).await;
    wait_for_metrics(&server, "the pause", |metrics| metrics[pauses] > before).await;
    let window = 1_000_000_u32.to_be_bytes();
    raw.send([frame(WINDOW_UPDATE, 0, 0, &window), frame(WINDOW_UPDATE, 0, 1, &window)].concat()).await;
    sleep(20 * GRACE_PERIOD).await; // Longer than the client may take.
    release.send(true).unwrap();
    let end = raw
        .wait_for("the end of the response", |frame| {
            frame.stream == 1 && (frame.kind == RST_STREAM || frame.flags & END_STREAM != 0)
        })
        .await;
    assert_eq!(end.kind, DATA, "{end:?}");
}
