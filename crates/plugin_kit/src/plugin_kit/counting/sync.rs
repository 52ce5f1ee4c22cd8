//! Periodic synchronization of counters in memory with a Redis server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use crate::plugin_kit::redis::{CounterIncrement, Redis, RedisUnavailable};

/// The counters of an identifier, whose counts a server sums up for all replicas.
pub trait SyncedCounters: Send + Sync + 'static {
    /// What is remembered of an increment until the total of the server arrives.
    type Sent: Send;

    /// Whether the counters are queued. `None` for counters that are not synchronized.
    fn is_queued(&self) -> Option<&AtomicBool>;

    /// The increments that the server did not get yet.
    fn unsent(&self, now: SystemTime) -> Vec<(Self::Sent, CounterIncrement)>;

    /// Merges the total of the server. It includes what this replica has sent, and the counts of other replicas.
    fn merge(&self, sent: Self::Sent, total: u64);
}

/// Periodic synchronization of local counters with the server. The requests of other replicas count with that delay.
#[derive(Debug)]
pub struct CounterSync<C> {
    queue: mpsc::Sender<Arc<C>>,
    /// Whether the last synchronization failed.
    is_behind: Arc<AtomicBool>,
}

impl<C: SyncedCounters> CounterSync<C> {
    /// Returns the synchronization and its task, which ends when the synchronization is dropped.
    pub fn start(redis: Arc<Redis>, interval: Duration) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let is_behind = Arc::new(AtomicBool::new(false));
        let sync = CounterSync { queue, is_behind: Arc::clone(&is_behind) };
        (sync, sync_loop(redis, interval, queued, is_behind))
    }

    /// Queues counters for synchronization. If the queue is full, a later request queues them again.
    pub fn enqueue(&self, counters: &Arc<C>) {
        let Some(is_queued) = counters.is_queued() else { return };
        if !is_queued.load(Ordering::Relaxed)
            && !is_queued.swap(true, Ordering::Relaxed)
            && self.queue.try_send(Arc::clone(counters)).is_err()
        {
            is_queued.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the last synchronization failed.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }
}

async fn sync_loop<C: SyncedCounters>(
    redis: Arc<Redis>,
    interval: Duration,
    mut queued: mpsc::Receiver<Arc<C>>,
    is_behind: Arc<AtomicBool>,
) {
    let mut counters: Vec<Arc<C>> = Vec::new();
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
async fn sync_batch<C: SyncedCounters>(redis: &Redis, batch: &[Arc<C>]) -> Vec<Arc<C>> {
    let now = SystemTime::now();
    let results = join_all(batch.iter().map(|counters| sync_counters(redis, counters.as_ref(), now))).await;
    let unsent = batch.iter().zip(results).filter(|(_, result)| result.is_err());
    unsent.map(|(counters, _)| Arc::clone(counters)).collect()
}

/// Sends the requests of one identifier that the server does not know yet, and merges its totals.
async fn sync_counters<C: SyncedCounters>(
    redis: &Redis,
    counters: &C,
    now: SystemTime,
) -> Result<(), RedisUnavailable> {
    let Some(is_queued) = counters.is_queued() else { return Ok(()) };
    // Cleared before reading the counts, so that later requests queue the counters again.
    is_queued.store(false, Ordering::Relaxed);
    let (sent, increments): (Vec<_>, Vec<_>) = counters.unsent(now).into_iter().unzip();
    if increments.is_empty() {
        return Ok(());
    }
    match redis.add(&increments).await {
        Ok(totals) => {
            for (sent, total) in sent.into_iter().zip(totals.values) {
                counters.merge(sent, total);
            }
            Ok(())
        }
        Err(unavailable) => {
            // The caller retries these counters, so later requests need not queue them again.
            is_queued.store(true, Ordering::Relaxed);
            Err(unavailable)
        }
    }
}

/// Limit of the queued counters. The counters of an identifier are queued at most once.
const MAX_QUEUED: usize = 1 << 14;
/// Limit of the identifiers whose counters are sent to the server at the same time.
const BATCH_SIZE: usize = 256;
