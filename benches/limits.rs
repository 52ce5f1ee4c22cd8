//! What a local decision of rate-limiting costs on one core and on two at once, for one client and for different ones.
//!
//! `make bench` runs it. Beside it stands the same decision behind a lock that all threads share, to see what that would
//! cost here. What two threads cost each other shows only while both have a core.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "wall time is part of what is measured here")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Instant, SystemTime};

use futures_util::FutureExt as _;
use http::{HeaderValue, Request};
use parking_lot::Mutex;
use portico::plugin::chain::{Ask, Passage, Spoken};
use portico::plugin::{Chain, Client, Directory, Framing, Scheme, testing};
use portico::plugins::REGISTRY;
use serde_json::json;

/// That of the release.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 15;
/// Of each thread in each round.
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
        for at in order {
            rounds[at].push(run(&chain, &cases[at]));
        }
    }
    println!(
        "                                   CPU ns/decision (least–most)   ratio to one thread   waits per million"
    );
    for (case, costs) in cases.iter().zip(&rounds) {
        let cpu = Spread::of(costs.iter().map(|cost| cost.cpu));
        let ratio = Spread::of(costs.iter().zip(&rounds[0]).map(|(cost, alone)| cost.cpu / alone.cpu));
        let waits = Spread::of(costs.iter().map(|cost| cost.waits));
        let cores = Spread::of(costs.iter().map(|cost| cost.cores));
        println!(
            "{:<34} {:>8.0} ({:>4.0}–{:<4.0}) {:>15.2} ({:.2}–{:.2}) {:>14.0} ({:.0}–{:.0}) {:>10.1}",
            case.name,
            cpu.median,
            cpu.least,
            cpu.most,
            ratio.median,
            ratio.least,
            ratio.most,
            waits.median,
            waits.least,
            waits.most,
            cores.median,
        );
    }
}

struct Case<'l> {
    name: &'static str,
    threads: u8,
    clients: Clients,
    lock: Option<&'l Mutex<()>>,
}

#[derive(Clone, Copy)]
enum Clients {
    /// All threads decide about one client, and so write one counter.
    One,
    OneEach,
}

/// Of one decision: a thread's own processor time in nanoseconds, and how often a million of them had to wait for another
/// thread.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    waits: f64,
    /// How many of the threads had a core at a time.
    cores: f64,
}

fn run(chain: &Arc<Chain>, case: &Case<'_>) -> Cost {
    let begin = Barrier::new(usize::from(case.threads));
    let costs: Vec<[u64; 3]> = thread::scope(|scope| {
        let threads: Vec<_> = (0..case.threads)
            .map(|number| {
                let begin = &begin;
                scope.spawn(move || {
                    let client = if matches!(case.clients, Clients::One) { 0 } else { number };
                    // Whoever comes often is found without the lock of those who come for the first time.
                    decide(chain, client, 1000, None);
                    begin.wait();
                    let (start, before) = (Instant::now(), spent());
                    decide(chain, client, DECISIONS, case.lock);
                    let (after, took) = (spent(), start.elapsed());
                    [after.0 - before.0, after.1 - before.1, u64::try_from(took.as_nanos()).unwrap()]
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let decisions = f64::from(case.threads) * DECISIONS as f64;
    let sum = |at: usize| costs.iter().map(|cost| cost[at]).sum::<u64>() as f64;
    let longest = costs.iter().map(|cost| cost[2]).max().unwrap() as f64;
    Cost { cpu: sum(0) / decisions, waits: sum(1) / decisions * 1e6, cores: sum(0) / longest }
}

fn decide(chain: &Chain, client: u8, times: u64, lock: Option<&Mutex<()>>) {
    let (mut head, ()) = Request::get("/").body(()).unwrap().into_parts();
    let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
    let consumers = Directory::default();
    let address = IpAddr::from([192, 0, 2, client]);
    let now = SystemTime::now();
    for _ in 0..times {
        let mut passage = Passage::default();
        let ask = Ask {
            head: &mut head,
            path: "/",
            query: None,
            client: Client {
                address,
                port: 40_000,
                peer: address,
                scheme: Scheme::Http,
                host: "bench.example",
                listen_port: 80,
            },
            framing: Framing::default(),
            id: &id,
            body: None,
            consumers: &consumers,
            now,
            spoken: Spoken { secure: false, grpc: false },
        };
        let held = lock.map(Mutex::lock);
        let reply = chain.access(ask, &mut passage).now_or_never().expect("a local decision waits for nothing");
        drop(held);
        assert!(reply.is_none(), "nobody is refused");
    }
}

/// Nanoseconds on a core, and how often this thread gave its core away to wait.
fn spent() -> (u64, u64) {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    (schedstat.split_whitespace().next().unwrap().parse().unwrap(), waits.trim().parse().unwrap())
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Spread { least: values[0], median: values[values.len() / 2], most: values[values.len() - 1] }
    }
}
