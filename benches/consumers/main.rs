//! What consumers cost: time and memory from decoded objects to the snapshot that is served, and time for one edit among them.
//!
//! `make bench` runs it. Nothing is read from a disk or a cluster: the objects are there, as after their JSON was read.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "memory is at rest only after a while")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod world;

use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use portico::store::{AnyObject, Batch};
use rustix::time::{ClockId, clock_gettime};

use world::{World, consumer, people, secret, surroundings};

/// That of the release, since what allocates little and often depends on it.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EDITS: usize = 200;
const MIB: f64 = 1_048_576.0;
/// After this long jemalloc has given back what was free; see `.cargo/config.toml`.
const REST: Duration = Duration::from_millis(2500);

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
        // In a process of its own: what another left behind in the allocator would be taken for less.
        let status = Command::new(std::env::current_exe().unwrap()).arg(count.to_string()).status().unwrap();
        assert!(status.success(), "{count} consumers could not be measured");
    }
}

fn measure(count: usize) {
    let mut world = World::default();
    world.apply(surroundings());
    let objects = people(count);
    // Without the list in which they come: who takes it over lets go of it, which is not to be taken for less.
    let list = objects.len() * size_of::<AnyObject>();
    let decoded = resident("VmRSS") - list as f64 / MIB;

    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (stored, changes) = timed(|| world.store.apply(Batch { upserts: objects, removes: vec![] }));
    drop(changes);
    let in_store = resident("VmRSS");
    // Everything, since the objects that changed would count as the store's.
    let changes = world.store.everything();
    let ((compiled, ()), peak) = (timed(|| world.compile(&changes)), resident("VmHWM"));
    drop(changes);
    world.check(count, 0);
    let served = resident("VmRSS");

    let number = count / 2;
    let mut of_consumer = Vec::new();
    let mut of_key = Vec::new();
    for revision in 1..=EDITS {
        // A request may hold the snapshot from before meanwhile, so that nothing can be changed in place.
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

/// Time of this thread on a core: on a machine that does nothing else, that of the clock.
fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let begin = on_core();
    let done = what();
    (on_core().saturating_sub(begin), done)
}

/// Exact, where the files of `/proc` are as old as the last tick of the scheduler.
fn on_core() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// In MiB: what is resident now, at rest, or what was at most since the last reset.
fn resident(figure: &str) -> f64 {
    if figure == "VmRSS" {
        std::thread::sleep(REST);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / MIB
}
