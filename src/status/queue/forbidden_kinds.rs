//! Kinds whose status may not be written. A missing permission is not granted within seconds, so one object retries for
//! its whole kind, and the others wait until that succeeds.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::ObjectId;

#[derive(Debug)]
pub(super) struct ForbiddenKind {
    until: Instant,
    waiting: BTreeSet<ObjectId>,
    /// The object that is being retried.
    trying: Option<ObjectId>,
}

impl ForbiddenKind {
    pub(super) fn new(now: Instant) -> Self {
        ForbiddenKind { until: now + FORBIDDEN_RETRY, waiting: BTreeSet::new(), trying: None }
    }

    /// Another attempt was forbidden.
    pub(super) fn refused(&mut self, now: Instant) {
        self.until = now + FORBIDDEN_RETRY;
    }

    pub(super) fn add(&mut self, id: ObjectId) {
        self.waiting.insert(id);
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        self.waiting.remove(id);
        self.attempt_ended(id);
    }

    /// An attempt ended, with any result.
    pub(super) fn attempt_ended(&mut self, id: &ObjectId) {
        if self.trying.as_ref() == Some(id) {
            self.trying = None;
        }
    }

    /// When the next attempt is due; None during an attempt, or if no object waits.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.trying.is_none() && !self.waiting.is_empty()).then_some(self.until)
    }

    /// The object for the next attempt.
    pub(super) fn next(&mut self) -> Option<ObjectId> {
        let id = self.waiting.pop_first()?;
        self.trying = Some(id.clone());
        Some(id)
    }

    pub(super) fn is_trying(&self, id: &ObjectId) -> bool {
        self.trying.as_ref() == Some(id)
    }

    /// All objects that waited.
    pub(super) fn into_waiting(self) -> BTreeSet<ObjectId> {
        self.waiting
    }
}

pub(super) const FORBIDDEN_RETRY: Duration = Duration::from_secs(30);
