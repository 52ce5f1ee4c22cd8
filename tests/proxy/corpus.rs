//! Corpus of request shapes: which requests untrusted clients may send, the responses, and what the backend receives.
//!
//! The backend parses strictly: it must receive complete messages that allow only one reading, exactly those that the
//! shape lists. A canary request follows the shape on the same connection. It must not become part of the shape, and it
//! must not be served where the connection must close.
//!
//! Short shapes are sent as a whole and then byte by byte, with the same result.
//!
//! Format of the files in `corpus/`:
//!
//! ```text
//! == name of the shape
//! > a line of the request, terminated by CR LF
//! | bytes without a line end
//! = 200 keep            the statuses that the client reads, and whether the connection stays open
//! < a line of the head that the backend receives, sorted after the first, without the headers that Portico adds
//! <{99} a line that occurs 99 times in the head
//! <| the body that the backend receives
//! <|+ a trailer that the backend receives
//! ```
//!
//! `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` are bytes, `{x*9}` is nine of x, and `LOCAL` is the address of the proxy.
//! `= … alone` omits the canary: the client closes its side after the shape.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::harness::{Client, Endpoint, EndpointStream, TEST_TIMEOUT, TestResponse, TestServer, routes_to};
use crate::strict_parser;

const FILES: &[(&str, &str)] = &[
    ("framing", include_str!("corpus/framing.txt")),
    ("chunks", include_str!("corpus/chunks.txt")),
    ("heads", include_str!("corpus/heads.txt")),
    ("targets", include_str!("corpus/targets.txt")),
    ("hosts", include_str!("corpus/hosts.txt")),
    ("connections", include_str!("corpus/connections.txt")),
    ("sizes", include_str!("corpus/sizes.txt")),
];

#[tokio::test]
async fn every_shape_matches_the_corpus() {
    let mut shape_count = 0;
    let mut failures = String::new();
    for (file, text) in FILES {
        let received = Arc::new(Mutex::new(Vec::new()));
        let endpoint = recording_backend(&received).await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let whole_and_bytewise = |shape: Shape| {
            let is_short = shape.bytes.len() < 1000;
            let shape = Arc::new(shape);
            std::iter::once((Arc::clone(&shape), false)).chain(is_short.then_some((shape, true)))
        };
        for (shape, bytewise) in parse(file, text).into_iter().flat_map(whole_and_bytewise) {
            shape_count += usize::from(!bytewise);
            let client = server.connect().await;
            let outcome = timeout(TEST_TIMEOUT, send_shape(client, &shape, bytewise)).await;
            let outcome = outcome.unwrap_or_else(|_| "the client timed out".to_owned());
            let messages: Vec<String> = received.lock().unwrap().drain(..).collect();
            let messages = messages.join("\n").replace(&server.address.to_string(), "LOCAL");
            if outcome != shape.outcome || messages != shape.received.join("\n") {
                writeln!(
                    failures,
                    "{file}: {}{}\n  expected {}, got {outcome}\n  the backend should have received\n{}\n  and received\n{messages}\n",
                    shape.name,
                    if bytewise { ", byte by byte" } else { "" },
                    shape.outcome,
                    shape.received.join("\n")
                )
                .unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(shape_count >= 150, "only {shape_count} shapes");
}

/// An endpoint that records every message except the canary in the format of the corpus, and malformed bytes with the
/// reason. It responds with `canary` to the canary and with `ok` to every other request.
pub(crate) async fn recording_backend(received: &Arc<Mutex<Vec<String>>>) -> Endpoint {
    let received = Arc::clone(received);
    Endpoint::scripted(move |mut stream: EndpointStream, _| {
        let received = Arc::clone(&received);
        async move {
            let mut bytes = Vec::new();
            loop {
                match strict_parser::parse_request(&bytes) {
                    Ok(Some((request, length))) => {
                        bytes.drain(..length);
                        let body = if request == CANARY_AS_RECEIVED { "canary" } else { "ok" };
                        let sent_body = if request.starts_with("HEAD ") { "" } else { body };
                        if request != CANARY_AS_RECEIVED {
                            received.lock().unwrap().push(request);
                        }
                        let length = body.len();
                        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{sent_body}")).await;
                    }
                    // If the connection ends within a message, the message is not recorded.
                    Ok(None) => match stream.read_some().await {
                        Some(more) => bytes.extend_from_slice(&more),
                        None => return,
                    },
                    Err(reason) => {
                        received.lock().unwrap().push(format!("{reason}: {:?}", String::from_utf8_lossy(&bytes)));
                        return;
                    }
                }
            }
        }
    })
    .await
}

/// Sends the shape and returns the result in the format of the corpus.
async fn send_shape(mut client: Client, shape: &Shape, bytewise: bool) -> String {
    let mut bytes = shape.bytes.clone();
    if !shape.omits_canary {
        bytes.extend_from_slice(CANARY);
    }
    // The proxy may close before everything is written.
    if bytewise {
        client.socket.set_nodelay(true).unwrap();
        for byte in bytes {
            drop(client.socket.write_all(&[byte]).await);
            tokio::task::yield_now().await;
        }
    } else {
        drop(client.socket.write_all(&bytes).await);
    }
    if shape.omits_canary {
        drop(client.socket.shutdown().await);
    }
    let mut outcome = Vec::new();
    loop {
        let is_head_request = outcome.is_empty() && shape.bytes.starts_with(b"HEAD ");
        let request = if outcome.is_empty() { &shape.bytes[..] } else { CANARY };
        let Some(response) = client.try_response_to(request).await else { break };
        if response.body == b"canary" {
            outcome.push("keep".to_owned());
            return outcome.join(" ");
        }
        outcome.push(if is_head_request || is_success_or_complete_error(&response) {
            response.status.to_string()
        } else {
            response.text()
        });
    }
    outcome.push(if shape.omits_canary { "alone" } else { "close" }.to_owned());
    outcome.join(" ")
}

/// Whether the response is no error, or an error with a message and the request ID.
fn is_success_or_complete_error(response: &TestResponse) -> bool {
    let body = serde_json::from_slice::<serde_json::Value>(&response.body).ok();
    let field = |name: &str| body.as_ref().and_then(|body| body[name].as_str()).filter(|text| !text.is_empty());
    response.status < 400 || field("message").is_some() && field("request_id") == response.header("x-request-id")
}

struct Shape {
    name: String,
    bytes: Vec<u8>,
    /// As written after `=`.
    outcome: String,
    omits_canary: bool,
    /// The lines after `<`, `<|` and `<|+`.
    received: Vec<String>,
}

fn parse(file: &str, text: &str) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let location = format!("{file}:{}", number + 1);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let "==" = mark {
            let bytes = Vec::new();
            shapes.push(Shape {
                name: rest.to_owned(),
                bytes,
                outcome: String::new(),
                omits_canary: false,
                received: vec![],
            });
            continue;
        }
        if mark.is_empty() || mark == "#" {
            continue;
        }
        let shape = shapes.last_mut().unwrap_or_else(|| panic!("{location}: a line before the first shape"));
        match mark {
            ">" => {
                shape.bytes.extend(unescape(rest, &location));
                shape.bytes.extend_from_slice(b"\r\n");
            }
            "|" => shape.bytes.extend(unescape(rest, &location)),
            "=" => {
                assert!(shape.outcome.is_empty(), "{location}: a second outcome");
                rest.clone_into(&mut shape.outcome);
                shape.omits_canary = rest.ends_with("alone");
            }
            "<" => shape.received.push(expand_repetition(rest)),
            "<{99}" => shape.received.extend(vec![rest.to_owned(); 99]),
            "<|" => shape.received.push(format!("| {rest}")),
            "<|+" => shape.received.push(format!("|+ {rest}")),
            _ => panic!("{location}: unknown line mark {mark:?}"),
        }
    }
    for shape in &shapes {
        let last_word = shape.outcome.rsplit(' ').next().unwrap_or_default();
        assert!(["keep", "close", "alone"].contains(&last_word), "{file}: {}: no outcome", shape.name);
    }
    shapes
}

/// Expands the first repetition, if there is one. Everything else is literal, backslashes too.
fn expand_repetition(text: &str) -> String {
    let Some((before, (repetition, after))) =
        text.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return text.to_owned();
    };
    let (repeated, count) = repetition.rsplit_once('*').unwrap();
    format!("{before}{}{after}", repeated.repeat(count.parse().unwrap()))
}

fn unescape(text: &str, location: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\\' => {
                let (escape, after) = rest.split_first().unwrap_or_else(|| panic!("{location}: a lone backslash"));
                rest = after;
                bytes.push(match escape {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'\\' => b'\\',
                    b'x' => {
                        let (digits, after) = rest.split_at(2);
                        rest = after;
                        u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap()
                    }
                    other => panic!("{location}: unknown escape \\{}", char::from(*other)),
                });
            }
            b'{' => {
                let end = rest
                    .iter()
                    .position(|byte| *byte == b'}')
                    .unwrap_or_else(|| panic!("{location}: missing closing brace"));
                let (repeated, count) = str::from_utf8(&rest[..end]).unwrap().rsplit_once('*').unwrap();
                rest = &rest[end + 1..];
                bytes.extend(unescape(repeated, location).repeat(count.parse().unwrap()));
            }
            plain => bytes.push(*plain),
        }
    }
    bytes
}

const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nhost: canary\r\n\r\n";
const CANARY_AS_RECEIVED: &str = "GET /canary HTTP/1.1\nhost: canary";
