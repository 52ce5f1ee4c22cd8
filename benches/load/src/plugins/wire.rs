//! Bytes on both sides of the proxy, observed as client and as endpoint.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::variant::{AddedFields, Variant};
use super::world::PluginBench;
use crate::backend::HEAD;
use crate::http1;

/// Sizes of heads.
#[derive(Default)]
pub(super) struct Wire {
    rows: Vec<Row>,
    plain: Option<Heads>,
    chain: Option<Heads>,
}

struct Row {
    name: &'static str,
    /// Has the bytes of the chain without its plugins.
    imitates: bool,
    from_client: usize,
    to_endpoint: usize,
    from_endpoint: usize,
    to_client: usize,
}

struct Heads {
    /// As received by the endpoint.
    request: String,
    /// As received by the client.
    answer: String,
}

impl Wire {
    pub(super) async fn observe(&mut self, world: &PluginBench, proxy: SocketAddr, variant: &Variant) -> Result<()> {
        let mut shape = world.shapes(variant, None).swap_remove(0);
        let (from_client, answer) = exchange(proxy, &shape).await?;
        let (_, from_endpoint) = exchange(world.endpoint(variant), &shape).await?;
        shape.path = HEAD.to_owned();
        let (_, echo) = exchange(proxy, &shape).await?;
        let heads = Heads { request: echo.body, answer: answer.head };
        self.rows.push(Row {
            name: variant.name,
            imitates: variant.imitates(),
            from_client,
            // The path of the observed request is longer than `/`.
            to_endpoint: heads.request.len() + 1 - HEAD.len(),
            from_endpoint: from_endpoint.head.len(),
            to_client: heads.answer.len(),
        });
        if variant.is_plain() {
            self.plain = Some(heads);
        } else if variant.is_chain() {
            self.chain = Some(heads);
        }
        Ok(())
    }

    /// Passes the fields that the chain adds to the variants that imitate it.
    pub(super) fn copy_added_fields(&self, variants: &mut [Variant]) {
        let (Some(plain), Some(chain)) = (&self.plain, &self.chain) else { return };
        // The key is sent as a credential already.
        let shown = |name: &str| name.eq_ignore_ascii_case("apikey");
        let learned = AddedFields {
            request: added(&plain.request, &chain.request).filter(|(name, _)| !shown(name)).collect(),
            answer: added(&plain.answer, &chain.answer).collect(),
        };
        for variant in variants.iter_mut().filter(|variant| variant.imitates()) {
            variant.added_fields = learned.clone();
        }
    }

    /// Whether the imitating variants have as many bytes, except for numbers with another length.
    pub(super) fn check(&self) -> Result<()> {
        let chain = self.chain.as_ref().context("the chain was not seen")?;
        for row in self.rows.iter().filter(|row| row.imitates) {
            let (request, answer) = (chain.request.len() + 1 - HEAD.len(), chain.answer.len());
            let is_alike = row.to_endpoint.abs_diff(request) <= DIGITS && row.to_client.abs_diff(answer) <= DIGITS;
            ensure!(
                is_alike,
                "{}: {} and {} bytes instead of {request} and {answer}",
                row.name,
                row.to_endpoint,
                row.to_client
            );
        }
        Ok(())
    }
}

/// Tolerance for digits of counters in ids and remaining requests.
const DIGITS: usize = 12;

struct Answer {
    head: String,
    body: String,
}

/// Sends one request on a new connection. Returns the number of sent bytes and the response.
async fn exchange(target: SocketAddr, shape: &crate::RequestShape) -> Result<(usize, Answer)> {
    let mut stream = TcpStream::connect(target).await.context("cannot connect")?;
    let mut request = Vec::new();
    http1::write(&mut request, shape, 0, false);
    stream.write_all(&request).await?;
    let mut text = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut text).await? > 0, "the response ends early");
        let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(text[..at + 4].to_vec()).context("the head is not UTF-8")?;
        let length = fields(&head).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let (_, length) = length.with_context(|| format!("a response without a length:\n{head}"))?;
        let body = &text[at + 4..];
        if body.len() >= length.parse()? {
            ensure!(head.starts_with("HTTP/1.1 200"), "not a 200 response:\n{head}");
            return Ok((request.len(), Answer { body: String::from_utf8_lossy(body).into_owned(), head }));
        }
    }
}

fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "))
}

/// Fields in one head whose names are missing in the other.
fn added<'h>(plain: &'h str, with: &'h str) -> impl Iterator<Item = (String, String)> + 'h {
    let is_new = |name: &str| !fields(plain).any(|(known, _)| known.eq_ignore_ascii_case(name));
    fields(with).filter(move |(name, _)| is_new(name)).map(|(name, value)| (name.to_owned(), value.to_owned()))
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nBytes of heads")?;
        writeln!(
            f,
            "  {:<42} {:>11} {:>12} {:>14} {:>10}",
            "", "from client", "to endpoint", "from endpoint", "to client"
        )?;
        for row in &self.rows {
            let Row { name, from_client, to_endpoint, from_endpoint, to_client, .. } = row;
            writeln!(f, "  {name:<42} {from_client:>11} {to_endpoint:>12} {from_endpoint:>14} {to_client:>10}")?;
        }
        let (Some(plain), Some(chain)) = (&self.plain, &self.chain) else { return Ok(()) };
        writeln!(f, "\n  The chain adds to requests and responses:")?;
        for (name, value) in added(&plain.request, &chain.request).chain(added(&plain.answer, &chain.answer)) {
            writeln!(f, "    {name}: {value}")?;
        }
        Ok(())
    }
}
