//! What stands behind the proxy: it answers at once, says who it is, and checks what it got.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::pattern::{self, Follow};

/// A backend that runs on the present runtime until it is dropped or retired.
pub struct Backend {
    pub address: SocketAddr,
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The number changes when connections without a request are closed.
    Serving(u64),
    /// No new connections.
    Deaf,
    /// Connections end with their present request.
    Leaving,
}

/// How long the answer to a path is: `/bytes/1000` gets 1000, every other path a few.
pub(crate) fn answer_bytes(path: &str) -> usize {
    let wish = path.split_once("/bytes/").and_then(|(_, rest)| rest.split(['/', '?']).next());
    wish.and_then(|wish| wish.parse().ok()).map_or(SMALL, |wish: usize| wish.min(pattern::LONGEST))
}

const SMALL: usize = 64;
/// What is answered with the head of the request as it came.
pub(crate) const HEAD: &str = "/head";

impl Backend {
    pub async fn start(listen: SocketAddr, name: &str) -> Result<Backend> {
        Backend::adding(listen, name, "").await
    }

    /// One whose answers have further lines in their heads, each with its end.
    pub(crate) async fn adding(listen: SocketAddr, name: &str, fields: &str) -> Result<Backend> {
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
                        // A connection that breaks is the load's to notice: it is behind the same proxy.
                        tokio::spawn(async move { serve(stream, &name, &fields, stages).await.ok() });
                    }
                    // The backend was dropped, or retires.
                    _ = changed.wait_for(|stage| !matches!(stage, Stage::Serving(_))) => return,
                }
            }
        });
        Ok(Backend { address, stage })
    }

    /// Closes the connections that have no request now, and the others after their answer, as servers do with connections
    /// that were idle for long. New ones are welcome.
    pub fn hang_up(&self) {
        self.stage.send_modify(|stage| {
            if let Stage::Serving(times) = stage {
                *times += 1;
            }
        });
    }

    /// Takes no new connections. Those that are open are served on.
    pub fn stop_accepting(&self) {
        self.stage.send_replace(Stage::Deaf);
    }

    /// Closes the connections, those in use after their answer, and waits until all are closed.
    pub async fn finish(self) {
        self.stage.send_replace(Stage::Leaving);
        self.stage.closed().await;
    }
}

async fn serve(mut stream: TcpStream, name: &str, fields: &str, mut stages: watch::Receiver<Stage>) -> Result<()> {
    stream.set_nodelay(true)?;
    // What was said before this connection came does not concern it, but for the end.
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
                        // The backend was dropped instead of retired.
                        _ if changed.is_err() => return Ok(()),
                        Stage::Leaving => return Ok(()),
                        // No server closes a connection as idle that is new.
                        Stage::Serving(_) if served => return Ok(()),
                        Stage::Serving(_) | Stage::Deaf => {}
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
        let mut follow = Follow::default();
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

fn write(answer: &mut Vec<u8>, (name, fields): (&str, &str), head: &str, follow: &Follow) {
    use std::io::Write as _;
    answer.clear();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = if path == HEAD { head.as_bytes() } else { pattern::body(answer_bytes(path)) };
    let number = field(head, "x-number").unwrap_or_default();
    let rule = field(head, "x-rule").unwrap_or_default();
    let received = if follow.differs { "broken".to_owned() } else { follow.length.to_string() };
    write!(
        answer,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-backend: {name}\r\nx-number: {number}\r\nx-rule: {rule}\r\n\
         x-received: {received}\r\n{fields}\r\n",
        body.len()
    )
    .expect("memory takes everything");
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

async fn body(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize, follow: &mut Follow) -> Result<()> {
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
