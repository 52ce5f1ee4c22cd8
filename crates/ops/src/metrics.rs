//! Process metrics and the registry to which every module adds its metric families.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::version;

/// The registry of all metric families. Every family is registered before the first scrape.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    exemplars: Option<ExemplarSource>,
}

/// Finds the exemplars of samples, by the name and labels of a sample.
struct ExemplarSource(Box<dyn Fn() -> HashMap<String, String> + Send + Sync>);

impl fmt::Debug for ExemplarSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ExemplarSource")
    }
}

/// Exposition format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// The format that Prometheus requests.
    OpenMetrics,
    /// Text format 0.0.4, which every scraper can parse.
    Text,
}

impl Exposition {
    /// OpenMetrics if the `Accept` header contains it, otherwise the text format.
    pub fn accepted_by(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Exposition::OpenMetrics,
            _ => Exposition::Text,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Registers the process metrics and `portico_build_info`. `started` is the start time of the process.
    pub fn new(started: SystemTime) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector { started }));
        let build = [
            ("version", version::VERSION.to_owned()),
            ("commit", version::COMMIT.unwrap_or_default().to_owned()),
            ("platform", version::platform()),
        ];
        registry.register("portico_build", "Which build this is", Info::new(build.to_vec()));
        Metrics { registry, exemplars: None }
    }

    /// The registry to which other modules add their families.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Sets where exemplars come from, each of which begins with `# `. Only OpenMetrics has them.
    pub fn set_exemplars(&mut self, find: impl Fn() -> HashMap<String, String> + Send + Sync + 'static) {
        self.exemplars = Some(ExemplarSource(Box::new(find)));
    }

    /// Renders all families.
    pub fn encode(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let mut open_metrics = String::new();
        text::encode(&mut open_metrics, &self.registry)?;
        match exposition {
            Exposition::OpenMetrics => {
                let exemplars = self.exemplars.as_ref().map(|source| source.0()).unwrap_or_default();
                Ok(if exemplars.is_empty() { open_metrics } else { with_exemplars(&open_metrics, &exemplars) })
            }
            Exposition::Text => Ok(to_text_format(&open_metrics)),
        }
    }
}

/// Adds the exemplars to their samples.
fn with_exemplars(open_metrics: &str, exemplars: &HashMap<String, String>) -> String {
    let mut text = String::with_capacity(open_metrics.len() + exemplars.values().map(String::len).sum::<usize>());
    for line in open_metrics.lines() {
        text.push_str(line);
        let sample = line.rsplit_once(' ').filter(|_| !line.starts_with('#'));
        if let Some(exemplar) = sample.and_then(|(sample, _)| exemplars.get(sample)) {
            text.push(' ');
            text.push_str(exemplar);
        }
        text.push('\n');
    }
    text
}

/// Converts OpenMetrics to text format 0.0.4. In the text format, a family has the name of its samples (with `_total`
/// or `_info`), some types have other names, and there are no `# UNIT` and `# EOF` lines.
fn to_text_format(open_metrics: &str) -> String {
    let mut types = HashMap::new();
    for line in open_metrics.lines() {
        if let Some((family, metric_type)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(family, metric_type);
        }
    }
    let sample_name = |family: &str| match types.get(family) {
        Some(&"counter") => format!("{family}_total"),
        Some(&"info") => format!("{family}_info"),
        _ => family.to_owned(),
    };
    let mut converted = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        let line = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(family), help) => {
                format!("# HELP {} {}", sample_name(family), help.unwrap_or_default())
            }
            (Some("#"), Some("TYPE"), Some(family), Some(metric_type)) => {
                let metric_type = match metric_type {
                    "info" | "stateset" => "gauge",
                    "unknown" => "untyped",
                    metric_type => metric_type,
                };
                format!("# TYPE {} {metric_type}", sample_name(family))
            }
            (Some("#"), _, _, _) => continue,
            _ => line.to_owned(),
        };
        converted.push_str(&line);
        converted.push('\n');
    }
    converted
}

/// Resident memory of this process in bytes; `None` on systems other than Linux.
pub fn resident_memory() -> Option<u64> {
    size_in_bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What the system reports about this process. On systems other than Linux, nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUsage {
    /// User and system.
    pub cpu_time: Option<Duration>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    /// From and to storage.
    pub read_bytes: Option<u64>,
    pub written_bytes: Option<u64>,
}

impl ProcessUsage {
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // A hardened system may forbid it.
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        ProcessUsage {
            cpu_time: cpu_time(),
            resident_bytes: size_in_bytes(&status, "VmRSS:"),
            virtual_bytes: size_in_bytes(&status, "VmSize:"),
            read_bytes: number(&io, "read_bytes:"),
            written_bytes: number(&io, "write_bytes:"),
        }
    }
}

/// The conventional `process_*` families, read at each scrape.
#[derive(Debug)]
struct ProcessCollector {
    started: SystemTime,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let usage = ProcessUsage::now();
        gauge(&mut encoder, "process_start_time_seconds", "When the process started, in Unix time", started)?;
        // Systems other than Linux lack `/proc`; the values read from there are omitted.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            ("process_resident_memory_bytes", "Memory that is in RAM", usage.resident_bytes),
            ("process_virtual_memory_bytes", "Memory that is mapped", usage.virtual_bytes),
            ("process_threads", "Threads", number(&status, "Threads:")),
            ("process_open_fds", "Open file descriptors", open_files()),
            ("process_max_fds", "Most file descriptors that may be open", open_files_limit()),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                gauge(&mut encoder, name, help, value as f64)?;
            }
        }
        if let Some(time) = usage.cpu_time {
            let counter = ConstCounter::new(time.as_secs_f64());
            let help = "CPU time used, user and system";
            let metric =
                encoder.encode_descriptor("process_cpu_seconds", help, None, EncodeMetric::metric_type(&counter))?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// Encodes a gauge without labels.
pub fn encode_gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// Encodes a counter without labels.
pub fn encode_counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, EncodeMetric::metric_type(&counter))?)
}

/// The first number in the line that starts with `label`; `text` is a file of `/proc`.
fn number(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}

/// Like [`number`], converted from KiB to bytes.
fn size_in_bytes(text: &str, label: &str) -> Option<u64> {
    number(text, label).map(|kibibytes| kibibytes * 1024)
}

fn open_files() -> Option<u64> {
    // One of the counted files is the directory handle of `read_dir`.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

fn open_files_limit() -> Option<u64> {
    number(&std::fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program name in parentheses and may contain spaces, so the third field has index 0 and
    // the user and system times, the 14th and 15th field, have the indexes 11 and 12.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// `USER_HZ`: part of Linux's user-space ABI, and 100 on every architecture that Rust and Kubernetes share.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(UNIX_EPOCH + Duration::from_millis(1500))
    }

    #[test]
    fn open_metrics_has_build_and_process_families() {
        let text = metrics().encode(Exposition::OpenMetrics).unwrap();
        let build = format!(r#"portico_build_info{{version="{}",commit="#, version::VERSION);
        for expected in [
            "# TYPE portico_build info\n",
            &build,
            "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.5\n",
            "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total ",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_metrics_have_plausible_values() {
        let text = metrics().encode(Exposition::Text).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 500_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
    }

    #[test]
    fn text_format_names_families_like_samples() {
        let mut metrics = Metrics { registry: Registry::default(), exemplars: None };
        let counter: Counter = Counter::default();
        metrics.registry().register("portico_requests", "Requests", counter);
        metrics.registry().register("portico_build", "Which build", Info::new(vec![("version", "1 # 2")]));
        let expected = "\
# HELP portico_requests_total Requests.
# TYPE portico_requests_total counter
portico_requests_total 0
# HELP portico_build_info Which build.
# TYPE portico_build_info gauge
portico_build_info{version=\"1 # 2\"} 1
";
        assert_eq!(metrics.encode(Exposition::Text).unwrap(), expected);
    }

    #[test]
    fn exemplars_are_in_open_metrics_only() {
        let mut metrics = Metrics { registry: Registry::default(), exemplars: None };
        metrics.registry().register("portico_requests", "Requests", Counter::<u64>::default());
        let exemplar = "# {trace_id=\"1\"} 0.5 1.0";
        metrics.set_exemplars(move || HashMap::from([("portico_requests_total".to_owned(), exemplar.to_owned())]));
        let open_metrics = metrics.encode(Exposition::OpenMetrics).unwrap();
        assert!(open_metrics.contains(&format!("portico_requests_total 0 {exemplar}\n")), "{open_metrics}");
        assert!(open_metrics.ends_with("# EOF\n"));
        assert!(metrics.encode(Exposition::Text).unwrap().ends_with("portico_requests_total 0\n"));
    }

    #[test]
    fn accept_header_selects_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Exposition::accepted_by(Some(prometheus)), Exposition::OpenMetrics);
        assert_eq!(Exposition::accepted_by(Some("*/*")), Exposition::Text);
        assert_eq!(Exposition::accepted_by(None), Exposition::Text);
    }
}
