//! How each watch fares: who has listed, who fails and why. The supervisor is woken by every change that may matter to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Error;
use kube::runtime::watcher;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::describe;
use super::collect::Scope;
use crate::api::Kind;

/// All watches of ours.
#[derive(Debug, Default)]
pub(super) struct Board {
    watches: Mutex<BTreeMap<Watched, State>>,
    counts: BTreeMap<Kind, Counts>,
    changed: Notify,
}

/// What a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watched {
    Objects(Scope),
    Crds,
}

#[derive(Clone, Debug, Default)]
struct State {
    listed: bool,
    /// Since when what is known may be out of date: it was not listed yet, or it fails.
    stale: Option<Instant>,
    /// Since when it fails without a break, other than because the server asks to wait.
    failing: Option<Instant>,
    /// Since when the server asks to wait, whatever else it says in between.
    busy: Option<Instant>,
    /// It could not be read before its first list. Nothing but that list takes this back: what is guarded by objects that
    /// nobody has seen stays closed, however the reasons change.
    unseen: bool,
    trouble: Option<Trouble>,
    /// How often in a row it was forbidden.
    refusals: u32,
}

/// Since the start, of one kind.
#[derive(Debug, Default)]
struct Counts {
    events: AtomicU64,
    lists: AtomicU64,
}

/// Why a watch does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) message: String,
    /// 403: we may not.
    pub(super) forbidden: bool,
    /// 404: the kind is not served, or not any more.
    pub(super) absent: bool,
    /// 401: nobody knows us.
    pub(super) unauthorized: bool,
    /// What has to begin anew with a list, as is usual after a long pause.
    pub(super) expired: bool,
    /// 429: the server has too much to do, and says nothing of what was asked for.
    pub(super) busy: bool,
    /// As the server asks.
    pub(super) retry_after: Duration,
}

impl Board {
    pub(super) fn new() -> Arc<Board> {
        let counts = Kind::ALL.iter().map(|kind| (*kind, Counts::default())).collect();
        Arc::new(Board { counts, ..Board::default() })
    }

    /// What one watch tells us with.
    pub(super) fn health(self: &Arc<Self>, watched: Watched) -> Health {
        let state = State { stale: Some(Instant::now()), ..State::default() };
        self.watches.lock().insert(watched.clone(), state);
        Health { board: self.clone(), watched }
    }

    pub(super) fn remove(&self, watched: &Watched) {
        self.watches.lock().remove(watched);
    }

    /// Waits until something changed since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Why each kind that cannot be read cannot. A failure that may be over in a moment is none yet.
    pub(super) fn unreadable(&self) -> BTreeMap<Kind, Trouble> {
        let watches = self.watches.lock();
        let failing = watches.iter().filter_map(|(watched, state)| match (watched, &state.trouble) {
            (Watched::Objects(scope), Some(trouble)) if state.is_unreadable() => Some((scope.kind, trouble.clone())),
            _ => None,
        });
        failing.collect()
    }

    /// Kinds that were not listed yet, although nothing keeps them from it.
    pub(super) fn unlisted(&self) -> Vec<Kind> {
        let watches = self.watches.lock();
        let mut kinds: Vec<_> = watches
            .iter()
            .filter_map(|(watched, state)| match watched {
                Watched::Objects(scope) if !state.listed && !state.settled() => Some(scope.kind),
                _ => None,
            })
            .collect();
        kinds.dedup();
        kinds
    }

    /// Kinds of which at least a part was never listed and could not be read.
    pub(super) fn unknown(&self) -> BTreeSet<Kind> {
        let mut watches = self.watches.lock();
        let unseen = watches.iter_mut().filter_map(|(watched, state)| {
            state.unseen = !state.listed && (state.unseen || state.is_unreadable());
            match watched {
                Watched::Objects(scope) if state.unseen => Some(scope.kind),
                _ => None,
            }
        });
        unseen.collect()
    }

    /// Forgets since when watches fail: it was the server's fault, which is over.
    pub(super) fn pardon(&self) {
        for state in self.watches.lock().values_mut() {
            (state.failing, state.busy) = (None, None);
        }
    }

    /// Whether a watch fails for a reason that the server may give to all of them.
    pub(super) fn suspects_outage(&self) -> bool {
        let watches = self.watches.lock();
        watches
            .values()
            .filter_map(|state| state.trouble.as_ref())
            .any(|trouble| !trouble.forbidden && !trouble.expired)
    }

    /// Why CRDs may not be watched, if so.
    pub(super) fn crds_forbidden(&self) -> Option<String> {
        let watches = self.watches.lock();
        let state = watches.get(&Watched::Crds)?;
        // A server that starts may refuse everything for a moment, and what follows from this shows in statuses.
        let trouble = state.trouble.as_ref().filter(|trouble| trouble.forbidden && state.refusals > 1)?;
        Some(trouble.message.clone())
    }

    /// How old what is known of a kind may be, by its oldest watch. None if it is not watched.
    pub(super) fn age(&self, kind: Kind) -> Option<Duration> {
        let watches = self.watches.lock();
        let ages = watches.iter().filter_map(|(watched, state)| match watched {
            Watched::Objects(scope) if scope.kind == kind => {
                Some(state.stale.map_or(Duration::ZERO, |since| since.elapsed()))
            }
            _ => None,
        });
        ages.max()
    }

    /// Events seen, and lists begun anew.
    pub(super) fn counts(&self, kind: Kind) -> (u64, u64) {
        let counts = &self.counts[&kind];
        (counts.events.load(Ordering::Relaxed), counts.lists.load(Ordering::Relaxed))
    }
}

impl State {
    /// It is more than a moment of weakness.
    fn lasts(&self) -> bool {
        let for_long = |since: Option<Instant>, long| since.is_some_and(|since| since.elapsed() >= long);
        for_long(self.failing, LASTING) || for_long(self.busy, BUSY)
    }

    fn is_unreadable(&self) -> bool {
        self.lasts() || self.trouble.as_ref().is_some_and(|trouble| trouble.forbidden)
    }

    /// It will not be listed, so nobody need wait for it.
    fn settled(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.forbidden || trouble.absent)
    }
}

/// The end of the board that a watch has.
#[derive(Debug)]
pub(super) struct Health {
    board: Arc<Board>,
    watched: Watched,
}

impl Health {
    /// Something came. Only what is more than the beginning of a try shows that all is well.
    pub(super) fn heard<K>(&self, event: &watcher::Event<K>) {
        if let Watched::Objects(scope) = &self.watched {
            let counts = &self.board.counts[&scope.kind];
            match event {
                watcher::Event::Init => counts.lists.fetch_add(1, Ordering::Relaxed),
                watcher::Event::InitDone => 0,
                watcher::Event::InitApply(_) | watcher::Event::Apply(_) | watcher::Event::Delete(_) => {
                    counts.events.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
        if !matches!(event, watcher::Event::Init) {
            self.fine();
        }
    }

    pub(super) fn listed(&self) {
        self.change(|state| {
            let first = !state.listed;
            state.listed = true;
            state.stale = None;
            first
        });
    }

    pub(super) fn fine(&self) {
        self.change(|state| {
            (state.failing, state.busy) = (None, None);
            if state.listed {
                state.stale = None;
            }
            state.refusals = 0;
            state.trouble.take().is_some()
        });
    }

    pub(super) fn trouble(&self, trouble: &Trouble) {
        self.change(|state| {
            state.stale.get_or_insert_with(Instant::now);
            if trouble.busy {
                state.busy.get_or_insert_with(Instant::now);
                if state.is_unreadable() {
                    // It says nothing of what was wrong before, which is thus as wrong as it was.
                    return true;
                }
                // Time that it waited as it was asked to does not count as failing.
                state.failing = None;
            } else {
                state.failing.get_or_insert_with(Instant::now);
            }
            state.trouble = Some(trouble.clone());
            state.refusals = if trouble.forbidden { state.refusals.saturating_add(1) } else { 0 };
            true
        });
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let changed = self.board.watches.lock().get_mut(&self.watched).is_some_and(change);
        if changed {
            self.board.changed.notify_one();
        }
    }
}

impl Trouble {
    pub(super) fn of(error: &watcher::Error) -> Trouble {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Trouble::of_request(error),
            watcher::Error::WatchError(status) => Trouble::of_status(status),
            watcher::Error::NoResourceVersion => Trouble::new(error.to_string()),
        }
    }

    pub(super) fn of_request(error: &Error) -> Trouble {
        match error {
            Error::Api(status) => Trouble::of_status(status),
            error => Trouble::new(describe(error)),
        }
    }

    fn of_status(status: &kube::core::Status) -> Trouble {
        let said = if status.message.is_empty() { &status.reason } else { &status.message };
        let code = status.code;
        let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        // Whoever says "too many" means at least a second, which is what its header says by default.
        let least = if code == 429 { 1 } else { 0 };
        Trouble {
            message: format!("{code} {}", said.trim()),
            forbidden: code == 403,
            absent: code == 404,
            unauthorized: code == 401,
            expired: code == 410,
            busy: code == 429,
            retry_after: Duration::from_secs(u64::from(asked.clamp(least, MOST_SECONDS))),
        }
    }

    pub(super) fn new(message: String) -> Trouble {
        Trouble {
            message,
            forbidden: false,
            absent: false,
            unauthorized: false,
            expired: false,
            busy: false,
            retry_after: Duration::ZERO,
        }
    }
}

/// A server that starts answers all kinds of things for a few seconds.
const LASTING: Duration = Duration::from_secs(5);
/// A server that asks to wait is asked again for so long before statuses speak of it: their writing is more work for it.
const BUSY: Duration = Duration::from_secs(60);
/// A server that asks for more than this is asked again nevertheless.
const MOST_SECONDS: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_known_grows_older_until_it_is_listed_and_while_its_watch_fails() {
        let board = Board::new();
        assert_eq!(board.age(Kind::HttpRoute), None, "it is not watched");
        let scope = |name: &str| Scope { kind: Kind::HttpRoute, namespace: Some(name.into()) };
        let (one, other) =
            (board.health(Watched::Objects(scope("one"))), board.health(Watched::Objects(scope("other"))));
        let later = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let age = || board.age(Kind::HttpRoute).map(|age| age.as_secs());
        later(3).await;
        // A list that has begun is no list.
        one.fine();
        assert_eq!(age(), Some(3));
        one.listed();
        assert_eq!(age(), Some(3), "the other one was not listed");
        other.listed();
        later(100).await;
        assert_eq!(age(), Some(0), "silence is no failure");
        one.trouble(&Trouble::new("no route to host".to_owned()));
        later(7).await;
        // That the server is back does not mean that anything was heard of this watch.
        board.pardon();
        one.trouble(&Trouble::new("no route to host".to_owned()));
        later(1).await;
        assert_eq!(age(), Some(8));
        one.fine();
        assert_eq!(age(), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_not_taken_for_one_that_cannot_be_read() {
        let board = Board::new();
        let watch = board.health(Watched::Objects(Scope { kind: Kind::HttpRoute, namespace: None }));
        let broken = Trouble::new("connection reset".to_owned());
        let busy = Trouble { busy: true, ..broken.clone() };
        let later = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let is_unreadable = || !board.unreadable().is_empty();
        watch.trouble(&busy);
        later(59).await;
        watch.trouble(&busy);
        assert!(!is_unreadable(), "it waits as it is asked to");
        later(1).await;
        assert!(is_unreadable(), "it waits for ever");
        watch.fine();
        assert!(!is_unreadable());

        // Two spells in a row, each with a connection that breaks first.
        for _ in 0..2 {
            watch.trouble(&broken);
            later(1).await;
            watch.trouble(&busy);
            later(2).await;
        }
        assert!(!is_unreadable());
        watch.trouble(&broken);
        later(4).await;
        assert!(!is_unreadable());
        later(1).await;
        assert!(is_unreadable());
        // That it is busy as well takes nothing back.
        watch.trouble(&busy);
        assert!(is_unreadable());
        watch.fine();

        // Nor can it hide behind that for ever.
        for _ in 0..16 {
            watch.trouble(&broken);
            later(1).await;
            watch.trouble(&busy);
            later(3).await;
        }
        assert!(is_unreadable());
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_read_is_unknown_until_it_is_listed() {
        let board = Board::new();
        let watch = board.health(Watched::Objects(Scope { kind: Kind::BackendTlsPolicy, namespace: None }));
        let broken = Trouble::new("connection refused".to_owned());
        let is_unknown = || board.unknown() == BTreeSet::from([Kind::BackendTlsPolicy]);
        assert!(!is_unknown(), "it may be listed in a moment");
        watch.trouble(&Trouble { forbidden: true, ..broken.clone() });
        assert!(is_unknown());
        for other in [Trouble { busy: true, ..broken.clone() }, broken] {
            watch.trouble(&other);
            assert!(is_unknown(), "{other:?}");
        }
        board.pardon();
        watch.fine();
        assert!(is_unknown(), "a list that has begun is no list");
        watch.listed();
        assert!(!is_unknown());
        watch.trouble(&Trouble { forbidden: true, ..Trouble::new("forbidden".to_owned()) });
        assert!(!is_unknown(), "what was seen is served");
    }

    #[test]
    fn one_refusal_does_not_mean_that_crds_are_never_seen() {
        let board = Board::new();
        let crds = board.health(Watched::Crds);
        let forbidden = Trouble { forbidden: true, ..Trouble::new("403".to_owned()) };
        crds.trouble(&forbidden);
        assert_eq!(board.crds_forbidden(), None);
        crds.fine();
        crds.trouble(&forbidden);
        assert_eq!(board.crds_forbidden(), None);
        crds.trouble(&forbidden);
        assert_eq!(board.crds_forbidden().as_deref(), Some("403"));
        crds.fine();
        assert_eq!(board.crds_forbidden(), None);
    }
}
