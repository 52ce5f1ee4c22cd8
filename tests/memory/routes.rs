//! Limits what an HTTPRoute and an Ingress take, each with its own host, and an HTTPRoute of a ListenerSet. Verifies
//! that an edit of one of them costs as much among many as among few.

use portico::api::Kind;
use portico::store::AnyObject;
use serde_json::json;
use stats_alloc::Region;

use crate::ALLOCATOR;
use crate::route_world::{
    MAX_LISTENERS_PER_GATEWAY, RouteWorld, gateways, http_route, ingress, ingress_class, listener_set,
    route_of_listener_set, services,
};

const FEW: usize = 500;
/// Eight times as many, which is the fan-out of the persistent maps: so their leaves have the same size on average.
const MANY: usize = 4_000;
const ROUTES_PER_LISTENER: usize = 16;
/// Bytes per object with everything that is compiled from it, without the memory that TLS libraries allocate. The
/// limits are a fifth above the values measured when they were set.
const MAX_BYTES_PER_HTTP_ROUTE: usize = 6_420;
const MAX_BYTES_WITH_MANY_GATEWAYS: usize = 6_420;
const MAX_BYTES_PER_INGRESS: usize = 9_740;
const MAX_BYTES_PER_FOREIGN_ROUTE: usize = 1_840;

/// Bytes of one object, and of one edit of each kind.
struct Measured {
    per_object: usize,
    edits: Vec<usize>,
}

/// Returns the measured bytes as text.
pub(crate) fn check() -> String {
    let mut report = String::new();
    for (kind, measure, limit) in [
        ("HTTPRoute", http_routes as fn(usize) -> Measured, MAX_BYTES_PER_HTTP_ROUTE),
        ("HTTPRoute, with a Gateway for each listener", http_routes_of_many_gateways, MAX_BYTES_WITH_MANY_GATEWAYS),
        ("HTTPRoute of a ListenerSet", http_routes_of_listener_sets, MAX_BYTES_PER_HTTP_ROUTE),
        ("Ingress with a certificate", ingresses, MAX_BYTES_PER_INGRESS),
    ] {
        let [few, many] = [FEW, MANY].map(measure);
        report += &format!(
            "bytes per {kind}: {} among {FEW}, {} among {MANY}; allocated by one edit: {:?} and {:?}\n",
            few.per_object, many.per_object, few.edits, many.edits
        );
        assert!(many.per_object <= limit, "{report}valgrind --tool=dhat shows the allocations");
        for (few, many) in few.edits.iter().zip(&many.edits) {
            assert!(*many <= *few * 6 / 5, "{report}an edit must not cost what all objects cost");
        }
    }
    let foreign = bytes_per_foreign_route();
    report += &format!("bytes per HTTPRoute of another controller: {foreign}\n");
    assert!(foreign <= MAX_BYTES_PER_FOREIGN_ROUTE, "{report}valgrind --tool=dhat shows the allocations");
    report
}

/// What remains allocated for each HTTPRoute of another controller: the object, because its Gateway may become
/// Portico's, but nothing that is compiled from its rules.
fn bytes_per_foreign_route() -> usize {
    let class = json!({"metadata": {"name": "foreign"}, "spec": {"controllerName": "example.com/controller"}});
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let spec = json!({"gatewayClassName": "foreign", "listeners": [listener]});
    let gateway = json!({"metadata": {"namespace": "edge", "name": "foreign"}, "spec": spec});
    let route = |number: usize| {
        let rule = json!({
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"name": "service-0", "port": 80}],
        });
        let spec = json!({
            "parentRefs": [{"name": "foreign", "namespace": "edge"}],
            "hostnames": [format!("host-{number}.foreign.example.com")],
            "rules": [rule],
        });
        let metadata = json!({"namespace": "team-0", "name": format!("foreign-{number}"), "generation": 1});
        AnyObject::parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec})).unwrap()
    };
    let mut world = RouteWorld::new();
    let parse = |kind, object| AnyObject::parse(kind, object).unwrap();
    world.apply(vec![parse(Kind::GatewayClass, class), parse(Kind::Gateway, gateway)]);
    world.apply(services(FEW));
    let region = Region::new(ALLOCATOR);
    world.apply((0..FEW).map(route).collect());
    let change = region.change();
    assert_eq!(world.served_hosts(), 0, "routes of another controller are served");
    (change.bytes_allocated - change.bytes_deallocated) / FEW
}

fn http_routes(count: usize) -> Measured {
    measure_http_routes(count, MAX_LISTENERS_PER_GATEWAY)
}

/// The snapshot has a bind for each listener.
fn http_routes_of_many_gateways(count: usize) -> Measured {
    measure_http_routes(count, 1)
}

fn measure_http_routes(count: usize, per_gateway: usize) -> Measured {
    let listeners = count / ROUTES_PER_LISTENER;
    let mut world = RouteWorld::new();
    world.apply(gateways(listeners, per_gateway));
    world.apply(services(count));
    let per_object =
        bytes_per_object(&mut world, count, |_, number| vec![http_route(number, listeners, per_gateway, 0)]);
    let edit = bytes_of_edit(&mut world, |_, revision| http_route(count / 2, listeners, per_gateway, revision));
    Measured { per_object, edits: vec![edit] }
}

fn http_routes_of_listener_sets(count: usize) -> Measured {
    let sets = count / ROUTES_PER_LISTENER;
    let mut world = RouteWorld::new();
    world.apply(gateways(1, 1));
    world.apply(services(count));
    world.apply((0..sets).map(|set| listener_set(set, 0)).collect());
    let per_object = bytes_per_object(&mut world, count, |_, number| vec![route_of_listener_set(number, sets, 0)]);
    let edit = bytes_of_edit(&mut world, |_, revision| route_of_listener_set(count / 2, sets, revision));
    Measured { per_object, edits: vec![edit] }
}

fn ingresses(count: usize) -> Measured {
    let mut world = RouteWorld::new();
    world.apply(vec![ingress_class()]);
    world.apply(services(count));
    let per_object = bytes_per_object(&mut world, count, |world, number| {
        vec![world.certificates.secret(number, 0), ingress(number, 0)]
    });
    let edit = bytes_of_edit(&mut world, |_, revision| ingress(count / 2, revision));
    let renewal = bytes_of_edit(&mut world, |world, revision| world.certificates.secret(count / 2, revision));
    Measured { per_object, edits: vec![edit, renewal] }
}

/// What remains allocated for each object.
fn bytes_per_object(
    world: &mut RouteWorld,
    count: usize,
    objects: impl Fn(&RouteWorld, usize) -> Vec<AnyObject>,
) -> usize {
    let region = Region::new(ALLOCATOR);
    let all = (0..count).flat_map(|number| objects(world, number)).collect();
    world.apply(all);
    let change = region.change();
    assert_eq!(world.served_hosts(), count, "routes are missing");
    (change.bytes_allocated - change.bytes_deallocated) / count
}

/// What one edit allocates, at the median of some.
fn bytes_of_edit(world: &mut RouteWorld, object: impl Fn(&RouteWorld, usize) -> AnyObject) -> usize {
    let mut allocated: Vec<usize> = (1..=9)
        .map(|revision| {
            // The previous snapshot is kept, as by a running request, so that nothing can be changed in place.
            let previous = std::sync::Arc::clone(&world.snapshot);
            let edited = vec![object(world, revision)];
            let region = Region::new(ALLOCATOR);
            world.apply(edited);
            let change = region.change();
            drop(previous);
            change.bytes_allocated
        })
        .collect();
    allocated.sort_unstable();
    allocated[allocated.len() / 2]
}
