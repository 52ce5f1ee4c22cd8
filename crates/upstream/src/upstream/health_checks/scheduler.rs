//! Runs the checks of all upstreams: one task decides when each of them begins, and another one, for a short time, runs
//! it.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use super::check_history::CheckHistory;
use super::check_target::CheckTarget;
use super::checker::{CheckFailure, CheckPass, EndpointChecker};
use super::http_connection::HttpConnection;
use super::schedule::{CheckId, CheckSchedule};
use crate::upstream::check_report::{CheckOutcome, CheckReport};
use crate::upstream::settings::{ActiveCheck, CheckResult, CheckType};
use crate::upstream::{OwnSockets, SocketBudget, Upstream, UpstreamKey, UpstreamRegistry};

/// The checks of a process. They belong to one thread.
pub(super) struct Scheduler {
    registry: Arc<UpstreamRegistry>,
    checker: Rc<EndpointChecker>,
    schedule: CheckSchedule,
    upstreams: BTreeMap<UpstreamKey, CheckedUpstream>,
    checks: HashMap<CheckId, EndpointCheck, foldhash::fast::FixedState>,
    running: JoinSet<CheckRun>,
    /// Of the phases, so that replicas check an endpoint at different times.
    hasher: foldhash::fast::FixedState,
}

/// An upstream whose endpoints are checked.
struct CheckedUpstream {
    /// Weak, because nothing here keeps an upstream that is no longer used.
    upstream: Weak<Upstream>,
    target: Rc<CheckTarget>,
    endpoints: BTreeMap<SocketAddr, CheckId>,
}

/// The check of one endpoint.
struct EndpointCheck {
    upstream: Weak<Upstream>,
    target: Rc<CheckTarget>,
    endpoint: SocketAddr,
    history: CheckHistory,
    /// Whether a check has ended, so that the next one begins after a part of the interval.
    has_phase: bool,
    /// The connection for the next check.
    kept: Option<HttpConnection>,
}

/// A check that has ended.
struct CheckRun {
    id: CheckId,
    target: Rc<CheckTarget>,
    began: Instant,
    result: Result<CheckPass, CheckFailure>,
    kept: Option<HttpConnection>,
}

impl Scheduler {
    /// Runs the checks of all upstreams of the registry, at most `rate` in a second. Does not end. Must be called in a
    /// `LocalSet`.
    pub(super) async fn run(registry: Arc<UpstreamRegistry>, own_sockets: Arc<OwnSockets>, rate: NonZeroU32) {
        let queue = Arc::clone(registry.check_queue());
        let mut scheduler = Scheduler::new(registry, own_sockets, rate);
        loop {
            let next_begin = scheduler.schedule.next_begin();
            let next_check = async {
                match next_begin {
                    Some(begin) => sleep_until(begin).await,
                    None => std::future::pending().await,
                }
            };
            let checker = Rc::clone(&scheduler.checker);
            tokio::select! {
                changed = queue.take() => changed.iter().for_each(|key| scheduler.update(key)),
                Some(ended) = scheduler.running.join_next() => match ended {
                    Ok(run) => scheduler.finish(run),
                    // Its endpoint is not checked again until its upstream changes.
                    Err(failure) => error!(%failure, "A health check has failed to run; please report this bug"),
                },
                () = next_check => scheduler.begin(),
                () = checker.sockets.shedding() => scheduler.close_kept(),
            }
        }
    }

    fn new(registry: Arc<UpstreamRegistry>, own_sockets: Arc<OwnSockets>, rate: NonZeroU32) -> Self {
        Scheduler {
            registry,
            checker: Rc::new(EndpointChecker { sockets: SocketBudget::new(MAX_SOCKETS), own_sockets }),
            schedule: CheckSchedule::new(rate, fastrand::Rng::new()),
            upstreams: BTreeMap::new(),
            checks: HashMap::default(),
            running: JoinSet::new(),
            hasher: foldhash::fast::FixedState::with_seed(fastrand::u64(..)),
        }
    }

    /// Follows a change of an upstream: of its endpoints or its check, or that it is no longer used. Checks that stay
    /// are not disturbed.
    fn update(&mut self, key: &UpstreamKey) {
        let upstream = self.registry.get(key);
        let check = upstream.as_ref().and_then(|upstream| Some((Arc::clone(upstream), upstream.active_check()?)));
        let Some((upstream, check)) = check else { return self.remove(key) };
        let is_replaced = |known: &CheckedUpstream| !std::ptr::eq(known.upstream.as_ptr(), Arc::as_ptr(&upstream));
        if self.upstreams.get(key).is_some_and(is_replaced) {
            self.remove(key);
        }
        let now = Instant::now();
        let mut checked = match self.upstreams.remove(key) {
            Some(checked) => self.with_check(checked, key, check, now),
            None => CheckTarget::new(key, check).map(|target| CheckedUpstream {
                upstream: Arc::downgrade(&upstream),
                target: Rc::new(target),
                endpoints: BTreeMap::new(),
            }),
        };
        if let Some(checked) = &mut checked {
            let reachable = upstream.reachable();
            let is_reachable =
                |endpoint: &SocketAddr| reachable.binary_search_by_key(endpoint, |known| known.address).is_ok();
            let left: Vec<_> = checked.endpoints.keys().filter(|endpoint| !is_reachable(endpoint)).copied().collect();
            for id in left.iter().filter_map(|endpoint| checked.endpoints.remove(endpoint)) {
                self.forget(id);
            }
            for endpoint in reachable.iter().map(|known| known.address) {
                if !checked.endpoints.contains_key(&endpoint) {
                    let id = self.add(key, checked, endpoint, now);
                    checked.endpoints.insert(endpoint, id);
                }
            }
        }
        if let Some(checked) = checked {
            self.upstreams.insert(key.clone(), checked);
        }
    }

    /// Applies other settings to the checks of an upstream, which begin soon.
    fn with_check(
        &mut self,
        mut checked: CheckedUpstream,
        key: &UpstreamKey,
        check: Arc<ActiveCheck>,
        now: Instant,
    ) -> Option<CheckedUpstream> {
        if checked.target.check == check {
            return Some(checked);
        }
        let Some(target) = CheckTarget::new(key, check) else {
            self.forget_all(&checked);
            return None;
        };
        checked.target = Rc::new(target);
        for (endpoint, id) in &checked.endpoints {
            let first = self.first_check(key, *endpoint, &checked.target.check);
            self.schedule.hasten(*id, now + first);
            if let Some(known) = self.checks.get_mut(id) {
                known.target = Rc::clone(&checked.target);
                known.kept = None;
            }
        }
        Some(checked)
    }

    fn add(&mut self, key: &UpstreamKey, checked: &CheckedUpstream, endpoint: SocketAddr, now: Instant) -> CheckId {
        let target = Rc::clone(&checked.target);
        let first = self.first_check(key, endpoint, &target.check);
        let id = self.schedule.add(&key.namespace, target.check.shortest_interval(), now + first);
        let upstream = checked.upstream.clone();
        let history = CheckHistory::default();
        let check = EndpointCheck { upstream, target, endpoint, history, has_phase: false, kept: None };
        self.checks.insert(id, check);
        id
    }

    /// When an endpoint is first checked: soon, but not all at once.
    fn first_check(&self, key: &UpstreamKey, endpoint: SocketAddr, check: &ActiveCheck) -> Duration {
        let hash = self.hasher.hash_one((&key.namespace, &key.service, endpoint)) >> 32;
        let part = hash as f64 / f64::from(u32::MAX);
        check.shortest_interval().min(MAX_FIRST_DELAY).mul_f64(part)
    }

    /// Ends the checks of an upstream, and frees the endpoints that they have ejected.
    fn remove(&mut self, key: &UpstreamKey) {
        if let Some(checked) = self.upstreams.remove(key) {
            self.forget_all(&checked);
        }
    }

    fn forget_all(&mut self, checked: &CheckedUpstream) {
        for id in checked.endpoints.values() {
            self.forget(*id);
        }
        if let Some(upstream) = checked.upstream.upgrade() {
            upstream.forget_checks();
        }
    }

    fn forget(&mut self, id: CheckId) {
        self.schedule.remove(id);
        self.checks.remove(&id);
    }

    /// The check that begins now, if there is one. Skips those of endpoints that are not checked in their state.
    fn next_wanted(&mut self, now: Instant) -> Option<CheckId> {
        loop {
            let id = self.schedule.next(now)?;
            let Some(check) = self.checks.get(&id) else { continue };
            if check.is_wanted() {
                return Some(id);
            }
            self.schedule.skip(id, check.target.check.shortest_interval(), now);
        }
    }

    /// Begins all checks that are due.
    fn begin(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.next_wanted(now) {
            let Some(check) = self.checks.get_mut(&id) else { continue };
            let (checker, target) = (Rc::clone(&self.checker), Rc::clone(&check.target));
            let (endpoint, kept) = (check.endpoint, check.kept.take());
            self.running.spawn_local(async move {
                let began = Instant::now();
                let (result, kept) = checker.check(&target, endpoint, kept).await;
                CheckRun { id, target, began, result, kept }
            });
        }
    }

    /// Records the result of a check, and plans the next one.
    fn finish(&mut self, run: CheckRun) {
        let CheckRun { id, target, began, result, kept } = run;
        // It was removed meanwhile.
        let Some(check) = self.checks.get_mut(&id) else { return };
        let Some(upstream) = check.upstream.upgrade() else { return self.forget(id) };
        let now = Instant::now();
        let settings = Arc::clone(&check.target.check);
        let is_current = Rc::ptr_eq(&check.target, &target);
        if is_current {
            check.kept = kept;
            check.record(&upstream, &result, now.saturating_duration_since(began));
        }
        let is_healthy = upstream.is_healthy(check.endpoint) && check.history.verdict() != Some(false);
        let interval = settings.interval_of(is_healthy).unwrap_or_else(|| settings.shortest_interval());
        // The second check begins at the phase of the endpoint, so that those that began together come apart. Results
        // of former settings say nothing about when the next one is due.
        let share = match (is_current, std::mem::replace(&mut check.has_phase, true)) {
            (true, true) => 1.0,
            (true, false) => {
                let hash = self.hasher.hash_one((&upstream.key.namespace, &upstream.key.service, check.endpoint));
                f64::from(hash as u32) / f64::from(u32::MAX)
            }
            (false, _) => 0.0,
        };
        self.schedule.renew(id, interval, began, now, share);
    }

    /// Closes connections that are kept, where checks wait for their sockets.
    fn close_kept(&mut self) {
        for checked in self.upstreams.values() {
            while checked.target.sockets.wanted().take() {
                let ids = checked.endpoints.values();
                if !close_one(ids, &mut self.checks) {
                    break;
                }
            }
        }
        while self.checker.sockets.wanted().take() {
            let ids = self.upstreams.values().flat_map(|checked| checked.endpoints.values());
            if !close_one(ids, &mut self.checks) {
                break;
            }
        }
    }
}

/// Closes the first connection that one of these checks keeps. Returns whether there was one.
fn close_one<'a>(
    mut ids: impl Iterator<Item = &'a CheckId>,
    checks: &mut HashMap<CheckId, EndpointCheck, foldhash::fast::FixedState>,
) -> bool {
    ids.any(|id| checks.get_mut(id).is_some_and(|check| check.kept.take().is_some()))
}

impl EndpointCheck {
    /// Whether endpoints in the state of this one are checked.
    fn is_wanted(&self) -> bool {
        let is_ejected = self.upstream.upgrade().is_some_and(|upstream| !upstream.is_healthy(self.endpoint));
        let is_healthy = !is_ejected && self.history.verdict() != Some(false);
        self.target.check.interval_of(is_healthy).is_some()
    }

    /// Records a result in the health of the endpoint and in the counters of its upstream.
    fn record(&mut self, upstream: &Upstream, result: &Result<CheckPass, CheckFailure>, duration: Duration) {
        let check = &self.target.check;
        let check_type = CheckType::of(&check.kind);
        let message = match result {
            Ok(pass) => pass.warning.map(str::to_owned),
            Err(failure) => Some(failure.to_string()),
        };
        if let Err(failure) = result
            && failure.is_local()
        {
            upstream.count_check(check_type, CheckOutcome::Skipped);
            if upstream.should_warn() {
                warn!(upstream = %upstream.key, endpoint = %self.endpoint, %failure, "Health checks are skipped");
            }
            return;
        }
        // Whatever the response says, connections can be opened again.
        if result.as_ref().is_ok_and(|pass| pass.has_connected) && self.target.connects_like_requests {
            upstream.record_connected(self.endpoint);
        }
        if result.as_ref().is_ok_and(|pass| !pass.is_conclusive) {
            return;
        }
        let has_passed = result.is_ok();
        upstream.count_check(check_type, if has_passed { CheckOutcome::Passed } else { CheckOutcome::Failed });
        if let (true, Some(warning)) = (has_passed, &message)
            && upstream.should_warn()
        {
            warn!(upstream = %upstream.key, endpoint = %self.endpoint, "The endpoint passes its check, but {warning}");
        }
        let result =
            result.as_ref().map_or_else(|failure| CheckResult::Failed(failure.kind()), |_| CheckResult::Passed);
        self.history.record(result, check);
        let report = CheckReport {
            has_passed,
            ended: Instant::now(),
            duration,
            message: message.map(Arc::from),
            consecutive: self.history.consecutive(),
        };
        upstream.record_check(self.endpoint, report, self.history.confirmed());
    }
}

/// How many sockets all checks together have.
const MAX_SOCKETS: usize = 256;
/// How long the first check of an endpoint waits at most, unless the rate is exceeded.
const MAX_FIRST_DELAY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
