//! Counters of the queues of plugins, and the list of queues, which are flushed when the process stops.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::QueueCore;
use crate::plugin_api::PluginState;

/// All queues of the process.
#[derive(Default)]
pub(super) struct QueueRegistry {
    queues: Mutex<Vec<Weak<QueueCore>>>,
    /// By object, `KongPlugin/default/log`. An object that is edited keeps its counters.
    counters: Mutex<BTreeMap<Arc<str>, Weak<QueueCounters>>>,
}

/// Counters of the queues of one object, by the number of entries.
#[derive(Debug, Default)]
pub(crate) struct QueueCounters {
    pub sent: AtomicU64,
    /// Batches that were sent again.
    pub retries: AtomicU64,
    /// Dropped because the queue was full.
    pub dropped_full: AtomicU64,
    /// Dropped because the namespace had its share of the bytes of the process.
    pub dropped_limit: AtomicU64,
    /// Dropped because the server did not accept them in time.
    pub dropped_failed: AtomicU64,
    /// Dropped because the plugin or the process ended.
    pub dropped_stopped: AtomicU64,
    /// Entries that wait or are being sent.
    pub pending: AtomicU64,
}

/// The values of `QueueCounters` at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub sent: u64,
    pub retries: u64,
    pub dropped_full: u64,
    pub dropped_limit: u64,
    pub dropped_failed: u64,
    pub dropped_stopped: u64,
    pub pending: u64,
}

impl QueueCounters {
    pub(crate) fn counts(&self) -> QueueCounts {
        QueueCounts {
            sent: self.sent.load(Relaxed),
            retries: self.retries.load(Relaxed),
            dropped_full: self.dropped_full.load(Relaxed),
            dropped_limit: self.dropped_limit.load(Relaxed),
            dropped_failed: self.dropped_failed.load(Relaxed),
            dropped_stopped: self.dropped_stopped.load(Relaxed),
            pending: self.pending.load(Relaxed),
        }
    }
}

impl QueueRegistry {
    /// The registry in this state.
    pub(super) fn of(state: &PluginState) -> Arc<QueueRegistry> {
        state.get_or_create(REGISTRY_NAME, QueueRegistry::default)
    }

    /// The counters of an object.
    pub(super) fn counters(&self, object: &str) -> Arc<QueueCounters> {
        let mut counters = self.counters.lock();
        if let Some(existing) = counters.get(object).and_then(Weak::upgrade) {
            return existing;
        }
        counters.retain(|_, counters| counters.strong_count() > 0);
        let created = Arc::<QueueCounters>::default();
        counters.insert(object.into(), Arc::downgrade(&created));
        created
    }

    pub(super) fn add(&self, queue: &Arc<QueueCore>) {
        let mut queues = self.queues.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(queue));
    }
}

/// The counts of the queues of each object, in order. Empty if no plugin has a queue.
pub fn queue_counts(state: &PluginState) -> Vec<(Arc<str>, QueueCounts)> {
    let Some(registry) = state.get::<QueueRegistry>(REGISTRY_NAME) else { return Vec::new() };
    let counters = registry.counters.lock();
    let counts = |(object, counters): (&Arc<str>, &Weak<QueueCounters>)| {
        Some((Arc::clone(object), counters.upgrade()?.counts()))
    };
    counters.iter().filter_map(counts).collect()
}

/// Sends what is left in all queues without waiting for full batches. What cannot be sent within the limit is dropped
/// and counted.
pub async fn flush_queues(state: &PluginState, limit: Duration) {
    let Some(registry) = state.get::<QueueRegistry>(REGISTRY_NAME) else { return };
    let queues: Vec<Arc<QueueCore>> = registry.queues.lock().iter().filter_map(Weak::upgrade).collect();
    let deadline = Instant::now() + limit;
    for queue in &queues {
        queue.close(deadline);
    }
    join_all(queues.iter().map(|queue| queue.ended())).await;
}

const REGISTRY_NAME: &str = "queues";
