//! Tests of the scheduler without sockets: the results of checks are those of the test, and time is paused.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::advance;

use super::super::testing::{http_check, tcp_check};
use super::*;
use crate::upstream::settings::{HealthSettings, InitialHealth};
use crate::upstream::{Availability, BackendTraffic, EndpointAddress, Endpoints, Outcome, OutcomeClass};

const WEB: [&str; 2] = ["192.0.2.1:80", "192.0.2.2:80"];

/// A scheduler with the upstream `shop/web`, whose changes it follows at once.
struct Fixture {
    registry: Arc<UpstreamRegistry>,
    scheduler: Scheduler,
    upstream: Arc<Upstream>,
}

fn key() -> UpstreamKey {
    UpstreamKey { namespace: "shop".into(), service: "web".into(), port: 80, ..UpstreamKey::default() }
}

fn endpoints(check: Option<ActiveCheck>, addresses: &[&str]) -> Endpoints {
    let health = check.map(|check| HealthSettings { active: Some(Arc::new(check)), ..HealthSettings::default() });
    let addresses = addresses.iter().map(|address| EndpointAddress::Ip(address.parse().unwrap())).collect();
    let traffic = BackendTraffic { health: health.map(Arc::new), ..BackendTraffic::default() };
    Endpoints { addresses, traffic, ..Endpoints::default() }
}

fn failed() -> Result<CheckPass, CheckFailure> {
    Err(CheckFailure::TimedOut(Duration::from_secs(1)))
}

fn passed() -> Result<CheckPass, CheckFailure> {
    Ok(CheckPass::on_this_connection(false))
}

impl Fixture {
    fn new(check: ActiveCheck, addresses: &[&str]) -> Self {
        let registry = Arc::new(UpstreamRegistry::default());
        let upstream = registry.upstream(&key());
        let scheduler = Scheduler::new(Arc::clone(&registry), Arc::default(), NonZeroU32::new(200).unwrap());
        let mut fixture = Fixture { registry, scheduler, upstream };
        fixture.set(Some(check), addresses);
        fixture
    }

    fn set(&mut self, check: Option<ActiveCheck>, addresses: &[&str]) {
        self.upstream.set_endpoints(endpoints(check, addresses));
        self.follow();
    }

    /// Takes all changes.
    fn follow(&mut self) {
        use futures_util::FutureExt;

        let changed = self.registry.check_queue().take().now_or_never().unwrap_or_default();
        changed.iter().for_each(|key| self.scheduler.update(key));
    }

    /// Runs each check that begins until then, with the result for its endpoint. Returns the endpoints in the order of
    /// their checks, with the milliseconds that have passed.
    async fn run(
        &mut self,
        time: Duration,
        result: impl Fn(&str) -> Result<CheckPass, CheckFailure>,
    ) -> Vec<(String, u64)> {
        let (start, mut begun) = (Instant::now(), Vec::new());
        while let Some(begin) = self.scheduler.schedule.next_begin().filter(|begin| *begin <= start + time) {
            advance(begin.saturating_duration_since(Instant::now())).await;
            let now = Instant::now();
            while let Some(id) = self.scheduler.next_wanted(now) {
                let check = &self.scheduler.checks[&id];
                let (endpoint, target) = (check.endpoint.to_string(), Rc::clone(&check.target));
                let result = result(&endpoint);
                begun.push((endpoint, (now - start).as_millis() as u64));
                self.scheduler.finish(CheckRun { id, target, began: now, result, kept: None });
            }
        }
        advance((start + time).saturating_duration_since(Instant::now())).await;
        begun
    }

    /// Runs the checks of a second, in which the first one of each endpoint begins, and returns the endpoints. Their
    /// phases are random, so the second check of an endpoint may begin in the same second.
    async fn run_first(&mut self, result: impl Fn(&str) -> Result<CheckPass, CheckFailure>) -> BTreeSet<String> {
        let begun = self.run(Duration::from_secs(1), result).await;
        begun.into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    /// Whether the endpoint is not ejected. After a check has passed again, requests confirm that.
    fn is_healthy(&self, endpoint: &str) -> bool {
        let reports = self.upstream.endpoint_reports();
        let report = reports.into_iter().find(|report| report.target.to_string() == endpoint).unwrap();
        !matches!(report.health.unwrap().availability, Availability::Ejected(_))
    }

    fn report(&self, endpoint: &str) -> Option<Arc<CheckReport>> {
        let reports = self.upstream.endpoint_reports();
        reports.into_iter().find(|report| report.target.to_string() == endpoint)?.check
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_check_is_soon_and_its_result_acts_at_once() {
    let mut fixture = Fixture::new(tcp_check(), &WEB);
    let begun = fixture.run(Duration::from_secs(1), |endpoint| if endpoint == WEB[0] { failed() } else { passed() });
    let begun = begun.await;
    // The phase of an endpoint is random, so its second check may begin in the same second.
    let [of_failed, of_passed] = WEB.map(|web| begun.iter().filter(|(endpoint, _)| endpoint == web).count() as u64);
    assert!(of_failed >= 1 && of_passed >= 1, "{begun:?}");
    assert!(!fixture.is_healthy(WEB[0]) && fixture.is_healthy(WEB[1]));
    let report = fixture.report(WEB[0]).unwrap();
    assert!(!report.has_passed && report.message.as_deref().unwrap().contains("within 1s"), "{report:?}");
    let counts = fixture.upstream.check_counts();
    let expected = [(CheckOutcome::Passed, of_passed), (CheckOutcome::Failed, of_failed)];
    assert_eq!(counts, expected.map(|(outcome, count)| (CheckType::Tcp, outcome, count)));
}

/// Trap: one slow check must not eject.
#[tokio::test(start_paused = true)]
async fn later_results_act_after_as_many_as_the_threshold() {
    let mut fixture = Fixture::new(tcp_check(), &WEB[..1]);
    fixture.run(Duration::from_secs(1), |_| passed()).await;
    let mut failures = 0;
    while fixture.is_healthy(WEB[0]) {
        failures += fixture.run(Duration::from_secs(1), |_| failed()).await.len();
    }
    assert_eq!(failures, 3);
    let mut passes = 0;
    while !fixture.is_healthy(WEB[0]) {
        passes += fixture.run(Duration::from_secs(1), |_| passed()).await.len();
    }
    assert_eq!(passes, 2);
}

#[tokio::test(start_paused = true)]
async fn unhealthy_endpoints_have_an_interval_of_their_own() {
    let check = ActiveCheck { unhealthy_interval: Duration::from_secs(1), ..tcp_check() };
    let mut fixture = Fixture::new(check, &WEB);
    let begun = fixture.run(Duration::from_secs(100), |endpoint| if endpoint == WEB[0] { failed() } else { passed() });
    let begun = begun.await;
    let of_unhealthy = begun.iter().filter(|(endpoint, _)| endpoint == WEB[0]).count();
    assert!((90..=112).contains(&of_unhealthy), "{of_unhealthy}");
    assert!((9..=13).contains(&(begun.len() - of_unhealthy)), "{}", begun.len() - of_unhealthy);
}

#[tokio::test(start_paused = true)]
async fn other_changes_of_the_configuration_disturb_no_check() {
    let mut fixture = Fixture::new(tcp_check(), &WEB[..1]);
    fixture.run(Duration::from_secs(1), |_| passed()).await;
    let planned = fixture.scheduler.schedule.next_begin();
    // An equal check in other settings, another endpoint, and a change that no check concerns.
    fixture.set(Some(tcp_check()), &WEB);
    let mut other = endpoints(Some(tcp_check()), &WEB);
    other.traffic.is_dry_run = true;
    fixture.upstream.set_endpoints(other);
    fixture.follow();
    assert_eq!(fixture.scheduler.checks.len(), 2);
    let begun = fixture.run(Duration::from_secs(1), |_| failed()).await;
    assert!(begun.iter().any(|(endpoint, _)| endpoint == WEB[1]), "{begun:?}");
    let is_planned = |begin: Instant| begin <= Instant::now() + Duration::from_secs(12);
    assert!(planned.is_some_and(is_planned));
    assert!(fixture.is_healthy(WEB[0]), "its history was kept, in which one failure does not act");
}

#[tokio::test(start_paused = true)]
async fn another_check_begins_soon_and_keeps_the_health() {
    let hourly = ActiveCheck { interval: Duration::from_secs(3600), ..tcp_check() };
    let hourly = ActiveCheck { unhealthy_interval: hourly.interval, ..hourly };
    let mut fixture = Fixture::new(hourly, &WEB);
    assert_eq!(fixture.run_first(|_| failed()).await, BTreeSet::from(WEB.map(str::to_owned)));
    let edited = ActiveCheck { kind: http_check("/").kind, interval: Duration::from_secs(3600), ..tcp_check() };
    fixture.set(Some(edited), &WEB);
    assert!(!fixture.is_healthy(WEB[0]) && !fixture.is_healthy(WEB[1]));
    assert_eq!(fixture.run(Duration::from_secs(1), |_| passed()).await.len(), 2);
    assert!(!fixture.is_healthy(WEB[0]), "the healthy threshold is 2");
}

/// The result of a check that began with former settings is not one of the new ones.
#[tokio::test(start_paused = true)]
async fn results_of_former_settings_are_ignored() {
    let mut fixture = Fixture::new(tcp_check(), &WEB[..1]);
    advance(Duration::from_secs(1)).await;
    let now = Instant::now();
    let id = fixture.scheduler.schedule.next(now).unwrap();
    let target = Rc::clone(&fixture.scheduler.checks[&id].target);
    fixture.set(Some(http_check("/")), &WEB[..1]);
    fixture.scheduler.finish(CheckRun { id, target, began: now, result: failed(), kept: None });
    assert!(fixture.is_healthy(WEB[0]) && fixture.report(WEB[0]).is_none());
    assert_eq!(fixture.run(Duration::from_millis(10), |_| passed()).await.len(), 1, "the new check is due");
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_their_endpoints() {
    let mut fixture = Fixture::new(tcp_check(), &WEB);
    fixture.run(Duration::from_secs(1), |_| passed()).await;
    let id = fixture.scheduler.upstreams[&key()].endpoints[&WEB[0].parse().unwrap()];
    let target = Rc::clone(&fixture.scheduler.checks[&id].target);
    fixture.set(Some(tcp_check()), &WEB[1..]);
    assert_eq!(fixture.scheduler.checks.len(), 1);
    // The result of a check that was running.
    let began = Instant::now();
    fixture.scheduler.finish(CheckRun { id, target, began, result: failed(), kept: None });
    let begun = fixture.run(Duration::from_secs(60), |_| passed()).await;
    assert!(begun.iter().all(|(endpoint, _)| endpoint == WEB[1]), "{begun:?}");
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_their_setting_and_free_what_they_ejected() {
    let mut fixture = Fixture::new(tcp_check(), &WEB);
    fixture.run(Duration::from_secs(1), |_| failed()).await;
    assert!(!fixture.is_healthy(WEB[0]));
    fixture.set(None, &WEB);
    assert!(fixture.is_healthy(WEB[0]) && fixture.is_healthy(WEB[1]));
    assert_eq!(fixture.report(WEB[0]), None);
    assert_eq!(fixture.run(Duration::from_secs(60), |_| failed()).await, []);
    assert!(fixture.scheduler.upstreams.is_empty() && fixture.scheduler.checks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_their_upstream() {
    for is_listed in [true, false] {
        let mut fixture = Fixture::new(tcp_check(), &WEB);
        fixture.run(Duration::from_secs(1), |_| passed()).await;
        let (unused, used_count) = if is_listed { (vec![key()], 1) } else { (vec![], 0) };
        fixture.registry.drop_unused(&unused, used_count, |_| false);
        fixture.follow();
        // A request in flight keeps the upstream, but not its checks.
        assert!(Arc::strong_count(&fixture.upstream) >= 1);
        assert_eq!(fixture.run(Duration::from_secs(60), |_| failed()).await, []);
        assert!(fixture.scheduler.upstreams.is_empty() && fixture.scheduler.checks.is_empty());
        // Its successor is checked.
        fixture.upstream = fixture.registry.upstream(&key());
        fixture.set(Some(tcp_check()), &WEB);
        assert_eq!(fixture.run_first(|_| passed()).await, BTreeSet::from(WEB.map(str::to_owned)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_upstream_is_checked_anew() {
    let mut fixture = Fixture::new(tcp_check(), &WEB);
    fixture.run(Duration::from_secs(1), |_| failed()).await;
    // Both changes are seen as one.
    fixture.registry.drop_unused(&[key()], 0, |_| false);
    fixture.upstream = fixture.registry.upstream(&key());
    fixture.set(Some(tcp_check()), &WEB);
    assert!(fixture.is_healthy(WEB[0]));
    assert_eq!(fixture.run_first(|_| failed()).await, BTreeSet::from(WEB.map(str::to_owned)));
    assert!(!fixture.is_healthy(WEB[0]));
}

#[tokio::test(start_paused = true)]
async fn endpoints_may_have_to_pass_before_they_get_requests() {
    let check = ActiveCheck { initial: InitialHealth::Unhealthy, ..tcp_check() };
    let mut fixture = Fixture::new(check.clone(), &WEB[..1]);
    assert!(!fixture.is_healthy(WEB[0]), "there was no check yet");
    fixture.run(Duration::from_secs(1), |_| passed()).await;
    assert!(fixture.is_healthy(WEB[0]));
    fixture.set(Some(check), &WEB);
    assert!(fixture.is_healthy(WEB[0]) && !fixture.is_healthy(WEB[1]));
    fixture.run(Duration::from_secs(1), |_| passed()).await;
    assert!(fixture.is_healthy(WEB[1]));
}

#[tokio::test(start_paused = true)]
async fn addresses_of_names_are_checked() {
    let mut fixture = Fixture::new(tcp_check(), &[]);
    let name = |check| {
        let addresses = vec![EndpointAddress::Name { host: "db.example".into(), port: 5432 }];
        Endpoints { addresses, ..endpoints(Some(check), &[]) }
    };
    fixture.upstream.set_endpoints(name(tcp_check()));
    fixture.upstream.set_resolved("db.example", vec!["192.0.2.7".parse().unwrap()]);
    fixture.follow();
    assert_eq!(fixture.run_first(|_| passed()).await, BTreeSet::from(["192.0.2.7:5432".to_owned()]));
    fixture.upstream.set_resolved("db.example", vec!["192.0.2.8".parse().unwrap()]);
    fixture.follow();
    assert_eq!(fixture.run_first(|_| passed()).await, BTreeSet::from(["192.0.2.8:5432".to_owned()]));
}

/// A response whose status neither passes nor fails changes nothing.
#[tokio::test(start_paused = true)]
async fn inconclusive_responses_have_no_effect() {
    let mut fixture = Fixture::new(tcp_check(), &WEB[..1]);
    fixture.run(Duration::from_secs(1), |_| failed()).await;
    let inconclusive = || Ok(CheckPass { is_conclusive: false, ..CheckPass::on_this_connection(false) });
    assert!(fixture.run(Duration::from_secs(60), |_| inconclusive()).await.len() >= 5);
    assert!(!fixture.is_healthy(WEB[0]) && !fixture.report(WEB[0]).unwrap().has_passed);
}

/// With an interval of 0 for healthy endpoints, only those that something else has ejected are checked.
#[tokio::test(start_paused = true)]
async fn endpoints_may_be_checked_only_while_they_are_ejected() {
    let check = ActiveCheck { interval: Duration::ZERO, unhealthy_interval: Duration::from_secs(1), ..tcp_check() };
    let mut fixture = Fixture::new(check, &WEB);
    assert_eq!(fixture.run(Duration::from_secs(60), |_| passed()).await, []);
    fixture.upstream.report(WEB[0].parse().unwrap(), &Outcome::of(OutcomeClass::ConnectFailed));
    let begun = fixture.run(Duration::from_secs(10), |_| failed()).await;
    assert!((8..=12).contains(&begun.len()), "{begun:?}");
    assert!(begun.iter().all(|(endpoint, _)| endpoint == WEB[0]), "{begun:?}");
}

/// Skipped checks are counted, and have no other effect.
#[tokio::test(start_paused = true)]
async fn a_shortage_of_this_process_says_nothing_about_endpoints() {
    let mut fixture = Fixture::new(tcp_check(), &WEB[..1]);
    let skipped = || Err(CheckFailure::NoSocket(crate::upstream::SocketLimit::Process { limit: 256 }));
    let begun = fixture.run(Duration::from_secs(60), |_| skipped()).await;
    assert!(fixture.is_healthy(WEB[0]) && fixture.report(WEB[0]).is_none());
    assert_eq!(fixture.upstream.check_counts(), [(CheckType::Tcp, CheckOutcome::Skipped, begun.len() as u64)]);
    fixture.run(Duration::from_secs(12), |_| failed()).await;
    assert!(!fixture.is_healthy(WEB[0]), "the first result acts at once");
}

/// Trap: the checks of all replicas must not be in step after a restart.
#[tokio::test(start_paused = true)]
async fn replicas_check_an_endpoint_at_different_times() {
    let mut first_delays = BTreeSet::new();
    for _ in 0..5 {
        let mut fixture = Fixture::new(tcp_check(), &WEB[..1]);
        first_delays.insert(fixture.run(Duration::from_secs(30), |_| passed()).await[1].1);
    }
    assert!(first_delays.len() >= 4, "{first_delays:?}");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_endpoints_are_checked_within_the_rate() {
    let addresses: Vec<String> =
        (0..10_000).map(|number| format!("10.0.{}.{}:80", number / 250, number % 250)).collect();
    let mut addresses: Vec<&str> = addresses.iter().map(|address| &**address).collect();
    addresses.sort_by_key(|address| address.parse::<SocketAddr>().unwrap());
    let mut fixture = Fixture::new(tcp_check(), &addresses);
    let begun = fixture.run(Duration::from_secs(60), |_| passed()).await;
    assert!((11_000..=12_010).contains(&begun.len()), "{}", begun.len());
    let checked: BTreeSet<_> = begun.iter().map(|(endpoint, _)| endpoint).collect();
    assert_eq!(checked.len(), 10_000);
    fixture.set(None, &[]);
    assert!(fixture.scheduler.checks.is_empty() && fixture.scheduler.schedule.next_begin().is_none());
}

/// An endpoint that was away for long is probed rarely, and would wait for the next probe otherwise.
#[tokio::test(start_paused = true)]
async fn check_that_opens_a_connection_returns_an_endpoint_that_refused_one() {
    let elsewhere = ActiveCheck { port: Some(8080), ..tcp_check() };
    for (check, has_connected, returns) in [
        (tcp_check(), true, true),
        // Over a connection from before, which shows nothing about new ones.
        (tcp_check(), false, false),
        (elsewhere, true, false),
    ] {
        let mut fixture = Fixture::new(check, &WEB[..1]);
        // Otherwise requests would find out.
        fixture.registry.begin_probing();
        fixture.run(Duration::from_secs(1), |_| passed()).await;
        fixture.upstream.report(WEB[0].parse().unwrap(), &Outcome::of(OutcomeClass::ConnectFailed));
        assert!(!fixture.is_healthy(WEB[0]));
        let pass = |_: &str| Ok(CheckPass { has_connected, ..CheckPass::on_this_connection(false) });
        fixture.run(Duration::from_secs(30), pass).await;
        assert_eq!(fixture.is_healthy(WEB[0]), returns);
    }
}
