//! The books of all workers together, in the families that `interface.md` §6 names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::super::tls::Failure;
use super::{BOUNDS, CLASSES, HeaderOutcome, Labels, Ledger, MIRRORED, Series, Stats};
use crate::upstream::{Count, Traffic};

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

        let mut family = encoder.encode_descriptor(
            "portico_mirrored_requests",
            "Copies of requests for mirrors, by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (index, (_, outcome)) in MIRRORED.iter().enumerate() {
            let count = self.sum(|ledger| ledger.mirroring.0[index].value());
            family.encode_family(&[("outcome", *outcome)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }

        let mut family = encoder.encode_descriptor(
            "portico_faults",
            "Requests that an endpoint did not answer, or not to the end, by reason",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in self.faults() {
            family.encode_family(&[("reason", reason)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }

        self.encode_plugins(&mut encoder)?;

        let mut family = encoder.encode_descriptor(
            "portico_tls_handshakes",
            "TLS handshakes of clients, by how they ended",
            None,
            MetricType::Counter,
        )?;
        let full = ("full", self.sum(|ledger| ledger.handshakes.full.value()));
        let resumed = ("resumed", self.sum(|ledger| ledger.handshakes.resumed.value()));
        let failed = Failure::ALL
            .map(|failure| (failure.word(), self.sum(|ledger| ledger.handshakes.failed[failure as usize].value())));
        for (outcome, count) in [full, resumed].into_iter().chain(failed) {
            family.encode_family(&[("outcome", outcome)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }

        let mut family = encoder.encode_descriptor(
            "portico_proxy_headers",
            "Connections that are to begin with a PROXY header, by what came",
            None,
            MetricType::Counter,
        )?;
        for (outcome, word) in HeaderOutcome::ALL {
            let count = self.sum(|ledger| ledger.headers[outcome as usize].value());
            family.encode_family(&[("outcome", word)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }

        let mut family = encoder.encode_descriptor(
            "portico_access_log_dropped",
            "Lines of the access log that were lost: the queue was full, or writing failed",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in [("full", &self.log_lost.full), ("failed", &self.log_lost.failed)] {
            let count = count.load(Relaxed);
            family.encode_family(&[("reason", reason)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }

        let totals = [
            (
                "portico_upstream_retries",
                "Further tries of requests, because the rule of the request asks for them",
                self.sum(|ledger| ledger.traffic.retried.value()),
            ),
            (
                "portico_upstream_reuses",
                "Requests sent on a kept-alive connection to an endpoint",
                self.sum(|ledger| ledger.traffic.reused.value()),
            ),
            (
                "portico_upstream_replays",
                "Requests sent again because a kept-alive connection was gone or the endpoint had not looked at them",
                self.sum(|ledger| ledger.traffic.replayed.value()),
            ),
            (
                "portico_accept_errors",
                "Failures of the system to hand over a connection of a client",
                self.sum(|ledger| ledger.accept_errors.value()),
            ),
            (
                "portico_connections_delayed",
                "Connections of clients that had to wait because of --max-connections; others wait unseen behind them",
                self.sum(|ledger| ledger.delayed.value()),
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

const GAUGES: [Part<Ledger, u64>; 4] = [
    ("portico_connections", "Open connections of clients", |ledger| {
        ledger.accepted.value().saturating_sub(ledger.closed.value())
    }),
    ("portico_http2_connections", "Open connections of clients that speak HTTP/2", |ledger| ledger.http2.value()),
    ("portico_tunnels", "Connections and streams of clients that were upgraded and are open", |ledger| {
        ledger.tunnels.value()
    }),
    ("portico_upstream_connections", "Open connections to endpoints", |ledger| {
        ledger.traffic.connected.value().saturating_sub(ledger.traffic.closed.value())
    }),
];

type Outcome = (&'static str, fn(&Traffic) -> &Count);

const OUTCOMES: [Outcome; 6] = [
    ("connected", |traffic| &traffic.connected),
    ("refused", |traffic| &traffic.refused),
    ("timed_out", |traffic| &traffic.timed_out),
    ("failed", |traffic| &traffic.failed),
    ("tls_handshake", |traffic| &traffic.handshake),
    ("no_room", |traffic| &traffic.no_room),
];

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

impl Stats {
    /// Requests answered since the start.
    pub fn requests(&self) -> u64 {
        let counted: u64 = self.merged().values().map(|counts| counts.classes.iter().sum::<u64>()).sum();
        counted + self.forgotten.load(Relaxed)
    }

    /// The backends that requests were sent to, as `backend` of their series: no more than there are series.
    pub fn backends(&self) -> BTreeSet<Arc<str>> {
        let known = self.known.lock();
        known.labels.iter().map(|labels| Arc::clone(&labels.backend)).filter(|backend| !backend.is_empty()).collect()
    }

    fn faults(&self) -> BTreeMap<&'static str, u64> {
        let mut faults = BTreeMap::new();
        for ledger in &self.ledgers {
            for (reason, count) in ledger.faults.lock().iter() {
                *faults.entry(*reason).or_default() += count;
            }
        }
        faults
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

#[cfg(test)]
pub(super) mod testing {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    pub(in super::super) fn scrape(stats: Arc<Stats>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(stats));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    pub(in super::super) fn has(text: &str, line: &str) {
        assert!(text.lines().any(|candidate| candidate == line), "no line {line} in\n{text}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::testing::{has, scrape};
    use super::*;

    fn labels(route: &str) -> Labels {
        Labels { gateway: "ns/gw".into(), listener: "http".into(), route: route.into(), ..Labels::default() }
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
}
