//! One object in the queue: the API server's copy, the verdict, and the state of its writes.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use super::back_off::WriteBackoff;
use super::write_conflict::WriteConflict;
use crate::compile::verdict::{Code, ListenerVerdict, Verdict};
use crate::k8s::Observed;

#[derive(Debug, Default)]
pub(super) struct QueueEntry {
    pub(super) seen: Option<ServerCopy>,
    pub(super) verdict: Option<Arc<Verdict>>,
    /// The uid of the object that the verdict is about, if it was seen: an object created again under the same name is
    /// another one.
    pub(super) verdict_uid: Option<Arc<str>>,
    pub(super) due: Option<Instant>,
    pub(super) in_flight: bool,
    /// Something changed while a write was in flight.
    pub(super) changed_in_flight: bool,
    /// The known copy is outdated.
    pub(super) stale: bool,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// The last failure persists until the verdict or the object changes.
    pub(super) rejected: bool,
    pub(super) back_off: WriteBackoff,
    pub(super) conflict: WriteConflict,
    /// The pending change is more than a different count of routes.
    pub(super) urgent: bool,
    pub(super) partially_stored: Option<Arc<PartiallyStored>>,
}

/// The API server's copy. The status is kept as text: there are thousands, and few are read.
#[derive(Clone, Debug)]
pub(super) struct ServerCopy {
    pub(super) uid: Arc<str>,
    pub(super) resource_version: Arc<str>,
    pub(super) generation: i64,
    pub(super) status: Arc<str>,
}

/// A status of which the API server stored only a part, as older CRDs drop fields. It is not sent again.
#[derive(Debug, PartialEq)]
pub(in crate::status) struct PartiallyStored {
    pub(in crate::status) sent: Value,
    /// The part that was stored.
    pub(in crate::status) kept: Arc<str>,
}

impl QueueEntry {
    /// The API server's copy and the verdict, if both are about the same spec of the same object. Any other verdict is
    /// not written; the next one is on its way.
    pub(super) fn comparable(&self) -> Option<(&ServerCopy, &Arc<Verdict>)> {
        let (seen, verdict) = self.seen.as_ref().zip(self.verdict.as_ref())?;
        let is_about = verdict.generation == seen.generation && !self.is_about_another(&seen.uid);
        (is_about && is_complete(verdict)).then_some((seen, verdict))
    }

    /// Whether the verdict is about another object than the one of this uid.
    pub(super) fn is_about_another(&self, uid: &str) -> bool {
        self.verdict.is_some() && self.verdict_uid.as_ref().is_some_and(|verdict_uid| **verdict_uid != *uid)
    }

    pub(super) fn is_comparable(&self) -> bool {
        self.comparable().is_some()
    }
}

impl ServerCopy {
    /// Resource versions are increasing numbers in all known API servers; others count as newer whenever they differ.
    pub(super) fn is_older_than(&self, resource_version: &str) -> bool {
        let number = |version: &str| version.parse::<u128>().ok();
        match (number(&self.resource_version), number(resource_version)) {
            (Some(known), Some(new)) => known < new,
            _ => *self.resource_version != *resource_version,
        }
    }
}

impl From<Observed> for ServerCopy {
    fn from(observed: Observed) -> Self {
        ServerCopy {
            uid: observed.uid,
            resource_version: observed.resource_version,
            generation: observed.generation,
            status: observed.status.to_string().into(),
        }
    }
}

/// The verdict on a class waits until the installed release is known: the release in its status must not disappear
/// during every start.
fn is_complete(verdict: &Verdict) -> bool {
    let has_code = |codes: [Code; 2]| verdict.conditions.iter().any(|condition| codes.contains(&condition.code));
    !has_code([Code::ClassAccepted, Code::ClassInvalidParameters])
        || has_code([Code::ClassSupportedVersion, Code::ClassUnsupportedVersion])
}

/// Whether only the counts of attached routes differ.
pub(super) fn differ_in_counts(old: &Verdict, new: &Verdict) -> bool {
    let Verdict { generation, conditions, supported_features, addresses, listeners, parents, .. } = old;
    let Verdict { ancestors, load_balancer, sockets, diagnostics, .. } = old;
    let same_listener = |(old, new): (&ListenerVerdict, &ListenerVerdict)| {
        let ListenerVerdict { name, port, attached_routes: _, supported_kinds, sockets, conditions } = old;
        (name, port, supported_kinds) == (&new.name, &new.port, &new.supported_kinds)
            && (sockets, conditions) == (&new.sockets, &new.conditions)
    };
    (generation, conditions, supported_features) == (&new.generation, &new.conditions, &new.supported_features)
        && (addresses, parents) == (&new.addresses, &new.parents)
        && (ancestors, load_balancer, sockets) == (&new.ancestors, &new.load_balancer, &new.sockets)
        && *diagnostics == new.diagnostics
        && listeners.len() == new.listeners.len()
        && listeners.iter().zip(&new.listeners).all(same_listener)
}
