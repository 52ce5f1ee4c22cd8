//! A bounded queue of a plugin that sends its entries in batches, for logs and traces.
//!
//! ```text
//!   requests ──push──▶ waiting entries ──next_batch──▶ deliver ──▶ BatchSender
//!                        └ full: the oldest is dropped     └ failed: waits, twice as long each time, and sends again
//! ```
//!
//! Entries count in [`QueuedBytes`] until the server has accepted them or they are dropped, so the queues of all
//! plugins have one limit, whatever their settings are. An entry counts for the namespace of the route whose request it
//! is about, also in the queue of a KongClusterPlugin.
//!
//! The queue ends with its plugin: dropping the [`BatchQueue`] closes it, and what is left is sent within
//! `CLOSE_LIMIT`.

mod config;
mod meters;
mod queued_bytes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
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

pub use config::{DeprecatedQueueFields, QueueConfig, QueueSettings};
pub(crate) use meters::QueueCounters;
pub use meters::{QueueCounts, flush_queues, queue_counts};
pub use queued_bytes::QueuedBytes;

use self::meters::QueueRegistry;
pub use self::queued_bytes::HeldBytes;
use super::PluginServices;
use super::kind::BuildCx;

/// Sends the batches of a queue.
pub trait BatchSender: Send + Sync + 'static {
    /// The body of the request for a batch. It is not much larger than the entries, which take its place.
    fn encode(&self, entries: &[Bytes]) -> Bytes;

    /// Sends one batch. Returns whether the server has accepted it.
    fn send(&self, body: Bytes) -> BoxFuture<'static, bool>;

    /// Sends one batch to a server that says what is to become of it.
    fn deliver(&self, body: Bytes) -> BoxFuture<'static, BatchOutcome> {
        let sending = self.send(body);
        Box::pin(async move { if sending.await { BatchOutcome::Accepted } else { BatchOutcome::Failed } })
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    Accepted,
    /// The server has accepted a part of the batch, and would never accept these parts of its entries.
    AcceptedInPart {
        rejected: u64,
    },
    /// The batch is sent again.
    Failed,
    /// The batch is sent again after this time, or the longest delay between retries if that is shorter.
    Later(Duration),
    /// The server would never accept the batch.
    Refused,
}

/// The handle with which a plugin adds entries. Dropping it closes the queue.
pub struct BatchQueue {
    core: Arc<QueueCore>,
    /// Keeps the counters in the metrics.
    _registry: Arc<QueueRegistry>,
}

/// The queue as the plugin, its task and the registry share it.
struct QueueCore {
    /// The object of the plugin.
    object: Box<str>,
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

struct WaitingEntries {
    entries: VecDeque<QueuedEntry>,
    bytes: usize,
    owners: EntryOwners,
    /// The last warning that the namespace has its share.
    warned_at: Option<Instant>,
    /// When the next batch is sent even if it is not full. Set while the task waits for it.
    batch_due: Option<Instant>,
    /// Entries that wait or are being sent.
    pending: u64,
    has_ended: bool,
}

struct QueuedEntry {
    bytes: Bytes,
    /// The index of its owner.
    owner: usize,
}

/// Entries that are sent together.
struct QueuedBatch {
    entries: Vec<Bytes>,
    /// What those of each owner take of the limit of the process until the end of the delivery.
    held: Vec<HeldBytes>,
}

/// The namespaces with entries in a queue, and what these take of the limit of the process.
struct EntryOwners {
    all: Arc<QueuedBytes>,
    indexes: HashMap<Box<str>, usize>,
    /// That of the plugin object first.
    held: Vec<HeldBytes>,
}

impl EntryOwners {
    fn new(all: Arc<QueuedBytes>, namespace: &str) -> Self {
        let held = vec![all.hold(namespace)];
        EntryOwners { all, indexes: [(namespace.into(), 0)].into(), held }
    }

    /// The index of a namespace.
    fn index(&mut self, namespace: &str) -> usize {
        if let Some(index) = self.indexes.get(namespace) {
            return *index;
        }
        self.held.push(self.all.hold(namespace));
        self.indexes.insert(namespace.into(), self.held.len() - 1);
        self.held.len() - 1
    }
}

impl BatchQueue {
    /// Starts the task of a queue. Its counters have the object of the plugin as label.
    pub fn start(settings: QueueSettings, sender: Arc<dyn BatchSender>, cx: &BuildCx<'_>) -> Self {
        let registry = QueueRegistry::of(cx.state);
        let bytes = QueuedBytes::of(cx.state, DEFAULT_QUEUED_BYTES);
        let owners = EntryOwners::new(bytes, cx.namespace().unwrap_or_default());
        let core = QueueCore::new(cx.object, settings, owners, registry.counters(cx.object));
        registry.add(&core);
        spawn_task(&core, sender, &**cx.services);
        BatchQueue { core, _registry: registry }
    }

    /// Adds an entry that counts for the namespace of the plugin object. Never waits; a full queue drops its oldest
    /// entries.
    pub fn push(&self, entry: Bytes) {
        self.core.push(None, entry);
    }

    /// The same for an entry about a request, which counts for the namespace of its route.
    pub fn push_for(&self, namespace: &str, entry: Bytes) {
        self.core.push(Some(namespace), entry);
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
            while waiting.pop_oldest() {}
            std::mem::take(&mut waiting.pending)
        };
        core.counters.dropped_stopped.fetch_add(unsent, Relaxed);
        core.counters.pending.fetch_sub(unsent, Relaxed);
        core.ended.send_replace(true);
    }
}

impl WaitingEntries {
    fn new(owners: EntryOwners) -> Self {
        let entries = VecDeque::new();
        WaitingEntries { entries, bytes: 0, owners, warned_at: None, batch_due: None, pending: 0, has_ended: false }
    }

    /// Drops the oldest entry. Returns whether there was one.
    fn pop_oldest(&mut self) -> bool {
        self.remove(0)
    }

    /// Drops the oldest entry of an owner. Returns whether there was one.
    fn pop_oldest_of(&mut self, owner: usize) -> bool {
        let oldest = self.entries.iter().position(|entry| entry.owner == owner);
        oldest.is_some_and(|oldest| self.remove(oldest))
    }

    fn remove(&mut self, index: usize) -> bool {
        let Some(removed) = self.entries.remove(index) else { return false };
        self.bytes -= removed.bytes.len();
        self.owners.held[removed.owner].remove(memory_use(&removed.bytes));
        true
    }
}

/// The bytes that an entry takes, with its place in a queue.
fn memory_use(entry: &Bytes) -> usize {
    entry.len() + ENTRY_OVERHEAD
}

impl QueueCore {
    fn new(object: &str, settings: QueueSettings, owners: EntryOwners, counters: Arc<QueueCounters>) -> Arc<Self> {
        Arc::new(QueueCore {
            object: object.into(),
            settings,
            waiting: Mutex::new(WaitingEntries::new(owners)),
            changed: Notify::new(),
            closed: watch::channel(None).0,
            ended: watch::channel(false).0,
            counters,
        })
    }

    /// `namespace`: that for which the entry counts, if it is not that of the object.
    fn push(&self, namespace: Option<&str>, entry: Bytes) {
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
        let (mut dropped_full, mut dropped_limit) = (0, 0);
        while waiting.entries.len() >= max_entries || waiting.bytes + entry.len() > max_bytes {
            if !waiting.pop_oldest() {
                break;
            }
            dropped_full += 1;
        }
        let owner = namespace.map_or(0, |namespace| waiting.owners.index(namespace));
        let has_room = loop {
            if waiting.owners.held[owner].try_add(memory_use(&entry)) {
                break true;
            }
            dropped_limit += 1;
            // Entries of others do not make room for it.
            if !waiting.pop_oldest_of(owner) {
                break false;
            }
        };
        // Without room, the new entry is one of those that are dropped.
        let (added, dropped) = (1, dropped_full + dropped_limit);
        waiting.pending = waiting.pending + added - dropped;
        let should_warn = dropped_limit > 0 && waiting.warned_at.is_none_or(|at| at.elapsed() > WARNING_INTERVAL);
        if should_warn {
            waiting.warned_at = Some(Instant::now());
        }
        let (length, bytes_before) = (waiting.entries.len() + 1, waiting.bytes);
        let bytes = bytes_before + entry.len();
        if has_room {
            waiting.bytes = bytes;
            waiting.entries.push_back(QueuedEntry { bytes: entry, owner });
        }
        drop(waiting);
        self.counters.dropped_full.fetch_add(dropped_full, Relaxed);
        self.counters.dropped_limit.fetch_add(dropped_limit, Relaxed);
        self.counters.pending.fetch_add(added, Relaxed);
        self.counters.pending.fetch_sub(dropped, Relaxed);
        if should_warn {
            tracing::warn!(
                object = &*self.object,
                "Entries of a queue are dropped, because the plugins of the namespace have their share of \
                 --max-queued-bytes; check that their servers accept entries in time, or raise the flag"
            );
        }
        // Other lengths do not change what the task waits for.
        let becomes_large = bytes_before < MAX_BATCH_BYTES && bytes >= MAX_BATCH_BYTES;
        if has_room && (length == 1 || length == max_batch_size || becomes_large) {
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
    async fn next_batch(&self) -> Option<QueuedBatch> {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut waiting = self.waiting.lock();
                let is_closed = self.closed.borrow().is_some();
                if waiting.entries.is_empty() && is_closed {
                    return None;
                }
                let is_full = waiting.entries.len() >= self.settings.max_batch_size || waiting.bytes >= MAX_BATCH_BYTES;
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

    fn take_batch(&self, waiting: &mut WaitingEntries) -> QueuedBatch {
        let (mut count, mut bytes) = (0, 0);
        for entry in waiting.entries.iter().take(self.settings.max_batch_size) {
            if count > 0 && bytes + entry.bytes.len() > MAX_BATCH_BYTES {
                break;
            }
            (count, bytes) = (count + 1, bytes + entry.bytes.len());
        }
        let mut of_owners: BTreeMap<usize, usize> = BTreeMap::new();
        let take = |QueuedEntry { bytes, owner }| {
            *of_owners.entry(owner).or_default() += memory_use(&bytes);
            bytes
        };
        let entries: Vec<Bytes> = waiting.entries.drain(..count).map(take).collect();
        waiting.bytes -= bytes;
        waiting.batch_due = None;
        let held = of_owners.into_iter().map(|(owner, bytes)| waiting.owners.held[owner].split_off(bytes)).collect();
        QueuedBatch { entries, held }
    }

    /// Sends a batch until the server accepts it or the time for retries has passed.
    async fn deliver(&self, sender: &dyn BatchSender, batch: QueuedBatch) {
        let QueuedBatch { entries, held } = batch;
        let QueueSettings { max_retry_time, initial_retry_delay, max_retry_delay, .. } = self.settings;
        let body = sender.encode(&entries);
        let count = entries.len() as u64;
        // Only the body is kept, not the entries as well.
        drop(entries);
        let began = Instant::now();
        let mut delay = initial_retry_delay.min(max_retry_delay);
        let dropped = loop {
            match sender.deliver(body.clone()).await {
                BatchOutcome::Accepted => break 0,
                // An entry may have several parts, so this counts at most all entries.
                BatchOutcome::AcceptedInPart { rejected } => break rejected.min(count),
                BatchOutcome::Refused => break count,
                BatchOutcome::Failed => {}
                BatchOutcome::Later(time) => delay = delay.max(time.min(max_retry_delay)),
            }
            if max_retry_time.is_none_or(|limit| began.elapsed() + delay > limit) {
                break count;
            }
            sleep(delay).await;
            delay = (delay * 2).min(max_retry_delay).max(MIN_FURTHER_RETRY_DELAY);
            self.counters.retries.fetch_add(1, Relaxed);
        };
        drop((body, held));
        self.waiting.lock().pending -= count;
        self.counters.dropped_failed.fetch_add(dropped, Relaxed);
        self.counters.sent.fetch_add(count - dropped, Relaxed);
        self.counters.pending.fetch_sub(count, Relaxed);
    }
}

/// How long a queue without a plugin may take to send its remaining entries.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// The default limit of the bytes in all queues. There is room for a full queue with default settings.
pub const DEFAULT_QUEUED_BYTES: usize = 128 * 1024 * 1024;
/// The size of entries from which a batch is sent without further ones.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The place of an entry in the queue, its allocation, and its separator in a body.
const ENTRY_OVERHEAD: usize = 64;
/// The least delay before retries after the first one, whose default is shorter. Queues of a server that rejects
/// everything would keep the processor busy with less.
const MIN_FURTHER_RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often a queue warns that it drops entries because of the limit of the process.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
