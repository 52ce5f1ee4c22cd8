//! One request and the bytes of its response, for checks of what a proxy adds.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http1;
use crate::plan::RequestShape;

/// The head and the body of a response.
pub(crate) struct RawResponse {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends one request on a new connection. Returns the number of sent bytes and the response.
pub(crate) async fn exchange(target: SocketAddr, shape: &RequestShape) -> Result<(usize, RawResponse)> {
    let mut stream = TcpStream::connect(target).await.context("cannot connect")?;
    let mut request = Vec::new();
    http1::write_request(&mut request, shape, 0, false);
    stream.write_all(&request).await?;
    let mut text = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut text).await? > 0, "the response ends early");
        let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(text[..at + 4].to_vec()).context("the head of the response is not UTF-8")?;
        let length = fields(&head).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let (_, length) = length.with_context(|| format!("the response has no Content-Length:\n{head}"))?;
        let body = &text[at + 4..];
        if body.len() >= length.parse()? {
            ensure!(head.starts_with("HTTP/1.1 200"), "the status is not 200:\n{head}");
            return Ok((request.len(), RawResponse { body: String::from_utf8_lossy(body).into_owned(), head }));
        }
    }
}

/// The fields of a head.
pub(crate) fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "))
}
