//! All objects of one kind, in the order of their keys: whoever iterates gets the same order every time.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use crate::api::{Object, ObjectKey};

/// An object is found by the key that it has itself, so that no key is in memory twice.
pub struct Table<T>(BTreeSet<Keyed<T>>);

struct Keyed<T>(Arc<Object<T>>);

impl<T> Table<T> {
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Object<T>>> {
        self.0.get(key).map(|keyed| &keyed.0)
    }

    pub fn contains_key(&self, key: &ObjectKey) -> bool {
        self.0.contains(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.values().map(|object| &object.meta.key)
    }

    pub fn values(&self) -> impl Iterator<Item = &Arc<Object<T>>> {
        self.0.iter().map(|keyed| &keyed.0)
    }

    /// Those whose key is this one or comes after it.
    pub fn starting_at(&self, key: &ObjectKey) -> impl Iterator<Item = &Arc<Object<T>>> {
        self.0.range::<ObjectKey, _>(key..).map(|keyed| &keyed.0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In place of the one with the same key.
    pub(super) fn insert(&mut self, object: Arc<Object<T>>) {
        self.0.replace(Keyed(object));
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.0.remove(key)
    }

    /// Made in one go, a set has no room between its entries; one that grew in order is half empty.
    pub(super) fn compact(&mut self) {
        self.0 = std::mem::take(&mut self.0).into_iter().collect();
    }
}

impl<T> Index<&ObjectKey> for Table<T> {
    type Output = Arc<Object<T>>;

    fn index(&self, key: &ObjectKey) -> &Arc<Object<T>> {
        self.get(key).unwrap_or_else(|| panic!("there is no {key}"))
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(BTreeSet::new())
    }
}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.values()).finish()
    }
}

impl<T> Borrow<ObjectKey> for Keyed<T> {
    fn borrow(&self) -> &ObjectKey {
        &self.0.meta.key
    }
}

impl<T> PartialEq for Keyed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.meta.key == other.0.meta.key
    }
}

impl<T> Eq for Keyed<T> {}

impl<T> PartialOrd for Keyed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Keyed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.meta.key.cmp(&other.0.meta.key)
    }
}
