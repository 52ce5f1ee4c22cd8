//! A persistent hash map: a changed copy shares everything with the original except the path to the changed entry. So a
//! change costs the same among many entries as among few. The key is part of the entry, so it is stored once.
//!
//! ```text
//!   root: Branch ─ child by the lowest 3 bits of the hash ─▶ Branch ─ by the next 3 bits ─▶ … ─▶ Leaf: few entries
//! ```
//!
//! A map with few entries is one leaf. Removals turn a branch with few entries into a leaf again.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::quality::RandomState;

/// The entry type of a map, and the key of an entry.
pub trait MapIndex {
    type Entry: Clone;
    type Key: ?Sized + Hash + Eq;

    /// The key of the entry. An entry without a key is not stored in the map.
    fn key(entry: &Self::Entry) -> Option<&Self::Key>;
}

/// The map; the index type defines its entries and keys.
pub struct PersistentMap<I: MapIndex> {
    root: MapNode<I::Entry>,
    len: usize,
    hasher: RandomState,
}

#[derive(Clone)]
enum MapNode<E> {
    Branch(Arc<[MapNode<E>; CHILDREN]>),
    Leaf(Arc<[Slot<E>]>),
}

/// An entry with the hash of its key.
#[derive(Clone)]
struct Slot<E> {
    hash: u64,
    entry: E,
}

/// The bits of the hash that select a child of a branch.
const BITS: u32 = 3;
const CHILDREN: usize = 1 << BITS;
/// A larger leaf becomes a branch. A change copies one leaf, and a leaf takes less memory for each entry the larger it
/// is.
const MAX_LEAF_LEN: usize = 24;
/// A branch with as few entries after a removal becomes a leaf. This is less than `MAX_LEAF_LEN`, so that alternating
/// insertions and removals do not convert a node each time.
const MAX_MERGED_LEN: usize = MAX_LEAF_LEN / 2;

impl<I: MapIndex> PersistentMap<I> {
    pub fn get(&self, key: impl AsRef<I::Key>) -> Option<&I::Entry> {
        if self.len == 0 {
            return None;
        }
        let key = key.as_ref();
        self.root.find::<I>(self.hasher.hash_one(key), key)
    }

    /// Inserts an entry or replaces the one with the same key. An entry without a key is ignored.
    pub fn insert(&mut self, entry: I::Entry) {
        let Some(key) = I::key(&entry) else { return };
        let hash = self.hasher.hash_one(key);
        if self.root.insert::<I>(Slot { hash, entry }, 0) {
            self.len += 1;
        }
    }

    pub fn remove(&mut self, key: impl AsRef<I::Key>) {
        let key = key.as_ref();
        let hash = self.hasher.hash_one(key);
        // Copies the path to the entry only if there is one.
        if self.root.find::<I>(hash, key).is_none() {
            return;
        }
        self.root.remove::<I>(hash, key, 0);
        self.len -= 1;
        if self.len == 0 {
            self.root = MapNode::default();
        }
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &I::Entry> {
        let mut nodes = vec![&self.root];
        let leaves = std::iter::from_fn(move || {
            loop {
                match nodes.pop()? {
                    MapNode::Branch(children) => nodes.extend(children.iter()),
                    MapNode::Leaf(slots) => return Some(&**slots),
                }
            }
        });
        leaves.flatten().map(|slot| &slot.entry)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<E: Clone> MapNode<E> {
    /// The node for these entries, which all have the same lowest `depth` bits of their hashes.
    fn of(slots: Vec<Slot<E>>, depth: u32) -> Self {
        let first = slots.first().map(|slot| slot.hash);
        // Entries of equal hashes cannot be distributed.
        if slots.len() <= MAX_LEAF_LEN || slots.iter().all(|slot| Some(slot.hash) == first) {
            return MapNode::Leaf(slots.into());
        }
        let mut children: [Vec<Slot<E>>; CHILDREN] = Default::default();
        for slot in slots {
            children[child_index(slot.hash, depth)].push(slot);
        }
        MapNode::Branch(Arc::new(children.map(|slots| MapNode::of(slots, depth + BITS))))
    }

    fn find<I: MapIndex<Entry = E>>(&self, hash: u64, key: &I::Key) -> Option<&E> {
        self.leaf(hash).iter().find(|slot| slot.has_key::<I>(hash, key)).map(|slot| &slot.entry)
    }

    /// The leaf that would contain an entry with this hash.
    fn leaf(&self, hash: u64) -> &[Slot<E>] {
        let (mut node, mut remaining) = (self, hash);
        loop {
            match node {
                MapNode::Branch(children) => node = &children[child_index(remaining, 0)],
                MapNode::Leaf(slots) => return slots,
            }
            remaining >>= BITS;
        }
    }

    /// Returns whether the entry was added; otherwise, it replaced the one with the same key.
    fn insert<I: MapIndex<Entry = E>>(&mut self, slot: Slot<E>, depth: u32) -> bool {
        let slots = match self {
            MapNode::Branch(children) => {
                let child = &mut Arc::make_mut(children)[child_index(slot.hash, depth)];
                return child.insert::<I>(slot, depth + BITS);
            }
            MapNode::Leaf(slots) => slots,
        };
        let key = I::key(&slot.entry);
        let position = slots.iter().position(|stored| stored.hash == slot.hash && I::key(&stored.entry) == key);
        if let Some(position) = position {
            Arc::make_mut(slots)[position] = slot;
            return false;
        }
        let all = slots.iter().cloned().chain([slot]);
        *self =
            if slots.len() < MAX_LEAF_LEN { MapNode::Leaf(all.collect()) } else { MapNode::of(all.collect(), depth) };
        true
    }

    fn remove<I: MapIndex<Entry = E>>(&mut self, hash: u64, key: &I::Key, depth: u32) {
        match self {
            MapNode::Branch(children) => {
                let children = Arc::make_mut(children);
                children[child_index(hash, depth)].remove::<I>(hash, key, depth + BITS);
                if let Some(leaf) = MapNode::merged(children) {
                    *self = leaf;
                }
            }
            MapNode::Leaf(slots) => {
                *slots = slots.iter().filter(|slot| !slot.has_key::<I>(hash, key)).cloned().collect();
            }
        }
    }

    /// One leaf with the entries of these children, if all of them are leaves and have few entries together. A child
    /// that is a branch has more: the removal that left it with as few has replaced it with a leaf.
    fn merged(children: &[MapNode<E>; CHILDREN]) -> Option<MapNode<E>> {
        let len = children.iter().map(|child| child.slots().map(<[Slot<E>]>::len)).sum::<Option<usize>>()?;
        if len > MAX_MERGED_LEN {
            return None;
        }
        Some(MapNode::Leaf(children.iter().filter_map(MapNode::slots).flatten().cloned().collect()))
    }

    /// The entries of a leaf.
    fn slots(&self) -> Option<&[Slot<E>]> {
        match self {
            MapNode::Branch(_) => None,
            MapNode::Leaf(slots) => Some(slots),
        }
    }
}

impl<E> Slot<E> {
    fn has_key<I: MapIndex<Entry = E>>(&self, hash: u64, key: &I::Key) -> bool {
        self.hash == hash && I::key(&self.entry) == Some(key)
    }
}

/// The child of a branch at this depth, in bits.
fn child_index(hash: u64, depth: u32) -> usize {
    hash.unbounded_shr(depth) as usize & (CHILDREN - 1)
}

impl<E> Default for MapNode<E> {
    fn default() -> Self {
        MapNode::Leaf(Arc::from([]))
    }
}

impl<I: MapIndex> Default for PersistentMap<I> {
    fn default() -> Self {
        PersistentMap { root: MapNode::default(), len: 0, hasher: RandomState::default() }
    }
}

impl<I: MapIndex> Clone for PersistentMap<I> {
    fn clone(&self) -> Self {
        PersistentMap { root: self.root.clone(), len: self.len, hasher: self.hasher.clone() }
    }
}

impl<I: MapIndex<Entry: fmt::Debug>> fmt::Debug for PersistentMap<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::{any, proptest};

    use super::*;

    /// An index of numbers by name.
    struct Numbers;

    impl MapIndex for Numbers {
        type Entry = (String, usize);
        type Key = [u8];

        fn key((name, _): &(String, usize)) -> Option<&[u8]> {
            (!name.is_empty()).then_some(name.as_bytes())
        }
    }

    fn numbers(count: usize) -> PersistentMap<Numbers> {
        let mut map = PersistentMap::default();
        (0..count).for_each(|number| map.insert((number.to_string(), number)));
        map
    }

    fn number(map: &PersistentMap<Numbers>, key: &str) -> Option<usize> {
        map.get(key).map(|(_, number)| *number)
    }

    /// The addresses of all nodes.
    fn nodes(map: &PersistentMap<Numbers>) -> BTreeSet<usize> {
        fn add<E>(node: &MapNode<E>, addresses: &mut BTreeSet<usize>) {
            addresses.insert(match node {
                MapNode::Branch(children) => Arc::as_ptr(children).addr(),
                MapNode::Leaf(slots) => Arc::as_ptr(slots).addr(),
            });
            if let MapNode::Branch(children) = node {
                children.iter().for_each(|child| add(child, addresses));
            }
        }
        let mut addresses = BTreeSet::new();
        add(&map.root, &mut addresses);
        addresses
    }

    #[test]
    fn changes_do_not_affect_the_original_map() {
        let before = numbers(1000);
        let mut after = before.clone();
        after.insert(("7".to_owned(), 8));
        after.insert((String::new(), 9));
        after.remove("9");
        after.remove("no such key");
        assert_eq!((number(&before, "7"), number(&before, "9"), before.len()), (Some(7), Some(9), 1000));
        assert_eq!((number(&after, "7"), number(&after, "9"), after.len()), (Some(8), None, 999));
        assert_eq!(after.iter().map(|(_, number)| number).sum::<usize>(), 999 * 500 - 9 + 1);
    }

    /// Otherwise a change would copy more the more entries there are.
    #[test]
    fn change_copies_one_leaf_and_the_branches_above() {
        for (count, max_depth) in [(10, 1), (1_000, 4), (100_000, 7)] {
            let before = numbers(count);
            let mut after = before.clone();
            after.insert(("7".to_owned(), 8));
            let copied = nodes(&after).difference(&nodes(&before)).count();
            assert!(copied <= max_depth, "{copied} nodes were copied among {count} entries");
        }
    }

    #[test]
    fn all_entries_are_found_and_removed() {
        let mut map = numbers(20_000);
        assert!((0..20_000).all(|key| number(&map, &key.to_string()) == Some(key)));
        assert_eq!((map.len(), map.iter().count(), number(&map, "20000")), (20_000, 20_000, None));
        (0..20_000).rev().for_each(|key| map.remove(key.to_string()));
        assert!(map.is_empty() && map.iter().next().is_none() && nodes(&map).len() == 1);
        map.remove("1");
        assert_eq!((map.len(), number(&map, "1")), (0, None));
    }

    /// Otherwise the memory of a map would be that of its most entries so far, and `iter` would visit that many nodes.
    #[test]
    fn nodes_of_removed_entries_are_merged() {
        let mut map = numbers(20_000);
        let before = map.clone();
        (100..20_000).for_each(|key| map.remove(key.to_string()));
        // 100 entries are usually in a root with eight branches of eight leaves.
        assert!(nodes(&map).len() <= 120, "{} nodes have {} entries", nodes(&map).len(), map.len());
        assert!((0..100).all(|key| number(&map, &key.to_string()) == Some(key)));
        (MAX_MERGED_LEN..100).for_each(|key| map.remove(key.to_string()));
        assert_eq!((nodes(&map).len(), map.len(), map.iter().count()), (1, MAX_MERGED_LEN, MAX_MERGED_LEN));
        assert!((0..MAX_MERGED_LEN).all(|key| number(&map, &key.to_string()) == Some(key)));
        assert_eq!((before.len(), before.iter().count()), (20_000, 20_000), "the original map is as before");
        (0..1000).for_each(|key| map.insert((key.to_string(), key)));
        assert!((0..1000).all(|key| number(&map, &key.to_string()) == Some(key)) && map.len() == 1000);
    }

    #[test]
    fn few_entries_are_one_leaf() {
        let mut map = numbers(MAX_LEAF_LEN);
        (0..MAX_LEAF_LEN).for_each(|key| map.insert((key.to_string(), key)));
        assert_eq!((nodes(&map).len(), map.len(), map.is_empty()), (1, MAX_LEAF_LEN, false));
    }

    /// Otherwise they would be distributed forever.
    #[test]
    fn entries_with_equal_hashes_share_a_leaf() {
        let slot = |number: usize, hash: u64| Slot { hash, entry: (number.to_string(), number) };
        let mut node = MapNode::of((0..40).map(|number| slot(number, 7)).collect(), 0);
        assert!(matches!(&node, MapNode::Leaf(slots) if slots.len() == 40));
        // The highest bit is the only difference.
        assert!(node.insert::<Numbers>(slot(40, 7 | 1 << 63), 0));
        assert!(node.insert::<Numbers>(slot(41, 7), 0) && !node.insert::<Numbers>(slot(41, 7), 0));
        assert_eq!((node.leaf(7).len(), node.leaf(7 | 1 << 63).len()), (41, 1));
    }

    proptest! {
        /// After each step, the map has the same entries as one of the standard library. Each step inserts or removes
        /// a range of keys, so that the map often grows and shrinks by many nodes.
        #[test]
        fn entries_are_those_of_a_standard_map(
            steps in proptest::collection::vec((any::<bool>(), 0..400_usize, 0..400_usize), 1..12),
        ) {
            let (mut map, mut expected) = (PersistentMap::<Numbers>::default(), BTreeMap::new());
            for (step, (inserts, start, count)) in steps.into_iter().enumerate() {
                let (before, expected_before) = (map.clone(), expected.clone());
                for key in start..start + count {
                    let name = key.to_string();
                    if inserts {
                        map.insert((name.clone(), step));
                        expected.insert(name, step);
                    } else {
                        map.remove(&name);
                        expected.remove(&name);
                    }
                }
                for (map, expected) in [(&map, &expected), (&before, &expected_before)] {
                    assert_eq!(map.iter().cloned().collect::<BTreeMap<_, _>>(), *expected);
                    assert_eq!(map.len(), expected.len());
                    assert!(expected.iter().all(|(name, step)| number(map, name) == Some(*step)));
                }
                assert!(map.len() > MAX_MERGED_LEN || nodes(&map).len() == 1);
            }
        }
    }
}
