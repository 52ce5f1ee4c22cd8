//! Counters that a Redis server adds up for all replicas: asked at each request, or told now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::cell::{Cell, Limit};
use super::window::{Period, second_of};
use crate::plugin::redis::{Addition, Redis, Unavailable};

/// Adds one to each counter, in every period also if one of them is used up. Returns what had been used before.
pub(super) async fn count(redis: &Redis, name: &str, limits: &[Limit], second: u64) -> Result<Vec<u64>, Unavailable> {
    let additions = limits.iter().map(|limit| addition(name, limit, 1, second)).collect();
    let totals = redis.add(additions).await?;
    if totals.len() != limits.len() {
        return Err(Unavailable);
    }
    Ok(totals.into_iter().map(|total| total.saturating_sub(1)).collect())
}

/// Counts here and tells the server every so often. What others counted is known as late as that.
#[derive(Debug)]
pub(super) struct Synced {
    line: mpsc::Sender<Arc<Cell>>,
    /// Whether the server could not be told what was counted.
    is_behind: Arc<AtomicBool>,
}

impl Synced {
    /// The task ends when this is gone.
    pub(super) fn start(redis: Arc<Redis>, every: Duration) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (line, waiting) = mpsc::channel(MOST_IN_LINE);
        let is_behind = Arc::new(AtomicBool::new(false));
        let synced = Synced { line, is_behind: Arc::clone(&is_behind) };
        (synced, tell(redis, every, waiting, is_behind))
    }

    /// Has it told to the server, soon. If the line is full, a later request tries again.
    pub(super) fn changed(&self, cell: &Arc<Cell>) {
        let Some(shared) = &cell.shared else { return };
        if !shared.is_in_line.load(Ordering::Relaxed)
            && !shared.is_in_line.swap(true, Ordering::Relaxed)
            && self.line.try_send(Arc::clone(cell)).is_err()
        {
            shared.is_in_line.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }
}

async fn tell(redis: Arc<Redis>, every: Duration, mut waiting: mpsc::Receiver<Arc<Cell>>, is_behind: Arc<AtomicBool>) {
    let mut cells: Vec<Arc<Cell>> = Vec::new();
    loop {
        // What could not be told stays in line, and nobody has to come for it to be told.
        if cells.is_empty() && waiting.recv_many(&mut cells, MOST_AT_ONCE).await == 0 {
            return;
        }
        tokio::time::sleep(every).await;
        let mut untold = Vec::new();
        loop {
            // What could not be told may have got in line again, and is not to be told twice at once.
            cells.sort_unstable_by_key(Arc::as_ptr);
            cells.dedup_by(|a, b| Arc::ptr_eq(a, b));
            for batch in cells.chunks(MOST_AT_ONCE) {
                if untold.is_empty() && tell_some(&redis, batch).await.is_ok() {
                    continue;
                }
                untold.extend_from_slice(batch);
            }
            cells.clear();
            if !untold.is_empty() || waiting.is_empty() {
                break;
            }
            waiting.recv_many(&mut cells, MOST_AT_ONCE).await;
        }
        is_behind.store(!untold.is_empty(), Ordering::Relaxed);
        if waiting.is_closed() && !untold.is_empty() {
            return;
        }
        cells = untold;
    }
}

async fn tell_some(redis: &Redis, cells: &[Arc<Cell>]) -> Result<(), Unavailable> {
    let second = second_of(SystemTime::now());
    let (mut changes, mut additions) = (Vec::new(), Vec::new());
    for cell in cells {
        let Some(shared) = &cell.shared else { continue };
        // Before looking: what is counted from here on gets in line again.
        shared.is_in_line.store(false, Ordering::Relaxed);
        for period in Period::ALL {
            let limit = Limit { period, limit: u64::MAX, window: period.window(second) };
            let unsent = cell.unsent(&limit);
            if unsent > 0 {
                additions.push(addition(&shared.name, &limit, unsent, second));
                changes.push((cell, limit, unsent));
            }
        }
    }
    if additions.is_empty() {
        return Ok(());
    }
    let told = redis.add(additions).await.and_then(|totals| match totals.len() == changes.len() {
        true => Ok(totals),
        false => Err(Unavailable),
    });
    match told {
        Ok(totals) => {
            for ((cell, limit, sent), total) in changes.into_iter().zip(totals) {
                cell.learn(&limit, sent, total);
            }
            Ok(())
        }
        Err(unavailable) => {
            for cell in cells {
                if let Some(shared) = &cell.shared {
                    shared.is_in_line.store(true, Ordering::Relaxed);
                }
            }
            Err(unavailable)
        }
    }
}

fn addition(name: &str, limit: &Limit, by: u64, second: u64) -> Addition {
    let Limit { period, window, .. } = limit;
    let key = format!("{name}:{}:{}", window.start, period.name());
    Addition { key, by, expires_in: Duration::from_secs(window.end.saturating_sub(second)) }
}

/// Identifiers that wait for being told. Each is in line once.
const MOST_IN_LINE: usize = 1 << 14;
/// Identifiers in one transaction.
const MOST_AT_ONCE: usize = 256;
