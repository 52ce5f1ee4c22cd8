//! The queue of due events: a problem of an object is reported once, after it has lasted for a moment, and so is its
//! end.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::notices::{self, Notice};
use crate::api::ObjectId;

#[derive(Debug)]
pub(super) struct EventQueue {
    /// Objects with a problem, or with one until a moment ago.
    entries: HashMap<ObjectId, EventEntry>,
    due: BTreeSet<(Instant, ObjectId)>,
    leading: bool,
    /// The token bucket that limits the rate of events.
    tokens: f64,
    refilled: Option<Instant>,
}

/// The origin of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemOrigin {
    Verdict,
    Source,
    Writer,
    WriteConflict,
}

#[derive(Debug, Default)]
struct EventEntry {
    problems: [BTreeSet<Notice>; 4],
    reported: BTreeSet<Notice>,
    due: Option<Instant>,
    /// The problem existed before this replica led, so another one may have reported it.
    maybe_reported: bool,
}

/// What to report now.
#[derive(Debug)]
pub(super) enum DueEvent {
    /// `known`: an existing event of any age suffices.
    Now {
        id: ObjectId,
        notice: Notice,
        known: bool,
    },
    At(Instant),
    Nothing,
}

impl Default for EventQueue {
    fn default() -> Self {
        EventQueue { entries: HashMap::new(), due: BTreeSet::new(), leading: false, tokens: BURST, refilled: None }
    }
}

impl EventQueue {
    /// Sets all problems of an object from one origin.
    pub(super) fn set_problems(&mut self, id: &ObjectId, finder: ProblemOrigin, wrong: BTreeSet<Notice>, now: Instant) {
        if wrong.is_empty() && !self.entries.contains_key(id) {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        let known = &mut entry.problems[finder as usize];
        if *known == wrong {
            return;
        }
        *known = wrong;
        if entry.is_empty() && entry.reported.is_empty() {
            self.forget(id);
        } else if self.leading {
            self.queue(id, now + SETTLE_TIME);
        }
    }

    /// Drops reported problems of this reason: they no longer concern the object, which does not mean that they were
    /// resolved.
    pub(super) fn withdraw(&mut self, id: &ObjectId, reason: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.reported.retain(|notice| notice.reason != reason);
        }
    }

    pub(super) fn forget(&mut self, id: &ObjectId) {
        if let Some(due) = self.entries.remove(id).and_then(|entry| entry.due) {
            self.due.remove(&(due, id.clone()));
        }
    }

    pub(super) fn set_leading(&mut self, leading: bool, now: Instant) {
        self.leading = leading;
        self.due.clear();
        self.entries.retain(|_, entry| !entry.is_empty());
        for (id, entry) in &mut self.entries {
            entry.reported.clear();
            entry.maybe_reported = true;
            entry.due = leading.then_some(now + SETTLE_TIME);
            self.due.extend(entry.due.map(|due| (due, id.clone())));
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> DueEvent {
        loop {
            let Some((due, id)) = self.due.first().cloned() else { return DueEvent::Nothing };
            if due > now {
                return DueEvent::At(due);
            }
            if let Some(wait) = self.take_token(now) {
                return DueEvent::At(now + wait);
            }
            self.due.remove(&(due, id.clone()));
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            if let Some((notice, known)) = entry.next_notice() {
                return DueEvent::Now { id, notice, known };
            }
            self.tokens += 1.0;
            if entry.is_empty() {
                self.forget(&id);
            }
        }
    }

    /// The event was written, or never will be.
    pub(super) fn written(&mut self, id: &ObjectId, notice: Notice, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if notice.warning {
            entry.reported.insert(notice);
        } else {
            entry.reported.clear();
        }
        if self.leading {
            self.queue(id, now);
        }
    }

    /// Retries later.
    pub(super) fn retry_later(&mut self, id: &ObjectId, now: Instant) {
        if self.leading {
            self.queue(id, now + SETTLE_TIME);
        }
    }

    /// Defers the event and returns its token.
    pub(super) fn defer(&mut self, id: &ObjectId, at: Instant) {
        self.tokens = (self.tokens + 1.0).min(BURST);
        if self.leading {
            self.queue(id, at);
        }
    }

    fn queue(&mut self, id: &ObjectId, at: Instant) {
        if let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.due.is_none()) {
            entry.due = Some(at);
            self.due.insert((at, id.clone()));
        }
    }

    /// None if a token was taken; otherwise the time until the next one.
    fn take_token(&mut self, now: Instant) -> Option<Duration> {
        let since = self.refilled.map_or(Duration::ZERO, |refilled| now.saturating_duration_since(refilled));
        self.refilled = Some(now);
        self.tokens = (self.tokens + since.as_secs_f64() * PER_SECOND).min(BURST);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        // A little longer than necessary, so that rounding does not cost a second attempt.
        Some(Duration::from_secs_f64((1.0 - self.tokens) / PER_SECOND) + Duration::from_millis(1))
    }
}

impl EventEntry {
    fn is_empty(&self) -> bool {
        self.problems.iter().all(BTreeSet::is_empty)
    }

    /// The next event, and whether another replica may have written it.
    fn next_notice(&mut self) -> Option<(Notice, bool)> {
        if self.is_empty() {
            return (!self.reported.is_empty()).then(|| (notices::resolved(), false));
        }
        let current: BTreeSet<&Notice> = self.problems.iter().flatten().collect();
        self.reported.retain(|notice| current.contains(notice));
        let unreported = current.into_iter().find(|notice| !self.reported.contains(*notice)).cloned();
        // Once everything is reported, later problems are new.
        self.maybe_reported &= unreported.is_some();
        unreported.map(|notice| (notice, self.maybe_reported))
    }
}

/// How long a problem has to last: a route is often applied a moment before the Service that it refers to.
const SETTLE_TIME: Duration = Duration::from_secs(1);
const BURST: f64 = 25.0;
const PER_SECOND: f64 = 5.0;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::api::{Kind, ObjectKey};

    fn id(name: &str) -> ObjectId {
        ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name))
    }

    fn wrong(notes: &[&str]) -> BTreeSet<Notice> {
        let notice = |note: &&str| Notice { warning: true, reason: "R", note: (*note).to_owned() };
        notes.iter().map(notice).collect()
    }

    /// All events within this time.
    async fn told(queue: &mut EventQueue, within: Duration) -> Vec<String> {
        let end = Instant::now() + within;
        let mut notes = Vec::new();
        loop {
            match queue.next(Instant::now()) {
                DueEvent::Now { id, notice, known } => {
                    notes.push(format!("{}{}{}", id.key.name, notice.note, if known { " known" } else { "" }));
                    queue.written(&id, notice, Instant::now());
                }
                DueEvent::At(at) if at <= end => advance(at - Instant::now()).await,
                DueEvent::At(_) | DueEvent::Nothing => {
                    advance(end.saturating_duration_since(Instant::now())).await;
                    return notes;
                }
            }
        }
    }

    const RESOLVED: &str = "aAll reported problems are resolved.";

    #[tokio::test(start_paused = true)]
    async fn lasting_problems_and_their_end_are_reported_once() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        let second = Duration::from_secs(1);
        for (puts, expected) in [
            (&[&["1"] as &[&str]] as &[&[&str]], &["a1"] as &[&str]),
            (&[&["1"]], &[]),
            (&[&["1", "2"]], &["a2"]),
            (&[&["2"]], &[]),
            (&[&["1", "2"]], &["a1"]),
            (&[&[]], &[RESOLVED]),
            (&[&[]], &[]),
            // Gone before a user could have acted on it.
            (&[&["3"], &[]], &[]),
            (&[&["4"], &[], &["4"]], &["a4"]),
            (&[&[], &["4"]], &[]),
            (&[&[]], &[RESOLVED]),
        ] {
            for notes in puts {
                queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(notes), Instant::now());
            }
            assert_eq!(told(&mut queue, 2 * second).await, expected, "{puts:?}");
        }
        assert!(queue.entries.is_empty() && queue.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn origins_do_not_clear_problems_of_others() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(&["1"]), Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Source, wrong(&["2"]), Instant::now());
        assert_eq!(told(&mut queue, Duration::from_secs(2)).await, ["a1", "a2"]);
        queue.set_problems(&id("a"), ProblemOrigin::Source, wrong(&[]), Instant::now());
        assert_eq!(told(&mut queue, Duration::from_secs(2)).await, [] as [&str; 0]);
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(&[]), Instant::now());
        assert_eq!(told(&mut queue, Duration::from_secs(2)).await, [RESOLVED]);
    }

    #[tokio::test(start_paused = true)]
    async fn withdrawn_problems_are_not_reported_as_resolved() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(&["1"]), Instant::now());
        assert_eq!(told(&mut queue, Duration::from_secs(2)).await, ["a1"]);
        queue.withdraw(&id("a"), "R");
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(&[]), Instant::now());
        assert_eq!(told(&mut queue, Duration::from_secs(2)).await, [] as [&str; 0]);
        assert!(queue.entries.is_empty() && queue.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_leader_reports_and_a_new_one_marks_old_problems() {
        let mut queue = EventQueue::default();
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(&["1", "2"]), Instant::now());
        assert!(told(&mut queue, Duration::from_secs(2)).await.is_empty());
        queue.set_leading(true, Instant::now());
        assert_eq!(told(&mut queue, Duration::from_secs(2)).await, ["a1 known", "a2 known"]);
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(&["2", "3"]), Instant::now());
        assert_eq!(told(&mut queue, Duration::from_secs(2)).await, ["a3"]);
        queue.set_leading(false, Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, wrong(&["4"]), Instant::now());
        assert!(told(&mut queue, Duration::from_secs(2)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn event_rate_is_limited() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        for number in 0..1000 {
            queue.set_problems(&id(&number.to_string()), ProblemOrigin::Verdict, wrong(&["x"]), Instant::now());
        }
        let in_ten_seconds = told(&mut queue, Duration::from_secs(10)).await.len();
        assert!((65..=75).contains(&in_ten_seconds), "{in_ten_seconds}");
    }
}
