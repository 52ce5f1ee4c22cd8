//! A copy-on-write hash map in shards: copies of the map share their unchanged shards. The key is part of the entry, so
//! it is stored once.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The entry type of a map, and the key of an entry.
pub trait MapIndex {
    type Entry: Clone;

    /// The key of the entry. An entry without a key is not stored in the map.
    fn key(entry: &Self::Entry) -> Option<&[u8]>;
}

/// The map; the index type defines its entries and keys.
pub struct ShardedMap<I: MapIndex> {
    shards: Box<[Arc<HashTable<I::Entry>>]>,
}

/// With a hundred thousand entries, a change copies a shard of about four hundred entries.
const SHARDS: usize = 256;

impl<I: MapIndex> ShardedMap<I> {
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&I::Entry> {
        let (key, hash) = (key.as_ref(), hash_key(key.as_ref()));
        self.shards[shard_index(hash)].find(hash, |entry| has_key::<I>(entry, key))
    }

    /// Inserts an entry or replaces the one with the same key. An entry without a key is ignored.
    pub fn insert(&mut self, entry: I::Entry) {
        let Some(key) = I::key(&entry) else { return };
        let hash = hash_key(key);
        let shard = Arc::make_mut(&mut self.shards[shard_index(hash)]);
        let rehash = |entry: &I::Entry| hash_key(I::key(entry).unwrap_or_default());
        match shard.entry(hash, |stored| has_key::<I>(stored, key), rehash) {
            Entry::Occupied(mut occupied) => *occupied.get_mut() = entry,
            Entry::Vacant(vacant) => drop(vacant.insert(entry)),
        }
    }

    pub fn remove(&mut self, key: impl AsRef<[u8]>) {
        let (key, hash) = (key.as_ref(), hash_key(key.as_ref()));
        let shard = &mut self.shards[shard_index(hash)];
        // Copies the shard only if it contains the key.
        if shard.find(hash, |entry| has_key::<I>(entry, key)).is_some()
            && let Ok(entry) = Arc::make_mut(shard).find_entry(hash, |entry| has_key::<I>(entry, key))
        {
            entry.remove();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &I::Entry> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }
}

fn has_key<I: MapIndex>(entry: &I::Entry, key: &[u8]) -> bool {
    I::key(entry) == Some(key)
}

fn hash_key(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

fn shard_index(hash: u64) -> usize {
    // The middle bits, because the tables use the lowest and highest ones.
    usize::from((hash >> 32) as u8)
}

impl<I: MapIndex> Default for ShardedMap<I> {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        ShardedMap { shards: (0..SHARDS).map(|_| Arc::clone(&empty)).collect() }
    }
}

impl<I: MapIndex> Clone for ShardedMap<I> {
    fn clone(&self) -> Self {
        ShardedMap { shards: self.shards.clone() }
    }
}

impl<I: MapIndex<Entry: fmt::Debug>> fmt::Debug for ShardedMap<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index of numbers by name.
    struct Numbers;

    impl MapIndex for Numbers {
        type Entry = (String, usize);

        fn key((name, _): &(String, usize)) -> Option<&[u8]> {
            (!name.is_empty()).then_some(name.as_bytes())
        }
    }

    #[test]
    fn changes_do_not_affect_the_original_map() {
        let mut before = ShardedMap::<Numbers>::default();
        for number in 0..1000 {
            before.insert((number.to_string(), number));
        }
        let mut after = before.clone();
        after.insert(("7".to_owned(), 8));
        after.insert((String::new(), 9));
        after.remove("9");
        after.remove("no such key");
        let number = |map: &ShardedMap<Numbers>, key: &str| map.get(key).map(|(_, number)| *number);
        assert_eq!((number(&before, "7"), number(&before, "9"), before.len()), (Some(7), Some(9), 1000));
        assert_eq!((number(&after, "7"), number(&after, "9"), after.len()), (Some(8), None, 999));
        let shared = before.shards.iter().zip(&after.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "{shared} shards are shared");
    }
}
