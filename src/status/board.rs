//! Which events are due: what is wrong with an object is told once it has stood for a moment, once, and so is its end.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::notices::{self, Notice};
use crate::api::ObjectId;

#[derive(Debug)]
pub(super) struct Board {
    /// Objects with which something is wrong, or was until a moment ago.
    entries: HashMap<ObjectId, Entry>,
    due: BTreeSet<(Instant, ObjectId)>,
    leading: bool,
    /// Events that may be told at once; more come with time.
    tokens: f64,
    refilled: Option<Instant>,
}

/// Who found something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finder {
    Verdict,
    Source,
    Writer,
    Rival,
}

#[derive(Debug, Default)]
struct Entry {
    wrong: [BTreeSet<Notice>; 4],
    told: BTreeSet<Notice>,
    due: Option<Instant>,
    /// It stood before we led, so another replica may have told it.
    known: bool,
}

/// What to tell now.
#[derive(Debug)]
pub(super) enum Tell {
    /// `known`: it is enough if there is such an event, however old.
    Now {
        id: ObjectId,
        notice: Notice,
        known: bool,
    },
    At(Instant),
    Nothing,
}

impl Default for Board {
    fn default() -> Self {
        Board { entries: HashMap::new(), due: BTreeSet::new(), leading: false, tokens: BURST, refilled: None }
    }
}

impl Board {
    /// Everything that one finder finds wrong with an object.
    pub(super) fn put(&mut self, id: &ObjectId, finder: Finder, wrong: BTreeSet<Notice>, now: Instant) {
        if wrong.is_empty() && !self.entries.contains_key(id) {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        let known = &mut entry.wrong[finder as usize];
        if *known == wrong {
            return;
        }
        *known = wrong;
        if entry.is_empty() && entry.told.is_empty() {
            self.forget(id);
        } else if self.leading {
            self.queue(id, now + SETTLE);
        }
    }

    /// What was told for this reason is nobody's business any more, which does not mean that it was mended.
    pub(super) fn unsay(&mut self, id: &ObjectId, reason: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.told.retain(|notice| notice.reason != reason);
        }
    }

    pub(super) fn forget(&mut self, id: &ObjectId) {
        if let Some(due) = self.entries.remove(id).and_then(|entry| entry.due) {
            self.due.remove(&(due, id.clone()));
        }
    }

    pub(super) fn lead(&mut self, leading: bool, now: Instant) {
        self.leading = leading;
        self.due.clear();
        self.entries.retain(|_, entry| !entry.is_empty());
        for (id, entry) in &mut self.entries {
            entry.told.clear();
            entry.known = true;
            entry.due = leading.then_some(now + SETTLE);
            self.due.extend(entry.due.map(|due| (due, id.clone())));
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> Tell {
        loop {
            let Some((due, id)) = self.due.first().cloned() else { return Tell::Nothing };
            if due > now {
                return Tell::At(due);
            }
            if let Some(wait) = self.take_token(now) {
                return Tell::At(now + wait);
            }
            self.due.remove(&(due, id.clone()));
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.due = None;
            if let Some((notice, known)) = entry.news() {
                return Tell::Now { id, notice, known };
            }
            self.tokens += 1.0;
            if entry.is_empty() {
                self.forget(&id);
            }
        }
    }

    /// It was told, or will never be.
    pub(super) fn told(&mut self, id: &ObjectId, notice: Notice, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if notice.warning {
            entry.told.insert(notice);
        } else {
            entry.told.clear();
        }
        if self.leading {
            self.queue(id, now);
        }
    }

    /// To be told later.
    pub(super) fn failed(&mut self, id: &ObjectId, now: Instant) {
        if self.leading {
            self.queue(id, now + SETTLE);
        }
    }

    /// Not now, and it costs nobody anything.
    pub(super) fn later(&mut self, id: &ObjectId, at: Instant) {
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

    /// None if there was one; else how long it takes until there is.
    fn take_token(&mut self, now: Instant) -> Option<Duration> {
        let since = self.refilled.map_or(Duration::ZERO, |refilled| now.saturating_duration_since(refilled));
        self.refilled = Some(now);
        self.tokens = (self.tokens + since.as_secs_f64() * PER_SECOND).min(BURST);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        // A little more than it takes, so that rounding does not make two turns of it.
        Some(Duration::from_secs_f64((1.0 - self.tokens) / PER_SECOND) + Duration::from_millis(1))
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.wrong.iter().all(BTreeSet::is_empty)
    }

    /// The next thing to tell, and whether another replica may have done so.
    fn news(&mut self) -> Option<(Notice, bool)> {
        if self.is_empty() {
            return (!self.told.is_empty()).then(|| (notices::mended(), false));
        }
        let standing: BTreeSet<&Notice> = self.wrong.iter().flatten().collect();
        self.told.retain(|notice| standing.contains(notice));
        let news = standing.into_iter().find(|notice| !self.told.contains(*notice)).cloned();
        // Once all is told, whatever comes is news.
        self.known &= news.is_some();
        news.map(|notice| (notice, self.known))
    }
}

/// So long something has to be wrong: a route is often applied a moment before the Service that it names.
const SETTLE: Duration = Duration::from_secs(1);
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

    /// Everything that is told within this time.
    async fn told(board: &mut Board, within: Duration) -> Vec<String> {
        let end = Instant::now() + within;
        let mut notes = Vec::new();
        loop {
            match board.next(Instant::now()) {
                Tell::Now { id, notice, known } => {
                    notes.push(format!("{}{}{}", id.key.name, notice.note, if known { " known" } else { "" }));
                    board.told(&id, notice, Instant::now());
                }
                Tell::At(at) if at <= end => advance(at - Instant::now()).await,
                Tell::At(_) | Tell::Nothing => {
                    advance(end.saturating_duration_since(Instant::now())).await;
                    return notes;
                }
            }
        }
    }

    const MENDED: &str = "aEverything that was wrong with it is right now.";

    #[tokio::test(start_paused = true)]
    async fn what_stands_is_told_once_and_so_is_its_end() {
        let mut board = Board::default();
        board.lead(true, Instant::now());
        let second = Duration::from_secs(1);
        for (puts, expected) in [
            (&[&["1"] as &[&str]] as &[&[&str]], &["a1"] as &[&str]),
            (&[&["1"]], &[]),
            (&[&["1", "2"]], &["a2"]),
            (&[&["2"]], &[]),
            (&[&["1", "2"]], &["a1"]),
            (&[&[]], &[MENDED]),
            (&[&[]], &[]),
            // Gone before anybody could have acted on it.
            (&[&["3"], &[]], &[]),
            (&[&["4"], &[], &["4"]], &["a4"]),
            (&[&[], &["4"]], &[]),
            (&[&[]], &[MENDED]),
        ] {
            for notes in puts {
                board.put(&id("a"), Finder::Verdict, wrong(notes), Instant::now());
            }
            assert_eq!(told(&mut board, 2 * second).await, expected, "{puts:?}");
        }
        assert!(board.entries.is_empty() && board.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn finders_do_not_take_back_what_others_found() {
        let mut board = Board::default();
        board.lead(true, Instant::now());
        board.put(&id("a"), Finder::Verdict, wrong(&["1"]), Instant::now());
        board.put(&id("a"), Finder::Source, wrong(&["2"]), Instant::now());
        assert_eq!(told(&mut board, Duration::from_secs(2)).await, ["a1", "a2"]);
        board.put(&id("a"), Finder::Source, wrong(&[]), Instant::now());
        assert_eq!(told(&mut board, Duration::from_secs(2)).await, [] as [&str; 0]);
        board.put(&id("a"), Finder::Verdict, wrong(&[]), Instant::now());
        assert_eq!(told(&mut board, Duration::from_secs(2)).await, [MENDED]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_nobodys_business_any_more_is_not_called_mended() {
        let mut board = Board::default();
        board.lead(true, Instant::now());
        board.put(&id("a"), Finder::Verdict, wrong(&["1"]), Instant::now());
        assert_eq!(told(&mut board, Duration::from_secs(2)).await, ["a1"]);
        board.unsay(&id("a"), "R");
        board.put(&id("a"), Finder::Verdict, wrong(&[]), Instant::now());
        assert_eq!(told(&mut board, Duration::from_secs(2)).await, [] as [&str; 0]);
        assert!(board.entries.is_empty() && board.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_leader_tells_and_a_new_one_knows_what_may_have_been_told() {
        let mut board = Board::default();
        board.put(&id("a"), Finder::Verdict, wrong(&["1", "2"]), Instant::now());
        assert!(told(&mut board, Duration::from_secs(2)).await.is_empty());
        board.lead(true, Instant::now());
        assert_eq!(told(&mut board, Duration::from_secs(2)).await, ["a1 known", "a2 known"]);
        board.put(&id("a"), Finder::Verdict, wrong(&["2", "3"]), Instant::now());
        assert_eq!(told(&mut board, Duration::from_secs(2)).await, ["a3"]);
        board.lead(false, Instant::now());
        board.put(&id("a"), Finder::Verdict, wrong(&["4"]), Instant::now());
        assert!(told(&mut board, Duration::from_secs(2)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_has_its_rate() {
        let mut board = Board::default();
        board.lead(true, Instant::now());
        for number in 0..1000 {
            board.put(&id(&number.to_string()), Finder::Verdict, wrong(&["x"]), Instant::now());
        }
        let in_ten_seconds = told(&mut board, Duration::from_secs(10)).await.len();
        assert!((65..=75).contains(&in_ten_seconds), "{in_ten_seconds}");
    }
}
