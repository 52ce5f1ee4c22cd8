//! The exposition of the series in the Prometheus text format and in OpenMetrics.

use std::fmt::{self, Write};
use std::sync::atomic::Ordering;

use super::histogram::HistogramSnapshot;
use super::series::{KongSeries, SeriesLabels};

/// The format of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KongExpositionFormat {
    /// Text format 0.0.4.
    Text,
    /// OpenMetrics 1.0, without the final `# EOF`.
    OpenMetrics,
}

/// Values of the process at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    /// Name of this replica.
    pub node: String,
    pub version: String,
    /// Requests since the process started.
    pub requests: u64,
    pub connections: ConnectionCounts,
    /// Resident memory of the process in bytes, if known.
    pub memory: Option<u64>,
    /// The process id.
    pub process_id: u32,
    /// The health of endpoints; empty unless [`super::is_health_requested`].
    pub targets: Vec<HealthTarget>,
}

/// Client connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionCounts {
    /// Since the process started.
    pub accepted: u64,
    /// Open now.
    pub active: u64,
}

/// An endpoint of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthTarget {
    /// The upstream's name, such as `cart.shop.80.svc`.
    pub upstream: String,
    /// The endpoint as it is configured.
    pub target: String,
    /// Address and port; empty if the name has no address.
    pub address: String,
    pub state: TargetState,
}

/// The label `state` of `kong_upstream_target_health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// The Service has no health checks, and no connection has failed.
    HealthchecksOff,
    Healthy,
    Unhealthy,
    DnsError,
}

impl KongSeries {
    /// Renders all families. The caller appends the text to Portico's own metrics.
    pub fn render(&self, facts: &ProcessFacts, format: KongExpositionFormat) -> String {
        let mut out = KongMetricsWriter { text: String::new(), format };
        self.write(facts, &mut out).expect("writing to a String does not fail");
        out.text
    }

    fn write(&self, facts: &ProcessFacts, out: &mut KongMetricsWriter) -> fmt::Result {
        self.write_facts(facts, out)?;
        let requests = self.requests.scrape();
        if !requests.is_empty() {
            out.family(
                "http_requests_total",
                KongMetricType::Counter,
                "HTTP status codes per consumer, service and route",
            )?;
            for entry in requests {
                let (labels, count) = (&entry.key, &entry.value);
                let (code, source) =
                    labels.code.map(|label| (label.status.to_string(), label.source())).unwrap_or_default();
                let SeriesLabels { service, route, consumer, .. } = labels;
                let labels = [
                    ("service", &**service),
                    ("route", route),
                    ("code", &code),
                    ("source", source),
                    ("workspace", WORKSPACE),
                    ("consumer", consumer),
                ];
                out.sample("http_requests_total", &labels, count.load(Ordering::Relaxed))?;
            }
        }
        let bandwidth = self.bandwidth.scrape();
        if !bandwidth.is_empty() {
            out.family("bandwidth_bytes", KongMetricType::Counter, "Bytes of bodies per consumer, service and route")?;
            for entry in bandwidth {
                let (labels, bytes) = (&entry.key, &entry.value);
                for (direction, count) in [("egress", &bytes.egress), ("ingress", &bytes.ingress)] {
                    let SeriesLabels { service, route, consumer, .. } = labels;
                    let labels = [
                        ("service", &**service),
                        ("route", route),
                        ("direction", direction),
                        ("workspace", WORKSPACE),
                        ("consumer", consumer),
                    ];
                    out.sample("bandwidth_bytes", &labels, count.load(Ordering::Relaxed))?;
                }
            }
        }
        let latency = self.latency.scrape();
        if latency.is_empty() {
            return Ok(());
        }
        let proxy = latency.iter().map(|entry| (&entry.key, entry.value.proxy.snapshot()));
        out.histograms("kong_latency_ms", "Latency added by the proxy and its plugins", proxy)?;
        let upstream = latency.iter().map(|entry| (&entry.key, entry.value.upstream.snapshot()));
        let upstream = upstream.filter(|(_, snapshot)| snapshot.count > 0);
        out.histograms("upstream_latency_ms", "Latency of the endpoint until its response head", upstream)?;
        let request = latency.iter().map(|entry| (&entry.key, entry.value.request.snapshot()));
        out.histograms("request_latency_ms", "Total latency of requests", request)
    }

    fn write_facts(&self, facts: &ProcessFacts, out: &mut KongMetricsWriter) -> fmt::Result {
        out.family("node_info", KongMetricType::Gauge, "Id and version of the process")?;
        out.sample("node_info", &[("node_id", &facts.node), ("version", &facts.version)], 1)?;
        out.family("datastore_reachable", KongMetricType::Gauge, "Always 1: the configuration needs no database")?;
        out.sample("datastore_reachable", &[], 1)?;
        out.family(
            "nginx_metric_errors_total",
            KongMetricType::Counter,
            "Updates dropped because there are too many series",
        )?;
        out.sample("nginx_metric_errors_total", &[], self.dropped_updates.load(Ordering::Relaxed))?;
        out.family("nginx_requests_total", KongMetricType::Gauge, "Requests since the process started")?;
        let subsystem = ("subsystem", "http");
        out.sample("nginx_requests_total", &[("node_id", &facts.node), subsystem], facts.requests)?;
        out.family("nginx_connections_total", KongMetricType::Gauge, "Client connections by state")?;
        let ConnectionCounts { accepted, active } = facts.connections;
        for (state, count) in
            [("accepted", accepted), ("active", active), ("handled", accepted), ("total", facts.requests)]
        {
            let labels = [("node_id", &*facts.node), subsystem, ("state", state)];
            out.sample("nginx_connections_total", &labels, count)?;
        }
        if let Some(memory) = facts.memory {
            out.family(
                "memory_workers_lua_vms_bytes",
                KongMetricType::Gauge,
                "Resident memory of the process, which has no Lua VMs",
            )?;
            let pid = facts.process_id.to_string();
            let labels = [("node_id", &*facts.node), ("pid", &pid), ("kong_subsystem", "http")];
            out.sample("memory_workers_lua_vms_bytes", &labels, memory)?;
        }
        if !facts.targets.is_empty() {
            out.family(
                "upstream_target_health",
                KongMetricType::Gauge,
                "Health of endpoints; 1 for the current state",
            )?;
            for target in &facts.targets {
                for (state, name) in STATES {
                    let labels = [
                        ("upstream", &*target.upstream),
                        ("target", &target.target),
                        ("address", &target.address),
                        ("state", name),
                        subsystem,
                    ];
                    out.sample("upstream_target_health", &labels, u64::from(target.state == state))?;
                }
            }
        }
        Ok(())
    }
}

struct KongMetricsWriter {
    text: String,
    format: KongExpositionFormat,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KongMetricType {
    Counter,
    Gauge,
    Histogram,
}

impl KongMetricsWriter {
    /// Writes the `HELP` and `TYPE` lines of a family.
    fn family(&mut self, name: &str, kind: KongMetricType, help: &str) -> fmt::Result {
        let (name, kind) = match (self.format, kind) {
            (_, KongMetricType::Gauge) => (name, "gauge"),
            (_, KongMetricType::Histogram) => (name, "histogram"),
            (KongExpositionFormat::Text, KongMetricType::Counter) => (name, "counter"),
            // In OpenMetrics, the name of a counter family omits the suffix `_total` of its samples, and a family
            // without the suffix is not a counter.
            (KongExpositionFormat::OpenMetrics, KongMetricType::Counter) => match name.strip_suffix("_total") {
                Some(name) => (name, "counter"),
                None => (name, "unknown"),
            },
        };
        writeln!(self.text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}")
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) -> fmt::Result {
        self.write_series(name, labels)?;
        writeln!(self.text, " {value}")
    }

    /// Writes the name and labels of a sample.
    fn write_series(&mut self, name: &str, labels: &[(&str, &str)]) -> fmt::Result {
        write!(self.text, "{PREFIX}{name}")?;
        for (index, (label, value)) in labels.iter().enumerate() {
            write!(self.text, "{}{label}=\"", if index == 0 { '{' } else { ',' })?;
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() { "" } else { "}" });
        Ok(())
    }

    /// Writes a family of histograms, or nothing if there are none.
    fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        histograms: impl Iterator<Item = (&'l SeriesLabels, HistogramSnapshot)>,
    ) -> fmt::Result {
        let mut histograms = histograms.peekable();
        if histograms.peek().is_none() {
            return Ok(());
        }
        self.family(name, KongMetricType::Histogram, help)?;
        let (bucket, count, sum) = (format!("{name}_bucket"), format!("{name}_count"), format!("{name}_sum"));
        let fraction = if self.format == KongExpositionFormat::OpenMetrics { ".0" } else { "" };
        for (labels, snapshot) in histograms {
            let base = [("service", &*labels.service), ("route", &labels.route), ("workspace", WORKSPACE)];
            let [service, route, workspace] = base;
            for (bound, count_below) in &snapshot.buckets {
                self.sample(&bucket, &[service, route, workspace, ("le", &format!("{bound}{fraction}"))], count_below)?;
            }
            self.sample(&bucket, &[service, route, workspace, ("le", "+Inf")], snapshot.count)?;
            self.sample(&count, &base, snapshot.count)?;
            self.sample(&sum, &base, snapshot.sum)?;
        }
        Ok(())
    }
}

const PREFIX: &str = "kong_";
/// Kong's open-source builds have only this workspace.
const WORKSPACE: &str = "default";
const STATES: [(TargetState, &str); 4] = [
    (TargetState::HealthchecksOff, "healthchecks_off"),
    (TargetState::Healthy, "healthy"),
    (TargetState::Unhealthy, "unhealthy"),
    (TargetState::DnsError, "dns_error"),
];
