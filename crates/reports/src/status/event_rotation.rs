//! The order of due events: the namespaces take turns, so that many events of one namespace do not delay those of
//! others.
//!
//! ```text
//!   waiting ──the time of the first event comes──▶ ready ──take, in turn──▶ the first event of the namespace
//!      ▲                                             │
//!      └────────────the next event is later──────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use crate::api::ObjectId;

/// When an event of each object is due, by namespace. Cluster-scoped objects count as one namespace.
#[derive(Debug, Default)]
pub(super) struct EventRotation {
    /// Never an empty set.
    by_namespace: BTreeMap<Arc<str>, BTreeSet<(Instant, ObjectId)>>,
    /// The namespaces that are not in `ready`, with the time of their first event.
    waiting: BTreeSet<(Instant, Arc<str>)>,
    /// The namespaces whose first event was due at the last call of `next_time`.
    ready: BTreeSet<Arc<str>>,
    /// The namespace whose turn was last.
    last: Arc<str>,
}

impl EventRotation {
    /// Adds an object that is not contained yet.
    pub(super) fn insert(&mut self, at: Instant, id: ObjectId) {
        let namespace = id.key.namespace.clone();
        self.change(&namespace, |events| {
            events.insert((at, id));
        });
    }

    /// Removes an object that was added with this time.
    pub(super) fn remove(&mut self, at: Instant, id: &ObjectId) {
        self.change(&id.key.namespace, |events| {
            events.remove(&(at, id.clone()));
        });
    }

    pub(super) fn clear(&mut self) {
        *self = EventRotation { last: self.last.clone(), ..EventRotation::default() };
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// When `take` returns an object; not after `now` if it does now. `None` if there is none.
    pub(super) fn next_time(&mut self, now: Instant) -> Option<Instant> {
        while self.waiting.first().is_some_and(|(at, _)| *at <= now) {
            self.ready.extend(self.waiting.pop_first().map(|(_, namespace)| namespace));
        }
        if self.ready.is_empty() { self.waiting.first().map(|(at, _)| *at) } else { Some(now) }
    }

    /// Removes the object whose event is next. `None` if `next_time` did not return the current time.
    pub(super) fn take(&mut self, now: Instant) -> Option<ObjectId> {
        let after_last = (Bound::Excluded(&self.last), Bound::Unbounded);
        let namespace = self.ready.range::<Arc<str>, _>(after_last).next().or_else(|| self.ready.first())?.clone();
        let (at, id) = self.by_namespace.get(&namespace)?.first()?.clone();
        self.last = namespace;
        self.remove(at, &id);
        // Its next event may be later.
        let namespace = &id.key.namespace;
        if let Some((next, _)) = self.by_namespace.get(namespace).and_then(BTreeSet::first)
            && *next > now
            && self.ready.remove(namespace)
        {
            self.waiting.insert((*next, namespace.clone()));
        }
        Some(id)
    }

    /// Changes the events of a namespace, and keeps the time in `waiting` right.
    fn change(&mut self, namespace: &Arc<str>, change: impl FnOnce(&mut BTreeSet<(Instant, ObjectId)>)) {
        let events = self.by_namespace.entry(namespace.clone()).or_default();
        let before = events.first().map(|(at, _)| *at);
        change(events);
        let after = events.first().map(|(at, _)| *at);
        if after.is_none() {
            self.by_namespace.remove(namespace);
            self.ready.remove(namespace);
        }
        if self.ready.contains(namespace) || before == after {
            return;
        }
        if let Some(before) = before {
            self.waiting.remove(&(before, namespace.clone()));
        }
        if let Some(after) = after {
            self.waiting.insert((after, namespace.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::{Kind, ObjectKey};

    fn id(namespace: &str, name: &str) -> ObjectId {
        ObjectId::new(Kind::HttpRoute, ObjectKey::new(namespace, name))
    }

    /// All objects that are due, in order.
    fn take_all(rotation: &mut EventRotation, now: Instant) -> Vec<String> {
        let mut taken = Vec::new();
        while rotation.next_time(now).is_some_and(|at| at <= now) {
            taken.push(rotation.take(now).unwrap().key.to_string());
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns() {
        let now = Instant::now();
        let mut rotation = EventRotation::default();
        for (namespace, names) in [("a", ["1", "2", "3"].as_slice()), ("b", &["1"]), ("c", &["1", "2"])] {
            for name in names {
                rotation.insert(now, id(namespace, name));
            }
        }
        assert_eq!(take_all(&mut rotation, now), ["a/1", "b/1", "c/1", "a/2", "c/2", "a/3"]);
        assert!(rotation.is_empty() && rotation.waiting.is_empty() && rotation.ready.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_not_due_before_their_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut rotation = EventRotation::default();
        rotation.insert(later, id("a", "late"));
        assert_eq!(rotation.next_time(now), Some(later));
        rotation.insert(now, id("a", "early"));
        rotation.insert(later, id("b", "late"));
        assert_eq!(take_all(&mut rotation, now), ["a/early"]);
        assert_eq!(rotation.next_time(now), Some(later));
        rotation.remove(later, &id("a", "late"));
        assert_eq!(take_all(&mut rotation, later), ["b/late"]);
        assert_eq!(rotation.next_time(later), None);

        rotation.insert(now, id("a", "gone"));
        assert_eq!(rotation.next_time(now), Some(now));
        rotation.remove(now, &id("a", "gone"));
        assert_eq!((rotation.next_time(now), rotation.take(now)), (None, None));
        rotation.insert(later, id("a", "again"));
        rotation.clear();
        assert!(rotation.is_empty() && rotation.next_time(later).is_none());
    }
}
