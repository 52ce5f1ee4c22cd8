//! What the data plane counts: every worker for itself, merged when metrics are scraped.
//!
//! ```text
//!   request ─▶ Series (one per worker and label set; plain adds, one writer)
//!                 ▲ found by pointers, no label is formatted       scrape ─▶ Stats ─ merges the ledgers of all workers
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use crate::upstream::{Count, Traffic};

/// Which requests are counted together. What does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Labels {
    pub(crate) gateway: Arc<str>,
    pub(crate) listener: Arc<str>,
    /// `kind/namespace/name`.
    pub(crate) route: Arc<str>,
    pub(crate) rule: Arc<str>,
    /// `namespace/service:port`.
    pub(crate) backend: Arc<str>,
}

/// The counters of one label set in one worker.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: Arc<Labels>,
    classes: [Count; CLASSES.len()],
    /// One more than `BOUNDS`: what is longer than all of them.
    durations: [Count; BOUNDS.len() + 1],
    microseconds: Count,
    bytes_in: Count,
    bytes_out: Count,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// In microseconds. From what a cached answer takes to where people have given up.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

impl Series {
    fn new(labels: Arc<Labels>) -> Self {
        Series {
            labels,
            classes: Default::default(),
            durations: Default::default(),
            microseconds: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
        }
    }

    pub(crate) fn add(&self, status: StatusCode, duration: Duration, bytes_in: u64, bytes_out: u64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.classes[class].add(1);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.durations[BOUNDS.partition_point(|bound| *bound < microseconds)].add(1);
        self.microseconds.add(microseconds);
        self.bytes_in.add(bytes_in);
        self.bytes_out.add(bytes_out);
    }
}

/// How often room is made when there are too many label sets.
const CLEAR_EVERY: Duration = Duration::from_secs(10);

/// What one worker counts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Its lock is taken for the first request of a label set under a snapshot, and by scrapes.
    series: Mutex<HashMap<Arc<Labels>, Arc<Series>>>,
    pub(crate) accepted: Count,
    pub(crate) closed: Count,
    pub(crate) accept_errors: Count,
    pub(crate) traffic: Arc<Traffic>,
}

/// All ledgers. Registered as a collector, it writes the families of `interface.md` §6.
#[derive(Debug)]
pub struct Stats {
    ledgers: Vec<Arc<Ledger>>,
    max_series: usize,
    known: Mutex<Known>,
    folded: AtomicU64,
    /// Log records that were dropped because the writer did not keep up.
    pub(crate) log_dropped: Arc<AtomicU64>,
}

/// The label sets of all ledgers.
#[derive(Debug, Default)]
struct Known {
    labels: BTreeSet<Arc<Labels>>,
    /// When room was last made for new ones. Each attempt looks at all series, so it is not made for every request.
    cleared: Option<Instant>,
}

impl Stats {
    pub(crate) fn new(workers: usize, max_series: usize, log_dropped: Arc<AtomicU64>) -> Self {
        Stats {
            ledgers: (0..workers).map(|_| Arc::default()).collect(),
            max_series,
            known: Mutex::default(),
            folded: AtomicU64::new(0),
            log_dropped,
        }
    }

    pub(crate) fn ledger(&self, worker: usize) -> &Arc<Ledger> {
        &self.ledgers[worker]
    }

    /// The series of these labels in a worker's ledger. When there are too many, all further ones are one.
    pub(crate) fn series(&self, ledger: &Ledger, labels: Labels) -> Arc<Series> {
        if let Some(series) = ledger.series.lock().get(&labels) {
            return Arc::clone(series);
        }
        let labels = self.admit(labels);
        let mut series = ledger.series.lock();
        Arc::clone(series.entry(Arc::clone(&labels)).or_insert_with(|| Arc::new(Series::new(labels))))
    }

    fn admit(&self, labels: Labels) -> Arc<Labels> {
        let mut known = self.known.lock();
        if let Some(labels) = known.labels.get(&labels) {
            return Arc::clone(labels);
        }
        if known.labels.len() >= self.max_series && known.cleared.is_none_or(|cleared| cleared.elapsed() > CLEAR_EVERY)
        {
            known.cleared = Some(Instant::now());
            self.forget_unused(&mut known.labels);
        }
        if known.labels.len() < self.max_series {
            let labels = Arc::new(labels);
            known.labels.insert(Arc::clone(&labels));
            return labels;
        }
        self.folded.fetch_add(1, Relaxed);
        let other: Arc<str> = "other".into();
        Arc::new(Labels {
            gateway: Arc::clone(&other),
            listener: Arc::clone(&other),
            route: Arc::clone(&other),
            rule: Arc::clone(&other),
            backend: other,
        })
    }

    /// Forgets the series that no worker has used since its snapshot changed: routes that are gone, for the most part.
    fn forget_unused(&self, known: &mut BTreeSet<Arc<Labels>>) {
        // A ledger's own reference is the only one to a series that no view and no request holds.
        let is_used = |series: &Arc<Series>| Arc::strong_count(series) > 1;
        let mut used = BTreeSet::new();
        for ledger in &self.ledgers {
            used.extend(
                ledger.series.lock().iter().filter(|(_, series)| is_used(series)).map(|(key, _)| Arc::clone(key)),
            );
        }
        known.retain(|labels| used.contains(labels));
        for ledger in &self.ledgers {
            ledger.series.lock().retain(|labels, series| is_used(series) || used.contains(labels));
        }
    }

    /// Connections of clients that are open now.
    pub fn connections(&self) -> u64 {
        self.sum(|ledger| ledger.accepted.value().saturating_sub(ledger.closed.value()))
    }

    /// Connections of clients since the start.
    pub fn accepted(&self) -> u64 {
        self.sum(|ledger| ledger.accepted.value())
    }

    /// Requests answered since the start.
    pub fn requests(&self) -> u64 {
        self.merged().values().map(|counts| counts.classes.iter().sum::<u64>()).sum()
    }

    fn sum(&self, part: impl Fn(&Ledger) -> u64) -> u64 {
        self.ledgers.iter().map(|ledger| part(ledger)).sum()
    }

    fn merged(&self) -> BTreeMap<Arc<Labels>, Merged> {
        let mut merged: BTreeMap<Arc<Labels>, Merged> = BTreeMap::new();
        for ledger in &self.ledgers {
            // Copied out, so that a worker that meets a new route does not wait for a slow scrape.
            let series: Vec<_> = ledger.series.lock().values().cloned().collect();
            for series in series {
                merged.entry(Arc::clone(&series.labels)).or_default().add(&series);
            }
        }
        merged
    }
}

#[derive(Default)]
struct Merged {
    classes: [u64; CLASSES.len()],
    durations: [u64; BOUNDS.len() + 1],
    microseconds: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Merged {
    fn add(&mut self, series: &Series) {
        for (sum, count) in self.classes.iter_mut().zip(&series.classes) {
            *sum += count.value();
        }
        for (sum, count) in self.durations.iter_mut().zip(&series.durations) {
            *sum += count.value();
        }
        self.microseconds += series.microseconds.value();
        self.bytes_in += series.bytes_in.value();
        self.bytes_out += series.bytes_out.value();
    }
}

impl Labels {
    fn pairs(&self) -> [(&'static str, &str); 5] {
        [
            ("gateway", &self.gateway),
            ("listener", &self.listener),
            ("route", &self.route),
            ("rule", &self.rule),
            ("backend", &self.backend),
        ]
    }
}

impl Collector for Stats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let merged = self.merged();

        let mut family =
            encoder.encode_descriptor("portico_requests", "Requests answered", None, MetricType::Counter)?;
        for (labels, counts) in &merged {
            for (class, count) in CLASSES.iter().zip(counts.classes) {
                // A series exists from its first request.
                if count > 0 {
                    let mut pairs = labels.pairs().to_vec();
                    pairs.push(("code_class", class));
                    family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
                }
            }
        }

        let mut family = encoder.encode_descriptor(
            "portico_request_duration_seconds",
            "From the first byte of a request to the last byte of its response",
            None,
            MetricType::Histogram,
        )?;
        for (labels, counts) in &merged {
            let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(counts.durations).collect();
            let count = counts.durations.iter().sum();
            let pairs = labels.pairs();
            let mut series = family.encode_family(&pairs)?;
            series.encode_histogram::<NoLabelSet>(counts.microseconds as f64 / 1e6, count, &buckets, None)?;
        }

        for (name, help, part) in BYTES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, counts) in &merged {
                let pairs = labels.pairs();
                family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&part(counts), None)?;
            }
        }

        for (name, help, part) in GAUGES {
            let value = i64::try_from(self.sum(part)).unwrap_or(i64::MAX);
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }

        let mut family = encoder.encode_descriptor(
            "portico_upstream_connects",
            "Connections to endpoints that were tried, by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (outcome, part) in OUTCOMES {
            let count = self.sum(|ledger| part(&ledger.traffic).value());
            family.encode_family(&[("outcome", outcome)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }

        let totals = [
            (
                "portico_upstream_reuses",
                "Requests sent on a kept-alive connection to an endpoint",
                self.sum(|ledger| ledger.traffic.reused.value()),
            ),
            (
                "portico_upstream_replays",
                "Requests sent again because a kept-alive connection was gone",
                self.sum(|ledger| ledger.traffic.replayed.value()),
            ),
            (
                "portico_accept_errors",
                "Failures of the system to hand over a connection of a client",
                self.sum(|ledger| ledger.accept_errors.value()),
            ),
            (
                "portico_access_log_dropped",
                "Access log records dropped because writing did not keep up",
                self.log_dropped.load(Relaxed),
            ),
            (
                "portico_series_folded",
                "Label sets counted under `other` because --metrics-max-series was reached",
                self.folded.load(Relaxed),
            ),
        ];
        for (name, help, value) in totals {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

type Part<T, V> = (&'static str, &'static str, fn(&T) -> V);

const BYTES: [Part<Merged, u64>; 2] = [
    ("portico_request_bytes", "Bytes of request bodies", |counts| counts.bytes_in),
    ("portico_response_bytes", "Bytes of response bodies", |counts| counts.bytes_out),
];

const GAUGES: [Part<Ledger, u64>; 2] = [
    ("portico_connections", "Open connections of clients", |ledger| {
        ledger.accepted.value().saturating_sub(ledger.closed.value())
    }),
    ("portico_upstream_connections", "Open connections to endpoints", |ledger| {
        ledger.traffic.connected.value().saturating_sub(ledger.traffic.closed.value())
    }),
];

type Outcome = (&'static str, fn(&Traffic) -> &Count);

const OUTCOMES: [Outcome; 4] = [
    ("connected", |traffic| &traffic.connected),
    ("refused", |traffic| &traffic.refused),
    ("timed_out", |traffic| &traffic.timed_out),
    ("failed", |traffic| &traffic.failed),
];

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    fn labels(route: &str) -> Labels {
        Labels { gateway: "ns/gw".into(), listener: "http".into(), route: route.into(), ..Labels::default() }
    }

    fn scrape(stats: Arc<Stats>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(stats));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|candidate| candidate == line), "no line {line} in\n{text}");
    }

    #[test]
    fn workers_are_merged() {
        let stats = Arc::new(Stats::new(2, 10, Arc::default()));
        for worker in 0..2 {
            let series = stats.series(stats.ledger(worker), labels("HTTPRoute/ns/a"));
            series.add(StatusCode::OK, Duration::from_millis(1), 3, 4);
            series.add(StatusCode::NOT_FOUND, Duration::from_secs(60), 0, 1);
        }
        let text = scrape(stats);
        let common = r#"gateway="ns/gw",listener="http",route="HTTPRoute/ns/a",rule="",backend="""#;
        has(&text, &format!(r#"portico_requests_total{{{common},code_class="2xx"}} 2"#));
        has(&text, &format!(r#"portico_requests_total{{{common},code_class="4xx"}} 2"#));
        has(&text, &format!(r#"portico_request_duration_seconds_bucket{{le="0.001",{common}}} 2"#));
        has(&text, &format!(r#"portico_request_duration_seconds_bucket{{le="10.0",{common}}} 2"#));
        has(&text, &format!(r#"portico_request_duration_seconds_bucket{{le="+Inf",{common}}} 4"#));
        has(&text, &format!(r#"portico_request_duration_seconds_count{{{common}}} 4"#));
        has(&text, &format!("portico_request_bytes_total{{{common}}} 6"));
        has(&text, &format!("portico_response_bytes_total{{{common}}} 10"));
        assert!(!text.contains("5xx"), "a series exists from its first request");
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let stats = Arc::new(Stats::new(2, 2, Arc::default()));
        // Held as a view holds what was used under its snapshot.
        let mut view = Vec::new();
        for route in ["a", "b", "c", "d", "a"] {
            for worker in 0..2 {
                let series = stats.series(stats.ledger(worker), labels(route));
                series.add(StatusCode::OK, Duration::ZERO, 0, 0);
                view.push(series);
            }
        }
        let text = scrape(stats);
        assert_eq!(text.lines().filter(|line| line.starts_with("portico_requests_total")).count(), 3);
        let other = r#"gateway="other",listener="other",route="other",rule="other",backend="other""#;
        has(&text, &format!(r#"portico_requests_total{{{other},code_class="2xx"}} 4"#));
        has(&text, "portico_series_folded_total 4");
    }

    #[tokio::test(start_paused = true)]
    async fn routes_that_are_gone_make_room() {
        let stats = Arc::new(Stats::new(1, 2, Arc::default()));
        let ask = |route| stats.series(stats.ledger(0), labels(route));
        let kept = ask("kept");
        drop(ask("gone"));
        let new = ask("new");
        assert_eq!(&*new.labels.route, "new");
        assert_eq!(&*ask("too much").labels.route, "other");
        drop(new);
        assert_eq!(&*ask("soon after").labels.route, "other", "not every request looks at all series");
        tokio::time::advance(CLEAR_EVERY * 2).await;
        assert_eq!(&*ask("later").labels.route, "later");
        assert!(Arc::ptr_eq(&kept, &ask("kept")), "what is used is counted on");
    }
}
