//! What a consumer takes in memory. There may be a hundred thousand of them, each of whom has a credential.
//!
//! Bytes that were asked for are counted, which are the same on every machine. What `make bench` finds resident is about a
//! quarter more: an allocator rounds up.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to panic, in what helps it too")]

#[path = "../benches/consumers/world.rs"]
mod world;

use std::alloc::System;

use portico::store::{AnyObject, Batch};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::world::{World, people, surroundings};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const COUNT: usize = 10_000;
/// Bytes for each consumer with a username and a key, beyond those of the objects that say so: a fifth more than it was when this was
/// written.
const IN_STORE: usize = 175;
const IN_ALL: usize = 885;

#[test]
fn a_consumer_takes_little_more_than_its_objects() {
    let mut world = World::default();
    world.apply(surroundings());
    let objects = people(COUNT);
    let list = objects.capacity() * size_of::<AnyObject>();
    let region = Region::new(ALLOCATOR);
    // What the list of the objects took is free when they are in the store.
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

    println!("bytes for each consumer: {in_store} in the store, {in_all} in all");
    assert!(in_store <= IN_STORE, "{in_store} bytes in the store for each: valgrind --tool=dhat says where");
    assert!(in_all <= IN_ALL, "{in_all} bytes in all for each: valgrind --tool=dhat says where");
}
