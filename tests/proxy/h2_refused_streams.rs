//! Requests that an HTTP/2 endpoint reports as unprocessed: they are retried with their complete body, or not at all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use portico::upstream::UpstreamProtocol;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawConnection, SETTINGS, frame};
use crate::h2::{self, post_request};
use crate::harness::{TestServer, forward, route, upstream_with_protocol, with_timeout};

/// How the endpoint refuses the stream.
#[derive(Clone, Copy, Debug)]
enum StreamRefusal {
    /// RST_STREAM with this error code.
    Reset(u32),
    /// GOAWAY with this error code and a last stream before this one.
    GoAway(u32),
}

use StreamRefusal::{GoAway, Reset};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

struct Case {
    refusal: StreamRefusal,
    /// How many requests are refused before one is served.
    times: usize,
    /// Bytes of the body that the endpoint has received when it refuses, and bytes that follow.
    before: usize,
    after: usize,
    status: u16,
    /// Request heads that reach the endpoint.
    heads: usize,
}

const fn case(refusal: StreamRefusal, times: usize, before: usize, after: usize, status: u16, heads: usize) -> Case {
    Case { refusal, times, before, after, status, heads }
}

const CASES: &[Case] = &[
    case(Reset(REFUSED_STREAM), 1, 0, 5, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 5, 0, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 5, 5, 200, 2),
    // The size of the replay buffer, and one byte more.
    case(Reset(REFUSED_STREAM), 1, 65_536, 100_000, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 65_537, 0, 502, 1),
    // A body of which nothing was sent may have any size.
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

/// What the endpoint has received.
#[derive(Clone, Debug, Default)]
struct EndpointState {
    heads: usize,
    refused: usize,
    /// Bodies of the served requests, each with whether trailers followed.
    served: Vec<(Vec<u8>, bool)>,
}

async fn refusing_endpoint(
    refusal: StreamRefusal,
    times: usize,
    before: usize,
) -> (SocketAddr, watch::Sender<EndpointState>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = watch::Sender::new(EndpointState::default());
    let left = Arc::new(Mutex::new(times));
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, refusal, Arc::clone(&left), before, shared.clone()));
        }
    });
    (address, seen)
}

async fn serve(
    socket: tokio::net::TcpStream,
    refusal: StreamRefusal,
    left: Arc<Mutex<usize>>,
    before: usize,
    seen: watch::Sender<EndpointState>,
) {
    let Some(mut raw) = RawConnection::accept_with_large_windows(socket).await else { return };
    let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
    while let Some(next) = raw.next_frame().await {
        if next.kind == SETTINGS && next.flags == 0 {
            raw.send(frame(SETTINGS, 1, 0, &[])).await;
        }
        let is_trailer = next.kind == HEADERS && bodies.contains_key(&next.stream);
        match next.kind {
            HEADERS if !is_trailer => {
                if next.flags & END_STREAM != 0 {
                    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, next.stream, &[0x88])).await;
                    continue;
                }
                seen.send_modify(|seen| seen.heads += 1);
                bodies.insert(next.stream, Vec::new());
            }
            HEADERS => {}
            DATA => match bodies.get_mut(&next.stream) {
                Some(body) => body.extend_from_slice(&next.payload),
                // Sent before the refusal arrived.
                None => continue,
            },
            _ => continue,
        }
        let body = &bodies[&next.stream];
        let refuse = *left.lock().unwrap() > 0;
        if refuse && body.len() >= before {
            *left.lock().unwrap() -= 1;
            bodies.remove(&next.stream);
            raw.send(match refusal {
                Reset(reason) => frame(RST_STREAM, 0, next.stream, &reason.to_be_bytes()),
                GoAway(reason) => {
                    let last = next.stream.saturating_sub(2);
                    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
                }
            })
            .await;
            seen.send_modify(|seen| seen.refused += 1);
        } else if !refuse && next.flags & END_STREAM != 0 {
            let body = bodies.remove(&next.stream).unwrap();
            seen.send_modify(|seen| seen.served.push((body, is_trailer)));
            raw.send(frame(HEADERS, END_HEADERS | END_STREAM, next.stream, &[0x88])).await;
        }
    }
}

fn body(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}

/// Waits until the request was refused the given number of times and retried if it should be, so that the endpoint has
/// not seen what the client sends next.
async fn wait_for_refusals(seen: &watch::Sender<EndpointState>, case: &Case) {
    let times = case.times.min(case.heads);
    let done = |seen: &EndpointState| seen.refused == times && seen.heads == case.heads;
    with_timeout("the refusal", seen.subscribe().wait_for(done)).await.unwrap();
}

/// The status for an HTTP/1.1 client.
async fn status_over_http1(server: &TestServer, seen: &watch::Sender<EndpointState>, case: &Case) -> u16 {
    let mut client = server.connect().await;
    let body = body(case.before + case.after);
    let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head).await;
    client.send(&body[..case.before]).await;
    wait_for_refusals(seen, case).await;
    if case.status == 200 {
        client.send(&body[case.before..]).await;
    }
    client.response(false).await.status
}

/// The status for an HTTP/2 client, with trailers if more of the body follows.
async fn status_over_http2(server: &TestServer, seen: &watch::Sender<EndpointState>, case: &Case) -> u16 {
    let client = h2::Http2Client::connect(server.address).await;
    let body = body(case.before + case.after);
    let (answer, mut stream) = client.start(post_request("/"), false).await;
    let mut rest = Bytes::from(body);
    let before = rest.split_to(case.before);
    h2::send_some(&mut stream, before, case.after == 0).await.unwrap();
    wait_for_refusals(seen, case).await;
    if case.status == 200 && case.after > 0 {
        h2::send_some(&mut stream, rest, false).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    }
    h2::read_response(answer).await.unwrap().status
}

#[tokio::test]
async fn unprocessed_requests_are_retried_with_their_body() {
    for case in CASES {
        for (http2, kept) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{:?} {}+{} http2 {http2} kept {kept}", case.refusal, case.before, case.after);
            let (address, seen) = refusing_endpoint(case.refusal, case.times, case.before).await;
            let routes =
                vec![route(forward(vec![(1, upstream_with_protocol(UpstreamProtocol::Http2, "h2c", &[address]))]))];
            let server = TestServer::with_routes(routes).await;
            if kept {
                assert_eq!(server.connect().await.get("/").await.status, 200, "{what}");
            }
            let status = match http2 {
                false => status_over_http1(&server, &seen, case).await,
                true => status_over_http2(&server, &seen, case).await,
            };
            assert_eq!(status, case.status, "{what}");
            let seen = seen.borrow().clone();
            assert_eq!(seen.heads, case.heads, "{what}");
            let served = (case.status == 200).then(|| (body(case.before + case.after), http2 && case.after > 0));
            assert!(
                seen.served == Vec::from_iter(served),
                "{what}: {:?}",
                seen.served.iter().map(|(body, trailers)| (body.len(), trailers))
            );
        }
    }
}
