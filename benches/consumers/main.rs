//! Measures the cost of consumers: time and memory from decoded objects to the served snapshot, and the time of one
//! edit among many consumers.
//!
//! Run by `make bench-full`. Decoded objects are created in memory; nothing is read from disk or a cluster.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::disallowed_methods, reason = "the allocator releases memory only after a while")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "../measurement/mod.rs"]
mod measurement;
mod world;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use portico::store::{AnyObject, Batch};

use measurement::{MIB, reset_peak, resident, timed};
use world::{
    CompiledWorld, base_objects, consumer, consumer_with_plugins, consumers_with_keys, gold_plugin, ingresses, secret,
};

/// The allocator of releases. The result depends on how it handles many small allocations.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Edits of the consumer, and as many of its key.
const EDITS: usize = 200;
/// Edits of the plugin that runs for all consumers, and as many of one consumer.
const PLUGIN_EDITS: usize = 20;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    match numbers[..] {
        [count] => return measure(count),
        [count, rules, edits] => return measure_plugins(count, rules, edits),
        _ => {}
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
    println!("\nconsumers with a plugin       compile        one edit, ms: of a consumer     of the plugin");
    println!("consumers     rules        ms      MiB              median      max       median      max");
    for rules in [500, 5000] {
        let arguments = [10_000, rules, PLUGIN_EDITS].map(|number| number.to_string());
        let status = Command::new(std::env::current_exe().unwrap()).args(arguments).status().unwrap();
        assert!(status.success(), "{rules} rules could not be measured");
    }
}

fn measure(count: usize) {
    let mut world = CompiledWorld::default();
    world.apply(base_objects());
    let objects = consumers_with_keys(count);
    // The size of the vector itself is subtracted, because `apply` frees it.
    let vector_size = objects.len() * size_of::<AnyObject>();
    let decoded = resident("VmRSS") - vector_size as f64 / MIB;

    reset_peak();
    let (stored, changes) = timed(|| world.store.apply(Batch { upserts: objects, removes: vec![] }));
    drop(changes);
    let in_store = resident("VmRSS");
    // The changes were dropped, so that their memory does not count as that of the store. All objects are compiled
    // instead.
    let changes = world.store.everything();
    let ((compiled, ()), peak) = (timed(|| world.compile(&changes)), resident("VmHWM"));
    drop(changes);
    world.check(count, 0);
    let served = resident("VmRSS");

    let number = count / 2;
    let mut consumer_edits = Vec::new();
    let mut key_edits = Vec::new();
    for revision in 1..=EDITS {
        // The previous snapshot is kept, as by a running request, so that nothing can be changed in place.
        let previous = Arc::clone(&world.snapshot);
        consumer_edits.push(timed(|| world.apply(vec![consumer(number, revision)])).0);
        world.check(count, revision - 1);
        key_edits.push(timed(|| world.apply(vec![secret(number, revision)])).0);
        world.check(count, revision);
        drop(previous);
    }
    consumer_edits.sort();
    key_edits.sort();
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
        ms(consumer_edits[EDITS / 2]),
        ms(consumer_edits[EDITS - 1]),
        ms(key_edits[EDITS / 2]),
        ms(key_edits[EDITS - 1]),
    );
    black_box(world);
}

/// Measures consumers for which a plugin runs, among rules on which another plugin runs: the time and memory to compile
/// all these consumers, and the time to remove and add the plugin of one consumer, and to edit the plugin.
fn measure_plugins(count: usize, rules: usize, edits: usize) {
    let mut world = CompiledWorld::default();
    world.apply(base_objects());
    world.apply(ingresses(rules));
    world.apply(vec![gold_plugin(0)]);
    let objects = (0..count).map(|number| consumer_with_plugins(number, "gold")).collect();
    let changes = world.store.apply(Batch { upserts: objects, removes: vec![] });
    let in_store = resident("VmRSS");
    let (compiled, ()) = timed(|| world.compile(&changes));
    drop(changes);
    let served = resident("VmRSS");

    let number = count / 2;
    let mut consumer_edits = Vec::new();
    let mut plugin_edits = Vec::new();
    for revision in 1..=edits {
        let previous = Arc::clone(&world.snapshot);
        let edited = consumer_with_plugins(number, if revision % 2 == 1 { "" } else { "gold" });
        consumer_edits.push(timed(|| world.apply(vec![edited])).0);
        plugin_edits.push(timed(|| world.apply(vec![gold_plugin(revision)])).0);
        drop(previous);
    }
    consumer_edits.sort();
    plugin_edits.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{count:>9} {rules:>9} {:>9.0} {:>8.1}             {:>8.3} {:>8.3}     {:>8.3} {:>8.3}",
        ms(compiled),
        served - in_store,
        ms(consumer_edits[edits / 2]),
        ms(consumer_edits[edits - 1]),
        ms(plugin_edits[edits / 2]),
        ms(plugin_edits[edits - 1]),
    );
    black_box(world);
}
