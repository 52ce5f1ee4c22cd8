//! Kinds whose status we may not write. Nobody is given a permission every few seconds, so one object tries for all of its
//! kind, and the others wait until it succeeds.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::ObjectId;

#[derive(Debug)]
pub(super) struct Bar {
    until: Instant,
    waiting: BTreeSet<ObjectId>,
    /// It is being tried.
    trying: Option<ObjectId>,
}

impl Bar {
    pub(super) fn new(now: Instant) -> Self {
        Bar { until: now + FORBIDDEN, waiting: BTreeSet::new(), trying: None }
    }

    /// It was refused once more.
    pub(super) fn refused(&mut self, now: Instant) {
        self.until = now + FORBIDDEN;
    }

    pub(super) fn put(&mut self, id: ObjectId) {
        self.waiting.insert(id);
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        self.waiting.remove(id);
        self.ended(id);
    }

    /// An attempt is over, whatever came of it.
    pub(super) fn ended(&mut self, id: &ObjectId) {
        if self.trying.as_ref() == Some(id) {
            self.trying = None;
        }
    }

    /// When there is something to try; None while something is, or if nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.trying.is_none() && !self.waiting.is_empty()).then_some(self.until)
    }

    /// The one that tries.
    pub(super) fn next(&mut self) -> Option<ObjectId> {
        let id = self.waiting.pop_first()?;
        self.trying = Some(id.clone());
        Some(id)
    }

    pub(super) fn is_trying(&self, id: &ObjectId) -> bool {
        self.trying.as_ref() == Some(id)
    }

    /// All that waited.
    pub(super) fn lift(self) -> BTreeSet<ObjectId> {
        self.waiting
    }
}

pub(super) const FORBIDDEN: Duration = Duration::from_secs(30);
