//! One object in the queue: the API server's copy, the verdict, and the state of its writes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::back_off::WriteBackoff;
use super::write_conflict::WriteConflict;
use super::{WriteJob, WriteOutcome};
use crate::k8s::Observed;
use crate::verdict::{Code, ListenerVerdict, Verdict};

#[derive(Debug, Default)]
pub(super) struct QueueEntry {
    pub(super) server_copy: Option<ServerCopy>,
    pub(super) verdict: Option<Arc<Verdict>>,
    /// The uid of the object that the verdict is about, if it was seen: an object that was deleted and created
    /// again under the same name has another uid.
    pub(super) verdict_uid: Option<Arc<str>>,
    pub(super) due: Option<Instant>,
    pub(super) in_flight: bool,
    /// The object is to be compared again once the write in flight has ended: the object or its verdict has changed
    /// meanwhile, or the outcome of the write requires it.
    pub(super) compare_again: bool,
    /// `server_copy` is outdated; the object is to be fetched.
    pub(super) stale: bool,
    /// Failures in a row, which lengthen the delay before the next retry.
    pub(super) failures: u32,
    /// The API server rejected the last write, and would reject it again until the verdict or the object changes.
    pub(super) rejected: bool,
    pub(super) back_off: WriteBackoff,
    /// Whether another controller keeps overwriting the status; a single [`WriteOutcome::Conflict`] does not count.
    pub(super) conflict: WriteConflict,
    /// The next write does not wait for a pause in the changes: more than a count of routes has changed, or the last
    /// write failed or ended in a conflict.
    pub(super) urgent: bool,
    pub(super) partially_stored: Option<Arc<PartiallyStored>>,
}

/// The API server's copy of an object. The status is kept as text: there are thousands, and few are parsed.
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
    /// The API server's copy and the verdict, if both are about the same spec of the same object and the verdict can
    /// be written. A verdict on another spec is not written: the next compile replaces it.
    pub(super) fn comparable(&self) -> Option<(&ServerCopy, &Arc<Verdict>)> {
        let (server_copy, verdict) = self.server_copy.as_ref().zip(self.verdict.as_ref())?;
        let is_current =
            verdict.generation == server_copy.generation && !self.has_verdict_on_other_uid(&server_copy.uid);
        (is_current && is_writable(verdict)).then_some((server_copy, verdict))
    }

    /// Whether the verdict is about another object of this name than the one with this uid.
    pub(super) fn has_verdict_on_other_uid(&self, uid: &str) -> bool {
        self.verdict.is_some() && self.verdict_uid.as_ref().is_some_and(|verdict_uid| **verdict_uid != *uid)
    }

    pub(super) fn is_comparable(&self) -> bool {
        self.comparable().is_some()
    }

    /// Records how a write ended. Returns when the object is due again, if the outcome sets a time: after a failure,
    /// for a fetch after a conflict, or at once if forbidden, because the queue then holds the object back with its
    /// kind.
    pub(super) fn write_ended(&mut self, job: &WriteJob, outcome: WriteOutcome, now: Instant) -> Option<Instant> {
        self.in_flight = false;
        // Every outcome ends the row of failures, except failures, which continue it below.
        let failures = self.failures.saturating_add(1);
        self.failures = 0;
        match outcome {
            WriteOutcome::UpToDate => None,
            WriteOutcome::Fetched(observed) => {
                // The fetched object replaces the copy whatever its version is: after a restore from a backup,
                // versions go back.
                self.stale = false;
                self.server_copy = Some(ServerCopy::from(observed));
                self.compare_again = true;
                None
            }
            WriteOutcome::Written(observed, sent) => {
                self.back_off.record_write(job.started);
                self.conflict.record_write(&job.verdict, now);
                self.keep_written(observed, sent);
                None
            }
            WriteOutcome::Conflict => {
                self.back_off.record_write(job.started);
                self.urgent = true;
                if self.server_copy.as_ref().is_some_and(|copy| copy.resource_version == job.resource_version) {
                    // The watch usually delivers the fresh object at once; otherwise it is fetched.
                    self.stale = true;
                    return Some(now + FETCH_AFTER);
                }
                self.compare_again = true;
                None
            }
            // The watch has not reported a deletion: the 404 may come from a proxy.
            WriteOutcome::NotFound if self.server_copy.as_ref().is_some_and(|copy| copy.uid == job.uid) => {
                self.failures = failures;
                Some(now + retry_delay(failures, MAX_RETRY_DELAY, fastrand::f64()))
            }
            WriteOutcome::NotFound => {
                self.compare_again = true;
                None
            }
            WriteOutcome::Rejected => {
                self.failures = failures;
                self.rejected = true;
                Some(now + retry_delay(failures, MAX_RETRY_DELAY_REJECTED, fastrand::f64()))
            }
            // The object is due at once; `QueueState::next` then lets it wait until a write of its kind is permitted.
            WriteOutcome::Forbidden => Some(now),
            WriteOutcome::Failed(wait) => {
                self.failures = failures;
                self.urgent = true;
                let delay = retry_delay(failures, MAX_RETRY_DELAY, fastrand::f64());
                Some(now + delay.max(wait.unwrap_or_default()))
            }
        }
    }

    /// Keeps the object that the API server returned for a write, and the sent status if only a part of it was stored.
    fn keep_written(&mut self, returned: Observed, sent: Value) {
        let is_all_stored = *returned.status == sent;
        let written = ServerCopy::from(returned);
        let partially_stored = PartiallyStored { sent, kept: written.status.clone() };
        self.partially_stored = (!is_all_stored).then(|| Arc::new(partially_stored));
        // The watch may have delivered a version that is newer than the written one.
        let is_outdated =
            |known: &ServerCopy| known.uid == written.uid && known.is_older_than(&written.resource_version);
        if self.server_copy.as_ref().is_some_and(is_outdated) {
            self.server_copy = Some(written);
        }
    }
}

impl ServerCopy {
    /// Resource versions are increasing numbers in all known API servers. If they are no numbers, a different version
    /// counts as newer.
    pub(super) fn is_older_than(&self, resource_version: &str) -> bool {
        let number = |version: &str| version.parse::<u128>().ok();
        match (number(&self.resource_version), number(resource_version)) {
            (Some(known), Some(new)) => known < new,
            _ => *self.resource_version != *resource_version,
        }
    }

    /// Whether the copy is as new as this object. A listed object with another version replaces the copy in any case,
    /// because the API server may have been restored from a backup. If the list was older than a write of this replica
    /// instead, the next write ends in a conflict, and the object is fetched.
    pub(super) fn is_current(&self, observed: &Observed) -> bool {
        match observed.listed {
            true => self.resource_version == observed.resource_version,
            false => !self.is_older_than(&observed.resource_version),
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

/// Whether a verdict can be written. A verdict on a GatewayClass waits until it has the condition SupportedVersion,
/// which must not disappear from the status at each start.
fn is_writable(verdict: &Verdict) -> bool {
    let has_code = |codes: [Code; 2]| verdict.conditions.iter().any(|condition| codes.contains(&condition.code));
    !has_code([Code::ClassAccepted, Code::ClassInvalidParameters])
        || has_code([Code::ClassSupportedVersion, Code::ClassUnsupportedVersion])
}

/// Whether only the counts of attached routes and ListenerSets differ.
pub(super) fn only_counts_differ(old: &Verdict, new: &Verdict) -> bool {
    let Verdict {
        generation,
        conditions,
        acceptance,
        supported_features,
        addresses,
        listeners,
        attached_listener_sets: _,
        parents,
        ancestors,
        load_balancer,
        sockets,
        affected_by,
        diagnostics,
    } = old;
    let same_listener = |(old, new): (&ListenerVerdict, &ListenerVerdict)| {
        let ListenerVerdict { name, port, attached_routes: _, supported_kinds, sockets, conditions } = old;
        (name, port, supported_kinds) == (&new.name, &new.port, &new.supported_kinds)
            && (sockets, conditions) == (&new.sockets, &new.conditions)
    };
    (generation, conditions, supported_features) == (&new.generation, &new.conditions, &new.supported_features)
        && (addresses, parents) == (&new.addresses, &new.parents)
        && (ancestors, load_balancer, sockets) == (&new.ancestors, &new.load_balancer, &new.sockets)
        && (acceptance, affected_by, diagnostics) == (&new.acceptance, &new.affected_by, &new.diagnostics)
        && listeners.len() == new.listeners.len()
        && listeners.iter().zip(&new.listeners).all(same_listener)
}

/// The delay before a retry: doubles from 200 ms up to `max_delay`. `jitter`, from 0 to 1, shortens it by up to a half,
/// so that writes that failed together do not retry together.
pub(super) fn retry_delay(failures: u32, max_delay: Duration, jitter: f64) -> Duration {
    let delay = FIRST_RETRY_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max_delay);
    delay.mul_f64(1.0 - jitter / 2.0)
}

const FIRST_RETRY_DELAY: Duration = Duration::from_millis(200);
pub(super) const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);
/// For failures that persist until something changes.
const MAX_RETRY_DELAY_REJECTED: Duration = Duration::from_secs(300);
/// How long an object waits for the watch after a conflict, before it is fetched.
pub(super) const FETCH_AFTER: Duration = Duration::from_millis(250);
