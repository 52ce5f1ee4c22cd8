//! The time series: counters and histograms that threads find without a lock and update concurrently.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::Equivalent;

use super::histogram::Histogram;
use super::table::SeriesTable;
use crate::plugin_api::ResponseSource;

/// The series of all `prometheus` plugins.
#[derive(Debug)]
pub struct KongSeries {
    pub(super) requests: SeriesTable<SeriesLabels, AtomicU64>,
    pub(super) bandwidth: SeriesTable<SeriesLabels, Bandwidth>,
    pub(super) latency: SeriesTable<SeriesLabels, Latency>,
    /// Updates that were dropped because a table was full.
    pub(super) dropped_updates: AtomicU64,
}

/// Bytes of bodies.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    pub ingress: AtomicU64,
    pub egress: AtomicU64,
}

/// Durations of requests.
#[derive(Debug)]
pub(super) struct Latency {
    /// Total time minus the time of the endpoint.
    pub proxy: Histogram,
    /// Time of the endpoint until its response head; only of requests that were forwarded.
    pub upstream: Histogram,
    /// Total time.
    pub request: Histogram,
}

/// The labels of a series. A label that a family does not have is empty or `None`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesLabels {
    pub service: Arc<str>,
    pub route: Arc<str>,
    pub consumer: Arc<str>,
    pub code: Option<StatusLabel>,
}

/// Borrowed labels, for lookups without allocation.
#[derive(Clone, Copy)]
pub(super) struct SeriesLabelsRef<'a> {
    pub service: &'a str,
    pub route: &'a str,
    pub consumer: &'a str,
    pub code: Option<StatusLabel>,
}

/// The labels `code` and `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusLabel {
    pub status: u16,
    pub source: ResponseSource,
}

impl Default for KongSeries {
    fn default() -> Self {
        KongSeries::with_capacity(MAX_SERIES)
    }
}

impl KongSeries {
    /// Holds at most `capacity` series in each family.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        KongSeries {
            requests: SeriesTable::with_capacity(capacity),
            bandwidth: SeriesTable::with_capacity(capacity),
            latency: SeriesTable::with_capacity(capacity),
            dropped_updates: AtomicU64::new(0),
        }
    }

    pub(super) fn count_request(&self, labels: &SeriesLabelsRef<'_>) {
        let has_room =
            self.requests.update(labels, || AtomicU64::new(0), |count| _ = count.fetch_add(1, Ordering::Relaxed));
        self.count_if_dropped(has_room);
    }

    pub(super) fn add_bandwidth(&self, labels: &SeriesLabelsRef<'_>, ingress: u64, egress: u64) {
        let has_room = self.bandwidth.update(labels, Bandwidth::default, |bandwidth| {
            bandwidth.ingress.fetch_add(ingress, Ordering::Relaxed);
            bandwidth.egress.fetch_add(egress, Ordering::Relaxed);
        });
        self.count_if_dropped(has_room);
    }

    pub(super) fn observe_latency(&self, labels: &SeriesLabelsRef<'_>, total: Duration, upstream: Option<Duration>) {
        let create = || Latency {
            proxy: Histogram::new(PROXY_BOUNDS),
            upstream: Histogram::new(BOUNDS),
            request: Histogram::new(BOUNDS),
        };
        let has_room = self.latency.update(labels, create, |latency| {
            latency.proxy.add(total.saturating_sub(upstream.unwrap_or_default()));
            latency.request.add(total);
            if let Some(upstream) = upstream {
                latency.upstream.add(upstream);
            }
        });
        self.count_if_dropped(has_room);
    }

    fn count_if_dropped(&self, has_room: bool) {
        if !has_room {
            self.dropped_updates.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl StatusLabel {
    pub(super) fn source(self) -> &'static str {
        match self.source {
            ResponseSource::Service => "service",
            ResponseSource::Plugin | ResponseSource::Proxy => "kong",
        }
    }

    fn order(self) -> (u16, &'static str) {
        (self.status, self.source())
    }
}

impl PartialOrd for StatusLabel {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StatusLabel {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl Hash for SeriesLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&*self.service, &*self.route, &*self.consumer, self.code.map(StatusLabel::order)).hash(state);
    }
}

impl Hash for SeriesLabelsRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.service, self.route, self.consumer, self.code.map(StatusLabel::order)).hash(state);
    }
}

impl Equivalent<SeriesLabels> for SeriesLabelsRef<'_> {
    fn equivalent(&self, labels: &SeriesLabels) -> bool {
        *self.service == *labels.service
            && *self.route == *labels.route
            && *self.consumer == *labels.consumer
            && self.code == labels.code
    }
}

impl From<&SeriesLabelsRef<'_>> for SeriesLabels {
    fn from(labels: &SeriesLabelsRef<'_>) -> Self {
        let SeriesLabelsRef { service, route, consumer, code } = *labels;
        SeriesLabels { service: service.into(), route: route.into(), consumer: consumer.into(), code }
    }
}

/// Bounds of the buckets for the time of the proxy, in milliseconds, as in Kong.
const PROXY_BOUNDS: &[u16] = &[1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000];
/// Bounds of the buckets for all other durations, in milliseconds, as in Kong.
const BOUNDS: &[u16] = &[25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10_000, 30_000, 60_000];
/// Limit of the series in each family. Updates of further series are dropped and counted as errors.
const MAX_SERIES: usize = 10_000;
