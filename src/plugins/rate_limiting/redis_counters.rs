//! Counters at a Redis server for all replicas: updated on each request, or synchronized periodically.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::counters::{LimitCounters, WindowLimit};
use super::window::{Period, unix_second};
use crate::plugin_api::redis::{CounterIncrement, Redis, RedisUnavailable};

/// Increments the counters of all periods, even if one of the limits is reached. Returns the previous counts.
pub(super) async fn count_at_server(
    redis: &Redis,
    name: &str,
    limits: &[WindowLimit],
    second: u64,
) -> Result<Vec<u64>, RedisUnavailable> {
    let additions = limits.iter().map(|limit| counter_increment(name, limit, 1, second)).collect();
    let totals = redis.add(additions).await?;
    if totals.len() != limits.len() {
        return Err(RedisUnavailable);
    }
    Ok(totals.into_iter().map(|total| total.saturating_sub(1)).collect())
}

/// Periodic synchronization of local counters with the server. The requests of other replicas count with that delay.
#[derive(Debug)]
pub(super) struct CounterSync {
    queue: mpsc::Sender<Arc<LimitCounters>>,
    /// Whether the last synchronization failed.
    is_behind: Arc<AtomicBool>,
}

impl CounterSync {
    /// The returned task ends when the handle is dropped.
    pub(super) fn start(redis: Arc<Redis>, every: Duration) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (line, waiting) = mpsc::channel(MAX_QUEUED);
        let is_behind = Arc::new(AtomicBool::new(false));
        let synced = CounterSync { queue: line, is_behind: Arc::clone(&is_behind) };
        (synced, sync_loop(redis, every, waiting, is_behind))
    }

    /// Queues counters for synchronization. If the queue is full, a later request queues them again.
    pub(super) fn enqueue(&self, cell: &Arc<LimitCounters>) {
        let Some(shared) = &cell.shared else { return };
        if !shared.is_queued.load(Ordering::Relaxed)
            && !shared.is_queued.swap(true, Ordering::Relaxed)
            && self.queue.try_send(Arc::clone(cell)).is_err()
        {
            shared.is_queued.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }
}

async fn sync_loop(
    redis: Arc<Redis>,
    every: Duration,
    mut waiting: mpsc::Receiver<Arc<LimitCounters>>,
    is_behind: Arc<AtomicBool>,
) {
    let mut cells: Vec<Arc<LimitCounters>> = Vec::new();
    loop {
        // Counters whose synchronization failed are retried, even without further requests.
        if cells.is_empty() && waiting.recv_many(&mut cells, BATCH_SIZE).await == 0 {
            return;
        }
        tokio::time::sleep(every).await;
        let mut unsent_cells = Vec::new();
        loop {
            // Counters to retry may have been queued again; removes duplicates, so that nothing is sent twice.
            cells.sort_unstable_by_key(Arc::as_ptr);
            cells.dedup_by(|a, b| Arc::ptr_eq(a, b));
            for batch in cells.chunks(BATCH_SIZE) {
                if unsent_cells.is_empty() && sync_batch(&redis, batch).await.is_ok() {
                    continue;
                }
                unsent_cells.extend_from_slice(batch);
            }
            cells.clear();
            if !unsent_cells.is_empty() || waiting.is_empty() {
                break;
            }
            waiting.recv_many(&mut cells, BATCH_SIZE).await;
        }
        is_behind.store(!unsent_cells.is_empty(), Ordering::Relaxed);
        if waiting.is_closed() && !unsent_cells.is_empty() {
            return;
        }
        cells = unsent_cells;
    }
}

async fn sync_batch(redis: &Redis, cells: &[Arc<LimitCounters>]) -> Result<(), RedisUnavailable> {
    let second = unix_second(SystemTime::now());
    let (mut changes, mut additions) = (Vec::new(), Vec::new());
    for cell in cells {
        let Some(shared) = &cell.shared else { continue };
        // Cleared before reading the counts, so that later requests queue the counters again.
        shared.is_queued.store(false, Ordering::Relaxed);
        for period in Period::ALL {
            let limit = WindowLimit { period, limit: u64::MAX, window: period.window(second) };
            let unsent = cell.unsent(&limit);
            if unsent > 0 {
                additions.push(counter_increment(&shared.key_prefix, &limit, unsent, second));
                changes.push((cell, limit, unsent));
            }
        }
    }
    if additions.is_empty() {
        return Ok(());
    }
    let sent_totals = redis.add(additions).await.and_then(|totals| match totals.len() == changes.len() {
        true => Ok(totals),
        false => Err(RedisUnavailable),
    });
    match sent_totals {
        Ok(totals) => {
            for ((cell, limit, sent), total) in changes.into_iter().zip(totals) {
                cell.merge_total(&limit, sent, total);
            }
            Ok(())
        }
        Err(unavailable) => {
            for cell in cells {
                if let Some(shared) = &cell.shared {
                    shared.is_queued.store(true, Ordering::Relaxed);
                }
            }
            Err(unavailable)
        }
    }
}

fn counter_increment(name: &str, limit: &WindowLimit, by: u64, second: u64) -> CounterIncrement {
    let WindowLimit { period, window, .. } = limit;
    let key = format!("{name}:{}:{}", window.start, period.name());
    CounterIncrement { key, by, expires_in: Duration::from_secs(window.end.saturating_sub(second)) }
}

/// Limit of the queued identifiers. Each is queued at most once.
const MAX_QUEUED: usize = 1 << 14;
/// Identifiers per script call.
const BATCH_SIZE: usize = 256;
