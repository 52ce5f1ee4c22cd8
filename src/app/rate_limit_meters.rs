//! Metrics of the entries of rate-limiting: how many there are, how many there may be, and how often there was no room.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::metrics::{encode_counter, encode_gauge};
use crate::plugin_kit::counting::EntryBudget;

/// Reads the numbers at each scrape. It also keeps the budget, with the limit of the flag, until plugins use it.
#[derive(Debug)]
pub(super) struct RateLimitMeters(pub(super) Arc<EntryBudget>);

impl Collector for RateLimitMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauges = [
            ("portico_rate_limit_entries", "Identifiers that rate-limiting counts in memory", self.0.used()),
            ("portico_rate_limit_entries_limit", "Limit of portico_rate_limit_entries", self.0.limit()),
        ];
        for (name, help, entries) in gauges {
            encode_gauge(&mut encoder, name, help, entries as u64)?;
        }
        let help =
            "Requests that rate-limiting counted together with those of other identifiers, because there was no room";
        encode_counter(&mut encoder, "portico_rate_limit_shared_counts", help, self.0.shared_counts())
    }
}
