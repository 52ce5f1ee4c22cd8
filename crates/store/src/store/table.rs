//! All objects of one kind, in the order of their keys, so that iteration is deterministic.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use crate::api::{Object, ObjectKey};

/// A set of objects ordered by the keys in their metadata. A map would hold a second copy of each key.
pub struct ObjectTable<T>(BTreeSet<ObjectByKey<T>>);

struct ObjectByKey<T>(Arc<Object<T>>);

impl<T> ObjectTable<T> {
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Object<T>>> {
        self.0.get(key).map(|entry| &entry.0)
    }

    pub fn contains_key(&self, key: &ObjectKey) -> bool {
        self.0.contains(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.values().map(|object| &object.meta.key)
    }

    pub fn values(&self) -> impl Iterator<Item = &Arc<Object<T>>> {
        self.0.iter().map(|entry| &entry.0)
    }

    /// The objects whose key is greater than or equal to this one.
    pub fn starting_at<'t>(&'t self, key: &ObjectKey) -> impl Iterator<Item = &'t Arc<Object<T>>> + use<'t, T> {
        self.0.range::<ObjectKey, _>(key..).map(|entry| &entry.0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Inserts an object, or replaces the one with the same key.
    pub(super) fn insert(&mut self, object: Arc<Object<T>>) {
        self.0.replace(ObjectByKey(object));
    }

    /// Returns whether the object existed.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.0.remove(key)
    }

    /// Rebuilds the set to save memory: nodes of a set that is collected at once are full, but those of a set that grew
    /// in key order are half empty.
    pub(super) fn compact(&mut self) {
        self.0 = std::mem::take(&mut self.0).into_iter().collect();
    }
}

impl<T> Index<&ObjectKey> for ObjectTable<T> {
    type Output = Arc<Object<T>>;

    fn index(&self, key: &ObjectKey) -> &Arc<Object<T>> {
        self.get(key).unwrap_or_else(|| panic!("no object with key {key}"))
    }
}

impl<T> Default for ObjectTable<T> {
    fn default() -> Self {
        ObjectTable(BTreeSet::new())
    }
}

impl<T: fmt::Debug> fmt::Debug for ObjectTable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.values()).finish()
    }
}

impl<T> Borrow<ObjectKey> for ObjectByKey<T> {
    fn borrow(&self) -> &ObjectKey {
        &self.0.meta.key
    }
}

impl<T> PartialEq for ObjectByKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.meta.key == other.0.meta.key
    }
}

impl<T> Eq for ObjectByKey<T> {}

impl<T> PartialOrd for ObjectByKey<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for ObjectByKey<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.meta.key.cmp(&other.0.meta.key)
    }
}
