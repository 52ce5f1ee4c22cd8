//! A map in parts that are shared with the map it was made from. An entry says itself what it is found by, so that this is in
//! memory once.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// What is kept in a map, and by what it is found there.
pub trait Index {
    type Entry: Clone;

    /// None if it is not to be found in this map.
    fn key(entry: &Self::Entry) -> Option<&[u8]>;
}

pub struct Shards<I: Index> {
    shards: Box<[Arc<HashTable<I::Entry>>]>,
}

/// A hundred thousand entries are then four hundred in each, which one change copies.
const SHARDS: usize = 256;

impl<I: Index> Shards<I> {
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&I::Entry> {
        let (key, hash) = (key.as_ref(), hash_of(key.as_ref()));
        self.shards[shard_of(hash)].find(hash, |entry| is_at::<I>(entry, key))
    }

    /// In place of what was found by the same. Does nothing with what is not to be found here.
    pub fn insert(&mut self, entry: I::Entry) {
        let Some(key) = I::key(&entry) else { return };
        let hash = hash_of(key);
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let again = |entry: &I::Entry| hash_of(I::key(entry).unwrap_or_default());
        match shard.entry(hash, |known| is_at::<I>(known, key), again) {
            Entry::Occupied(mut known) => *known.get_mut() = entry,
            Entry::Vacant(free) => drop(free.insert(entry)),
        }
    }

    pub fn remove(&mut self, key: impl AsRef<[u8]>) {
        let (key, hash) = (key.as_ref(), hash_of(key.as_ref()));
        let shard = &mut self.shards[shard_of(hash)];
        // Only what changes is copied.
        if shard.find(hash, |entry| is_at::<I>(entry, key)).is_some()
            && let Ok(entry) = Arc::make_mut(shard).find_entry(hash, |entry| is_at::<I>(entry, key))
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

fn is_at<I: Index>(entry: &I::Entry, key: &[u8]) -> bool {
    I::key(entry) == Some(key)
}

fn hash_of(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

fn shard_of(hash: u64) -> usize {
    // Bits from the middle: the tables take theirs from both ends.
    usize::from((hash >> 32) as u8)
}

impl<I: Index> Default for Shards<I> {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Shards { shards: (0..SHARDS).map(|_| Arc::clone(&empty)).collect() }
    }
}

impl<I: Index> Clone for Shards<I> {
    fn clone(&self) -> Self {
        Shards { shards: self.shards.clone() }
    }
}

impl<I: Index<Entry: fmt::Debug>> fmt::Debug for Shards<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number by its name.
    struct Numbers;

    impl Index for Numbers {
        type Entry = (String, usize);

        fn key((name, _): &(String, usize)) -> Option<&[u8]> {
            (!name.is_empty()).then_some(name.as_bytes())
        }
    }

    #[test]
    fn a_change_leaves_the_map_it_was_made_from_alone() {
        let mut before = Shards::<Numbers>::default();
        for number in 0..1000 {
            before.insert((number.to_string(), number));
        }
        let mut after = before.clone();
        after.insert(("7".to_owned(), 8));
        after.insert((String::new(), 9));
        after.remove("9");
        after.remove("no such key");
        let number = |map: &Shards<Numbers>, key: &str| map.get(key).map(|(_, number)| *number);
        assert_eq!((number(&before, "7"), number(&before, "9"), before.len()), (Some(7), Some(9), 1000));
        assert_eq!((number(&after, "7"), number(&after, "9"), after.len()), (Some(8), None, 999));
        let shared = before.shards.iter().zip(&after.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "{shared} shards are shared");
    }
}
