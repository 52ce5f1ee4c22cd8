//! What a watch has seen: the objects of one kind, complete from the first list on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use crate::api::ObjectKey;

/// Objects of one kind. Several watches may fill it, each with a namespace of its own.
#[derive(Debug)]
pub(super) struct Table<T> {
    items: BTreeMap<ObjectKey, Arc<T>>,
    /// Watches that have not listed everything yet.
    unlisted: BTreeSet<usize>,
    /// What each watch is listing right now.
    listing: BTreeMap<usize, BTreeMap<ObjectKey, Arc<T>>>,
    /// Which watch knows an object.
    seen_by: BTreeMap<ObjectKey, usize>,
    /// The highest version that each watch has told of, deletions included.
    newest: BTreeMap<usize, u64>,
}

impl<T: PartialEq> Table<T> {
    /// To be filled by this many watches, with numbers from 0.
    pub(super) fn of(watches: usize) -> Self {
        Table {
            items: BTreeMap::new(),
            unlisted: (0..watches).collect(),
            listing: BTreeMap::new(),
            seen_by: BTreeMap::new(),
            newest: BTreeMap::new(),
        }
    }

    /// A watch has come to this version of anything.
    pub(super) fn came_to(&mut self, watch: usize, version: &str) {
        if let Ok(version) = version.parse::<u64>() {
            let newest = self.newest.entry(watch).or_default();
            *newest = version.max(*newest);
        }
    }

    /// Whether a watch has told already of this version, or of what came after it. Versions that are not numbers, as those
    /// of all API servers there are, are news.
    pub(super) fn is_past(&self, watch: usize, version: &str) -> bool {
        version.parse().is_ok_and(|version: u64| self.newest.get(&watch).is_some_and(|newest| version <= *newest))
    }

    pub(super) fn items(&self) -> &BTreeMap<ObjectKey, Arc<T>> {
        &self.items
    }

    /// Everything was listed once.
    pub(super) fn is_complete(&self) -> bool {
        self.unlisted.is_empty()
    }

    /// A watch cannot list, and others must not wait for it.
    pub(super) fn give_up(&mut self, watch: usize) -> bool {
        self.unlisted.remove(&watch)
    }

    /// Takes an event over and says whether that changed anything. `read` gives the key and what is kept of an object, None
    /// if that is nothing.
    pub(super) fn take<K>(
        &mut self,
        watch: usize,
        event: Event<K>,
        key: impl Fn(&K) -> Option<ObjectKey>,
        read: impl Fn(&K) -> Option<T>,
    ) -> bool {
        match event {
            Event::Init => {
                self.listing.insert(watch, BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                if let (Some(key), Some(item)) = (key(&object), read(&object)) {
                    self.listing.entry(watch).or_default().insert(key, Arc::new(item));
                }
                false
            }
            Event::InitDone => {
                let listed = self.listing.remove(&watch).unwrap_or_default();
                let of_watch = self.seen_by.iter().filter(|(_, seen_by)| **seen_by == watch);
                let gone: Vec<_> =
                    of_watch.map(|(key, _)| key).filter(|key| !listed.contains_key(*key)).cloned().collect();
                let mut changed = self.unlisted.remove(&watch);
                for key in gone {
                    changed |= self.remove(&key);
                }
                for (key, item) in listed {
                    changed |= self.put(watch, key, item);
                }
                changed
            }
            Event::Apply(object) => match (key(&object), read(&object)) {
                (Some(key), Some(item)) => self.put(watch, key, Arc::new(item)),
                (Some(key), None) => self.remove(&key),
                (None, _) => false,
            },
            Event::Delete(object) => key(&object).is_some_and(|key| self.remove(&key)),
        }
    }

    fn put(&mut self, watch: usize, key: ObjectKey, item: Arc<T>) -> bool {
        self.seen_by.insert(key.clone(), watch);
        let before = self.items.insert(key, item.clone());
        before.is_none_or(|before| before != item)
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.seen_by.remove(key);
        self.items.remove(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(table: &mut Table<u8>, watch: usize, event: Event<(&str, u8)>) -> bool {
        let key =
            |object: &(&str, u8)| object.0.split_once('/').map(|(namespace, name)| ObjectKey::new(namespace, name));
        // Zero stands for an object that is not ours.
        table.take(watch, event, key, |object| Some(object.1).filter(|value| *value > 0))
    }

    fn listed(table: &Table<u8>) -> Vec<String> {
        table.items().iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn lists_replace_what_the_same_watch_saw_before() {
        use Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut table = Table::of(2);
        for event in [Init, InitApply(("a/x", 1)), InitApply(("a/y", 1)), InitApply(("a/foreign", 0))] {
            assert!(!take(&mut table, 0, event), "nothing is seen of a list before it is whole");
        }
        assert!(take(&mut table, 0, InitDone));
        assert!(!table.is_complete());
        assert!(!take(&mut table, 1, Init));
        assert!(!take(&mut table, 1, InitApply(("b/x", 1))));
        assert!(take(&mut table, 1, InitDone) && table.is_complete());
        assert!(!take(&mut table, 1, Apply(("b/x", 1))), "the same again");
        assert!(take(&mut table, 1, Apply(("b/y", 2))));
        assert!(!take(&mut table, 0, Init));
        assert!(!take(&mut table, 0, InitApply(("a/y", 3))));
        assert_eq!(listed(&table), ["a/x=1", "a/y=1", "b/x=1", "b/y=2"], "a list that begins takes nothing away");
        assert!(take(&mut table, 0, InitDone));
        assert_eq!(listed(&table), ["a/y=3", "b/x=1", "b/y=2"]);
        assert!(take(&mut table, 1, Delete(("b/x", 1))) && take(&mut table, 1, Apply(("b/y", 0))));
        assert!(!take(&mut table, 1, Delete(("b/x", 1))) && !take(&mut table, 1, Apply(("nonsense", 1))));
        assert_eq!(listed(&table), ["a/y=3"]);
    }

    #[test]
    fn a_watch_that_is_not_allowed_is_not_waited_for() {
        let mut table: Table<u8> = Table::of(1);
        assert!(table.give_up(0) && table.is_complete() && !table.give_up(0));
    }
}
