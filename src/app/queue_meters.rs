//! Metrics of the queues of plugins, by the object that configures the plugin.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::plugin_api::PluginState;
use crate::plugin_api::batch_queue::{QueueCounts, QueuedBytes, queue_counts};

/// Reads the counters at each scrape.
#[derive(Debug)]
pub(super) struct QueueMeters {
    pub(super) state: PluginState,
    pub(super) bytes: Arc<QueuedBytes>,
}

impl Collector for QueueMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts: Vec<(Arc<str>, QueueCounts)> = queue_counts(&self.state);
        let mut pending = encoder.encode_descriptor(
            "portico_plugin_queue_entries",
            "Entries in queues of plugins that wait or are being sent",
            None,
            MetricType::Gauge,
        )?;
        for (object, counts) in &counts {
            let entries = i64::try_from(counts.pending).unwrap_or(i64::MAX);
            pending.encode_family(&[("object", &**object)])?.encode_gauge(&entries)?;
        }
        let bytes = [
            ("portico_plugin_queue_bytes", "Bytes in queues of plugins that wait or are being sent", self.bytes.used()),
            ("portico_plugin_queue_bytes_limit", "Limit of portico_plugin_queue_bytes", self.bytes.limit()),
        ];
        for (name, help, bytes) in bytes {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        type Read = fn(&QueueCounts) -> u64;
        let counters: [(&str, &str, Read); 2] = [
            ("portico_plugin_queue_sent", "Entries of plugins that their server has accepted", |counts| counts.sent),
            ("portico_plugin_queue_retries", "Batches of plugins that were sent again", |counts| counts.retries),
        ];
        for (name, help, read) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (object, counts) in &counts {
                let labels = [("object", &**object)];
                ConstCounter::new(read(counts)).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut dropped = encoder.encode_descriptor(
            "portico_plugin_queue_dropped",
            "Entries of plugins that were dropped",
            None,
            MetricType::Counter,
        )?;
        for (object, counts) in &counts {
            let reasons = [
                ("full", counts.dropped_full),
                ("limit", counts.dropped_limit),
                ("failed", counts.dropped_failed),
                ("stopped", counts.dropped_stopped),
            ];
            for (reason, entries) in reasons {
                let labels = [("object", &**object), ("reason", reason)];
                ConstCounter::new(entries).encode(dropped.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
