//! A concurrent map that only grows. Lookups take no lock; an insert replaces the map of its shard by an extended copy.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use hashbrown::{Equivalent, HashTable};
use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct SeriesTable<K, V> {
    shards: Box<[Shard<K, V>]>,
    hasher: RandomState,
    len: AtomicUsize,
    capacity: usize,
}

#[derive(Debug)]
struct Shard<K, V> {
    /// Keyed by a hash that is computed once per lookup.
    map: ArcSwap<HashTable<Arc<SeriesEntry<K, V>>>>,
    /// Held during inserts.
    insert_lock: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct SeriesEntry<K, V> {
    hash: u64,
    pub key: K,
    pub value: V,
}

impl<K, V> SeriesTable<K, V> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let shard = || Shard { map: ArcSwap::default(), insert_lock: Mutex::new(()) };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        SeriesTable { shards, hasher: RandomState::default(), len: AtomicUsize::new(0), capacity }
    }

    /// Calls `apply` with the value of a key, which `create` creates if there is none. Returns false if the table is
    /// full.
    pub(super) fn update<Q>(&self, key: &Q, create: impl FnOnce() -> V, apply: impl FnOnce(&V)) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
        for<'q> K: From<&'q Q>,
    {
        let hash = self.hasher.hash_one(key);
        // The middle bits select the shard, because the hash tables use the lowest and highest ones.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        let has_key = |entry: &Arc<SeriesEntry<K, V>>| key.equivalent(&entry.key);
        if let Some(entry) = shard.map.load().find(hash, has_key) {
            apply(&entry.value);
            return true;
        }
        let _guard = shard.insert_lock.lock();
        let map = shard.map.load_full();
        if let Some(entry) = map.find(hash, has_key) {
            apply(&entry.value);
            return true;
        }
        if self
            .len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |len| (len < self.capacity).then_some(len + 1))
            .is_err()
        {
            return false;
        }
        let value = create();
        apply(&value);
        let mut extended = HashTable::clone(&map);
        extended.insert_unique(hash, Arc::new(SeriesEntry { hash, key: K::from(key), value }), |entry| entry.hash);
        shard.map.store(Arc::new(extended));
        true
    }

    /// All entries in the order of their keys.
    pub(super) fn sorted(&self) -> Vec<Arc<SeriesEntry<K, V>>>
    where
        K: Ord,
    {
        let maps: Vec<_> = self.shards.iter().map(|shard| shard.map.load_full()).collect();
        let mut entries: Vec<_> = maps.iter().flat_map(|map| map.iter()).map(Arc::clone).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    }
}

/// Number of shards. With ten thousand entries, each has about 150.
const SHARDS: usize = 64;
