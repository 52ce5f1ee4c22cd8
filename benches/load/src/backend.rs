//! The backend behind the proxy. It responds immediately with its name, and reports whether it received the request
//! body correctly. Its port accepts HTTP/1.1, HTTP/2 without TLS, and WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::h2c_backend;
use crate::pattern::{self, BodyChecker};
use crate::server::CACHE_HOST;
use crate::websocket;

/// A backend on the current runtime. It runs until it is dropped or finished.
pub struct Backend {
    pub address: SocketAddr,
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Serves; an increase of the number closes idle connections.
    Serving(u64),
    /// Accepts no new connections.
    NotAccepting,
    /// Closes connections after their current request.
    Finishing,
}

/// Length of the response body for a path: 1000 for `/bytes/1000`, at most `MAX_BODY`; a default for every other path.
pub(crate) fn response_bytes(path: &str) -> usize {
    let requested = path.split_once("/bytes/").and_then(|(_, rest)| rest.split(['/', '?']).next());
    requested
        .and_then(|requested| requested.parse().ok())
        .map_or(DEFAULT_LENGTH, |requested: usize| requested.min(pattern::MAX_BODY))
}

/// The length of the response body for a path without `/bytes/`.
const DEFAULT_LENGTH: usize = 64;
/// Path whose response body is the received request head.
pub(crate) const ECHO_HEAD_PATH: &str = "/head";

impl Backend {
    pub async fn start(listen: SocketAddr, name: &str) -> Result<Backend> {
        Backend::start_with_fields(listen, name, "").await
    }

    /// A backend that adds header lines to its responses over HTTP/1.1, each with CRLF.
    pub(crate) async fn start_with_fields(listen: SocketAddr, name: &str, fields: &str) -> Result<Backend> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let (stage, stages) = watch::channel(Stage::Serving(0));
        let name: Arc<str> = name.into();
        let fields: Arc<str> = fields.into();
        tokio::spawn(async move {
            let mut changed = stages.clone();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let (name, fields, stages) = (Arc::clone(&name), Arc::clone(&fields), stages.clone());
                        // The error is ignored, because the load generator reports each request that fails.
                        tokio::spawn(async move { serve(stream, &name, &fields, stages).await.ok() });
                    }
                    // The backend was dropped, finished, or accepts no more connections.
                    _ = changed.wait_for(|stage| !matches!(stage, Stage::Serving(_))) => return,
                }
            }
        });
        Ok(Backend { address, stage })
    }

    /// Closes idle HTTP/1.1 connections, and busy ones after their response, like a server whose idle timeout expires.
    /// New connections are still accepted.
    pub fn close_idle(&self) {
        self.stage.send_modify(|stage| {
            if let Stage::Serving(closings) = stage {
                *closings += 1;
            }
        });
    }

    /// Accepts no new connections but continues to serve the open ones.
    pub fn stop_accepting(&self) {
        self.stage.send_replace(Stage::NotAccepting);
    }

    /// Closes all connections, those with HTTP/1.1 after their response if they are busy, and waits for that.
    pub async fn finish(self) {
        self.stage.send_replace(Stage::Finishing);
        self.stage.closed().await;
    }
}

async fn serve(mut stream: TcpStream, name: &str, fields: &str, mut stages: watch::Receiver<Stage>) -> Result<()> {
    stream.set_nodelay(true)?;
    // An earlier call of `close_idle` or `stop_accepting` does not affect this connection.
    if *stages.borrow_and_update() == Stage::Finishing {
        return Ok(());
    }
    let mut buffer = Vec::with_capacity(BUFFER_SIZE);
    let mut response = Vec::new();
    let mut served = false;
    loop {
        while buffer.is_empty() {
            tokio::select! {
                read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                changed = stages.changed() => {
                    match *stages.borrow() {
                        // The backend was dropped instead of finished.
                        _ if changed.is_err() => return Ok(()),
                        Stage::Finishing => return Ok(()),
                        // A connection without a request stays open, because servers do not close new connections as
                        // idle.
                        Stage::Serving(_) if served => return Ok(()),
                        Stage::Serving(_) | Stage::NotAccepting => {}
                    }
                }
            }
        }
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8(buffer.drain(..at + 4).collect())?;
            }
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the request ends early");
        };
        if head == h2c_backend::PREFACE_HEAD {
            let received = [head.as_bytes(), buffer.as_slice()].concat();
            return tokio::select! {
                served = h2c_backend::serve(stream, received, name) => served,
                () = finishing(&mut stages) => Ok(()),
            };
        }
        if request_path(&head) == websocket::PATH {
            let upgrade = field(&head, "upgrade").unwrap_or_default();
            ensure!(upgrade.eq_ignore_ascii_case("websocket"), "the request is no upgrade to WebSocket");
            return tokio::select! {
                echoed = websocket::echo(stream, buffer) => echoed,
                () = finishing(&mut stages) => Ok(()),
            };
        }
        let mut checker = BodyChecker::default();
        if field(&head, "transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&read_line(&mut stream, &mut buffer).await?, 16)?;
                read_body(&mut stream, &mut buffer, size, &mut checker).await?;
                read_line(&mut stream, &mut buffer).await?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = field(&head, "content-length") {
            read_body(&mut stream, &mut buffer, length.parse()?, &mut checker).await?;
        }
        write_response(&mut response, (name, fields), &head, &checker);
        stream.write_all(&response).await?;
        served = true;
    }
}

/// Waits until the backend closes all connections.
async fn finishing(stages: &mut watch::Receiver<Stage>) {
    // An error: the backend was dropped.
    stages.wait_for(|stage| *stage == Stage::Finishing).await.ok();
}

/// Replaces `response` with the response to a request with this head, whose body `checker` has read.
fn write_response(response: &mut Vec<u8>, (name, fields): (&str, &str), head: &str, checker: &BodyChecker) {
    use std::io::Write as _;
    response.clear();
    let path = request_path(head);
    let body = if path == ECHO_HEAD_PATH { head.as_bytes() } else { pattern::body(response_bytes(path)) };
    let number = field(head, "x-number").unwrap_or_default();
    let rule = field(head, "x-rule").unwrap_or_default();
    let received = if checker.differs { "broken".to_owned() } else { checker.length.to_string() };
    let of_cache =
        if field(head, "host") == Some(CACHE_HOST) { "content-type: application/octet-stream\r\n" } else { "" };
    write!(
        response,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-backend: {name}\r\nx-number: {number}\r\nx-rule: {rule}\r\n\
         x-received: {received}\r\n{of_cache}{fields}\r\n",
        body.len()
    )
    .expect("writing to a Vec succeeds");
    response.extend_from_slice(body);
}

pub(crate) fn request_path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

/// The value of a header field.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

async fn read_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..at]).into_owned();
            buffer.drain(..at + 2);
            return Ok(line);
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the body ends early");
    }
}

async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    length: usize,
    checker: &mut BodyChecker,
) -> Result<()> {
    let mut missing = length;
    loop {
        let part = buffer.len().min(missing);
        checker.read(&buffer[..part]);
        buffer.drain(..part);
        missing -= part;
        if missing == 0 {
            return Ok(());
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the body ends early");
    }
}

const BUFFER_SIZE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::sequential_plan;
    use crate::plan::{Plan, Protocol, RequestShape};
    use crate::run::run;

    const HOST: &str = "bench.example";

    #[tokio::test]
    async fn one_port_serves_all_protocols() {
        let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await.unwrap();
        for (protocol, shape) in [
            (Protocol::Http1, RequestShape::get(HOST, "/")),
            (Protocol::Http1, RequestShape::post(HOST, "/bytes/1000", 10_000, true)),
            (Protocol::Http2, RequestShape::get(HOST, "/")),
            (Protocol::Http2, RequestShape::post(HOST, "/bytes/100000", 100_000, true)),
            (Protocol::Http2, RequestShape::call(HOST, 64)),
            (Protocol::Http2, RequestShape::call(HOST, 100_000)),
            (Protocol::GrpcStream, RequestShape::call_message(HOST, 64)),
            (Protocol::GrpcStream, RequestShape::call_message(HOST, 100_000)),
            (Protocol::WebSocket, RequestShape::message(HOST, 64)),
            (Protocol::WebSocket, RequestShape::message(HOST, 70_000)),
        ] {
            let plan = Plan { protocol, ..sequential_plan(20, backend.address, vec![shape.clone()]) };
            let report = run(plan).await;
            assert!(report.is_clean() && report.good == 20, "{protocol:?} {shape:?}\n{report}");
        }
        backend.finish().await;
    }

    #[tokio::test]
    async fn websockets_stay_open_until_the_backend_finishes() {
        let backend = Backend::start(([127, 0, 0, 1], 0).into(), "backend").await.unwrap();
        let stream = TcpStream::connect(backend.address).await.unwrap();
        let shape = RequestShape::message(HOST, 64);
        let mut websocket = websocket::Connection::open(Box::new(stream), &shape).await.unwrap();
        backend.close_idle();
        assert!(!websocket.exchange(0).await.unwrap().differs);
        backend.finish().await;
        assert!(websocket.exchange(1).await.is_err());
    }
}
