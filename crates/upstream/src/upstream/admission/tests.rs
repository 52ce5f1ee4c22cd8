//! Tests of admissions on virtual time: limits, dry runs, and changes of the configuration.

use http::StatusCode;
use tokio::time::advance;

use super::super::settings::{
    AdaptiveLimit, AdmissionControl, CircuitBreakerSettings, OverloadSettings, RequestLimits, SlowRequests,
};
use super::*;
use crate::upstream::CircuitPhase;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> RequestLimits {
    RequestLimits { max_requests: Some(2), ..RequestLimits::default() }
}

fn circuit() -> CircuitBreakerSettings {
    CircuitBreakerSettings {
        window: 10 * SECOND,
        min_requests: 5,
        error_percent: 50,
        slow: None,
        consecutive: None,
        statuses: Box::default(),
        open_for: 10 * SECOND,
        max_open_for: 60 * SECOND,
        probes: 1,
        successes: 1,
        ramp_up: Duration::ZERO,
        fallback: None,
    }
}

fn overload(limits: Option<RequestLimits>, circuit: Option<CircuitBreakerSettings>) -> OverloadSettings {
    OverloadSettings { limits: limits.map(Arc::new), circuit_breaker: circuit.map(Arc::new) }
}

fn control(settings: &OverloadSettings) -> OverloadControl {
    fastrand::seed(11);
    let control = OverloadControl::default();
    control.set(settings, false, &"ns/web:80");
    control
}

fn admit(control: &OverloadControl) -> Result<Admission, NotAdmitted> {
    control.admit(ClientSlot::numbered(0), RequestArrival::Complete)
}

fn rejection(control: &OverloadControl) -> Overloaded {
    match admit(control) {
        Err(NotAdmitted::Overloaded(overloaded)) => overloaded,
        other => panic!("{other:?}"),
    }
}

fn queued(control: &OverloadControl) -> Box<QueuedRequest> {
    match admit(control) {
        Err(NotAdmitted::Queued(queued)) => queued,
        other => panic!("{other:?}"),
    }
}

fn outcome(status: u16) -> Outcome {
    let status = Some(StatusCode::from_u16(status).unwrap());
    Outcome { status, waited: EndpointTime::Exactly(SECOND / 100), ..Outcome::of(OutcomeClass::Responded) }
}

/// What all observers that the admission has get.
fn record(admission: &mut Admission, outcome: &Outcome) {
    let verdict = admission.verdict(outcome);
    admission.record_in_circuit(verdict);
    admission.record_success_rate(verdict);
    admission.record_in_limit(outcome);
}

fn respond(control: &OverloadControl, status: u16) {
    record(&mut admit(control).unwrap(), &outcome(status));
}

fn phase(control: &OverloadControl) -> CircuitPhase {
    control.report().unwrap().circuit.unwrap().phase
}

#[test]
fn upstreams_without_limits_admit_everything() {
    let control = OverloadControl::default();
    let held: Vec<_> = (0..10_000).map(|_| admit(&control).unwrap()).collect();
    assert!(held.iter().all(|admission| admission.held.is_none()));
    assert_eq!(control.report(), None);
}

#[test]
fn requests_beyond_the_limit_are_rejected() {
    for (max_requests, expected) in [(0, 1), (1, 1), (2, 2), (1_000_000, 50)] {
        let control = control(&overload(Some(RequestLimits { max_requests: Some(max_requests), ..limits() }), None));
        let held: Vec<_> = (0..50).map_while(|_| admit(&control).ok()).collect();
        assert_eq!(held.len(), expected, "{max_requests}");
        if expected < 50 {
            assert_eq!(rejection(&control), Overloaded::OverLimit);
            assert_eq!(control.report().unwrap().rejected(OverloadLimit::Requests), 2);
        }
        drop(held);
        assert!(admit(&control).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_place_up_to_the_timeout() {
    let queue = RequestLimits { max_requests: Some(1), max_pending: Some(1), queue_timeout: 5 * SECOND, ..limits() };
    let control = control(&overload(Some(queue.clone()), None));
    let held = admit(&control).unwrap();
    let waiting = queued(&control);
    assert_eq!(rejection(&control), Overloaded::OverLimit);
    assert_eq!(control.report().unwrap().rejected(OverloadLimit::Pending), 1);
    assert_eq!(waiting.wait().await.unwrap_err(), Overloaded::QueueTimeout);
    let waiting = queued(&control);
    drop(held);
    drop(waiting.wait().await.unwrap());
    let report = control.report().unwrap();
    assert_eq!((report.active, report.pending, report.rejected(OverloadLimit::QueueTimeout)), (0, 0, 1));
    // Without a timeout there is no queue.
    control.set(&overload(Some(RequestLimits { queue_timeout: Duration::ZERO, ..queue }), None), false, &"ns/web:80");
    let _held = admit(&control).unwrap();
    assert_eq!(rejection(&control), Overloaded::OverLimit);
}

/// A request that got its place while the circuit opened must not reach endpoints that fail.
#[tokio::test(start_paused = true)]
async fn circuit_is_checked_again_after_the_queue() {
    let queue = RequestLimits { max_requests: Some(1), max_pending: Some(9), queue_timeout: SECOND, ..limits() };
    let control = control(&overload(Some(queue), Some(CircuitBreakerSettings { consecutive: Some(1), ..circuit() })));
    let mut held = admit(&control).unwrap();
    let waiting = queued(&control);
    record(&mut held, &outcome(500));
    drop(held);
    assert!(matches!(waiting.wait().await, Err(Overloaded::CircuitOpen { .. })));
    assert_eq!(control.report().unwrap().active, 0);
}

#[tokio::test(start_paused = true)]
async fn only_errors_of_the_service_open_the_circuit() {
    use OutcomeClass::*;
    let of = Outcome::of;
    let listed = |statuses: &[u16]| CircuitBreakerSettings { statuses: statuses.into(), ..circuit() };
    for (case, settings, outcome, opens) in [
        ("500", circuit(), outcome(500), true),
        ("503", circuit(), outcome(503), true),
        ("the request is not implemented", circuit(), outcome(501), false),
        ("the version", circuit(), outcome(505), false),
        ("errors of the client", circuit(), outcome(404), false),
        ("429", circuit(), outcome(429), false),
        ("listed", listed(&[429, 503]), outcome(429), true),
        ("not listed", listed(&[429, 503]), outcome(500), false),
        ("no connection", circuit(), of(ConnectFailed), true),
        ("no response", circuit(), of(NoResponse), true),
        ("no response in time", circuit(), of(TimedOut), true),
        ("an invalid response", listed(&[503]), of(Failed), true),
        ("the stream was refused", circuit(), of(NotProcessed), false),
        ("a lack of sockets", circuit(), of(Inconclusive), false),
        ("the client has disconnected", circuit(), of(Abandoned), false),
        ("a connection", circuit(), of(Connected), false),
    ] {
        let control = control(&overload(None, Some(settings)));
        for _ in 0..10 {
            if let Ok(mut admission) = admit(&control) {
                record(&mut admission, &outcome);
            }
        }
        assert_eq!(phase(&control) == CircuitPhase::Open, opens, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_timeouts_open_the_circuit() {
    let control = control(&overload(None, Some(circuit())));
    for _ in 0..5 {
        record(&mut admit(&control).unwrap(), &Outcome::of(OutcomeClass::TimedOut));
    }
    assert_eq!(phase(&control), CircuitPhase::Open);
    assert_eq!(rejection(&control), Overloaded::CircuitOpen { retry_after: retry_after(&control) });
    advance(11 * SECOND).await;
    respond(&control, 200);
    assert_eq!(phase(&control), CircuitPhase::Closed);
}

fn retry_after(control: &OverloadControl) -> Duration {
    control.report().unwrap().circuit.unwrap().open_for
}

#[test]
fn retries_in_progress_are_limited() {
    let max_retries = RequestLimits { max_retries: Some(1), max_requests: None, ..limits() };
    let control = control(&overload(Some(max_retries), None));
    let (mut first, mut second) = (admit(&control).unwrap(), admit(&control).unwrap());
    assert!(first.take_retry() && first.take_retry(), "a request has one retry in progress");
    assert!(!second.take_retry());
    assert_eq!(control.report().unwrap().rejected(OverloadLimit::Retries), 1);
    drop(first);
    assert!(second.take_retry());
}

/// The responses of a client that did not read them held all places of retries.
#[test]
fn retry_ends_with_the_head_of_its_response() {
    let max_retries = RequestLimits { max_retries: Some(1), max_requests: None, ..limits() };
    let control = control(&overload(Some(max_retries), None));
    let (mut first, mut second) = (admit(&control).unwrap(), admit(&control).unwrap());
    assert!(first.take_retry() && !second.take_retry());
    first.end_retry();
    assert!(second.take_retry() && !first.take_retry());
    assert_eq!(control.report().unwrap().retries, 1);
}

#[tokio::test(start_paused = true)]
async fn admission_control_rejects_a_part_of_the_requests() {
    let admission =
        AdmissionControl { threshold_percent: 95, aggression: 1000, max_reject_percent: 80, window: 30 * SECOND };
    let control =
        control(&overload(Some(RequestLimits { max_requests: None, admission: Some(admission), ..limits() }), None));
    for _ in 0..100 {
        respond(&control, 200);
    }
    assert_eq!(control.report().unwrap().rejected(OverloadLimit::Admission), 0);
    advance(40 * SECOND).await;
    let admitted = (0..20_000).filter(|_| {
        let admitted = admit(&control).ok();
        admitted.map(|mut admission| record(&mut admission, &outcome(500))).is_some()
    });
    let admitted = admitted.count();
    assert!((3_800..4_300).contains(&admitted), "{admitted} of 20,000");
    advance(40 * SECOND).await;
    assert!(admit(&control).is_ok());
}

#[test]
fn slow_responses_lower_the_adaptive_limit() {
    let adaptive = AdaptiveLimit { min: 5, max: 1000 };
    let control =
        control(&overload(Some(RequestLimits { max_requests: None, adaptive: Some(adaptive), ..limits() }), None));
    let limit = || control.report().unwrap().limit.unwrap();
    assert_eq!(limit(), 20);
    let record = |millis, count| {
        let mut held: Vec<_> = std::iter::from_fn(|| admit(&control).ok()).collect();
        let waited = EndpointTime::Exactly(Duration::from_millis(millis));
        (0..count).for_each(|_| record(&mut held[0], &Outcome { waited, ..outcome(200) }));
    };
    record(10, 600);
    let raised = limit();
    assert!(raised > 30, "{raised}");
    // It changes once in as many responses as it allows requests. Some changes after it has reached its lowest value,
    // the time of now becomes the normal one, and it grows again.
    let responses = (0..2_000).take_while(|_| limit() > 5).inspect(|_| record(1000, 1)).count();
    assert_eq!(limit(), 5, "after {responses} slow responses");
    let _held: Vec<_> = std::iter::from_fn(|| admit(&control).ok()).collect();
    assert_eq!(rejection(&control), Overloaded::OverLimit);
    assert!(control.report().unwrap().rejected(OverloadLimit::Adaptive) > 0);
}

/// A dry run computes and counts, and rejects nothing.
#[tokio::test(start_paused = true)]
async fn dry_run_admits_everything() {
    let limits = RequestLimits { max_requests: Some(1), max_pending: Some(1), max_retries: Some(1), ..limits() };
    let control = OverloadControl::default();
    control.set(&overload(Some(limits), Some(circuit())), true, &"ns/web:80");
    let mut held: Vec<_> = (0..10).map(|_| admit(&control).unwrap()).collect();
    assert!(held.iter_mut().all(Admission::take_retry));
    held.iter_mut().for_each(|admission| record(admission, &outcome(500)));
    assert_eq!(phase(&control), CircuitPhase::Open);
    assert!(admit(&control).is_ok());
    let report = control.report().unwrap();
    let rejected =
        [OverloadLimit::Requests, OverloadLimit::Retries, OverloadLimit::Circuit].map(|l| report.rejected(l));
    assert_eq!((report.active, report.is_dry_run, rejected), (10, true, [10, 9, 1]));
}

#[tokio::test(start_paused = true)]
async fn counts_and_circuit_outlive_changes_of_the_configuration() {
    let control = control(&overload(Some(limits()), Some(circuit())));
    let held = [admit(&control).unwrap(), admit(&control).unwrap()];
    let three = RequestLimits { max_requests: Some(3), ..limits() };
    control.set(&overload(Some(three.clone()), Some(circuit())), false, &"ns/web:80");
    let third = admit(&control).unwrap();
    assert_eq!(rejection(&control), Overloaded::OverLimit, "the earlier requests count");
    control.set(&overload(Some(limits()), Some(circuit())), false, &"ns/web:80");
    drop(third);
    assert_eq!(rejection(&control), Overloaded::OverLimit);
    drop(held);
    for _ in 0..5 {
        respond(&control, 500);
    }
    control.set(&overload(None, Some(CircuitBreakerSettings { error_percent: 60, ..circuit() })), false, &"ns/web:80");
    assert!(matches!(rejection(&control), Overloaded::CircuitOpen { .. }));
    // The state ends with its block.
    control.set(&overload(Some(limits()), None), false, &"ns/web:80");
    control.set(&overload(Some(limits()), Some(circuit())), false, &"ns/web:80");
    assert!(admit(&control).is_ok());
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_are_served_when_the_limit_is_removed() {
    let queue = RequestLimits { max_requests: Some(1), max_pending: Some(9), queue_timeout: 60 * SECOND, ..limits() };
    let control = control(&overload(Some(queue), None));
    let _held = admit(&control).unwrap();
    let waiting = queued(&control);
    control.set(&overload(None, None), false, &"ns/web:80");
    assert!(waiting.wait().await.is_ok());
    assert!(admit(&control).unwrap().held.is_none());
}

/// Requests that were admitted under an adaptive limit end after it was removed.
#[test]
fn earlier_rules_do_not_set_their_limit_again() {
    let adaptive = Some(AdaptiveLimit { min: 1, max: 1 });
    let control = control(&overload(Some(RequestLimits { adaptive, max_requests: None, ..limits() }), None));
    let mut held = admit(&control).unwrap();
    control.set(&overload(Some(RequestLimits { max_requests: Some(5), ..limits() }), None), false, &"ns/web:80");
    (0..100).for_each(|_| record(&mut held, &outcome(200)));
    assert_eq!(control.report().unwrap().limit, Some(5));
}

/// The verdict on a call follows its trailers, and the time to its head counts once.
#[tokio::test(start_paused = true)]
async fn calls_count_by_the_status_in_their_trailers() {
    let head = Outcome { grpc_status: GrpcStatus::Pending, ..outcome(200) };
    let message = Outcome::of_call(GrpcStatus::Streaming, false);
    let trailers = |code| Outcome::of_call(GrpcStatus::Received(code), false);
    let slow = Some(SlowRequests { after: SECOND / 1000, percent: 10 });
    for (outcomes, errors, slow_opens) in [
        (vec![head, message, trailers(14)], 5, false),
        (vec![head, trailers(13)], 5, false),
        (vec![head, message, trailers(0)], 0, true),
        (vec![head, message, Outcome::of(OutcomeClass::Truncated)], 5, false),
        (vec![head, Outcome::of_call(GrpcStatus::Received(4), true)], 0, false),
        // The client has left.
        (vec![head, message], 0, false),
    ] {
        let settings = CircuitBreakerSettings { error_percent: 100, min_requests: 6, ..circuit() };
        let control = control(&overload(None, Some(settings.clone())));
        for _ in 0..5 {
            let mut admission = admit(&control).unwrap();
            outcomes.iter().for_each(|outcome| record(&mut admission, outcome));
        }
        assert_eq!(control.report().unwrap().circuit.unwrap().errors, errors, "{outcomes:?}");
        control.set(
            &overload(None, Some(CircuitBreakerSettings { slow, min_requests: 1, ..settings })),
            false,
            &"ns/web:80",
        );
        let mut admission = admit(&control).unwrap();
        outcomes.iter().for_each(|outcome| record(&mut admission, outcome));
        let is_open = phase(&control) == CircuitPhase::Open;
        assert_eq!(is_open, slow_opens || errors > 0, "slow: {outcomes:?}");
    }
}

/// The schema allows 1 to 1,000,000; a limit of another source may be any number.
#[tokio::test(start_paused = true)]
async fn smallest_and_largest_limits_work() {
    for (number, time, held) in [(0, Duration::ZERO, 1), (1, SECOND, 1), (u32::MAX, Duration::MAX, 50)] {
        let percent = u8::try_from(number).unwrap_or(100);
        let admission = AdmissionControl {
            threshold_percent: percent,
            aggression: number,
            max_reject_percent: percent,
            window: time,
        };
        let all = RequestLimits {
            max_connections: Some(number),
            max_requests: Some(number),
            max_pending: Some(number),
            queue_timeout: time,
            max_requests_per_endpoint: Some(number),
            max_requests_per_connection: Some(number),
            max_retries: Some(number),
            max_connection_age: Some(time),
            adaptive: Some(AdaptiveLimit { min: number, max: number }),
            admission: Some(admission),
        };
        let control = control(&overload(Some(all), None));
        let mut admitted: Vec<_> = (0..50).map_while(|_| admit(&control).ok()).collect();
        assert_eq!(admitted.len(), held, "{number}");
        assert!(admitted[0].take_retry() || number == 0, "{number}");
        record(&mut admitted[0], &outcome(200));
        if held == 1 {
            match admit(&control) {
                Err(NotAdmitted::Queued(waiting)) if number == 1 => {
                    assert_eq!(waiting.wait().await.unwrap_err(), Overloaded::QueueTimeout);
                }
                Err(NotAdmitted::Overloaded(Overloaded::OverLimit)) if number == 0 => {}
                other => panic!("{number}: {other:?}"),
            }
        }
        drop(admitted);
        let report = control.report().unwrap();
        assert_eq!((report.active, report.pending), (0, 0), "{number}");
        assert!(admit(&control).is_ok(), "{number}: there is room again");
    }
}
