//! Durations of plugins by plugin name and phase. The names come from the program, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{ProxyStats, WorkerStats};
use crate::plugin_api::timing::{PhaseTiming, PluginPhase};

/// Histogram buckets in nanoseconds. Most plugins decide at once; some query a server.
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

/// The durations of one plugin in one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct PluginDurations {
    /// The last bucket counts durations longer than all `BOUNDS`.
    counts: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

pub(super) type DurationsByPlugin = BTreeMap<(&'static str, PluginPhase), PluginDurations>;

impl PluginDurations {
    fn add(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[BOUNDS.partition_point(|bound| *bound < nanoseconds)] += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
    }

    fn merge(&mut self, other: &PluginDurations) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }
}

impl WorkerStats {
    /// Records the durations of one request.
    pub(in crate::proxy) fn record_plugins(&self, timings: impl Iterator<Item = PhaseTiming>) {
        let mut plugins = self.plugins.lock();
        for PhaseTiming { plugin, phase, duration } in timings {
            plugins.entry((plugin, phase)).or_default().add(duration);
        }
    }
}

impl ProxyStats {
    pub(super) fn encode_plugins(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut merged = DurationsByPlugin::new();
        for stats in &self.workers {
            let plugins = stats.plugins.lock().clone();
            for (key, durations) in &plugins {
                merged.entry(*key).or_default().merge(durations);
            }
        }
        let mut family = encoder.encode_descriptor(
            "portico_plugin_duration_seconds",
            "Duration of plugins, including requests to other servers",
            None,
            MetricType::Histogram,
        )?;
        for ((plugin, phase), durations) in &merged {
            let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e9).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(durations.counts).collect();
            let (sum, count) = (durations.nanoseconds as f64 / 1e9, durations.counts.iter().sum());
            let pairs = [("plugin", *plugin), ("phase", phase.as_str())];
            family.encode_family(&pairs)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::exposition::testing::{assert_line, scrape};
    use super::*;

    #[test]
    fn plugin_durations_of_workers_are_merged() {
        let stats = Arc::new(ProxyStats::new(2, 10, Arc::default()));
        for worker in 0..2 {
            let timing = |phase, micros| PhaseTiming { plugin: "jwt", phase, duration: Duration::from_micros(micros) };
            stats.worker(worker).record_plugins(
                [timing(PluginPhase::Access, 5), timing(PluginPhase::Response, 20_000_000)].into_iter(),
            );
        }
        let text = scrape(stats);
        let labels = |phase: &str| format!(r#"plugin="jwt",phase="{phase}""#);
        assert_line(
            &text,
            &format!(r#"portico_plugin_duration_seconds_bucket{{le="0.000001",{}}} 0"#, labels("access")),
        );
        assert_line(
            &text,
            &format!(r#"portico_plugin_duration_seconds_bucket{{le="0.000005",{}}} 2"#, labels("access")),
        );
        assert_line(&text, &format!(r#"portico_plugin_duration_seconds_bucket{{le="5.0",{}}} 0"#, labels("response")));
        assert_line(&text, &format!("portico_plugin_duration_seconds_sum{{{}}} 40.0", labels("response")));
    }
}
