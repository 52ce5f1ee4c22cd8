//! Requests that an HTTP/2 endpoint reports as unprocessed: they are retried with their complete body, or not at all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::frames::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawConnection, SETTINGS, frame};
use crate::h2::{self, post_request};
use crate::harness::{TestServer, h2c_routes_to, with_timeout};

/// How the endpoint refuses the stream.
#[derive(Clone, Copy, Debug)]
enum StreamRefusal {
    /// RST_STREAM with this error code.
    Reset(u32),
    /// GOAWAY with this error code, and a last stream ID below that of the request.
    GoAway(u32),
}

use StreamRefusal::{GoAway, Reset};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

struct Case {
    refusal: StreamRefusal,
    /// How many attempts the endpoint refuses before it serves one.
    refusals: usize,
    /// Bytes of the body that the endpoint receives before it refuses.
    bytes_before: usize,
    /// Bytes of the body that the client sends after the refusal.
    bytes_after: usize,
    /// The status that the client gets.
    status: u16,
    /// Request heads that reach the endpoint.
    heads: usize,
}

const fn case(
    refusal: StreamRefusal,
    refusals: usize,
    bytes_before: usize,
    bytes_after: usize,
    status: u16,
    heads: usize,
) -> Case {
    Case { refusal, refusals, bytes_before, bytes_after, status, heads }
}

const CASES: &[Case] = &[
    case(Reset(REFUSED_STREAM), 1, 0, 5, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 5, 0, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 5, 5, 200, 2),
    // The size of the replay buffer, and one byte more.
    case(Reset(REFUSED_STREAM), 1, 65_536, 100_000, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 65_537, 0, 502, 1),
    // Any size is allowed if none of the body was sent.
    case(Reset(REFUSED_STREAM), 1, 0, 300_000, 200, 2),
    case(GoAway(NO_ERROR), 1, 0, 5, 200, 2),
    case(GoAway(NO_ERROR), 1, 5, 5, 200, 2),
    case(GoAway(ENHANCE_YOUR_CALM), 1, 5, 5, 200, 2),
    case(GoAway(NO_ERROR), 1, 70_000, 5, 502, 1),
    // The request may have been processed.
    case(Reset(INTERNAL_ERROR), 1, 5, 5, 502, 1),
    // The only endpoint refuses every time.
    case(Reset(REFUSED_STREAM), 9, 5, 0, 502, 2),
];

/// A header block with `:status: 200`.
const STATUS_200: [u8; 1] = [0x88];

/// What the endpoint has received and refused.
#[derive(Clone, Debug, Default)]
struct EndpointState {
    /// Heads of requests with a body.
    heads: usize,
    refused: usize,
    /// Bodies of the served requests, and whether trailers followed them.
    served: Vec<(Vec<u8>, bool)>,
}

/// An endpoint that refuses this number of requests once it has received this many bytes of their bodies, and serves
/// later ones. It always serves requests without a body.
async fn refusing_endpoint(
    refusal: StreamRefusal,
    refusals: usize,
    bytes_before: usize,
) -> (SocketAddr, watch::Sender<EndpointState>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = watch::Sender::new(EndpointState::default());
    let refusals_left = Arc::new(Mutex::new(refusals));
    let endpoint_state = state.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, refusal, Arc::clone(&refusals_left), bytes_before, endpoint_state.clone()));
        }
    });
    (address, state)
}

async fn serve(
    socket: tokio::net::TcpStream,
    refusal: StreamRefusal,
    refusals_left: Arc<Mutex<usize>>,
    bytes_before: usize,
    state: watch::Sender<EndpointState>,
) {
    let Some(mut raw) = RawConnection::accept_with_large_windows(socket).await else { return };
    let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
    while let Some(received) = raw.next_frame().await {
        if received.kind == SETTINGS && received.flags == 0 {
            raw.send(frame(SETTINGS, ACK, 0, &[])).await;
        }
        let is_trailer = received.kind == HEADERS && bodies.contains_key(&received.stream);
        match received.kind {
            HEADERS if !is_trailer => {
                if received.flags & END_STREAM != 0 {
                    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, received.stream, &STATUS_200)).await;
                    continue;
                }
                state.send_modify(|state| state.heads += 1);
                bodies.insert(received.stream, Vec::new());
            }
            HEADERS => {}
            DATA => match bodies.get_mut(&received.stream) {
                Some(body) => body.extend_from_slice(&received.payload),
                // The proxy sent this before the refusal arrived.
                None => continue,
            },
            _ => continue,
        }
        let body = &bodies[&received.stream];
        let refuses = *refusals_left.lock().unwrap() > 0;
        if refuses && body.len() >= bytes_before {
            *refusals_left.lock().unwrap() -= 1;
            bodies.remove(&received.stream);
            raw.send(match refusal {
                Reset(reason) => frame(RST_STREAM, 0, received.stream, &reason.to_be_bytes()),
                GoAway(reason) => {
                    let last_stream = received.stream.saturating_sub(2);
                    frame(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), reason.to_be_bytes()].concat())
                }
            })
            .await;
            state.send_modify(|state| state.refused += 1);
        } else if !refuses && received.flags & END_STREAM != 0 {
            let body = bodies.remove(&received.stream).unwrap();
            state.send_modify(|state| state.served.push((body, is_trailer)));
            raw.send(frame(HEADERS, END_HEADERS | END_STREAM, received.stream, &STATUS_200)).await;
        }
    }
}

/// An endpoint that never ends the first stream of its first connection before `release`, and announces the end of that
/// connection when a second stream begins. It serves all requests on other connections.
async fn departing_endpoint(release: &watch::Sender<bool>, received: &watch::Sender<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (release, received) = (release.clone(), received.clone());
    tokio::spawn(async move {
        let mut is_first = true;
        while let Ok((socket, _)) = listener.accept().await {
            let departs = std::mem::replace(&mut is_first, false);
            tokio::spawn(serve_departing(socket, departs, release.clone(), received.clone()));
        }
    });
    address
}

async fn serve_departing(
    socket: tokio::net::TcpStream,
    departs: bool,
    release: watch::Sender<bool>,
    received: watch::Sender<usize>,
) {
    let Some(mut raw) = RawConnection::accept_with_large_windows(socket).await else { return };
    let mut open = None;
    while let Some(frame_received) = raw.next_frame().await {
        let stream = frame_received.stream;
        match (frame_received.kind, open) {
            (SETTINGS, _) if frame_received.flags == 0 => raw.send(frame(SETTINGS, ACK, 0, &[])).await,
            (HEADERS, None) if departs => open = Some(stream),
            (HEADERS, Some(open)) if departs => {
                raw.send(frame(GOAWAY, 0, 0, &[open.to_be_bytes(), NO_ERROR.to_be_bytes()].concat())).await;
                release.subscribe().wait_for(|is_released| *is_released).await.unwrap();
                raw.send(frame(HEADERS, END_HEADERS | END_STREAM, open, &STATUS_200)).await;
            }
            (HEADERS, _) => raw.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &STATUS_200)).await,
            _ => continue,
        }
        if frame_received.kind == HEADERS {
            received.send_modify(|count| *count += 1);
        }
    }
}

#[tokio::test]
async fn request_after_goaway_moves_to_a_new_connection_while_another_stream_is_open() {
    for http2 in [false, true] {
        let (release, received) = (watch::Sender::new(false), watch::Sender::new(0));
        let address = departing_endpoint(&release, &received).await;
        let server = TestServer::with_routes(h2c_routes_to(address)).await;
        let mut first = server.connect().await;
        first.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        with_timeout("the first request", received.subscribe().wait_for(|count| *count == 1)).await.unwrap();
        let status = match http2 {
            false => server.connect().await.get("/").await.status,
            true => {
                let client = h2::Http2Client::connect(server.address).await;
                let (response, mut stream) = client.start_with_body(post_request("/")).await;
                stream.send_data(Bytes::new(), true).unwrap();
                h2::read_response(response).await.unwrap().status
            }
        };
        assert_eq!(status, 200, "http2 {http2}");
        release.send_replace(true);
        assert_eq!(first.response().await.status, 200, "the open stream continues, http2 {http2}");
    }
}

fn body(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}

/// Waits until the endpoint has refused the request as often as the case expects, and has received the retry if one is
/// expected. What the client sends next thus arrives after the refusals.
async fn wait_for_refusals(state: &watch::Sender<EndpointState>, case: &Case) {
    let refusals = case.refusals.min(case.heads);
    let is_done = |state: &EndpointState| state.refused == refusals && state.heads == case.heads;
    with_timeout("the refusal", state.subscribe().wait_for(is_done)).await.unwrap();
}

/// The status that an HTTP/1.1 client gets.
async fn status_over_http1(server: &TestServer, state: &watch::Sender<EndpointState>, case: &Case) -> u16 {
    let mut client = server.connect().await;
    let body = body(case.bytes_before + case.bytes_after);
    let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head).await;
    client.send(&body[..case.bytes_before]).await;
    wait_for_refusals(state, case).await;
    if case.status == 200 {
        client.send(&body[case.bytes_before..]).await;
    }
    client.response().await.status
}

/// The status that an HTTP/2 client gets. It sends trailers if a part of the body follows the refusal.
async fn status_over_http2(server: &TestServer, state: &watch::Sender<EndpointState>, case: &Case) -> u16 {
    let client = h2::Http2Client::connect(server.address).await;
    let body = body(case.bytes_before + case.bytes_after);
    let (response, mut stream) = client.start_with_body(post_request("/")).await;
    let mut rest = Bytes::from(body);
    let first_bytes = rest.split_to(case.bytes_before);
    h2::send_some(&mut stream, first_bytes).await.unwrap();
    if case.bytes_after == 0 {
        stream.send_data(Bytes::new(), true).unwrap();
    }
    wait_for_refusals(state, case).await;
    if case.status == 200 && case.bytes_after > 0 {
        h2::send_some(&mut stream, rest).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    }
    h2::read_response(response).await.unwrap().status
}

#[tokio::test]
async fn unprocessed_requests_are_retried_with_their_body() {
    for case in CASES {
        for (http2, reused) in [(false, false), (false, true), (true, false), (true, true)] {
            let what =
                format!("{:?} {}+{} http2 {http2} reused {reused}", case.refusal, case.bytes_before, case.bytes_after);
            let (address, state) = refusing_endpoint(case.refusal, case.refusals, case.bytes_before).await;
            let server = TestServer::with_routes(h2c_routes_to(address)).await;
            if reused {
                assert_eq!(server.connect().await.get("/").await.status, 200, "{what}");
            }
            let status = match http2 {
                false => status_over_http1(&server, &state, case).await,
                true => status_over_http2(&server, &state, case).await,
            };
            assert_eq!(status, case.status, "{what}");
            let state = state.borrow().clone();
            assert_eq!(state.heads, case.heads, "{what}");
            let served = (case.status == 200)
                .then(|| (body(case.bytes_before + case.bytes_after), http2 && case.bytes_after > 0));
            assert!(
                state.served == Vec::from_iter(served),
                "{what}: {:?}",
                state.served.iter().map(|(body, trailers)| (body.len(), trailers))
            );
        }
    }
}
