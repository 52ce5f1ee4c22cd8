//! Measures the CPU cost of a local rate-limiting decision on one core and on two at once, for one client and for
//! different clients.
//!
//! Run by `make bench-full`. For comparison, the same decision is measured behind a lock shared by all threads.
//! Contention between two threads shows only if both have a core.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::disallowed_methods, reason = "wall time is part of the measurement")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Instant, SystemTime};

use futures_util::FutureExt as _;
use http::{HeaderValue, Request};
use parking_lot::Mutex;
use portico::plugin_api::{ArrivedRequest, ClientCertificate, ClientInfo, ConsumerDirectory, Framing, Scheme};
use portico::plugin_chain::chain::{AccessEnd, ChainRequest, ChainState, RequestBodyState};
use portico::plugin_chain::{Chain, testing};
use portico::plugins::REGISTRY;
use serde_json::json;

/// The allocator of releases.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 15;
/// Decisions of a thread in a round.
const DECISIONS: u64 = 300_000;

fn main() {
    let kind = REGISTRY.find("rate-limiting").unwrap();
    let config = json!({"minute": 1_000_000_000_000_u64, "limit_by": "ip", "hide_client_headers": true});
    let chain = testing::chain(&[(kind, config)]);
    let lock = Mutex::new(());
    let cases = [
        Case { name: "one thread", threads: 1, clients: Clients::One, lock: None },
        Case { name: "two threads, different clients", threads: 2, clients: Clients::OneEach, lock: None },
        Case { name: "two threads, the same client", threads: 2, clients: Clients::One, lock: None },
        Case { name: "one thread, behind a lock", threads: 1, clients: Clients::One, lock: Some(&lock) },
        Case { name: "two threads, behind a lock", threads: 2, clients: Clients::OneEach, lock: Some(&lock) },
    ];
    let mut rounds = vec![Vec::new(); cases.len()];
    for round in 0..ROUNDS {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        order.rotate_left(round % cases.len());
        for index in order {
            rounds[index].push(run(&chain, &cases[index]));
        }
    }
    println!(
        "                                   CPU ns/decision (least–most)   ratio to one thread   waits per million   \
             cores"
    );
    for (case, costs) in cases.iter().zip(&rounds) {
        let cpu = Spread::from_values(costs.iter().map(|cost| cost.cpu));
        let ratio = Spread::from_values(costs.iter().zip(&rounds[0]).map(|(cost, alone)| cost.cpu / alone.cpu));
        let waits = Spread::from_values(costs.iter().map(|cost| cost.waits));
        let cores = Spread::from_values(costs.iter().map(|cost| cost.cores));
        println!(
            "{:<34} {:>8.0} ({:>4.0}–{:<4.0}) {:>15.2} ({:.2}–{:.2}) {:>14.0} ({:.0}–{:.0}) {:>10.1}",
            case.name,
            cpu.median,
            cpu.minimum,
            cpu.maximum,
            ratio.median,
            ratio.minimum,
            ratio.maximum,
            waits.median,
            waits.minimum,
            waits.maximum,
            cores.median,
        );
    }
}

struct Case<'l> {
    name: &'static str,
    threads: u8,
    clients: Clients,
    /// Held during each decision, for comparison.
    lock: Option<&'l Mutex<()>>,
}

#[derive(Clone, Copy)]
enum Clients {
    /// All threads decide for one client and therefore update one counter.
    One,
    /// Each thread decides for its own client.
    OneEach,
}

/// Cost of the decisions of a round.
#[derive(Clone, Copy)]
struct Cost {
    /// CPU time of a decision in nanoseconds.
    cpu: f64,
    /// Waits for another thread per million decisions.
    waits: f64,
    /// Average number of threads that had a core.
    cores: f64,
}

/// Cost of one thread in a round. Times are in nanoseconds.
struct ThreadCost {
    cpu: u64,
    waits: u64,
    elapsed: u64,
}

fn run(chain: &Arc<Chain>, case: &Case<'_>) -> Cost {
    let begin = Barrier::new(usize::from(case.threads));
    let costs: Vec<ThreadCost> = thread::scope(|scope| {
        let threads: Vec<_> = (0..case.threads)
            .map(|number| {
                let begin = &begin;
                scope.spawn(move || {
                    let client = if matches!(case.clients, Clients::One) { 0 } else { number };
                    // Known clients are found without the lock that protects the insertion of new ones.
                    decide(chain, client, 1000, None);
                    begin.wait();
                    let (start, (cpu_before, waits_before)) = (Instant::now(), cpu_and_waits());
                    decide(chain, client, DECISIONS, case.lock);
                    let ((cpu, waits), elapsed) = (cpu_and_waits(), start.elapsed());
                    let elapsed = u64::try_from(elapsed.as_nanos()).unwrap();
                    ThreadCost { cpu: cpu - cpu_before, waits: waits - waits_before, elapsed }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let decisions = f64::from(case.threads) * DECISIONS as f64;
    let cpu = costs.iter().map(|cost| cost.cpu).sum::<u64>() as f64;
    let waits = costs.iter().map(|cost| cost.waits).sum::<u64>() as f64;
    let longest = costs.iter().map(|cost| cost.elapsed).max().unwrap() as f64;
    Cost { cpu: cpu / decisions, waits: waits / decisions * 1e6, cores: cpu / longest }
}

/// Makes this number of decisions for one client.
fn decide(chain: &Chain, client: u8, times: u64, lock: Option<&Mutex<()>>) {
    let (mut head, ()) = Request::get("/").body(()).unwrap().into_parts();
    let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
    let consumers = ConsumerDirectory::default();
    let address = IpAddr::from([192, 0, 2, client]);
    let now = SystemTime::now();
    let peer = (address, 40_000).into();
    let received = ArrivedRequest { peer, scheme: Scheme::Http, host: "bench.example", port: 80 };
    for _ in 0..times {
        let mut state = ChainState::default();
        let request = ChainRequest {
            head: &mut head,
            path: "/",
            query: None,
            raw_target: "/",
            uri_captures: &testing::TestCaptures::default(),
            client: ClientInfo {
                address,
                scheme: received.scheme,
                host: received.host,
                port: received.port,
                separate_port: None,
                received,
                is_peer_trusted: false,
                certificate: ClientCertificate::NotRequested,
            },
            framing: Framing::default(),
            id: &id,
            body: RequestBodyState::Unread,
            consumers: &consumers,
            now,
        };
        let guard = lock.map(Mutex::lock);
        let end = chain.access(request, &mut state).now_or_never().expect("a local decision never waits");
        drop(guard);
        assert!(matches!(end, AccessEnd::Complete), "no request is rejected");
    }
}

/// CPU time of this thread in nanoseconds, and the number of its voluntary context switches.
fn cpu_and_waits() -> (u64, u64) {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    (schedstat.split_whitespace().next().unwrap().parse().unwrap(), waits.trim().parse().unwrap())
}

/// Median and range of several measurements.
struct Spread {
    minimum: f64,
    median: f64,
    maximum: f64,
}

impl Spread {
    fn from_values(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Spread { minimum: values[0], median: values[values.len() / 2], maximum: values[values.len() - 1] }
    }
}
