//! The metrics of ingress-nginx, with `--nginx-metrics`: its names, labels and buckets, for dashboards made for it.
//!
//! Requests are counted by the proxy; everything else is read at each scrape.

mod certificates;
mod controller_labels;
mod orphans;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

pub(super) use self::controller_labels::ControllerLabels;
use super::change_meters::ServedSnapshots;
use super::fingerprint_cache::FingerprintCache;
use crate::args::NginxMetricsOptions;
use crate::k8s::permissions::LEASE;
use crate::metrics::ProcessUsage;
use crate::proxy::{LocationCounts, LocationHistogram, LocationLabels, LocationMetrics, ProxyStats};
use crate::snapshot::Snapshot;
use crate::version;

/// The sources of the metrics.
#[derive(Debug)]
pub(super) struct NginxMeters {
    pub(super) controller: ControllerLabels,
    pub(super) options: NginxMetricsOptions,
    /// Limit of Ingresses and certificates with series.
    pub(super) max_series: usize,
    pub(super) stats: Arc<ProxyStats>,
    pub(super) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(super) fingerprints: Arc<FingerprintCache>,
    pub(super) served: ServedSnapshots,
    /// Present only with a cluster.
    pub(super) leading: Option<watch::Receiver<bool>>,
    pub(super) started: SystemTime,
}

/// What the proxy counts for these metrics.
pub(super) fn location_metrics(options: NginxMetricsOptions) -> LocationMetrics {
    LocationMetrics {
        has_host: options.per_host,
        counts_undefined_hosts: options.per_undefined_host,
        has_status_classes: options.status_classes,
    }
}

impl Collector for NginxMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.encode_requests(encoder)?;
        self.encode_connections(encoder)?;
        self.encode_process(encoder)?;
        self.encode_configuration(encoder)?;
        let snapshot = self.snapshots.load_full();
        certificates::encode(encoder, &snapshot, &self.controller.class, self.max_series)?;
        orphans::encode(encoder, &snapshot, &self.controller, self.max_series)
    }
}

impl NginxMeters {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let locations = self.stats.locations();
        // A counter would get the suffix `_total`, which the name in ingress-nginx lacks.
        let mut family = encoder.encode_descriptor(
            "nginx_ingress_controller_requests",
            "Requests that have ended",
            None,
            MetricType::Unknown,
        )?;
        for (labels, counts) in &locations {
            family.encode_family(&self.request_labels(labels))?.encode_gauge(&counts.requests)?;
        }
        for (name, help, histogram) in HISTOGRAMS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (labels, counts) in &locations {
                let histogram = histogram(counts);
                // As in ingress-nginx, there is no series for what has never been measured.
                if histogram.count() == 0 {
                    continue;
                }
                let buckets: Vec<_> = histogram.buckets().collect();
                let labels = self.request_labels(labels);
                let mut series = family.encode_family(&labels)?;
                series.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &buckets, None)?;
            }
        }
        Ok(())
    }

    fn request_labels<'l>(&'l self, labels: &'l LocationLabels) -> Vec<(&'l str, &'l str)> {
        let mut all = self.controller.with(&[
            ("status", &*labels.status),
            ("method", labels.method),
            ("path", &*labels.path),
            ("namespace", &*labels.namespace),
            ("ingress", &*labels.ingress),
            ("service", &*labels.service),
            ("canary", &*labels.alternative),
        ]);
        all.extend(self.options.per_host.then_some(("host", &*labels.host)));
        all
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let active = self.stats.connections();
        let waiting = self.stats.idle_connections().min(active);
        // What a connection that is not idle does changes with each byte.
        let states = [("active", active), ("reading", 0), ("writing", active - waiting), ("waiting", waiting)];
        let help = "Open client connections, by state";
        let mut gauge = encoder.encode_descriptor(
            "nginx_ingress_controller_nginx_process_connections",
            help,
            None,
            MetricType::Gauge,
        )?;
        for (state, count) in states {
            gauge.encode_family(&self.controller.with(&[("state", state)]))?.encode_gauge(&count)?;
        }
        let accepted = self.stats.accepted();
        let help = "Client connections since the start, by state";
        // As a counter, the family would have the name of the one above.
        let mut total = encoder.encode_descriptor(
            "nginx_ingress_controller_nginx_process_connections_total",
            help,
            None,
            MetricType::Unknown,
        )?;
        for state in ["accepted", "handled"] {
            total.encode_family(&self.controller.with(&[("state", state)]))?.encode_gauge(&accepted)?;
        }
        let name = "nginx_ingress_controller_nginx_process_requests";
        self.encode_counter(encoder, name, "Requests since the start", self.stats.requests() as f64)
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ProcessUsage { cpu_time, resident_bytes, virtual_bytes, read_bytes, written_bytes } = ProcessUsage::now();
        let counters = [
            (
                "nginx_ingress_controller_nginx_process_cpu_seconds",
                "CPU time used",
                cpu_time.map(|time| time.as_secs_f64()),
            ),
            (
                "nginx_ingress_controller_nginx_process_read_bytes",
                "Bytes read from storage",
                read_bytes.map(|bytes| bytes as f64),
            ),
            (
                "nginx_ingress_controller_nginx_process_write_bytes",
                "Bytes written to storage",
                written_bytes.map(|bytes| bytes as f64),
            ),
        ];
        for (name, help, value) in counters {
            if let Some(value) = value {
                self.encode_counter(encoder, name, help, value)?;
            }
        }
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let gauges = [
            ("nginx_ingress_controller_nginx_process_num_procs", "Processes", Some(1)),
            (
                "nginx_ingress_controller_nginx_process_oldest_start_time_seconds",
                "When the process started, in Unix time",
                Some(started),
            ),
            ("nginx_ingress_controller_nginx_process_resident_memory_bytes", "Memory that is in RAM", resident_bytes),
            ("nginx_ingress_controller_nginx_process_virtual_memory_bytes", "Memory that is mapped", virtual_bytes),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                self.encode_gauge(encoder, (name, help, MetricType::Gauge), &[], value)?;
            }
        }
        Ok(())
    }

    /// What ingress-nginx calls a reload is a new snapshot, which cannot fail: an object with a mistake has a verdict.
    fn encode_configuration(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let build =
            [("build", version::COMMIT.unwrap_or_default()), ("release", version::VERSION), ("repository", "portico")];
        self.encode_gauge(
            encoder,
            ("nginx_ingress_controller_build_info", "Which build this is; always 1", MetricType::Gauge),
            &build,
            1,
        )?;
        let revision = self.served.revision.get();
        let gauges = [
            (
                "nginx_ingress_controller_config_hash",
                "Hash of the served snapshot",
                self.fingerprints.current().as_metric_value(),
            ),
            (
                "nginx_ingress_controller_config_last_reload_successful",
                "1 from the first snapshot on",
                u64::from(revision > 0),
            ),
            (
                "nginx_ingress_controller_config_last_reload_successful_timestamp_seconds",
                "When the served snapshot came into effect, in Unix time",
                self.served.swapped_at.get(),
            ),
        ];
        for (name, help, value) in gauges {
            self.encode_gauge(encoder, (name, help, MetricType::Gauge), &[], value)?;
        }
        let counts = [
            ("nginx_ingress_controller_success", "Snapshots served since the start", revision),
            (
                "nginx_ingress_controller_errors",
                "Always 0: objects with mistakes have verdicts, and do not prevent a snapshot",
                0,
            ),
        ];
        for (name, help, value) in counts {
            self.encode_gauge(encoder, (name, help, MetricType::Unknown), &[], value)?;
        }
        if let Some(leading) = &self.leading {
            let (leads, name) = (u64::from(*leading.borrow()), [("name", LEASE)]);
            let help = "1 if this replica writes statuses";
            self.encode_gauge(
                encoder,
                ("nginx_ingress_controller_leader_election_status", help, MetricType::Gauge),
                &name,
                leads,
            )?;
        }
        Ok(())
    }

    /// A family with one series.
    fn encode_gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&'static str, &str, MetricType),
        labels: &[(&str, &str)],
        value: u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        family.encode_family(&self.controller.with(labels))?.encode_gauge(&value)
    }

    /// A family with one series, whose name gets the suffix `_total`.
    fn encode_counter(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_family(&self.controller.with(&[]))?.encode_counter::<NoLabelSet, f64, u64>(&value, None)
    }
}

type HistogramOfRequests = (&'static str, &'static str, fn(&LocationCounts) -> &LocationHistogram);

const HISTOGRAMS: [HistogramOfRequests; 7] = [
    (
        "nginx_ingress_controller_request_duration_seconds",
        "From the first byte of a request to the last one of its response",
        |it| &it.duration,
    ),
    (
        "nginx_ingress_controller_response_duration_seconds",
        "From the start of the last attempt to the end of its response",
        |it| &it.response,
    ),
    (
        "nginx_ingress_controller_header_duration_seconds",
        "From the start of the last attempt to the head of its response",
        |it| &it.head,
    ),
    (
        "nginx_ingress_controller_connect_duration_seconds",
        "Time to connect to the endpoint; 0 for a kept connection",
        |it| &it.connect,
    ),
    ("nginx_ingress_controller_request_size", "Bytes of requests, with their heads", |it| &it.received),
    ("nginx_ingress_controller_response_size", "Bytes of responses, with their heads", |it| &it.sent),
    ("nginx_ingress_controller_bytes_sent", "Bytes of responses, with their heads", |it| &it.sent_by_magnitude),
];
