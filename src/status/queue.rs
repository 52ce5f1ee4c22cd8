//! A rate-limited queue of status writes: one in flight per object, always for the latest verdict, and less often while
//! it keeps changing.
//!
//! ```text
//!   watches ──observe──────▶ ┌───────┐ ──next──▶ merge, write ──done──┐
//!   compile ──set_verdict──▶ │ queue │ ◀──────────────────────────────┘
//!                            └───────┘   due now, due later, in flight
//! ```
//!
//! Nothing is due while another replica leads; everything is compared when this one becomes the leader.

mod back_off;
mod entry;
mod forbidden_kinds;
mod write_conflict;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::event_queue::{DueEvent, EventQueue, ProblemOrigin};
use super::notices::{self, Notice};
use crate::api::{Kind, ObjectId};
use crate::compile::verdict::Verdict;
use crate::diagnostic::Topic;
use crate::k8s::{InstalledApis, Observed, RejectedObject};

use back_off::WriteBackoff;
pub(super) use entry::PartiallyStored;
use entry::{QueueEntry, ServerCopy, differ_in_counts};
use forbidden_kinds::ForbiddenKind;
use write_conflict::WriteConflict;

/// A handle; clones share one queue.
#[derive(Clone, Debug, Default)]
pub struct StatusQueue {
    shared: Arc<QueueShared>,
}

#[derive(Debug, Default)]
struct QueueShared {
    state: Mutex<QueueState>,
    /// Wakes the status writer and the event writer.
    changed: Notify,
    events_changed: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    leading: bool,
    entries: HashMap<ObjectId, QueueEntry>,
    /// When each object is to be compared. Classes and Gateways have their own set: a burst of routes, which changes
    /// the count in a Gateway, must not delay it.
    due: [BTreeSet<(Instant, ObjectId)>; 2],
    in_flight: usize,
    events: EventQueue,
    /// The API version under which each kind was last served: a kind that cannot be read now is written as before.
    api_versions: HashMap<Kind, Arc<str>>,
    forbidden: HashMap<Kind, ForbiddenKind>,
    /// Portico controls every GatewayClass of the cluster.
    sole_controller: bool,
}

/// One object to compare, and to write if it differs. The worker that takes it returns a [`WriteOutcome`].
#[derive(Clone, Debug)]
pub(super) struct WriteJob {
    pub(super) id: ObjectId,
    pub(super) started: Instant,
    pub(super) uid: Arc<str>,
    pub(super) resource_version: Arc<str>,
    pub(super) status: Arc<str>,
    pub(super) verdict: Arc<Verdict>,
    /// The API version under which the kind is served.
    pub(super) api_version: Arc<str>,
    /// The known copy is outdated; the object is to be fetched.
    pub(super) stale: bool,
    pub(super) partially_stored: Option<Arc<PartiallyStored>>,
}

/// The result of a [`WriteJob`].
#[derive(Debug)]
pub(super) enum WriteOutcome {
    /// The status is already right.
    UpToDate,
    /// The fetched object.
    Fetched(Observed),
    /// Written: the returned object, and what was sent.
    Written(Observed, Value),
    /// Another client wrote in between.
    Conflict,
    /// The API server does not find the object; the watch decides.
    NotFound,
    /// The status was rejected by validation or admission.
    Rejected,
    /// 403.
    Forbidden,
    /// To be retried, not before this delay if the API server set one.
    Failed(Option<Duration>),
}

/// What to do now.
#[derive(Debug)]
pub(super) enum NextWrite {
    Job(Box<WriteJob>),
    /// Nothing before this time, unless something changes.
    At(Instant),
    Nothing,
}

/// An event to write now, or later.
#[derive(Debug)]
pub(super) enum NextEvent {
    Now { id: ObjectId, uid: Arc<str>, api_version: Arc<str>, notice: Notice, known: bool },
    At(Instant),
    Nothing,
}

impl StatusQueue {
    pub fn new() -> Self {
        StatusQueue::default()
    }

    /// Stores the API server's copy of an object; None if it is gone. True if it is not the object of the last verdict:
    /// then that verdict does not apply to it, and the next one must be passed to `set_verdict` even if it is equal.
    pub fn observe(&self, id: ObjectId, observed: Option<Observed>) -> bool {
        has_events(id.kind) && self.change(|state, now| state.observe(id, observed, now))
    }

    /// Sets the verdict on an object, once it is served; None if the object no longer belongs to Portico.
    pub fn set_verdict(&self, id: ObjectId, verdict: Option<Arc<Verdict>>) {
        if has_events(id.kind) {
            self.change(|state, now| state.set_verdict(id, verdict, now));
        }
    }

    /// Whether Portico controls every GatewayClass: then no other controller would report a missing Gateway.
    pub fn set_sole_controller(&self, alone: bool) {
        self.change(|state, now| state.set_sole_controller(alone, now));
    }

    /// Sets why an object cannot be parsed; None if it can again.
    pub fn set_rejected(&self, id: ObjectId, rejected: Option<RejectedObject>) {
        let wrong = rejected.iter().map(notices::unparsable_object).collect();
        self.change(|state, now| state.events.set_problems(&id, ProblemOrigin::Source, wrong, now));
    }

    /// Sets the API versions under which statuses are written.
    pub fn set_installed(&self, installed: Arc<InstalledApis>) {
        self.change(|state, _| {
            let versions = installed.versions.iter().map(|(kind, version)| (*kind, Arc::from(version.as_str())));
            state.api_versions.extend(versions);
        });
    }

    /// Whether this replica may write. When that ends, writes in flight and their outcomes have to be dropped.
    pub(super) fn set_leading(&self, leading: bool) {
        self.change(|state, now| state.set_leading(leading, now));
    }

    /// The next thing to do. Hands out jobs while fewer than `most` are in flight.
    pub(super) fn next(&self, most: usize) -> NextWrite {
        self.shared.state.lock().next(most, Instant::now())
    }

    pub(super) fn done(&self, job: &WriteJob, outcome: WriteOutcome) {
        self.change(|state, now| state.done(job, outcome, now));
    }

    /// Whether another controller keeps writing the status of an object.
    pub(super) fn is_contested(&self, id: &ObjectId) -> bool {
        self.shared.state.lock().entries.get(id).is_some_and(|entry| entry.conflict.is_active())
    }

    /// Sets what did not fit into the status of an object.
    pub(super) fn set_left_out(&self, id: &ObjectId, what: &[String]) {
        let wrong = what.iter().map(|what| notices::full_list(what)).collect();
        self.change(|state, now| state.events.set_problems(id, ProblemOrigin::Writer, wrong, now));
    }

    /// The next event to write. The worker that takes it reports the result.
    pub(super) fn next_event(&self) -> NextEvent {
        let mut state = self.shared.state.lock();
        loop {
            let (id, notice, known) = match state.events.next(Instant::now()) {
                DueEvent::Now { id, notice, known } => (id, notice, known),
                DueEvent::At(at) => return NextEvent::At(at),
                DueEvent::Nothing => return NextEvent::Nothing,
            };
            let api_version = state.api_version(id.kind);
            match state.entries.get(&id).and_then(|entry| entry.seen.as_ref()) {
                Some(ServerCopy { uid, .. }) => {
                    return NextEvent::Now { uid: uid.clone(), id, api_version, notice, known };
                }
                // An event needs an object of the cluster.
                None => state.events.forget(&id),
            }
        }
    }

    pub(super) fn event_written(&self, id: &ObjectId, notice: Notice) {
        self.change(|state, now| state.events.written(id, notice, now));
    }

    pub(super) fn event_failed(&self, id: &ObjectId) {
        self.change(|state, now| state.events.retry_later(id, now));
    }

    /// Defers the event until this time.
    pub(super) fn defer_event(&self, id: &ObjectId, at: Instant) {
        self.change(|state, _| state.events.defer(id, at));
    }

    pub(super) async fn events_changed(&self) {
        self.shared.events_changed.notified().await;
    }

    /// Waits until `next` may return something else.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut QueueState, Instant) -> T) -> T {
        let result = change(&mut self.shared.state.lock(), Instant::now());
        self.shared.changed.notify_one();
        self.shared.events_changed.notify_one();
        result
    }
}

impl QueueState {
    fn observe(&mut self, id: ObjectId, observed: Option<Observed>, now: Instant) -> bool {
        let entry = self.entries.entry(id.clone()).or_default();
        let succeeds = observed.as_ref().is_some_and(|observed| entry.is_about_another(&observed.uid));
        if succeeds {
            // Events reported on the predecessor are reported on this object, too.
            self.events.forget(&id);
        }
        match observed {
            // A watch lags behind the responses to this replica's writes.
            Some(observed)
                if entry.seen.as_ref().is_some_and(|seen| !seen.is_older_than(&observed.resource_version)) => {}
            Some(observed) => {
                entry.seen = Some(ServerCopy::from(observed));
                entry.stale = false;
                self.schedule(&id, now);
            }
            None => {
                entry.seen = None;
                self.events.forget(&id);
                self.forget(&id);
            }
        }
        succeeds
    }

    fn set_verdict(&mut self, id: ObjectId, verdict: Option<Arc<Verdict>>, now: Instant) {
        let is_deleted = verdict.is_none();
        let alone = self.sole_controller;
        let wrong = verdict.as_deref().map(|verdict| notices::notices_for_verdict(verdict, alone)).unwrap_or_default();
        self.events.set_problems(&id, ProblemOrigin::Verdict, wrong, now);
        if !id.kind.has_written_status() {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        let counts_only =
            entry.verdict.as_ref().zip(verdict.as_ref()).is_some_and(|(old, new)| differ_in_counts(old, new));
        entry.urgent |= !counts_only;
        entry.verdict = verdict;
        entry.verdict_uid = entry.seen.as_ref().map(|seen| seen.uid.clone());
        if is_deleted { self.forget(&id) } else { self.schedule(&id, now) }
    }

    fn set_sole_controller(&mut self, alone: bool, now: Instant) {
        if std::mem::replace(&mut self.sole_controller, alone) == alone {
            return;
        }
        for (id, entry) in &self.entries {
            if let Some(verdict) =
                entry.verdict.as_deref().filter(|verdict| verdict.about(Topic::MissingParent).next().is_some())
            {
                if !alone {
                    self.events.withdraw(id, notices::GATEWAY_NOT_FOUND);
                }
                self.events.set_problems(id, ProblemOrigin::Verdict, notices::notices_for_verdict(verdict, alone), now);
            }
        }
    }

    fn set_leading(&mut self, leading: bool, now: Instant) {
        if self.leading == leading {
            return;
        }
        self.leading = leading;
        self.events.set_leading(leading, now);
        self.due = Default::default();
        self.forbidden.clear();
        self.in_flight = 0;
        for entry in self.entries.values_mut() {
            entry.due = None;
            entry.in_flight = false;
            entry.changed_in_flight = false;
            entry.failures = 0;
            entry.back_off = WriteBackoff::default();
            entry.conflict = WriteConflict::default();
        }
        if leading {
            let ids: Vec<_> = self.entries.keys().cloned().collect();
            ids.iter().for_each(|id| self.schedule(id, now));
        }
    }

    /// Schedules an object after a change, as soon as its rate limit allows.
    fn schedule(&mut self, id: &ObjectId, now: Instant) {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| self.leading && entry.is_comparable()) else {
            return;
        };
        let at = entry.back_off.due_after_change(now, entry.urgent);
        if std::mem::take(&mut entry.rejected) {
            entry.failures = 0;
        }
        let earliest = entry.verdict.as_ref().and_then(|verdict| entry.conflict.earliest(verdict));
        let at = earliest.map_or(at, |earliest| at.max(earliest));
        if entry.in_flight {
            entry.changed_in_flight = true;
        } else if entry.failures == 0 || entry.due.is_none() {
            self.queue(id, at);
        }
    }

    fn queue(&mut self, id: &ObjectId, at: Instant) {
        self.unqueue(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.due = Some(at);
            self.due[rank(id.kind)].insert((at, id.clone()));
        }
    }

    fn unqueue(&mut self, id: &ObjectId) {
        if let Some(at) = self.entries.get_mut(id).and_then(|entry| entry.due.take()) {
            self.due[rank(id.kind)].remove(&(at, id.clone()));
        }
    }

    /// Removes an object from the queue, and its entry if it has neither a copy nor a verdict.
    fn forget(&mut self, id: &ObjectId) {
        self.unqueue(id);
        if let Some(forbidden) = self.forbidden.get_mut(&id.kind) {
            forbidden.remove(id);
        }
        if self.entries.get(id).is_some_and(|entry| entry.seen.is_none() && entry.verdict.is_none() && !entry.in_flight)
        {
            self.entries.remove(id);
        }
    }

    fn next(&mut self, most: usize, now: Instant) -> NextWrite {
        if self.in_flight < most {
            let try_again = self.forbidden.values_mut().find(|forbidden| forbidden.due().is_some_and(|due| due <= now));
            if let Some(id) = try_again.and_then(ForbiddenKind::next) {
                self.queue(&id, now);
            }
        }
        loop {
            let due = self.due.iter().position(|due| due.first().is_some_and(|(at, _)| *at <= now));
            let Some(rank) = due else {
                let first = self.due.iter().filter_map(|due| due.first()).map(|(at, _)| *at);
                let first = first.chain(self.forbidden.values().filter_map(ForbiddenKind::due)).min();
                return first.map_or(NextWrite::Nothing, NextWrite::At);
            };
            if self.in_flight >= most {
                return NextWrite::Nothing;
            }
            let Some((_, id)) = self.due[rank].pop_first() else { return NextWrite::Nothing };
            let api_version = self.api_version(id.kind);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            if let Some(forbidden) = self.forbidden.get_mut(&id.kind).filter(|forbidden| !forbidden.is_trying(&id)) {
                forbidden.add(id);
                continue;
            }
            let Some((seen, verdict)) = entry.comparable() else {
                self.forbidden.values_mut().for_each(|forbidden| forbidden.attempt_ended(&id));
                continue;
            };
            let job = WriteJob {
                started: now,
                uid: seen.uid.clone(),
                resource_version: seen.resource_version.clone(),
                status: seen.status.clone(),
                verdict: verdict.clone(),
                api_version,
                stale: entry.stale,
                partially_stored: entry.partially_stored.clone(),
                id,
            };
            entry.in_flight = true;
            entry.urgent = false;
            self.in_flight += 1;
            return NextWrite::Job(Box::new(job));
        }
    }

    fn done(&mut self, job: &WriteJob, outcome: WriteOutcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&job.id).filter(|entry| entry.in_flight) else { return };
        entry.in_flight = false;
        self.in_flight -= 1;
        // A forbidden read does not stop writes of the kind.
        let outcome = match outcome {
            WriteOutcome::Forbidden if job.stale => WriteOutcome::Failed(Some(forbidden_kinds::FORBIDDEN_RETRY)),
            outcome => outcome,
        };
        match (&outcome, self.forbidden.get_mut(&job.id.kind)) {
            (WriteOutcome::Forbidden, None) => drop(self.forbidden.insert(job.id.kind, ForbiddenKind::new(now))),
            (WriteOutcome::Forbidden, Some(forbidden)) => forbidden.refused(now),
            _ => {}
        }
        if let Some(forbidden) = self.forbidden.get_mut(&job.id.kind) {
            forbidden.attempt_ended(&job.id);
        }
        let proves_permission = matches!(
            outcome,
            WriteOutcome::Written(..) | WriteOutcome::Conflict | WriteOutcome::NotFound | WriteOutcome::Rejected
        );
        let mut retry = None;
        let failures = std::mem::take(&mut entry.failures);
        match outcome {
            WriteOutcome::UpToDate => {}
            WriteOutcome::Fetched(observed) => {
                // Regardless of the watch: after a restore from a backup, versions go back.
                entry.stale = false;
                entry.seen = Some(ServerCopy::from(observed));
                entry.changed_in_flight = true;
            }
            WriteOutcome::Written(observed, sent) => {
                entry.back_off.record_write(job.started);
                entry.conflict.record_write(&job.verdict, now);
                let contested = entry.conflict.is_active().then(notices::write_conflict);
                self.events.set_problems(&job.id, ProblemOrigin::WriteConflict, contested.into_iter().collect(), now);
                let whole = *observed.status == sent;
                let server_copy = ServerCopy::from(observed);
                let clipped = PartiallyStored { sent, kept: server_copy.status.clone() };
                entry.partially_stored = (!whole).then(|| Arc::new(clipped));
                // The watch may have delivered a newer version.
                if entry.seen.as_ref().is_some_and(|seen| {
                    seen.uid == server_copy.uid && seen.is_older_than(&server_copy.resource_version)
                }) {
                    entry.seen = Some(server_copy);
                }
            }
            WriteOutcome::Conflict => {
                entry.back_off.record_write(job.started);
                entry.urgent = true;
                if entry.seen.as_ref().is_some_and(|seen| seen.resource_version == job.resource_version) {
                    // The watch usually delivers the fresh object at once; otherwise it is fetched.
                    entry.stale = true;
                    retry = Some(now + FETCH_AFTER);
                } else {
                    entry.changed_in_flight = true;
                }
            }
            // The watch confirms this if it is true: a proxy may return 404, too.
            WriteOutcome::NotFound if entry.seen.as_ref().is_some_and(|seen| seen.uid == job.uid) => {
                entry.failures = failures.saturating_add(1);
                retry = Some(now + backoff(entry.failures, MAX_BACKOFF, fastrand::f64()));
            }
            WriteOutcome::NotFound => entry.changed_in_flight = true,
            WriteOutcome::Rejected => {
                entry.failures = failures.saturating_add(1);
                entry.rejected = true;
                retry = Some(now + backoff(entry.failures, MAX_BACKOFF_REJECTED, fastrand::f64()));
            }
            // Retried when the kind is tried again.
            WriteOutcome::Forbidden => retry = Some(now),
            WriteOutcome::Failed(wait) => {
                entry.failures = failures.saturating_add(1);
                entry.urgent = true;
                retry = Some(now + backoff(entry.failures, MAX_BACKOFF, fastrand::f64()).max(wait.unwrap_or_default()));
            }
        }
        let again = std::mem::take(&mut entry.changed_in_flight);
        match retry {
            Some(at) if entry.is_comparable() => self.queue(&job.id, at),
            _ if again => self.schedule(&job.id, now),
            _ => {}
        }
        if self.entries.get(&job.id).is_some_and(|entry| entry.seen.is_none() && entry.verdict.is_none()) {
            self.forget(&job.id);
        }
        if proves_permission {
            self.resume_kind(job.id.kind, now);
        }
    }

    /// Resumes writes of a kind after one succeeded.
    fn resume_kind(&mut self, kind: Kind, now: Instant) {
        for id in self.forbidden.remove(&kind).into_iter().flat_map(ForbiddenKind::into_waiting) {
            self.queue(&id, now);
        }
    }

    fn api_version(&self, kind: Kind) -> Arc<str> {
        let known = self.api_versions.get(&kind).cloned();
        known.unwrap_or_else(|| kind.versions().first().copied().unwrap_or("v1").into())
    }
}

/// Kinds that get events. A Service has no status of Portico, so only events report its invalid annotations.
fn has_events(kind: Kind) -> bool {
    kind.has_written_status() || kind == Kind::Service
}

fn rank(kind: Kind) -> usize {
    usize::from(!matches!(kind, Kind::GatewayClass | Kind::Gateway))
}

/// Doubles from 200 ms up to `most`, less up to a half at random: writes that failed together must not retry together.
fn backoff(failures: u32, most: Duration, chance: f64) -> Duration {
    let longest = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
    longest.mul_f64(1.0 - chance / 2.0)
}

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// For failures that persist until something changes.
const MAX_BACKOFF_REJECTED: Duration = Duration::from_secs(300);
/// How long a conflict waits for the watch.
const FETCH_AFTER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
