//! Tests of the promises of each algorithm, by simulation.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::upstream::endpoint_load::LatencySample;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::health::EndpointHealth;
use crate::upstream::outcome::{EndpointTime, Outcome, OutcomeClass};
use crate::upstream::settings::{BalancingAlgorithm, HashTable, LatencyAverage, SlowStart};

const MAGLEV: BalancingAlgorithm = BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 });
const RING: BalancingAlgorithm = BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points: None });
const DECAY: Duration = Duration::from_secs(10);
const PENALTY: Duration = Duration::from_secs(1);
const EWMA: BalancingAlgorithm =
    BalancingAlgorithm::PeakEwma(LatencyAverage { decay: DECAY, failure_penalty: PENALTY });
const PLAIN: PickContext<'_> = PickContext {
    avoid: &[],
    hash: None,
    health: HealthRule::AllAvailable,
    now: 0,
    has_slow_starts: false,
    requests: 0,
};

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number / 256) as u8, (number % 256) as u8], 80))
}

fn number(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[2]) * 256 + usize::from(address.ip().octets()[3]),
        SocketAddr::V6(_) => unreachable!(),
    }
}

/// The endpoints with these numbers.
fn endpoints(numbers: impl Iterator<Item = usize>) -> Vec<ResolvedEndpoint> {
    let endpoint =
        |number| ResolvedEndpoint { address: address(number), weight: 1, state: Arc::<EndpointState>::default() };
    numbers.map(endpoint).collect()
}

fn set_of(endpoints: Vec<ResolvedEndpoint>, settings: SetSettings) -> Arc<EndpointSet> {
    let identities: Vec<String> = endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    Arc::new(EndpointSet::new(endpoints, settings, |index| identities[index].clone()))
}

fn set(numbers: impl Iterator<Item = usize>, algorithm: BalancingAlgorithm) -> Arc<EndpointSet> {
    set_of(endpoints(numbers), SetSettings { algorithm, ..SetSettings::default() })
}

/// The state of an endpoint that was added at this time.
fn added(now: u64) -> EndpointState {
    EndpointState { health: EndpointHealth::added(now), ..EndpointState::default() }
}

fn eject(set: &EndpointSet, number: usize) {
    set[set.position(address(number)).unwrap()].state.health.eject_unreachable(1, true);
}

fn recover(set: &EndpointSet, number: usize) {
    set[set.position(address(number)).unwrap()].state.health.record_connected(1);
}

/// The endpoint of each key.
fn mapping(set: &Arc<EndpointSet>, keys: u64) -> Vec<usize> {
    let health = match set.iter().all(ResolvedEndpoint::is_available) {
        true => HealthRule::AllAvailable,
        false => HealthRule::Available { skips_suspect: true, is_repeatable: true },
    };
    let choose = |key: u64| {
        let hash = Some(hash64(format!("key-{key}").as_bytes()));
        number(choose(set, None, &PickContext { hash, health, ..PLAIN }).unwrap().address)
    };
    (0..keys).map(choose).collect()
}

fn counts(picks: impl IntoIterator<Item = usize>) -> BTreeMap<usize, usize> {
    picks.into_iter().fold(BTreeMap::new(), |mut counts, number| {
        *counts.entry(number).or_default() += 1;
        counts
    })
}

fn assert_even(counts: &BTreeMap<usize, usize>, endpoints: usize, tolerance: f64) {
    assert_eq!(counts.len(), endpoints);
    let mean = counts.values().sum::<usize>() as f64 / endpoints as f64;
    for (endpoint, count) in counts {
        let ratio = *count as f64 / mean;
        assert!((1.0 - tolerance..=1.0 + tolerance).contains(&ratio), "endpoint {endpoint} has {ratio} of the mean");
    }
}

#[test]
fn round_robin_of_many_workers_is_even() {
    fastrand::seed(1);
    let set = set(0..10, BalancingAlgorithm::RoundRobin);
    let mut all = Vec::new();
    let mut first = Vec::new();
    for _ in 0..16 {
        let mut rotation = Rotation::default();
        let picks: Vec<usize> =
            (0..10_000).map(|_| number(choose(&set, Some(&mut rotation), &PLAIN).unwrap().address)).collect();
        first.push(picks[0]);
        all.extend(picks);
    }
    assert_even(&counts(all), 10, 0.01);
    assert!(counts(first).len() > 5, "workers do not start at the same endpoint");
}

#[test]
fn random_draws_are_even() {
    fastrand::seed(1);
    let set = set(0..10, BalancingAlgorithm::Random);
    let picks = (0..100_000).map(|_| number(choose(&set, None, &PLAIN).unwrap().address));
    assert_even(&counts(picks), 10, 0.03);
}

/// Few draws of many endpoints find one that is available, if most are ejected. The next available one in order would
/// get the share of all ejected ones before it.
#[test]
fn few_available_endpoints_of_many_share_evenly() {
    for algorithm in [BalancingAlgorithm::Random, BalancingAlgorithm::LeastRequests, EWMA] {
        fastrand::seed(1);
        let set = set(0..400, algorithm);
        let available = [7, 8, 9, 300];
        (0..400).filter(|number| !available.contains(number)).for_each(|number| eject(&set, number));
        let health = HealthRule::Available { skips_suspect: true, is_repeatable: false };
        let cx = PickContext { health, ..PLAIN };
        let picks = (0..20_000).map(|_| number(choose(&set, None, &cx).unwrap().address));
        assert_even(&counts(picks), available.len(), 0.1);
    }
}

/// Shares of the requests that arrive at random at endpoints that serve one request at a time.
fn simulate_servers(
    set: &Arc<EndpointSet>,
    service_micros: impl Fn(usize) -> u64,
    load: f64,
    requests: u64,
) -> Vec<f64> {
    let count = set.len();
    let capacity: f64 = (0..count).map(|index| 1.0 / service_micros(index) as f64).sum();
    let (mut now, mut ends, mut picks) = (0_u64, BinaryHeap::new(), vec![0.0; count]);
    let mut free_at = vec![0_u64; count];
    for _ in 0..requests {
        now += (-(1.0 - fastrand::f64()).ln() / (capacity * load)) as u64;
        while let Some(Reverse((end, _))) = ends.peek()
            && *end <= now
        {
            let Some(Reverse((_, index))): Option<Reverse<(u64, usize)>> = ends.pop() else { break };
            set[index].state.load.end_request();
        }
        let picked = choose(set, None, &PickContext { now: now / 1000 + 1, ..PLAIN }).unwrap();
        let index = set.position(picked.address).unwrap();
        set[index].state.load.begin_request();
        picks[index] += 1.0;
        free_at[index] = free_at[index].max(now) + service_micros(index);
        ends.push(Reverse((free_at[index], index)));
    }
    picks.iter().map(|count| count / requests as f64).collect()
}

#[test]
fn least_requests_relieves_slow_endpoints() {
    fastrand::seed(1);
    for count in [8, 10] {
        let set = set(0..count, BalancingAlgorithm::LeastRequests);
        let service = |index| if index == 3 { 30_000 } else { 10_000 };
        let shares = simulate_servers(&set, service, 0.6, 100_000);
        let share = shares[3] * count as f64;
        assert!(share <= 0.6, "of {count} endpoints, the slow one gets {share} of its share");
        assert!(share >= 0.2, "{share}");
    }
}

/// If both candidates could be the same endpoint, the busiest one would get requests (envoyproxy/envoy#38511).
#[test]
fn busiest_endpoint_is_never_chosen() {
    fastrand::seed(1);
    for algorithm in [BalancingAlgorithm::LeastRequests, EWMA] {
        // More than are compared with each other.
        let set = set(0..10, algorithm);
        set[3].state.load.begin_request();
        let picks = counts((0..10_000).map(|_| number(choose(&set, None, &PLAIN).unwrap().address)));
        assert!(!picks.contains_key(&3), "{algorithm:?}: {picks:?}");
        assert_even(&picks, 9, 0.2);
    }
}

#[test]
fn idle_endpoints_share_by_weight() {
    fastrand::seed(1);
    for count in [3_usize, 12] {
        let mut endpoints = endpoints(0..count);
        endpoints[0].weight = 5;
        let algorithm = BalancingAlgorithm::LeastRequests;
        let set = set_of(endpoints, SetSettings { algorithm, ..SetSettings::default() });
        let picks = counts((0..20_000).map(|_| number(choose(&set, None, &PLAIN).unwrap().address)));
        let share = picks[&0] as f64 / 20_000.0;
        let expected = 5.0 / (count as f64 + 4.0);
        assert!((share - expected).abs() < 0.02, "{count}: {share} instead of {expected}");
    }
}

/// Shares of requests at a fixed rate per second, over `seconds` of which the first ones do not count.
fn simulate_latency(
    set: &Arc<EndpointSet>,
    outcome: impl Fn(usize) -> Outcome,
    seconds: u64,
    ignored_seconds: u64,
) -> Vec<f64> {
    const RATE: u64 = 500;
    let (mut picks, mut ends) = (vec![0.0; set.len()], BinaryHeap::new());
    let finish = |at: u64, index: usize| {
        let state = &set[index].state;
        state.load.end_request();
        let sample = LatencySample::of(&outcome(index), PENALTY).unwrap();
        state.load.latency.record(sample, at / 1000, DECAY);
    };
    for request in 0..seconds * RATE {
        let now = 1_000_000 + request * 1_000_000 / RATE;
        while let Some(Reverse((end, index))) = ends.peek().copied()
            && end <= now
        {
            ends.pop();
            finish(end, index);
        }
        let picked = choose(set, None, &PickContext { now: now / 1000, ..PLAIN }).unwrap();
        let index = set.position(picked.address).unwrap();
        set[index].state.load.begin_request();
        if request >= ignored_seconds * RATE {
            picks[index] += 1.0;
        }
        let latency = outcome(index).waited.at_least();
        ends.push(Reverse((now + latency.as_micros() as u64, index)));
    }
    let counted = ((seconds - ignored_seconds) * RATE) as f64;
    picks.iter().map(|count| count / counted).collect()
}

fn responds(millis: u64, status: u16) -> Outcome {
    Outcome {
        status: Some(http::StatusCode::from_u16(status).unwrap()),
        waited: EndpointTime::Exactly(Duration::from_millis(millis)),
        ..Outcome::of(OutcomeClass::Responded)
    }
}

#[test]
fn peak_ewma_prefers_fast_endpoints() {
    fastrand::seed(1);
    let set = set(0..4, EWMA);
    let shares = simulate_latency(&set, |index| responds(if index < 2 { 10 } else { 100 }, 200), 30, 0);
    assert!(shares[2] <= 0.15 && shares[3] <= 0.15, "{shares:?}");
}

#[test]
fn peak_ewma_avoids_endpoints_that_fail_fast() {
    fastrand::seed(1);
    for failure in [responds(1, 503), responds(1, 429), Outcome::of(OutcomeClass::NoResponse)] {
        let set = set(0..4, EWMA);
        let outcome = |index| if index == 0 { failure } else { responds(10, 200) };
        let shares = simulate_latency(&set, outcome, 20, 1);
        assert!(shares[0] <= 0.05, "{failure:?}: {shares:?}");
    }
}

#[test]
fn hash_tables_are_even() {
    for (algorithm, tolerance) in [(RING, 0.15), (MAGLEV, 0.03)] {
        assert_even(&counts(mapping(&set(0..10, algorithm), 100_000)), 10, tolerance);
    }
    assert_even(&counts(mapping(&set(0..100, MAGLEV), 1_000_000)), 100, 0.05);
}

#[test]
fn endpoint_that_leaves_moves_few_keys_of_others() {
    for (algorithm, count, max_foreign_percent) in
        [(RING, 10, 0.0), (MAGLEV, 10, 1.0), (RING, 100, 0.0), (MAGLEV, 100, 1.0)]
    {
        let before = mapping(&set(0..count, algorithm), 100_000);
        let after = mapping(&set((0..count).filter(|number| *number != 4), algorithm), 100_000);
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != 4 && before != after).count();
        let percent = moved as f64 / 1_000.0;
        assert!(percent <= max_foreign_percent, "{algorithm:?}: {percent} % of {count}");
        // The keys of the endpoint spread over all others.
        let receivers = counts(before.iter().zip(&after).filter(|(before, _)| **before == 4).map(|(_, after)| *after));
        assert!(receivers.len() >= (count - 1) * 3 / 4, "{algorithm:?}: {} receive keys", receivers.len());
    }
}

#[test]
fn flapping_endpoint_moves_its_own_keys_only() {
    for algorithm in [RING, MAGLEV] {
        let set = set(0..10, algorithm);
        let before = mapping(&set, 10_000);
        let mut while_ejected = Vec::new();
        for _ in 0..100 {
            eject(&set, 4);
            let moved = mapping(&set, 1_000);
            while_ejected = moved.clone();
            for (before, after) in before.iter().zip(moved) {
                assert!(after != 4 && (*before == 4 || *before == after), "{algorithm:?}");
            }
            recover(&set, 4);
        }
        assert_eq!(mapping(&set, 10_000), before, "{algorithm:?}: all keys return");
        let receivers =
            counts(before.iter().zip(&while_ejected).filter(|(before, _)| **before == 4).map(|(_, after)| *after));
        assert!(receivers.len() >= 8, "{algorithm:?}: {receivers:?}");
    }
}

/// Even then, a key has the same endpoint each time.
#[test]
fn keys_find_the_only_available_endpoint() {
    for algorithm in [RING, MAGLEV] {
        let set = set(0..600, algorithm);
        for number in (0..600).filter(|number| number % 200 != 3) {
            eject(&set, number);
        }
        let picks = mapping(&set, 200);
        assert!(picks.iter().all(|number| number % 200 == 3), "{algorithm:?}");
        assert_eq!(mapping(&set, 200), picks);
    }
}

#[test]
fn hash_selects_a_subset_of_which_each_request_gets_one_at_random() {
    let size = NonZeroU32::new(3);
    let settings = SetSettings { algorithm: RING, subset_size: size, ..SetSettings::default() };
    let set = set_of(endpoints(0..10), settings.clone());
    let chosen_for = |set: &Arc<EndpointSet>, hash| -> BTreeSet<usize> {
        let pick = || choose(set, None, &PickContext { hash: Some(hash), ..PLAIN }).unwrap();
        (0..200).map(|_| number(pick().address)).collect()
    };
    let subsets: BTreeSet<_> = (0..50_u64).map(|key| chosen_for(&set, hash64(&key.to_le_bytes()))).collect();
    assert!(subsets.iter().all(|subset| subset.len() == 3) && subsets.len() > 10, "{subsets:?}");
    let tried: Vec<_> = (0..8).map(address).collect();
    let cx = PickContext { hash: Some(1), avoid: &tried, ..PLAIN };
    assert!(choose(&set, None, &cx).is_ok_and(|picked| number(picked.address) >= 8), "the others are left");
    let few = set_of(endpoints(0..2), settings);
    assert_eq!(chosen_for(&few, 1).len(), 2, "there are no more");
}

#[test]
fn requests_without_the_hash_take_turns() {
    fastrand::seed(1);
    let set = set(0..10, MAGLEV);
    let mut rotation = Rotation::default();
    let picks = (0..100).map(|_| number(choose(&set, Some(&mut rotation), &PLAIN).unwrap().address));
    assert!(counts(picks).values().all(|count| *count == 10));
}

#[test]
fn addresses_of_a_name_share_its_keys() {
    for algorithm in [RING, MAGLEV] {
        // The endpoints 0 to 2 are addresses of one name, which other replicas may resolve to other addresses.
        let named = |numbers: &[usize]| {
            let endpoints = endpoints(numbers.iter().copied());
            let identity = |index: usize| match number(endpoints[index].address) {
                0..3 => "db.example:80".to_owned(),
                _ => endpoints[index].address.to_string(),
            };
            let settings = SetSettings { algorithm, ..SetSettings::default() };
            let set = EndpointSet::new(endpoints.clone(), settings, identity);
            mapping(&Arc::new(set), 10_000)
        };
        let (one, all) = (named(&[1, 3, 4]), named(&[0, 1, 2, 3, 4]));
        for (one, all) in one.iter().zip(&all) {
            assert!(one == all || *one < 3 && *all < 3, "{algorithm:?}: {one}, {all}");
        }
        assert_eq!(counts(all).len(), 5);
    }
}

#[test]
fn load_of_hot_keys_is_bounded() {
    fastrand::seed(1);
    for (algorithm, percent) in [(RING, 125), (MAGLEV, 125), (MAGLEV, 100)] {
        let settings = SetSettings { algorithm, bounded_load_percent: Some(percent), ..SetSettings::default() };
        let set = set_of(endpoints(0..10), settings);
        let mut active: Vec<usize> = Vec::new();
        let mut over_limit = 0;
        for request in 0..20_000_u64 {
            if active.len() == 100 {
                let ended = active.swap_remove(fastrand::usize(..active.len()));
                set[ended].state.load.end_request();
            }
            // Half of all requests have one key.
            let key = if request % 2 == 0 { 7 } else { request };
            let hash = Some(hash64(&key.to_le_bytes()));
            let picked = choose(&set, None, &PickContext { hash, requests: active.len() as u32, ..PLAIN }).unwrap();
            over_limit += usize::from(picked.because == PickedBecause::OverLimit);
            let index = set.position(picked.address).unwrap();
            set[index].state.load.begin_request();
            active.push(index);
            let capacity = (active.len() as u32 * percent).div_ceil(1_000).max(1);
            let requests = set[index].state.load.requests();
            assert!(requests <= capacity, "{algorithm:?}: {requests} of {} requests", active.len());
        }
        assert!(over_limit > 2_000, "{over_limit} requests leave the full endpoint");
    }
}

/// The bound would be exceeded anyway: the other endpoint is ejected.
#[test]
fn bound_yields_if_no_other_endpoint_is_available() {
    let settings = SetSettings { algorithm: RING, bounded_load_percent: Some(100), ..SetSettings::default() };
    let set = set_of(endpoints(0..2), settings);
    eject(&set, 0);
    for requests in 0..10 {
        let health = HealthRule::Available { skips_suspect: true, is_repeatable: true };
        let cx = PickContext { hash: Some(requests), health, requests: requests as u32, ..PLAIN };
        assert_eq!(choose(&set, None, &cx).map(|picked| number(picked.address)), Ok(1));
        set[1].state.load.begin_request();
    }
}

#[test]
fn shares_grow_in_the_slow_start() {
    fastrand::seed(1);
    let slow_start = Some(SlowStart { window: Duration::from_secs(30), min_weight_percent: 10, aggression: 1000 });
    for algorithm in [BalancingAlgorithm::RoundRobin, BalancingAlgorithm::Random, BalancingAlgorithm::LeastRequests] {
        for (seconds, percent) in [(6, 6.0), (15, 14.0), (30, 25.0)] {
            let settings = SetSettings { algorithm, slow_start, ..SetSettings::default() };
            let mut endpoints = endpoints(0..4);
            endpoints[3].state = Arc::new(added(1_000));
            let set = set_of(endpoints, settings);
            let cx = PickContext { now: 1_000 + seconds * 1_000, has_slow_starts: true, ..PLAIN };
            let mut rotation = Rotation::default();
            let picks = counts((0..20_000).map(|_| number(choose(&set, Some(&mut rotation), &cx).unwrap().address)));
            let share = picks[&3] as f64 / 200.0;
            assert!((share - percent).abs() <= 2.0, "{algorithm:?}: {share} % after {seconds} s");
        }
    }
}

/// Trap: a factor that all endpoints have must not stop or slow down the choice, and hashing ignores it.
#[test]
fn slow_start_of_all_endpoints_changes_nothing() {
    fastrand::seed(1);
    let slow_start = Some(SlowStart { window: Duration::from_secs(30), min_weight_percent: 1, aggression: 1000 });
    for algorithm in
        [BalancingAlgorithm::RoundRobin, BalancingAlgorithm::Random, BalancingAlgorithm::LeastRequests, MAGLEV]
    {
        let mut endpoints = endpoints(0..4);
        for endpoint in &mut endpoints {
            endpoint.state = Arc::new(added(1_000));
        }
        let set = set_of(endpoints, SetSettings { algorithm, slow_start, ..SetSettings::default() });
        let mut rotation = Rotation::default();
        let picks = (0..8_000_u64).map(|key| {
            let hash = (algorithm == MAGLEV).then(|| hash64(&key.to_le_bytes()));
            let cx = PickContext { now: 1_001, has_slow_starts: true, hash, ..PLAIN };
            number(choose(&set, Some(&mut rotation), &cx).unwrap().address)
        });
        assert_even(&counts(picks), 4, 0.1);
    }
}

#[test]
fn shared_state_of_an_endpoint_is_small() {
    let counts_of_arc = 2 * size_of::<usize>();
    let endpoint = size_of::<ResolvedEndpoint>() + counts_of_arc + size_of::<EndpointState>();
    assert!(endpoint <= 192, "{endpoint} bytes");
    for (algorithm, max) in [(RING, 2_500), (MAGLEV, 150)] {
        let bytes = set(0..1_000, algorithm).table_bytes() / 1_000;
        assert!(bytes <= max, "{algorithm:?}: {bytes} bytes per endpoint");
    }
}

/// The tables that all replicas and versions must have. A separate program has computed them from the definitions.
/// Each line: a key, the number of its endpoint in the Maglev table, and in the ring.
#[test]
fn tables_never_change() {
    let weighted =
        [("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.10:8080", 3), ("[2001:db8::1]:80", 2), ("db.example:443", 1)];
    let endpoints = || {
        let endpoints = weighted
            .iter()
            .enumerate()
            .map(|(index, (_, weight))| ResolvedEndpoint { weight: *weight, ..endpoints(index..index + 1).remove(0) });
        endpoints.collect::<Vec<_>>()
    };
    let table = |algorithm| {
        let settings = SetSettings { algorithm, ..SetSettings::default() };
        Arc::new(EndpointSet::new(endpoints(), settings, |index| weighted[index].0.to_owned()))
    };
    let (maglev, ring) = (mapping(&table(MAGLEV), 1_000), mapping(&table(RING), 1_000));
    let lines: Vec<String> = (0..1_000).map(|key| format!("key-{key} {} {}", maglev[key], ring[key])).collect();
    let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
    assert_eq!(golden.len(), 1_000);
    for (line, golden) in lines.iter().zip(golden) {
        assert_eq!(line, golden);
    }
}
