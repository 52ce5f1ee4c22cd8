//! A concurrent map. Lookups take no lock; an insert replaces the map of its shard by an extended copy.
//!
//! Only scrapes remove entries: while the table is full, those without an update since many scrapes, such as those of
//! routes that no longer exist.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

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
    /// How often the table was scraped.
    scrapes: AtomicU32,
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
    /// How often the table had been scraped at the last update.
    updated_at: AtomicU32,
}

impl<K, V> SeriesEntry<K, V> {
    fn mark_updated(&self, scrapes: u32) {
        // A store would take the cache line from other threads.
        if self.updated_at.load(Ordering::Relaxed) != scrapes {
            self.updated_at.store(scrapes, Ordering::Relaxed);
        }
    }
}

impl<K, V> SeriesTable<K, V> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let shard = || Shard { map: ArcSwap::default(), insert_lock: Mutex::new(()) };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        SeriesTable {
            shards,
            hasher: RandomState::default(),
            len: AtomicUsize::new(0),
            capacity,
            scrapes: AtomicU32::new(0),
        }
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
        let scrapes = self.scrapes.load(Ordering::Relaxed);
        let has_key = |entry: &Arc<SeriesEntry<K, V>>| key.equivalent(&entry.key);
        if let Some(entry) = shard.map.load().find(hash, has_key) {
            entry.mark_updated(scrapes);
            apply(&entry.value);
            return true;
        }
        let _guard = shard.insert_lock.lock();
        let map = shard.map.load_full();
        if let Some(entry) = map.find(hash, has_key) {
            entry.mark_updated(scrapes);
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
        let entry = SeriesEntry { hash, key: K::from(key), value, updated_at: AtomicU32::new(scrapes) };
        extended.insert_unique(hash, Arc::new(entry), |entry| entry.hash);
        shard.map.store(Arc::new(extended));
        true
    }

    /// All entries in the order of their keys, for a scrape. If the table is full, removes unused entries afterwards.
    pub(super) fn scrape(&self) -> Vec<Arc<SeriesEntry<K, V>>>
    where
        K: Ord,
    {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let maps: Vec<_> = self.shards.iter().map(|shard| shard.map.load_full()).collect();
        let mut entries: Vec<_> = maps.iter().flat_map(|map| map.iter()).map(Arc::clone).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        if entries.len() >= self.capacity {
            self.remove_unused(scrapes);
        }
        entries
    }

    fn remove_unused(&self, scrapes: u32) {
        for shard in &self.shards {
            let _guard = shard.insert_lock.lock();
            let map = shard.map.load_full();
            let is_used = |entry: &Arc<SeriesEntry<K, V>>| {
                scrapes.wrapping_sub(entry.updated_at.load(Ordering::Relaxed)) <= UNUSED_SCRAPES
            };
            if map.iter().all(is_used) {
                continue;
            }
            let mut remaining = HashTable::clone(&map);
            remaining.retain(|entry| is_used(entry));
            self.len.fetch_sub(map.len() - remaining.len(), Ordering::Relaxed);
            shard.map.store(Arc::new(remaining));
        }
    }
}

/// An entry is unused if it was not updated between so many scrapes: an hour if there are four scrapes in a minute.
const UNUSED_SCRAPES: u32 = 240;

/// Number of shards. With ten thousand entries, each has about 150.
const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Name(String);

    impl From<&str> for Name {
        fn from(name: &str) -> Self {
            Name(name.to_owned())
        }
    }

    impl Equivalent<Name> for str {
        fn equivalent(&self, name: &Name) -> bool {
            *self == *name.0
        }
    }

    fn names(table: &SeriesTable<Name, AtomicU64>) -> Vec<String> {
        table.scrape().iter().map(|entry| format!("{} {}", entry.key.0, entry.value.load(Ordering::Relaxed))).collect()
    }

    #[test]
    fn full_table_forgets_entries_that_are_no_longer_updated() {
        let table = SeriesTable::with_capacity(2);
        let count =
            |name: &str| table.update(name, AtomicU64::default, |count| _ = count.fetch_add(1, Ordering::Relaxed));
        assert!(count("old"));
        for _ in 0..=UNUSED_SCRAPES {
            assert_eq!(names(&table), ["old 1"], "there is room");
        }
        assert!(count("used") && !count("new"));
        assert_eq!(names(&table), ["old 1", "used 1"]);
        assert_eq!(names(&table), ["used 1"], "the old one has made room");
        assert!(count("new") && !count("newer"));
        for scrape in 2..UNUSED_SCRAPES + 10 {
            assert!(count("used"));
            assert!(names(&table).contains(&format!("used {scrape}")), "a used entry keeps its count");
        }
        assert_eq!(names(&table).len(), 1);
    }
}
