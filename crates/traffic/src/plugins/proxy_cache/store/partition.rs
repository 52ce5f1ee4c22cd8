//! The stored responses of one namespace.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use http::HeaderMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{CacheKey, CacheStore, Flight, FlightGuard, Purge, StoredResponse};
use crate::shared_limit::Share;

#[derive(Debug)]
pub(crate) struct Partition {
    pub(super) store: Arc<CacheStore>,
    pub(super) namespace: Box<str>,
    pub(super) share: Arc<Share>,
    shards: [Mutex<Shard>; SHARDS],
    /// The shard that loses the next response.
    evict_next: AtomicUsize,
}

/// The number of removals in a shard when a response was requested. It is not stored if a later one concerns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(u64);

#[derive(Debug, Default)]
struct Shard {
    /// Sorted, so that all keys of one target are found.
    entries: BTreeMap<CacheKey, SmallVec<[Variant; 1]>>,
    /// All variants in the order in which they are looked at to make room, and some that exist no more.
    queue: VecDeque<(CacheKey, u64)>,
    next_id: u64,
    variants: usize,
    removals: Removals,
    flights: HashMap<CacheKey, Flight>,
}

/// One of the responses for a key, which differ by fields of the request.
#[derive(Debug)]
struct Variant {
    id: u64,
    response: Arc<StoredResponse>,
    /// Whether it was used since the queue has last looked at it.
    is_used: bool,
}

impl Partition {
    pub(super) fn new(store: Arc<CacheStore>, namespace: &str) -> Self {
        let share = store.shares.of(namespace);
        let shards = std::array::from_fn(|_| Mutex::default());
        Partition { store, namespace: namespace.into(), share, shards, evict_next: AtomicUsize::new(0) }
    }

    /// Whether it has the responses of this namespace.
    pub(crate) fn is_of(&self, namespace: &str) -> bool {
        *self.namespace == *namespace
    }

    /// The stored response for a request, and what a response that is requested now needs to be stored.
    pub(crate) fn look_up(
        &self,
        key: CacheKey,
        request: &HeaderMap,
        now: SystemTime,
    ) -> (Option<Arc<StoredResponse>>, Generation) {
        let mut shard = self.shard(key).lock();
        let generation = shard.removals.latest;
        let Some(variants) = shard.entries.get_mut(&key) else { return (None, generation) };
        let count = variants.len();
        variants.retain(|variant| variant.response.keep_until > now);
        // The latest one of those that match.
        let found = variants.iter_mut().rev().find(|variant| variant.response.vary.matches(request)).map(|variant| {
            variant.is_used = true;
            Arc::clone(&variant.response)
        });
        let removed = count - variants.len();
        if variants.is_empty() {
            shard.entries.remove(&key);
        }
        shard.variants -= removed;
        (found, generation)
    }

    /// Stores a response to a request, in place of those that would be selected for the same request. Returns false if
    /// what is stored for its target was removed since its request.
    pub(crate) fn insert(
        &self,
        key: CacheKey,
        request: &HeaderMap,
        response: Arc<StoredResponse>,
        requested_in: Generation,
    ) -> bool {
        let mut guard = self.shard(key).lock();
        let shard = &mut *guard;
        if shard.removals.concern(key, requested_in) {
            return false;
        }
        let id = shard.next_id;
        shard.next_id += 1;
        let variants = shard.entries.entry(key).or_default();
        let count = variants.len();
        variants.retain(|variant| !variant.response.vary.matches(request));
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(Variant { id, response, is_used: false });
        shard.variants = shard.variants + variants.len() - count;
        shard.queue.push_back((key, id));
        shard.compact_queue();
        true
    }

    /// Removes one response, which was not used for a while. Returns false if there is none.
    pub(super) fn evict(&self) -> bool {
        let first = self.evict_next.fetch_add(1, Relaxed);
        (0..SHARDS).any(|offset| {
            let shard = &self.shards[first.wrapping_add(offset) % SHARDS];
            // Dropped after the lock is released, because its memory may be large.
            let evicted = shard.lock().evict();
            evicted.is_some()
        })
    }

    /// Removes all responses for a target, for all consumers.
    pub(crate) fn invalidate(&self, key: CacheKey) -> usize {
        let (mut first, mut last) = (key, key);
        first.0[16..].fill(0);
        last.0[16..].fill(u8::MAX);
        let mut shard = self.shard(key).lock();
        shard.removals.add(key);
        let keys: Vec<_> = shard.entries.range(first..=last).map(|(key, _)| *key).collect();
        keys.into_iter().map(|key| shard.remove(key)).sum()
    }

    pub(super) fn purge(&self, purge: &Purge, key: Option<CacheKey>) -> usize {
        if let Some(key) = key {
            let mut shard = self.shard(key).lock();
            shard.removals.add(key);
            return shard.remove(key);
        }
        let purge_shard = |shard: &Mutex<Shard>| {
            let mut shard = shard.lock();
            shard.removals.add_all();
            match purge {
                Purge::Tag(tag) => shard.remove_tag(tag.as_bytes()),
                Purge::All | Purge::Key(_) => {
                    let count = shard.variants;
                    shard.entries.clear();
                    shard.queue.clear();
                    shard.variants = 0;
                    count
                }
            }
        };
        self.shards.iter().map(purge_shard).sum()
    }

    /// Begins to request a response. If another request has begun before, returns what to wait for.
    pub(crate) fn begin_flight(self: &Arc<Self>, key: CacheKey) -> Result<FlightGuard, Flight> {
        let mut shard = self.shard(key).lock();
        if let Some(flight) = shard.flights.get(&key) {
            return Err(flight.clone());
        }
        let flight = Flight::new();
        shard.flights.insert(key, flight.clone());
        Ok(FlightGuard { partition: Arc::clone(self), key, flight })
    }

    pub(super) fn end_flight(&self, key: CacheKey, flight: &Flight) {
        let mut shard = self.shard(key).lock();
        if shard.flights.get(&key).is_some_and(|current| current.is_same(flight)) {
            shard.flights.remove(&key);
        }
    }

    /// All keys of one target have the same shard.
    fn shard(&self, key: CacheKey) -> &Mutex<Shard> {
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        let counts = self.shards.iter().map(|shard| shard.lock()).map(|shard| (shard.variants, shard.queue.len()));
        counts.fold((0, 0), |sum, (variants, queued)| (sum.0 + variants, sum.1 + queued))
    }
}

/// What was removed lately, so that a response is not stored that was requested before.
#[derive(Debug, Default)]
struct Removals {
    latest: Generation,
    /// The last removal of everything, or of a target that `targets` has no room for any more.
    of_all: Generation,
    /// The last removals of single targets, in their order.
    targets: VecDeque<(Generation, [u8; 16])>,
}

impl Removals {
    fn add(&mut self, key: CacheKey) {
        self.latest.0 += 1;
        if self.targets.len() == MAX_REMOVED_TARGETS
            && let Some((forgotten, _)) = self.targets.pop_front()
        {
            self.of_all = forgotten;
        }
        self.targets.push_back((self.latest, key.target()));
    }

    fn add_all(&mut self) {
        self.latest.0 += 1;
        self.of_all = self.latest;
        self.targets.clear();
    }

    /// Whether something was removed that a response with this key may have been, since it was requested.
    fn concern(&self, key: CacheKey, requested_in: Generation) -> bool {
        let mut later = self.targets.iter().rev().take_while(|(generation, _)| *generation > requested_in);
        self.of_all > requested_in || later.any(|(_, target)| *target == key.target())
    }
}

impl Shard {
    fn evict(&mut self) -> Option<Arc<StoredResponse>> {
        // Each variant is looked at twice at most: the first time may be the one that forgets its use.
        for _ in 0..2 * self.queue.len() {
            let (key, id) = self.queue.pop_front()?;
            let Some(variants) = self.entries.get_mut(&key) else { continue };
            let Some(index) = variants.iter().position(|variant| variant.id == id) else { continue };
            if std::mem::take(&mut variants[index].is_used) {
                self.queue.push_back((key, id));
                continue;
            }
            let removed = variants.remove(index);
            self.variants -= 1;
            if variants.is_empty() {
                self.entries.remove(&key);
            }
            return Some(removed.response);
        }
        None
    }

    fn remove(&mut self, key: CacheKey) -> usize {
        let removed = self.entries.remove(&key).map_or(0, |variants| variants.len());
        self.variants -= removed;
        removed
    }

    fn remove_tag(&mut self, tag: &[u8]) -> usize {
        let mut removed = 0;
        self.entries.retain(|_, variants| {
            let count = variants.len();
            variants.retain(|variant| !variant.response.has_tag(tag));
            removed += count - variants.len();
            !variants.is_empty()
        });
        self.variants -= removed;
        removed
    }

    /// Keeps the queue in proportion to what is stored.
    fn compact_queue(&mut self) {
        if self.queue.len() <= 2 * self.variants + 16 {
            return;
        }
        let entries = &self.entries;
        self.queue.retain(|(key, id)| {
            entries.get(key).is_some_and(|variants| variants.iter().any(|variant| variant.id == *id))
        });
    }
}

/// So many that the workers of a large machine rarely wait for each other.
const SHARDS: usize = 32;
/// Of how many removed targets a shard knows. If more are removed while a response is on its way, it is not stored.
const MAX_REMOVED_TARGETS: usize = 64;
/// How many responses that differ by fields of the request are kept for one key.
const MAX_VARIANTS: usize = 32;
