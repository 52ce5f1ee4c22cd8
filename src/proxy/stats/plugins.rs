//! How long plugins take, by their name. Names are those of the program, so that their number is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{Ledger, Stats};
use crate::plugin::times::{Phase, Took};

/// In nanoseconds. Most plugins decide at once; some ask a server.
const BOUNDS: [u64; 14] = [
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// Of one plugin in one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations {
    /// One more than `BOUNDS`: what is longer than all of them.
    counts: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

pub(super) type ByPlugin = BTreeMap<(&'static str, Phase), Durations>;

impl Durations {
    fn add(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[BOUNDS.partition_point(|bound| *bound < nanoseconds)] += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
    }

    fn join(&mut self, other: &Durations) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }
}

impl Ledger {
    /// Once for a request that met plugins.
    pub(crate) fn plugins(&self, times: impl Iterator<Item = Took>) {
        let mut plugins = self.plugins.lock();
        for Took { plugin, phase, time } in times {
            plugins.entry((plugin, phase)).or_default().add(time);
        }
    }
}

impl Stats {
    pub(super) fn encode_plugins(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut all = ByPlugin::new();
        for ledger in &self.ledgers {
            let plugins = ledger.plugins.lock().clone();
            for (key, durations) in &plugins {
                all.entry(*key).or_default().join(durations);
            }
        }
        let mut family = encoder.encode_descriptor(
            "portico_plugin_duration_seconds",
            "How long plugins took, waiting for other servers included",
            None,
            MetricType::Histogram,
        )?;
        for ((plugin, phase), durations) in &all {
            let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e9).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(durations.counts).collect();
            let (sum, count) = (durations.nanoseconds as f64 / 1e9, durations.counts.iter().sum());
            let pairs = [("plugin", *plugin), ("phase", phase.word())];
            family.encode_family(&pairs)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::exposition::testing::{has, scrape};
    use super::*;

    #[test]
    fn plugins_of_all_workers_are_one_series_each() {
        let stats = Arc::new(Stats::new(2, 10, Arc::default()));
        for worker in 0..2 {
            let took = |phase, micros| Took { plugin: "jwt", phase, time: Duration::from_micros(micros) };
            stats.ledger(worker).plugins([took(Phase::Access, 5), took(Phase::Answer, 20_000_000)].into_iter());
        }
        let text = scrape(stats);
        let labels = |phase: &str| format!(r#"plugin="jwt",phase="{phase}""#);
        has(&text, &format!(r#"portico_plugin_duration_seconds_bucket{{le="0.000001",{}}} 0"#, labels("access")));
        has(&text, &format!(r#"portico_plugin_duration_seconds_bucket{{le="0.000005",{}}} 2"#, labels("access")));
        has(&text, &format!(r#"portico_plugin_duration_seconds_bucket{{le="5.0",{}}} 0"#, labels("answer")));
        has(&text, &format!("portico_plugin_duration_seconds_sum{{{}}} 40.0", labels("answer")));
    }
}
