//! A bounded queue of a plugin that sends its entries in batches, for logs and traces.
//!
//! ```text
//!   requests ──push──▶ waiting entries ──next_batch──▶ deliver ──▶ BatchSender
//!                        └ full: the oldest is dropped     └ failed: waits, twice as long each time, and sends again
//! ```
//!
//! The queue ends with its plugin: dropping the [`BatchQueue`] closes it, and what is left is sent within
//! [`CLOSE_LIMIT`].

mod config;
mod meters;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

pub use config::{QueueConfig, QueueSettings};
pub use meters::{QueueCounters, QueueCounts, flush_queues, queue_counts};

use self::meters::QueueRegistry;
use super::PluginServices;
use super::kind::BuildCx;

/// Sends the batches of a queue.
pub trait BatchSender: Send + Sync + 'static {
    /// Sends one batch. Returns whether the server has accepted it.
    fn send(&self, batch: Arc<[Bytes]>) -> BoxFuture<'static, bool>;
}

/// The handle with which a plugin adds entries. Dropping it closes the queue.
pub struct BatchQueue {
    core: Arc<QueueCore>,
    /// Keeps the counters in the metrics.
    _registry: Arc<QueueRegistry>,
}

/// The queue as the plugin, its task and the registry share it.
struct QueueCore {
    settings: QueueSettings,
    waiting: Mutex<WaitingEntries>,
    /// Wakes the task: there is an entry, a full batch, or the queue was closed.
    changed: Notify,
    /// Set when the queue is closed: when the remaining entries are dropped.
    closed: watch::Sender<Option<Instant>>,
    /// Becomes true when the task ends.
    ended: watch::Sender<bool>,
    counters: Arc<QueueCounters>,
}

#[derive(Default)]
struct WaitingEntries {
    entries: VecDeque<Bytes>,
    bytes: usize,
    /// When the next batch is sent even if it is not full. Set while the task waits for it.
    batch_due: Option<Instant>,
    /// Entries that wait or are being sent.
    pending: u64,
    has_ended: bool,
}

impl BatchQueue {
    /// Starts the task of a queue. Its counters have the object of the plugin as label.
    pub fn start(settings: QueueSettings, sender: Arc<dyn BatchSender>, cx: &BuildCx<'_>) -> Self {
        let registry = QueueRegistry::of(cx.state);
        let core = QueueCore::new(settings, registry.counters(cx.object));
        registry.add(&core);
        spawn_task(&core, sender, &**cx.services);
        BatchQueue { core, _registry: registry }
    }

    /// Adds an entry. Never waits; a full queue drops its oldest entries.
    pub fn push(&self, entry: Bytes) {
        self.core.push(entry);
    }

    pub fn counts(&self) -> QueueCounts {
        self.core.counters.counts()
    }
}

impl Drop for BatchQueue {
    fn drop(&mut self) {
        self.core.close(Instant::now() + CLOSE_LIMIT);
    }
}

/// Spawns the task. The guard also ends the queue if the task is dropped, which happens when the process stops.
fn spawn_task(core: &Arc<QueueCore>, sender: Arc<dyn BatchSender>, services: &dyn PluginServices) {
    let guard = EndGuard(Arc::clone(core));
    services.spawn(Box::pin(async move {
        guard.0.run(&*sender).await;
        drop(guard);
    }));
}

/// Ends the queue when it is dropped.
struct EndGuard(Arc<QueueCore>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let core = &self.0;
        let unsent = {
            let mut waiting = core.waiting.lock();
            waiting.has_ended = true;
            waiting.entries.clear();
            std::mem::take(&mut waiting.pending)
        };
        core.counters.dropped_stopped.fetch_add(unsent, Relaxed);
        core.counters.pending.fetch_sub(unsent, Relaxed);
        core.ended.send_replace(true);
    }
}

impl QueueCore {
    fn new(settings: QueueSettings, counters: Arc<QueueCounters>) -> Arc<Self> {
        Arc::new(QueueCore {
            settings,
            waiting: Mutex::default(),
            changed: Notify::new(),
            closed: watch::channel(None).0,
            ended: watch::channel(false).0,
            counters,
        })
    }

    fn push(&self, entry: Bytes) {
        let QueueSettings { max_entries, max_bytes, max_batch_size, .. } = self.settings;
        let mut waiting = self.waiting.lock();
        if waiting.has_ended {
            self.counters.dropped_stopped.fetch_add(1, Relaxed);
            return;
        }
        if entry.len() > max_bytes {
            self.counters.dropped_full.fetch_add(1, Relaxed);
            return;
        }
        let mut dropped = 0;
        while waiting.entries.len() >= max_entries || waiting.bytes + entry.len() > max_bytes {
            let Some(oldest) = waiting.entries.pop_front() else { break };
            waiting.bytes -= oldest.len();
            dropped += 1;
        }
        waiting.bytes += entry.len();
        waiting.pending = waiting.pending + 1 - dropped;
        waiting.entries.push_back(entry);
        let length = waiting.entries.len();
        drop(waiting);
        self.counters.dropped_full.fetch_add(dropped, Relaxed);
        self.counters.pending.fetch_add(1, Relaxed);
        self.counters.pending.fetch_sub(dropped, Relaxed);
        // Other lengths do not change what the task waits for.
        if length == 1 || length == max_batch_size {
            self.changed.notify_one();
        }
    }

    /// Sends what is left without waiting for full batches, and drops what is not sent at the deadline.
    fn close(&self, deadline: Instant) {
        self.closed.send_modify(|closed| *closed = Some(closed.map_or(deadline, |existing| existing.min(deadline))));
        self.changed.notify_one();
    }

    /// Waits until the task has ended.
    async fn ended(&self) {
        // An error would mean that the sender was dropped, but `self` holds it.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    /// Sends batches until the queue is closed, and then until it is empty or the deadline has passed.
    async fn run(&self, sender: &dyn BatchSender) {
        tokio::select! {
            biased;
            () = self.expired() => {}
            () = self.send_batches(sender) => {}
        }
    }

    async fn send_batches(&self, sender: &dyn BatchSender) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            let may_begin = in_flight.len() < self.settings.concurrency.get();
            tokio::select! {
                biased;
                Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
                batch = self.next_batch(), if may_begin => match batch {
                    Some(batch) => in_flight.push(self.deliver(sender, batch)),
                    None => break,
                },
            }
        }
        while in_flight.next().await.is_some() {}
    }

    /// Waits for the deadline of a closed queue.
    async fn expired(&self) {
        let mut closed = self.closed.subscribe();
        loop {
            let deadline = *closed.borrow_and_update();
            let expiry = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => return,
                // An error would mean that the sender was dropped, but `self` holds it.
                changed = closed.changed() => drop(changed),
            }
        }
    }

    /// Waits for a batch that is full or due. `None` if the queue is closed and empty.
    async fn next_batch(&self) -> Option<Arc<[Bytes]>> {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut waiting = self.waiting.lock();
                let is_closed = self.closed.borrow().is_some();
                if waiting.entries.is_empty() && is_closed {
                    return None;
                }
                let is_full = waiting.entries.len() >= self.settings.max_batch_size;
                let now = Instant::now();
                if !waiting.entries.is_empty() && waiting.batch_due.is_none() {
                    waiting.batch_due = Some(now + self.settings.max_coalescing_delay);
                }
                match waiting.batch_due {
                    Some(due) if is_full || is_closed || due <= now => return Some(self.take_batch(&mut waiting)),
                    due => due,
                }
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = changed => {}
                        () = sleep_until(due) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn take_batch(&self, waiting: &mut WaitingEntries) -> Arc<[Bytes]> {
        let count = waiting.entries.len().min(self.settings.max_batch_size);
        let batch: Arc<[Bytes]> = waiting.entries.drain(..count).collect();
        waiting.bytes -= batch.iter().map(Bytes::len).sum::<usize>();
        waiting.batch_due = None;
        batch
    }

    /// Sends a batch until the server accepts it or the time for retries has passed.
    async fn deliver(&self, sender: &dyn BatchSender, batch: Arc<[Bytes]>) {
        let QueueSettings { max_retry_time, initial_retry_delay, max_retry_delay, .. } = self.settings;
        let entries = batch.len() as u64;
        let began = Instant::now();
        let mut delay = initial_retry_delay.min(max_retry_delay);
        let counter = loop {
            if sender.send(Arc::clone(&batch)).await {
                break &self.counters.sent;
            }
            if max_retry_time.is_none_or(|limit| began.elapsed() + delay > limit) {
                break &self.counters.dropped_failed;
            }
            sleep(delay).await;
            delay = (delay * 2).min(max_retry_delay);
            self.counters.retries.fetch_add(1, Relaxed);
        };
        self.waiting.lock().pending -= entries;
        counter.fetch_add(entries, Relaxed);
        self.counters.pending.fetch_sub(entries, Relaxed);
    }
}

/// How long a queue without a plugin may take to send its remaining entries.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(30);
