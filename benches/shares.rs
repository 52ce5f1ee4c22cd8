//! Measures how evenly requests are divided among endpoints, by algorithm, number of endpoints and number of workers;
//! which keys move when an endpoint leaves or flaps; and the memory of an endpoint.
//!
//! Run by `make bench`. Nothing here depends on time, so all figures are the same on each machine, up to chance.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "picks/world.rs"]
mod world;

use std::alloc::System;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use portico::upstream::settings::Balancing;
use portico::upstream::{ConnectionPools, EndpointChoice, Outcome, OutcomeClass, Upstream, hash64};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::world::{ALGORITHMS, address, pools, set_endpoints, upstream_with};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests for each endpoint.
const REQUESTS: usize = 1_000;
/// Keys whose endpoints are compared, for each endpoint.
const KEYS: u64 = 1_000;
const FLAPS: usize = 100;

fn main() {
    println!("Requests of an endpoint in percent of its share, least–most, with 1, 4 and 16 workers");
    for (name, algorithm) in ALGORITHMS {
        let balance = Balancing { algorithm, ..Balancing::default() };
        for count in [3, 10, 100, 1_000] {
            let shares = [1, 4, 16].map(|workers| shares(count, workers, &balance));
            println!("{name:<22} {count:>5} endpoints {:>14} {:>14} {:>14}", shares[0], shares[1], shares[2]);
        }
    }
    println!(
        "\nKeys of other endpoints that move, in percent: one endpoint leaves; it is ejected, the most of {FLAPS} \
         times; it is back"
    );
    for (name, algorithm) in ALGORITHMS.into_iter().filter(|(_, algorithm)| algorithm.is_hashing()) {
        for count in [3, 10, 100, 1_000] {
            let balance = Balancing { algorithm, ..Balancing::default() };
            let Moves { left, ejected, back } = moves(count, &balance);
            println!("{name:<22} {count:>5} endpoints {left:>14.2} {ejected:>14.2} {back:>14.2}");
        }
    }
    println!("\nBytes of an endpoint among 1,000, with health, load balancing and its address");
    for (name, algorithm) in ALGORITHMS {
        let balance = Balancing { algorithm, ..Balancing::default() };
        let region = Region::new(ALLOCATOR);
        let upstream = upstream_with(0..1_000, &balance);
        let change = region.change();
        println!("{name:<22} {:>6}", (change.bytes_allocated - change.bytes_deallocated) / 1_000);
        drop(black_box(upstream));
    }
}

/// The smallest and the largest number of requests of an endpoint, in percent of the mean.
fn shares(count: u16, workers: usize, balance: &Balancing) -> String {
    let upstream = upstream_with(0..count, balance);
    let mut counts = vec![0_usize; usize::from(count)];
    let mut number = 0_u64;
    for _ in 0..workers {
        let pools = pools();
        // A whole number of laps for no worker, as with real requests.
        for _ in 0..usize::from(count) * REQUESTS / workers {
            number += 1;
            counts[endpoint_of(&pools, &upstream, number)] += 1;
        }
    }
    let percent = |count: usize| 100.0 * count as f64 * counts.len() as f64 / counts.iter().sum::<usize>() as f64;
    format!("{:.1}–{:.1}", percent(*counts.iter().min().unwrap()), percent(*counts.iter().max().unwrap()))
}

/// The endpoint that gets the request with this number, which is finished at once.
fn endpoint_of(pools: &ConnectionPools<Empty<Bytes>>, upstream: &Arc<Upstream>, number: u64) -> usize {
    let hash = upstream.hashing().then(|| hash64(&number.to_le_bytes()));
    let picked = pools.pick(upstream, &EndpointChoice { hash, ..EndpointChoice::default() }).unwrap();
    drop(upstream.active_request(picked.address));
    index_of(picked.address)
}

fn index_of(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { unreachable!("all endpoints have IPv4 addresses") };
    let [_, _, high, low] = address.ip().octets();
    usize::from(u16::from_be_bytes([high, low]))
}

/// Keys that move, in percent of all keys but those of the endpoint that fails.
struct Moves {
    left: f64,
    ejected: f64,
    back: f64,
}

fn moves(count: u16, balance: &Balancing) -> Moves {
    let (upstream, pools) = (upstream_with(0..count, balance), pools());
    let failing = count / 2;
    let endpoints = |keys: u64| -> Vec<usize> { (0..keys).map(|key| endpoint_of(&pools, &upstream, key)).collect() };
    let all = KEYS * u64::from(count);
    let original = endpoints(all);
    let moved = |now: &[usize], own_count: bool| {
        let compared = original.iter().zip(now).filter(|(before, _)| own_count || **before != usize::from(failing));
        let (moved, all) =
            compared.fold((0, 0), |(moved, all), (before, now)| (moved + u32::from(before != now), all + 1));
        100.0 * f64::from(moved) / f64::from(all)
    };
    let (mut ejected, mut back) = (0.0_f64, 0.0_f64);
    for _ in 0..FLAPS {
        upstream.report(address(failing), &Outcome::of(OutcomeClass::ConnectFailed));
        assert_eq!(upstream.endpoint_counts().ejected, 1);
        // A part of the keys, since there are a hundred flaps.
        let part = all / 10;
        ejected = ejected.max(moved(&endpoints(part), false));
        upstream.report(address(failing), &Outcome::of(OutcomeClass::Connected));
        assert_eq!(upstream.endpoint_counts().ejected, 0);
        back = back.max(moved(&endpoints(part), true));
    }
    set_endpoints(&upstream, (0..count).filter(|number| *number != failing), balance);
    let left = moved(&endpoints(all), false);
    Moves { left, ejected, back }
}
