//! Metrics of the process for servers of OTLP: at an interval, those that Prometheus would get are sent.
//!
//! The text that Prometheus gets is read again, so both have the same names, labels and values. A counter has the name
//! of its family, without `_total`, which servers that store for Prometheus add.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::log_delivery::DEFAULT_LOG_QUEUE;
use crate::plugin_api::batch_queue::{BatchQueue, QueueSettings};
use crate::plugin_api::otlp_messages::metrics::metric_data::{Data, Number};
use crate::plugin_api::otlp_messages::metrics::{
    CUMULATIVE, HistogramPoint, NumberPoint, OtlpGauge, OtlpHistogram, OtlpMetric, OtlpSum, encode_metrics,
};
use crate::plugin_api::otlp_messages::spans_and_logs::{OtlpAttribute, OtlpResource};

/// A request has the points of one entry. What an unavailable server has not got is of little use later.
pub const METRICS_QUEUE: QueueSettings = QueueSettings { max_batch_size: 1, max_entries: 200, ..DEFAULT_LOG_QUEUE };

/// Sends the metrics to a server.
#[derive(Clone)]
pub struct MetricsExport {
    /// Writes the metrics as OpenMetrics.
    pub render: Arc<dyn Fn() -> Result<String, std::fmt::Error> + Send + Sync>,
    pub started: SystemTime,
    pub resource: OtlpResource,
    pub queue: Arc<BatchQueue>,
}

impl MetricsExport {
    /// Sends the metrics at an interval, until it is dropped.
    pub async fn run(self, period: Duration) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // At the start, most metrics are missing.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.send().await;
        }
    }

    /// Adds the metrics of now to the queue of the server.
    pub async fn send(&self) {
        let MetricsExport { render, started, resource, queue } = self.clone();
        // Thousands of series take milliseconds, which the control side has no thread to spare for.
        let entries = tokio::task::spawn_blocking(move || {
            let text = render()?;
            Ok::<_, std::fmt::Error>(entries_of(&text, started, SystemTime::now(), &resource))
        });
        match entries.await {
            Ok(Ok(entries)) => entries.into_iter().for_each(|entry| queue.push(entry)),
            Ok(Err(error)) => warn!(%error, "The metrics could not be written"),
            Err(error) => warn!(%error, "Exporting the metrics has failed"),
        }
    }
}

/// The messages for a text in OpenMetrics, each with a limited number of points.
fn entries_of(open_metrics: &str, started: SystemTime, now: SystemTime, resource: &OtlpResource) -> Vec<Bytes> {
    let times = Times { start: nanoseconds(started), now: nanoseconds(now) };
    let mut entries = Vec::new();
    let (mut metrics, mut points) = (Vec::new(), 0);
    for family in families(open_metrics) {
        for (metric, size) in family.into_metrics(times) {
            if points + size > MAX_POINTS && !metrics.is_empty() {
                entries.push(encode_metrics(resource, SCOPE, std::mem::take(&mut metrics)));
                points = 0;
            }
            metrics.push(metric);
            points += size;
        }
    }
    if !metrics.is_empty() {
        entries.push(encode_metrics(resource, SCOPE, metrics));
    }
    entries
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A metric family as its lines describe it.
#[derive(Default)]
struct Family<'t> {
    name: &'t str,
    kind: &'t str,
    help: &'t str,
    samples: Vec<SampleLine<'t>>,
}

struct SampleLine<'t> {
    name: &'t str,
    labels: Vec<(&'t str, String)>,
    value: &'t str,
}

fn families(open_metrics: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (Some(keyword), Some(name)) = (words.next(), words.next()) else { continue };
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family { name, ..Family::default() });
            }
            let family = families.last_mut().expect("one was just added");
            match keyword {
                "TYPE" => family.kind = words.next().unwrap_or_default(),
                "HELP" => family.help = words.next().unwrap_or_default(),
                _ => {}
            }
        } else if let (Some(family), Some(sample)) = (families.last_mut(), parse_sample(line)) {
            family.samples.push(sample);
        }
    }
    families
}

/// A line such as `name_total{a="b"} 5`, perhaps with an exemplar behind ` # `.
fn parse_sample(line: &str) -> Option<SampleLine<'_>> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let end = end_of_value(after)?;
            labels.push((key, unescape(&after[..end])));
            rest = after[end + 1..].strip_prefix(',').unwrap_or(&after[end + 1..]);
        }
        rest = &rest[1..];
    }
    let value = rest.trim_start().split(' ').next().filter(|value| !value.is_empty())?;
    Some(SampleLine { name, labels, value })
}

/// The index of the quotation mark that ends the value of a label.
fn end_of_value(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

fn unescape(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => unescaped.push('\n'),
                other => unescaped.extend(other),
            },
            (character, false) => unescaped.push(character),
        }
    }
    unescaped
}

impl Family<'_> {
    /// The metrics of the family with their numbers of points, of which none has more than a message may have.
    fn into_metrics(self, times: Times) -> Vec<(OtlpMetric, usize)> {
        let metric = |name: &str, data| OtlpMetric {
            name: name.to_owned(),
            description: self.help.to_owned(),
            data: Some(data),
        };
        if self.kind == "histogram" {
            let points = histogram_points(&self, times);
            let data = |points: &[HistogramPoint]| {
                Data::Histogram(OtlpHistogram { data_points: points.to_vec(), aggregation_temporality: CUMULATIVE })
            };
            let parts = points.chunks(MAX_POINTS / POINTS_OF_HISTOGRAM);
            return parts.map(|part| (metric(self.name, data(part)), part.len() * POINTS_OF_HISTOGRAM)).collect();
        }
        let is_counter = self.kind == "counter";
        let name = if self.kind == "info" { format!("{}_info", self.name) } else { self.name.to_owned() };
        // A counter may have samples with the time at which it was created.
        let samples = self.samples.iter().filter(|sample| !is_counter || sample.name.ends_with("_total"));
        let points: Vec<NumberPoint> = samples.filter_map(|sample| number_point(sample, is_counter, times)).collect();
        let data = |points: &[NumberPoint]| match is_counter {
            true => Data::Sum(OtlpSum {
                data_points: points.to_vec(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            false => Data::Gauge(OtlpGauge { data_points: points.to_vec() }),
        };
        points.chunks(MAX_POINTS).map(|part| (metric(&name, data(part)), part.len())).collect()
    }
}

fn number_point(sample: &SampleLine<'_>, is_counter: bool, times: Times) -> Option<NumberPoint> {
    let value = match sample.value.parse::<i64>() {
        Ok(number) => Number::Integer(number),
        Err(_) => Number::Double(sample.value.parse().ok()?),
    };
    Some(NumberPoint {
        start_time_unix_nano: if is_counter { times.start } else { 0 },
        time_unix_nano: times.now,
        value: Some(value),
        attributes: sample.labels.iter().map(|(name, value)| OtlpAttribute::text(name, value)).collect(),
    })
}

/// A point for each set of labels. The buckets of OpenMetrics contain those below, the buckets of OTLP do not.
fn histogram_points(family: &Family<'_>, times: Times) -> Vec<HistogramPoint> {
    #[derive(Default)]
    struct HistogramSeries {
        cumulative: Vec<(f64, u64)>,
        count: u64,
        sum: Option<f64>,
    }
    let mut collected: BTreeMap<Vec<(&str, String)>, HistogramSeries> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.iter().position(|(name, _)| *name == "le").map(|index| labels.remove(index).1);
        let point = collected.entry(labels).or_default();
        match sample.name.strip_prefix(family.name) {
            Some("_bucket") => {
                let bound = bound.and_then(|bound| bound.parse().ok());
                point.cumulative.extend(bound.zip(sample.value.parse().ok()));
            }
            Some("_count") => point.count = sample.value.parse().unwrap_or_default(),
            Some("_sum") => point.sum = sample.value.parse().ok(),
            _ => {}
        }
    }
    let points = collected.into_iter().map(|(labels, HistogramSeries { mut cumulative, count, sum })| {
        cumulative.retain(|(bound, _)| bound.is_finite());
        cumulative.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let (bounds, mut below): (Vec<f64>, Vec<u64>) = cumulative.into_iter().unzip();
        below.push(count);
        let mut previous = 0;
        let own = below.into_iter().map(|total| total.saturating_sub(std::mem::replace(&mut previous, total)));
        HistogramPoint {
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            count,
            sum,
            bucket_counts: own.collect(),
            explicit_bounds: bounds,
            attributes: labels.iter().map(|(name, value)| OtlpAttribute::text(name, value)).collect(),
        }
    });
    points.collect()
}

/// The most points of a message, which then has some hundred KiB; servers for gRPC accept 4 MiB.
const MAX_POINTS: usize = 1_000;
/// As how many points that of a histogram counts.
const POINTS_OF_HISTOGRAM: usize = 4;
/// The name of the instrumentation.
const SCOPE: &str = "portico";

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::otlp_messages::metrics::{ExportMetrics, metrics_to_json};

    const TEXT: &str = "\
# HELP portico_requests Requests with \"quotes\".
# TYPE portico_requests counter
portico_requests_total{route=\"a,b=\\\"c\\\"}\",code=\"2xx\"} 7
portico_requests_created{route=\"a\"} 1.5
# HELP portico_ready Whether it is ready.
# TYPE portico_ready gauge
portico_ready 1
portico_ready{line=\"one\\ntwo\\\\\"} 0.5
# TYPE portico_build info
portico_build_info{version=\"1\"} 1
# HELP portico_seconds Durations.
# TYPE portico_seconds histogram
portico_seconds_sum{a=\"b\"} 2.5
portico_seconds_count{a=\"b\"} 6
portico_seconds_bucket{le=\"0.1\",a=\"b\"} 3 # {trace_id=\"1\"} 0.05 1.0
portico_seconds_bucket{le=\"1.0\",a=\"b\"} 5
portico_seconds_bucket{le=\"+Inf\",a=\"b\"} 6
# EOF
";

    fn times() -> (SystemTime, SystemTime) {
        (UNIX_EPOCH + Duration::from_secs(1), UNIX_EPOCH + Duration::from_secs(2))
    }

    #[test]
    fn text_becomes_metrics_of_otlp() {
        let (start, now) = times();
        let resource = OtlpResource::new([("service.name", "portico")]);
        let entries = entries_of(TEXT, start, now, &resource);
        let [entry] = &entries[..] else { panic!("{entries:?}") };
        let json: Value = serde_json::from_slice(&metrics_to_json(entry).unwrap()).unwrap();
        let of = |text: &str, value: &str| json!({"key": text, "value": {"stringValue": value}});
        let (start, now) = ("1000000000", "2000000000");
        let expected = json!([
            {"name": "portico_requests", "description": "Requests with \"quotes\".", "sum": {
                "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [{
                    "startTimeUnixNano": start, "timeUnixNano": now, "asInt": "7",
                    "attributes": [of("route", "a,b=\"c\"}"), of("code", "2xx")],
                }],
            }},
            {"name": "portico_ready", "description": "Whether it is ready.", "gauge": {"dataPoints": [
                {"startTimeUnixNano": "0", "timeUnixNano": now, "asInt": "1"},
                {"startTimeUnixNano": "0", "timeUnixNano": now, "asDouble": 0.5,
                    "attributes": [of("line", "one\ntwo\\")]},
            ]}},
            {"name": "portico_build_info", "description": "", "gauge": {"dataPoints": [
                {"startTimeUnixNano": "0", "timeUnixNano": now, "asInt": "1", "attributes": [of("version", "1")]},
            ]}},
            {"name": "portico_seconds", "description": "Durations.", "histogram": {
                "aggregationTemporality": 2, "dataPoints": [{
                    "startTimeUnixNano": start, "timeUnixNano": now, "count": "6", "sum": 2.5,
                    "bucketCounts": ["3", "2", "1"], "explicitBounds": [0.1, 1.0],
                    "attributes": [of("a", "b")],
                }],
            }},
        ]);
        assert_eq!(json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"], expected);
    }

    #[test]
    fn messages_have_a_bound() {
        let family = |name: &str, points: usize| {
            let samples = (0..points).map(|number| format!("{name}{{n=\"{number}\"}} 1\n"));
            format!("# TYPE {name} gauge\n{}", samples.collect::<String>())
        };
        let families = [("a", 2_500), ("b", 1), ("c", 998), ("d", 1_500), ("e", 500)];
        let text: String = families.into_iter().map(|(name, points)| family(name, points)).collect();
        let (start, now) = times();
        let entries = entries_of(&text, start, now, &OtlpResource::new([]));
        let points = entries.iter().map(|entry| {
            let message = ExportMetrics::decode(&**entry).unwrap();
            let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
            metrics
                .iter()
                .map(|metric| match &metric.data {
                    Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                    other => panic!("{other:?}"),
                })
                .sum::<usize>()
        });
        assert_eq!(points.collect::<Vec<_>>(), [1_000, 1_000, 501, 998, 1_000, 1_000]);
    }

    #[test]
    fn broken_lines_are_skipped() {
        let text = "# TYPE a gauge\na{b=\"c} 1\na{b} 1\na \na{b=\"c\"}\na x\n\na 2\n";
        let found = families(text);
        let metrics: Vec<_> =
            found.into_iter().flat_map(|family| family.into_metrics(Times { start: 0, now: 0 })).collect();
        let Some(Data::Gauge(gauge)) = &metrics[0].0.data else { panic!("{metrics:?}") };
        assert_eq!(gauge.data_points.iter().map(|point| point.value).collect::<Vec<_>>(), [Some(Number::Integer(2))]);
    }
}
