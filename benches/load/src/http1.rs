//! An HTTP/1.1 client that rejects what lenient clients accept, such as bytes after a response.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pattern::{self, BodyChecker};
use crate::plan::RequestShape;

/// The verified parts of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadResponse {
    pub status: u16,
    /// Name of the backend that responded.
    pub backend: String,
    /// The value of `x-rule`, which a filter of the rule adds to the request, as received by the backend.
    pub rule: String,
    /// Number of the request, as received by the backend.
    pub number: Option<u64>,
    /// Length of the request body that the backend received; `None` if its bytes were wrong.
    pub received: Option<usize>,
    /// Length of the response body.
    pub length: usize,
    /// The response body differs from the expected one.
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
    /// The number of bytes of the buffer that were consumed.
    used: usize,
}

impl Connection {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Connection { stream, request: Vec::new(), buffer: Vec::with_capacity(BUFFER_SIZE), used: 0 }
    }

    /// Sends a request and reads its response. With `last`, the request has `Connection: close`.
    pub(crate) async fn exchange(&mut self, shape: &RequestShape, number: u64, last: bool) -> Result<LoadResponse> {
        write_request(&mut self.request, shape, number, last);
        self.stream.write_all(&self.request).await.context("cannot send the request")?;
        self.read_response().await
    }

    async fn read_response(&mut self) -> Result<LoadResponse> {
        let head_end = self.read_head().await?;
        let text = std::str::from_utf8(&self.buffer[self.used..head_end]).context("the head is not text")?;
        let (mut response, length) = parse_head(text)?;
        self.used = head_end;
        let mut checker = BodyChecker::default();
        match length {
            Some(length) => self.read_body(length, &mut checker).await?,
            None => loop {
                let size = self.read_line().await?;
                let size = usize::from_str_radix(&size, 16).with_context(|| format!("invalid chunk size {size:?}"))?;
                self.read_body(size, &mut checker).await?;
                let end = self.read_line().await?;
                ensure!(end.is_empty(), "expected an empty line after a chunk or the body, got {end:?}");
                if size == 0 {
                    break;
                }
            },
        }
        (response.length, response.differs) = (checker.length, checker.differs);
        // No further request was sent, so there must be no more bytes.
        ensure!(
            self.used == self.buffer.len(),
            "{} unexpected bytes after the response",
            self.buffer.len() - self.used
        );
        self.buffer.clear();
        self.used = 0;
        Ok(response)
    }

    /// Waits for the complete head and returns its end.
    async fn read_head(&mut self) -> Result<usize> {
        loop {
            let unread = &self.buffer[self.used..];
            if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(self.used + at + 4);
            }
            let received = unread.len();
            if self.fill().await? == 0 {
                bail!("the connection closed {received} bytes into the head of a response");
            }
        }
    }

    async fn read_line(&mut self) -> Result<String> {
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

    async fn read_body(&mut self, length: usize, checker: &mut BodyChecker) -> Result<()> {
        let mut missing = length;
        loop {
            let unread = &self.buffer[self.used..];
            let part = &unread[..unread.len().min(missing)];
            checker.read(part);
            missing -= part.len();
            self.used += part.len();
            if missing == 0 {
                return Ok(());
            }
            ensure!(
                self.fill().await? > 0,
                "the connection closed {missing} bytes before the end of a body of {length}"
            );
        }
    }

    /// Reads more bytes and returns their number, 0 if the connection is closed.
    async fn fill(&mut self) -> Result<usize> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        self.stream.read_buf(&mut self.buffer).await.context("cannot read the response")
    }
}

pub(crate) fn write_request(request: &mut Vec<u8>, shape: &RequestShape, number: u64, last: bool) {
    use std::io::Write as _;
    request.clear();
    let RequestShape { method, host, path, fields, .. } = shape;
    let infallible = "writing to a Vec succeeds";
    write!(request, "{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-number: {number}\r\n{fields}").expect(infallible);
    if last {
        request.extend_from_slice(b"connection: close\r\n");
    }
    let body = pattern::body(shape.body.unwrap_or_default());
    if shape.chunked {
        request.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in body.chunks(CHUNK_SIZE) {
            write!(request, "{:x}\r\n", chunk.len()).expect(infallible);
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        return;
    }
    if shape.body.is_some() {
        write!(request, "content-length: {}\r\n", body.len()).expect(infallible);
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
}

/// Parses the head of a response. The second value is the length of the body, `None` if it is chunked.
fn parse_head(text: &str) -> Result<(LoadResponse, Option<usize>)> {
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let mut response = LoadResponse {
        status: status.with_context(|| format!("no status line: {first:?}"))?,
        ..LoadResponse::default()
    };
    let (mut length, mut chunked) = (None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').with_context(|| format!("invalid header field: {line:?}"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "x-backend" => value.clone_into(&mut response.backend),
            "x-rule" => value.clone_into(&mut response.rule),
            "x-number" => response.number = value.parse().ok(),
            "x-received" => response.received = value.parse().ok(),
            "connection" => response.closes |= value.eq_ignore_ascii_case("close"),
            "content-length" => {
                ensure!(length.is_none(), "two Content-Length fields");
                length = Some(value.parse().with_context(|| format!("invalid Content-Length {value:?}"))?);
            }
            "transfer-encoding" => {
                ensure!(value == "chunked" && !chunked, "expected Transfer-Encoding chunked once, got {value:?}");
                chunked = true;
            }
            _ => {}
        }
    }
    ensure!(length.is_some() != chunked, "expected exactly one of Content-Length and Transfer-Encoding");
    Ok((response, length))
}

/// Size of request chunks: not a power of two, so that chunks straddle buffers.
const CHUNK_SIZE: usize = 3000;
const BUFFER_SIZE: usize = 128 * 1024;
