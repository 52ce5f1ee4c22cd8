//! Limits what an endpoint takes, of Services with many and with few: the object, and the state that requests use.

use portico::api::Kind;
use portico::store::AnyObject;
use serde_json::json;
use stats_alloc::Region;

use crate::ALLOCATOR;
use crate::route_world::{RouteWorld, gateways, http_route, services};

/// The routes of one Service.
const ROUTES: usize = 50;
/// Kubernetes writes as many into a slice.
const ENDPOINTS_PER_SLICE: usize = 100;
const SLICES: usize = 100;
/// Bytes per endpoint: of its object, of what is compiled from it, and of its state.
const MAX_BYTES_PER_ENDPOINT: usize = 512;

/// Returns the measured bytes as text.
pub(crate) fn check() -> String {
    let mut world = RouteWorld::new();
    world.apply(gateways(1, 1));
    world.apply(services(ROUTES));
    world.apply((0..ROUTES).map(|number| http_route(number, 1, 1, 0)).collect());
    let endpoints_before = reachable_endpoints(&world);
    let region = Region::new(ALLOCATOR);
    world.apply((0..SLICES).map(slice).collect());
    let change = region.change();
    let added = reachable_endpoints(&world) - endpoints_before;
    assert_eq!(added, SLICES * ENDPOINTS_PER_SLICE, "endpoints are missing");
    let per_endpoint = (change.bytes_allocated - change.bytes_deallocated) / added;
    let report = format!("bytes per endpoint: {per_endpoint}");
    assert!(per_endpoint <= MAX_BYTES_PER_ENDPOINT, "{report}; valgrind --tool=dhat shows the allocations");
    report
}

/// A slice of the Service of the first routes, as Kubernetes writes it for Pods.
fn slice(number: usize) -> AnyObject {
    let endpoint = |last: usize| {
        let pod = format!("service-0-5d8f7c9b6d-{number:02}{last:03}");
        let uid = format!("0d3c1a52-7b1e-4f0a-9c55-{number:06}{last:06}");
        json!({
            "addresses": [format!("10.2.{number}.{last}")],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", last % 10),
            "targetRef": {"kind": "Pod", "namespace": "team-0", "name": pod, "uid": uid},
            "zone": "zone-a",
        })
    };
    let metadata = json!({
        "namespace": "team-0",
        "name": format!("service-0-{number}"),
        "generation": 1,
        "labels": {"kubernetes.io/service-name": "service-0"},
    });
    let endpoints: Vec<_> = (1..=ENDPOINTS_PER_SLICE).map(endpoint).collect();
    let slice = json!({
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    });
    AnyObject::parse(Kind::EndpointSlice, slice).unwrap()
}

/// The endpoints of all upstreams to which requests can be sent.
fn reachable_endpoints(world: &RouteWorld) -> usize {
    world.inputs.upstreams.all().iter().map(|upstream| upstream.reachable().len()).sum()
}
