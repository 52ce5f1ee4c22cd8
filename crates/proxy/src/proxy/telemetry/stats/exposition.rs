//! Exposition of the data plane's metrics: merges the counters of all workers into the families of `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::streams::{MergedStreams, StreamOutcome};
use super::{
    CLASSES, MIRROR_OUTCOMES, ProxyHeaderOutcome, ProxyStats, RequestLabels, RequestSeries, WorkerStats, endpoints,
};
use crate::duration_bounds::DURATION_BOUNDS;
use crate::proxy::buffer_budget::BufferUse;
use crate::proxy::connection::tls::ClientHandshakeError;
use crate::upstream::{HedgeOutcome, RetryReason, RetryStop, SingleWriterCounter, UpstreamCounters};

impl Collector for ProxyStats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let merged = self.merged();
        encode_requests(encoder, &merged)?;
        encode_request_durations(encoder, &merged)?;
        encode_bytes(encoder, &merged)?;
        encode_streams(encoder, &merged)?;
        self.encode_gauges(encoder)?;
        let connects =
            CONNECT_OUTCOMES.map(|(outcome, counter)| (outcome, self.sum(|stats| counter(&stats.upstream).value())));
        encode_counters(
            encoder,
            "portico_upstream_connects",
            "Connection attempts to endpoints, by outcome",
            "outcome",
            connects,
        )?;
        self.encode_retries(encoder)?;
        let mirrored = MIRROR_OUTCOMES.iter().enumerate();
        encode_counters(
            encoder,
            "portico_mirrored_requests",
            "Mirrored copies of requests, by outcome",
            "outcome",
            mirrored.map(|(index, (_, outcome))| (*outcome, self.sum(|stats| stats.mirrored.0[index].value()))),
        )?;
        encode_counters(
            encoder,
            "portico_request_errors",
            "Requests without a complete response from an endpoint, by reason",
            "reason",
            self.request_errors(),
        )?;
        self.encode_dropped_datagrams(encoder)?;
        self.encode_plugins(encoder)?;
        endpoints::encode(self.endpoints.as_ref(), encoder)?;
        self.encode_connections(encoder)?;
        self.encode_buffers(encoder)?;
        self.encode_unforwarded(encoder)?;
        let dropped = [("full", &self.lost_lines.full), ("failed", &self.lost_lines.failed)];
        encode_counters(
            encoder,
            "portico_access_log_dropped",
            "Access-log lines dropped because the queue was full or writing failed, by reason",
            "reason",
            dropped.map(|(reason, count)| (reason, count.load(Relaxed))),
        )?;
        for (name, help, value) in TOTALS {
            let counter = ConstCounter::new(value(self));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

impl ProxyStats {
    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in GAUGES {
            let value = i64::try_from(self.sum(value)).unwrap_or(i64::MAX);
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }

    /// Encodes how often requests were sent again, or not.
    fn encode_retries(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let upstreams = self.retries.all();
        let name = "portico_upstream_retries";
        let help = "Retries of requests, as configured by their rule or Service, by reason and outcome";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (upstream, counters) in &upstreams {
            for reason in RetryReason::ALL {
                for (outcome, is_successful) in [("success", true), ("failure", false)] {
                    let count = counters.retries(reason, is_successful);
                    let labels = [("upstream", &**upstream), ("reason", reason.name()), ("outcome", outcome)];
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
                }
            }
        }
        let name = "portico_upstream_retries_refused";
        let help = "Failed requests that were not sent again, by what prevented it";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (upstream, counters) in &upstreams {
            for stop in RetryStop::ALL {
                let labels = [("upstream", &**upstream), ("why", stop.name())];
                let count = counters.stops(stop);
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        encode_counters(
            encoder,
            "portico_upstream_hedges",
            "Requests whose first attempt took so long that a second one was due, by outcome",
            "outcome",
            HedgeOutcome::ALL.map(|outcome| (outcome.name(), self.sum(|worker| worker.upstream.hedges.value(outcome)))),
        )
    }

    /// Encodes the bytes of bodies that are kept.
    fn encode_buffers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(buffers) = &self.buffers else { return Ok(()) };
        for (name, help, bytes) in [
            ("portico_buffered_bytes", "Bytes of bodies kept in memory, and reserved for them", buffers.used()),
            ("portico_buffered_bytes_limit", "Limit of portico_buffered_bytes", buffers.limit()),
        ] {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let refused = BufferUse::ALL.map(|(kept_for, label)| (label, buffers.refused(kept_for)));
        encode_counters(
            encoder,
            "portico_buffered_bytes_refused",
            "Bodies not kept in memory because of --max-buffered-bytes, by use",
            "use",
            refused,
        )
    }

    /// Encodes the bytes of bodies that were received and not yet forwarded, on HTTP/2 connections of clients.
    fn encode_unforwarded(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(unforwarded) = &self.unforwarded else { return Ok(()) };
        for (name, help, bytes) in [
            (
                "portico_unforwarded_bytes",
                "Bytes of bodies received and not yet forwarded on HTTP/2 connections of clients, and reserved for them",
                unforwarded.used(),
            ),
            ("portico_unforwarded_bytes_limit", "Limit of portico_unforwarded_bytes", unforwarded.limit()),
        ] {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let pauses = ConstCounter::new(unforwarded.pauses());
        let help = "How often an HTTP/2 connection or its responses had to wait because of --max-unforwarded-bytes";
        pauses.encode(encoder.encode_descriptor(
            "portico_unforwarded_bytes_pauses",
            help,
            None,
            pauses.metric_type(),
        )?)
    }

    /// Encodes what happens before the first request of a connection: TLS handshakes and PROXY headers.
    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let full = ("full", self.sum(|stats| stats.handshakes.full.value()));
        let resumed = ("resumed", self.sum(|stats| stats.handshakes.resumed.value()));
        let failed = ClientHandshakeError::ALL
            .map(|failure| (failure.label(), self.sum(|stats| stats.handshakes.failed[failure as usize].value())));
        encode_counters(
            encoder,
            "portico_tls_handshakes",
            "TLS handshakes with clients, by outcome",
            "outcome",
            [full, resumed].into_iter().chain(failed),
        )?;
        let proxy_headers = ProxyHeaderOutcome::ALL
            .map(|(outcome, label)| (label, self.sum(|stats| stats.proxy_headers[outcome as usize].value())));
        encode_counters(
            encoder,
            "portico_proxy_headers",
            "Client connections that require a PROXY header, by outcome",
            "outcome",
            proxy_headers,
        )
    }
}

type MergedByLabels = BTreeMap<Arc<RequestLabels>, MergedSeries>;

fn encode_requests(encoder: &mut DescriptorEncoder<'_>, merged: &MergedByLabels) -> fmt::Result {
    let mut family = encoder.encode_descriptor("portico_requests", "Completed requests", None, MetricType::Counter)?;
    for (labels, counts) in merged {
        for (class, count) in CLASSES.iter().zip(counts.classes) {
            // A class is exposed from its first request on.
            if count > 0 {
                let mut pairs = labels.pairs().to_vec();
                pairs.push(("code_class", class));
                family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
    }
    Ok(())
}

fn encode_request_durations(encoder: &mut DescriptorEncoder<'_>, merged: &MergedByLabels) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "portico_request_duration_seconds",
        "From the first byte of a request to the last byte of its response",
        None,
        MetricType::Histogram,
    )?;
    for (labels, counts) in merged.iter().filter(|(_, counts)| counts.is_of_requests()) {
        let bounds = DURATION_BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts.durations).collect();
        let count = counts.durations.iter().sum();
        let pairs = labels.pairs();
        let mut series = family.encode_family(&pairs)?;
        series.encode_histogram::<NoLabelSet>(counts.microseconds as f64 / 1e6, count, &buckets, None)?;
    }
    Ok(())
}

fn encode_bytes(encoder: &mut DescriptorEncoder<'_>, merged: &MergedByLabels) -> fmt::Result {
    for (name, help, value) in BYTES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, counts) in merged.iter().filter(|(_, counts)| counts.is_of_requests()) {
            let pairs = labels.pairs();
            family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&value(counts), None)?;
        }
    }
    Ok(())
}

/// Encodes the connections of TCP and TLS listeners, and the sessions of UDP listeners.
fn encode_streams(encoder: &mut DescriptorEncoder<'_>, merged: &MergedByLabels) -> fmt::Result {
    let streams = || merged.iter().filter_map(|(labels, counts)| Some((labels, counts.streams.as_ref()?)));
    let help = "Connections of TCP and TLS listeners, and sessions of UDP listeners, that have ended, by outcome";
    let mut family = encoder.encode_descriptor("portico_stream_connections", help, None, MetricType::Counter)?;
    for (labels, counts) in streams() {
        // An outcome is exposed from its first connection on.
        for ((_, outcome), count) in StreamOutcome::ALL.iter().zip(counts.outcomes).filter(|(_, count)| *count > 0) {
            let mut pairs = labels.pairs().to_vec();
            pairs.push(("outcome", outcome));
            family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
    }
    for (name, help, value) in STREAM_BYTES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, counts) in streams() {
            let pairs = labels.pairs();
            family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&value(counts), None)?;
        }
    }
    Ok(())
}

/// Encodes a family of counters that differ in one label.
pub(super) fn encode_counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    counts: impl IntoIterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in counts {
        family.encode_family(&[(label, value)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
    }
    Ok(())
}

/// Name, help text, and the function that reads the value.
type MetricDefinition<T, V> = (&'static str, &'static str, fn(&T) -> V);

const BYTES: [MetricDefinition<MergedSeries, u64>; 2] = [
    ("portico_request_bytes", "Bytes of request bodies", |counts| counts.bytes_in),
    ("portico_response_bytes", "Bytes of response bodies", |counts| counts.bytes_out),
];

const STREAM_BYTES: [MetricDefinition<MergedStreams, u64>; 2] = [
    ("portico_stream_received_bytes", "Bytes that clients sent to TCP, TLS and UDP listeners", |counts| {
        counts.bytes_in
    }),
    ("portico_stream_sent_bytes", "Bytes that TCP, TLS and UDP listeners sent to clients", |counts| counts.bytes_out),
];

const GAUGES: [MetricDefinition<WorkerStats, u64>; 7] = [
    ("portico_connections", "Open client connections", |stats| {
        stats.accepted.value().saturating_sub(stats.closed.value())
    }),
    ("portico_parked_connections", "Open client connections without buffers, because they are idle", |stats| {
        stats.parked.value()
    }),
    ("portico_http2_connections", "Open HTTP/2 client connections", |stats| stats.http2.value()),
    ("portico_tunnels", "Open upgraded client connections and streams", |stats| stats.tunnels.value()),
    ("portico_streams", "Open connections of TCP and TLS listeners", |stats| stats.streams.value()),
    ("portico_udp_sessions", "Open sessions of UDP listeners", |stats| stats.udp_sessions.value()),
    ("portico_upstream_connections", "Open connections to endpoints", |stats| {
        stats.upstream.connected.value().saturating_sub(stats.upstream.closed.value())
    }),
];

const TOTALS: [MetricDefinition<ProxyStats, u64>; 6] = [
    ("portico_upstream_reuses", "Requests sent on a kept-alive connection to an endpoint", |stats| {
        stats.sum(|worker| worker.upstream.reused.value())
    }),
    (
        "portico_upstream_replays",
        "Requests sent again because a kept-alive connection was closed or the endpoint had not processed them",
        |stats| stats.sum(|worker| worker.upstream.replayed.value()),
    ),
    (
        "portico_accept_errors",
        "Errors of the operating system when accepting client connections or receiving datagrams",
        |stats| stats.sum(|worker| worker.accept_errors.value()),
    ),
    (
        "portico_connections_delayed",
        "Client connections delayed by --max-connections; further ones wait uncounted in the accept queue",
        |stats| stats.sum(|worker| worker.delayed.value()),
    ),
    ("portico_connections_evicted", "Idle client connections closed because of --max-connections", |stats| {
        stats.sum(|worker| worker.evicted.value())
    }),
    ("portico_series_folded", "Label sets counted as `other` because --metrics-max-series was reached", |stats| {
        stats.folded.load(Relaxed)
    }),
];

type ConnectOutcome = (&'static str, fn(&UpstreamCounters) -> &SingleWriterCounter);

const CONNECT_OUTCOMES: [ConnectOutcome; 7] = [
    ("connected", |counters| &counters.connected),
    ("refused", |counters| &counters.refused),
    ("timed_out", |counters| &counters.timed_out),
    ("failed", |counters| &counters.failed),
    ("tls_handshake", |counters| &counters.tls_failed),
    ("limit", |counters| &counters.limited),
    ("share", |counters| &counters.share_limited),
];

impl RequestLabels {
    pub(super) fn pairs(&self) -> [(&'static str, &str); 5] {
        [
            ("gateway", &self.gateway),
            ("listener", &self.listener),
            ("route", &self.route),
            ("rule", &self.rule),
            ("backend", &self.backend),
        ]
    }
}

impl ProxyStats {
    /// Completed requests since the start.
    pub fn requests(&self) -> u64 {
        let counted: u64 = self.merged().values().map(|counts| counts.classes.iter().sum::<u64>()).sum();
        counted + self.evicted_requests.load(Relaxed)
    }

    /// The backends of all series, as in their `backend` label; bounded by the number of series.
    pub fn backends(&self) -> BTreeSet<Arc<str>> {
        let known = self.known.lock();
        known.labels.iter().map(|labels| Arc::clone(&labels.backend)).filter(|backend| !backend.is_empty()).collect()
    }

    fn request_errors(&self) -> BTreeMap<&'static str, u64> {
        let mut errors = BTreeMap::new();
        for stats in &self.workers {
            for (reason, count) in stats.request_errors.lock().iter() {
                *errors.entry(*reason).or_default() += count;
            }
        }
        errors
    }

    fn merged(&self) -> MergedByLabels {
        let mut merged = MergedByLabels::new();
        for stats in &self.workers {
            // Copied, so that a worker adding a series does not wait for a slow scrape.
            let series: Vec<_> = stats.series.lock().values().cloned().collect();
            for series in series {
                merged.entry(Arc::clone(&series.labels)).or_default().add(&series);
            }
        }
        merged
    }
}

/// The sums of the series of one label set over all workers.
#[derive(Default)]
struct MergedSeries {
    classes: [u64; CLASSES.len()],
    durations: [u64; DURATION_BOUNDS.len() + 1],
    microseconds: u64,
    bytes_in: u64,
    bytes_out: u64,
    streams: Option<MergedStreams>,
}

impl MergedSeries {
    /// Whether the metrics of requests apply, as opposed to those of TCP connections only.
    fn is_of_requests(&self) -> bool {
        self.streams.is_none() || self.durations.iter().any(|count| *count > 0)
    }

    fn add(&mut self, series: &RequestSeries) {
        for (sum, count) in self.classes.iter_mut().zip(&series.classes) {
            *sum += count.value();
        }
        for (sum, count) in self.durations.iter_mut().zip(&series.durations) {
            *sum += count.value();
        }
        self.microseconds += series.microseconds.value();
        self.bytes_in += series.bytes_in.value();
        self.bytes_out += series.bytes_out.value();
        if let Some(streams) = series.streams.get() {
            self.streams.get_or_insert_default().add(streams);
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    pub(in crate::proxy::telemetry::stats) fn scrape(stats: Arc<ProxyStats>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(stats));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    pub(in crate::proxy::telemetry::stats) fn assert_line(text: &str, line: &str) {
        assert!(text.lines().any(|candidate| candidate == line), "no line {line} in\n{text}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::testing::{assert_line, scrape};
    use super::*;

    fn labels(route: &str) -> RequestLabels {
        RequestLabels {
            gateway: "ns/gw".into(),
            listener: "http".into(),
            route: route.into(),
            ..RequestLabels::default()
        }
    }

    #[test]
    fn series_of_workers_are_merged() {
        let stats = Arc::new(ProxyStats::new(2, 10, Arc::default()));
        for worker in 0..2 {
            let series = stats.series(stats.worker(worker), labels("HTTPRoute/ns/a"));
            series.add(StatusCode::OK, Duration::from_millis(1), 3, 4);
            series.add(StatusCode::NOT_FOUND, Duration::from_secs(60), 0, 1);
        }
        let text = scrape(stats);
        let common = r#"gateway="ns/gw",listener="http",route="HTTPRoute/ns/a",rule="",backend="""#;
        assert_line(&text, &format!(r#"portico_requests_total{{{common},code_class="2xx"}} 2"#));
        assert_line(&text, &format!(r#"portico_requests_total{{{common},code_class="4xx"}} 2"#));
        assert_line(&text, &format!(r#"portico_request_duration_seconds_bucket{{le="0.001",{common}}} 2"#));
        assert_line(&text, &format!(r#"portico_request_duration_seconds_bucket{{le="10.0",{common}}} 2"#));
        assert_line(&text, &format!(r#"portico_request_duration_seconds_bucket{{le="+Inf",{common}}} 4"#));
        assert_line(&text, &format!(r#"portico_request_duration_seconds_count{{{common}}} 4"#));
        assert_line(&text, &format!("portico_request_bytes_total{{{common}}} 6"));
        assert_line(&text, &format!("portico_response_bytes_total{{{common}}} 10"));
        assert!(!text.contains("5xx"), "no request had a status of this class");
    }
}
