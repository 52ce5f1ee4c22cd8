//! Objects of the maximum size that an API server accepts, each of which expands to as much as possible when it is
//! compiled. Limits the memory that one of them takes, and that those of one namespace take together, also if they are
//! larger than an object may be.

use std::sync::Arc;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::compile::testing::TestInputs;
use portico::compile::{Compiler, IngressListener, IngressSettings, addressable_gateways};
use portico::snapshot::Snapshot;
use portico::store::{AnyObject, Batch, LargeObjects, Store, object_size};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use stats_alloc::Region;

use crate::ALLOCATOR;

/// Creates an object with the name.
type CreateObject = fn(&str) -> AnyObject;
type CreateLargestObject = fn(&str) -> (Kind, Value);

/// The objects, with the text that describes each.
const OBJECTS: &[(&str, CreateObject)] = &[
    ("HTTPRoute with 4,224 large regular expressions", route_with_patterns),
    ("HTTPRoute with 30,000 host aliases", route_with_aliases),
    ("Ingress with 30,000 host aliases", ingress_with_aliases),
    ("Ingress with 4,000 header expressions", ingress_with_headers),
    ("Ingress with 2,000 headers and 5,000 paths", ingress_with_headers_and_paths),
    ("Ingress with 14,000 paths of regular expressions", ingress_with_path_patterns),
];

/// Objects of almost 1.5 MiB, with the text that describes each.
const LARGEST_OBJECTS: &[(&str, CreateLargestObject)] = &[
    ("HTTPRoutes with 128 matches and 2,048 conditions", largest_route),
    ("Ingresses with 9,500 hosts", ingress_with_hosts),
    ("KongPlugins with 700,000 numbers", plugin_with_numbers),
];

/// The most that one object may take.
const MAX_BYTES: usize = 32 << 20;
const NAMESPACE_OBJECTS: usize = 100;
/// The most that objects of one namespace may take if they are larger than an object may be: a tenth of the memory
/// limit of the chart. Without a limit they take up to 5 GiB.
const MAX_LARGEST_BYTES: usize = 51 << 20;
/// The most that the Ingresses of one namespace may take: a quarter of the memory limit of the chart.
const MAX_NAMESPACE_BYTES: usize = 128 << 20;

/// Returns the measured bytes and times as text. The times are those of this build, and are not limited.
pub(crate) fn check() -> String {
    let mut lines = Vec::new();
    for (what, create) in OBJECTS {
        let mut world = World::default();
        let (bytes, ms) = world.compile(vec![create("one")]);
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        let line = format!("{mebibytes:.1} MiB, {ms} ms: {what}; {}", world.verdict("one"));
        assert!(bytes <= MAX_BYTES, "{line}");
        lines.push(line);
    }
    lines.push(check_namespace());
    lines.extend(LARGEST_OBJECTS.iter().map(check_largest));
    lines.join("\n")
}

/// A Gateway, a class of Ingresses and a Service, compiled.
struct World {
    store: Store,
    compiler: Compiler,
    inputs: TestInputs,
    snapshot: Arc<Snapshot>,
}

impl Default for World {
    fn default() -> Self {
        let listener =
            IngressListener { address: ([127, 0, 0, 1], 8000).into(), public_port: 80, always_listen: false };
        let mut world = World {
            store: Store::default(),
            compiler: Compiler::default(),
            inputs: TestInputs {
                ingress: IngressSettings { http: Some(listener), ..IngressSettings::default() },
                ..TestInputs::new(portico::plugins::REGISTRY)
            },
            snapshot: Arc::default(),
        };
        let gateway_class =
            json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
        let gateway = json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"gatewayClassName": "portico", "listeners": [{
                "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}},
            }]},
        });
        let ingress_class =
            json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
        let service = json!({"metadata": {"namespace": "tenant", "name": "web"}, "spec": {"ports": [{"port": 80}]}});
        let objects = [
            (Kind::GatewayClass, gateway_class),
            (Kind::Gateway, gateway),
            (Kind::IngressClass, ingress_class),
            (Kind::Service, service),
        ];
        drop(
            world
                .store
                .apply(Batch { upserts: objects.map(|(kind, object)| parse(kind, object)).into(), removes: vec![] }),
        );
        world.inputs.addresses.assign(
            &AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())),
            &AddressState::default(),
            addressable_gateways(&world.store, &world.inputs.controllers),
        );
        let everything = world.store.everything();
        world.snapshot = world.inputs.compile(&mut world.compiler, &world.store, &everything).snapshot;
        world
    }
}

impl World {
    /// Compiles the objects. Returns the bytes that remain allocated, without those of the decoded objects, and the
    /// milliseconds of processor time.
    fn compile(&mut self, objects: Vec<AnyObject>) -> (usize, i64) {
        let changes = self.store.apply(Batch { upserts: objects, removes: vec![] });
        let processor_time = || clock_gettime(ClockId::ThreadCPUTime);
        let (region, begin) = (Region::new(ALLOCATOR), processor_time());
        self.snapshot = self.inputs.compile(&mut self.compiler, &self.store, &changes).snapshot;
        let (end, change) = (processor_time(), region.change());
        let ms = (end.tv_sec - begin.tv_sec) * 1_000 + (end.tv_nsec - begin.tv_nsec) / 1_000_000;
        (change.bytes_allocated.saturating_sub(change.bytes_deallocated), ms)
    }

    /// The first words of what is reported about an object.
    fn verdict(&self, name: &str) -> String {
        let key = ObjectKey::new("tenant", name);
        let verdicts = [Kind::HttpRoute, Kind::Ingress]
            .map(|kind| self.compiler.verdicts().get(&ObjectId::new(kind, key.clone())));
        let verdict = verdicts.into_iter().flatten().next().unwrap();
        verdict
            .all_conditions()
            .flat_map(|(_, condition)| &condition.diagnostics)
            .map(|diagnostic| diagnostic.to_string().chars().take(160).collect::<String>())
            .next()
            .unwrap_or_default()
    }
}

/// An Ingress with as many compiled expressions as one object may have.
fn largest_ingress(name: &str) -> AnyObject {
    let paths = (0..36).map(|number| format!("/~/{name}/{number}/.{{200}}"));
    ingress(name, json!({}), paths)
}

/// Compiles a hundred of the largest objects of one namespace.
fn check_namespace() -> String {
    let mut world = World::default();
    let (bytes, ms) =
        world.compile((0..NAMESPACE_OBJECTS).map(|number| largest_ingress(&number.to_string())).collect());
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    let line = format!(
        "{mebibytes:.1} MiB, {ms} ms: {NAMESPACE_OBJECTS} Ingresses of one namespace with 36 large expressions each; {}",
        world.verdict("99")
    );
    assert!(bytes <= MAX_NAMESPACE_BYTES, "{line}");
    line
}

/// Compiles a hundred objects of one namespace that are larger than an object may be, and then an edit in another
/// namespace.
fn check_largest((what, create): &(&str, CreateLargestObject)) -> String {
    let mut world = World::default();
    let region = Region::new(ALLOCATOR);
    let mut ms = Vec::new();
    for number in 0..NAMESPACE_OBJECTS {
        let (kind, object) = create(&number.to_string());
        if number == 0 {
            let text_bytes = object.to_string().len();
            assert!((1_300_000..1_572_864).contains(&text_bytes), "{what}: {text_bytes} bytes");
            assert!(object_size(&object) > 1 << 20, "{what}");
        }
        ms.push(world.compile(vec![AnyObject::parse_limited(kind, object, LargeObjects::Reduce).unwrap()]).1);
    }
    let change = region.change();
    let bytes = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    assert_eq!(world.store.oversized.len(), NAMESPACE_OBJECTS, "{what}");

    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let spec = json!({"ingressClassName": "portico", "rules": [{"host": "other.example", "http": {"paths": [path]}}]});
    let edited = json!({"metadata": {"namespace": "other", "name": "edited"}, "spec": spec});
    let changes = world.store.apply(Batch { upserts: vec![parse(Kind::Ingress, edited)], removes: vec![] });
    let compiled = world.inputs.compile(&mut world.compiler, &world.store, &changes);
    assert!(compiled.objects_planned == 0 && compiled.verdicts_changed.len() == 1, "{what}: {compiled:?}");

    let mebibytes = bytes as f64 / f64::from(1 << 20);
    let line = format!(
        "{mebibytes:.1} MiB, {} ms in total and {} ms for one: {NAMESPACE_OBJECTS} {what}, of almost 1.5 MiB each",
        ms.iter().sum::<i64>(),
        ms.iter().max().unwrap(),
    );
    assert!(bytes <= MAX_LARGEST_BYTES, "{line}");
    line
}

/// 128 matches, each with 16 conditions on headers.
fn largest_route(name: &str) -> (Kind, Value) {
    let value = "x".repeat(700);
    let headers: Vec<Value> = (0..16).map(|number| json!({"name": format!("x{number}"), "value": value})).collect();
    let entry = |number: usize| {
        let path = json!({"type": "PathPrefix", "value": format!("/{name}/{number}")});
        json!({"path": path, "headers": headers})
    };
    let rule = |rule: usize| {
        let matches: Vec<Value> = (0..16).map(|number| entry(rule * 16 + number)).collect();
        json!({"matches": matches, "backendRefs": [{"name": "web", "port": 80}]})
    };
    let hostnames: Vec<String> = (0..16).map(|number| format!("h{number}.example")).collect();
    let spec = json!({
        "parentRefs": [{"namespace": "default", "name": "web"}],
        "hostnames": hostnames,
        "rules": (0..8).map(rule).collect::<Vec<_>>(),
    });
    (Kind::HttpRoute, json!({"metadata": metadata(name, json!({})), "spec": spec}))
}

fn ingress_with_hosts(name: &str) -> (Kind, Value) {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let rule = |number: usize| {
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        json!({"host": format!("h{number}.n{name}.example"), "http": {"paths": [path]}})
    };
    let rules: Vec<Value> = (0..9_500).map(rule).collect();
    (
        Kind::Ingress,
        json!({"metadata": metadata(name, json!({})), "spec": {"ingressClassName": "portico", "rules": rules}}),
    )
}

fn plugin_with_numbers(name: &str) -> (Kind, Value) {
    let numbers = vec![0; 700_000];
    let metadata = metadata(name, json!({}));
    (Kind::KongPlugin, json!({"plugin": "request-termination", "config": {"list": numbers}, "metadata": metadata}))
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}

fn metadata(name: &str, annotations: Value) -> Value {
    json!({"namespace": "tenant", "name": name, "annotations": annotations})
}

/// As many patterns as the schema of HTTPRoute allows: 128 matches with a path, 16 headers and 16 query parameters.
fn route_with_patterns(name: &str) -> AnyObject {
    let pattern = |number: usize| format!("{}.{{600}}", char::from(b'a' + u8::try_from(number % 26).unwrap()));
    let named =
        |number: usize| json!({"type": "RegularExpression", "name": format!("x{number}"), "value": pattern(number)});
    let matches = |rule: usize| -> Vec<Value> {
        let path = |number: usize| json!({"type": "RegularExpression", "value": format!("/{rule}/{number}/{}", pattern(number))});
        let values: Vec<Value> = (0..16).map(named).collect();
        (0..16).map(|number| json!({"path": path(number), "headers": values, "queryParams": values})).collect()
    };
    let rules: Vec<Value> =
        (0..8).map(|rule| json!({"matches": matches(rule), "backendRefs": [{"name": "web", "port": 80}]})).collect();
    let parents = json!([{"namespace": "default", "name": "web"}]);
    parse(
        Kind::HttpRoute,
        json!({"metadata": metadata(name, json!({})), "spec": {"parentRefs": parents, "rules": rules}}),
    )
}

fn aliases() -> Value {
    let names: Vec<String> = (0..30_000).map(|number| format!("a{number}.b")).collect();
    json!({"konghq.com/host-aliases": names.join(",")})
}

fn route_with_aliases(name: &str) -> AnyObject {
    let matches: Vec<Value> =
        (0..16).map(|number| json!({"path": {"type": "PathPrefix", "value": format!("/{number}")}})).collect();
    let rules: Vec<Value> =
        (0..8).map(|_| json!({"matches": matches, "backendRefs": [{"name": "web", "port": 80}]})).collect();
    let parents = json!([{"namespace": "default", "name": "web"}]);
    parse(
        Kind::HttpRoute,
        json!({"metadata": metadata(name, aliases()), "spec": {"parentRefs": parents, "rules": rules}}),
    )
}

/// An Ingress with one rule for each of the paths.
fn ingress(name: &str, annotations: Value, paths: impl IntoIterator<Item = String>) -> AnyObject {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let rule = |(number, path): (usize, String)| {
        let path = json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend});
        json!({"host": format!("h{number}.example"), "http": {"paths": [path]}})
    };
    let rules: Vec<Value> = paths.into_iter().enumerate().map(rule).collect();
    parse(
        Kind::Ingress,
        json!({"metadata": metadata(name, annotations), "spec": {"ingressClassName": "portico", "rules": rules}}),
    )
}

fn ingress_with_aliases(name: &str) -> AnyObject {
    ingress(name, aliases(), (0..5_000).map(|number| format!("/{number}")))
}

fn headers(count: usize, value: &str) -> Value {
    (0..count)
        .map(|number| (format!("konghq.com/headers.x{number}"), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn ingress_with_headers(name: &str) -> AnyObject {
    ingress(name, headers(4_000, "~*a.{600}"), ["/".to_owned()])
}

fn ingress_with_headers_and_paths(name: &str) -> AnyObject {
    ingress(name, headers(2_000, "a"), (0..5_000).map(|number| format!("/{number}")))
}

fn ingress_with_path_patterns(name: &str) -> AnyObject {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = |number: usize| json!({"path": format!("/~/{number}/a.{{600}}"), "pathType": "ImplementationSpecific", "backend": backend});
    let paths: Vec<Value> = (0..14_000).map(path).collect();
    let rules = json!([{"http": {"paths": paths}}]);
    parse(
        Kind::Ingress,
        json!({"metadata": metadata(name, json!({})), "spec": {"ingressClassName": "portico", "rules": rules}}),
    )
}
