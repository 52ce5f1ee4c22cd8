//! A map that only grows: looking something up takes no lock, and what is new is put into a copy of its part.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use hashbrown::{Equivalent, HashTable};
use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct Table<K, V> {
    shards: Box<[Shard<K, V>]>,
    hasher: RandomState,
    len: AtomicUsize,
    most: usize,
}

#[derive(Debug)]
struct Shard<K, V> {
    /// By a hash that is made once for each look.
    map: ArcSwap<HashTable<Arc<Entry<K, V>>>>,
    growing: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct Entry<K, V> {
    hash: u64,
    pub key: K,
    pub value: V,
}

impl<K, V> Table<K, V> {
    pub(super) fn holding(most: usize) -> Self {
        let shard = || Shard { map: ArcSwap::default(), growing: Mutex::new(()) };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Table { shards, hasher: RandomState::default(), len: AtomicUsize::new(0), most }
    }

    /// Does something with an entry, which is made if it is missing. Whether there was room for it.
    pub(super) fn with<Q>(&self, key: &Q, make: impl FnOnce() -> V, then: impl FnOnce(&V)) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
        for<'q> K: From<&'q Q>,
    {
        let hash = self.hasher.hash_one(key);
        // Maps find their places by the lowest and the highest bits.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        let is_it = |entry: &Arc<Entry<K, V>>| key.equivalent(&entry.key);
        if let Some(entry) = shard.map.load().find(hash, is_it) {
            then(&entry.value);
            return true;
        }
        let _growing = shard.growing.lock();
        let map = shard.map.load_full();
        if let Some(entry) = map.find(hash, is_it) {
            then(&entry.value);
            return true;
        }
        if self
            .len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |len| (len < self.most).then_some(len + 1))
            .is_err()
        {
            return false;
        }
        let value = make();
        then(&value);
        let mut grown = HashTable::clone(&map);
        grown.insert_unique(hash, Arc::new(Entry { hash, key: K::from(key), value }), |entry| entry.hash);
        shard.map.store(Arc::new(grown));
        true
    }

    /// In the order of the keys.
    pub(super) fn sorted(&self) -> Vec<Arc<Entry<K, V>>>
    where
        K: Ord,
    {
        let maps: Vec<_> = self.shards.iter().map(|shard| shard.map.load_full()).collect();
        let mut entries: Vec<_> = maps.iter().flat_map(|map| map.iter()).map(Arc::clone).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    }
}

/// Ten thousand entries are then a hundred and fifty in each.
const SHARDS: usize = 64;
