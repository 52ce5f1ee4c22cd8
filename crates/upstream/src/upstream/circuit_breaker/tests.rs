//! Tests of circuit breakers on virtual time.

use tokio::time::{Instant, advance};

use super::*;
use crate::upstream::settings::SlowRequests;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const OK: CircuitVerdict = CircuitVerdict::Success { waited: EndpointTime::Exactly(MILLI) };

fn settings() -> CircuitBreakerSettings {
    CircuitBreakerSettings {
        window: 10 * SECOND,
        min_requests: 20,
        error_percent: 50,
        slow: None,
        consecutive: None,
        statuses: Box::default(),
        open_for: 10 * SECOND,
        max_open_for: 60 * SECOND,
        probes: 1,
        successes: 5,
        ramp_up: 10 * SECOND,
        fallback: None,
    }
}

fn breaker(settings: CircuitBreakerSettings) -> CircuitBreaker {
    fastrand::seed(7);
    CircuitBreaker::new(Arc::new(settings), "ns/web:80")
}

/// A request that ends at once. Whether it was let through.
fn request(breaker: &CircuitBreaker, verdict: CircuitVerdict) -> bool {
    let Ok(mut pass) = breaker.admit(RequestArrival::Complete, None) else { return false };
    breaker.record(&mut pass, verdict);
    true
}

fn requests(breaker: &CircuitBreaker, count: usize, verdict: CircuitVerdict) -> usize {
    (0..count).filter(|_| request(breaker, verdict)).count()
}

fn phase(breaker: &CircuitBreaker) -> CircuitPhase {
    breaker.report().phase
}

/// Opens a circuit that is closed.
fn open(breaker: &CircuitBreaker) {
    requests(breaker, 20, CircuitVerdict::Error);
    assert_eq!(phase(breaker), CircuitPhase::Open);
}

/// 1,000 requests a second; how long it takes until the circuit has this phase.
async fn time_until(breaker: &CircuitBreaker, expected: CircuitPhase, verdict: CircuitVerdict) -> Duration {
    let began = Instant::now();
    while phase(breaker) != expected {
        assert!(began.elapsed() < 100 * SECOND, "the circuit is never {expected:?}");
        advance(MILLI).await;
        request(breaker, verdict);
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_within_half_of_the_window_and_closes_after_recovery() {
    let breaker = breaker(settings());
    for _ in 0..20_000 {
        advance(MILLI).await;
        assert!(request(&breaker, OK));
    }
    let opened = time_until(&breaker, CircuitPhase::Open, CircuitVerdict::Error).await;
    assert!(opened <= 5 * SECOND + 100 * MILLI && opened >= 4 * SECOND, "{opened:?}");
    let closed = time_until(&breaker, CircuitPhase::Closed, OK).await;
    assert!(closed >= 19 * SECOND && closed <= 21 * SECOND, "{closed:?}");
    let report = breaker.report();
    assert_eq!(report.transitions, [1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn open_circuit_gets_one_request_each_time_and_opens_for_longer() {
    let breaker = breaker(settings());
    open(&breaker);
    for expected in [10, 20, 40, 60, 60] {
        let CircuitOpen { retry_after } = breaker.admit(RequestArrival::Complete, None).unwrap_err();
        let (least, most) = (expected * SECOND * 9 / 10, expected * SECOND * 11 / 10);
        assert!(retry_after >= least && retry_after <= most, "{retry_after:?} of {expected} s");
        advance(retry_after - MILLI).await;
        assert!(!request(&breaker, CircuitVerdict::Error), "a moment too early");
        advance(MILLI).await;
        assert_eq!(requests(&breaker, 1000, CircuitVerdict::Error), 1, "after {expected} s");
    }
}

/// Trap: all workers send a request when the circuit is half-open.
#[tokio::test(start_paused = true)]
async fn threads_together_have_as_many_requests_in_a_half_open_circuit_as_configured() {
    for probes in [1, 3] {
        let breaker = breaker(CircuitBreakerSettings { probes, successes: 1000, ..settings() });
        open(&breaker);
        advance(11 * SECOND).await;
        // Other threads have no virtual time, which a half-open circuit does not need.
        drop(breaker.admit(RequestArrival::Complete, None).unwrap());
        let breaker = &breaker;
        let passes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..50).filter_map(|_| breaker.admit(RequestArrival::Complete, None).ok()).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(passes.len(), probes as usize);
        drop(passes);
        assert!(
            breaker.admit(RequestArrival::Complete, None).is_ok(),
            "a request that was given up makes place for another one"
        );
    }
}

/// One client with slow uploads kept a Service that works again away from all others.
#[tokio::test(start_paused = true)]
async fn slow_uploads_keep_no_half_open_circuit_from_complete_requests() {
    let breaker = breaker(CircuitBreakerSettings { successes: 2, ..settings() });
    let upload = || breaker.admit(RequestArrival::Partial, None).ok();
    open(&breaker);
    advance(11 * SECOND).await;
    assert!(request(&breaker, OK));
    assert!(upload().is_none(), "complete requests come");
    advance(SECOND).await;
    let (first, second) = (upload(), upload());
    assert!(first.is_some() && second.is_none(), "one at a time");
    assert!(request(&breaker, OK), "its place is not that of complete requests");
    assert_eq!(phase(&breaker), CircuitPhase::Closing);
}

/// A request may never end: that of a slow client, or a call whose stream has no message.
#[tokio::test(start_paused = true)]
async fn trial_without_a_result_makes_place_after_ten_seconds() {
    for arrival in [RequestArrival::Partial, RequestArrival::Complete] {
        let breaker = breaker(CircuitBreakerSettings { successes: 2, ..settings() });
        let admit = || breaker.admit(arrival, None).ok();
        open(&breaker);
        advance(13 * SECOND).await;
        let mut first = admit().unwrap();
        advance(Duration::from_millis(trials::TRIAL_MILLIS - 1)).await;
        assert!(admit().is_none(), "{arrival:?}");
        advance(MILLI).await;
        let second = admit();
        assert!(second.is_some() && admit().is_none(), "{arrival:?}");
        // Its place is another one's now, and what it shows counts nevertheless.
        breaker.record(&mut first, OK);
        drop(first);
        assert!(admit().is_none(), "{arrival:?}");
        drop(second);
        breaker.record(&mut admit().unwrap(), OK);
        assert_eq!(phase(&breaker), CircuitPhase::Closing, "{arrival:?}");
    }
}

/// One client began an upload each time that the place was free, and those of others were never tried.
#[tokio::test(start_paused = true)]
async fn upload_without_a_result_comes_after_those_of_other_clients() {
    let breaker = breaker(CircuitBreakerSettings { successes: 3, ..settings() });
    let upload = |of| breaker.admit(RequestArrival::Partial, Some(ClientSlot::numbered(of))).ok();
    let delay = |millis| advance(Duration::from_millis(millis));
    open(&breaker);
    advance(13 * SECOND).await;
    upload(1).unwrap().not_sent();
    let endless = upload(1).expect("the first one was not sent");
    delay(trials::TRIAL_MILLIS).await;
    assert!(upload(1).is_none(), "the place is free for others");
    let mut other = upload(2).unwrap();
    breaker.record(&mut other, OK);
    drop(endless);
    assert!(upload(1).is_none());
    breaker.record(&mut upload(2).unwrap(), OK);
    delay(trials::UNFINISHED_DELAY_MILLIS - 1).await;
    assert!(upload(1).is_none());
    delay(1).await;
    let mut last = upload(1).expect("no other client has an upload");
    breaker.record(&mut last, OK);
    assert_eq!(phase(&breaker), CircuitPhase::Closing);
}

#[tokio::test(start_paused = true)]
async fn circuit_is_half_open_from_the_end_of_its_time() {
    let breaker = breaker(settings());
    assert!(!breaker.is_half_open());
    open(&breaker);
    assert!(!breaker.is_half_open());
    advance(11 * SECOND).await;
    assert!(breaker.is_half_open(), "although no request has come");
    assert!(request(&breaker, OK) && breaker.is_half_open());
    requests(&breaker, 4, OK);
    assert!(!breaker.is_half_open(), "it is closing");
}

#[tokio::test(start_paused = true)]
async fn successes_in_a_row_close_a_half_open_circuit() {
    let breaker = breaker(settings());
    open(&breaker);
    advance(11 * SECOND).await;
    assert_eq!(requests(&breaker, 4, OK), 4);
    assert_eq!(phase(&breaker), CircuitPhase::HalfOpen);
    assert!(request(&breaker, CircuitVerdict::Error));
    assert_eq!(phase(&breaker), CircuitPhase::Open);
    advance(22 * SECOND).await;
    assert_eq!(requests(&breaker, 5, OK), 5);
    assert_eq!(phase(&breaker), CircuitPhase::Closing, "the successes before the error do not count");
}

#[tokio::test(start_paused = true)]
async fn share_of_requests_grows_while_the_circuit_closes() {
    let breaker = breaker(settings());
    open(&breaker);
    advance(11 * SECOND).await;
    requests(&breaker, 5, OK);
    for expected in [10, 10, 20, 30, 40, 50, 60, 70, 80, 90] {
        let let_through = requests(&breaker, 10_000, OK);
        assert!(let_through.abs_diff(expected * 100) <= 200, "{let_through} instead of {expected} %");
        advance(SECOND).await;
    }
    assert_eq!(phase(&breaker), CircuitPhase::Closed, "although no request has come since");
    assert_eq!(requests(&breaker, 100, OK), 100);
}

#[tokio::test(start_paused = true)]
async fn errors_while_the_circuit_closes_open_it_for_longer() {
    let breaker = breaker(CircuitBreakerSettings { consecutive: Some(3), ..settings() });
    open_consecutively(&breaker);
    advance(11 * SECOND).await;
    requests(&breaker, 5, OK);
    advance(9 * SECOND).await;
    requests(&breaker, 10, CircuitVerdict::Error);
    let CircuitOpen { retry_after } = breaker.admit(RequestArrival::Complete, None).unwrap_err();
    assert!(retry_after > 15 * SECOND, "{retry_after:?}");
}

fn open_consecutively(breaker: &CircuitBreaker) {
    assert_eq!(requests(breaker, 100, CircuitVerdict::Error), 3);
}

#[tokio::test(start_paused = true)]
async fn only_errors_in_a_row_are_consecutive() {
    let breaker = breaker(CircuitBreakerSettings { consecutive: Some(3), error_percent: 100, ..settings() });
    for _ in 0..10 {
        requests(&breaker, 2, CircuitVerdict::Error);
        request(&breaker, OK);
    }
    assert_eq!(phase(&breaker), CircuitPhase::Closed);
    open_consecutively(&breaker);
}

#[tokio::test(start_paused = true)]
async fn few_requests_do_not_open_the_circuit() {
    let breaker = breaker(settings());
    for _ in 0..10 {
        requests(&breaker, 19, CircuitVerdict::Error);
        advance(11 * SECOND).await;
    }
    assert_eq!(phase(&breaker), CircuitPhase::Closed);
    requests(&breaker, 11, OK);
    requests(&breaker, 10, CircuitVerdict::Error);
    assert_eq!(phase(&breaker), CircuitPhase::Closed, "10 of 21 are fewer than half");
    request(&breaker, CircuitVerdict::Error);
    assert_eq!(phase(&breaker), CircuitPhase::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_responses_open_the_circuit() {
    let slow = SlowRequests { after: SECOND, percent: 30 };
    let breaker = breaker(CircuitBreakerSettings { slow: Some(slow), ..settings() });
    let taking = |time| CircuitVerdict::Success { waited: EndpointTime::Exactly(time) };
    requests(&breaker, 100, taking(SECOND));
    requests(&breaker, 42, taking(SECOND + MILLI));
    assert_eq!(phase(&breaker), CircuitPhase::Closed);
    request(&breaker, taking(SECOND + MILLI));
    assert_eq!(phase(&breaker), CircuitPhase::Open);
    advance(11 * SECOND).await;
    request(&breaker, taking(2 * SECOND));
    assert_eq!(phase(&breaker), CircuitPhase::Open, "a slow response does not close it");
}

/// A request that began before the circuit opened may end much later.
#[tokio::test(start_paused = true)]
async fn requests_of_an_earlier_phase_do_not_count() {
    let breaker = breaker(settings());
    let mut old = breaker.admit(RequestArrival::Complete, None).unwrap();
    open(&breaker);
    advance(11 * SECOND).await;
    let mut probe = breaker.admit(RequestArrival::Complete, None).unwrap();
    breaker.record(&mut old, CircuitVerdict::Error);
    assert_eq!(phase(&breaker), CircuitPhase::HalfOpen);
    for _ in 0..10 {
        breaker.record(&mut old, OK);
    }
    assert_eq!(phase(&breaker), CircuitPhase::HalfOpen);
    breaker.record(&mut probe, CircuitVerdict::Error);
    assert_eq!(phase(&breaker), CircuitPhase::Open);
    drop((old, probe));
    advance(25 * SECOND).await;
    assert_eq!(requests(&breaker, 10, CircuitVerdict::Error), 1);
}

#[tokio::test(start_paused = true)]
async fn state_is_kept_when_settings_change() {
    let first = breaker(settings());
    open(&first);
    let second = first.with_settings(Arc::new(CircuitBreakerSettings { error_percent: 90, ..settings() }));
    assert!(second.admit(RequestArrival::Complete, None).is_err());
    advance(11 * SECOND).await;
    requests(&second, 5, OK);
    assert_eq!(phase(&second), CircuitPhase::Closing);
    let third = second.with_settings(Arc::new(CircuitBreakerSettings { window: SECOND, ..settings() }));
    assert_eq!(phase(&third), CircuitPhase::Closing);
}

#[test]
fn extreme_settings_do_not_overflow() {
    let longest = CircuitBreakerSettings {
        window: Duration::MAX,
        open_for: Duration::MAX,
        max_open_for: Duration::MAX,
        ramp_up: Duration::MAX,
        min_requests: 0,
        error_percent: 0,
        probes: 0,
        successes: 0,
        ..settings()
    };
    let breaker = breaker(longest);
    request(&breaker, OK);
    assert_eq!(phase(&breaker), CircuitPhase::Closed, "0 % is read as 1 %");
    request(&breaker, CircuitVerdict::Error);
    assert!(breaker.admit(RequestArrival::Complete, None).is_err());
}

/// With the smallest numbers, the first error opens the circuit and the first success closes it.
#[tokio::test(start_paused = true)]
async fn smallest_and_largest_numbers_work() {
    let with = |number: u32| CircuitBreakerSettings {
        min_requests: number,
        error_percent: u8::try_from(number).unwrap_or(100),
        consecutive: Some(number),
        probes: number,
        successes: number,
        ramp_up: Duration::ZERO,
        ..settings()
    };
    let smallest = breaker(with(1));
    request(&smallest, CircuitVerdict::Error);
    assert_eq!(phase(&smallest), CircuitPhase::Open);
    advance(11 * SECOND).await;
    request(&smallest, OK);
    assert_eq!(phase(&smallest), CircuitPhase::Closed);
    let largest = breaker(with(u32::MAX));
    assert_eq!(requests(&largest, 10_000, CircuitVerdict::Error), 10_000);
    assert_eq!(phase(&largest), CircuitPhase::Closed, "there were never as many requests");
}
