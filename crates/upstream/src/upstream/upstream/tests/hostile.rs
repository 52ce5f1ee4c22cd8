//! Tests of sets of endpoints that are large, flap, or have no available endpoint, with every algorithm.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use tokio::time::advance;

use super::*;
use crate::upstream::settings::{HealthSettings, PassiveChecks};
use crate::upstream::{BackendTraffic, hash64};

fn address_of(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, (number / 256) as u8, (number % 256) as u8], 80))
}

/// The endpoints with these numbers.
fn numbered(numbers: impl Iterator<Item = usize>, algorithm: BalancingAlgorithm) -> Endpoints {
    let balance = Balancing { algorithm, ..Balancing::default() };
    let addresses = numbers.map(address_of).map(EndpointAddress::Ip).collect();
    Endpoints { addresses, balance, ..Endpoints::default() }
}

/// The pick of a worker that uses all endpoints, of a request with this number.
fn pick_of(upstream: &Upstream, worker: &mut WorkerEndpoints, request: u64) -> Result<Picked, NoEndpoint> {
    let hash = upstream.hashing().then(|| hash64(&request.to_le_bytes()));
    let choice = EndpointChoice { hash, is_repeatable: true, ..EndpointChoice::default() };
    upstream.pick(worker, &WorkerSubsetting::new(1, 1_000_000), &choice)
}

/// Ten times as many as Kubernetes supports for a Service.
#[tokio::test(start_paused = true)]
async fn ten_thousand_endpoints_are_shared_and_the_only_available_one_is_found() {
    const COUNT: usize = 10_000;
    for algorithm in BalancingAlgorithm::ALL {
        let (upstream, mut worker) = (upstream(), WorkerEndpoints::default());
        upstream.set_endpoints(numbered(0..COUNT, algorithm));
        let mut counts: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        for request in 0..3 * COUNT as u64 {
            let picked = pick_of(&upstream, &mut worker, request).unwrap();
            *counts.entry(picked.address).or_default() += 1;
        }
        match algorithm {
            BalancingAlgorithm::RoundRobin => {
                assert!(counts.len() == COUNT && counts.values().all(|count| *count == 3))
            }
            // At random, one of twenty has none.
            _ => assert!(counts.len() > COUNT * 9 / 10, "{algorithm:?}: {}", counts.len()),
        }
        let survivor = address_of(4_321);
        for number in (0..COUNT).filter(|number| address_of(*number) != survivor) {
            upstream.report(address_of(number), &Outcome::of(OutcomeClass::ConnectFailed));
        }
        assert_eq!(upstream.endpoint_counts(), EndpointCounts { healthy: 1, ejected: COUNT - 1 });
        for request in 0..100 {
            let picked = pick_of(&upstream, &mut worker, request).unwrap();
            assert_eq!(picked.address, survivor, "{algorithm:?}");
        }
    }
}

/// Trap: an EndpointSlice that changes each second restarts whatever is kept for an endpoint (kong#7835).
#[tokio::test(start_paused = true)]
async fn endpoints_that_come_and_go_each_second_are_not_healed_by_that() {
    const COUNT: usize = 6;
    for algorithm in BalancingAlgorithm::ALL {
        let (upstream, mut worker) = (upstream(), WorkerEndpoints::default());
        let hour = Duration::from_secs(3600);
        let passive =
            PassiveChecks { server_errors: 1, base_ejection: hour, max_ejection: hour, ..PassiveChecks::default() };
        let health = Arc::new(HealthSettings { passive, ..HealthSettings::default() });
        let set = |numbers: &[usize]| {
            let traffic = BackendTraffic { health: Some(Arc::clone(&health)), ..BackendTraffic::default() };
            upstream.set_endpoints(Endpoints { traffic, ..numbered(numbers.iter().copied(), algorithm) });
        };
        let all: Vec<usize> = (0..COUNT).collect();
        set(&all);
        let failed =
            Outcome { status: Some(StatusCode::INTERNAL_SERVER_ERROR), ..Outcome::of(OutcomeClass::Responded) };
        upstream.report(address_of(3), &failed);
        for second in 0..600_u64 {
            // The ejected endpoint and another one leave and return alternately; one of them is never there.
            let absent = [3, second as usize % COUNT][second as usize % 2];
            let present: Vec<usize> = all.iter().copied().filter(|number| *number != absent).collect();
            set(&present);
            for request in 0..20 {
                let picked = pick_of(&upstream, &mut worker, second * 20 + request).unwrap();
                assert_ne!(picked.address, address_of(3), "{algorithm:?} in second {second}: it is ejected");
                assert_ne!(picked.address, address_of(absent), "{algorithm:?} in second {second}: it is not there");
            }
            advance(Duration::from_secs(1)).await;
        }
        set(&all);
        assert_eq!(upstream.endpoint_counts(), EndpointCounts { healthy: COUNT - 1, ejected: 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_fails_and_recovers_each_second_disturbs_no_other() {
    for algorithm in BalancingAlgorithm::ALL {
        let (upstream, mut worker) = (upstream(), WorkerEndpoints::default());
        upstream.set_endpoints(numbered(0..3, algorithm));
        let endpoint_of = |worker: &mut WorkerEndpoints, request| pick_of(&upstream, worker, request).unwrap().address;
        let before: Vec<SocketAddr> = (0..60).map(|request| endpoint_of(&mut worker, request)).collect();
        for _ in 0..600 {
            upstream.report(address_of(1), &Outcome::of(OutcomeClass::ConnectFailed));
            for request in 0..6 {
                assert_ne!(endpoint_of(&mut worker, request), address_of(1), "{algorithm:?}");
            }
            advance(Duration::from_millis(500)).await;
            upstream.report(address_of(1), &Outcome::of(OutcomeClass::Connected));
            advance(Duration::from_millis(500)).await;
        }
        // Peak EWMA remembers the failures for a while.
        advance(Duration::from_secs(120)).await;
        let after: Vec<SocketAddr> = (0..60).map(|request| endpoint_of(&mut worker, request)).collect();
        if upstream.hashing() {
            assert_eq!(after, before, "{algorithm:?}: keys return to their endpoint");
        }
        assert!(after.contains(&address_of(1)), "{algorithm:?}: it is available again");
        let reports = upstream.endpoint_reports();
        let health = reports.iter().find(|report| report.address == Some(address_of(1))).unwrap().health.as_ref();
        // What is kept for reports does not grow.
        assert_eq!(health.unwrap().transitions.len(), 16, "{algorithm:?}");
        assert!(upstream.ejections().contains(&(crate::upstream::EjectionCause::Connect, 600)), "{algorithm:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn first_endpoint_that_recovers_gets_all_requests() {
    for algorithm in BalancingAlgorithm::ALL {
        for when_unhealthy in [WhenUnhealthy::UseAll, WhenUnhealthy::Fail] {
            let (upstream, mut worker) = (upstream(), WorkerEndpoints::default());
            let endpoints = numbered(0..5, algorithm);
            let balance = Balancing { when_unhealthy, ..endpoints.balance.clone() };
            upstream.set_endpoints(Endpoints { balance, ..endpoints });
            for number in 0..5 {
                upstream.report(address_of(number), &Outcome::of(OutcomeClass::ConnectFailed));
            }
            let case = format!("{algorithm:?}, {when_unhealthy:?}");
            let mut tried = BTreeMap::new();
            for request in 0..200 {
                match pick_of(&upstream, &mut worker, request) {
                    Ok(picked) => *tried.entry(picked.address).or_insert(0) += 1,
                    Err(reason) => assert_eq!(reason, NoEndpoint::Unavailable, "{case}"),
                }
            }
            match when_unhealthy {
                WhenUnhealthy::UseAll => assert_eq!(tried.len(), 5, "{case}: all are tried"),
                WhenUnhealthy::Fail => assert!(tried.is_empty(), "{case}: {tried:?}"),
            }
            upstream.report(address_of(2), &Outcome::of(OutcomeClass::Connected));
            for request in 0..50 {
                assert_eq!(pick_of(&upstream, &mut worker, request).unwrap().address, address_of(2), "{case}");
            }
        }
    }
}
