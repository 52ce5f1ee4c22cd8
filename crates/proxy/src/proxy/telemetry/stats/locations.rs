//! Requests by the names that the dialects of rules have for them: counted per worker, with a limit of series for the
//! process. Only if a flag enables it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::plugin_api::completed_request::Attempt;
use crate::snapshot::location_steps::LocationNames;

/// Which labels the series of locations have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocationMetrics {
    pub has_host: bool,
    /// Whether requests for hosts that no rule names are counted, if there is the label for hosts.
    pub counts_undefined_hosts: bool,
    /// Whether statuses are `2xx` in place of `200`.
    pub has_status_classes: bool,
}

/// The labels of one worker's counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LocationKey {
    names: Arc<LocationNames>,
    /// The upstream that has got the request as a share.
    alternative: Option<Arc<str>>,
    method: &'static str,
    /// A status, or its first digit if there are only classes. Zero for all series beyond the limit.
    status: u16,
}

/// The requests of one worker.
pub(super) type LocationRequests = HashMap<LocationKey, LocationCounts>;

/// The labels of a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocationLabels {
    pub namespace: Arc<str>,
    pub ingress: Arc<str>,
    pub service: Arc<str>,
    pub path: Arc<str>,
    /// Empty without the label.
    pub host: Arc<str>,
    /// The upstream with a share of the requests, if it has got these.
    pub alternative: Arc<str>,
    pub method: &'static str,
    pub status: String,
}

/// The requests with the same labels.
#[derive(Clone, Debug)]
pub struct LocationCounts {
    pub requests: u64,
    /// Seconds.
    pub duration: LocationHistogram,
    pub connect: LocationHistogram,
    /// Until the head of the response of the endpoint.
    pub head: LocationHistogram,
    /// Until its end.
    pub response: LocationHistogram,
    /// Bytes of heads and bodies.
    pub received: LocationHistogram,
    pub sent: LocationHistogram,
    /// The same with other buckets.
    pub sent_by_magnitude: LocationHistogram,
    used_at: Instant,
}

/// Values by buckets.
#[derive(Clone, Copy, Debug)]
pub struct LocationHistogram {
    bounds: &'static [f64],
    /// One for each bound, and one for values above all of them. The others are not used.
    counts: [u64; MOST_BOUNDS + 1],
    pub sum: f64,
}

/// The facts of one request.
pub(in crate::proxy) struct LocationRequest<'r> {
    pub(in crate::proxy) names: &'r Arc<LocationNames>,
    pub(in crate::proxy) alternative: Option<&'r Arc<str>>,
    pub(in crate::proxy) method: &'r Method,
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) duration: Duration,
    /// The attempt whose outcome counts.
    pub(in crate::proxy) attempt: Option<&'r Attempt>,
    pub(in crate::proxy) received: u64,
    pub(in crate::proxy) sent: u64,
}

/// The requests of all workers.
#[derive(Debug)]
pub(super) struct LocationStats {
    metrics: LocationMetrics,
    workers: Vec<Arc<Mutex<LocationRequests>>>,
    max_series: usize,
    known: Mutex<KnownLocations>,
}

/// The labels that have series, in all workers.
#[derive(Debug, Default)]
struct KnownLocations {
    keys: HashSet<LocationKey>,
    /// When unused labels were last evicted. Each attempt scans all series, so it is rate-limited.
    evicted_at: Option<Instant>,
}

impl LocationHistogram {
    fn new(bounds: &'static [f64]) -> Self {
        LocationHistogram { bounds, counts: [0; MOST_BOUNDS + 1], sum: 0.0 }
    }

    fn add(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    fn merge(&mut self, other: &LocationHistogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bounds, the last of which is infinite, and the values of each bucket alone.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().copied().chain([f64::INFINITY]).zip(self.counts)
    }
}

impl LocationCounts {
    fn new(now: Instant) -> Self {
        let seconds = || LocationHistogram::new(SECONDS);
        LocationCounts {
            requests: 0,
            duration: seconds(),
            connect: seconds(),
            head: seconds(),
            response: seconds(),
            received: LocationHistogram::new(LENGTHS),
            sent: LocationHistogram::new(LENGTHS),
            sent_by_magnitude: LocationHistogram::new(MAGNITUDES),
            used_at: now,
        }
    }

    fn add(&mut self, request: &LocationRequest<'_>, now: Instant) {
        self.requests += 1;
        self.duration.add(request.duration.as_secs_f64());
        if let Some(attempt) = request.attempt {
            if let Some(head) = attempt.first_byte {
                self.head.add(head.as_secs_f64());
                // A kept connection takes no time, as in nginx.
                self.connect.add(attempt.connect.unwrap_or_default().as_secs_f64());
            }
            self.response.add(attempt.total.as_secs_f64());
        }
        self.received.add(request.received as f64);
        self.sent.add(request.sent as f64);
        self.sent_by_magnitude.add(request.sent as f64);
        self.used_at = now;
    }

    fn merge(&mut self, other: &LocationCounts) {
        self.requests += other.requests;
        for (sum, histogram) in self.histograms_mut().into_iter().zip(other.histograms()) {
            sum.merge(histogram);
        }
    }

    fn histograms(&self) -> [&LocationHistogram; 7] {
        let LocationCounts { duration, connect, head, response, received, sent, sent_by_magnitude, .. } = self;
        [duration, connect, head, response, received, sent, sent_by_magnitude]
    }

    fn histograms_mut(&mut self) -> [&mut LocationHistogram; 7] {
        let LocationCounts { duration, connect, head, response, received, sent, sent_by_magnitude, .. } = self;
        [duration, connect, head, response, received, sent, sent_by_magnitude]
    }
}

impl LocationStats {
    pub(super) fn new(metrics: LocationMetrics, workers: Vec<Arc<Mutex<LocationRequests>>>, max_series: usize) -> Self {
        LocationStats { metrics, workers, max_series, known: Mutex::default() }
    }

    /// Counts a request that has ended, among those of its worker. Returns whether its labels are beyond the limit.
    pub(super) fn count(&self, worker: &Mutex<LocationRequests>, request: &LocationRequest<'_>) -> bool {
        let LocationMetrics { has_host, counts_undefined_hosts, has_status_classes } = self.metrics;
        if has_host && !counts_undefined_hosts && *request.names.host == *UNDEFINED_HOST {
            return false;
        }
        let now = Instant::now();
        let key = LocationKey {
            names: Arc::clone(request.names),
            alternative: request.alternative.map(Arc::clone),
            method: known_method(request.method),
            status: if has_status_classes { request.status / 100 } else { request.status },
        };
        if let Some(counts) = worker.lock().get_mut(&key) {
            counts.add(request, now);
            return false;
        }
        let key = self.known(key, now);
        let is_beyond = key.status == 0;
        worker.lock().entry(key).or_insert_with(|| LocationCounts::new(now)).add(request, now);
        is_beyond
    }

    /// The labels of a series, or those of all others if the maximum is reached.
    fn known(&self, key: LocationKey, now: Instant) -> LocationKey {
        let mut known = self.known.lock();
        let is_full = |known: &KnownLocations| known.keys.len() >= self.max_series && !known.keys.contains(&key);
        if is_full(&known) && known.evicted_at.is_none_or(|evicted_at| now - evicted_at > EVICT_INTERVAL) {
            known.evicted_at = Some(now);
            self.evict_unused(&mut known.keys, now);
        }
        if is_full(&known) {
            return LocationKey { names: Arc::default(), alternative: None, method: OTHER, status: 0 };
        }
        known.keys.insert(key.clone());
        key
    }

    /// Evicts the series that no worker has used for a while; mostly those of rules that were removed.
    fn evict_unused(&self, known: &mut HashSet<LocationKey>, now: Instant) {
        let is_used = |counts: &LocationCounts| now.saturating_duration_since(counts.used_at) < UNUSED_AFTER;
        let mut used = HashSet::new();
        for worker in &self.workers {
            let requests = worker.lock();
            used.extend(requests.iter().filter(|(_, counts)| is_used(counts)).map(|(key, _)| key.clone()));
        }
        known.retain(|key| used.contains(key));
        for worker in &self.workers {
            worker.lock().retain(|key, _| key.status == 0 || used.contains(key));
        }
    }

    /// Keys that differ in what is no label have one series.
    pub(super) fn merged(&self) -> BTreeMap<LocationLabels, LocationCounts> {
        let mut merged: BTreeMap<LocationLabels, LocationCounts> = BTreeMap::new();
        for worker in &self.workers {
            let requests = worker.lock().clone();
            for (key, counts) in requests {
                let used_at = counts.used_at;
                let labels = self.labels(&key);
                merged.entry(labels).or_insert_with(|| LocationCounts::new(used_at)).merge(&counts);
            }
        }
        merged
    }

    fn labels(&self, key: &LocationKey) -> LocationLabels {
        let LocationKey { names, alternative, method, status } = key;
        let is_other = *status == 0;
        let name = |name: &Arc<str>| if is_other { OTHER.into() } else { Arc::clone(name) };
        LocationLabels {
            namespace: name(&names.namespace),
            ingress: name(&names.ingress),
            service: name(&names.service),
            path: name(&names.path),
            host: if self.metrics.has_host { name(&names.host) } else { Arc::default() },
            alternative: alternative.clone().unwrap_or_default(),
            method,
            status: match status {
                0 => OTHER.to_owned(),
                class if self.metrics.has_status_classes => format!("{class}xx"),
                status => status.to_string(),
            },
        }
    }
}

/// The method, if it is a common one: clients could create series with others.
fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}

/// The value of labels that stand for many.
const OTHER: &str = "other";

/// The name of a host that no rule names.
const UNDEFINED_HOST: &str = "_";

const MOST_BOUNDS: usize = 11;
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const LENGTHS: &[f64] = &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0];
const MAGNITUDES: &[f64] = &[10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7];

/// Minimum interval between two evictions.
const EVICT_INTERVAL: Duration = Duration::from_secs(10);

/// Series without requests for this time are removed if there are too many.
const UNUSED_AFTER: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
