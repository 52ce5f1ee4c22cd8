//! Corpus of request shapes: which requests untrusted clients may send, the responses, and what the backend receives.
//!
//! The backend parses strictly: it must receive complete messages that allow only one reading, exactly those that the
//! shape lists. Every shape is followed by a canary request, which must not become part of it, nor be served where the
//! connection must close.
//!
//! Short shapes are also sent byte by byte, with the same result.
//!
//! Format of the files in `corpus/`:
//!
//! ```text
//! == name of the shape
//! > a line of the request, terminated by CR LF
//! | bytes without a line end
//! = 200 keep            the statuses that the client reads, and whether the connection stays open
//! < a line of the head that the backend receives, sorted after the first, without the headers that Portico adds
//! <| the body that the backend receives
//! ```
//!
//! `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` are bytes, `{x*9}` is nine of x. `= … alone` omits the canary: the client
//! closes its side after the shape.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::harness::{Client, Endpoint, EndpointStream, TestResponse, TestServer, routes_to};
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
    let mut shapes = 0;
    let mut failures = String::new();
    for (file, text) in FILES {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let endpoint = backend(&seen).await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let whole_and_in_bytes = |shape: Shape| {
            let is_short = shape.bytes.len() < 1000;
            let shape = Arc::new(shape);
            std::iter::once((Arc::clone(&shape), false)).chain(is_short.then_some((shape, true)))
        };
        for (shape, bytewise) in parse(file, text).into_iter().flat_map(whole_and_in_bytes) {
            shapes += usize::from(!bytewise);
            let client = server.connect().await;
            let outcome = timeout(SHAPE_TIMEOUT, send_shape(client, &shape, bytewise)).await;
            let outcome = outcome.unwrap_or_else(|_| "the client timed out".to_owned());
            let messages: Vec<String> = seen.lock().unwrap().drain(..).collect();
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
    assert!(shapes >= 150, "only {shapes} shapes");
}

/// Records every message in the format of the corpus, and malformed bytes with the reason.
pub(crate) async fn backend(seen: &Arc<Mutex<Vec<String>>>) -> Endpoint {
    let seen = Arc::clone(seen);
    Endpoint::scripted(move |mut stream: EndpointStream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let mut bytes = Vec::new();
            loop {
                match strict_parser::parse_request(&bytes) {
                    Ok(Some((request, length))) => {
                        bytes.drain(..length);
                        let body = if request == CANARY_AS_RECEIVED { "canary" } else { "ok" };
                        let sent = if request.starts_with("HEAD ") { "" } else { body };
                        if request != CANARY_AS_RECEIVED {
                            seen.lock().unwrap().push(request);
                        }
                        let length = body.len();
                        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{sent}")).await;
                    }
                    // An incomplete message is ignored.
                    Ok(None) => match stream.read_some().await {
                        Some(more) => bytes.extend_from_slice(&more),
                        None => return,
                    },
                    Err(why) => {
                        seen.lock().unwrap().push(format!("{why}: {:?}", String::from_utf8_lossy(&bytes)));
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
    if !shape.alone {
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
    if shape.alone {
        drop(client.socket.shutdown().await);
    }
    let mut outcome = Vec::new();
    loop {
        let head_only = outcome.is_empty() && shape.bytes.starts_with(b"HEAD ");
        let Some(answer) = client.try_response(head_only).await else { break };
        if answer.body == b"canary" {
            outcome.push("keep".to_owned());
            return outcome.join(" ");
        }
        outcome.push(if head_only || is_complete_error(&answer) { answer.status.to_string() } else { answer.text() });
    }
    outcome.push(if shape.alone { "alone" } else { "close" }.to_owned());
    outcome.join(" ")
}

/// Whether an error response has a message and the request ID.
fn is_complete_error(answer: &TestResponse) -> bool {
    let said = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    let field = |name: &str| said.as_ref().and_then(|said| said[name].as_str()).filter(|text| !text.is_empty());
    answer.status < 400 || field("message").is_some() && field("request_id") == answer.header("x-request-id")
}

struct Shape {
    name: String,
    bytes: Vec<u8>,
    /// As written after `=`.
    outcome: String,
    alone: bool,
    /// Lines.
    received: Vec<String>,
}

fn parse(file: &str, text: &str) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{file}:{}", number + 1);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let "==" = mark {
            let bytes = Vec::new();
            shapes.push(Shape { name: rest.to_owned(), bytes, outcome: String::new(), alone: false, received: vec![] });
            continue;
        }
        if mark.is_empty() || mark == "#" {
            continue;
        }
        let shape = shapes.last_mut().unwrap_or_else(|| panic!("{at}: a line before the first shape"));
        match mark {
            ">" => {
                shape.bytes.extend(unescape(rest, &at));
                shape.bytes.extend_from_slice(b"\r\n");
            }
            "|" => shape.bytes.extend(unescape(rest, &at)),
            "=" => {
                assert!(shape.outcome.is_empty(), "{at}: a second outcome");
                rest.clone_into(&mut shape.outcome);
                shape.alone = rest.ends_with("alone");
            }
            "<" => shape.received.push(expand_repetitions(rest)),
            "<{99}" => shape.received.extend(vec![rest.to_owned(); 99]),
            "<|" => shape.received.push(format!("| {rest}")),
            "<|+" => shape.received.push(format!("|+ {rest}")),
            _ => panic!("{at}: unknown line mark {mark:?}"),
        }
    }
    for shape in &shapes {
        let end = shape.outcome.rsplit(' ').next().unwrap_or_default();
        assert!(["keep", "close", "alone"].contains(&end), "{file}: {}: no outcome", shape.name);
    }
    shapes
}

/// Expands only repetitions; everything else, also a backslash, is literal.
fn expand_repetitions(text: &str) -> String {
    let Some((before, (inside, behind))) =
        text.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return text.to_owned();
    };
    let (what, count) = inside.rsplit_once('*').unwrap();
    format!("{before}{}{behind}", what.repeat(count.parse().unwrap()))
}

fn unescape(text: &str, at: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'\\' => {
                let (escape, behind) = rest.split_first().unwrap_or_else(|| panic!("{at}: a lone backslash"));
                rest = behind;
                bytes.push(match escape {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'\\' => b'\\',
                    b'x' => {
                        let (digits, behind) = rest.split_at(2);
                        rest = behind;
                        u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap()
                    }
                    other => panic!("{at}: unknown escape \\{}", char::from(*other)),
                });
            }
            b'{' => {
                let end =
                    rest.iter().position(|byte| *byte == b'}').unwrap_or_else(|| panic!("{at}: missing closing brace"));
                let (what, count) = str::from_utf8(&rest[..end]).unwrap().rsplit_once('*').unwrap();
                rest = &rest[end + 1..];
                bytes.extend(unescape(what, at).repeat(count.parse().unwrap()));
            }
            plain => bytes.push(*plain),
        }
    }
    bytes
}

const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nhost: canary\r\n\r\n";
const CANARY_AS_RECEIVED: &str = "GET /canary HTTP/1.1\nhost: canary";
const SHAPE_TIMEOUT: Duration = Duration::from_secs(5);
