//! Levels of endpoints: which share of the requests each zone gets while endpoints are ejected.

use std::net::SocketAddr;
use std::sync::Arc;

use super::pools_without_sockets;
use crate::upstream::{EndpointAddress, EndpointChoice, Endpoints, Outcome, OutcomeClass, Upstream, UpstreamKey};

/// The address of an endpoint in a zone; those of zone 0 are near.
fn address(zone: u8, number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, zone, number], 80))
}

/// Three zones with four endpoints each.
fn upstream() -> Arc<Upstream> {
    let addresses = || (0..3).flat_map(|zone| (0..4).map(move |number| address(zone, number)));
    let upstream = Upstream::new(UpstreamKey::default());
    upstream.set_endpoints(Endpoints {
        addresses: addresses().map(EndpointAddress::Ip).collect(),
        levels: addresses().map(|address| (address, if address < self::address(1, 0) { 1 } else { 2 })).collect(),
        ..Endpoints::default()
    });
    Arc::new(upstream)
}

fn eject(upstream: &Upstream, address: SocketAddr) {
    upstream.report(address, &Outcome::of(OutcomeClass::ConnectFailed));
}

/// The percentage of requests in zone 0.
fn near_percent(upstream: &Arc<Upstream>, avoid: &[SocketAddr], hash: impl Fn(u64) -> Option<u64>) -> f64 {
    let pools = pools_without_sockets();
    let picks = 20_000;
    let near = (0..picks).filter(|number| {
        let choice = EndpointChoice { avoid, hash: hash(*number), ..EndpointChoice::default() };
        let picked = pools.pick(upstream, &choice).unwrap().address;
        assert!(!avoid.contains(&picked), "{picked}");
        picked < address(1, 0)
    });
    near.count() as f64 / picks as f64 * 100.0
}

/// A key's hash.
fn hash(number: u64) -> Option<u64> {
    Some(xxhash_rust::xxh64::xxh64(&number.to_le_bytes(), 0))
}

#[tokio::test(start_paused = true)]
async fn near_zone_shares_its_requests_once_too_few_endpoints_are_available() {
    fastrand::seed(7);
    for (down, expected) in [(0, 100.0), (1, 100.0), (2, 70.0), (3, 35.0), (4, 0.0)] {
        let upstream = upstream();
        (0..down).for_each(|number| eject(&upstream, address(0, number)));
        for percent in [near_percent(&upstream, &[], |_| None), near_percent(&upstream, &[], hash)] {
            assert!((percent - expected).abs() <= 2.0, "{down} down: {percent} % and not {expected} %");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_with_one_hash_stay_in_one_zone() {
    let upstream = upstream();
    (0..2).for_each(|number| eject(&upstream, address(0, number)));
    for number in 0..50 {
        let percent = near_percent(&upstream, &[], |_| hash(number));
        assert!(percent == 0.0 || percent == 100.0, "{percent}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_go_to_the_next_zone_when_the_near_one_was_tried() {
    let upstream = upstream();
    let tried: Vec<_> = (0..4).map(|number| address(0, number)).collect();
    assert_eq!(near_percent(&upstream, &tried[..3], |_| None), 100.0, "one is left");
    assert_eq!(near_percent(&upstream, &tried, |_| None), 0.0);
    eject(&upstream, tried[3]);
    assert_eq!(near_percent(&upstream, &tried[..3], |_| None), 0.0, "the last one is ejected");
}

#[tokio::test(start_paused = true)]
async fn without_available_endpoints_all_zones_are_alike() {
    let upstream = upstream();
    for zone in 0..3 {
        (0..4).for_each(|number| eject(&upstream, address(zone, number)));
    }
    let percent = near_percent(&upstream, &[], |_| None);
    assert!((percent - 33.0).abs() <= 2.0, "{percent}");
}

/// A change of hints or of endpoints does not make an ejected endpoint healthy.
#[tokio::test(start_paused = true)]
async fn changes_of_levels_keep_health() {
    let upstream = upstream();
    (0..4).for_each(|number| eject(&upstream, address(0, number)));
    assert_eq!(near_percent(&upstream, &[], |_| None), 0.0);
    let endpoints = (**upstream.endpoints()).clone();
    upstream.set_endpoints(Endpoints { levels: Box::default(), ..endpoints.clone() });
    assert_eq!(near_percent(&upstream, &[], |_| None), 0.0, "without levels");
    upstream.set_endpoints(endpoints);
    assert_eq!(near_percent(&upstream, &[], |_| None), 0.0);
    (0..4).for_each(|number| upstream.report(address(0, number), &Outcome::of(OutcomeClass::Connected)));
    assert_eq!(near_percent(&upstream, &[], |_| None), 100.0, "recovered");
}
