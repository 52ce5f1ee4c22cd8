//! Counts the bytes of heads on both sides of the proxy, observed as client and as backend ("endpoint").

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::plugin_bench::PluginBench;
use super::variant::{AddedFields, Variant};
use crate::backend::ECHO_HEAD_PATH;
use crate::raw_exchange::{exchange, fields};

/// Sizes of the heads of each variant, and the heads of the plain route and of the chain.
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
    /// The head of the request, as received by the endpoint.
    request: String,
    /// The head of the response, as received by the client.
    response: String,
}

impl Wire {
    /// Sends a request of a variant through the proxy and to its endpoint, and records the sizes of the heads.
    pub(super) async fn observe(&mut self, bench: &PluginBench, proxy: SocketAddr, variant: &Variant) -> Result<()> {
        let mut shape = bench.shapes(variant, None).swap_remove(0);
        let (from_client, response) = exchange(proxy, &shape).await?;
        let (_, from_endpoint) = exchange(bench.endpoint(variant), &shape).await?;
        shape.path = ECHO_HEAD_PATH.to_owned();
        let (_, echo) = exchange(proxy, &shape).await?;
        let heads = Heads { request: echo.body, response: response.head };
        self.rows.push(Row {
            name: variant.name,
            imitates: variant.imitates(),
            from_client,
            // The size with the path `/`, although the head was observed with a longer path.
            to_endpoint: heads.request.len() + 1 - ECHO_HEAD_PATH.len(),
            from_endpoint: from_endpoint.head.len(),
            to_client: heads.response.len(),
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
        // The API key is not copied: the imitating clients send it as their credential.
        let is_key = |name: &str| name.eq_ignore_ascii_case("apikey");
        let added_fields = AddedFields {
            request: added(&plain.request, &chain.request).filter(|(name, _)| !is_key(name)).collect(),
            response: added(&plain.response, &chain.response).collect(),
        };
        for variant in variants.iter_mut().filter(|variant| variant.imitates()) {
            variant.added_fields = added_fields.clone();
        }
    }

    /// Fails unless the imitating variants have about as many bytes as the chain.
    pub(super) fn check(&self) -> Result<()> {
        let chain = self.chain.as_ref().context("the chain was not observed")?;
        for row in self.rows.iter().filter(|row| row.imitates) {
            let (request, response) = (chain.request.len() + 1 - ECHO_HEAD_PATH.len(), chain.response.len());
            let is_alike =
                row.to_endpoint.abs_diff(request) <= TOLERANCE && row.to_client.abs_diff(response) <= TOLERANCE;
            ensure!(
                is_alike,
                "{}: {} and {} bytes instead of {request} and {response}",
                row.name,
                row.to_endpoint,
                row.to_client
            );
        }
        Ok(())
    }
}

/// Bytes by which heads may differ, because counters in ids and numbers of remaining requests have fewer or more
/// digits.
const TOLERANCE: usize = 12;

/// The fields of a head whose names are missing in the head of the plain route.
fn added<'h>(plain: &'h str, head: &'h str) -> impl Iterator<Item = (String, String)> + 'h {
    let is_new = |name: &str| !fields(plain).any(|(known, _)| known.eq_ignore_ascii_case(name));
    fields(head).filter(move |(name, _)| is_new(name)).map(|(name, value)| (name.to_owned(), value.to_owned()))
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
        for (name, value) in added(&plain.request, &chain.request).chain(added(&plain.response, &chain.response)) {
            writeln!(f, "    {name}: {value}")?;
        }
        Ok(())
    }
}
