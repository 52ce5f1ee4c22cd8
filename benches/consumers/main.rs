//! Cost of consumers: time and memory from decoded objects to the served snapshot, and time of one edit among them.
//!
//! Run by `make bench`. Decoded objects are created in memory; nothing is read from disk or a cluster.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::disallowed_methods, reason = "the allocator releases memory only after a while")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod world;

use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use portico::store::{AnyObject, Batch};
use rustix::time::{ClockId, clock_gettime};

use world::{CompiledWorld, base_objects, consumer, consumers_with_keys, secret};

/// The allocator of releases, since the result depends on its handling of many small allocations.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EDITS: usize = 200;
const MIB: f64 = 1_048_576.0;
/// jemalloc has returned free memory after this time; see `.cargo/config.toml`.
const RELEASE_DELAY: Duration = Duration::from_millis(2500);

fn main() {
    if let Some(count) = std::env::args().nth(1).and_then(|count| count.parse().ok()) {
        return measure(count);
    }
    println!(
        "                     store          compile             sum     peak  one edit, ms: of a consumer     of its key"
    );
    println!(
        "consumers        ms    MiB      ms      MiB      ms      MiB      MiB        median      max   median      max"
    );
    for count in [1000, 10_000, 100_000] {
        // Each measurement runs in a new process, because memory left in the allocator would distort the result.
        let status = Command::new(std::env::current_exe().unwrap()).arg(count.to_string()).status().unwrap();
        assert!(status.success(), "{count} consumers could not be measured");
    }
}

fn measure(count: usize) {
    let mut world = CompiledWorld::default();
    world.apply(base_objects());
    let objects = consumers_with_keys(count);
    // The vector itself is freed by `apply`, so its size must not count as decoded objects.
    let list = objects.len() * size_of::<AnyObject>();
    let decoded = resident("VmRSS") - list as f64 / MIB;

    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (stored, changes) = timed(|| world.store.apply(Batch { upserts: objects, removes: vec![] }));
    drop(changes);
    let in_store = resident("VmRSS");
    // All objects are compiled, because the list of changed objects would count as memory of the store.
    let changes = world.store.everything();
    let ((compiled, ()), peak) = (timed(|| world.compile(&changes)), resident("VmHWM"));
    drop(changes);
    world.check(count, 0);
    let served = resident("VmRSS");

    let number = count / 2;
    let mut of_consumer = Vec::new();
    let mut of_key = Vec::new();
    for revision in 1..=EDITS {
        // A running request may hold the previous snapshot, so nothing can be changed in place.
        let held = Arc::clone(&world.snapshot);
        of_consumer.push(timed(|| world.apply(vec![consumer(number, revision)])).0);
        world.check(count, revision - 1);
        of_key.push(timed(|| world.apply(vec![secret(number, revision)])).0);
        world.check(count, revision);
        drop(held);
    }
    of_consumer.sort();
    of_key.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{count:>9}  {:>8.0} {:>6.1} {:>7.0} {:>8.1} {:>7.0} {:>8.1} {:>8.1}      {:>8.3} {:>8.3} {:>8.3} {:>8.3}",
        ms(stored),
        in_store - decoded,
        ms(compiled),
        served - in_store,
        ms(stored + compiled),
        served - decoded,
        peak - decoded,
        ms(of_consumer[EDITS / 2]),
        ms(of_consumer[EDITS - 1]),
        ms(of_key[EDITS / 2]),
        ms(of_key[EDITS - 1]),
    );
    black_box(world);
}

/// CPU time of this thread; equal to wall time on an idle machine.
fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let begin = thread_cpu_time();
    let done = what();
    (thread_cpu_time().saturating_sub(begin), done)
}

/// Exact, unlike `/proc`, which is updated only at scheduler ticks.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// In MiB: the currently resident memory, or the peak since the last reset.
fn resident(figure: &str) -> f64 {
    if figure == "VmRSS" {
        std::thread::sleep(RELEASE_DELAY);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / MIB
}
