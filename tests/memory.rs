//! Memory per consumer. There may be a hundred thousand consumers, each with a credential.
//!
//! Counts requested bytes, which are the same on every machine. The resident memory measured by `make bench` is about a
//! quarter higher because allocators round up.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, in helpers too")]

#[path = "../benches/consumers/world.rs"]
mod world;

use std::alloc::System;

use portico::store::{AnyObject, Batch};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::world::{CompiledWorld, base_objects, consumers_with_keys};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const COUNT: usize = 10_000;
/// Bytes per consumer with a username and a key, in addition to its decoded objects: a fifth above the value at the
/// time of writing.
const MAX_BYTES_IN_STORE: usize = 175;
const MAX_BYTES_IN_TOTAL: usize = 885;

#[test]
fn consumer_memory_stays_within_budget() {
    let mut world = CompiledWorld::default();
    world.apply(base_objects());
    let objects = consumers_with_keys(COUNT);
    let list = objects.capacity() * size_of::<AnyObject>();
    let region = Region::new(ALLOCATOR);
    // The vector of objects is freed once they are in the store.
    let kept = || {
        let change = region.change();
        (change.bytes_allocated + list - change.bytes_deallocated) / COUNT
    };

    drop(world.store.apply(Batch { upserts: objects, removes: vec![] }));
    let in_store = kept();
    let changes = world.store.everything();
    world.compile(&changes);
    drop(changes);
    let in_all = kept();
    world.check(COUNT, 0);

    println!("bytes per consumer: {in_store} in the store, {in_all} in total");
    assert!(
        in_store <= MAX_BYTES_IN_STORE,
        "{in_store} bytes per consumer in the store: valgrind --tool=dhat shows where"
    );
    assert!(in_all <= MAX_BYTES_IN_TOTAL, "{in_all} bytes per consumer in total: valgrind --tool=dhat shows where");
}
