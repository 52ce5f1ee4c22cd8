//! Tests of upstreams: names and addresses, health, probes, subsets and load balancing.

mod hostile;

use std::cell::RefCell;
use std::collections::HashMap;

use super::*;
use crate::upstream::EndpointIdentities;
use crate::upstream::load_balancing::{NoEndpoint, Picked, PickedBecause};
use crate::upstream::outcome::{EndpointTime, Outcome, OutcomeClass};
use crate::upstream::settings::{Balancing, BalancingAlgorithm, HashTable, LatencyAverage, WhenUnhealthy};
use crate::upstream::worker_endpoints::WorkerEndpoints;
use crate::upstream::{EndpointChoice, WorkerSubsetting};

thread_local! {
    /// What the worker of the test keeps about each upstream, by address.
    static WORKER: RefCell<HashMap<usize, WorkerEndpoints>> = RefCell::default();
}

impl Upstream {
    /// The pick of the only worker.
    pub(in crate::upstream) fn pick_alone(&self, choice: &EndpointChoice<'_>) -> Result<Picked, NoEndpoint> {
        WORKER.with_borrow_mut(|upstreams| {
            let worker = upstreams.entry(std::ptr::from_ref(self).addr()).or_default();
            self.pick(worker, &WorkerSubsetting::new(1, 1000), choice)
        })
    }

    /// The next endpoint of the only worker, except those in `avoid`.
    pub(in crate::upstream) fn next_endpoint(&self, _turn: usize, avoid: &[SocketAddr]) -> Option<SocketAddr> {
        let choice = EndpointChoice { avoid, is_repeatable: true, ..EndpointChoice::default() };
        self.pick_alone(&choice).ok().map(|picked| picked.address)
    }
}

fn upstream() -> Upstream {
    Upstream::new(UpstreamKey { namespace: "ns".into(), service: "web".into(), port: 80, ..UpstreamKey::default() })
}

fn endpoints(texts: &[&str]) -> Endpoints {
    let addresses = texts.iter().map(|text| match text.parse() {
        Ok(address) => EndpointAddress::Ip(address),
        Err(_) => {
            let (host, port) = text.rsplit_once(':').unwrap();
            EndpointAddress::Name { host: host.into(), port: port.parse().unwrap() }
        }
    });
    Endpoints { addresses: addresses.collect(), ..Endpoints::default() }
}

fn reachable(upstream: &Upstream) -> Vec<String> {
    upstream.reachable().iter().map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn blocked_addresses_get_no_requests() {
    use crate::ssrf_guard::LoopbackPolicy::{Allowed, Blocked};
    let mut upstream = upstream();
    for (loopback, denied, expected) in [
        (Allowed, Arc::default(), &["127.0.0.1:80", "127.0.0.1:81", "192.0.2.1:80", "192.0.2.7:81"][..]),
        (Blocked, Arc::from(["192.0.2.0/30".parse().unwrap()]), &["192.0.2.7:81"]),
        (Blocked, Arc::from(["192.0.2.7/32".parse().unwrap()]), &["192.0.2.1:80"]),
        (Blocked, Arc::default(), &["192.0.2.1:80", "192.0.2.7:81"]),
    ] {
        upstream = Upstream { addresses: AddressPolicy { loopback, denied }, ..upstream };
        upstream.set_endpoints(Endpoints::default());
        upstream.set_endpoints(endpoints(&["127.0.0.1:80", "192.0.2.1:80", "[64:ff9b::a9fe:a9fe]:80", "a.example:81"]));
        let resolved = ["169.254.169.254", "100.100.100.200", "127.0.0.1", "192.0.2.7"];
        upstream.set_resolved("a.example", resolved.map(|address| address.parse().unwrap()).to_vec());
        assert_eq!(reachable(&upstream), expected);
    }
    let names = |upstream: &Upstream| -> Vec<_> {
        let named = |report: &EndpointReport| matches!(report.target, EndpointAddress::Name { .. });
        upstream
            .endpoint_reports()
            .into_iter()
            .filter(named)
            .map(|report| (report.address, report.is_healthy))
            .collect()
    };
    assert_eq!(names(&upstream), [(Some("192.0.2.7:81".parse().unwrap()), true)]);
    upstream.set_resolved("a.example", vec!["127.0.0.1".parse().unwrap()]);
    assert_eq!(names(&upstream), [(None, false)]);
    assert_eq!(reachable(&upstream), ["192.0.2.1:80"]);
}

#[test]
fn unresolved_names_get_no_requests() {
    let upstream = upstream();
    upstream.set_endpoints(endpoints(&["10.0.0.1:80", "db.example:81"]));
    assert_eq!(upstream.names(), [Arc::<str>::from("db.example")]);
    assert_eq!(reachable(&upstream), ["10.0.0.1:80"]);
    upstream.set_resolved("db.example", vec!["10.0.0.3".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
    assert_eq!(reachable(&upstream), ["10.0.0.1:80", "10.0.0.2:81", "10.0.0.3:81"]);
    upstream.set_resolved("db.example", vec![]);
    assert_eq!(reachable(&upstream), ["10.0.0.1:80"]);
}

#[test]
fn configuration_and_dns_updates_are_independent() {
    let upstream = upstream();
    upstream.set_resolved("early.example", vec!["10.0.0.9".parse().unwrap()]);
    upstream.set_endpoints(endpoints(&["a.example:80", "early.example:80"]));
    assert_eq!(reachable(&upstream), [""; 0], "a result for an unknown name is not kept");
    upstream.set_resolved("a.example", vec!["10.0.0.2".parse().unwrap()]);
    upstream.set_endpoints(endpoints(&["10.0.0.1:80", "a.example:8080"]));
    assert_eq!(reachable(&upstream), ["10.0.0.1:80", "10.0.0.2:8080"]);
    upstream.set_endpoints(endpoints(&["10.0.0.1:80"]));
    upstream.set_endpoints(endpoints(&["a.example:80"]));
    assert_eq!(reachable(&upstream), [""; 0], "a removed name is resolved again");
}

#[tokio::test(start_paused = true)]
async fn endpoint_reports_follow_health() {
    let upstream = upstream();
    upstream.set_endpoints(endpoints(&["10.0.0.1:80", "10.0.0.2:80", "a.example:81", "b.example:82"]));
    upstream.set_resolved("a.example", vec!["10.0.0.3".parse().unwrap(), "10.0.0.4".parse().unwrap()]);
    let reports = || -> Vec<String> {
        let text = |report: EndpointReport| {
            let address = report.address.map(|address| address.to_string()).unwrap_or_default();
            format!("{} {address} {}", report.target, report.is_healthy)
        };
        upstream.endpoint_reports().into_iter().map(text).collect()
    };
    let failed = "10.0.0.4:81".parse().unwrap();
    upstream.report(failed, &Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!(
        reports(),
        [
            "10.0.0.1:80 10.0.0.1:80 true",
            "10.0.0.2:80 10.0.0.2:80 true",
            "a.example:81 10.0.0.3:81 true",
            "a.example:81 10.0.0.4:81 false",
            "b.example:82  false",
        ]
    );
    upstream.report(failed, &Outcome::of(OutcomeClass::Connected));
    upstream.set_resolved("b.example", vec!["10.0.0.5".parse().unwrap()]);
    assert!(reports().iter().all(|report| report.ends_with(" true")), "{:?}", reports());
}

#[test]
fn duplicate_addresses_are_one_endpoint() {
    let upstream = upstream();
    upstream.set_endpoints(endpoints(&["a.example:80", "b.example:80"]));
    upstream.set_resolved("a.example", vec!["10.0.0.2".parse().unwrap()]);
    upstream.set_resolved("b.example", vec!["10.0.0.2".parse().unwrap()]);
    assert_eq!(reachable(&upstream), ["10.0.0.2:80"]);
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 80))
}

fn three_endpoints() -> Upstream {
    let upstream = upstream();
    upstream.set_endpoints(endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]));
    upstream
}

#[tokio::test(start_paused = true)]
async fn failed_endpoints_are_ejected_then_probed_once() {
    let upstream = three_endpoints();
    let round =
        |avoid: &[SocketAddr]| (0..6).map(|turn| upstream.next_endpoint(turn, avoid).unwrap()).collect::<Vec<_>>();
    let count = |round: &[SocketAddr], number| round.iter().filter(|chosen| **chosen == address(number)).count();
    assert_eq!([1, 2, 3].map(|number| count(&round(&[]), number)), [2, 2, 2]);
    upstream.report(address(1), &Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!([1, 2, 3].map(|number| count(&round(&[]), number)), [0, 3, 3]);
    assert_eq!(upstream.next_endpoint(0, &[address(2)]), Some(address(3)));
    let only_ejected = upstream.next_endpoint(0, &[address(2), address(3)]);
    assert_eq!(only_ejected, Some(address(1)), "an ejected endpoint is better than none");
    assert_eq!(upstream.next_endpoint(0, &[address(1), address(2), address(3)]), None);
    tokio::time::advance(std::time::Duration::from_millis(500)).await;
    assert_eq!(count(&round(&[]), 1), 1, "one request probes");
    upstream.report(address(1), &Outcome::of(OutcomeClass::Connected));
    // The round may begin within a lap.
    let recovered = round(&[]);
    assert!([1, 2, 3].iter().all(|number| (1..=3).contains(&count(&recovered, *number))), "{recovered:?}");
}

#[tokio::test]
async fn concurrent_changes_do_not_hide_ejected_endpoints() {
    let upstream = three_endpoints();
    let ends_with_failure = [true, false, false];
    for _ in 0..200 {
        std::thread::scope(|scope| {
            for (number, fails) in (1..).zip(ends_with_failure) {
                let upstream = &upstream;
                scope.spawn(move || {
                    upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
                    upstream.report(address(number), &Outcome::of(OutcomeClass::Connected));
                    if fails {
                        upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
                    }
                });
            }
        });
        assert!(upstream.has_ejected());
        upstream.report(address(1), &Outcome::of(OutcomeClass::Connected));
        assert!(!upstream.has_ejected());
    }
}

/// Whether one of the next requests probes the first endpoint.
fn has_probe(upstream: &Upstream) -> bool {
    (0..6).any(|turn| upstream.next_endpoint(turn, &[]) == Some(address(1)))
}

#[tokio::test(start_paused = true)]
async fn subset_is_left_while_most_of_it_is_ejected() {
    let upstream = upstream();
    let texts: Vec<String> = (1..=200).map(|number| format!("10.0.0.{number}:80")).collect();
    upstream.set_endpoints(endpoints(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
    let subsetting = WorkerSubsetting::new(8, 1000);
    let mut worker = WorkerEndpoints::default();
    let mut chosen = |avoid: &[SocketAddr]| -> std::collections::BTreeSet<_> {
        let choice = EndpointChoice { avoid, ..EndpointChoice::default() };
        (0..200).map(|_| upstream.pick(&mut worker, &subsetting, &choice).unwrap().address).collect()
    };
    let subset: Vec<_> = chosen(&[]).into_iter().collect();
    assert!((16..100).contains(&subset.len()), "{}", subset.len());
    assert!(chosen(&subset).iter().all(|address| !subset.contains(address)), "a retry leaves the subset");
    let (ejected, rest) = subset.split_at(subset.len() / 2);
    for address in ejected {
        upstream.report(*address, &Outcome::of(OutcomeClass::ConnectFailed));
    }
    assert!(chosen(&[]).iter().all(|address| rest.contains(address)), "half of the subset is healthy");
    upstream.report(rest[0], &Outcome::of(OutcomeClass::ConnectFailed));
    assert!(chosen(&[]).iter().any(|address| !subset.contains(address)));
    upstream.report(rest[0], &Outcome::of(OutcomeClass::Connected));
    assert!(chosen(&[]).iter().all(|address| rest.contains(address)));
}

#[tokio::test(start_paused = true)]
async fn inconclusive_probes_are_repeated() {
    let upstream = three_endpoints();
    upstream.report(address(1), &Outcome::of(OutcomeClass::ConnectFailed));
    tokio::time::advance(std::time::Duration::from_millis(500)).await;
    for _ in 0..3 {
        assert!(has_probe(&upstream));
        assert!(!has_probe(&upstream), "one request probes");
        upstream.report(address(1), &Outcome::of(OutcomeClass::Inconclusive));
    }
    upstream.report(address(2), &Outcome::of(OutcomeClass::Inconclusive));
    assert_eq!(upstream.endpoint_counts(), EndpointCounts { healthy: 2, ejected: 1 });
    upstream.report(address(1), &Outcome::of(OutcomeClass::Connected));
    upstream.report(address(1), &Outcome::of(OutcomeClass::Inconclusive));
    assert_eq!(upstream.endpoint_counts(), EndpointCounts { healthy: 3, ejected: 0 });
}

#[test]
fn all_endpoints_are_tried_if_all_are_ejected() {
    let upstream = three_endpoints();
    for number in 1..=3 {
        upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
    }
    let tried: std::collections::BTreeSet<_> = (0..3).map(|turn| upstream.next_endpoint(turn, &[]).unwrap()).collect();
    assert_eq!(tried.len(), 3);
}

/// An EndpointSlice in which an endpoint comes and goes must not heal it.
#[tokio::test(start_paused = true)]
async fn health_is_kept_for_a_minute_after_the_address_has_left() {
    let upstream = three_endpoints();
    let is_ejected = |number| {
        let reports = upstream.endpoint_reports();
        reports.iter().any(|report| report.address == Some(address(number)) && !report.is_healthy)
    };
    upstream.report(address(2), &Outcome::of(OutcomeClass::ConnectFailed));
    upstream.set_endpoints(endpoints(&["10.0.0.2:80", "10.0.0.4:80"]));
    assert!(is_ejected(2));
    for (seconds, stays) in [(59, true), (61, false)] {
        upstream.set_endpoints(endpoints(&["10.0.0.4:80"]));
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
        upstream.set_endpoints(endpoints(&["10.0.0.2:80", "10.0.0.4:80"]));
        assert_eq!(is_ejected(2), stays, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn another_pod_with_the_address_has_no_history() {
    let upstream = three_endpoints();
    let with_pod = |uid: &str| Endpoints {
        identities: EndpointIdentities { service: None, pods: [(address(2), uid.into())].into() },
        ..endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"])
    };
    upstream.set_endpoints(with_pod("a"));
    upstream.report(address(2), &Outcome::of(OutcomeClass::ConnectFailed));
    assert_eq!(upstream.endpoint_counts().ejected, 1);
    upstream.set_endpoints(with_pod("a"));
    assert_eq!(upstream.endpoint_counts().ejected, 1);
    upstream.set_endpoints(with_pod("b"));
    assert_eq!(upstream.endpoint_counts().ejected, 0, "the addresses are the same, the Pod is not");
    assert!(!upstream.has_ejected());
}

#[test]
fn least_requests_chooses_the_least_busy_endpoint() {
    let upstream = upstream();
    let balance = Balancing { algorithm: BalancingAlgorithm::LeastRequests, ..Balancing::default() };
    let least_requests = Endpoints { balance, ..endpoints(&["10.0.0.1:80", "10.0.0.2:80"]) };
    assert!(upstream.active_request(address(1)).is_none());
    upstream.set_endpoints(least_requests);
    let first = upstream.next_endpoint(0, &[]).unwrap();
    let active = upstream.active_request(first);
    let second = upstream.next_endpoint(0, &[]).unwrap();
    assert_ne!(second, first, "the first endpoint has a request");
    let other_active = upstream.active_request(second);
    drop(active);
    assert!((0..4).all(|turn| upstream.next_endpoint(turn, &[]) == Some(first)));
    drop(other_active);
    let idle: std::collections::BTreeSet<_> = (0..100).filter_map(|turn| upstream.next_endpoint(turn, &[])).collect();
    assert_eq!(idle.len(), 2, "at random among equals");
}

/// Endpoints of which the one with the lowest latency gets all requests.
fn by_latency(texts: &[&str], panic_threshold_percent: u8) -> Endpoints {
    let [decay, failure_penalty] = [3600, 1].map(std::time::Duration::from_secs);
    let algorithm = BalancingAlgorithm::PeakEwma(LatencyAverage { decay, failure_penalty });
    let balance = Balancing { algorithm, panic_threshold_percent, ..Balancing::default() };
    Endpoints { balance, ..endpoints(texts) }
}

fn respond_in(upstream: &Upstream, number: u8, millis: u64) {
    let waited = EndpointTime::Exactly(std::time::Duration::from_millis(millis));
    let status = Some(http::StatusCode::OK);
    upstream.report(address(number), &Outcome { status, waited, ..Outcome::of(OutcomeClass::Responded) });
}

/// Those that get the next requests.
fn chosen(upstream: &Upstream) -> std::collections::BTreeSet<SocketAddr> {
    (0..30).map(|turn| upstream.next_endpoint(turn, &[]).unwrap()).collect()
}

/// An edit, or an EndpointSlice in which a slow endpoint comes and goes, must not make it as fast as the others
/// (kong#7835, ingress-nginx#4448).
#[tokio::test(start_paused = true)]
async fn latency_is_kept_when_settings_and_endpoints_change() {
    let upstream = upstream();
    let both = ["10.0.0.1:80", "10.0.0.2:80"];
    upstream.set_endpoints(by_latency(&both, 0));
    respond_in(&upstream, 1, 5);
    respond_in(&upstream, 2, 500);
    let fast = std::collections::BTreeSet::from([address(1)]);
    assert_eq!(chosen(&upstream), fast);
    upstream.set_endpoints(by_latency(&both, 10));
    assert_eq!(chosen(&upstream), fast, "another setting");
    upstream.set_endpoints(by_latency(&both[..1], 10));
    upstream.set_endpoints(by_latency(&both, 10));
    assert_eq!(chosen(&upstream), fast, "the slow endpoint has left and returned");
}

/// A canary and the Service next to it neither share nor lose what is known of the endpoints (ingress-nginx#4723).
#[tokio::test(start_paused = true)]
async fn services_with_the_same_endpoints_have_latencies_of_their_own() {
    let registry = crate::upstream::UpstreamRegistry::default();
    let [main, canary] = ["web", "web-canary"].map(|service| {
        let key = UpstreamKey { namespace: "ns".into(), service: service.into(), port: 80, ..UpstreamKey::default() };
        let upstream = registry.upstream(&key);
        upstream.set_endpoints(by_latency(&["10.0.0.1:80", "10.0.0.2:80"], 0));
        upstream
    });
    for (upstream, fast, slow) in [(&main, 1, 2), (&canary, 2, 1)] {
        respond_in(upstream, fast, 5);
        respond_in(upstream, slow, 500);
    }
    assert_eq!(chosen(&main), std::collections::BTreeSet::from([address(1)]));
    assert_eq!(chosen(&canary), std::collections::BTreeSet::from([address(2)]));
}

fn pick(upstream: &Upstream) -> Result<PickedBecause, NoEndpoint> {
    upstream.pick_alone(&EndpointChoice::default()).map(|picked| picked.because)
}

#[tokio::test(start_paused = true)]
async fn unreachable_endpoints_get_few_connections_at_a_time() {
    let upstream = three_endpoints();
    for number in 1..=3 {
        upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
    }
    let mut dials = Vec::new();
    for _ in 0..24 {
        let picked = upstream.pick_alone(&EndpointChoice::default()).unwrap();
        assert_eq!(picked.because, PickedBecause::Panic);
        dials.push((picked.address, upstream.pending_dial(picked.address)));
    }
    for number in 1..=3 {
        assert_eq!(dials.iter().filter(|(dialed, _)| *dialed == address(number)).count(), 8);
    }
    assert_eq!(pick(&upstream), Err(NoEndpoint::Unavailable), "others fail at once");
    dials.retain(|(dialed, _)| *dialed != address(2));
    assert_eq!(upstream.next_endpoint(0, &[]), Some(address(2)));
    upstream.report(address(3), &Outcome::of(OutcomeClass::Connected));
    assert_eq!(upstream.next_endpoint(0, &[]), Some(address(3)), "an available one has no such limit");
    let only_tried = [address(3)];
    assert_eq!(upstream.next_endpoint(0, &only_tried), Some(address(2)), "an ejected one is better than none");
}

#[tokio::test(start_paused = true)]
async fn requests_fail_below_the_threshold_if_the_policy_says_so() {
    use PickedBecause::{Panic, Walked};
    let unavailable = Err(NoEndpoint::Unavailable);
    for (when_unhealthy, panic_threshold_percent, by_ejected) in [
        (WhenUnhealthy::UseAll, 0, [Ok(Walked), Ok(Walked), Ok(Panic)]),
        (WhenUnhealthy::UseAll, 50, [Ok(Walked), Ok(Panic), Ok(Panic)]),
        (WhenUnhealthy::UseAll, 67, [Ok(Panic), Ok(Panic), Ok(Panic)]),
        (WhenUnhealthy::Fail, 0, [Ok(Walked), Ok(Walked), unavailable]),
        (WhenUnhealthy::Fail, 33, [Ok(Walked), Ok(Walked), unavailable]),
        (WhenUnhealthy::Fail, 34, [Ok(Walked), unavailable, unavailable]),
    ] {
        let upstream = three_endpoints();
        let balance = Balancing { when_unhealthy, panic_threshold_percent, ..Balancing::default() };
        upstream.set_endpoints(Endpoints { balance, ..endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]) });
        for (number, expected) in (1..).zip(by_ejected) {
            upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
            // A pick is only walked if the rotation meets an ejected endpoint.
            let picks: Vec<_> = (0..6).map(|_| pick(&upstream)).collect();
            let case = format!("{when_unhealthy:?}, {panic_threshold_percent} %, {number} ejected: {picks:?}");
            assert!(picks.contains(&expected), "{case}");
            if expected != Ok(Walked) {
                assert!(picks.iter().all(|pick| *pick == expected), "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn threshold_ignores_ejections() {
    let upstream = three_endpoints();
    let balance = Balancing { panic_threshold_percent: 50, ..Balancing::default() };
    upstream.set_endpoints(Endpoints { balance, ..endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]) });
    upstream.report(address(1), &Outcome::of(OutcomeClass::ConnectFailed));
    upstream.report(address(2), &Outcome::of(OutcomeClass::ConnectFailed));
    let chosen: std::collections::BTreeSet<_> = (0..6).filter_map(|turn| upstream.next_endpoint(turn, &[])).collect();
    assert_eq!(chosen.len(), 3, "the only available one does not get the load of all");
}

#[test]
fn sessions_are_kept_within_limits() {
    use crate::upstream::BackendTraffic;
    use crate::upstream::settings::RequestLimits;
    let upstream = upstream();
    let limits = RequestLimits { max_requests_per_endpoint: Some(2), ..RequestLimits::default() };
    let traffic = |is_dry_run| BackendTraffic { overload: limits.clone().into(), is_dry_run, ..Default::default() };
    let set = |is_dry_run| {
        let addresses = endpoints(&["10.0.0.1:80", "10.0.0.2:80"]);
        upstream.set_endpoints(Endpoints { traffic: traffic(is_dry_run), ..addresses });
    };
    set(false);
    let pinned = || upstream.pick_alone(&EndpointChoice { pinned: Some(address(1)), ..EndpointChoice::default() });
    let mut active = Vec::new();
    for expected in [
        Ok((1, PickedBecause::Pinned)),
        Ok((1, PickedBecause::Pinned)),
        Ok((2, PickedBecause::OverLimit)),
        Ok((2, PickedBecause::OverLimit)),
        Err(NoEndpoint::OverLimit),
    ] {
        let picked = pinned();
        assert_eq!(picked.map(|picked| (picked.address, picked.because)), expected.map(|(n, why)| (address(n), why)));
        active.extend(picked.ok().and_then(|picked| upstream.active_request(picked.address)));
    }
    assert_eq!(upstream.picks().map(|(_, count)| count), [0, 0, 2, 0, 2, 0]);
    set(true);
    assert_eq!(pinned().map(|picked| picked.because), Ok(PickedBecause::Pinned), "a dry run has no effect");
}

#[tokio::test(start_paused = true)]
async fn plain_upstreams_count_no_picks() {
    let upstream = three_endpoints();
    for _ in 0..10 {
        assert_eq!(pick(&upstream), Ok(PickedBecause::Preferred));
    }
    assert_eq!(upstream.picks().map(|(_, count)| count), [0; 6]);
    upstream.report(address(1), &Outcome::of(OutcomeClass::ConnectFailed));
    for _ in 0..3000 {
        pick(&upstream).unwrap();
    }
    let walked = upstream.picks()[PickedBecause::Walked as usize];
    // Two picks make a lap of random order, which skips the ejected endpoint once; in one of nine laps, a pick skips it
    // at the end of a lap and at the start of the next. Four of nine picks skip it, with a standard deviation of ten.
    assert!(walked.0 == PickedBecause::Walked && (1250..=1420).contains(&walked.1), "{walked:?}");
}

#[test]
fn endpoints_without_weight_get_sessions_only() {
    let upstream = upstream();
    let weights = [(EndpointAddress::Ip(address(1)), 0), (EndpointAddress::Ip(address(3)), 3)];
    let set = |algorithm| {
        let balance = Balancing { algorithm, ..Balancing::default() };
        let addresses = endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        upstream.set_endpoints(Endpoints { weights: weights.clone().into(), balance, ..addresses });
    };
    for algorithm in [
        BalancingAlgorithm::RoundRobin,
        BalancingAlgorithm::Random,
        BalancingAlgorithm::LeastRequests,
        BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 251 }),
        BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points: None }),
    ] {
        set(algorithm);
        let mut counts = [0; 4];
        for key in 0..4_000_u64 {
            let hash = Some(crate::upstream::hash64(&key.to_le_bytes()));
            let picked = upstream.pick_alone(&EndpointChoice { hash, ..EndpointChoice::default() }).unwrap();
            counts[(1..=3).find(|number| address(*number) == picked.address).unwrap() as usize] += 1;
        }
        assert_eq!(counts[1], 0, "{algorithm:?}");
        assert!((700..1_300).contains(&counts[2]), "{algorithm:?}: {counts:?}");
    }
    let pinned = upstream.pick_alone(&EndpointChoice { pinned: Some(address(1)), ..EndpointChoice::default() });
    assert_eq!(pinned.map(|picked| picked.address), Ok(address(1)));
    assert_eq!(upstream.next_endpoint(0, &[address(2), address(3)]), None);
}

/// Requests fail while too few endpoints are available, except those that show whether others work again.
#[tokio::test(start_paused = true)]
async fn endpoints_recover_although_requests_fail() {
    use crate::upstream::BackendTraffic;
    use crate::upstream::settings::{HealthSettings, PassiveChecks};
    let upstream = upstream();
    let when_unhealthy = WhenUnhealthy::Fail;
    let balance = Balancing { when_unhealthy, panic_threshold_percent: 60, ..Balancing::default() };
    let passive = PassiveChecks { server_errors: 1, ..PassiveChecks::default() };
    let health = HealthSettings { max_ejection_percent: 100, passive, ..HealthSettings::default() };
    let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
    upstream.set_endpoints(Endpoints { balance, traffic, ..endpoints(&["10.0.0.1:80", "10.0.0.2:80"]) });
    let responded = |status| Outcome { status: Some(status), ..Outcome::of(OutcomeClass::Responded) };
    upstream.report(address(1), &responded(http::StatusCode::INTERNAL_SERVER_ERROR));
    let repeatable = EndpointChoice { is_repeatable: true, ..EndpointChoice::default() };
    let picked = || upstream.pick_alone(&repeatable).map(|picked| picked.address);
    assert_eq!(picked(), Err(NoEndpoint::Unavailable));
    tokio::time::advance(std::time::Duration::from_secs(40)).await;
    assert_eq!(picked(), Ok(address(1)));
    assert_eq!(picked(), Err(NoEndpoint::Unavailable), "one request at a time");
    upstream.report(address(1), &responded(http::StatusCode::OK));
    let both: std::collections::BTreeSet<_> = (0..4).map(|_| picked().unwrap()).collect();
    assert_eq!(both.len(), 2, "both are available");
}
