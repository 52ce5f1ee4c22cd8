//! A copy-on-write hash map in shards: copies of the map share their unchanged shards. The key is part of the entry, so
//! it is stored once.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
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
    /// About as many as a shard has entries, because a change copies one shard and the list of all. Their number is a
    /// power of two, or zero.
    shards: Box<[Arc<HashTable<I::Entry>>]>,
    len: usize,
    hasher: RandomState,
}

/// A smaller map has one shard, which takes the least memory.
const MAX_LEN_OF_ONE_SHARD: usize = 64;

impl<I: MapIndex> ShardedMap<I> {
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&I::Entry> {
        if self.len == 0 {
            return None;
        }
        let key = key.as_ref();
        let hash = self.hasher.hash_one(key);
        self.shards[shard_index(hash, self.shards.len())].find(hash, |entry| has_key::<I>(entry, key))
    }

    /// Inserts an entry or replaces the one with the same key. An entry without a key is ignored.
    pub fn insert(&mut self, entry: I::Entry) {
        let Some(key) = I::key(&entry) else { return };
        if self.shards.is_empty() {
            self.shards = Box::new([Arc::default()]);
        }
        let hasher = self.hasher.clone();
        let hash = hasher.hash_one(key);
        let index = shard_index(hash, self.shards.len());
        let shard = Arc::make_mut(&mut self.shards[index]);
        match shard.entry(hash, |stored| has_key::<I>(stored, key), |stored| hash_of::<I>(&hasher, stored)) {
            Entry::Occupied(mut occupied) => *occupied.get_mut() = entry,
            Entry::Vacant(vacant) => {
                vacant.insert(entry);
                self.len += 1;
                if self.len > MAX_LEN_OF_ONE_SHARD && self.len > self.shards.len() * self.shards.len() {
                    self.distribute((self.len.isqrt() + 1).next_power_of_two());
                }
            }
        }
    }

    pub fn remove(&mut self, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        // Copies the shard only if it contains the key.
        if self.get(key).is_none() {
            return;
        }
        let hash = self.hasher.hash_one(key);
        let index = shard_index(hash, self.shards.len());
        let shard = Arc::make_mut(&mut self.shards[index]);
        if let Ok(entry) = shard.find_entry(hash, |entry| has_key::<I>(entry, key)) {
            entry.remove();
            self.len -= 1;
        }
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &I::Entry> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Distributes all entries among this number of shards.
    fn distribute(&mut self, count: usize) {
        let mut shards: Vec<HashTable<I::Entry>> = (0..count).map(|_| HashTable::new()).collect();
        for entry in self.iter() {
            let hash = hash_of::<I>(&self.hasher, entry);
            shards[shard_index(hash, count)]
                .insert_unique(hash, entry.clone(), |stored| hash_of::<I>(&self.hasher, stored));
        }
        self.shards = shards.into_iter().map(Arc::new).collect();
    }
}

fn has_key<I: MapIndex>(entry: &I::Entry, key: &[u8]) -> bool {
    I::key(entry) == Some(key)
}

fn hash_of<I: MapIndex>(hasher: &RandomState, entry: &I::Entry) -> u64 {
    hasher.hash_one(I::key(entry).unwrap_or_default())
}

/// `count` is a power of two.
fn shard_index(hash: u64, count: usize) -> usize {
    // The upper half, because the tables use the lowest bits, and only the highest seven of the upper ones.
    (hash >> 32) as usize & (count - 1)
}

impl<I: MapIndex> Default for ShardedMap<I> {
    fn default() -> Self {
        ShardedMap { shards: Box::default(), len: 0, hasher: RandomState::default() }
    }
}

impl<I: MapIndex> Clone for ShardedMap<I> {
    fn clone(&self) -> Self {
        ShardedMap { shards: self.shards.clone(), len: self.len, hasher: self.hasher.clone() }
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
        let shards = after.shards.len();
        assert!(shards >= 32 && shared >= shards - 2, "{shared} of {shards} shards are shared");
    }

    #[test]
    fn small_maps_have_one_shard_and_empty_ones_none() {
        let mut map = ShardedMap::<Numbers>::default();
        assert_eq!((map.shards.len(), map.get("0")), (0, None));
        map.remove("0");
        for number in 0..MAX_LEN_OF_ONE_SHARD {
            map.insert((number.to_string(), number));
            map.insert((number.to_string(), number));
        }
        assert_eq!((map.shards.len(), map.len(), map.is_empty()), (1, MAX_LEN_OF_ONE_SHARD, false));
        assert_eq!(map.get("63"), Some(&("63".to_owned(), 63)));
    }

    /// Otherwise a change would copy many entries, or a long list of shards.
    #[test]
    fn number_of_shards_is_about_the_root_of_that_of_entries() {
        let mut map = ShardedMap::<Numbers>::default();
        for number in 0..20_000 {
            map.insert((number.to_string(), number));
        }
        assert_eq!(map.len(), 20_000);
        assert!((0..20_000).all(|number| map.get(number.to_string()).is_some()));
        let longest = map.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(map.shards.len() <= 256 && longest < 256, "{} shards, one of {longest} entries", map.shards.len());
    }
}
