//! The observed objects of one kind, complete after the first list of every watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use crate::api::ObjectKey;

/// Objects of one kind, filled by one watch of all namespaces or by one for each namespace.
#[derive(Debug)]
pub(super) struct ObservedObjects<T> {
    items: BTreeMap<ObjectKey, Arc<T>>,
    /// Watches that have not listed everything yet.
    unlisted: BTreeSet<usize>,
    /// Objects of the list that each watch is receiving.
    listing: BTreeMap<usize, BTreeMap<ObjectKey, Arc<T>>>,
    /// The watch that reported each object.
    seen_by: BTreeMap<ObjectKey, usize>,
    /// The highest resource version that each watch has reported, including those of deletions.
    newest_version: BTreeMap<usize, u64>,
}

impl<T: PartialEq> ObservedObjects<T> {
    /// An empty table for this number of watches, which are numbered from 0.
    pub(super) fn new(watches: usize) -> Self {
        ObservedObjects {
            items: BTreeMap::new(),
            unlisted: (0..watches).collect(),
            listing: BTreeMap::new(),
            seen_by: BTreeMap::new(),
            newest_version: BTreeMap::new(),
        }
    }

    /// Records the resource version of an object that a watch has reported.
    pub(super) fn record_version(&mut self, watch: usize, version: &str) {
        if let Ok(version) = version.parse::<u64>() {
            let newest = self.newest_version.entry(watch).or_default();
            *newest = version.max(*newest);
        }
    }

    /// Whether a watch has reported this resource version or a later one. False for a version that is not a number; no
    /// known API server sends one.
    pub(super) fn has_reached(&self, watch: usize, version: &str) -> bool {
        version
            .parse()
            .is_ok_and(|version: u64| self.newest_version.get(&watch).is_some_and(|newest| version <= *newest))
    }

    pub(super) fn items(&self) -> &BTreeMap<ObjectKey, Arc<T>> {
        &self.items
    }

    /// Whether everything was listed once.
    pub(super) fn is_complete(&self) -> bool {
        self.unlisted.is_empty()
    }

    /// Does not wait any longer for the list of a watch without permission. Returns whether that changes anything.
    pub(super) fn give_up(&mut self, watch: usize) -> bool {
        self.unlisted.remove(&watch)
    }

    /// Applies an event and returns whether anything changed. `read` returns what is kept of an object, or None.
    pub(super) fn apply_event<K>(
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

    fn apply(table: &mut ObservedObjects<u8>, watch: usize, event: Event<(&str, u8)>) -> bool {
        let key =
            |object: &(&str, u8)| object.0.split_once('/').map(|(namespace, name)| ObjectKey::new(namespace, name));
        // Zero stands for an irrelevant object.
        table.apply_event(watch, event, key, |object| Some(object.1).filter(|value| *value > 0))
    }

    fn listed(table: &ObservedObjects<u8>) -> Vec<String> {
        table.items().iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn lists_replace_objects_of_the_same_watch() {
        use Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut table = ObservedObjects::new(2);
        for event in [Init, InitApply(("a/x", 1)), InitApply(("a/y", 1)), InitApply(("a/foreign", 0))] {
            assert!(!apply(&mut table, 0, event), "an unfinished list changes nothing");
        }
        assert!(apply(&mut table, 0, InitDone));
        assert!(!table.is_complete());
        assert!(!apply(&mut table, 1, Init));
        assert!(!apply(&mut table, 1, InitApply(("b/x", 1))));
        assert!(apply(&mut table, 1, InitDone) && table.is_complete());
        assert!(!apply(&mut table, 1, Apply(("b/x", 1))), "nothing changed");
        assert!(apply(&mut table, 1, Apply(("b/y", 2))));
        assert!(!apply(&mut table, 0, Init));
        assert!(!apply(&mut table, 0, InitApply(("a/y", 3))));
        assert_eq!(listed(&table), ["a/x=1", "a/y=1", "b/x=1", "b/y=2"], "a started list removes nothing");
        assert!(apply(&mut table, 0, InitDone));
        assert_eq!(listed(&table), ["a/y=3", "b/x=1", "b/y=2"]);
        assert!(apply(&mut table, 1, Delete(("b/x", 1))) && apply(&mut table, 1, Apply(("b/y", 0))));
        assert!(!apply(&mut table, 1, Delete(("b/x", 1))) && !apply(&mut table, 1, Apply(("nonsense", 1))));
        assert_eq!(listed(&table), ["a/y=3"]);
    }

    #[test]
    fn forbidden_watches_are_not_waited_for() {
        let mut table: ObservedObjects<u8> = ObservedObjects::new(1);
        assert!(table.give_up(0) && table.is_complete() && !table.give_up(0));
    }
}
