//! The responses that all caches of the process have in memory, within one limit of bytes.
//!
//! ```text
//!   CacheStore ─ bytes in use ◀──────────────────────────────┐
//!     └ Partition of a namespace ─ its share of the bytes ◀──┤ Reservation
//!         └ Shard, a short lock ─ CacheKey ─▶ variants ─▶ StoredResponse
//! ```
//!
//! A namespace may hold seven times as many bytes as are free, as with every shared limit: one alone seven eighths, two
//! seven fifteenths each. If there is no room, the namespace that holds most loses the responses that were not used
//! since they were last looked at. So a client that requests many different targets removes responses of the same kind,
//! and neither those that are in use nor those of other namespaces.

mod flight;
mod partition;
mod reservation;
mod stored_fields;
mod stored_response;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use parking_lot::Mutex;

use super::outcome::{CacheOutcome, OutcomeCounters};
use super::remote::RemoteStore;
use crate::plugin_api::PluginState;
use crate::shared_limit::Shares;
pub(super) use flight::{Flight, FlightGuard};
pub(super) use partition::{Generation, Partition};
pub(super) use reservation::Reservation;
pub(super) use stored_fields::StoredFields;
pub(super) use stored_response::{StoredResponse, head_bytes};

/// Identifies what is stored: the first half is a digest of the target, the second one of everything else that selects
/// the response, such as the route and the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CacheKey(pub(super) [u8; 32]);

impl CacheKey {
    /// As `X-Cache-Key` shows it.
    pub(crate) fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// The half that identifies the target.
    fn target(self) -> [u8; 16] {
        std::array::from_fn(|index| self.0[index])
    }

    /// Reads what [`CacheKey::to_hex`] has written.
    pub(crate) fn from_hex(text: &str) -> Option<CacheKey> {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(CacheKey)
    }
}

/// The stored responses of the process. One object in [`PluginState`].
pub struct CacheStore {
    limit: usize,
    used: AtomicUsize,
    shares: Shares,
    partitions: Mutex<Vec<Weak<Partition>>>,
    /// The servers with responses of a namespace.
    remotes: Mutex<Vec<(Box<str>, Weak<RemoteStore>)>>,
    evictions: AtomicU64,
    outcomes: OutcomeCounters,
}

/// What a purge removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    All,
    /// The value of `X-Cache-Key`.
    Key(String),
    /// A name in the field `Surrogate-Key` or `Cache-Tag` of responses.
    Tag(String),
}

impl std::fmt::Debug for CacheStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CacheStore").field("limit", &self.limit).field("used", &self.used()).finish()
    }
}

impl CacheStore {
    /// The store of this state. The first caller sets its limit in bytes.
    pub fn of(state: &PluginState, limit: usize) -> Arc<CacheStore> {
        state.get_or_create("response caches", || CacheStore::new(limit))
    }

    pub(super) fn new(limit: usize) -> Self {
        CacheStore {
            limit,
            used: AtomicUsize::new(0),
            shares: Shares::default(),
            partitions: Mutex::default(),
            remotes: Mutex::default(),
            evictions: AtomicU64::new(0),
            outcomes: OutcomeCounters::default(),
        }
    }

    /// The bytes in use, with those of responses that were removed and are still being sent.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The responses that were removed to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// How many requests had each outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.outcomes.counts()
    }

    pub(super) fn count(&self, outcome: CacheOutcome) {
        self.outcomes.count(outcome);
    }

    /// Removes stored responses, in one namespace or in all of them. Responses that are being received are not stored
    /// either. Returns the number of removed responses; `None` if the key is none. Those at servers are removed in the
    /// background, and not counted.
    pub fn purge(&self, purge: &Purge, namespace: Option<&str>) -> Option<usize> {
        let key = match purge {
            Purge::Key(text) => Some(CacheKey::from_hex(text)?),
            Purge::All | Purge::Tag(_) => None,
        };
        // What a KongClusterPlugin has stored at a server has no namespace there, so all of it is removed.
        let is_selected = |own: &str| own.is_empty() || namespace.is_none_or(|name| *own == *name);
        for (_, remote) in self.remotes.lock().iter().filter(|(own, _)| is_selected(own)) {
            if let Some(remote) = remote.upgrade() {
                remote.purge(key);
            }
        }
        let partitions: Vec<_> = self.partitions.lock().iter().filter_map(Weak::upgrade).collect();
        let selected = partitions.iter().filter(|partition| namespace.is_none_or(|name| &*partition.namespace == name));
        Some(selected.map(|partition| partition.purge(purge, key)).sum())
    }

    /// The responses of a namespace. Plugins get it when they are built.
    pub(super) fn partition(self: &Arc<Self>, namespace: &str) -> Arc<Partition> {
        let mut partitions = self.partitions.lock();
        let mut existing = partitions.iter().filter_map(Weak::upgrade);
        if let Some(partition) = existing.find(|partition| &*partition.namespace == namespace) {
            return partition;
        }
        drop(existing);
        partitions.retain(|partition| partition.strong_count() > 0);
        let partition = Arc::new(Partition::new(Arc::clone(self), namespace));
        partitions.push(Arc::downgrade(&partition));
        partition
    }

    /// Adds a server to those of which purges remove responses.
    pub(super) fn add_remote(&self, namespace: &str, remote: &Arc<RemoteStore>) {
        let mut remotes = self.remotes.lock();
        remotes.retain(|(_, remote)| remote.strong_count() > 0);
        remotes.push((namespace.into(), Arc::downgrade(remote)));
    }

    fn free(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    /// Takes bytes, if the limit permits it.
    fn try_take(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// Removes a response of the namespace that holds most. Returns false if nothing is stored there.
    fn evict(&self, for_partition: &Partition) -> bool {
        let partitions: Vec<_> = self.partitions.lock().iter().filter_map(Weak::upgrade).collect();
        let largest = partitions.iter().max_by_key(|partition| partition.share.held());
        let own = for_partition.share.held();
        let has_evicted = match largest {
            Some(largest) if largest.share.held() > own && largest.evict() => true,
            _ => for_partition.evict(),
        };
        self.evictions.fetch_add(u64::from(has_evicted), Relaxed);
        has_evicted
    }
}
