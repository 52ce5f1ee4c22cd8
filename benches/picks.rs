//! Measures the CPU cost of picking an endpoint, by algorithm and number of endpoints, on one thread and on two at once.
//!
//! Run by `make bench-full`. A pick is measured with what a request pays for it: finding the worker's pool, the choice,
//! and counting the request if the algorithm depends on it.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::fs;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use portico::http1::NameCase;
use portico::upstream::settings::{Balancing, BalancingAlgorithm, RequestHash};
use portico::upstream::{
    ConnectionPools, EndpointAddress, EndpointChoice, EndpointConnector, Endpoints, IdleLimits, Outcome, OutcomeClass,
    SocketBudget, Upstream, UpstreamKey, UpstreamRegistry, WorkerSubsetting, hash64,
};

/// The allocator of releases.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 9;
/// Picks of a thread in a round.
const PICKS: u64 = 200_000;

fn main() {
    println!("CPU ns/pick, median (least–most)          1 thread              2 threads");
    for (name, algorithm, bounded_load_percent) in [
        ("round robin", BalancingAlgorithm::RoundRobin, None),
        ("random", BalancingAlgorithm::Random, None),
        ("least requests", BalancingAlgorithm::LeastRequests, None),
        ("peak EWMA", ewma(), None),
        ("Maglev", BalancingAlgorithm::Maglev { table_size: 65_537 }, None),
        ("Maglev, bounded load", BalancingAlgorithm::Maglev { table_size: 65_537 }, Some(125)),
        ("ring hash", BalancingAlgorithm::RingHash { points: None }, None),
    ] {
        for count in [10_u16, 100, 1_000] {
            let upstream = upstream(count, algorithm, bounded_load_percent);
            let costs = [1, 2].map(|threads| {
                let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| run(&upstream, threads)).collect();
                rounds.sort_by(f64::total_cmp);
                format!("{:>6.0} ({:.0}–{:.0})", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1])
            });
            println!("{name:<22} {count:>5} endpoints {:>21} {:>21}", costs[0], costs[1]);
        }
    }
}

fn ewma() -> BalancingAlgorithm {
    BalancingAlgorithm::PeakEwma { decay: Duration::from_secs(10), failure_penalty: Duration::from_secs(1) }
}

fn upstream(count: u16, algorithm: BalancingAlgorithm, bounded_load_percent: Option<u32>) -> Arc<Upstream> {
    let address = |number: u16| SocketAddr::from(([10, 0, (number / 256) as u8, (number % 256) as u8], 80));
    let upstream = UpstreamRegistry::default().upstream(&UpstreamKey::default());
    let hash = bounded_load_percent.map(|percent| {
        let keys = Box::default();
        Arc::new(RequestHash { keys, combine: Default::default(), bounded_load_percent: Some(percent) })
    });
    upstream.set_endpoints(Endpoints {
        addresses: (0..count).map(address).map(EndpointAddress::Ip).collect(),
        balance: Balancing { algorithm, hash, ..Balancing::default() },
        ..Endpoints::default()
    });
    for number in 0..count {
        let head_time = Some(Duration::from_millis(10 + u64::from(number % 7)));
        upstream.report(address(number), &Outcome { head_time, ..Outcome::of(OutcomeClass::Responded) });
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

fn pools() -> ConnectionPools<Empty<Bytes>> {
    let seconds = Duration::from_secs(10);
    let connector = EndpointConnector {
        timeout: seconds,
        sockets: Arc::new(SocketBudget::new(100_000)),
        own_sockets: Arc::default(),
        max_head: 1_000,
        max_fields: 10,
        name_case: NameCase::Lower,
        max_streams: 100,
        ping_interval: seconds,
        ping_timeout: seconds,
    };
    let idle_limits = IdleLimits { per_endpoint: 1, timeout: seconds, recent: seconds };
    ConnectionPools::new(connector, idle_limits, WorkerSubsetting::new(1, 100_000), Arc::default())
}

/// CPU time of this thread.
fn cpu_nanoseconds() -> u64 {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split_whitespace().next().unwrap().parse().unwrap()
}
