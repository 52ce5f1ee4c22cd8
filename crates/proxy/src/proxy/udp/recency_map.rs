//! A map with the order of the last use of its values: finding, moving and removing one takes constant time.

use std::collections::HashMap;
use std::hash::Hash;

/// Values with their keys, from the one that was used least recently to the newest:
///
/// ```text
///   oldest ─▶ slot 3 ⇄ slot 0 ⇄ slot 7 ◀─ newest      free: slots without a value
/// ```
pub(super) struct RecencyMap<K, V> {
    slots_by_key: HashMap<K, usize>,
    slots: Vec<RecencySlot<K, V>>,
    free: Vec<usize>,
    oldest: Option<usize>,
    newest: Option<usize>,
}

struct RecencySlot<K, V> {
    entry: Option<KeyedValue<K, V>>,
    older: Option<usize>,
    newer: Option<usize>,
}

struct KeyedValue<K, V> {
    /// None if the value is not found by its key any more.
    key: Option<K>,
    value: V,
}

impl<K, V> Default for RecencyMap<K, V> {
    fn default() -> Self {
        RecencyMap { slots_by_key: HashMap::new(), slots: Vec::new(), free: Vec::new(), oldest: None, newest: None }
    }
}

impl<K: Clone + Eq + Hash, V> RecencyMap<K, V> {
    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The slot of a key, which stays the same until the value is removed.
    pub(super) fn find(&self, key: &K) -> Option<usize> {
        self.slots_by_key.get(key).copied()
    }

    pub(super) fn get(&self, slot: usize) -> Option<&V> {
        Some(&self.slots.get(slot)?.entry.as_ref()?.value)
    }

    /// The value that was used least recently.
    pub(super) fn oldest(&self) -> Option<&V> {
        self.get(self.oldest?)
    }

    /// The value that was used most recently.
    pub(super) fn newest(&self) -> Option<&V> {
        self.get(self.newest?)
    }

    /// All values, in no particular order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref()).map(|entry| &entry.value)
    }

    /// Adds a value as the newest, and returns its slot. Another value with the same key stays, without the key.
    pub(super) fn insert(&mut self, key: K, value: V) -> usize {
        let entry = Some(KeyedValue { key: Some(key.clone()), value });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot].entry = entry;
                slot
            }
            None => {
                self.slots.push(RecencySlot { entry, older: None, newer: None });
                self.slots.len() - 1
            }
        };
        self.append(slot);
        if let Some(entry) = self.slots_by_key.insert(key, slot).and_then(|slot| self.slots[slot].entry.as_mut()) {
            entry.key = None;
        }
        slot
    }

    /// Makes the value the newest.
    pub(super) fn touch(&mut self, slot: usize) {
        if self.newest != Some(slot) && self.get(slot).is_some() {
            self.unlink(slot);
            self.append(slot);
        }
    }

    /// Makes the key free for another value. The value stays.
    pub(super) fn forget_key(&mut self, slot: usize) {
        let entry = self.slots.get_mut(slot).and_then(|slot| slot.entry.as_mut());
        if let Some(key) = entry.and_then(|entry| entry.key.take()) {
            self.slots_by_key.remove(&key);
        }
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<V> {
        self.forget_key(slot);
        let entry = self.slots.get_mut(slot)?.entry.take()?;
        self.unlink(slot);
        self.free.push(slot);
        Some(entry.value)
    }

    fn append(&mut self, slot: usize) {
        self.slots[slot].older = self.newest;
        self.slots[slot].newer = None;
        match self.newest.replace(slot) {
            Some(newest) => self.slots[newest].newer = Some(slot),
            None => self.oldest = Some(slot),
        }
    }

    fn unlink(&mut self, slot: usize) {
        let RecencySlot { older, newer, .. } = self.slots[slot];
        match older {
            Some(older) => self.slots[older].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.slots[newer].older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Removes all values, the oldest first.
    fn drained(mut map: RecencyMap<u8, u32>) -> Vec<u32> {
        let mut values = Vec::new();
        while let Some(slot) = map.oldest {
            values.extend(map.remove(slot));
        }
        assert_eq!((map.len(), map.newest), (0, None));
        values
    }

    #[test]
    fn values_are_ordered_by_their_last_use() {
        let mut map = RecencyMap::default();
        let slots: Vec<_> = (0..4).map(|key| map.insert(key, u32::from(key))).collect();
        map.touch(slots[1]);
        map.touch(slots[3]);
        map.touch(slots[3]);
        assert_eq!((map.oldest(), map.newest()), (Some(&0), Some(&3)));
        assert_eq!(drained(map), [0, 2, 1, 3]);
    }

    #[test]
    fn replaced_value_stays_without_its_key() {
        let mut map = RecencyMap::default();
        let first = map.insert(7, 1);
        map.forget_key(first);
        assert_eq!(map.find(&7), None);
        let second = map.insert(7, 2);
        let third = map.insert(7, 3);
        assert_eq!((map.find(&7), map.len()), (Some(third), 3));
        assert_eq!((map.remove(first), map.remove(second)), (Some(1), Some(2)));
        assert_eq!(map.find(&7), Some(third), "the removed values did not have the key any more");
        assert_eq!((map.remove(first), map.remove(third), map.find(&7)), (None, Some(3), None));
    }

    proptest! {
        /// Compares the map with a list.
        #[test]
        fn any_operations_keep_the_order(operations in proptest::collection::vec((0..3_u8, 0..6_u8), 0..60)) {
            let (mut map, mut list, mut next) = (RecencyMap::default(), Vec::<(u8, u32)>::new(), 0);
            for (operation, key) in operations {
                let position = list.iter().position(|(listed, _)| *listed == key);
                match (operation, map.find(&key)) {
                    (0, None) => {
                        map.insert(key, next);
                        list.push((key, next));
                        next += 1;
                    }
                    (1, Some(slot)) => {
                        map.touch(slot);
                        let entry = list.remove(position.unwrap());
                        list.push(entry);
                    }
                    (2, Some(slot)) => {
                        let removed = list.remove(position.unwrap()).1;
                        prop_assert_eq!(map.remove(slot), Some(removed));
                    }
                    (_, found) => prop_assert_eq!(found.is_some(), position.is_some()),
                }
                prop_assert_eq!(map.len(), list.len());
                prop_assert_eq!(map.values().count(), list.len());
            }
            let expected: Vec<u32> = list.into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(drained(map), expected);
        }
    }
}
