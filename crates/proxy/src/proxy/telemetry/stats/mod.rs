//! Statistics of the data plane: counted per worker, merged when metrics are scraped.
//!
//! ```text
//!   request ─▶ RequestSeries (one per worker and label set; plain adds, one writer)
//!                 ▲ found by the addresses of listener, rule and backend; no label is formatted
//!   scrape ─▶ ProxyStats ─ merges the counters of all workers
//! ```

mod datagrams;
mod endpoints;
mod exemplars;
mod exposition;
mod locations;
mod plugins;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(in crate::proxy) use self::locations::LocationRequest;
pub use self::locations::{LocationCounts, LocationHistogram, LocationLabels, LocationMetrics};
pub(in crate::proxy) use self::plugins::UnfilteredBody;
pub(in crate::proxy) use datagrams::{DatagramDrop, DroppedDatagrams};
pub(in crate::proxy) use streams::StreamOutcome;

use super::access_log::LostLines;
use crate::duration_bounds::DURATION_BOUNDS;
use crate::plugin_api::completed_request::Attempt;
use crate::proxy::buffer_budget::BufferBudget;
use crate::proxy::connection::tls::ClientHandshakeError;
use crate::proxy::unforwarded_budget::UnforwardedBudget;
use crate::upstream::{RetryMetrics, SingleWriterCounter, UpstreamCounters};
use endpoints::{EndpointAttempts, EndpointStats};
use exemplars::Exemplars;
use locations::{LocationRequests, LocationStats};
use streams::StreamCounters;

/// Labels of the metrics of requests, TCP connections and UDP sessions. A label that does not apply is empty. Their
/// values are those of the snapshot in `SnapshotView`, and their names are in `exposition.rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::proxy) struct RequestLabels {
    pub(in crate::proxy) gateway: Arc<str>,
    pub(in crate::proxy) listener: Arc<str>,
    /// `kind/namespace/name`.
    pub(in crate::proxy) route: Arc<str>,
    pub(in crate::proxy) rule: Arc<str>,
    /// `namespace/service:port`.
    pub(in crate::proxy) backend: Arc<str>,
}

/// The counters of one label set in one worker.
#[derive(Debug)]
pub(in crate::proxy) struct RequestSeries {
    pub(in crate::proxy) labels: Arc<RequestLabels>,
    /// The labels as text of the access log: for each place in which lines have labels. Set by the first line.
    pub(in crate::proxy) line_texts: OnceLock<Box<[Box<[u8]>]>>,
    /// Requests by class of the response status.
    classes: [SingleWriterCounter; CLASSES.len()],
    /// The last bucket counts durations longer than all `DURATION_BOUNDS`.
    durations: [SingleWriterCounter; DURATION_BOUNDS.len() + 1],
    /// The sum of all durations.
    microseconds: SingleWriterCounter,
    bytes_in: SingleWriterCounter,
    bytes_out: SingleWriterCounter,
    /// Set for connections and UDP sessions whose bytes are forwarded. Such a series has no requests, except for the
    /// series `other`.
    streams: OnceLock<Box<StreamCounters>>,
    /// Set by the first request whose trace is recorded.
    exemplars: OnceLock<Box<Exemplars>>,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl RequestSeries {
    pub(super) fn new(labels: Arc<RequestLabels>) -> Self {
        RequestSeries {
            labels,
            line_texts: OnceLock::new(),
            classes: Default::default(),
            durations: Default::default(),
            microseconds: SingleWriterCounter::default(),
            bytes_in: SingleWriterCounter::default(),
            bytes_out: SingleWriterCounter::default(),
            streams: OnceLock::new(),
            exemplars: OnceLock::new(),
        }
    }

    pub(in crate::proxy) fn add(&self, status: StatusCode, duration: Duration, bytes_in: u64, bytes_out: u64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.classes[class].add(1);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.durations[DURATION_BOUNDS.partition_point(|bound| *bound < microseconds)].add(1);
        self.microseconds.add(microseconds);
        self.bytes_in.add(bytes_in);
        self.bytes_out.add(bytes_out);
    }

    /// Marks the series as one of connections, so that it has no metrics of requests.
    pub(in crate::proxy) fn mark_as_streams(&self) {
        self.streams.get_or_init(Box::default);
    }

    /// Counts a forwarded connection or UDP session.
    pub(in crate::proxy) fn add_stream(&self, outcome: StreamOutcome, bytes_in: u64, bytes_out: u64) {
        self.streams.get_or_init(Box::default).add(outcome, bytes_in, bytes_out);
    }
}

/// Minimum interval between two evictions of unused label sets.
const EVICT_INTERVAL: Duration = Duration::from_secs(10);

/// The current number of something, as the difference of two single-writer counters.
#[derive(Debug, Default)]
pub(in crate::proxy) struct OpenCount {
    opened: SingleWriterCounter,
    closed: SingleWriterCounter,
}

impl OpenCount {
    fn value(&self) -> u64 {
        self.opened.value().saturating_sub(self.closed.value())
    }
}

/// Counts one open item until dropped.
pub(in crate::proxy) struct OpenGuard {
    stats: Arc<WorkerStats>,
    count: fn(&WorkerStats) -> &OpenCount,
}

impl OpenGuard {
    pub(in crate::proxy) fn new(stats: &Arc<WorkerStats>, count: fn(&WorkerStats) -> &OpenCount) -> Self {
        count(stats).opened.add(1);
        OpenGuard { stats: Arc::clone(stats), count }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        (self.count)(&self.stats).closed.add(1);
    }
}

/// The counters of one worker. Aligned, so that workers do not share the cache lines that they write.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(in crate::proxy) struct WorkerStats {
    /// Locked for the first request of a label set under a snapshot, and by scrapes.
    series: Mutex<HashMap<Arc<RequestLabels>, Arc<RequestSeries>>>,
    /// Client connections.
    pub(in crate::proxy) accepted: SingleWriterCounter,
    pub(in crate::proxy) closed: SingleWriterCounter,
    pub(in crate::proxy) accept_errors: SingleWriterCounter,
    /// Connections delayed by `--max-connections`.
    pub(in crate::proxy) delayed: SingleWriterCounter,
    /// Idle connections closed because of `--max-connections`.
    pub(in crate::proxy) evicted: SingleWriterCounter,
    /// HTTP/2 client connections.
    pub(in crate::proxy) http2: OpenCount,
    pub(in crate::proxy) parked: OpenCount,
    /// Upgraded connections and streams.
    pub(in crate::proxy) tunnels: OpenCount,
    /// Connections whose bytes are forwarded.
    pub(in crate::proxy) streams: OpenCount,
    pub(in crate::proxy) udp_sessions: OpenCount,
    pub(in crate::proxy) dropped_datagrams: DroppedDatagrams,
    pub(in crate::proxy) handshakes: HandshakeCounters,
    /// Indexed by [`ProxyHeaderOutcome`].
    pub(in crate::proxy) proxy_headers: [SingleWriterCounter; ProxyHeaderOutcome::ALL.len()],
    pub(in crate::proxy) upstream: Arc<UpstreamCounters>,
    pub(in crate::proxy) mirrored: Arc<MirrorCounters>,
    /// Request errors by reason. Locked for each error, and by scrapes.
    request_errors: Mutex<BTreeMap<&'static str, u64>>,
    /// Locked once for each request with plugins, and by scrapes.
    plugins: Mutex<plugins::DurationsByKind>,
    /// Locked for each response body that a plugin could not filter, and by scrapes.
    unfiltered_bodies: Mutex<plugins::UnfilteredBodies>,
    /// Locked for each attempt with `--endpoint-metrics`, and by scrapes.
    endpoints: Arc<Mutex<EndpointAttempts>>,
    /// Locked for each request of a rule with names if these are counted, and by scrapes.
    locations: Arc<Mutex<LocationRequests>>,
}

impl WorkerStats {
    pub(in crate::proxy) fn count_errors(&self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.request_errors.lock().entry(reason).or_default() += count;
        }
    }
}

/// Mirrored copies by outcome.
#[derive(Debug, Default)]
pub(in crate::proxy) struct MirrorCounters([SingleWriterCounter; MIRROR_OUTCOMES.len()]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum MirrorOutcome {
    Completed,
    /// No endpoint, no connection or no response in time, or a filter could not be applied.
    Failed,
    /// The body exceeds the mirroring limit.
    TooLarge,
    /// The maximum number of concurrent copies was reached.
    TooMany,
    /// The limit of bytes that the process keeps was reached.
    BufferLimit,
    /// The body of the original request was incomplete.
    Truncated,
}

const MIRROR_OUTCOMES: [(MirrorOutcome, &str); 6] = [
    (MirrorOutcome::Completed, "completed"),
    (MirrorOutcome::Failed, "failed"),
    (MirrorOutcome::TooLarge, "too_large"),
    (MirrorOutcome::TooMany, "too_many"),
    (MirrorOutcome::BufferLimit, "buffer_limit"),
    (MirrorOutcome::Truncated, "truncated"),
];

impl MirrorCounters {
    pub(in crate::proxy) fn add(&self, outcome: MirrorOutcome) {
        for (count, _) in self.0.iter().zip(&MIRROR_OUTCOMES).filter(|(_, (candidate, _))| *candidate == outcome) {
            count.add(1);
        }
    }
}

/// TLS handshakes with clients by outcome.
#[derive(Debug, Default)]
pub(in crate::proxy) struct HandshakeCounters {
    pub(in crate::proxy) full: SingleWriterCounter,
    pub(in crate::proxy) resumed: SingleWriterCounter,
    /// Indexed by [`ClientHandshakeError`].
    pub(in crate::proxy) failed: [SingleWriterCounter; ClientHandshakeError::ALL.len()],
}

/// The outcome of reading a required PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ProxyHeaderOutcome {
    /// The header has the address of the client.
    Client,
    /// The header has no address, so the address of the load balancer is used.
    Peer,
    /// The connection closed before the end of the header.
    ConnectionClosed,
    Malformed,
    TooLong,
    Timeout,
}

impl ProxyHeaderOutcome {
    pub(in crate::proxy) const ALL: [(ProxyHeaderOutcome, &'static str); 6] = [
        (ProxyHeaderOutcome::Client, "client"),
        (ProxyHeaderOutcome::Peer, "peer"),
        (ProxyHeaderOutcome::ConnectionClosed, "ended"),
        (ProxyHeaderOutcome::Malformed, "malformed"),
        (ProxyHeaderOutcome::TooLong, "too_long"),
        (ProxyHeaderOutcome::Timeout, "timeout"),
    ];
}

/// The counters of all workers. It is a metrics collector for the families of `docs/metrics.md`.
#[derive(Debug)]
pub struct ProxyStats {
    workers: Vec<Arc<WorkerStats>>,
    max_series: usize,
    known: Mutex<KnownLabels>,
    /// Label sets counted as `other`; one set counts once per worker and snapshot.
    folded: AtomicU64,
    /// Requests of series that were evicted.
    evicted_requests: AtomicU64,
    /// Of all workers.
    retries: Arc<RetryMetrics>,
    /// Dropped lines of the access log.
    pub(in crate::proxy) lost_lines: Arc<LostLines>,
    /// The bytes of bodies that are kept.
    buffers: Option<Arc<BufferBudget>>,
    unforwarded: Option<Arc<UnforwardedBudget>>,
    /// With `--endpoint-metrics`.
    endpoints: Option<EndpointStats>,
    /// If requests are counted by the names of their rules.
    locations: Option<LocationStats>,
}

/// The label sets of all workers.
#[derive(Debug, Default)]
struct KnownLabels {
    labels: BTreeSet<Arc<RequestLabels>>,
    /// When unused label sets were last evicted. Each attempt scans all series, so it is rate-limited.
    evicted_at: Option<Instant>,
}

impl ProxyStats {
    pub(in crate::proxy) fn new(workers: usize, max_series: usize, lost_lines: Arc<LostLines>) -> Self {
        let retries = Arc::new(RetryMetrics::new(max_series));
        let upstream = || UpstreamCounters { retries: Arc::clone(&retries), ..UpstreamCounters::default() };
        let worker = || WorkerStats { upstream: Arc::new(upstream()), ..WorkerStats::default() };
        ProxyStats {
            workers: (0..workers).map(|_| Arc::new(worker())).collect(),
            retries,
            max_series,
            known: Mutex::default(),
            folded: AtomicU64::new(0),
            evicted_requests: AtomicU64::new(0),
            lost_lines,
            buffers: None,
            unforwarded: None,
            endpoints: None,
            locations: None,
        }
    }

    /// Adds the metrics of the bytes that are kept.
    pub(in crate::proxy) fn with_budgets(
        self,
        buffers: Arc<BufferBudget>,
        unforwarded: Arc<UnforwardedBudget>,
    ) -> Self {
        ProxyStats { buffers: Some(buffers), unforwarded: Some(unforwarded), ..self }
    }

    /// Also counts the attempts at each endpoint.
    pub(in crate::proxy) fn with_endpoints(self, counts: bool) -> Self {
        let of_workers = || self.workers.iter().map(|stats| Arc::clone(&stats.endpoints)).collect();
        let endpoints = counts.then(|| EndpointStats::new(of_workers(), self.max_series));
        ProxyStats { endpoints, ..self }
    }

    /// Also counts requests by the names of their rules.
    pub(in crate::proxy) fn with_locations(self, metrics: Option<LocationMetrics>) -> Self {
        let of_workers = || self.workers.iter().map(|stats| Arc::clone(&stats.locations)).collect();
        let locations = metrics.map(|metrics| LocationStats::new(metrics, of_workers(), self.max_series));
        ProxyStats { locations, ..self }
    }

    /// The requests by the names of their rules; none unless they are counted.
    pub fn locations(&self) -> BTreeMap<LocationLabels, LocationCounts> {
        self.locations.as_ref().map(LocationStats::merged).unwrap_or_default()
    }

    /// Counts the attempts of a request of this worker that has ended.
    pub(in crate::proxy) fn count_attempts(&self, stats: &WorkerStats, backend: &Arc<str>, attempts: &[Attempt]) {
        if let Some(endpoints) = &self.endpoints {
            endpoints.count(&stats.endpoints, backend, attempts);
        }
    }

    /// Whether requests are counted by the names of their rules.
    pub(in crate::proxy) fn counts_locations(&self) -> bool {
        self.locations.is_some()
    }

    /// Counts a request of this worker that has ended by the names of its rule.
    pub(in crate::proxy) fn count_location(&self, stats: &WorkerStats, request: &LocationRequest<'_>) {
        if let Some(locations) = &self.locations
            && locations.count(&stats.locations, request)
        {
            self.folded.fetch_add(1, Relaxed);
        }
    }

    pub(in crate::proxy) fn worker_count(&self) -> usize {
        self.workers.len()
    }

    pub(in crate::proxy) fn worker(&self, worker: usize) -> &Arc<WorkerStats> {
        &self.workers[worker]
    }

    /// The series of these labels in one worker. Beyond the maximum, all further label sets share the series `other`.
    pub(in crate::proxy) fn series(&self, stats: &WorkerStats, labels: RequestLabels) -> Arc<RequestSeries> {
        if let Some(series) = stats.series.lock().get(&labels) {
            return Arc::clone(series);
        }
        let labels = self.intern_labels(labels);
        let mut series = stats.series.lock();
        let new_series = || Arc::new(RequestSeries::new(Arc::clone(&labels)));
        Arc::clone(series.entry(Arc::clone(&labels)).or_insert_with(new_series))
    }

    /// The shared copy of the label set, or `other` if the maximum is reached.
    fn intern_labels(&self, labels: RequestLabels) -> Arc<RequestLabels> {
        let mut known = self.known.lock();
        if let Some(labels) = known.labels.get(&labels) {
            return Arc::clone(labels);
        }
        if known.labels.len() >= self.max_series
            && known.evicted_at.is_none_or(|evicted_at| evicted_at.elapsed() > EVICT_INTERVAL)
        {
            known.evicted_at = Some(Instant::now());
            self.evict_unused(&mut known.labels);
        }
        if known.labels.len() < self.max_series {
            let labels = Arc::new(labels);
            known.labels.insert(Arc::clone(&labels));
            return labels;
        }
        self.folded.fetch_add(1, Relaxed);
        let other: Arc<str> = "other".into();
        Arc::new(RequestLabels {
            gateway: Arc::clone(&other),
            listener: Arc::clone(&other),
            route: Arc::clone(&other),
            rule: Arc::clone(&other),
            backend: other,
        })
    }

    /// Evicts the series that no worker has used since its snapshot changed; mostly those of deleted routes.
    fn evict_unused(&self, known: &mut BTreeSet<Arc<RequestLabels>>) {
        // Only the worker's map references a series that no view and no request uses.
        let is_used = |series: &Arc<RequestSeries>| Arc::strong_count(series) > 1;
        let mut used = BTreeSet::new();
        for stats in &self.workers {
            used.extend(
                stats.series.lock().iter().filter(|(_, series)| is_used(series)).map(|(key, _)| Arc::clone(key)),
            );
        }
        known.retain(|labels| used.contains(labels));
        for stats in &self.workers {
            stats.series.lock().retain(|labels, series| {
                let is_kept = is_used(series) || used.contains(labels);
                if !is_kept {
                    self.evicted_requests
                        .fetch_add(series.classes.iter().map(SingleWriterCounter::value).sum(), Relaxed);
                }
                is_kept
            });
        }
    }

    /// Client connections that are open now.
    pub fn connections(&self) -> u64 {
        self.sum(|stats| stats.accepted.value().saturating_sub(stats.closed.value()))
    }

    /// Client connections that are idle and have no buffers.
    pub fn idle_connections(&self) -> u64 {
        self.sum(|stats| stats.parked.value())
    }

    /// Client connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.sum(|stats| stats.accepted.value())
    }

    fn sum(&self, value: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.workers.iter().map(|stats| value(stats)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::exposition::testing::{assert_line, scrape};
    use super::*;

    fn labels(route: &str) -> RequestLabels {
        RequestLabels { route: route.into(), ..RequestLabels::default() }
    }

    #[test]
    fn number_of_series_is_bounded() {
        let stats = Arc::new(ProxyStats::new(2, 2, Arc::default()));
        // Held, as a view holds the series used under its snapshot.
        let mut view = Vec::new();
        for route in ["a", "b", "c", "d", "a"] {
            for worker in 0..2 {
                let series = stats.series(stats.worker(worker), labels(route));
                series.add(StatusCode::OK, Duration::ZERO, 0, 0);
                view.push(series);
            }
        }
        let text = scrape(stats);
        assert_eq!(text.lines().filter(|line| line.starts_with("portico_requests_total")).count(), 3);
        let other = r#"gateway="other",listener="other",route="other",rule="other",backend="other""#;
        assert_line(&text, &format!(r#"portico_requests_total{{{other},code_class="2xx"}} 4"#));
        assert_line(&text, "portico_series_folded_total 4");
    }

    #[tokio::test(start_paused = true)]
    async fn unused_series_are_evicted() {
        let stats = Arc::new(ProxyStats::new(1, 2, Arc::default()));
        let series = |route| stats.series(stats.worker(0), labels(route));
        let kept = series("kept");
        series("gone").add(StatusCode::OK, Duration::ZERO, 0, 0);
        let new = series("new");
        assert_eq!(&*new.labels.route, "new");
        assert_eq!(&*series("too much").labels.route, "other");
        drop(new);
        assert_eq!(&*series("soon after").labels.route, "other", "eviction is rate-limited");
        tokio::time::advance(EVICT_INTERVAL * 2).await;
        assert_eq!(&*series("later").labels.route, "later");
        assert!(Arc::ptr_eq(&kept, &series("kept")), "a series in use is kept");
        assert_eq!(stats.requests(), 1, "evicted requests remain in the total");
    }
}
