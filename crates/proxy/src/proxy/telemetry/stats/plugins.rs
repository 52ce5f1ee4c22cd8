//! Durations of plugins by plugin name and phase, and response bodies that plugins could not filter. The names come
//! from the program, so their number is bounded.

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

/// The durations of the plugins of one kind in all phases, by [`PluginPhase`].
#[derive(Clone, Debug)]
struct KindDurations {
    plugin: &'static str,
    phases: [PluginDurations; PluginPhase::ALL.len()],
}

/// The durations of all kinds that have run in one worker, in the order of their first run. There are few kinds, so one
/// is found by the address of its name, and no text is compared for a request. A name that the program contains at
/// several addresses has several entries, which a scrape merges.
#[derive(Clone, Debug, Default)]
pub(super) struct DurationsByKind(Vec<KindDurations>);

impl DurationsByKind {
    fn add(&mut self, timing: PhaseTiming) {
        let PhaseTiming { plugin, phase, duration, .. } = timing;
        let index = self.0.iter().position(|kind| std::ptr::eq(kind.plugin, plugin)).unwrap_or_else(|| {
            self.0.push(KindDurations { plugin, phases: Default::default() });
            self.0.len() - 1
        });
        self.0[index].phases[phase as usize].add(duration);
    }

    /// Adds the durations to those of other workers, without phases in which no plugin has run.
    fn merge_into(&self, merged: &mut BTreeMap<(&'static str, PluginPhase), PluginDurations>) {
        for KindDurations { plugin, phases } in &self.0 {
            for (phase, durations) in PluginPhase::ALL.into_iter().zip(phases).filter(|(_, phase)| !phase.is_empty()) {
                merged.entry((plugin, phase)).or_default().merge(durations);
            }
        }
    }
}

/// The durations of one plugin in one phase.
#[derive(Clone, Debug, Default)]
struct PluginDurations {
    /// The last bucket counts durations longer than all `BOUNDS`.
    counts: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

impl PluginDurations {
    fn add(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[BOUNDS.partition_point(|bound| *bound < nanoseconds)] += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    fn merge(&mut self, other: &PluginDurations) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }
}

/// Why a filter did not get a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::proxy) enum UnfilteredBody {
    /// The filter reads text, and the body has a content coding that Portico cannot decode.
    UnknownEncoding,
    /// The body is not in its declared content coding.
    InvalidEncoding,
    /// The body exceeds the limit of the filter, as it was sent or when decoded.
    TooLarge,
    /// The limit of bytes that the process keeps was reached.
    BufferLimit,
}

impl UnfilteredBody {
    fn label(self) -> &'static str {
        match self {
            UnfilteredBody::UnknownEncoding => "unknown_encoding",
            UnfilteredBody::InvalidEncoding => "invalid_encoding",
            UnfilteredBody::TooLarge => "too_large",
            UnfilteredBody::BufferLimit => "buffer_limit",
        }
    }
}

pub(super) type UnfilteredBodies = BTreeMap<(&'static str, UnfilteredBody), u64>;

impl WorkerStats {
    /// Counts a response body that a filter of the plugin did not get.
    pub(in crate::proxy) fn count_unfiltered_body(&self, plugin: &'static str, reason: UnfilteredBody) {
        *self.unfiltered_bodies.lock().entry((plugin, reason)).or_default() += 1;
    }

    /// Records the durations of one request.
    pub(in crate::proxy) fn record_plugins(&self, timings: impl Iterator<Item = PhaseTiming>) {
        let mut plugins = self.plugins.lock();
        for timing in timings {
            plugins.add(timing);
        }
    }
}

impl ProxyStats {
    pub(super) fn encode_plugins(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut merged = BTreeMap::new();
        for stats in &self.workers {
            let plugins = stats.plugins.lock().clone();
            plugins.merge_into(&mut merged);
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
        self.encode_unfiltered_bodies(encoder)
    }

    fn encode_unfiltered_bodies(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut merged = UnfilteredBodies::new();
        for stats in &self.workers {
            for (key, count) in stats.unfiltered_bodies.lock().iter() {
                *merged.entry(*key).or_default() += count;
            }
        }
        let mut family = encoder.encode_descriptor(
            "portico_plugin_unfiltered_bodies",
            "Response bodies that a plugin could not transform, by reason",
            None,
            MetricType::Counter,
        )?;
        for ((plugin, reason), count) in &merged {
            let pairs = [("plugin", *plugin), ("reason", reason.label())];
            family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(count, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::super::exposition::testing::{assert_line, scrape};
    use super::*;

    #[test]
    fn plugin_durations_of_workers_are_merged() {
        let stats = Arc::new(ProxyStats::new(2, 10, Arc::default()));
        for worker in 0..2 {
            let timing = |phase, micros| PhaseTiming {
                plugin: "jwt",
                phase,
                started_at: Instant::now(),
                duration: Duration::from_micros(micros),
            };
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

    #[test]
    fn plugin_durations_are_exported_by_kind_and_phase() {
        let stats = Arc::new(ProxyStats::new(2, 10, Arc::default()));
        // The same name at another address, as of a kind whose name is compiled twice.
        let another_jwt: &'static str = Box::leak(Box::from("jwt"));
        for (worker, plugin, phase, seconds) in [
            (0, "jwt", PluginPhase::Access, 1),
            (0, another_jwt, PluginPhase::Access, 2),
            (0, "cors", PluginPhase::Response, 3),
            (1, "acl", PluginPhase::Access, 4),
            (1, "cors", PluginPhase::Response, 5),
            (1, "cors", PluginPhase::Body, 6),
        ] {
            let timing =
                PhaseTiming { plugin, phase, started_at: Instant::now(), duration: Duration::from_secs(seconds) };
            stats.worker(worker).record_plugins([timing].into_iter());
        }
        let text = scrape(stats);
        let is_sum = |line: &&str| line.starts_with("portico_plugin_duration_seconds_sum");
        let sums: Vec<_> = text.lines().filter(is_sum).collect();
        let expected = [
            r#"portico_plugin_duration_seconds_sum{plugin="acl",phase="access"} 4.0"#,
            r#"portico_plugin_duration_seconds_sum{plugin="cors",phase="response"} 8.0"#,
            r#"portico_plugin_duration_seconds_sum{plugin="cors",phase="body"} 6.0"#,
            r#"portico_plugin_duration_seconds_sum{plugin="jwt",phase="access"} 3.0"#,
        ];
        assert_eq!(sums, expected, "phases in which a plugin did not run have no series");
    }
}
