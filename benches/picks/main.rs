//! Measures the CPU cost of picking an endpoint, by algorithm and number of endpoints, on one thread and on two at
//! once.
//!
//! Run by `make bench-full`. A pick is measured with what a request pays for it: finding the worker's pool, the choice,
//! and counting the request if the algorithm depends on it.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod world;

use std::fs;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use portico::upstream::settings::{Balancing, BalancingAlgorithm, HashTable, RequestHash};
use portico::upstream::{ConnectionPools, EndpointChoice, EndpointTime, Outcome, OutcomeClass, Upstream, hash64};

use crate::world::{ALGORITHMS, address, pools, upstream_with};

/// The allocator of releases.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 9;
/// Picks of a thread in a round.
const PICKS: u64 = 200_000;

fn main() {
    println!("CPU ns/pick, median (least–most)          1 thread              2 threads");
    let plain = ALGORITHMS.map(|(name, algorithm)| (name, Balancing { algorithm, ..Balancing::default() }));
    let maglev = BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 });
    for (name, balance) in plain.into_iter().chain([("Maglev, bounded load", bounded(maglev, 125))]) {
        for count in [10_u16, 100, 1_000] {
            let upstream = upstream(count, &balance);
            let costs = [1, 2].map(|threads| {
                let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| run(&upstream, threads)).collect();
                rounds.sort_by(f64::total_cmp);
                format!("{:>6.0} ({:.0}–{:.0})", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1])
            });
            println!("{name:<22} {count:>5} endpoints {:>21} {:>21}", costs[0], costs[1]);
        }
    }
}

/// The algorithm with a limit of the requests in progress of each endpoint, in percent of its share.
fn bounded(algorithm: BalancingAlgorithm, percent: u32) -> Balancing {
    let hash = RequestHash {
        keys: Box::default(),
        combine: Default::default(),
        bounded_load_percent: Some(percent),
        subset_size: None,
    };
    Balancing { algorithm, hash: Some(Arc::new(hash)), ..Balancing::default() }
}

/// An upstream whose endpoints have responded before.
fn upstream(count: u16, balance: &Balancing) -> Arc<Upstream> {
    let upstream = upstream_with(0..count, balance);
    for number in 0..count {
        let waited = EndpointTime::Exactly(Duration::from_millis(10 + u64::from(number % 7)));
        upstream.report(address(number), &Outcome { waited, ..Outcome::of(OutcomeClass::Responded) });
    }
    upstream
}

/// CPU nanoseconds of a pick.
fn run(upstream: &Arc<Upstream>, threads: u64) -> f64 {
    let begin = Barrier::new(threads as usize);
    let costs: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                let begin = &begin;
                scope.spawn(move || {
                    let pools = pools();
                    pick(&pools, upstream, number, 1_000);
                    begin.wait();
                    let before = cpu_nanoseconds();
                    pick(&pools, upstream, number, PICKS);
                    cpu_nanoseconds() - before
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    costs as f64 / (threads * PICKS) as f64
}

fn pick(pools: &ConnectionPools<Empty<Bytes>>, upstream: &Arc<Upstream>, thread: u64, count: u64) {
    for number in 0..count {
        let hash = upstream.hashing().then(|| hash64(&(number << 8 | thread).to_le_bytes()));
        let picked = pools.pick(upstream, &EndpointChoice { hash, ..EndpointChoice::default() }).unwrap();
        drop(black_box(upstream.active_request(picked.address)));
    }
}

/// CPU time of this thread.
fn cpu_nanoseconds() -> u64 {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split_whitespace().next().unwrap().parse().unwrap()
}
