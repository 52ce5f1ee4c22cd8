//! The series as a scrape gets them, in both formats.

use std::fmt::{self, Write};
use std::sync::atomic::Ordering;

use super::histogram::Snapshot;
use super::series::{Labels, Series};

/// The format of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text format 0.0.4.
    Text,
    /// Without its end mark.
    OpenMetrics,
}

/// What only the process knows, when it is asked.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The name of this process among its replicas.
    pub node: String,
    pub version: String,
    /// Since the process started.
    pub requests: u64,
    pub connections: Connections,
    /// Bytes of this process that are in RAM, if that is known.
    pub memory: Option<u64>,
    pub process: u32,
    /// None of them unless [`super::shows_health`].
    pub targets: Vec<Target>,
}

/// Of clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connections {
    /// Since the process started.
    pub accepted: u64,
    /// Open now.
    pub active: u64,
}

/// An endpoint of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The upstream's name, such as `cart.shop.80.svc`.
    pub upstream: String,
    /// As the configuration names it.
    pub target: String,
    /// Address and port, or nothing if its name has none.
    pub address: String,
    pub state: TargetState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Never ours, since everybody learns who cannot be connected to; dashboards ask for it.
    HealthchecksOff,
    Healthy,
    Unhealthy,
    DnsError,
}

impl Series {
    /// Everything there is to say now, to be put after other families.
    pub fn text(&self, facts: &Facts, form: Form) -> String {
        let mut out = Writer { text: String::new(), form };
        self.write(facts, &mut out).expect("a String takes everything");
        out.text
    }

    fn write(&self, facts: &Facts, out: &mut Writer) -> fmt::Result {
        self.write_facts(facts, out)?;
        let requests = self.requests.sorted();
        if !requests.is_empty() {
            out.family("http_requests_total", Type::Counter, "HTTP status codes per consumer, service and route")?;
            for entry in requests {
                let (labels, count) = (&entry.key, &entry.value);
                let code = labels.code.map(|code| (code.status.to_string(), code.source())).unwrap_or_default();
                let Labels { service, route, consumer, .. } = labels;
                let labels = [
                    ("service", &**service),
                    ("route", route),
                    ("code", &code.0),
                    ("source", code.1),
                    ("workspace", WORKSPACE),
                    ("consumer", consumer),
                ];
                out.sample("http_requests_total", &labels, count.load(Ordering::Relaxed))?;
            }
        }
        let bandwidth = self.bandwidth.sorted();
        if !bandwidth.is_empty() {
            out.family("bandwidth_bytes", Type::Counter, "Bytes of bodies per consumer, service and route")?;
            for entry in bandwidth {
                let (labels, bytes) = (&entry.key, &entry.value);
                for (direction, bytes) in [("egress", &bytes.egress), ("ingress", &bytes.ingress)] {
                    let Labels { service, route, consumer, .. } = labels;
                    let labels = [
                        ("service", &**service),
                        ("route", route),
                        ("direction", direction),
                        ("workspace", WORKSPACE),
                        ("consumer", consumer),
                    ];
                    out.sample("bandwidth_bytes", &labels, bytes.load(Ordering::Relaxed))?;
                }
            }
        }
        let latency = self.latency.sorted();
        if latency.is_empty() {
            return Ok(());
        }
        let own = latency.iter().map(|entry| (&entry.key, entry.value.own.snapshot()));
        out.histograms("kong_latency_ms", "Time added here, plugins included", own)?;
        let upstream = latency.iter().map(|entry| (&entry.key, entry.value.upstream.snapshot()));
        let upstream = upstream.filter(|(_, snapshot)| snapshot.count > 0);
        out.histograms("upstream_latency_ms", "Time until the endpoint answered", upstream)?;
        let request = latency.iter().map(|entry| (&entry.key, entry.value.request.snapshot()));
        out.histograms("request_latency_ms", "Time of whole requests", request)
    }

    fn write_facts(&self, facts: &Facts, out: &mut Writer) -> fmt::Result {
        out.family("node_info", Type::Gauge, "Which process this is")?;
        out.sample("node_info", &[("node_id", &facts.node), ("version", &facts.version)], 1)?;
        out.family(
            "datastore_reachable",
            Type::Gauge,
            "Whether the configuration can be read, which takes no database",
        )?;
        out.sample("datastore_reachable", &[], 1)?;
        out.family("nginx_metric_errors_total", Type::Counter, "What was not counted for want of room")?;
        out.sample("nginx_metric_errors_total", &[], self.errors.load(Ordering::Relaxed))?;
        out.family("nginx_requests_total", Type::Gauge, "Requests since the process started")?;
        let subsystem = ("subsystem", "http");
        out.sample("nginx_requests_total", &[("node_id", &facts.node), subsystem], facts.requests)?;
        out.family("nginx_connections_total", Type::Gauge, "Connections of clients by state")?;
        let Connections { accepted, active } = facts.connections;
        for (state, count) in
            [("accepted", accepted), ("active", active), ("handled", accepted), ("total", facts.requests)]
        {
            let labels = [("node_id", &*facts.node), subsystem, ("state", state)];
            out.sample("nginx_connections_total", &labels, count)?;
        }
        if let Some(memory) = facts.memory {
            out.family("memory_workers_lua_vms_bytes", Type::Gauge, "Memory that is in RAM; there is no Lua here")?;
            let pid = facts.process.to_string();
            let labels = [("node_id", &*facts.node), ("pid", &pid), ("kong_subsystem", "http")];
            out.sample("memory_workers_lua_vms_bytes", &labels, memory)?;
        }
        if !facts.targets.is_empty() {
            out.family("upstream_target_health", Type::Gauge, "Health of endpoints; 1 in the state that it is in")?;
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

struct Writer {
    text: String,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Writer {
    fn family(&mut self, name: &str, kind: Type, help: &str) -> fmt::Result {
        let (name, kind) = match (self.form, kind) {
            (_, Type::Gauge) => (name, "gauge"),
            (_, Type::Histogram) => (name, "histogram"),
            (Form::Text, Type::Counter) => (name, "counter"),
            // There a counter is called without what its samples end with, and what ends otherwise is none.
            (Form::OpenMetrics, Type::Counter) => match name.strip_suffix("_total") {
                Some(name) => (name, "counter"),
                None => (name, "unknown"),
            },
        };
        writeln!(self.text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}")
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) -> fmt::Result {
        self.start(name, labels)?;
        writeln!(self.text, " {value}")
    }

    fn start(&mut self, name: &str, labels: &[(&str, &str)]) -> fmt::Result {
        write!(self.text, "{PREFIX}{name}")?;
        for (at, (label, value)) in labels.iter().enumerate() {
            write!(self.text, "{}{label}=\"", if at == 0 { '{' } else { ',' })?;
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

    fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        all: impl Iterator<Item = (&'l Labels, Snapshot)>,
    ) -> fmt::Result {
        let mut all = all.peekable();
        if all.peek().is_none() {
            return Ok(());
        }
        self.family(name, Type::Histogram, help)?;
        let (bucket, count, sum) = (format!("{name}_bucket"), format!("{name}_count"), format!("{name}_sum"));
        let fraction = if self.form == Form::OpenMetrics { ".0" } else { "" };
        for (labels, snapshot) in all {
            let base = [("service", &*labels.service), ("route", &labels.route), ("workspace", WORKSPACE)];
            let [service, route, workspace] = base;
            for (bound, below) in &snapshot.buckets {
                self.sample(&bucket, &[service, route, workspace, ("le", &format!("{bound}{fraction}"))], below)?;
            }
            self.sample(&bucket, &[service, route, workspace, ("le", "+Inf")], snapshot.count)?;
            self.sample(&count, &base, snapshot.count)?;
            self.sample(&sum, &base, snapshot.sum)?;
        }
        Ok(())
    }
}

const PREFIX: &str = "kong_";
/// There are no workspaces; Kong's free builds have this one.
const WORKSPACE: &str = "default";
const STATES: [(TargetState, &str); 4] = [
    (TargetState::HealthchecksOff, "healthchecks_off"),
    (TargetState::Healthy, "healthy"),
    (TargetState::Unhealthy, "unhealthy"),
    (TargetState::DnsError, "dns_error"),
];
