//! What consumers cost: time and memory from decoded objects to the snapshot that is served, and time for one edit among them.
//!
//! `make bench` runs it. Nothing is read from a disk or a cluster: the objects are there, as after their JSON was read.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "memory is at rest only after a while")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use portico::api::Kind;
use portico::api::names::GATEWAY_CONTROLLER;
use portico::compile::addresses::Addresses;
use portico::compile::{Classes, Compiler, Entrance, IngressSettings, Inputs};
use portico::plugin::Workshop;
use portico::plugin::consumers::digest_of;
use portico::snapshot::Snapshot;
use portico::store::{AnyObject, Batch, Changes, Store};
use portico::upstream::Registry;
use serde_json::{Value, json};

/// That of the release, since what allocates little and often depends on it.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EDITS: usize = 200;
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
    let objects: Vec<AnyObject> = (0..count).flat_map(|number| [consumer(number, 0), secret(number, 0)]).collect();
    let decoded = resident("VmRSS");

    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (stored, changes) = timed(|| world.store.apply(Batch { upserts: objects, removes: vec![] }));
    drop(changes);
    let in_store = resident("VmRSS");
    // Everything, since the objects that changed would count as the store's.
    let changes = world.store.everything();
    let ((compiled, ()), peak) = (timed(|| world.compile(&changes)), resident("VmHWM"));
    drop(changes);
    check(&world.snapshot, count, 0);
    let served = resident("VmRSS");

    let number = count / 2;
    let mut of_consumer = Vec::new();
    let mut of_key = Vec::new();
    for revision in 1..=EDITS {
        // A request may hold the snapshot from before meanwhile, so that nothing can be changed in place.
        let held = Arc::clone(&world.snapshot);
        of_consumer.push(timed(|| world.apply(vec![consumer(number, revision)])).0);
        check(&world.snapshot, count, revision - 1);
        of_key.push(timed(|| world.apply(vec![secret(number, revision)])).0);
        check(&world.snapshot, count, revision);
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

/// The control loop's part of the program, without sockets.
struct World {
    store: Store,
    compiler: Compiler,
    snapshot: Arc<Snapshot>,
    upstreams: Registry,
    workshop: Workshop,
    controllers: Vec<String>,
    ingress: IngressSettings,
}

impl Default for World {
    fn default() -> Self {
        let entrance = Entrance { address: ([127, 0, 0, 1], 8000).into(), public: 80, always: false };
        World {
            store: Store::default(),
            compiler: Compiler::default(),
            snapshot: Arc::default(),
            upstreams: Registry::default(),
            workshop: Workshop::offline(portico::plugins::REGISTRY),
            controllers: vec![GATEWAY_CONTROLLER.to_owned()],
            ingress: IngressSettings { http: Some(entrance), ..IngressSettings::default() },
        }
    }
}

impl World {
    fn apply(&mut self, upserts: Vec<AnyObject>) {
        let changes = self.store.apply(Batch { upserts, removes: vec![] });
        self.compile(&changes);
    }

    fn compile(&mut self, changes: &Changes) {
        let inputs = Inputs {
            controllers: &self.controllers,
            addresses: &Addresses::default(),
            upstreams: &self.upstreams,
            classes: &Classes::default(),
            workshop: &self.workshop,
            unknown: &BTreeSet::new(),
            ingress: &self.ingress,
        };
        let compiled = self.compiler.compile(&self.store, changes, &inputs);
        self.snapshot = compiled.snapshot;
    }
}

/// A figure for a snapshot in which somebody is missing is worth nothing.
fn check(snapshot: &Snapshot, count: usize, revision: usize) {
    let directory = &snapshot.consumers;
    assert_eq!((directory.consumers.len(), directory.keys.len()), (count, count), "everybody is there");
    let found = directory.keys.get(&digest_of(key(count / 2, revision).as_bytes())).unwrap();
    let name = found.consumer.username.as_deref();
    assert!(name.is_some_and(|name| name.starts_with(&format!("user-{}", count / 2))), "{name:?}");
}

/// A route with key-auth, for which the consumers are.
fn surroundings() -> Vec<AnyObject> {
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
    let plugin = json!({"metadata": {"namespace": "default", "name": "auth"}, "plugin": "key-auth"});
    let service = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({
        "metadata": {"namespace": "default", "name": "web", "annotations": {"konghq.com/plugins": "auth"}},
        "spec": {"ingressClassName": "portico", "defaultBackend": backend},
    });
    [(Kind::IngressClass, class), (Kind::KongPlugin, plugin), (Kind::Service, service), (Kind::Ingress, ingress)]
        .map(|(kind, object)| parse(kind, object))
        .into()
}

fn consumer(number: usize, revision: usize) -> AnyObject {
    let object = json!({
        "metadata": {
            "namespace": "default",
            "name": format!("consumer-{number}"),
            "creationTimestamp": "2026-01-02T12:00:00Z",
            "generation": revision,
            "annotations": {"kubernetes.io/ingress.class": "portico"},
        },
        "username": format!("user-{number}-{revision}"),
        "credentials": [format!("consumer-{number}-key")],
    });
    parse(Kind::KongConsumer, object)
}

fn secret(number: usize, revision: usize) -> AnyObject {
    let object = json!({
        "metadata": {
            "namespace": "default",
            "name": format!("consumer-{number}-key"),
            "creationTimestamp": "2026-01-02T12:00:00Z",
            "labels": {"konghq.com/credential": "key-auth"},
        },
        "type": "Opaque",
        "stringData": {"key": key(number, revision)},
    });
    parse(Kind::Secret, object)
}

/// As long as those that are made at random usually are.
fn key(number: usize, revision: usize) -> String {
    format!("key-{number:014}-{revision:013}")
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}

/// Time of this thread on a core: on a machine that does nothing else, that of the clock.
fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let begin = on_core();
    let done = what();
    (on_core().saturating_sub(begin), done)
}

fn on_core() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// In MiB: what is resident now, at rest, or what was at most since the last reset.
fn resident(figure: &str) -> f64 {
    if figure == "VmRSS" {
        std::thread::sleep(REST);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
