//! Tests of endpoints that are not probed: those of datagrams.

use super::*;

#[test]
fn times_between_reconnections_double_up_to_a_limit() {
    let health = EndpointHealth::default();
    let is_probed = false;
    assert!(health.is_healthy() && health.claim_half_open(1, true).is_none());
    let mut now = 1;
    for expected in [500, 1000, 2000, 4000, 8000, 15_000, 15_000] {
        assert!(health.eject_unreachable(now, is_probed));
        assert!(!health.eject_unreachable(now + 1, is_probed), "an earlier attempt");
        assert!(!health.is_healthy() && health.claim_half_open(now + expected - 1, true).is_none(), "{expected}");
        now += expected;
        assert!(health.claim_half_open(now, true).is_some(), "{expected}");
        assert!(health.claim_half_open(now, true).is_none(), "one at a time");
    }
    assert_eq!(health.record_connected(now), Some(Availability::Ejected(EjectionCause::Connect)));
    assert!(health.is_healthy() && health.is_plain());
    assert!(health.eject_unreachable(now, is_probed));
    assert!(health.claim_half_open(now + 500, true).is_some(), "the time starts again at its minimum");
}

#[test]
fn abandoned_attempt_is_followed_by_another_after_the_same_time() {
    let health = EndpointHealth::default();
    health.release_claim(1);
    assert!(health.is_plain());
    assert!(health.eject_unreachable(1, false));
    health.release_claim(400);
    assert!(health.claim_half_open(501, true).is_some(), "the abandoned attempt did not try it");
    health.release_claim(700 + health.reconnect_delay());
    assert!(health.claim_half_open(1199, true).is_none() && health.claim_half_open(1200, true).is_some());
    assert!(health.eject_unreachable(1200, false), "the attempt fails");
    assert!(
        health.claim_half_open(2199, true).is_none() && health.claim_half_open(2200, true).is_some(),
        "the time has doubled"
    );
}

#[test]
fn attempt_without_an_outcome_is_followed_by_another() {
    let health = EndpointHealth::default();
    assert!(health.eject_unreachable(1, false));
    assert!(health.claim_half_open(501, true).is_some());
    assert!(
        health.claim_half_open(501 + CLAIM_MILLIS - 1, true).is_none()
            && health.claim_half_open(501 + CLAIM_MILLIS, true).is_some()
    );
}

#[test]
fn causes_are_independent() {
    let health = EndpointHealth::default();
    let ejection = |until| TimedEjection {
        cause: EjectionCause::LocalOrigin,
        until,
        number: 1,
        is_dry_run: false,
        awaits_check: false,
    };
    assert!(health.eject(1, ejection(1000)));
    assert!(!health.eject(2, ejection(5000)), "a running ejection is not extended");
    assert!(health.eject_unreachable(500, true));
    assert_eq!(health.record_connected(600), Some(Availability::Ejected(EjectionCause::Connect)));
    assert_eq!(health.availability(999), Availability::Ejected(EjectionCause::LocalOrigin));
    assert!(health.claim_half_open(1000, true).is_some());
    assert!(health.eject_unreachable(1001, true), "the request that tries it gets no connection");
    assert_eq!(health.availability(2000), Availability::Ejected(EjectionCause::Connect));
    health.record_connected(2000);
    assert_eq!(health.availability(2000), Availability::HalfOpen, "the other cause is still to be tried");
    assert_eq!(health.record_success(2001, 1), HalfOpenStep::Recovered(Some(EjectionCause::LocalOrigin)));
    assert!(health.is_plain());
}
