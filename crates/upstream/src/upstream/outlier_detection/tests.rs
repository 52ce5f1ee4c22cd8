//! Tests of outlier detection. Those that name an issue of another project would fail with its behavior.

use std::time::Duration;

use http::StatusCode;
use tokio::time::advance;

use super::*;
use crate::upstream::health::Availability;
use crate::upstream::outcome::{EndpointTime, GivenTime, GrpcStatus};
use crate::upstream::settings::{
    ActiveCheck, CheckKind, FailurePercentage, HealthSettings, InitialHealth, PassiveChecks, SuccessRate,
};

/// A detector with endpoints, named by their numbers.
struct Detector {
    detection: Arc<OutlierDetection>,
    states: Vec<(SocketAddr, Arc<EndpointState>)>,
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(number).unwrap()))
}

impl Detector {
    fn new(endpoints: usize, passive: PassiveChecks) -> Self {
        Detector::with(endpoints, HealthSettings { passive, ..HealthSettings::default() }, false)
    }

    fn with(endpoints: usize, settings: HealthSettings, is_dry_run: bool) -> Self {
        let detection = OutlierDetection::default();
        detection.configure(Some(&Arc::new(settings)), is_dry_run);
        let addresses: Vec<_> = (0..endpoints).map(address).collect();
        let states = detection.set_endpoints(&addresses, &[]);
        Detector { detection: Arc::new(detection), states }
    }

    fn report(&self, endpoint: usize, outcome: Outcome) {
        let outcome = outcome.for_endpoint(self.detection.timeout_after());
        let (address, state) = &self.states[endpoint];
        if self.detection.concerns(&outcome) {
            let seen = ObservedEndpoint { upstream: &"ns/web:80", address: *address, state, error: None };
            let _follow_up = self.detection.record(&seen, &outcome);
        }
    }

    fn reset(&self, endpoint: usize, times: usize) {
        let connect_time = Some(Duration::ZERO);
        for _ in 0..times {
            self.report(endpoint, Outcome { connect_time, ..Outcome::of(OutcomeClass::NoResponse) });
        }
    }

    /// A response with this status, which arrives to its end.
    fn respond(&self, endpoint: usize, status: u16) {
        let status = Some(StatusCode::from_u16(status).unwrap());
        self.report(endpoint, Outcome { status, ..Outcome::of(OutcomeClass::Responded) });
        self.report(endpoint, Outcome::of(OutcomeClass::Completed));
    }

    fn availability(&self, endpoint: usize) -> Availability {
        self.states[endpoint].1.health.availability(self.detection.clock.now())
    }

    fn claims(&self, endpoint: usize) -> bool {
        self.states[endpoint].1.health.claim_half_open(self.detection.clock.now(), true).is_some()
    }

    fn check(&self, endpoint: usize, passed: bool, is_first: bool) {
        let (address, state) = &self.states[endpoint];
        let seen = ObservedEndpoint { upstream: &"ns/web:80", address: *address, state, error: None };
        self.detection.record_check(&seen, passed, is_first);
    }

    fn ejected(&self) -> Vec<usize> {
        let is_ejected = |endpoint: &usize| matches!(self.availability(*endpoint), Availability::Ejected(_));
        (0..self.states.len()).filter(is_ejected).collect()
    }

    fn ejections(&self, cause: EjectionCause) -> u64 {
        self.detection.ejections()[cause as usize].1
    }
}

const DEFAULT: fn() -> PassiveChecks = PassiveChecks::default;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn active_check() -> Arc<ActiveCheck> {
    Arc::new(ActiveCheck {
        kind: CheckKind::Tcp { send: Box::default(), expect: Box::default() },
        interval: seconds(1),
        unhealthy_interval: seconds(1),
        timeout: seconds(1),
        failure_thresholds: None,
        unhealthy_threshold: 1,
        healthy_threshold: 1,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection: true,
    })
}

/// A 503 may be deliberate, so statuses count only on request (envoyproxy/gateway#4854).
#[tokio::test(start_paused = true)]
async fn statuses_eject_nothing_by_default() {
    let detector = Detector::new(2, DEFAULT());
    for status in [500, 502, 503, 504, 429] {
        for _ in 0..20 {
            detector.respond(0, status);
        }
    }
    assert_eq!(detector.ejected(), [0; 0]);
    assert_eq!(detector.detection.attention.load(Relaxed), 0, "healthy endpoints need no attention");
}

#[tokio::test(start_paused = true)]
async fn consecutive_failures_eject() {
    let statuses = PassiveChecks { gateway_errors: 3, server_errors: 5, ..DEFAULT() };
    let listed = PassiveChecks { server_errors: 2, statuses: [429, 500].into(), ..DEFAULT() };
    for (case, checks, responses, expected) in [
        ("gateway errors", &statuses, &[502, 503, 504][..], true),
        ("too few", &statuses, &[502, 503], false),
        ("another server error resets them", &statuses, &[503, 503, 500, 503], false),
        ("server errors, those of gateways included", &statuses, &[500, 503, 500, 502, 500], true),
        ("a success resets all", &statuses, &[500, 500, 500, 500, 200, 500, 500], false),
        ("501 and 505 are no failures", &statuses, &[501, 505, 501, 505, 501, 505], false),
        ("listed statuses", &listed, &[429, 500], true),
        ("statuses that are not listed", &listed, &[503, 503, 503], false),
    ] {
        let detector = Detector::new(2, checks.clone());
        responses.iter().for_each(|status| detector.respond(0, *status));
        assert_eq!(detector.ejected(), if expected { vec![0] } else { vec![] }, "{case}");
    }
    let detector = Detector::new(2, DEFAULT());
    detector.reset(0, 4);
    detector.respond(0, 500);
    detector.reset(0, 4);
    assert_eq!(detector.ejected(), [0; 0], "any response shows that the endpoint works");
    detector.reset(0, 1);
    assert_eq!(detector.availability(0), Availability::Ejected(EjectionCause::LocalOrigin));
}

/// Each head alone looks like a success.
#[tokio::test(start_paused = true)]
async fn responses_that_end_too_early_eject() {
    let detector = Detector::new(2, DEFAULT());
    for _ in 0..5 {
        let status = Some(StatusCode::OK);
        detector.report(0, Outcome { status, ..Outcome::of(OutcomeClass::Responded) });
        detector.report(0, Outcome::of(OutcomeClass::Truncated));
    }
    assert_eq!(detector.availability(0), Availability::Ejected(EjectionCause::LocalOrigin));
}

/// Timeouts that a client has set, or a client that leaves, say nothing about the endpoint (envoyproxy/envoy#22395).
#[tokio::test(start_paused = true)]
async fn clients_eject_nothing() {
    let detector = Detector::new(2, DEFAULT());
    let timed_out = Outcome::of(OutcomeClass::TimedOut);
    let waited = |millis| Outcome { waited: EndpointTime::AtLeast(Duration::from_millis(millis)), ..timed_out };
    for outcome in [
        timed_out,
        waited(4999),
        Outcome::of(OutcomeClass::Abandoned),
        Outcome::of(OutcomeClass::Inconclusive),
        Outcome::of(OutcomeClass::NotProcessed),
    ] {
        (0..20).for_each(|_| detector.report(0, outcome));
        assert_eq!(detector.ejected(), [0; 0], "{outcome:?}");
    }
    (0..5).for_each(|_| detector.report(0, waited(5000)));
    assert_eq!(detector.ejected(), [0], "Portico itself has waited long enough");
    let given = GivenTime { to_endpoint: Some(Duration::from_secs(1)), to_service: None };
    (0..5).for_each(|_| detector.report(1, Outcome { given, ..waited(1000) }));
    assert_eq!(detector.ejected(), [0], "the last one stays");
}

/// Most calls of gRPC have the status 200, whatever their trailers say (envoyproxy/envoy#11049).
#[tokio::test(start_paused = true)]
async fn statuses_of_grpc_calls_count() {
    let checks = PassiveChecks { gateway_errors: 3, ..DEFAULT() };
    let head =
        |grpc_status| Outcome { status: Some(StatusCode::OK), grpc_status, ..Outcome::of(OutcomeClass::Responded) };
    let trailers = |code| Outcome { grpc_status: GrpcStatus::Received(code), ..Outcome::of(OutcomeClass::Responded) };
    for (case, code, expected) in [("UNAVAILABLE", 14, true), ("DEADLINE_EXCEEDED", 4, true), ("NOT_FOUND", 5, false)] {
        let detector = Detector::new(2, checks.clone());
        for _ in 0..3 {
            detector.report(0, head(GrpcStatus::Pending));
            detector.report(0, trailers(code));
            detector.report(0, Outcome::of(OutcomeClass::Completed));
        }
        assert_eq!(detector.ejected().len(), usize::from(expected), "{case} in trailers");
        let detector = Detector::new(2, checks.clone());
        (0..3).for_each(|_| detector.report(0, head(GrpcStatus::Received(code))));
        assert_eq!(detector.ejected().len(), usize::from(expected), "{case} in heads");
    }
}

/// One endpoint was ejected nevertheless.
#[tokio::test(start_paused = true)]
async fn no_response_ejects_an_endpoint_by_a_share_of_zero() {
    let settings = HealthSettings { max_ejection_percent: 0, ejects_last: true, ..HealthSettings::default() };
    let detector = Detector::with(4, settings, false);
    (0..4).for_each(|endpoint| detector.reset(endpoint, 50));
    assert_eq!(detector.ejected(), [0; 0]);
    detector.report(1, Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!(detector.ejected(), [1], "connections are not limited");
}

/// A cap in percent alone never ejects anything in a small set (envoyproxy/envoy#3263).
#[tokio::test(start_paused = true)]
async fn small_sets_eject_one_and_keep_the_last() {
    for (endpoints, percent, expected) in
        [(1, 100, 0), (2, 10, 1), (2, 100, 1), (3, 10, 1), (4, 50, 2), (10, 50, 5), (10, 100, 9), (20, 10, 2)]
    {
        let settings = HealthSettings { max_ejection_percent: percent, ..HealthSettings::default() };
        let detector = Detector::with(endpoints, settings, false);
        for endpoint in 0..endpoints {
            detector.reset(endpoint, 50);
        }
        assert_eq!(detector.ejected().len(), expected, "{endpoints} endpoints, {percent} %");
    }
    let settings = HealthSettings { max_ejection_percent: 100, ejects_last: true, ..HealthSettings::default() };
    for endpoints in 1..3 {
        let detector = Detector::with(endpoints, settings.clone(), false);
        (0..endpoints).for_each(|endpoint| detector.reset(endpoint, 50));
        assert_eq!(detector.ejected().len(), endpoints, "the last one, too");
    }
}

#[tokio::test(start_paused = true)]
async fn unreachable_endpoints_count_but_are_not_limited() {
    let detector = Detector::new(4, DEFAULT());
    for endpoint in 0..3 {
        detector.report(endpoint, Outcome::of(OutcomeClass::ConnectFailed));
    }
    assert_eq!(detector.ejected(), [0, 1, 2]);
    detector.reset(3, 50);
    assert_eq!(detector.ejected(), [0, 1, 2], "the last available one stays");
    detector.report(3, Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!(detector.ejected(), [0, 1, 2, 3]);
}

/// Two workers may count beyond the threshold at once, so that none of them sees it exactly (envoyproxy/envoy#18950).
#[tokio::test]
async fn workers_eject_together_and_once() {
    for _ in 0..50 {
        let detector = Detector::new(3, DEFAULT());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| detector.reset(0, 2));
            }
        });
        assert_eq!(detector.ejected(), [0]);
        assert_eq!(detector.ejections(EjectionCause::LocalOrigin), 1);
    }
}

/// Ejection times neither grow without end nor start anew at once (envoyproxy/envoy#6016).
#[tokio::test(start_paused = true)]
async fn ejections_become_longer_and_shorter_again() {
    let checks = PassiveChecks { base_ejection: seconds(10), max_ejection: seconds(30), ..DEFAULT() };
    let detector = Detector::new(2, checks);
    let is_over = |time: Duration| async move { advance(time).await };
    detector.reset(0, 5);
    for expected in [10, 20, 30, 30] {
        is_over(seconds(expected) - Duration::from_millis(1)).await;
        assert_eq!(detector.ejected(), [0], "{expected}");
        // With up to a tenth more.
        is_over(seconds(expected).mul_f64(0.1) + Duration::from_millis(2)).await;
        assert_eq!(detector.availability(0), Availability::HalfOpen, "{expected}");
        assert!(detector.claims(0));
        detector.reset(0, 1);
    }
    is_over(seconds(34)).await;
    assert!(detector.claims(0));
    detector.respond(0, 200);
    assert_eq!(detector.availability(0), Availability::Available);
    let ejections = || detector.detection.report(address(0), &detector.states[0].1).ejections;
    assert_eq!(ejections(), 5);
    is_over(seconds(20)).await;
    assert_eq!(ejections(), 3, "each interval in service reduces it by one");
    is_over(seconds(100)).await;
    assert_eq!(ejections(), 0);
}

#[tokio::test(start_paused = true)]
async fn edit_of_a_policy_does_not_lengthen_a_running_ejection() {
    let detector = Detector::new(2, DEFAULT());
    detector.reset(0, 5);
    let passive = PassiveChecks { base_ejection: seconds(3000), max_ejection: seconds(3000), ..DEFAULT() };
    let longer = HealthSettings { passive, ..HealthSettings::default() };
    detector.detection.configure(Some(&Arc::new(longer)), false);
    assert_eq!(detector.ejected(), [0], "an edit does not heal it");
    advance(seconds(34)).await;
    assert_eq!(detector.availability(0), Availability::HalfOpen);
}

/// Half-open endpoints get one request at a time, however many workers there are.
#[tokio::test(start_paused = true)]
async fn half_open_endpoint_gets_one_request() {
    let detector = Detector::new(2, PassiveChecks { half_open_successes: 2, ..DEFAULT() });
    detector.reset(0, 5);
    assert!(!detector.claims(0), "its time is not over");
    advance(seconds(34)).await;
    let now = detector.detection.clock.now();
    let claim = || usize::from(detector.states[0].1.health.claim_half_open(now, true).is_some());
    let claims: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..16).map(|_| scope.spawn(claim)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(claims, 1);
    detector.respond(0, 200);
    assert_eq!(detector.availability(0), Availability::HalfOpen, "two must succeed");
    assert!(detector.claims(0));
    detector.respond(0, 200);
    assert_eq!(detector.availability(0), Availability::Available);
}

/// No endpoint stays ejected for ever, also not if the request is lost that it is tried with (Kong#3499).
#[tokio::test(start_paused = true)]
async fn lost_trials_are_followed_by_others() {
    let detector = Detector::new(2, DEFAULT());
    detector.reset(0, 5);
    advance(seconds(34)).await;
    assert!(detector.claims(0) && !detector.claims(0));
    advance(seconds(10)).await;
    assert!(detector.claims(0), "no result was reported");
    detector.report(0, Outcome::of(OutcomeClass::Inconclusive));
    assert!(detector.claims(0), "the result said nothing");
    detector.reset(0, 1);
    assert_eq!(detector.ejected(), [0], "one failure suffices");
}

#[tokio::test(start_paused = true)]
async fn requests_that_can_not_be_repeated_try_last() {
    let detector = Detector::new(2, DEFAULT());
    detector.reset(0, 5);
    let claims = || detector.states[0].1.health.claim_half_open(detector.detection.clock.now(), false).is_some();
    let until = detector.detection.report(address(0), &detector.states[0].1).remaining_millis.unwrap();
    advance(Duration::from_millis(until)).await;
    assert_eq!(detector.availability(0), Availability::HalfOpen);
    assert!(!claims());
    advance(seconds(1)).await;
    assert!(claims(), "there are no others");
}

/// `/healthz` may pass while requests fail.
#[tokio::test(start_paused = true)]
async fn passing_check_leads_to_half_open() {
    let settings = HealthSettings { active: Some(active_check()), ..HealthSettings::default() };
    let detector = Detector::with(2, settings, false);
    detector.check(0, true, true);
    assert!(!detector.detection.is_degraded());
    detector.check(0, false, false);
    assert_eq!(detector.availability(0), Availability::Ejected(EjectionCause::ActiveCheck));
    advance(seconds(1000)).await;
    assert_eq!(detector.ejected(), [0], "only a check ends it");
    detector.check(0, true, false);
    assert_eq!(detector.availability(0), Availability::HalfOpen);
    assert!(detector.claims(0));
    detector.respond(0, 200);
    assert_eq!(detector.availability(0), Availability::Available);
    assert!(!detector.detection.is_degraded());

    detector.reset(0, 5);
    detector.check(0, true, false);
    advance(seconds(34)).await;
    assert_eq!(detector.ejected(), [0], "a check must pass after the time");
    detector.check(0, true, false);
    assert_eq!(detector.availability(0), Availability::HalfOpen);
    detector.detection.configure(None, false);
    assert!(matches!(detector.availability(0), Availability::HalfOpen), "requests decide without checks");
}

#[tokio::test(start_paused = true)]
async fn settings_without_checks_free_what_checks_have_ejected() {
    let check = Arc::new(ActiveCheck { initial: InitialHealth::Unhealthy, ..(*active_check()).clone() });
    let settings = HealthSettings { active: Some(check), ..HealthSettings::default() };
    let detector = Detector::with(2, settings, false);
    assert_eq!(detector.ejected(), [0, 1], "no check has passed yet");
    detector.check(0, true, true);
    assert_eq!(detector.availability(0), Availability::Available, "the first check suffices");
    detector.detection.configure(None, false);
    assert_eq!(detector.ejected(), [0; 0]);
    assert!(!detector.detection.is_degraded());
}

#[tokio::test(start_paused = true)]
async fn dry_run_counts_without_effect() {
    let detector = Detector::with(2, HealthSettings::default(), true);
    detector.reset(0, 5);
    assert_eq!(detector.availability(0), Availability::Available);
    assert_eq!(detector.ejections(EjectionCause::LocalOrigin), 1);
    let report = detector.detection.report(address(0), &detector.states[0].1);
    assert_eq!((report.cause, report.is_dry_run), (Some(EjectionCause::LocalOrigin), true));
    assert_eq!(report.transitions.last().unwrap().to, HealthState::DryEjected);
    advance(seconds(34)).await;
    detector.respond(0, 200);
    assert_eq!(detector.detection.report(address(0), &detector.states[0].1).cause, None);
    assert!(!detector.detection.is_degraded());
    detector.report(0, Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!(detector.ejected(), [0], "what needs no policy stays in effect");
}

#[tokio::test(start_paused = true)]
async fn rates_are_compared_in_each_interval() {
    let success_rate = Some(SuccessRate { min_endpoints: 5, min_requests: 100, stdev_factor: 1900 });
    let detector = Detector::new(5, PassiveChecks { success_rate, ..DEFAULT() });
    let interval = |bad: usize| {
        for endpoint in 0..5 {
            for request in 0..100 {
                detector.respond(endpoint, if endpoint == bad && request % 2 == 0 { 500 } else { 200 });
            }
        }
        detector.detection.sweep(&"ns/web:80");
    };
    interval(usize::MAX);
    assert_eq!(detector.ejected(), [0; 0]);
    interval(4);
    assert_eq!(detector.availability(4), Availability::Ejected(EjectionCause::SuccessRate));
    let failure_percentage = Some(FailurePercentage { threshold: 50, min_endpoints: 2, min_requests: 50 });
    let detector = Detector::new(3, PassiveChecks { failure_percentage, ..DEFAULT() });
    for _ in 0..50 {
        detector.respond(0, 500);
        detector.respond(1, 200);
    }
    detector.detection.sweep(&"ns/web:80");
    assert_eq!(detector.availability(0), Availability::Ejected(EjectionCause::FailurePercentage));
}

/// Endpoints that close idle connections stay in service, without the slow start of one that was ejected
/// (envoyproxy/envoy#19437).
#[tokio::test(start_paused = true)]
async fn suspect_endpoints_are_decided_by_one_connection() {
    let detector = Detector::new(2, DEFAULT());
    let health = &detector.states[0].1.health;
    let marks = detector.detection.marks();
    detector.report(0, Outcome::of(OutcomeClass::Stale));
    assert_eq!(detector.availability(0), Availability::Suspect);
    assert_eq!((detector.detection.marks(), health.mark()), (marks + 1, marks + 1));
    detector.report(0, Outcome::of(OutcomeClass::Stale));
    assert_eq!(detector.detection.marks(), marks + 1, "it is suspect already");
    detector.report(0, Outcome::of(OutcomeClass::Connected));
    assert_eq!(detector.availability(0), Availability::Available);
    assert_eq!(health.in_service_since(), 0);
    detector.report(0, Outcome::of(OutcomeClass::Stale));
    advance(seconds(1)).await;
    detector.report(0, Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!(detector.ejected(), [0]);
    detector.report(0, Outcome::of(OutcomeClass::Connected));
    assert!(health.in_service_since() > 0);
    assert!(!detector.detection.is_degraded());
}

#[tokio::test(start_paused = true)]
async fn several_connect_failures_may_be_required() {
    let detector = Detector::new(2, PassiveChecks { connect_failures: 3, ..DEFAULT() });
    let fail = || detector.report(0, Outcome::of(OutcomeClass::ConnectFailed));
    fail();
    fail();
    detector.report(0, Outcome::of(OutcomeClass::Connected));
    fail();
    fail();
    assert_eq!(detector.ejected(), [0; 0]);
    fail();
    assert_eq!(detector.ejected(), [0]);
    let detector = Detector::new(2, PassiveChecks { connect_failures: 0, ..DEFAULT() });
    detector.report(0, Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!(detector.ejected(), [0], "the check cannot be switched off");
}

/// Until a probe has opened a connection, no request is sent there; afterwards one at once.
#[tokio::test(start_paused = true)]
async fn probed_endpoints_do_not_wait_for_requests() {
    let detector = Detector::new(2, DEFAULT());
    detector.detection.set_probed();
    let health = &detector.states[0].1.health;
    detector.report(0, Outcome::of(OutcomeClass::ConnectFailed));
    let order = health.take_probe_order().unwrap();
    assert_eq!(health.take_probe_order(), None, "each order is taken once");
    advance(seconds(1000)).await;
    assert!(!detector.claims(0), "requests do not probe");
    assert!(health.needs_probe(order));
    detector.report(0, Outcome::of(OutcomeClass::Responded));
    assert_eq!(detector.ejected(), [0], "a response over an older connection shows nothing about new ones");
    detector.report(0, Outcome::of(OutcomeClass::Connected));
    assert_eq!(detector.availability(0), Availability::Available);
    assert!(!health.needs_probe(order));
    detector.report(0, Outcome::of(OutcomeClass::ConnectFailed));
    assert!(!health.needs_probe(order) && health.take_probe_order().is_some(), "a new order replaces it");
}

/// Outcomes of healthy endpoints cost one load, again soon after a failure.
#[tokio::test(start_paused = true)]
async fn attention_ends_with_the_last_failure() {
    let detector = Detector::new(2, DEFAULT());
    let success = Outcome { status: Some(StatusCode::OK), ..Outcome::of(OutcomeClass::Responded) };
    assert!(!detector.detection.concerns(&success));
    detector.reset(0, 1);
    assert!(detector.detection.concerns(&success));
    detector.respond(1, 200);
    advance(seconds(1)).await;
    detector.respond(0, 200);
    detector.respond(0, 200);
    assert!(!detector.detection.concerns(&success));
}

#[tokio::test(start_paused = true)]
async fn states_of_endpoints_that_left_are_bounded() {
    let detection = OutlierDetection::default();
    for round in 0..50 {
        let addresses: Vec<_> = (round * 100..round * 100 + 100).map(address).collect();
        detection.set_endpoints(&addresses, &[]);
    }
    let kept = detection.members.lock().len();
    assert!(kept <= 100 + 256, "{kept}");
}
