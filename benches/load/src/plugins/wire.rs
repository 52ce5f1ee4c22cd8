//! Counts the bytes of heads on both sides of the proxy, observed as client and as backend ("endpoint").

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::plugin_bench::PluginBench;
use super::variant::Variant;
use crate::heads::Heads;
use crate::raw_exchange::exchange;

/// The heads of each variant, and those of the plain route and of the chain once more.
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
    from_endpoint: usize,
    heads: Heads,
}

impl Wire {
    /// Sends a request of a variant through the proxy and to its endpoint, and records the sizes of the heads.
    pub(super) async fn observe(&mut self, bench: &PluginBench, proxy: SocketAddr, variant: &Variant) -> Result<()> {
        let shape = bench.shapes(variant, None).swap_remove(0);
        let (from_client, _) = exchange(proxy, &shape).await?;
        let (_, from_endpoint) = exchange(bench.endpoint(variant), &shape).await?;
        let heads = Heads::observe(proxy, &shape).await?;
        if variant.is_plain() {
            self.plain = Some(heads.clone());
        } else if variant.is_chain() {
            self.chain = Some(heads.clone());
        }
        self.rows.push(Row {
            name: variant.name,
            imitates: variant.imitates(),
            from_client,
            from_endpoint: from_endpoint.head.len(),
            heads,
        });
        Ok(())
    }

    /// Passes the fields that the chain adds to the variants that imitate it.
    pub(super) fn copy_added_fields(&self, variants: &mut [Variant]) {
        let (Some(plain), Some(chain)) = (&self.plain, &self.chain) else { return };
        let mut added_fields = chain.added_to(plain);
        // The API key is not copied: the imitating clients send it as their credential.
        added_fields.request.retain(|(name, _)| !name.eq_ignore_ascii_case("apikey"));
        added_fields.lengthen(chain.longer_values_than(plain));
        for variant in variants.iter_mut().filter(|variant| variant.imitates()) {
            variant.added_fields = added_fields.clone();
        }
    }

    /// Fails unless the imitating variants have about as many bytes as the chain.
    pub(super) fn check(&self) -> Result<()> {
        let chain = self.chain.as_ref().context("the chain was not observed")?;
        let mut imitations = self.rows.iter().filter(|row| row.imitates);
        imitations.try_for_each(|row| row.heads.ensure_same_bytes(row.name, chain))
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nBytes of heads")?;
        writeln!(
            f,
            "  {:<42} {:>11} {:>12} {:>14} {:>10}",
            "", "from client", "to endpoint", "from endpoint", "to client"
        )?;
        for Row { name, from_client, from_endpoint, heads, .. } in &self.rows {
            let (to_endpoint, to_client) = (heads.request.len(), heads.response.len());
            writeln!(f, "  {name:<42} {from_client:>11} {to_endpoint:>12} {from_endpoint:>14} {to_client:>10}")?;
        }
        let (Some(plain), Some(chain)) = (&self.plain, &self.chain) else { return Ok(()) };
        writeln!(f, "\n  The chain adds to requests and responses:")?;
        let added = chain.added_to(plain);
        for (name, value) in added.request.iter().chain(&added.response) {
            writeln!(f, "    {name}: {value}")?;
        }
        Ok(())
    }
}
