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

mod bar;
mod contest;
mod entry;
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
use crate::compile::verdict::Verdict;
use crate::k8s::permissions::WITH_STATUS;
use crate::k8s::{Installed, Observed, Refused};

use bar::Bar;
use contest::Contest;
pub(super) use entry::Clipped;
use entry::{Entry, Seen, differ_in_counts};
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
    /// Under which version of the API each kind was last served: one that cannot be read now is written as before.
    api_versions: HashMap<Kind, Arc<str>>,
    barred: HashMap<Kind, Bar>,
    /// Every GatewayClass there is is ours.
    alone: bool,
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
    /// There is no such object, as far as the API server knows; the watch tells.
    Gone,
    /// What was written cannot be right, or somebody does not let it in.
    Refused,
    /// We may not.
    Forbidden,
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

    /// The API server's copy of an object; None if it is gone. True if it is another object than the one that the last
    /// verdict was about: then it is not told of this one, and the next is `want`ed even if it says the same.
    pub fn observe(&self, id: ObjectId, observed: Option<Observed>) -> bool {
        is_told(id.kind) && self.change(|state, now| state.observe(id, observed, now))
    }

    /// What we think of an object; None if it is no longer ours to think about. Only once it is being served.
    pub fn want(&self, id: ObjectId, verdict: Option<Arc<Verdict>>) {
        if is_told(id.kind) {
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
        self.change(|state, _| {
            let versions = installed.versions.iter().map(|(kind, version)| (*kind, Arc::from(version.as_str())));
            state.api_versions.extend(versions);
        });
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

    /// The same, at this time.
    pub(super) fn tell_later(&self, id: &ObjectId, at: Instant) {
        self.change(|state, _| state.board.later(id, at));
    }

    pub(super) async fn noticed(&self) {
        self.shared.noticed.notified().await;
    }

    /// Until there is reason to ask for the next thing again.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let result = change(&mut self.shared.state.lock(), Instant::now());
        self.shared.changed.notify_one();
        self.shared.noticed.notify_one();
        result
    }
}

impl State {
    fn observe(&mut self, id: ObjectId, observed: Option<Observed>, now: Instant) -> bool {
        let entry = self.entries.entry(id.clone()).or_default();
        let succeeds = observed.as_ref().is_some_and(|observed| entry.is_about_another(&observed.uid));
        if succeeds {
            // What was told of the one before is told of this one too.
            self.board.forget(&id);
        }
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
        succeeds
    }

    fn want(&mut self, id: ObjectId, verdict: Option<Arc<Verdict>>, now: Instant) {
        let gone = verdict.is_none();
        let alone = self.alone;
        let wrong = verdict.as_deref().map(|verdict| notices::of_verdict(verdict, alone)).unwrap_or_default();
        self.board.put(&id, Finder::Verdict, wrong, now);
        if !has_status(id.kind) {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        let counts_only =
            entry.verdict.as_ref().zip(verdict.as_ref()).is_some_and(|(old, new)| differ_in_counts(old, new));
        entry.urgent |= !counts_only;
        entry.verdict = verdict;
        entry.judged = entry.seen.as_ref().map(|seen| seen.uid.clone());
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
        self.barred.clear();
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
        if std::mem::take(&mut entry.refused) {
            entry.failures = 0;
        }
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
        if let Some(bar) = self.barred.get_mut(&id.kind) {
            bar.remove(id);
        }
        if self.entries.get(id).is_some_and(|entry| entry.seen.is_none() && entry.verdict.is_none() && !entry.in_flight)
        {
            self.entries.remove(id);
        }
    }

    fn next(&mut self, most: usize, now: Instant) -> Next {
        if self.in_flight < most {
            let try_again = self.barred.values_mut().find(|bar| bar.due().is_some_and(|due| due <= now));
            if let Some(id) = try_again.and_then(Bar::next) {
                self.queue(&id, now);
            }
        }
        loop {
            let due = self.due.iter().position(|due| due.first().is_some_and(|(at, _)| *at <= now));
            let Some(rank) = due else {
                let first = self.due.iter().filter_map(|due| due.first()).map(|(at, _)| *at);
                let first = first.chain(self.barred.values().filter_map(Bar::due)).min();
                return first.map_or(Next::Nothing, Next::At);
            };
            if self.in_flight >= most {
                return Next::Nothing;
            }
            let Some((_, id)) = self.due[rank].pop_first() else { return Next::Nothing };
            let api_version = self.api_version(id.kind);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            if let Some(bar) = self.barred.get_mut(&id.kind).filter(|bar| !bar.is_trying(&id)) {
                bar.put(id);
                continue;
            }
            let Some((seen, verdict)) = entry.comparable() else {
                self.barred.values_mut().for_each(|bar| bar.ended(&id));
                continue;
            };
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
        // Not to be allowed to look at the one is no reason not to write the others.
        let outcome = match outcome {
            Outcome::Forbidden if job.stale => Outcome::Failed(Some(bar::FORBIDDEN)),
            outcome => outcome,
        };
        match (&outcome, self.barred.get_mut(&job.id.kind)) {
            (Outcome::Forbidden, None) => drop(self.barred.insert(job.id.kind, Bar::new(now))),
            (Outcome::Forbidden, Some(bar)) => bar.refused(now),
            _ => {}
        }
        if let Some(bar) = self.barred.get_mut(&job.id.kind) {
            bar.ended(&job.id);
        }
        let proves_permission =
            matches!(outcome, Outcome::Written(..) | Outcome::Conflict | Outcome::Gone | Outcome::Refused);
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
            // The watch ends this, if it is so: a proxy may say the same of what it does not know.
            Outcome::Gone if entry.seen.as_ref().is_some_and(|seen| seen.uid == job.uid) => {
                entry.failures = failures.saturating_add(1);
                retry = Some(now + backoff(entry.failures, LONGEST_BACKOFF, fastrand::f64()));
            }
            Outcome::Gone => entry.again = true,
            Outcome::Refused => {
                entry.failures = failures.saturating_add(1);
                entry.refused = true;
                retry = Some(now + backoff(entry.failures, LONGEST_REFUSED, fastrand::f64()));
            }
            // Its turn comes when the bar says so.
            Outcome::Forbidden => retry = Some(now),
            Outcome::Failed(wait) => {
                entry.failures = failures.saturating_add(1);
                entry.urgent = true;
                retry =
                    Some(now + backoff(entry.failures, LONGEST_BACKOFF, fastrand::f64()).max(wait.unwrap_or_default()));
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
        if proves_permission {
            self.lift(job.id.kind, now);
        }
    }

    /// We may write the status of a kind after all.
    fn lift(&mut self, kind: Kind, now: Instant) {
        for id in self.barred.remove(&kind).into_iter().flat_map(Bar::lift) {
            self.queue(&id, now);
        }
    }

    fn api_version(&self, kind: Kind) -> Arc<str> {
        let known = self.api_versions.get(&kind).cloned();
        known.unwrap_or_else(|| kind.versions().first().copied().unwrap_or("v1").into())
    }
}

/// Kinds whose status has something of ours, or might have from another version.
fn has_status(kind: Kind) -> bool {
    WITH_STATUS.contains(&kind)
}

/// Kinds whose objects are told events as well: that an annotation of a Service means nothing shows nowhere else.
fn is_told(kind: Kind) -> bool {
    has_status(kind) || kind == Kind::Service
}

fn rank(kind: Kind) -> usize {
    usize::from(!matches!(kind, Kind::GatewayClass | Kind::Gateway))
}

/// Doubles from 200 ms to `most`, less up to a half by chance: those that failed together shall not come back together.
fn backoff(failures: u32, most: Duration, chance: f64) -> Duration {
    let longest = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
    longest.mul_f64(1.0 - chance / 2.0)
}

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// For what fails until somebody changes something.
const LONGEST_REFUSED: Duration = Duration::from_secs(300);
/// How long a conflict waits for the watch.
const FETCH_AFTER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
