//! What is to be written, and when: each object once at a time, the latest verdict only, and less often while it keeps
//! changing.
//!
//! ```text
//!   watches ──observe──▶ ┌──────┐ ──next──▶ merge, write ──done──┐
//!   compile ──want─────▶ │ desk │ ◀──────────────────────────────┘
//!                        └──────┘   due now, due later, in flight
//! ```
//!
//! Nothing is due while another replica leads, and everything is compared when that ends.

mod contest;
mod pace;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::board::{Board, Finder, Tell};
use super::notices::{self, Notice};
use crate::api::{Kind, ObjectId};
use crate::compile::verdict::{Code, ListenerVerdict, Verdict};
use crate::k8s::{Installed, Observed, Refused};

use contest::Contest;
use pace::Pace;

/// A handle; clones are of the same desk.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// For whoever writes statuses, and for whoever tells events.
    changed: Notify,
    noticed: Notify,
}

#[derive(Debug, Default)]
struct State {
    leading: bool,
    entries: HashMap<ObjectId, Entry>,
    /// When each object that needs it is to be compared: classes and Gateways apart, since a burst of routes is counted in
    /// one of them and must not hold it up.
    due: [BTreeSet<(Instant, ObjectId)>; 2],
    in_flight: usize,
    board: Board,
    installed: Arc<Installed>,
    /// Every GatewayClass there is is ours.
    alone: bool,
}

#[derive(Debug, Default)]
struct Entry {
    seen: Option<Seen>,
    verdict: Option<Arc<Verdict>>,
    due: Option<Instant>,
    in_flight: bool,
    /// Something changed while it was in flight.
    again: bool,
    /// What was seen is known to be old.
    stale: bool,
    /// Failures since the last success.
    failures: u32,
    pace: Pace,
    contest: Contest,
    /// What is to be told is more than another count of routes.
    urgent: bool,
    clipped: Option<Arc<Clipped>>,
}

/// A status of which the API server took less than was sent, as an older CRD drops fields. It is not sent again.
#[derive(Debug, PartialEq)]
pub(super) struct Clipped {
    pub(super) sent: Value,
    /// What was left of it.
    pub(super) kept: Arc<str>,
}

/// The API server's copy. The status is text, since thousands of them are kept and few are read.
#[derive(Clone, Debug)]
struct Seen {
    uid: Arc<str>,
    resource_version: Arc<str>,
    generation: i64,
    status: Arc<str>,
}

/// One object to compare, and to write if that differs. Whoever takes it gives an [`Outcome`] back.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: ObjectId,
    pub(super) started: Instant,
    pub(super) uid: Arc<str>,
    pub(super) resource_version: Arc<str>,
    pub(super) status: Arc<str>,
    pub(super) verdict: Arc<Verdict>,
    /// The version of the API under which the kind is served.
    pub(super) api_version: Arc<str>,
    /// To be read from the API server instead: what was seen is old.
    pub(super) stale: bool,
    pub(super) clipped: Option<Arc<Clipped>>,
}

/// What became of a [`Job`].
#[derive(Debug)]
pub(super) enum Outcome {
    /// It says all that already.
    Settled,
    /// The fresh object, as asked for.
    Fetched(Observed),
    /// Written; the answer, and what was sent.
    Written(Observed, Value),
    /// Somebody else wrote in between.
    Conflict,
    /// There is no such object any more.
    Gone,
    /// To be tried again, not before this time if the API server said so.
    Failed(Option<Duration>),
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Next {
    Job(Box<Job>),
    /// Nothing before this moment, if nothing changes.
    At(Instant),
    Nothing,
}

/// An event to tell now, or later.
#[derive(Debug)]
pub(super) enum Telling {
    Now { id: ObjectId, uid: Arc<str>, api_version: Arc<str>, notice: Notice, known: bool },
    At(Instant),
    Nothing,
}

impl Desk {
    pub fn new() -> Self {
        Desk::default()
    }

    /// The API server's copy of an object; None if it is gone.
    pub fn observe(&self, id: ObjectId, observed: Option<Observed>) {
        if has_status(id.kind) {
            self.change(|state, now| state.observe(id, observed, now));
        }
    }

    /// What we think of an object; None if it is no longer ours to think about. Only once it is being served.
    pub fn want(&self, id: ObjectId, verdict: Option<Arc<Verdict>>) {
        if has_status(id.kind) {
            self.change(|state, now| state.want(id, verdict, now));
        }
    }

    /// Whether every GatewayClass of the cluster is ours: then nobody else would tell of a Gateway that does not exist.
    pub fn alone(&self, alone: bool) {
        self.change(|state, now| state.alone(alone, now));
    }

    /// Why an object cannot be read; None if that is over.
    pub fn refuse(&self, id: ObjectId, refused: Option<Refused>) {
        let wrong = refused.iter().map(notices::of_refusal).collect();
        self.change(|state, now| state.board.put(&id, Finder::Source, wrong, now));
    }

    /// What is installed: under which versions of the API statuses are written.
    pub fn installed(&self, installed: Arc<Installed>) {
        self.change(|state, _| state.installed = installed);
    }

    /// Whether this replica may write. Whatever is in flight when that ends has to be dropped, and its outcome with it.
    pub(super) fn lead(&self, leading: bool) {
        self.change(|state, now| state.lead(leading, now));
    }

    /// The next thing to do. Jobs are handed out for as long as there are fewer than `most` in flight.
    pub(super) fn next(&self, most: usize) -> Next {
        self.shared.state.lock().next(most, Instant::now())
    }

    pub(super) fn done(&self, job: &Job, outcome: Outcome) {
        self.change(|state, now| state.done(job, outcome, now));
    }

    /// Whether somebody else keeps writing the status of an object.
    pub(super) fn is_contested(&self, id: &ObjectId) -> bool {
        self.shared.state.lock().entries.get(id).is_some_and(|entry| entry.contest.stands())
    }

    /// What did not fit into the status of an object.
    pub(super) fn left_out(&self, id: &ObjectId, what: &[String]) {
        let wrong = what.iter().map(|what| notices::of_full_list(what)).collect();
        self.change(|state, now| state.board.put(id, Finder::Writer, wrong, now));
    }

    /// The next thing to tell as an event. Whoever takes it says what became of it.
    pub(super) fn next_event(&self) -> Telling {
        let mut state = self.shared.state.lock();
        loop {
            let (id, notice, known) = match state.board.next(Instant::now()) {
                Tell::Now { id, notice, known } => (id, notice, known),
                Tell::At(at) => return Telling::At(at),
                Tell::Nothing => return Telling::Nothing,
            };
            let api_version = state.api_version(id.kind);
            match state.entries.get(&id).and_then(|entry| entry.seen.as_ref()) {
                Some(Seen { uid, .. }) => return Telling::Now { uid: uid.clone(), id, api_version, notice, known },
                // Nobody could find it: an event is about an object of the cluster.
                None => state.board.forget(&id),
            }
        }
    }

    pub(super) fn told(&self, id: &ObjectId, notice: Notice) {
        self.change(|state, now| state.board.told(id, notice, now));
    }

    pub(super) fn not_told(&self, id: &ObjectId) {
        self.change(|state, now| state.board.failed(id, now));
    }

    pub(super) async fn noticed(&self) {
        self.shared.noticed.notified().await;
    }

    /// Until there is reason to ask for the next thing again.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut State, Instant)) {
        change(&mut self.shared.state.lock(), Instant::now());
        self.shared.changed.notify_one();
        self.shared.noticed.notify_one();
    }
}

impl State {
    fn observe(&mut self, id: ObjectId, observed: Option<Observed>, now: Instant) {
        let entry = self.entries.entry(id.clone()).or_default();
        match observed {
            // A watch trails behind the answers to our own writes.
            Some(observed)
                if entry.seen.as_ref().is_some_and(|seen| !seen.is_older_than(&observed.resource_version)) => {}
            Some(observed) => {
                entry.seen = Some(Seen::from(observed));
                entry.stale = false;
                self.touch(&id, now);
            }
            None => {
                entry.seen = None;
                self.board.forget(&id);
                self.forget(&id);
            }
        }
    }

    fn want(&mut self, id: ObjectId, verdict: Option<Arc<Verdict>>, now: Instant) {
        let gone = verdict.is_none();
        let alone = self.alone;
        let wrong = verdict.as_deref().map(|verdict| notices::of_verdict(verdict, alone)).unwrap_or_default();
        self.board.put(&id, Finder::Verdict, wrong, now);
        let entry = self.entries.entry(id.clone()).or_default();
        let counts_only =
            entry.verdict.as_ref().zip(verdict.as_ref()).is_some_and(|(old, new)| differ_in_counts(old, new));
        entry.urgent |= !counts_only;
        entry.verdict = verdict;
        if gone { self.forget(&id) } else { self.touch(&id, now) }
    }

    fn alone(&mut self, alone: bool, now: Instant) {
        if std::mem::replace(&mut self.alone, alone) == alone {
            return;
        }
        for (id, entry) in &self.entries {
            if let Some(verdict) = entry.verdict.as_deref().filter(|verdict| !verdict.missing_parents.is_empty()) {
                if !alone {
                    self.board.unsay(id, notices::GATEWAY_NOT_FOUND);
                }
                self.board.put(id, Finder::Verdict, notices::of_verdict(verdict, alone), now);
            }
        }
    }

    fn lead(&mut self, leading: bool, now: Instant) {
        if self.leading == leading {
            return;
        }
        self.leading = leading;
        self.board.lead(leading, now);
        self.due = Default::default();
        self.in_flight = 0;
        for entry in self.entries.values_mut() {
            entry.due = None;
            entry.in_flight = false;
            entry.again = false;
            entry.failures = 0;
            entry.pace = Pace::default();
            entry.contest = Contest::default();
        }
        if leading {
            let ids: Vec<_> = self.entries.keys().cloned().collect();
            ids.iter().for_each(|id| self.touch(id, now));
        }
    }

    /// Something about an object changed: it is to be compared, as soon as its pace allows.
    fn touch(&mut self, id: &ObjectId, now: Instant) {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| self.leading && entry.is_comparable()) else {
            return;
        };
        let at = entry.pace.changed(now, entry.urgent);
        let earliest = entry.verdict.as_ref().and_then(|verdict| entry.contest.earliest(verdict));
        let at = earliest.map_or(at, |earliest| at.max(earliest));
        if entry.in_flight {
            entry.again = true;
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

    /// Nothing to write; and nothing to remember, if neither side knows the object any more.
    fn forget(&mut self, id: &ObjectId) {
        self.unqueue(id);
        if self.entries.get(id).is_some_and(|entry| entry.seen.is_none() && entry.verdict.is_none() && !entry.in_flight)
        {
            self.entries.remove(id);
        }
    }

    fn next(&mut self, most: usize, now: Instant) -> Next {
        loop {
            let due = self.due.iter().position(|due| due.first().is_some_and(|(at, _)| *at <= now));
            let Some(rank) = due else {
                let first = self.due.iter().filter_map(|due| due.first()).map(|(at, _)| *at).min();
                return first.map_or(Next::Nothing, Next::At);
            };
            if self.in_flight >= most {
                return Next::Nothing;
            }
            let Some((_, id)) = self.due[rank].pop_first() else { return Next::Nothing };
            let api_version = self.api_version(id.kind);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            let Some((seen, verdict)) = entry.comparable() else { continue };
            let job = Job {
                started: now,
                uid: seen.uid.clone(),
                resource_version: seen.resource_version.clone(),
                status: seen.status.clone(),
                verdict: verdict.clone(),
                api_version,
                stale: entry.stale,
                clipped: entry.clipped.clone(),
                id,
            };
            entry.in_flight = true;
            entry.urgent = false;
            self.in_flight += 1;
            return Next::Job(Box::new(job));
        }
    }

    fn done(&mut self, job: &Job, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&job.id).filter(|entry| entry.in_flight) else { return };
        entry.in_flight = false;
        self.in_flight -= 1;
        let mut retry = None;
        let failures = std::mem::take(&mut entry.failures);
        match outcome {
            Outcome::Settled => {}
            Outcome::Fetched(observed) => {
                // Whatever the watch said: after a restore from a backup versions go back.
                entry.stale = false;
                entry.seen = Some(Seen::from(observed));
                entry.again = true;
            }
            Outcome::Written(observed, sent) => {
                entry.pace.wrote(job.started);
                entry.contest.wrote(&job.verdict, now);
                let contested = entry.contest.stands().then(notices::of_contest);
                self.board.put(&job.id, Finder::Rival, contested.into_iter().collect(), now);
                let whole = *observed.status == sent;
                let answer = Seen::from(observed);
                let clipped = Clipped { sent, kept: answer.status.clone() };
                entry.clipped = (!whole).then(|| Arc::new(clipped));
                // The watch may know better meanwhile.
                if entry
                    .seen
                    .as_ref()
                    .is_some_and(|seen| seen.uid == answer.uid && seen.is_older_than(&answer.resource_version))
                {
                    entry.seen = Some(answer);
                }
            }
            Outcome::Conflict => {
                entry.pace.wrote(job.started);
                entry.urgent = true;
                if entry.seen.as_ref().is_some_and(|seen| seen.resource_version == job.resource_version) {
                    // The watch will most likely bring the fresh object at once; if not, it is fetched.
                    entry.stale = true;
                    retry = Some(now + FETCH_AFTER);
                } else {
                    entry.again = true;
                }
            }
            Outcome::Gone => {
                if entry.seen.as_ref().is_some_and(|seen| seen.uid == job.uid) {
                    entry.seen = None;
                } else {
                    entry.again = true;
                }
            }
            Outcome::Failed(wait) => {
                entry.failures = failures.saturating_add(1);
                entry.urgent = true;
                retry = Some(now + backoff(entry.failures, fastrand::f64()).max(wait.unwrap_or_default()));
            }
        }
        let again = std::mem::take(&mut entry.again);
        match retry {
            Some(at) if entry.is_comparable() => self.queue(&job.id, at),
            _ if again => self.touch(&job.id, now),
            _ => {}
        }
        if self.entries.get(&job.id).is_some_and(|entry| entry.seen.is_none() && entry.verdict.is_none()) {
            self.forget(&job.id);
        }
    }

    fn api_version(&self, kind: Kind) -> Arc<str> {
        let installed = self.installed.versions.get(&kind).map(String::as_str);
        installed.or_else(|| kind.versions().first().copied()).unwrap_or("v1").into()
    }
}

impl Entry {
    /// What was seen and what we think of it, if that is about the same spec: a verdict on an older one is not told, the
    /// next is on its way.
    fn comparable(&self) -> Option<(&Seen, &Arc<Verdict>)> {
        let (seen, verdict) = self.seen.as_ref().zip(self.verdict.as_ref())?;
        (verdict.generation >= seen.generation && is_whole(verdict)).then_some((seen, verdict))
    }

    fn is_comparable(&self) -> bool {
        self.comparable().is_some()
    }
}

impl Seen {
    /// Versions are numbers that rise for all API servers there are; where they are not, whatever comes is news.
    fn is_older_than(&self, resource_version: &str) -> bool {
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
fn differ_in_counts(old: &Verdict, new: &Verdict) -> bool {
    let Verdict { generation, conditions, supported_features, addresses, listeners, parents, notes, .. } = old;
    let Verdict { missing_parents, ancestors, load_balancer, sockets, .. } = old;
    let same_listener = |(old, new): (&ListenerVerdict, &ListenerVerdict)| {
        let ListenerVerdict { name, port, attached_routes: _, supported_kinds, sockets, conditions } = old;
        (name, port, supported_kinds) == (&new.name, &new.port, &new.supported_kinds)
            && (sockets, conditions) == (&new.sockets, &new.conditions)
    };
    (generation, conditions, supported_features) == (&new.generation, &new.conditions, &new.supported_features)
        && (addresses, parents) == (&new.addresses, &new.parents)
        && (notes, missing_parents) == (&new.notes, &new.missing_parents)
        && (ancestors, load_balancer, sockets) == (&new.ancestors, &new.load_balancer, &new.sockets)
        && listeners.len() == new.listeners.len()
        && listeners.iter().zip(&new.listeners).all(same_listener)
}

/// Kinds whose status has something of ours, or might have from another version.
fn has_status(kind: Kind) -> bool {
    rank(kind) == 0
        || matches!(kind, Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute)
}

fn rank(kind: Kind) -> usize {
    usize::from(!matches!(kind, Kind::GatewayClass | Kind::Gateway))
}

/// Doubles from 200 ms to 10 s, less up to a half by chance: those that failed together shall not come back together.
fn backoff(failures: u32, chance: f64) -> Duration {
    let longest = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_BACKOFF);
    longest.mul_f64(1.0 - chance / 2.0)
}

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// How long a conflict waits for the watch.
const FETCH_AFTER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
