//! Attempts by endpoint, with `--endpoint-metrics`: counted per worker, with a limit of series for the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::time::Instant;

use crate::plugin_api::completed_request::{Attempt, AttemptOutcome};

/// A backend and one of its endpoints. Without an address, all those beyond the limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EndpointLabels {
    /// `namespace/service:port`.
    backend: Arc<str>,
    address: Option<SocketAddr>,
}

/// The attempts of one worker at each endpoint.
pub(super) type EndpointAttempts = HashMap<EndpointLabels, AttemptCounts>;

/// The attempts at one endpoint.
#[derive(Clone, Debug)]
pub(super) struct AttemptCounts {
    /// Indexed as [`OUTCOMES`].
    outcomes: [u64; OUTCOMES.len()],
    /// Times until the head of the response. The last bucket counts those longer than all [`BOUNDS`].
    heads: [u64; BOUNDS.len() + 1],
    seconds: f64,
    used_at: Instant,
}

/// The attempts of all workers.
#[derive(Debug)]
pub(super) struct EndpointStats {
    workers: Vec<Arc<Mutex<EndpointAttempts>>>,
    max_endpoints: usize,
    known: Mutex<Known>,
}

/// The endpoints that have series, in all workers.
#[derive(Debug, Default)]
struct Known {
    labels: HashSet<EndpointLabels>,
    /// When unused endpoints were last evicted. Each attempt scans all series, so it is rate-limited.
    evicted_at: Option<Instant>,
}

impl AttemptCounts {
    fn new(now: Instant) -> Self {
        AttemptCounts { outcomes: Default::default(), heads: Default::default(), seconds: 0.0, used_at: now }
    }

    fn add(&mut self, attempt: &Attempt, now: Instant) {
        self.outcomes[outcome(attempt)] += 1;
        if let Some(head) = attempt.first_byte {
            self.heads[BOUNDS.partition_point(|bound| *bound < head)] += 1;
            self.seconds += head.as_secs_f64();
        }
        self.used_at = now;
    }

    fn merge(&mut self, other: &AttemptCounts) {
        let counts = self.outcomes.iter_mut().chain(&mut self.heads);
        for (sum, count) in counts.zip(other.outcomes.iter().chain(&other.heads)) {
            *sum += count;
        }
        self.seconds += other.seconds;
    }
}

impl EndpointStats {
    pub(super) fn new(workers: Vec<Arc<Mutex<EndpointAttempts>>>, max_endpoints: usize) -> Self {
        EndpointStats { workers, max_endpoints, known: Mutex::default() }
    }

    /// Counts the attempts of a request that has ended, among those of its worker.
    pub(super) fn count(&self, worker: &Mutex<EndpointAttempts>, backend: &Arc<str>, attempts: &[Attempt]) {
        let now = Instant::now();
        for attempt in attempts {
            let labels = EndpointLabels { backend: Arc::clone(backend), address: Some(attempt.endpoint) };
            if let Some(counts) = worker.lock().get_mut(&labels) {
                counts.add(attempt, now);
                continue;
            }
            let labels = self.known(labels, now);
            worker.lock().entry(labels).or_insert_with(|| AttemptCounts::new(now)).add(attempt, now);
        }
    }

    /// The labels of an endpoint, or those of all others if the maximum is reached.
    fn known(&self, labels: EndpointLabels, now: Instant) -> EndpointLabels {
        let mut known = self.known.lock();
        let is_full = |known: &Known| known.labels.len() >= self.max_endpoints && !known.labels.contains(&labels);
        if is_full(&known) && known.evicted_at.is_none_or(|evicted_at| now - evicted_at > EVICT_INTERVAL) {
            known.evicted_at = Some(now);
            self.evict_unused(&mut known.labels, now);
        }
        if is_full(&known) {
            return EndpointLabels { backend: "other".into(), address: None };
        }
        known.labels.insert(labels.clone());
        labels
    }

    /// Evicts the endpoints that no worker has used for a while; mostly those that were removed.
    fn evict_unused(&self, known: &mut HashSet<EndpointLabels>, now: Instant) {
        let is_used = |counts: &AttemptCounts| now.saturating_duration_since(counts.used_at) < UNUSED_AFTER;
        let mut used = HashSet::new();
        for worker in &self.workers {
            let attempts = worker.lock();
            used.extend(attempts.iter().filter(|(_, counts)| is_used(counts)).map(|(labels, _)| labels.clone()));
        }
        known.retain(|labels| used.contains(labels));
        for worker in &self.workers {
            worker.lock().retain(|labels, _| labels.address.is_none() || used.contains(labels));
        }
    }

    fn merged(&self) -> BTreeMap<EndpointLabels, AttemptCounts> {
        let mut merged: BTreeMap<EndpointLabels, AttemptCounts> = BTreeMap::new();
        for worker in &self.workers {
            let attempts = worker.lock().clone();
            for (labels, counts) in attempts {
                let used_at = counts.used_at;
                merged.entry(labels).or_insert_with(|| AttemptCounts::new(used_at)).merge(&counts);
            }
        }
        merged
    }
}

/// Encodes both families, which have no series without the flag.
pub(super) fn encode(stats: Option<&EndpointStats>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let merged = stats.map(EndpointStats::merged).unwrap_or_default();
    let address = |labels: &EndpointLabels| labels.address.map_or("other".to_owned(), |it| it.to_string());
    let help = "Attempts to get a response from an endpoint, by outcome, with --endpoint-metrics";
    let mut family = encoder.encode_descriptor("portico_endpoint_attempts", help, None, MetricType::Counter)?;
    for (labels, counts) in &merged {
        let endpoint = address(labels);
        for (outcome, count) in OUTCOMES.iter().zip(counts.outcomes).filter(|(_, count)| *count > 0) {
            let labels = [("backend", &*labels.backend), ("endpoint", &*endpoint), ("outcome", *outcome)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
    }
    let help = "From the start of an attempt until the head of its response, with --endpoint-metrics";
    let name = "portico_endpoint_response_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, counts) in &merged {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts.heads).collect();
        let endpoint = address(labels);
        let labels = [("backend", &*labels.backend), ("endpoint", &*endpoint)];
        let count = counts.heads.iter().sum();
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(counts.seconds, count, &buckets, None)?;
    }
    Ok(())
}

/// The place of an attempt in [`OUTCOMES`].
fn outcome(attempt: &Attempt) -> usize {
    match attempt.outcome {
        AttemptOutcome::Status(status) if status.is_server_error() => 1,
        AttemptOutcome::Status(_) => 0,
        AttemptOutcome::Failed { .. } => 2,
        AttemptOutcome::Unfinished => 3,
    }
}

const OUTCOMES: [&str; 4] = ["success", "server_error", "failed", "unfinished"];

/// Fewer buckets than those of requests, because there may be thousands of endpoints.
const BOUNDS: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(1000),
    Duration::from_millis(5000),
];

/// Minimum interval between two evictions.
const EVICT_INTERVAL: Duration = Duration::from_secs(10);

/// Series of an endpoint without requests for this time are removed if there are too many.
const UNUSED_AFTER: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::ProxyStats;
    use super::super::exposition::testing::{assert_line, scrape};
    use super::*;

    fn attempt(host: u8, outcome: AttemptOutcome, milliseconds: u64) -> Attempt {
        let head = Duration::from_millis(milliseconds);
        let first_byte = matches!(outcome, AttemptOutcome::Status(_)).then_some(head);
        Attempt { first_byte, outcome, ..Attempt::start(([10, 0, 0, host], 80).into(), Instant::now()) }
    }

    fn stats(max_series: usize) -> Arc<ProxyStats> {
        Arc::new(ProxyStats::new(2, max_series, Arc::default()).with_endpoints(true))
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_of_workers_are_merged_by_endpoint() {
        let (stats, cart) = (stats(10), Arc::from("shop/cart:80"));
        let failed = AttemptOutcome::Failed { reason: "refused", status: StatusCode::BAD_GATEWAY };
        for worker in 0..2 {
            let ok = attempt(1, AttemptOutcome::Status(StatusCode::NOT_FOUND), 5);
            let busy = attempt(1, AttemptOutcome::Status(StatusCode::SERVICE_UNAVAILABLE), 6000);
            stats.count_attempts(stats.worker(worker), &cart, &[attempt(2, failed, 0), busy, ok]);
        }
        let off = Arc::new(ProxyStats::new(1, 10, Arc::default()));
        off.count_attempts(off.worker(0), &cart, &[attempt(2, failed, 0)]);
        assert!(!scrape(off).contains("10.0.0.2"), "nothing is counted without the flag");
        let text = scrape(stats);
        let labels = |host: u8| format!("backend=\"shop/cart:80\",endpoint=\"10.0.0.{host}:80\"");
        let (first, second) = (labels(1), labels(2));
        for (labels, outcome) in [(&first, "success"), (&first, "server_error"), (&second, "failed")] {
            assert_line(&text, &format!("portico_endpoint_attempts_total{{{labels},outcome=\"{outcome}\"}} 2"));
        }
        assert_line(&text, &format!("portico_endpoint_response_seconds_bucket{{le=\"0.005\",{first}}} 2"));
        assert_line(&text, &format!("portico_endpoint_response_seconds_bucket{{le=\"5.0\",{first}}} 2"));
        assert_line(&text, &format!("portico_endpoint_response_seconds_count{{{first}}} 4"));
        assert_line(&text, &format!("portico_endpoint_response_seconds_count{{{second}}} 0"));
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_endpoints_is_bounded_and_unused_ones_make_room() {
        let (stats, cart) = (stats(2), Arc::from("shop/cart:80"));
        let count = |host: u8| {
            let attempt = attempt(host, AttemptOutcome::Status(StatusCode::OK), 1);
            stats.count_attempts(stats.worker(usize::from(host % 2)), &cart, &[attempt]);
        };
        (1..=4).for_each(count);
        let found = || -> Vec<String> {
            let text = scrape(Arc::clone(&stats));
            let lines = text.lines().filter(|line| line.starts_with("portico_endpoint_attempts_total"));
            lines.map(|line| line.split('"').nth(3).unwrap().to_owned()).collect()
        };
        assert_eq!(found(), ["other", "10.0.0.1:80", "10.0.0.2:80"]);
        tokio::time::advance(UNUSED_AFTER / 2).await;
        count(2);
        tokio::time::advance(UNUSED_AFTER / 2 + Duration::from_secs(1)).await;
        count(5);
        assert_eq!(found(), ["other", "10.0.0.2:80", "10.0.0.5:80"], "the first one was not used");
        count(6);
        assert_eq!(found(), ["other", "10.0.0.2:80", "10.0.0.5:80"]);
    }
}
