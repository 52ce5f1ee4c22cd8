//! A strict HTTP/1.1 client: every malformed response is an error.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pattern::{self, BodyChecker};
use crate::plan::RequestShape;

/// The verified parts of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadResponse {
    pub status: u16,
    /// Name of the backend in the response.
    pub backend: String,
    /// Header value added by a filter of the rule, as received by the backend.
    pub rule: String,
    /// Number of the request, as received by the backend.
    pub number: Option<u64>,
    /// Number of body bytes that the backend received correctly.
    pub received: Option<usize>,
    pub length: usize,
    /// The body differs from the expected one.
    pub differs: bool,
    /// The connection is closed after this response.
    pub closes: bool,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    request: Vec<u8>,
    buffer: Vec<u8>,
    used: usize,
}

impl Connection {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Connection { stream, request: Vec::new(), buffer: Vec::with_capacity(BUFFER), used: 0 }
    }

    pub(crate) async fn exchange(&mut self, shape: &RequestShape, number: u64, last: bool) -> Result<LoadResponse> {
        write(&mut self.request, shape, number, last);
        self.stream.write_all(&self.request).await.context("cannot send the request")?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<LoadResponse> {
        let head = self.head().await?;
        let text = std::str::from_utf8(&self.buffer[self.used..head]).context("the head is not text")?;
        let (answer, length) = read_head(text)?;
        self.used = head;
        let mut answer = answer;
        let mut follow = BodyChecker::default();
        match length {
            Some(length) => self.body(length, &mut follow).await?,
            None => loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(&size, 16).with_context(|| format!("a chunk of size {size:?}"))?;
                self.body(size, &mut follow).await?;
                let end = self.line().await?;
                ensure!(end.is_empty(), "a chunk or the body ends in {end:?}");
                if size == 0 {
                    break;
                }
            },
        }
        (answer.length, answer.differs) = (follow.length, follow.differs);
        // No further request was sent, so there must be no more bytes.
        ensure!(self.used == self.buffer.len(), "{} bytes after the response", self.buffer.len() - self.used);
        self.buffer.clear();
        self.used = 0;
        Ok(answer)
    }

    /// Waits for the complete head and returns its end.
    async fn head(&mut self) -> Result<usize> {
        loop {
            let unread = &self.buffer[self.used..];
            if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(self.used + at + 4);
            }
            let inside = unread.len();
            if self.fill().await? == 0 {
                bail!("the connection closed {inside} bytes into the head of a response");
            }
        }
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            let unread = &self.buffer[self.used..];
            if let Some(at) = unread.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..at]).into_owned();
                self.used += at + 2;
                return Ok(line);
            }
            ensure!(self.fill().await? > 0, "the connection closed in the middle of a body");
        }
    }

    async fn body(&mut self, length: usize, follow: &mut BodyChecker) -> Result<()> {
        let mut left = length;
        loop {
            let unread = &self.buffer[self.used..];
            let part = &unread[..unread.len().min(left)];
            follow.read(part);
            left -= part.len();
            self.used += part.len();
            if left == 0 {
                return Ok(());
            }
            ensure!(self.fill().await? > 0, "the connection closed {left} bytes before the end of a body of {length}");
        }
    }

    async fn fill(&mut self) -> Result<usize> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        self.stream.read_buf(&mut self.buffer).await.context("cannot read the response")
    }
}

pub(crate) fn write(request: &mut Vec<u8>, shape: &RequestShape, number: u64, last: bool) {
    use std::io::Write as _;
    request.clear();
    let RequestShape { method, host, path, fields, .. } = shape;
    let into_memory = "writing to a Vec succeeds";
    write!(request, "{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-number: {number}\r\n{fields}").expect(into_memory);
    if last {
        request.extend_from_slice(b"connection: close\r\n");
    }
    let body = pattern::body(shape.body.unwrap_or_default());
    if shape.chunked {
        request.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in body.chunks(CHUNK) {
            write!(request, "{:x}\r\n", chunk.len()).expect(into_memory);
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        return;
    }
    if shape.body.is_some() {
        write!(request, "content-length: {}\r\n", body.len()).expect(into_memory);
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
}

/// Parses the head. Returns the length of the body, `None` if it is chunked.
fn read_head(text: &str) -> Result<(LoadResponse, Option<usize>)> {
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let mut answer = LoadResponse {
        status: status.with_context(|| format!("no status line: {first:?}"))?,
        ..LoadResponse::default()
    };
    let (mut length, mut chunked) = (None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').with_context(|| format!("invalid header field: {line:?}"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "x-backend" => value.clone_into(&mut answer.backend),
            "x-rule" => value.clone_into(&mut answer.rule),
            "x-number" => answer.number = value.parse().ok(),
            "x-received" => answer.received = value.parse().ok(),
            "connection" => answer.closes |= value.eq_ignore_ascii_case("close"),
            "content-length" => {
                ensure!(length.is_none(), "two lengths");
                length = Some(value.parse().with_context(|| format!("a length of {value:?}"))?);
            }
            "transfer-encoding" => {
                ensure!(value == "chunked" && !chunked, "a coding of {value:?}");
                chunked = true;
            }
            _ => {}
        }
    }
    ensure!(length.is_some() != chunked, "the response needs either a length or chunks");
    Ok((answer, length))
}

/// Size of request chunks: not a power of two, so that chunks straddle buffers.
const CHUNK: usize = 3000;
const BUFFER: usize = 128 * 1024;
