//! The backend behind the proxy: responds immediately, identifies itself, and verifies request bodies.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::pattern::{self, BodyChecker};

/// A backend on the current runtime. It runs until it is dropped or finished.
pub struct Backend {
    pub address: SocketAddr,
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Serving; a change of the number closes idle connections.
    Serving(u64),
    /// Accepts no new connections.
    NotAccepting,
    /// Connections end after their current request.
    Leaving,
}

/// Length of the response body for a path: `/bytes/1000` returns 1000 bytes, every other path a few.
pub(crate) fn response_bytes(path: &str) -> usize {
    let wish = path.split_once("/bytes/").and_then(|(_, rest)| rest.split(['/', '?']).next());
    wish.and_then(|wish| wish.parse().ok()).map_or(SMALL, |wish: usize| wish.min(pattern::MAX_BODY))
}

const SMALL: usize = 64;
/// Path whose response body is the received request head.
pub(crate) const HEAD: &str = "/head";

impl Backend {
    pub async fn start(listen: SocketAddr, name: &str) -> Result<Backend> {
        Backend::start_with_fields(listen, name, "").await
    }

    /// A backend that adds header lines to its responses, each with CRLF.
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
                        // A broken connection is reported by the load generator, which uses the same proxy.
                        tokio::spawn(async move { serve(stream, &name, &fields, stages).await.ok() });
                    }
                    // The backend was dropped or finished.
                    _ = changed.wait_for(|stage| !matches!(stage, Stage::Serving(_))) => return,
                }
            }
        });
        Ok(Backend { address, stage })
    }

    /// Closes idle connections, and busy ones after their response, like a server whose idle timeout expires. New
    /// connections are still accepted.
    pub fn close_idle(&self) {
        self.stage.send_modify(|stage| {
            if let Stage::Serving(times) = stage {
                *times += 1;
            }
        });
    }

    /// Accepts no new connections but continues to serve the open ones.
    pub fn stop_accepting(&self) {
        self.stage.send_replace(Stage::NotAccepting);
    }

    /// Closes all connections, busy ones after their response, and waits for that.
    pub async fn finish(self) {
        self.stage.send_replace(Stage::Leaving);
        self.stage.closed().await;
    }
}

async fn serve(mut stream: TcpStream, name: &str, fields: &str, mut stages: watch::Receiver<Stage>) -> Result<()> {
    stream.set_nodelay(true)?;
    // Stages before this connection do not apply to it, except for the last.
    if *stages.borrow_and_update() == Stage::Leaving {
        return Ok(());
    }
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut answer = Vec::new();
    let mut served = false;
    loop {
        while buffer.is_empty() {
            tokio::select! {
                read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                changed = stages.changed() => {
                    match *stages.borrow() {
                        // The backend was dropped instead of finished.
                        _ if changed.is_err() => return Ok(()),
                        Stage::Leaving => return Ok(()),
                        // Servers do not close new connections as idle.
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
        let mut follow = BodyChecker::default();
        if field(&head, "transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&line(&mut stream, &mut buffer).await?, 16)?;
                body(&mut stream, &mut buffer, size, &mut follow).await?;
                line(&mut stream, &mut buffer).await?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = field(&head, "content-length") {
            body(&mut stream, &mut buffer, length.parse()?, &mut follow).await?;
        }
        write(&mut answer, (name, fields), &head, &follow);
        stream.write_all(&answer).await?;
        served = true;
    }
}

fn write(answer: &mut Vec<u8>, (name, fields): (&str, &str), head: &str, follow: &BodyChecker) {
    use std::io::Write as _;
    answer.clear();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = if path == HEAD { head.as_bytes() } else { pattern::body(response_bytes(path)) };
    let number = field(head, "x-number").unwrap_or_default();
    let rule = field(head, "x-rule").unwrap_or_default();
    let received = if follow.differs { "broken".to_owned() } else { follow.length.to_string() };
    write!(
        answer,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-backend: {name}\r\nx-number: {number}\r\nx-rule: {rule}\r\n\
         x-received: {received}\r\n{fields}\r\n",
        body.len()
    )
    .expect("writing to a Vec succeeds");
    answer.extend_from_slice(body);
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

async fn line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..at]).into_owned();
            buffer.drain(..at + 2);
            return Ok(line);
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the body ends early");
    }
}

async fn body(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize, follow: &mut BodyChecker) -> Result<()> {
    let mut left = length;
    loop {
        let part = buffer.len().min(left);
        follow.read(&buffer[..part]);
        buffer.drain(..part);
        left -= part;
        if left == 0 {
            return Ok(());
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the body ends early");
    }
}

const BUFFER: usize = 16 * 1024;
