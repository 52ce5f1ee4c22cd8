//! A kind whose statuses Portico is not permitted to write. A missing permission is not granted within seconds, so one
//! object retries for its whole kind, and the other objects wait until that write is permitted.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::ObjectId;

#[derive(Debug)]
pub(super) struct ForbiddenKind {
    next_attempt: Instant,
    waiting: BTreeSet<ObjectId>,
    /// The object that is being retried.
    retrying: Option<ObjectId>,
}

impl ForbiddenKind {
    pub(super) fn new(now: Instant) -> Self {
        ForbiddenKind { next_attempt: now + FORBIDDEN_RETRY, waiting: BTreeSet::new(), retrying: None }
    }

    /// Delays the next attempt after an attempt was forbidden.
    pub(super) fn delay_next_attempt(&mut self, now: Instant) {
        self.next_attempt = now + FORBIDDEN_RETRY;
    }

    /// Lets an object wait.
    pub(super) fn add(&mut self, id: ObjectId) {
        self.waiting.insert(id);
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        self.waiting.remove(id);
        self.attempt_ended(id);
    }

    /// Records that the attempt with this object has ended, whatever its result is. Ignored if the attempt is with
    /// another object.
    pub(super) fn attempt_ended(&mut self, id: &ObjectId) {
        if self.retrying.as_ref() == Some(id) {
            self.retrying = None;
        }
    }

    /// When the next attempt is due; None during an attempt, or if no object waits.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.retrying.is_none() && !self.waiting.is_empty()).then_some(self.next_attempt)
    }

    /// Starts the next attempt: takes one of the waiting objects.
    pub(super) fn next(&mut self) -> Option<ObjectId> {
        let id = self.waiting.pop_first()?;
        self.retrying = Some(id.clone());
        Some(id)
    }

    pub(super) fn is_retrying(&self, id: &ObjectId) -> bool {
        self.retrying.as_ref() == Some(id)
    }

    /// All objects that waited.
    pub(super) fn into_waiting(self) -> BTreeSet<ObjectId> {
        self.waiting
    }
}

pub(super) const FORBIDDEN_RETRY: Duration = Duration::from_secs(30);
