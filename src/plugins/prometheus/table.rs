//! A map that only grows: looking something up takes no lock, and what is new is put into a copy of its part.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use hashbrown::{Equivalent, HashMap};
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
    map: ArcSwap<HashMap<K, Arc<V>, RandomState>>,
    growing: Mutex<()>,
}

impl<K: Hash + Eq + Clone, V> Table<K, V> {
    pub(super) fn holding(most: usize) -> Self {
        let hasher = RandomState::default();
        let map = || ArcSwap::from_pointee(HashMap::with_hasher(hasher.clone()));
        let shards = (0..SHARDS).map(|_| Shard { map: map(), growing: Mutex::new(()) }).collect();
        Table { shards, hasher, len: AtomicUsize::new(0), most }
    }

    /// Does something with an entry, which is made if it is missing. Whether there was room for it.
    pub(super) fn with<Q>(&self, key: &Q, make: impl FnOnce() -> V, then: impl FnOnce(&V)) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
        for<'q> K: From<&'q Q>,
    {
        let shard = &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS];
        if let Some(value) = shard.map.load().get(key) {
            then(value);
            return true;
        }
        let _growing = shard.growing.lock();
        let map = shard.map.load_full();
        if let Some(value) = map.get(key) {
            then(value);
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
        let mut grown = HashMap::clone(&map);
        grown.insert(K::from(key), Arc::new(value));
        shard.map.store(Arc::new(grown));
        true
    }

    /// In the order of the keys.
    pub(super) fn sorted(&self) -> Vec<(K, Arc<V>)>
    where
        K: Ord,
    {
        let maps: Vec<_> = self.shards.iter().map(|shard| shard.map.load_full()).collect();
        let entries = maps.iter().flat_map(|map| map.iter());
        let mut entries: Vec<_> = entries.map(|(key, value)| (key.clone(), Arc::clone(value))).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }
}

/// Ten thousand entries are then a hundred and fifty in each.
const SHARDS: usize = 64;
