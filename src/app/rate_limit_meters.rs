//! Metrics of the entries of rate-limiting: how many there are, how many there may be, and how often there was no room.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::plugin_api::counting::EntryBudget;

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
            let gauge = ConstGauge::new(i64::try_from(entries).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let shared = ConstCounter::new(self.0.shared_counts());
        shared.encode(encoder.encode_descriptor(
            "portico_rate_limit_shared_counts",
            "Requests that rate-limiting counted together with those of other identifiers, because there was no room",
            None,
            shared.metric_type(),
        )?)
    }
}
