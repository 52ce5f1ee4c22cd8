//! Measures the cost of HTTPRoutes and Ingresses, each with its own host, and of ListenerSets with HTTPRoutes: time and
//! memory from objects to the served snapshot, and the time of one edit among many.
//!
//! Run by `make bench-full`. Objects are created in memory; nothing is read from disk or a cluster.
//!
//! ```text
//! cargo bench --bench routes -- http-routes 40000 2500    one number of routes, with this number of listeners
//! cargo bench --bench routes -- ingresses 40000
//! cargo bench --bench routes -- listener-sets 40000 2500  these routes belong to this number of ListenerSets
//! ```

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

use portico::store::AnyObject;

use measurement::{reset_peak, resident, timed};
use world::{
    MAX_LISTENERS_PER_GATEWAY, RouteWorld, gateways, http_route, ingress, ingress_class, listener_set,
    route_of_listener_set, services,
};

/// The allocator of releases. The result depends on how it handles many small allocations.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EDITS: usize = 100;
/// Objects are created and applied in batches, so that those that are not yet stored take little memory.
const BATCH: usize = 1000;

/// What is measured without arguments: the kind, the number of objects, and the number of listeners.
const CASES: [(&str, usize, usize); 5] = [
    ("http-routes", 3000, 188),
    ("http-routes", 40_000, 2500),
    ("ingresses", 3000, 0),
    ("ingresses", 40_000, 0),
    ("listener-sets", 40_000, 2500),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<usize>().ok());
    match (arguments.first().map(String::as_str), number(1), number(2)) {
        (Some("http-routes"), Some(count), Some(listeners)) if listeners > 0 => measure_http_routes(count, listeners),
        (Some("ingresses"), Some(count), _) => measure_ingresses(count),
        (Some("listener-sets"), Some(count), Some(sets)) if sets > 0 => measure_listener_sets(count, sets),
        (None, ..) => measure_all(),
        _ => panic!("arguments: http-routes COUNT LISTENERS, ingresses COUNT, listener-sets ROUTES SETS, or none"),
    }
}

fn measure_all() {
    println!(
        "                                            memory              one edit, CPU ms: of an object   of what it refers to"
    );
    println!(
        "objects                listeners  CPU s     MiB  KiB each   peak MiB      median      max     median      max"
    );
    for (kind, count, listeners) in CASES {
        // Each measurement runs in a new process, because memory left in the allocator would distort the result.
        let arguments = [kind.to_owned(), count.to_string(), listeners.to_string()];
        let status = Command::new(std::env::current_exe().unwrap()).args(arguments).status().unwrap();
        assert!(status.success(), "{count} {kind} could not be measured");
    }
}

fn measure_http_routes(count: usize, listeners: usize) {
    let mut world = RouteWorld::new();
    world.apply(gateways(listeners, MAX_LISTENERS_PER_GATEWAY));
    world.apply(services(count));
    let filled = fill(&mut world, count, |_, number| vec![http_route(number, listeners, MAX_LISTENERS_PER_GATEWAY, 0)]);
    let edits = edit(&mut world, |_, revision| http_route(count / 2, listeners, MAX_LISTENERS_PER_GATEWAY, revision));
    print_row("HTTPRoutes", count, listeners, &filled, &[edits]);
    black_box(world);
}

fn measure_ingresses(count: usize) {
    let mut world = RouteWorld::new();
    world.apply(vec![ingress_class()]);
    world.apply(services(count));
    let filled =
        fill(&mut world, count, |world, number| vec![world.certificates.secret(number, 0), ingress(number, 0)]);
    let edits = edit(&mut world, |_, revision| ingress(count / 2, revision));
    let renewals = edit(&mut world, |world, revision| world.certificates.secret(count / 2, revision));
    print_row("Ingresses", count, 0, &filled, &[edits, renewals]);
    black_box(world);
}

/// The second edits are those of a ListenerSet.
fn measure_listener_sets(count: usize, sets: usize) {
    let mut world = RouteWorld::new();
    world.apply(gateways(1, 1));
    world.apply(services(count));
    world.apply((0..sets).map(|set| listener_set(set, 0)).collect());
    let filled = fill(&mut world, count, |_, number| vec![route_of_listener_set(number, sets, 0)]);
    let edits = edit(&mut world, |_, revision| route_of_listener_set(count / 2, sets, revision));
    let edits_of_sets = edit(&mut world, |_, revision| listener_set(sets / 2, revision));
    print_row("in ListenerSets", count, sets, &filled, &[edits, edits_of_sets]);
    black_box(world);
}

/// What all objects take together.
struct Filled {
    time: Duration,
    mib: f64,
    peak_mib: f64,
}

fn fill(world: &mut RouteWorld, count: usize, objects: impl Fn(&RouteWorld, usize) -> Vec<AnyObject>) -> Filled {
    let before = resident("VmRSS");
    let numbers: Vec<usize> = (0..count).collect();
    let mut time = Duration::ZERO;
    reset_peak();
    for batch in numbers.chunks(BATCH) {
        let objects = batch.iter().flat_map(|number| objects(world, *number)).collect();
        time += timed(|| world.apply(objects)).0;
    }
    let peak_mib = resident("VmHWM") - before;
    assert_eq!(world.served_hosts(), count, "routes are missing");
    Filled { time, mib: resident("VmRSS") - before, peak_mib }
}

/// The times of edits, shortest first.
fn edit(world: &mut RouteWorld, object: impl Fn(&RouteWorld, usize) -> AnyObject) -> Vec<Duration> {
    let edit_once = |revision| {
        // The previous snapshot is kept, as by a running request, so that nothing can be changed in place.
        let previous = Arc::clone(&world.snapshot);
        let edited = vec![object(world, revision)];
        let (time, ()) = timed(|| world.apply(edited));
        assert!(!Arc::ptr_eq(&previous, &world.snapshot), "the edit changed nothing");
        time
    };
    let mut times: Vec<Duration> = (1..=EDITS).map(edit_once).collect();
    times.sort();
    times
}

fn print_row(kind: &str, count: usize, listeners: usize, filled: &Filled, edits: &[Vec<Duration>]) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let edits = edits.iter().map(|times| format!("{:>10.3} {:>8.3}", ms(times[EDITS / 2]), ms(times[EDITS - 1])));
    println!(
        "{count:>7} {kind:<15} {listeners:>8} {:>6.1} {:>7.1}  {:>8.1} {:>10.1}  {}",
        filled.time.as_secs_f64(),
        filled.mib,
        filled.mib * 1024.0 / count as f64,
        filled.peak_mib,
        edits.collect::<Vec<_>>().join(" "),
    );
}
