//! Counters at a Redis server for all replicas: updated on each request, or synchronized periodically.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::counters::{LimitCounters, WindowLimit};
use super::window::{Period, unix_second};
use crate::plugin_api::redis::{CounterIncrement, CounterTotals, Redis, RedisUnavailable};

/// Counts a request in every period, or in none if one of the limits is reached. Returns the previous counts.
pub(super) async fn count_at_server(
    redis: &Redis,
    key_prefix: &str,
    limits: &[WindowLimit],
    second: u64,
) -> Result<Vec<u64>, RedisUnavailable> {
    let limited = |limit: &WindowLimit| CounterIncrement {
        limit: Some(limit.max_count),
        ..counter_increment(key_prefix, limit, 1, second)
    };
    let CounterTotals { is_counted, values } = redis.add(&limits.iter().map(limited).collect::<Vec<_>>()).await?;
    Ok(values.into_iter().map(|total| total.saturating_sub(u64::from(is_counted))).collect())
}

/// Periodic synchronization of local counters with the server. The requests of other replicas count with that delay.
#[derive(Debug)]
pub(super) struct CounterSync {
    queue: mpsc::Sender<Arc<LimitCounters>>,
    /// Whether the last synchronization failed.
    is_behind: Arc<AtomicBool>,
}

impl CounterSync {
    /// Returns the synchronization and its task, which ends when the synchronization is dropped.
    pub(super) fn start(redis: Arc<Redis>, interval: Duration) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let is_behind = Arc::new(AtomicBool::new(false));
        let sync = CounterSync { queue, is_behind: Arc::clone(&is_behind) };
        (sync, sync_loop(redis, interval, queued, is_behind))
    }

    /// Queues counters for synchronization. If the queue is full, a later request queues them again.
    pub(super) fn enqueue(&self, counters: &Arc<LimitCounters>) {
        let Some(server) = &counters.server_counts else { return };
        if !server.is_queued.load(Ordering::Relaxed)
            && !server.is_queued.swap(true, Ordering::Relaxed)
            && self.queue.try_send(Arc::clone(counters)).is_err()
        {
            server.is_queued.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the last synchronization failed.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }
}

async fn sync_loop(
    redis: Arc<Redis>,
    interval: Duration,
    mut queued: mpsc::Receiver<Arc<LimitCounters>>,
    is_behind: Arc<AtomicBool>,
) {
    let mut counters: Vec<Arc<LimitCounters>> = Vec::new();
    loop {
        // Counters whose synchronization failed are retried, even without further requests.
        if counters.is_empty() && queued.recv_many(&mut counters, BATCH_SIZE).await == 0 {
            return;
        }
        tokio::time::sleep(interval).await;
        let mut unsent_counters = Vec::new();
        loop {
            // Counters to retry may have been queued again. Duplicates are removed, so that nothing is sent twice.
            counters.sort_unstable_by_key(Arc::as_ptr);
            counters.dedup_by(|a, b| Arc::ptr_eq(a, b));
            for batch in counters.chunks(BATCH_SIZE) {
                match unsent_counters.is_empty() {
                    true => unsent_counters = sync_batch(&redis, batch).await,
                    false => unsent_counters.extend_from_slice(batch),
                }
            }
            counters.clear();
            if !unsent_counters.is_empty() || queued.is_empty() {
                break;
            }
            queued.recv_many(&mut counters, BATCH_SIZE).await;
        }
        is_behind.store(!unsent_counters.is_empty(), Ordering::Relaxed);
        if queued.is_closed() && !unsent_counters.is_empty() {
            // The plugin no longer exists, so the counters are not retried.
            return;
        }
        counters = unsent_counters;
    }
}

/// Synchronizes the counters of a batch, and returns those that the server did not get.
async fn sync_batch(redis: &Redis, batch: &[Arc<LimitCounters>]) -> Vec<Arc<LimitCounters>> {
    let second = unix_second(SystemTime::now());
    let results = join_all(batch.iter().map(|counters| sync_counters(redis, counters, second))).await;
    let unsent = batch.iter().zip(results).filter(|(_, result)| result.is_err());
    unsent.map(|(counters, _)| Arc::clone(counters)).collect()
}

/// Sends the requests of one identifier that the server does not know yet, and merges its totals.
async fn sync_counters(redis: &Redis, counters: &LimitCounters, second: u64) -> Result<(), RedisUnavailable> {
    let Some(server) = &counters.server_counts else { return Ok(()) };
    // Cleared before reading the counts, so that later requests queue the counters again.
    server.is_queued.store(false, Ordering::Relaxed);
    let (mut sent, mut increments) = (Vec::new(), Vec::new());
    for period in Period::ALL {
        let limit = WindowLimit { period, max_count: u64::MAX, window: period.window(second) };
        let unsent = counters.unsent(&limit);
        if unsent > 0 {
            increments.push(counter_increment(&server.key_prefix, &limit, unsent, second));
            sent.push((limit, unsent));
        }
    }
    if increments.is_empty() {
        return Ok(());
    }
    match redis.add(&increments).await {
        Ok(totals) => {
            for ((limit, unsent), total) in sent.into_iter().zip(totals.values) {
                counters.merge_total(&limit, unsent, total);
            }
            Ok(())
        }
        Err(unavailable) => {
            // The caller retries these counters, so later requests need not queue them again.
            server.is_queued.store(true, Ordering::Relaxed);
            Err(unavailable)
        }
    }
}

fn counter_increment(key_prefix: &str, limit: &WindowLimit, amount: u64, second: u64) -> CounterIncrement {
    let WindowLimit { period, window, .. } = limit;
    let key = format!("{key_prefix}:{}:{}", window.start, period.name());
    let expires_in = Duration::from_secs(window.end.saturating_sub(second));
    CounterIncrement { key, amount, limit: None, expires_in }
}

/// Limit of the queued counters. The counters of an identifier are queued at most once.
const MAX_QUEUED: usize = 1 << 14;
/// Limit of the identifiers whose counters are sent to the server at the same time.
const BATCH_SIZE: usize = 256;
