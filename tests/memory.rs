//! Limits the memory per consumer, because there may be a hundred thousand consumers, each with a credential, and
//! verifies that plugins of consumers take no memory in rules. Limits the memory of routes, of endpoints, of stored
//! responses, of identifiers of limits, and of objects that expand to as much as possible.
//!
//! Counts requested bytes, which are the same on every machine. The resident memory that `make bench-full` measures is
//! about a quarter higher because allocators round up.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, in helpers too")]

#[path = "memory/endpoints.rs"]
mod endpoints;
#[path = "memory/object_budgets.rs"]
mod object_budgets;
#[path = "../benches/routes/world.rs"]
mod route_world;
#[path = "memory/routes.rs"]
mod routes;
#[path = "memory/stored_responses.rs"]
mod stored_responses;
#[path = "memory/upstreams.rs"]
mod upstreams;
#[path = "../benches/consumers/world.rs"]
mod world;

use std::alloc::System;

use portico::store::{AnyObject, Batch};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::world::{CompiledWorld, base_objects, consumer_with_plugins, consumers_with_keys, gold_plugin, ingresses};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONSUMERS: usize = 10_000;
/// Bytes per consumer with a username and a key, without the decoded objects. Both limits are a fifth above the values
/// measured when they were set.
const MAX_BYTES_IN_STORE: usize = 175;
const MAX_BYTES_IN_TOTAL: usize = 885;
const CONSUMERS_WITH_PLUGIN: usize = 2_000;

/// One test runs after the other, because both count the allocations of the process.
#[test]
fn memory_stays_within_budget() {
    println!("{}", check_consumers());
    println!("{}", check_plugins_of_consumers());
    println!("{}", object_budgets::check());
    println!("{}", routes::check());
    println!("{}", endpoints::check());
    println!("{}", upstreams::check());
    println!("{}", stored_responses::check());
}

/// Returns the measured bytes as text.
fn check_plugins_of_consumers() -> String {
    let [few, many] = [1, 100].map(bytes_per_consumer_with_plugin);
    // An entry for each consumer in each rule would take at least 20 bytes.
    assert!(many < few + 20, "{few} bytes per consumer with one rule, {many} with a hundred");
    format!("bytes per consumer with a plugin: {few} with one rule, {many} with a hundred")
}

/// The bytes that compilation adds for each consumer with a plugin among this many rules with another plugin.
fn bytes_per_consumer_with_plugin(rules: usize) -> usize {
    let mut world = CompiledWorld::default();
    world.apply(base_objects());
    world.apply(ingresses(rules));
    world.apply(vec![gold_plugin(0)]);
    let objects = (0..CONSUMERS_WITH_PLUGIN).map(|number| consumer_with_plugins(number, "gold")).collect();
    let changes = world.store.apply(Batch { upserts: objects, removes: vec![] });
    let region = Region::new(ALLOCATOR);
    world.compile(&changes);
    let change = region.change();
    (change.bytes_allocated - change.bytes_deallocated) / CONSUMERS_WITH_PLUGIN
}

/// Returns the measured bytes as text.
fn check_consumers() -> String {
    let mut world = CompiledWorld::default();
    world.apply(base_objects());
    let objects = consumers_with_keys(CONSUMERS);
    let vector_bytes = objects.capacity() * size_of::<AnyObject>();
    let region = Region::new(ALLOCATOR);
    // The store frees the vector of the objects, which was allocated before the region starts.
    let bytes_per_consumer = || {
        let change = region.change();
        (change.bytes_allocated + vector_bytes - change.bytes_deallocated) / CONSUMERS
    };

    drop(world.store.apply(Batch { upserts: objects, removes: vec![] }));
    // The control loop takes them after every change.
    drop(world.store.take_changed_references());
    let in_store = bytes_per_consumer();
    let changes = world.store.everything();
    world.compile(&changes);
    drop(changes);
    let in_total = bytes_per_consumer();
    world.check(CONSUMERS, 0);

    assert!(
        in_store <= MAX_BYTES_IN_STORE,
        "{in_store} bytes per consumer in the store: valgrind --tool=dhat shows the allocations"
    );
    assert!(
        in_total <= MAX_BYTES_IN_TOTAL,
        "{in_total} bytes per consumer in total: valgrind --tool=dhat shows the allocations"
    );
    format!("bytes per consumer: {in_store} in the store, {in_total} in total")
}
