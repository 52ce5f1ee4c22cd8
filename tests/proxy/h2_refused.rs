//! Requests that an endpoint of HTTP/2 says it has not looked at: they are sent again as they were, with whatever body they
//! have, or not at all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use portico::upstream::Protocol;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, SETTINGS, frame};
use crate::h2::{self, post};
use crate::harness::{Gate, forward, route, upstream_of, within};

/// How an endpoint says it.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// RST_STREAM with this reason.
    Reset(u32),
    /// GOAWAY with this reason, that ends before the stream.
    Goodbye(u32),
}

use Refusal::{Goodbye, Reset};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

struct Case {
    refusal: Refusal,
    /// How many requests are refused before one is served.
    times: usize,
    /// Bytes of the body that the endpoint has when it refuses, and those that come later.
    before: usize,
    after: usize,
    status: u16,
    /// Heads that reach the endpoint.
    heads: usize,
}

const fn case(refusal: Refusal, times: usize, before: usize, after: usize, status: u16, heads: usize) -> Case {
    Case { refusal, times, before, after, status, heads }
}

const CASES: &[Case] = &[
    case(Reset(REFUSED_STREAM), 1, 0, 5, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 5, 0, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 5, 5, 200, 2),
    // As much as is kept, and one more.
    case(Reset(REFUSED_STREAM), 1, 65_536, 100_000, 200, 2),
    case(Reset(REFUSED_STREAM), 1, 65_537, 0, 502, 1),
    // What has not begun to go may be of any size.
    case(Reset(REFUSED_STREAM), 1, 0, 300_000, 200, 2),
    case(Goodbye(NO_ERROR), 1, 0, 5, 200, 2),
    case(Goodbye(NO_ERROR), 1, 5, 5, 200, 2),
    case(Goodbye(ENHANCE_YOUR_CALM), 1, 5, 5, 200, 2),
    case(Goodbye(NO_ERROR), 1, 70_000, 5, 502, 1),
    // It may have been processed.
    case(Reset(INTERNAL_ERROR), 1, 5, 5, 502, 1),
    // The only endpoint there is does not want it.
    case(Reset(REFUSED_STREAM), 9, 5, 0, 502, 2),
];

/// What the endpoint has seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    heads: usize,
    refused: usize,
    /// Bodies of requests that were served, each with whether trailers came behind it.
    served: Vec<(Vec<u8>, bool)>,
}

async fn endpoint(refusal: Refusal, times: usize, before: usize) -> (SocketAddr, watch::Sender<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = watch::Sender::new(Seen::default());
    let left = Arc::new(Mutex::new(times));
    let told = seen.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, refusal, Arc::clone(&left), before, told.clone()));
        }
    });
    (address, seen)
}

async fn serve(
    socket: tokio::net::TcpStream,
    refusal: Refusal,
    left: Arc<Mutex<usize>>,
    before: usize,
    seen: watch::Sender<Seen>,
) {
    let Some(mut raw) = Raw::serving(socket).await else { return };
    let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
    while let Some(next) = raw.next().await {
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
                // On its way when the stream was refused.
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
                Goodbye(reason) => {
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

/// Until it was refused as often as it is to be, and has come again if it is to: what the client sends then, nobody has seen.
async fn refused(seen: &watch::Sender<Seen>, case: &Case) {
    let times = case.times.min(case.heads);
    let done = |seen: &Seen| seen.refused == times && seen.heads == case.heads;
    within("the refusal", seen.subscribe().wait_for(done)).await.unwrap();
}

/// The status that a client of HTTP/1.1 gets.
async fn over_http1(gate: &Gate, seen: &watch::Sender<Seen>, case: &Case) -> u16 {
    let mut client = gate.client().await;
    let body = body(case.before + case.after);
    let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head).await;
    client.send(&body[..case.before]).await;
    refused(seen, case).await;
    if case.status == 200 {
        client.send(&body[case.before..]).await;
    }
    client.answer(false).await.status
}

/// The same of a client of HTTP/2, with trailers where there is more to come.
async fn over_http2(gate: &Gate, seen: &watch::Sender<Seen>, case: &Case) -> u16 {
    let client = h2::Client::connect(gate.address).await;
    let body = body(case.before + case.after);
    let (answer, mut stream) = client.start(post("/"), false).await;
    let mut rest = Bytes::from(body);
    let before = rest.split_to(case.before);
    h2::send_some(&mut stream, before, case.after == 0).await.unwrap();
    refused(seen, case).await;
    if case.status == 200 && case.after > 0 {
        h2::send_some(&mut stream, rest, false).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    }
    h2::read(answer).await.unwrap().status
}

#[tokio::test]
async fn what_was_not_looked_at_is_sent_again_with_its_body() {
    for case in CASES {
        for (http2, kept) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{:?} {}+{} http2 {http2} kept {kept}", case.refusal, case.before, case.after);
            let (address, seen) = endpoint(case.refusal, case.times, case.before).await;
            let routes = vec![route(forward(vec![(1, upstream_of(Protocol::Http2, "h2c", &[address]))]))];
            let gate = Gate::open(routes).await;
            if kept {
                assert_eq!(gate.client().await.get("/").await.status, 200, "{what}");
            }
            let status = match http2 {
                false => over_http1(&gate, &seen, case).await,
                true => over_http2(&gate, &seen, case).await,
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
