//! The queue of due events: a problem of an object is reported once, after it has lasted for a second, and so is the
//! end of all its problems. A problem that no condition reports is written again before the API server forgets its
//! event, as long as it lasts. A queue of facts is the same, except that the end of a fact is not reported. The
//! namespaces take turns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::event_rotation::EventRotation;
use super::notices::{self, Notice};
use crate::api::ObjectId;

#[derive(Debug)]
pub(super) struct EventQueue {
    /// Objects with a problem, or whose problems ended and that end is not reported yet.
    entries: HashMap<ObjectId, EventEntry>,
    due: EventRotation,
    leading: bool,
    /// Whether an event says that all problems of an object are resolved.
    reports_end: bool,
    rate: EventRate,
    /// The token bucket that limits the rate of events; one token allows one event.
    tokens: f64,
    last_refill: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct EventRate {
    /// How many events may be written at once after a pause.
    burst: f64,
    per_second: f64,
}

/// The origin of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemOrigin {
    /// The compiler found it.
    Verdict,
    /// The object cannot be parsed.
    Source,
    /// A list in the status is full.
    Writer,
    /// Another controller overwrites the status.
    WriteConflict,
    /// Only this replica has it. It is reported while another replica leads: the problems of the leader are in the
    /// verdict that it reports.
    Replica,
}

#[derive(Debug, Default)]
struct EventEntry {
    /// By [`ProblemOrigin`].
    problems: [BTreeSet<Notice>; 5],
    /// The events that were written, each with the time at which it is written again.
    reported: BTreeMap<Notice, Option<Instant>>,
    due: Option<Instant>,
    /// The problems existed before this replica led, so another replica may have reported them.
    maybe_reported: bool,
}

/// What to report now.
#[derive(Debug)]
pub(super) enum DueEvent {
    /// `known`: another replica may have written this event; an existing one then suffices, whatever its age.
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
        EventQueue::new(PROBLEM_RATE, true)
    }
}

impl EventQueue {
    /// The queue of facts. They are written slowly, because after a start there may be very many.
    pub(super) fn of_facts() -> Self {
        EventQueue::new(FACT_RATE, false)
    }

    fn new(rate: EventRate, reports_end: bool) -> Self {
        EventQueue {
            entries: HashMap::new(),
            due: EventRotation::default(),
            leading: false,
            reports_end,
            rate,
            tokens: rate.burst,
            last_refill: None,
        }
    }

    /// Sets all problems of an object from one origin.
    pub(super) fn set_problems(
        &mut self,
        id: &ObjectId,
        origin: ProblemOrigin,
        problems: BTreeSet<Notice>,
        now: Instant,
    ) {
        if problems.is_empty() && !self.entries.contains_key(id) {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        let stored = &mut entry.problems[origin as usize];
        if *stored == problems {
            return;
        }
        *stored = problems;
        if !entry.has_problems() && entry.reported.is_empty() {
            self.forget(id);
        } else if origin.is_reported(self.leading) {
            self.queue(id, now + SETTLE_TIME);
        }
    }

    /// Forgets that problems with this reason were reported: they no longer concern the object, but are not resolved.
    pub(super) fn withdraw(&mut self, id: &ObjectId, reason: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.reported.retain(|notice, _| notice.reason != reason);
        }
    }

    pub(super) fn forget(&mut self, id: &ObjectId) {
        if let Some(due) = self.entries.remove(id).and_then(|entry| entry.due) {
            self.due.remove(due, id);
        }
    }

    pub(super) fn set_leading(&mut self, leading: bool, now: Instant) {
        self.leading = leading;
        self.due.clear();
        self.entries.retain(|_, entry| entry.has_problems());
        for (id, entry) in &mut self.entries {
            entry.reported.clear();
            entry.maybe_reported = true;
            let is_reportable = entry.reportable(leading).next().is_some();
            entry.due = is_reportable.then_some(now + SETTLE_TIME);
            if let Some(due) = entry.due {
                self.due.insert(due, id.clone());
            }
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> DueEvent {
        loop {
            let Some(due) = self.due.next_time(now) else { return DueEvent::Nothing };
            if due > now {
                return DueEvent::At(due);
            }
            if let Some(wait) = self.take_token(now) {
                return DueEvent::At(now + wait);
            }
            let Some(id) = self.due.take(now) else { return DueEvent::Nothing };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            if let Some((notice, known)) = entry.next_notice(now, self.leading, self.reports_end) {
                return DueEvent::Now { id, notice, known };
            }
            // Without an event, the token goes back.
            self.tokens += 1.0;
            if !entry.has_problems() {
                self.forget(&id);
            } else if let Some(at) = entry.reported.values().flatten().min().copied() {
                self.queue(&id, at);
            }
        }
    }

    /// Records that the event was written, or never will be. `known`: another replica may have written it before.
    pub(super) fn written(&mut self, id: &ObjectId, notice: Notice, known: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if self.reports_end && !notice.warning {
            entry.reported.clear();
        } else {
            let repeated = now + if known { KNOWN_REPEAT_AFTER } else { REPEAT_AFTER };
            let repeated = notice.repeats.then_some(repeated);
            entry.reported.insert(notice, repeated);
        }
        self.queue(id, now);
    }

    /// Retries an event after the time that a new problem has to last.
    pub(super) fn retry_later(&mut self, id: &ObjectId, now: Instant) {
        self.queue(id, now + SETTLE_TIME);
    }

    /// Defers the event of an object, and puts its token back.
    pub(super) fn defer(&mut self, id: &ObjectId, at: Instant) {
        self.tokens = (self.tokens + 1.0).min(self.rate.burst);
        self.queue(id, at);
    }

    /// Queues an object, unless it is queued for an earlier time.
    fn queue(&mut self, id: &ObjectId, at: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        match entry.due {
            Some(due) if due <= at => return,
            Some(due) => self.due.remove(due, id),
            None => {}
        }
        entry.due = Some(at);
        self.due.insert(at, id.clone());
    }

    /// None if a token was taken; otherwise the time until the next one.
    pub(super) fn take_token(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = self.last_refill.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_refill = Some(now);
        let EventRate { burst, per_second } = self.rate;
        self.tokens = (self.tokens + elapsed.as_secs_f64() * per_second).min(burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        // A millisecond more, so that after rounding there is surely a token.
        Some(Duration::from_secs_f64((1.0 - self.tokens) / per_second) + Duration::from_millis(1))
    }
}

impl ProblemOrigin {
    fn is_reported(self, leading: bool) -> bool {
        (self == ProblemOrigin::Replica) != leading
    }
}

impl EventEntry {
    /// The problems that this replica reports.
    fn reportable(&self, leading: bool) -> impl Iterator<Item = &Notice> {
        let (of_replica, others) = (&self.problems[ProblemOrigin::Replica as usize], &self.problems[..4]);
        let reported = if leading { others } else { std::slice::from_ref(of_replica) };
        reported.iter().flatten()
    }

    fn has_problems(&self) -> bool {
        !self.problems.iter().all(BTreeSet::is_empty)
    }

    /// The next event, and whether another replica may have written it.
    fn next_notice(&mut self, now: Instant, leading: bool, reports_end: bool) -> Option<(Notice, bool)> {
        let current: BTreeSet<Notice> = self.reportable(leading).cloned().collect();
        if current.is_empty() {
            if !leading || !reports_end {
                // Only the leader knows whether all problems of an object are resolved.
                self.reported.clear();
            }
            return (!self.reported.is_empty()).then(|| (notices::resolved(), false));
        }
        self.reported.retain(|notice, _| current.contains(notice));
        let unreported = current.iter().find(|notice| !self.reported.contains_key(*notice));
        // Once everything is reported, later problems are new.
        self.maybe_reported &= unreported.is_some();
        let is_due = |notice: &&Notice| self.reported.get(*notice).copied().flatten().is_some_and(|at| at <= now);
        let next = unreported.map(|notice| (notice, self.maybe_reported));
        next.or_else(|| Some((current.iter().find(is_due)?, false))).map(|(notice, known)| (notice.clone(), known))
    }
}

/// How long a problem has to last: a route is often applied a moment before the Service that it refers to.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// After how long the event of a lasting problem is written again: the API server forgets events after an hour by
/// default.
const REPEAT_AFTER: Duration = Duration::from_secs(40 * 60);
/// The same for an event that another replica wrote up to [`REPEAT_AFTER`] ago.
const KNOWN_REPEAT_AFTER: Duration = Duration::from_secs(15 * 60);
const PROBLEM_RATE: EventRate = EventRate { burst: 25.0, per_second: 5.0 };
const FACT_RATE: EventRate = EventRate { burst: 5.0, per_second: 1.0 };

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::api::{Kind, ObjectKey};

    fn id(name: &str) -> ObjectId {
        ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name))
    }

    fn problems(notes: &[&str]) -> BTreeSet<Notice> {
        let notice = |note: &&str| Notice { warning: true, reason: "R", note: (*note).to_owned(), repeats: false };
        notes.iter().map(notice).collect()
    }

    /// Writes all events that are due within this time. Returns each as its object's name followed by its note.
    async fn written_within(queue: &mut EventQueue, duration: Duration) -> Vec<String> {
        let end = Instant::now() + duration;
        let mut notes = Vec::new();
        loop {
            match queue.next(Instant::now()) {
                DueEvent::Now { id, notice, known } => {
                    notes.push(format!("{}{}{}", id.key.name, notice.note, if known { " known" } else { "" }));
                    queue.written(&id, notice, known, Instant::now());
                }
                DueEvent::At(at) if at <= end => advance(at - Instant::now()).await,
                DueEvent::At(_) | DueEvent::Nothing => {
                    advance(end.saturating_duration_since(Instant::now())).await;
                    return notes;
                }
            }
        }
    }

    /// The event at the end of all problems of object `a`.
    const RESOLVED: &str = "aAll reported problems are resolved.";

    #[tokio::test(start_paused = true)]
    async fn lasting_problems_and_their_end_are_reported_once() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        let second = Duration::from_secs(1);
        for (updates, expected) in [
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
            for notes in updates {
                queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(notes), Instant::now());
            }
            assert_eq!(written_within(&mut queue, 2 * second).await, expected, "{updates:?}");
        }
        assert!(queue.entries.is_empty() && queue.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn origins_do_not_clear_problems_of_others() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&["1"]), Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Source, problems(&["2"]), Instant::now());
        assert_eq!(written_within(&mut queue, Duration::from_secs(2)).await, ["a1", "a2"]);
        queue.set_problems(&id("a"), ProblemOrigin::Source, problems(&[]), Instant::now());
        assert_eq!(written_within(&mut queue, Duration::from_secs(2)).await, [] as [&str; 0]);
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&[]), Instant::now());
        assert_eq!(written_within(&mut queue, Duration::from_secs(2)).await, [RESOLVED]);
    }

    #[tokio::test(start_paused = true)]
    async fn withdrawn_problems_are_not_reported_as_resolved() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&["1"]), Instant::now());
        assert_eq!(written_within(&mut queue, Duration::from_secs(2)).await, ["a1"]);
        queue.withdraw(&id("a"), "R");
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&[]), Instant::now());
        assert_eq!(written_within(&mut queue, Duration::from_secs(2)).await, [] as [&str; 0]);
        assert!(queue.entries.is_empty() && queue.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_leader_reports_and_a_new_one_marks_old_problems() {
        let mut queue = EventQueue::default();
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&["1", "2"]), Instant::now());
        assert!(written_within(&mut queue, Duration::from_secs(2)).await.is_empty());
        queue.set_leading(true, Instant::now());
        assert_eq!(written_within(&mut queue, Duration::from_secs(2)).await, ["a1 known", "a2 known"]);
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&["2", "3"]), Instant::now());
        assert_eq!(written_within(&mut queue, Duration::from_secs(2)).await, ["a3"]);
        queue.set_leading(false, Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&["4"]), Instant::now());
        assert!(written_within(&mut queue, Duration::from_secs(2)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_do_not_lead_report_their_own_problems_only() {
        let mut queue = EventQueue::default();
        let second = Duration::from_secs(1);
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&["1"]), Instant::now());
        queue.set_problems(&id("a"), ProblemOrigin::Replica, problems(&["2"]), Instant::now());
        assert_eq!(written_within(&mut queue, 2 * second).await, ["a2"]);
        queue.set_problems(&id("a"), ProblemOrigin::Replica, problems(&[]), Instant::now());
        assert_eq!(written_within(&mut queue, 2 * second).await, [""; 0], "the leader reports the end");
        queue.set_problems(&id("a"), ProblemOrigin::Replica, problems(&["3"]), Instant::now());
        assert_eq!(written_within(&mut queue, 2 * second).await, ["a3"]);
        queue.set_leading(true, Instant::now());
        assert_eq!(written_within(&mut queue, 2 * second).await, ["a1 known"]);
        queue.set_problems(&id("a"), ProblemOrigin::Replica, problems(&["4"]), Instant::now());
        assert_eq!(written_within(&mut queue, 2 * second).await, [""; 0]);
    }

    /// Otherwise, one tenant with many broken objects delays the events of all others for as long as its own take.
    #[tokio::test(start_paused = true)]
    async fn events_of_one_namespace_do_not_delay_those_of_others() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        for number in 0..1000 {
            queue.set_problems(&id(&number.to_string()), ProblemOrigin::Verdict, problems(&["x"]), Instant::now());
        }
        written_within(&mut queue, Duration::from_secs(5)).await;
        let other = ObjectId::new(Kind::HttpRoute, ObjectKey::new("other", "only"));
        queue.set_problems(&other, ProblemOrigin::Verdict, problems(&["x"]), Instant::now());
        let written = written_within(&mut queue, Duration::from_secs(2)).await;
        assert!(written.iter().any(|note| note == "onlyx"), "{written:?}");
    }

    /// `kubectl describe` said nothing about an Ingress that still responded with 503, since its events had expired.
    #[tokio::test(start_paused = true)]
    async fn lasting_problems_without_a_condition_are_repeated_before_their_events_expire() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let lasting = || Notice { repeats: true, ..problems(&["1"]).pop_first().unwrap() };
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        let both: BTreeSet<Notice> = problems(&["in a condition"]).into_iter().chain([lasting()]).collect();
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, both.clone(), Instant::now());
        assert_eq!(written_within(&mut queue, minutes(39)).await, ["a1", "ain a condition"]);
        assert_eq!(written_within(&mut queue, minutes(80)).await, ["a1", "a1"], "two hours have one event in each");
        let new: BTreeSet<Notice> = both.clone().into_iter().chain(problems(&["2"])).collect();
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, new, Instant::now());
        assert_eq!(written_within(&mut queue, minutes(1)).await, ["a2"], "a new problem does not wait");
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, both, Instant::now());
        assert_eq!(written_within(&mut queue, minutes(40)).await, ["a1"]);
        // Another replica may have written the event up to 40 minutes ago.
        queue.set_leading(true, Instant::now());
        assert_eq!(written_within(&mut queue, minutes(14)).await, ["a1 known", "ain a condition known"]);
        assert_eq!(written_within(&mut queue, minutes(2)).await, ["a1"]);
        queue.set_problems(&id("a"), ProblemOrigin::Verdict, problems(&[]), Instant::now());
        assert_eq!(written_within(&mut queue, minutes(120)).await, [RESOLVED]);
        assert!(queue.entries.is_empty() && queue.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn event_rate_is_limited() {
        let mut queue = EventQueue::default();
        queue.set_leading(true, Instant::now());
        for number in 0..1000 {
            queue.set_problems(&id(&number.to_string()), ProblemOrigin::Verdict, problems(&["x"]), Instant::now());
        }
        let in_ten_seconds = written_within(&mut queue, Duration::from_secs(10)).await.len();
        assert!((65..=75).contains(&in_ten_seconds), "{in_ten_seconds}");
    }
}
