//! What goes over the wire on either side of the proxy, as somebody sees who sends a request and is its endpoint.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::variant::{Learned, Variant};
use super::world::World;
use crate::backend::HEAD;
use crate::http1;

/// Bytes of heads.
#[derive(Default)]
pub(super) struct Wire {
    rows: Vec<Row>,
    plain: Option<Heads>,
    chain: Option<Heads>,
}

struct Row {
    name: &'static str,
    /// Has the bytes of the chain.
    imitates: bool,
    from_client: usize,
    to_endpoint: usize,
    from_endpoint: usize,
    to_client: usize,
}

struct Heads {
    /// As the endpoint got it.
    request: String,
    /// As the client got it.
    answer: String,
}

impl Wire {
    pub(super) async fn see(&mut self, world: &World, proxy: SocketAddr, variant: &Variant) -> Result<()> {
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
            // The path of the request that was looked at is longer than `/`.
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

    /// Tells those that imitate the chain what it adds.
    pub(super) fn teach(&self, variants: &mut [Variant]) {
        let (Some(plain), Some(chain)) = (&self.plain, &self.chain) else { return };
        // The key is sent by whoever shows it.
        let shown = |name: &str| name.eq_ignore_ascii_case("apikey");
        let learned = Learned {
            request: added(&plain.request, &chain.request).filter(|(name, _)| !shown(name)).collect(),
            answer: added(&plain.answer, &chain.answer).collect(),
        };
        for variant in variants.iter_mut().filter(|variant| variant.imitates()) {
            variant.learned = learned.clone();
        }
    }

    /// Whether those that imitate the chain have as many bytes, but for numbers that became shorter or longer.
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

/// Of counters in ids and in how many requests are left.
const DIGITS: usize = 12;

struct Answer {
    head: String,
    body: String,
}

/// One request over a connection of its own, by how many bytes it has, and the answer.
async fn exchange(target: SocketAddr, shape: &crate::Shape) -> Result<(usize, Answer)> {
    let mut stream = TcpStream::connect(target).await.context("cannot connect")?;
    let mut request = Vec::new();
    http1::write(&mut request, shape, 0, false);
    stream.write_all(&request).await?;
    let mut text = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut text).await? > 0, "the answer ends early");
        let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(text[..at + 4].to_vec()).context("the head is no text")?;
        let length = fields(&head).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let (_, length) = length.with_context(|| format!("an answer without a length:\n{head}"))?;
        let body = &text[at + 4..];
        if body.len() >= length.parse()? {
            ensure!(head.starts_with("HTTP/1.1 200"), "no good answer:\n{head}");
            return Ok((request.len(), Answer { body: String::from_utf8_lossy(body).into_owned(), head }));
        }
    }
}

fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "))
}

/// The fields of one head whose names the other does not have.
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
        writeln!(f, "\n  The chain adds, to requests and to answers:")?;
        for (name, value) in added(&plain.request, &chain.request).chain(added(&plain.answer, &chain.answer)) {
            writeln!(f, "    {name}: {value}")?;
        }
        Ok(())
    }
}
