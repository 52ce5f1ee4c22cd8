//! What is counted: numbers that all cores add to, found without a lock.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::Equivalent;

use super::histogram::Histogram;
use super::table::Table;
use crate::plugin::Source;

/// All series of all plugins of this kind.
#[derive(Debug)]
pub struct Series {
    pub(super) requests: Table<Labels, AtomicU64>,
    pub(super) bandwidth: Table<Labels, Bandwidth>,
    pub(super) latency: Table<Labels, Latency>,
    /// Series for which there was no room.
    pub(super) errors: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    pub ingress: AtomicU64,
    pub egress: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Latency {
    /// Without what the endpoint took.
    pub own: Histogram,
    pub upstream: Histogram,
    pub request: Histogram,
}

/// What tells one series from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    pub service: Arc<str>,
    pub route: Arc<str>,
    pub consumer: Arc<str>,
    pub code: Option<Code>,
}

/// The same, borrowed.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub service: &'a str,
    pub route: &'a str,
    pub consumer: &'a str,
    pub code: Option<Code>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub status: u16,
    pub source: Source,
}

impl Default for Series {
    fn default() -> Self {
        Series::holding(MOST_SERIES)
    }
}

impl Series {
    /// So many of each family.
    pub(super) fn holding(most: usize) -> Self {
        Series {
            requests: Table::holding(most),
            bandwidth: Table::holding(most),
            latency: Table::holding(most),
            errors: AtomicU64::new(0),
        }
    }

    pub(super) fn count(&self, about: &About<'_>) {
        let has_room =
            self.requests.with(about, || AtomicU64::new(0), |count| _ = count.fetch_add(1, Ordering::Relaxed));
        self.note(has_room);
    }

    pub(super) fn add(&self, about: &About<'_>, ingress: u64, egress: u64) {
        let has_room = self.bandwidth.with(about, Bandwidth::default, |bandwidth| {
            bandwidth.ingress.fetch_add(ingress, Ordering::Relaxed);
            bandwidth.egress.fetch_add(egress, Ordering::Relaxed);
        });
        self.note(has_room);
    }

    pub(super) fn measure(&self, about: &About<'_>, total: Duration, upstream: Option<Duration>) {
        let make = || Latency {
            own: Histogram::new(OWN_BOUNDS),
            upstream: Histogram::new(BOUNDS),
            request: Histogram::new(BOUNDS),
        };
        let has_room = self.latency.with(about, make, |latency| {
            latency.own.add(total.saturating_sub(upstream.unwrap_or_default()));
            latency.request.add(total);
            if let Some(upstream) = upstream {
                latency.upstream.add(upstream);
            }
        });
        self.note(has_room);
    }

    fn note(&self, has_room: bool) {
        if !has_room {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Code {
    pub(super) fn source(self) -> &'static str {
        match self.source {
            Source::Service => "service",
            Source::Ours => "kong",
        }
    }

    fn order(self) -> (u16, &'static str) {
        (self.status, self.source())
    }
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Code {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&*self.service, &*self.route, &*self.consumer, self.code.map(Code::order)).hash(state);
    }
}

impl Hash for About<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.service, self.route, self.consumer, self.code.map(Code::order)).hash(state);
    }
}

impl Equivalent<Labels> for About<'_> {
    fn equivalent(&self, labels: &Labels) -> bool {
        *self.service == *labels.service
            && *self.route == *labels.route
            && *self.consumer == *labels.consumer
            && self.code == labels.code
    }
}

impl From<&About<'_>> for Labels {
    fn from(about: &About<'_>) -> Self {
        let About { service, route, consumer, code } = *about;
        Labels { service: service.into(), route: route.into(), consumer: consumer.into(), code }
    }
}

const OWN_BOUNDS: &[u16] = &[1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000];
const BOUNDS: &[u16] = &[25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10_000, 30_000, 60_000];
/// Of each family. What comes after them is counted as an error.
const MOST_SERIES: usize = 10_000;
