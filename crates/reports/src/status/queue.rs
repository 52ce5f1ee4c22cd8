//! A rate-limited queue of status writes: one in flight per object, always for the latest verdict, and less often while
//! the verdict keeps changing. It also holds the queue of events.
//!
//! ```text
//!   watches ──observe──────▶ ┌───────┐ ──next──▶ merge, write ──done──┐
//!   compile ──set_verdict──▶ │ queue │ ◀──────────────────────────────┘
//!                            └───────┘   due now, due later, in flight
//! ```
//!
//! Nothing is due while another replica leads. When this replica becomes the leader, it compares all objects.

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
use super::occurrences::{Occurrence, OccurrenceQueue};
use crate::api::kind::StatusUse;
use crate::api::{Kind, ObjectId};
use crate::diagnostic::Topic;
use crate::k8s::{InstalledApis, Observed, RejectedObject};
use crate::verdict::Verdict;

use back_off::WriteBackoff;
pub(super) use entry::PartiallyStored;
use entry::{QueueEntry, ServerCopy, only_counts_differ};
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
    /// Wakes the status writer.
    changed: Notify,
    /// Wakes the event writer.
    events_changed: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    leading: bool,
    entries: HashMap<ObjectId, QueueEntry>,
    /// When each object is to be compared, by [`priority`]. A burst of routes changes the count in a Gateway, and must
    /// not delay the write of that count.
    due: [BTreeSet<(Instant, ObjectId)>; 2],
    /// The number of writes in flight.
    in_flight: usize,
    events: EventQueue,
    /// What affects objects whose status does not say it. Problems and occurrences come first.
    facts: Facts,
    occurrences: OccurrenceQueue,
    /// The API version under which each kind was last served: a kind that cannot be read now is written as before.
    api_versions: HashMap<Kind, Arc<str>>,
    forbidden: HashMap<Kind, ForbiddenKind>,
    /// Portico controls every GatewayClass of the cluster.
    sole_controller: bool,
    /// This replica, for messages: its Pod and node.
    replica: Option<Arc<str>>,
}

/// The queue of facts, with its own default.
#[derive(Debug)]
struct Facts(EventQueue);

impl Default for Facts {
    fn default() -> Self {
        Facts(EventQueue::of_facts())
    }
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
    /// The API server returned 404. The object counts as deleted only when the watch reports it.
    NotFound,
    /// The status was rejected by validation or admission.
    Rejected,
    /// 403.
    Forbidden,
    /// Any other error; to be retried, at the earliest after the delay that the API server set.
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

/// An event to write now, or the time of the next one.
#[derive(Debug)]
pub(super) enum NextEvent {
    /// `known`: another replica may have written this event; an existing one then suffices, whatever its age.
    Now {
        id: ObjectId,
        uid: Arc<str>,
        api_version: Arc<str>,
        notice: Notice,
        known: bool,
        source: EventSource,
    },
    At(Instant),
    Nothing,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventSource {
    /// A problem of an object, or its end.
    Problem,
    /// A fact about an object.
    Fact,
    /// An occurrence. It is not reported later if writing fails.
    Occurrence,
}

impl StatusQueue {
    pub fn new() -> Self {
        StatusQueue::default()
    }

    /// Stores the API server's copy of an object; None if the object is gone. Returns true if the last verdict is about
    /// a deleted object of this name: the next verdict must then be passed to `set_verdict` even if it is equal.
    pub fn observe(&self, id: ObjectId, observed: Option<Observed>) -> bool {
        has_events(id.kind) && self.change(|state, now| state.observe(id, observed, now))
    }

    /// Sets the verdict on an object, once the configuration with it is served; None if the object no longer belongs to
    /// Portico.
    pub fn set_verdict(&self, id: ObjectId, verdict: Option<Arc<Verdict>>) {
        if has_events(id.kind) {
            self.change(|state, now| state.set_verdict(id, verdict, now));
        }
    }

    /// Sets whether Portico controls every GatewayClass: then no other controller would report a missing Gateway.
    pub fn set_sole_controller(&self, is_sole: bool) {
        self.change(|state, now| state.set_sole_controller(is_sole, now));
    }

    /// Sets the name of this replica, for events about what only this replica knows. Without it there are none.
    pub fn set_replica(&self, name: &str) {
        self.change(|state, _| state.replica = Some(name.into()));
    }

    /// Sets why an object cannot be parsed; None once it can be parsed.
    pub fn set_rejected(&self, id: ObjectId, rejected: Option<RejectedObject>) {
        let problems = rejected.iter().map(notices::unparsable_object).collect();
        self.change(|state, now| state.events.set_problems(&id, ProblemOrigin::Source, problems, now));
    }

    /// Reports what has happened to the endpoints of an object, if this replica leads.
    pub fn report_occurrence(&self, id: ObjectId, occurrence: Occurrence) {
        let mut state = self.shared.state.lock();
        if state.leading && state.occurrences.add(id, occurrence, Instant::now()) {
            drop(state);
            self.shared.events_changed.notify_one();
        }
    }

    /// Sets the API versions under which statuses are written.
    pub fn set_installed(&self, installed: Arc<InstalledApis>) {
        self.change(|state, _| {
            let versions = installed.versions.iter().map(|(kind, version)| (*kind, Arc::from(version.as_str())));
            state.api_versions.extend(versions);
        });
    }

    /// Sets whether this replica may write. When it no longer may, the writer must drop its writes in flight.
    pub(super) fn set_leading(&self, leading: bool) {
        self.change(|state, now| state.set_leading(leading, now));
    }

    /// A due job if fewer than `max_in_flight` are in flight; otherwise when to call this again.
    pub(super) fn next(&self, max_in_flight: usize) -> NextWrite {
        self.shared.state.lock().next(max_in_flight, Instant::now())
    }

    pub(super) fn done(&self, job: &WriteJob, outcome: WriteOutcome) {
        self.change(|state, now| state.done(job, outcome, now));
    }

    /// Whether another controller keeps writing the status of an object.
    pub(super) fn is_contested(&self, id: &ObjectId) -> bool {
        self.shared.state.lock().entries.get(id).is_some_and(|entry| entry.conflict.is_active())
    }

    /// Sets the messages about full lists in the status of an object.
    pub(super) fn set_left_out(&self, id: &ObjectId, left_out: &[String]) {
        let problems = left_out.iter().map(|message| notices::full_list(message)).collect();
        self.change(|state, now| state.events.set_problems(id, ProblemOrigin::Writer, problems, now));
    }

    /// The next event to write. The worker that takes it reports the result.
    pub(super) fn next_event(&self) -> NextEvent {
        let mut state = self.shared.state.lock();
        loop {
            let (id, notice, known, source) = match state.next_event(Instant::now()) {
                (DueEvent::Now { id, notice, known }, source) => (id, notice, known, source),
                (DueEvent::At(at), _) => return NextEvent::At(at),
                (DueEvent::Nothing, _) => return NextEvent::Nothing,
            };
            let api_version = state.api_version(id.kind);
            match state.entries.get(&id).and_then(|entry| entry.server_copy.as_ref()) {
                Some(ServerCopy { uid, .. }) => {
                    return NextEvent::Now { uid: uid.clone(), id, api_version, notice, known, source };
                }
                // An event needs the uid of an object in the cluster.
                None => state.forget_events(&id),
            }
        }
    }

    /// `known`: another replica may have written the event, at an unknown time.
    pub(super) fn event_written(&self, id: &ObjectId, notice: Notice, known: bool, source: EventSource) {
        self.change_events(source, |events, now| events.written(id, notice, known, now));
    }

    pub(super) fn event_failed(&self, id: &ObjectId, source: EventSource) {
        self.change_events(source, |events, now| events.retry_later(id, now));
    }

    /// Defers the event of an object until this time.
    pub(super) fn defer_event(&self, id: &ObjectId, at: Instant, source: EventSource) {
        self.change_events(source, |events, _| events.defer(id, at));
    }

    /// Changes the queue from which an event is. Occurrences are not reported again.
    fn change_events(&self, source: EventSource, apply: impl FnOnce(&mut EventQueue, Instant)) {
        match source {
            EventSource::Problem => self.change(|state, now| apply(&mut state.events, now)),
            EventSource::Fact => self.change(|state, now| apply(&mut state.facts.0, now)),
            EventSource::Occurrence => {}
        }
    }

    pub(super) async fn events_changed(&self) {
        self.shared.events_changed.notified().await;
    }

    /// Waits until `next` may return something else.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Changes the state and wakes both writers.
    fn change<T>(&self, apply: impl FnOnce(&mut QueueState, Instant) -> T) -> T {
        let result = apply(&mut self.shared.state.lock(), Instant::now());
        self.shared.changed.notify_one();
        self.shared.events_changed.notify_one();
        result
    }
}

impl QueueState {
    /// The next problem to report, or else an occurrence, or else a fact.
    fn next_event(&mut self, now: Instant) -> (DueEvent, EventSource) {
        let problem = self.events.next(now);
        if matches!(problem, DueEvent::Now { .. }) {
            return (problem, EventSource::Problem);
        }
        if !self.occurrences.is_empty() {
            if let Some(wait) = self.events.take_token(now) {
                return (DueEvent::At(now + wait), EventSource::Occurrence);
            }
            if let Some((id, notice)) = self.occurrences.take() {
                return (DueEvent::Now { id, notice, known: false }, EventSource::Occurrence);
            }
        }
        match (problem, self.facts.0.next(now)) {
            (DueEvent::At(problem), DueEvent::At(fact)) => (DueEvent::At(problem.min(fact)), EventSource::Fact),
            (problem, DueEvent::Nothing) => (problem, EventSource::Problem),
            (_, fact) => (fact, EventSource::Fact),
        }
    }

    fn forget_events(&mut self, id: &ObjectId) {
        self.events.forget(id);
        self.facts.0.forget(id);
    }

    fn observe(&mut self, id: ObjectId, observed: Option<Observed>, now: Instant) -> bool {
        let entry = self.entries.entry(id.clone()).or_default();
        let is_recreated = observed.as_ref().is_some_and(|observed| entry.has_verdict_on_other_uid(&observed.uid));
        if is_recreated {
            // Problems that were reported on the deleted object are reported on the new one, too.
            self.events.forget(&id);
            self.facts.0.forget(&id);
        }
        match observed {
            // The watch lags behind the responses to this replica's writes: the known copy is as new, or newer.
            Some(observed) if entry.server_copy.as_ref().is_some_and(|copy| copy.is_current(&observed)) => {}
            Some(observed) => {
                entry.server_copy = Some(ServerCopy::from(observed));
                entry.stale = false;
                self.schedule(&id, now);
            }
            None => {
                entry.server_copy = None;
                self.forget_events(&id);
                self.forget(&id);
            }
        }
        is_recreated
    }

    fn set_verdict(&mut self, id: ObjectId, verdict: Option<Arc<Verdict>>, now: Instant) {
        let no_longer_porticos = verdict.is_none();
        let is_sole = self.sole_controller;
        let problems = verdict
            .as_deref()
            .map(|verdict| notices::notices_for_verdict(verdict, is_sole, id.kind))
            .unwrap_or_default();
        self.events.set_problems(&id, ProblemOrigin::Verdict, problems, now);
        let facts = verdict.as_deref().map(notices::facts).unwrap_or_default();
        self.facts.0.set_problems(&id, ProblemOrigin::Verdict, facts, now);
        if let Some(replica) = self.replica.clone().filter(|_| matches!(id.kind, Kind::Gateway | Kind::ListenerSet)) {
            let problems = verdict.as_deref().map(|verdict| notices::notices_for_replica(verdict, &replica));
            self.events.set_problems(&id, ProblemOrigin::Replica, problems.unwrap_or_default(), now);
        }
        if !id.kind.has_written_status() {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        let is_minor_change =
            entry.verdict.as_ref().zip(verdict.as_ref()).is_some_and(|(old, new)| only_counts_differ(old, new));
        entry.urgent |= !is_minor_change;
        entry.verdict = verdict;
        entry.verdict_uid = entry.server_copy.as_ref().map(|copy| copy.uid.clone());
        if no_longer_porticos { self.forget(&id) } else { self.schedule(&id, now) }
    }

    fn set_sole_controller(&mut self, is_sole: bool, now: Instant) {
        if std::mem::replace(&mut self.sole_controller, is_sole) == is_sole {
            return;
        }
        for (id, entry) in &self.entries {
            if let Some(verdict) =
                entry.verdict.as_deref().filter(|verdict| verdict.about(Topic::MissingParent).next().is_some())
            {
                if !is_sole {
                    self.events.withdraw(id, notices::GATEWAY_NOT_FOUND);
                }
                self.events.set_problems(
                    id,
                    ProblemOrigin::Verdict,
                    notices::notices_for_verdict(verdict, is_sole, id.kind),
                    now,
                );
            }
        }
    }

    fn set_leading(&mut self, leading: bool, now: Instant) {
        if self.leading == leading {
            return;
        }
        self.leading = leading;
        self.events.set_leading(leading, now);
        self.facts.0.set_leading(leading, now);
        self.occurrences.clear();
        self.due = Default::default();
        self.forbidden.clear();
        self.in_flight = 0;
        for entry in self.entries.values_mut() {
            entry.due = None;
            entry.in_flight = false;
            entry.compare_again = false;
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
        let due = entry.back_off.due_after_change(now, entry.urgent);
        if std::mem::take(&mut entry.rejected) {
            entry.failures = 0;
        }
        let after_conflict = entry.verdict.as_ref().and_then(|verdict| entry.conflict.earliest(verdict));
        let due = after_conflict.map_or(due, |earliest| due.max(earliest));
        if entry.in_flight {
            entry.compare_again = true;
        } else if entry.failures == 0 || entry.due.is_none() {
            // Not if a retry is scheduled: a change does not bring it forward.
            self.queue(id, due);
        }
    }

    fn queue(&mut self, id: &ObjectId, at: Instant) {
        self.unqueue(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.due = Some(at);
            self.due[priority(id.kind)].insert((at, id.clone()));
        }
    }

    fn unqueue(&mut self, id: &ObjectId) {
        if let Some(at) = self.entries.get_mut(id).and_then(|entry| entry.due.take()) {
            self.due[priority(id.kind)].remove(&(at, id.clone()));
        }
    }

    /// Removes an object from the queue, and its entry if it has neither a copy nor a verdict.
    fn forget(&mut self, id: &ObjectId) {
        self.unqueue(id);
        if let Some(forbidden) = self.forbidden.get_mut(&id.kind) {
            forbidden.remove(id);
        }
        if self
            .entries
            .get(id)
            .is_some_and(|entry| entry.server_copy.is_none() && entry.verdict.is_none() && !entry.in_flight)
        {
            self.entries.remove(id);
        }
    }

    fn next(&mut self, max_in_flight: usize, now: Instant) -> NextWrite {
        if self.in_flight < max_in_flight {
            let retried_kind =
                self.forbidden.values_mut().find(|forbidden| forbidden.due().is_some_and(|due| due <= now));
            if let Some(id) = retried_kind.and_then(ForbiddenKind::next) {
                self.queue(&id, now);
            }
        }
        loop {
            let first_with_due = self.due.iter().position(|due| due.first().is_some_and(|(at, _)| *at <= now));
            let Some(priority) = first_with_due else {
                let object_times = self.due.iter().filter_map(|due| due.first()).map(|(at, _)| *at);
                let kind_times = self.forbidden.values().filter_map(ForbiddenKind::due);
                return object_times.chain(kind_times).min().map_or(NextWrite::Nothing, NextWrite::At);
            };
            // The end of a write wakes the writer, which then calls this again.
            if self.in_flight >= max_in_flight {
                return NextWrite::Nothing;
            }
            let Some((_, id)) = self.due[priority].pop_first() else { return NextWrite::Nothing };
            let api_version = self.api_version(id.kind);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            if let Some(forbidden) = self.forbidden.get_mut(&id.kind).filter(|forbidden| !forbidden.is_retrying(&id)) {
                forbidden.add(id);
                continue;
            }
            let Some((server_copy, verdict)) = entry.comparable() else {
                self.forbidden.values_mut().for_each(|forbidden| forbidden.attempt_ended(&id));
                continue;
            };
            let job = WriteJob {
                started: now,
                uid: server_copy.uid.clone(),
                resource_version: server_copy.resource_version.clone(),
                status: server_copy.status.clone(),
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
        self.in_flight -= 1;
        // A forbidden read does not stop writes of the kind.
        let outcome = match outcome {
            WriteOutcome::Forbidden if job.stale => WriteOutcome::Failed(Some(forbidden_kinds::FORBIDDEN_RETRY)),
            outcome => outcome,
        };
        let is_written = matches!(outcome, WriteOutcome::Written(..));
        let proves_permission =
            is_written || matches!(outcome, WriteOutcome::Conflict | WriteOutcome::NotFound | WriteOutcome::Rejected);
        if matches!(outcome, WriteOutcome::Forbidden) {
            let forbidden = self.forbidden.entry(job.id.kind);
            forbidden
                .and_modify(|forbidden| forbidden.delay_next_attempt(now))
                .or_insert_with(|| ForbiddenKind::new(now));
        }
        if let Some(forbidden) = self.forbidden.get_mut(&job.id.kind) {
            forbidden.attempt_ended(&job.id);
        }
        let retry = entry.write_ended(job, outcome, now);
        if is_written {
            let conflict = entry.conflict.is_active().then(notices::write_conflict);
            self.events.set_problems(&job.id, ProblemOrigin::WriteConflict, conflict.into_iter().collect(), now);
        }
        let compare_again = std::mem::take(&mut entry.compare_again);
        match retry {
            Some(at) if entry.is_comparable() => self.queue(&job.id, at),
            _ if compare_again => self.schedule(&job.id, now),
            _ => {}
        }
        if self.entries.get(&job.id).is_some_and(|entry| entry.server_copy.is_none() && entry.verdict.is_none()) {
            self.forget(&job.id);
        }
        if proves_permission {
            self.resume_kind(job.id.kind, now);
        }
    }

    /// Resumes the writes of a kind after the response to one shows that they are permitted.
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

/// Kinds that get events. A Service has no status of Portico, so only events report its invalid annotations. Only
/// events report that a policy is not served.
fn has_events(kind: Kind) -> bool {
    matches!(kind.status_use(), StatusUse::Written | StatusUse::Observed) || kind == Kind::Service
}

/// The index in `due`: GatewayClasses, Gateways and ListenerSets come before all other kinds.
fn priority(kind: Kind) -> usize {
    usize::from(!matches!(kind, Kind::GatewayClass | Kind::Gateway | Kind::ListenerSet))
}

#[cfg(test)]
mod tests;
