//! One object on the desk: what the API server has of it, what we think of it, and how writing it has gone.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use super::contest::Contest;
use super::pace::Pace;
use crate::compile::verdict::{Code, ListenerVerdict, Verdict};
use crate::k8s::Observed;

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) seen: Option<Seen>,
    pub(super) verdict: Option<Arc<Verdict>>,
    /// The object that the verdict is about, if that was seen: one that is made anew under its name is another one.
    pub(super) judged: Option<Arc<str>>,
    pub(super) due: Option<Instant>,
    pub(super) in_flight: bool,
    /// Something changed while it was in flight.
    pub(super) again: bool,
    /// What was seen is known to be old.
    pub(super) stale: bool,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// The last of them will not pass by itself, only with another verdict or another object.
    pub(super) refused: bool,
    pub(super) pace: Pace,
    pub(super) contest: Contest,
    /// What is to be told is more than another count of routes.
    pub(super) urgent: bool,
    pub(super) clipped: Option<Arc<Clipped>>,
}

/// The API server's copy. The status is text, since thousands of them are kept and few are read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) uid: Arc<str>,
    pub(super) resource_version: Arc<str>,
    pub(super) generation: i64,
    pub(super) status: Arc<str>,
}

/// A status of which the API server took less than was sent, as an older CRD drops fields. It is not sent again.
#[derive(Debug, PartialEq)]
pub(in crate::status) struct Clipped {
    pub(in crate::status) sent: Value,
    /// What was left of it.
    pub(in crate::status) kept: Arc<str>,
}

impl Entry {
    /// What was seen and what we think of it, if that is about the same spec of the same object: any other verdict is not
    /// told, the next is on its way.
    pub(super) fn comparable(&self) -> Option<(&Seen, &Arc<Verdict>)> {
        let (seen, verdict) = self.seen.as_ref().zip(self.verdict.as_ref())?;
        let is_about = verdict.generation == seen.generation && !self.is_about_another(&seen.uid);
        (is_about && is_whole(verdict)).then_some((seen, verdict))
    }

    /// Whether the verdict is about another object than that of this uid.
    pub(super) fn is_about_another(&self, uid: &str) -> bool {
        self.verdict.is_some() && self.judged.as_ref().is_some_and(|judged| **judged != *uid)
    }

    pub(super) fn is_comparable(&self) -> bool {
        self.comparable().is_some()
    }
}

impl Seen {
    /// Versions are numbers that rise for all API servers there are; where they are not, whatever comes is news.
    pub(super) fn is_older_than(&self, resource_version: &str) -> bool {
        let number = |version: &str| version.parse::<u128>().ok();
        match (number(&self.resource_version), number(resource_version)) {
            (Some(known), Some(new)) => known < new,
            _ => *self.resource_version != *resource_version,
        }
    }
}

impl From<Observed> for Seen {
    fn from(observed: Observed) -> Self {
        Seen {
            uid: observed.uid,
            resource_version: observed.resource_version,
            generation: observed.generation,
            status: observed.status.to_string().into(),
        }
    }
}

/// The verdict on a class waits until it is known which release is installed: what its status said of that before must not
/// vanish for a moment whenever we start.
fn is_whole(verdict: &Verdict) -> bool {
    let says = |codes: [Code; 2]| verdict.conditions.iter().any(|condition| codes.contains(&condition.code));
    !says([Code::ClassAccepted, Code::ClassInvalidParameters])
        || says([Code::ClassSupportedVersion, Code::ClassUnsupportedVersion])
}

/// Whether routes that attach or detach are all that is different.
pub(super) fn differ_in_counts(old: &Verdict, new: &Verdict) -> bool {
    let Verdict { generation, conditions, supported_features, addresses, listeners, parents, .. } = old;
    let Verdict { ancestors, load_balancer, sockets, notes, missing_parents, broken_plugins, unheeded, .. } = old;
    let same_listener = |(old, new): (&ListenerVerdict, &ListenerVerdict)| {
        let ListenerVerdict { name, port, attached_routes: _, supported_kinds, sockets, conditions } = old;
        (name, port, supported_kinds) == (&new.name, &new.port, &new.supported_kinds)
            && (sockets, conditions) == (&new.sockets, &new.conditions)
    };
    (generation, conditions, supported_features) == (&new.generation, &new.conditions, &new.supported_features)
        && (addresses, parents) == (&new.addresses, &new.parents)
        && (ancestors, load_balancer, sockets) == (&new.ancestors, &new.load_balancer, &new.sockets)
        && (notes, missing_parents, broken_plugins) == (&new.notes, &new.missing_parents, &new.broken_plugins)
        && *unheeded == new.unheeded
        && listeners.len() == new.listeners.len()
        && listeners.iter().zip(&new.listeners).all(same_listener)
}
