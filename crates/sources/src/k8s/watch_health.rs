//! The state of every watch: whether it has listed, whether it fails and why. A first list, every error, and the end of
//! a failure wake the supervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Error;
use kube::runtime::watcher;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::request_error_text;
use crate::api::Kind;

/// The state of all watches.
#[derive(Debug, Default)]
pub(super) struct WatchHealth {
    watches: Mutex<BTreeMap<WatchSubject, WatchState>>,
    counts: BTreeMap<Kind, KindCounters>,
    changed: Notify,
}

/// The scope of one watch: objects of one kind, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scope {
    pub(super) kind: Kind,
    /// None for all namespaces, and for cluster-scoped objects.
    pub(super) namespace: Option<Arc<str>>,
}

/// What a watch covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchSubject {
    Objects(Scope),
    Crds,
}

#[derive(Clone, Debug, Default)]
struct WatchState {
    listed: bool,
    /// Since when the known objects may be out of date, because nothing was listed yet or the watch fails.
    stale_since: Option<Instant>,
    /// Since when attempts fail with errors other than 429. A 429 clears this time, unless the watch is unreadable.
    failing_since: Option<Instant>,
    /// Since when the server responds with these errors. An error without a response clears this time, too, because the
    /// errors that follow may be those of a starting server.
    error_responses_since: Option<Instant>,
    /// Since when the server responds with 429. Other errors in between do not clear this time.
    throttled_since: Option<Instant>,
    /// Set by the method of the same name of [`WatchHealth`], and cleared only by the first list, whatever errors
    /// follow. For example, no Service gets requests while this is set for BackendTLSPolicies: one may require TLS.
    unreadable_before_first_list: bool,
    /// The last error, except that a 429 does not replace the error of an unreadable watch. None while the watch works.
    error: Option<WatchError>,
    /// Consecutive 403 responses, with or without 429 responses in between.
    forbidden_in_a_row: u32,
    /// The number of consecutive 403 and 404.
    refused_in_a_row: u32,
}

/// Counters of one kind since the start.
#[derive(Debug, Default)]
struct KindCounters {
    events: AtomicU64,
    lists: AtomicU64,
}

/// Why a watch fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchError {
    pub(super) message: String,
    /// The server has responded.
    pub(super) has_response: bool,
    /// 403, unless the API server says that it does not know a role that is bound: a starting server has not read all
    /// roles yet, and the role may be replaced at this moment.
    pub(super) forbidden: bool,
    /// 404: the kind is not served, or is no longer served.
    pub(super) not_found: bool,
    /// 401: the credentials are rejected.
    pub(super) unauthorized: bool,
    /// 410: the watch has to restart with a list, as is usual after a long pause.
    pub(super) expired: bool,
    /// 429: the server is overloaded, which is unrelated to the requested kind.
    pub(super) throttled: bool,
    /// The delay that the server requests.
    pub(super) retry_after: Duration,
}

impl WatchHealth {
    pub(super) fn new() -> Arc<WatchHealth> {
        let counts = Kind::ALL.iter().map(|kind| (*kind, KindCounters::default())).collect();
        Arc::new(WatchHealth { counts, ..WatchHealth::default() })
    }

    /// The handle with which one watch reports its state.
    pub(super) fn reporter(self: &Arc<Self>, subject: WatchSubject) -> WatchReporter {
        let state = WatchState { stale_since: Some(Instant::now()), ..WatchState::default() };
        self.watches.lock().insert(subject.clone(), state);
        WatchReporter { health: self.clone(), subject }
    }

    pub(super) fn remove(&self, subject: &WatchSubject) {
        self.watches.lock().remove(subject);
    }

    /// Waits until a reporter wakes the supervisor. Returns at once if one did so since the previous call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The kinds that cannot be read, each with its error. A 403 counts at once, other errors only after a time.
    pub(super) fn unreadable(&self) -> BTreeMap<Kind, WatchError> {
        let watches = self.watches.lock();
        let failing = watches.iter().filter_map(|(subject, state)| match (subject, &state.error) {
            (WatchSubject::Objects(scope), Some(watch_error)) if state.is_unreadable() => {
                Some((scope.kind, watch_error.clone()))
            }
            _ => None,
        });
        failing.collect()
    }

    /// The kinds for whose first list readiness waits: those with a scope that was not listed yet, unless the API
    /// server has responded 404 twice, or 403 twice to a kind that need not be readable.
    pub(super) fn awaited(&self, must_be_readable: impl Fn(Kind) -> bool) -> Vec<Kind> {
        let watches = self.watches.lock();
        let scopes = watches.iter().filter_map(|(subject, state)| match subject {
            WatchSubject::Objects(scope) => Some((scope, state)),
            WatchSubject::Crds => None,
        });
        let granted = GrantedNamespaces::of(&watches);
        let is_awaited = |scope: &Scope, state: &WatchState| {
            let is_denied = state.will_not_list() && state.is_forbidden();
            let is_needed = || must_be_readable(scope.kind) && !granted.leave_out(scope);
            !state.listed && (!state.will_not_list() || is_denied && is_needed())
        };
        let mut kinds: Vec<_> =
            scopes.filter(|(scope, state)| is_awaited(scope, state)).map(|(scope, _)| scope.kind).collect();
        kinds.dedup();
        kinds
    }

    /// Kinds with a scope that was not listed yet, and was unreadable at this call or an earlier one. Sets the flag of
    /// the same name of every watch.
    pub(super) fn unreadable_before_first_list(&self) -> BTreeSet<Kind> {
        let mut watches = self.watches.lock();
        let granted = GrantedNamespaces::of(&watches);
        let kinds = watches.iter_mut().filter_map(|(subject, state)| {
            state.unreadable_before_first_list =
                !state.listed && (state.unreadable_before_first_list || state.is_unreadable());
            match subject {
                WatchSubject::Objects(scope) if state.unreadable_before_first_list && !granted.leave_out(scope) => {
                    Some(scope.kind)
                }
                _ => None,
            }
        });
        kinds.collect()
    }

    /// At the end of an outage of the whole server: from now on, errors must last again before a watch is unreadable.
    pub(super) fn clear_failures(&self) {
        for state in self.watches.lock().values_mut() {
            state.clear_failure_times();
        }
    }

    /// Whether a watch fails for a reason that may concern the whole server.
    pub(super) fn suspects_outage(&self) -> bool {
        let watches = self.watches.lock();
        watches
            .values()
            .filter_map(|state| state.error.as_ref())
            .any(|watch_error| !watch_error.forbidden && !watch_error.expired)
    }

    /// The error, if permission to watch CRDs is missing.
    pub(super) fn crds_forbidden(&self) -> Option<String> {
        let watches = self.watches.lock();
        let state = watches.get(&WatchSubject::Crds)?;
        // A single 403 may come from a server that is starting, and statuses would report an unknown release. For
        // objects a single 403 counts (`is_unreadable`), because readiness stops waiting for the kind after the second:
        // it must be known as unreadable by then, and not as a kind without objects.
        let watch_error =
            state.error.as_ref().filter(|watch_error| watch_error.forbidden && state.forbidden_in_a_row > 1)?;
        Some(watch_error.message.clone())
    }

    /// For how long the known objects of a kind may be out of date; None if the kind is not watched.
    pub(super) fn age(&self, kind: Kind) -> Option<Duration> {
        let watches = self.watches.lock();
        let ages = watches.iter().filter_map(|(subject, state)| match subject {
            WatchSubject::Objects(scope) if scope.kind == kind => {
                Some(state.stale_since.map_or(Duration::ZERO, |since| since.elapsed()))
            }
            _ => None,
        });
        ages.max()
    }

    /// Events received, and lists started.
    pub(super) fn counts(&self, kind: Kind) -> (u64, u64) {
        let counts = &self.counts[&kind];
        (counts.events.load(Ordering::Relaxed), counts.lists.load(Ordering::Relaxed))
    }
}

/// The watched namespaces in which some kind may be read. One in which no kind may be read is left out: it was deleted
/// with its roles, or never had them, and nothing of it is served or protects anything.
struct GrantedNamespaces(BTreeSet<Arc<str>>);

impl GrantedNamespaces {
    fn of(watches: &BTreeMap<WatchSubject, WatchState>) -> Self {
        let namespaces = watches.iter().filter_map(|(subject, state)| match subject {
            WatchSubject::Objects(scope) if scope.kind.namespaced() && !state.is_forbidden() => scope.namespace.clone(),
            _ => None,
        });
        GrantedNamespaces(namespaces.collect())
    }

    fn leave_out(&self, scope: &Scope) -> bool {
        scope.namespace.as_ref().is_some_and(|namespace| !self.0.contains(namespace))
    }
}

impl WatchState {
    /// Whether the watch has failed for so long that the failure is not transient.
    fn is_lasting(&self) -> bool {
        let has_lasted = |since: Option<Instant>, limit| since.is_some_and(|since| since.elapsed() >= limit);
        has_lasted(self.error_responses_since, UNREADABLE_AFTER)
            || has_lasted(self.failing_since, UNREACHABLE_UNREADABLE_AFTER)
            || has_lasted(self.throttled_since, THROTTLED_UNREADABLE_AFTER)
    }

    fn clear_failure_times(&mut self) {
        (self.failing_since, self.error_responses_since, self.throttled_since) = (None, None, None);
    }

    /// Whether the objects cannot be read: after one 403 before the first list and several after it, or if other errors
    /// last.
    fn is_unreadable(&self) -> bool {
        self.is_lasting() || self.is_forbidden() && (!self.listed || self.forbidden_in_a_row > MOMENTARY_REFUSALS)
    }

    fn is_forbidden(&self) -> bool {
        self.error.as_ref().is_some_and(|watch_error| watch_error.forbidden)
    }

    /// Whether the recorded error rules out a list, so that readiness does not wait for one. A server that is starting
    /// may refuse a single attempt.
    fn will_not_list(&self) -> bool {
        self.refused_in_a_row > 1 && self.error.as_ref().is_some_and(WatchError::is_refusal)
    }
}

/// The handle of one watch.
#[derive(Debug)]
pub(super) struct WatchReporter {
    health: Arc<WatchHealth>,
    subject: WatchSubject,
}

impl WatchReporter {
    /// Records an event. Only an event after `Init` shows that the watch works.
    pub(super) fn record_event<K>(&self, event: &watcher::Event<K>) {
        if let WatchSubject::Objects(scope) = &self.subject {
            let counts = &self.health.counts[&scope.kind];
            match event {
                watcher::Event::Init => counts.lists.fetch_add(1, Ordering::Relaxed),
                watcher::Event::InitDone => 0,
                watcher::Event::InitApply(_) | watcher::Event::Apply(_) | watcher::Event::Delete(_) => {
                    counts.events.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
        if !matches!(event, watcher::Event::Init) {
            self.record_success();
        }
    }

    /// Records a complete list.
    pub(super) fn record_list(&self) {
        self.update(|state| {
            let is_first = !state.listed;
            state.listed = true;
            state.stale_since = None;
            is_first
        });
    }

    /// Records that the watch works, which ends a failure of the watch.
    pub(super) fn record_success(&self) {
        self.update(|state| {
            state.clear_failure_times();
            if state.listed {
                state.stale_since = None;
            }
            (state.forbidden_in_a_row, state.refused_in_a_row) = (0, 0);
            state.error.take().is_some()
        });
    }

    /// Records a failed attempt. An error equal to the previous one wakes the supervisor too, because a failure that
    /// lasts makes a kind unreadable.
    pub(super) fn record_error(&self, watch_error: &WatchError) {
        self.update(|state| {
            state.stale_since.get_or_insert_with(Instant::now);
            if watch_error.throttled {
                state.throttled_since.get_or_insert_with(Instant::now);
                if state.is_unreadable() {
                    // A 429 says nothing about the cause of the failure, so the earlier error is kept.
                    return true;
                }
                // The server has asked for a delay, which is not a failure. The next error sets the times again.
                (state.failing_since, state.error_responses_since) = (None, None);
            } else {
                state.failing_since.get_or_insert_with(Instant::now);
                let responses_since = state.error_responses_since.take();
                state.error_responses_since =
                    watch_error.has_response.then(|| responses_since.unwrap_or_else(Instant::now));
            }
            state.error = Some(watch_error.clone());
            state.forbidden_in_a_row =
                if watch_error.forbidden { state.forbidden_in_a_row.saturating_add(1) } else { 0 };
            state.refused_in_a_row =
                if watch_error.is_refusal() { state.refused_in_a_row.saturating_add(1) } else { 0 };
            true
        });
    }

    /// Updates the state. `update` returns whether to wake the supervisor.
    fn update(&self, update: impl FnOnce(&mut WatchState) -> bool) {
        let changed = self.health.watches.lock().get_mut(&self.subject).is_some_and(update);
        if changed {
            self.health.changed.notify_one();
        }
    }
}

impl WatchError {
    pub(super) fn from_watcher(error: &watcher::Error) -> WatchError {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => WatchError::from_request(error),
            watcher::Error::WatchError(status) => WatchError::from_status(status),
            watcher::Error::NoResourceVersion => {
                WatchError { has_response: true, ..WatchError::new(error.to_string()) }
            }
        }
    }

    /// Whether the API server refuses to list the kind.
    fn is_refusal(&self) -> bool {
        self.forbidden || self.not_found
    }

    pub(super) fn from_request(error: &Error) -> WatchError {
        match error {
            Error::Api(status) => WatchError::from_status(status),
            error => WatchError {
                // Only a response can be unreadable.
                has_response: matches!(error, Error::SerdeError(_) | Error::FromUtf8(_)),
                ..WatchError::new(request_error_text(error))
            },
        }
    }

    fn from_status(status: &kube::core::Status) -> WatchError {
        let text = if status.message.is_empty() { &status.reason } else { &status.message };
        let code = status.code;
        let requested_seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        // A 429 without a delay counts as one second, which API servers send in `Retry-After` by default.
        let min_seconds = if code == 429 { 1 } else { 0 };
        WatchError {
            message: format!("{code} {}", text.trim()),
            has_response: true,
            forbidden: code == 403 && unknown_role(text).is_none(),
            not_found: code == 404,
            unauthorized: code == 401,
            expired: code == 410,
            throttled: code == 429,
            retry_after: Duration::from_secs(u64::from(requested_seconds.clamp(min_seconds, MAX_RETRY_AFTER_SECONDS))),
        }
    }

    /// What the 403 of a server that does not know a role says about the role.
    pub(super) fn unknown_role(&self) -> Option<&str> {
        unknown_role(&self.message).filter(|_| self.has_response)
    }

    /// The server has not responded.
    pub(super) fn new(message: String) -> WatchError {
        WatchError {
            message,
            has_response: false,
            forbidden: false,
            not_found: false,
            unauthorized: false,
            expired: false,
            throttled: false,
            retry_after: Duration::ZERO,
        }
    }
}

/// How long errors other than 403 and 429 last before the kind is unreadable. This time is longer than the few seconds
/// in which a starting server responds with errors.
const UNREADABLE_AFTER: Duration = Duration::from_secs(5);
/// How long attempts fail before the kind is unreadable although the server does not respond to all of them. This time
/// is long because the cause is not the kind, and statuses mention unreadable kinds.
const UNREACHABLE_UNREADABLE_AFTER: Duration = Duration::from_secs(60);
/// How long 429 responses last before the kind is unreadable. This time is long because statuses mention unreadable
/// kinds, and writing these statuses is more work for the overloaded server.
const THROTTLED_UNREADABLE_AFTER: Duration = Duration::from_secs(60);
/// The longest requested delay that is honored.
const MAX_RETRY_AFTER_SECONDS: u32 = 60;

/// What the message of a 403 says about a bound role that is not known, as in `RBAC:
/// clusterrole.rbac.authorization.k8s.io "portico" not found`.
fn unknown_role(message: &str) -> Option<&str> {
    message.split_once("RBAC: ").map(|(_, reason)| reason).filter(|reason| reason.contains(" not found"))
}

/// How many 403 in a row a watch that has listed gets before its kind counts as unreadable: a server that has just
/// started may not know all bindings yet.
const MOMENTARY_REFUSALS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn age_grows_until_the_first_list_and_during_failures() {
        let health = WatchHealth::new();
        assert_eq!(health.age(Kind::HttpRoute), None, "the kind is not watched");
        let scope = |name: &str| Scope { kind: Kind::HttpRoute, namespace: Some(name.into()) };
        let (first, second) = (
            health.reporter(WatchSubject::Objects(scope("first"))),
            health.reporter(WatchSubject::Objects(scope("second"))),
        );
        let advance = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let age = || health.age(Kind::HttpRoute).map(|age| age.as_secs());
        advance(3).await;
        // A started list is not a complete one.
        first.record_success();
        assert_eq!(age(), Some(3));
        first.record_list();
        assert_eq!(age(), Some(3), "the second scope was not listed");
        second.record_list();
        advance(100).await;
        assert_eq!(age(), Some(0), "a quiet watch is not a failing one");
        first.record_error(&WatchError::new("no route to host".to_owned()));
        advance(7).await;
        // That the server is available again does not mean that this watch works.
        health.clear_failures();
        first.record_error(&WatchError::new("no route to host".to_owned()));
        advance(1).await;
        assert_eq!(age(), Some(8));
        first.record_success();
        assert_eq!(age(), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_alone_does_not_make_a_kind_unreadable() {
        let health = WatchHealth::new();
        let watch = health.reporter(WatchSubject::Objects(Scope { kind: Kind::HttpRoute, namespace: None }));
        let broken = WatchError { has_response: true, ..WatchError::new("500".to_owned()) };
        let busy = WatchError { throttled: true, ..broken.clone() };
        let advance = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let is_unreadable = || !health.unreadable().is_empty();
        watch.record_error(&busy);
        advance(59).await;
        watch.record_error(&busy);
        assert!(!is_unreadable(), "the watch waits as requested");
        advance(1).await;
        assert!(is_unreadable(), "the watch has waited too long");
        watch.record_success();
        assert!(!is_unreadable());

        // Two overloads in a row, each with a broken connection first.
        for _ in 0..2 {
            watch.record_error(&broken);
            advance(1).await;
            watch.record_error(&busy);
            advance(2).await;
        }
        assert!(!is_unreadable());
        watch.record_error(&broken);
        advance(4).await;
        assert!(!is_unreadable());
        advance(1).await;
        assert!(is_unreadable());
        // A 429 in addition clears nothing.
        watch.record_error(&busy);
        assert!(is_unreadable());
        watch.record_success();

        // 429 responses cannot hide the failure forever.
        for _ in 0..16 {
            watch.record_error(&broken);
            advance(1).await;
            watch.record_error(&busy);
            advance(3).await;
        }
        assert!(is_unreadable());
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_stay_readable_while_the_server_restarts() {
        let health = WatchHealth::new();
        let watch = health.reporter(WatchSubject::Objects(Scope { kind: Kind::HttpRoute, namespace: None }));
        let unreachable = WatchError::new("connection refused".to_owned());
        watch.record_error(&unreachable);
        tokio::time::advance(Duration::from_secs(59)).await;
        watch.record_error(&unreachable);
        assert_eq!(health.unreadable().len(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.unreadable().len(), 1);
        watch.record_success();

        // A stopping server responds with errors, then does not respond, and then responds with errors while it starts.
        let broken = WatchError { has_response: true, ..WatchError::new("500".to_owned()) };
        watch.record_error(&broken);
        for watch_error in [&unreachable, &broken] {
            tokio::time::advance(Duration::from_secs(4)).await;
            watch.record_error(watch_error);
            assert_eq!(health.unreadable().len(), 0, "{watch_error:?}");
        }
        tokio::time::advance(UNREADABLE_AFTER).await;
        assert_eq!(health.unreadable().len(), 1, "it responds, and still does not list the kind");
    }

    /// A load balancer in front of a broken server may respond to some attempts only.
    #[tokio::test(start_paused = true)]
    async fn alternating_errors_last_too() {
        let unreachable = WatchError::new("connection refused".to_owned());
        let broken = WatchError { has_response: true, ..WatchError::new("500".to_owned()) };
        let health = WatchHealth::new();
        let watch = health.reporter(WatchSubject::Objects(Scope { kind: Kind::HttpRoute, namespace: None }));
        for second in 0..=60 {
            watch.record_error(if second % 2 == 0 { &broken } else { &unreachable });
            assert_eq!(health.unreadable().len(), usize::from(second == 60), "{second}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unreadable_kinds_are_unknown_until_listed() {
        let health = WatchHealth::new();
        let watch = health.reporter(WatchSubject::Objects(Scope { kind: Kind::BackendTlsPolicy, namespace: None }));
        let broken = WatchError::new("connection refused".to_owned());
        let is_unknown = || health.unreadable_before_first_list() == BTreeSet::from([Kind::BackendTlsPolicy]);
        assert!(!is_unknown(), "the kind may be listed in a moment");
        watch.record_error(&WatchError { forbidden: true, ..broken.clone() });
        assert!(is_unknown());
        for other in [WatchError { throttled: true, ..broken.clone() }, broken] {
            watch.record_error(&other);
            assert!(is_unknown(), "{other:?}");
        }
        health.clear_failures();
        watch.record_success();
        assert!(is_unknown(), "a started list is not a complete one");
        watch.record_list();
        assert!(!is_unknown());
        watch.record_error(&WatchError { forbidden: true, ..WatchError::new("forbidden".to_owned()) });
        assert!(!is_unknown(), "listed objects stay known");
    }

    #[test]
    fn crds_are_forbidden_after_two_403_responses_in_a_row() {
        let health = WatchHealth::new();
        let crds = health.reporter(WatchSubject::Crds);
        let forbidden = WatchError { forbidden: true, ..WatchError::new("403".to_owned()) };
        crds.record_error(&forbidden);
        assert_eq!(health.crds_forbidden(), None);
        crds.record_success();
        crds.record_error(&forbidden);
        assert_eq!(health.crds_forbidden(), None);
        crds.record_error(&forbidden);
        assert_eq!(health.crds_forbidden().as_deref(), Some("403"));
        crds.record_success();
        assert_eq!(health.crds_forbidden(), None);
    }
}
