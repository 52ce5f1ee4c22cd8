//! Edits of Ingresses and of the dialect of their class: which routes change, and which routers are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico::api::Kind;
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::snapshot::Routes;
use portico::snapshot::ingress_routes::IngressRoutes;
use portico::snapshot::router::HostRouter;
use portico::store::{AnyObject, Batch};
use serde_json::json;

use super::case::CompilerHarness;
use super::edits::parse;

fn class_of_dialect(name: &str, dialect: &str) -> AnyObject {
    let metadata = json!({"name": name, "annotations": {"portico.dev/dialect": dialect}});
    parse(Kind::IngressClass, json!({"metadata": metadata, "spec": {"controller": "portico.dev/ingress-controller"}}))
}

/// An Ingress of class `portico` with one path on one host.
fn single_path_ingress(name: &str, host: &str, path: &str) -> AnyObject {
    ingress_of_class("portico", name, host, path)
}

fn ingress_of_class(class: &str, name: &str, host: &str, path: &str) -> AnyObject {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let paths = json!([{"path": path, "pathType": "Prefix", "backend": backend}]);
    let spec = json!({"ingressClassName": class, "rules": [{"host": host, "http": {"paths": paths}}]});
    parse(Kind::Ingress, json!({"metadata": {"namespace": "a", "name": name}, "spec": spec}))
}

/// The routers of Ingresses of the dialect `kubernetes`, by host; `None` if all Ingresses have Kong's dialect.
fn routers_of_ingresses(harness: &CompilerHarness) -> Option<BTreeMap<String, Arc<HostRouter>>> {
    let routes = routes_of_dialects(harness)?;
    Some(routes.by_host.iter().map(|(host, router)| (host.to_string(), Arc::clone(router))).collect())
}

/// The routes of Ingresses; `None` if all of them have Kong's dialect.
fn routes_of_dialects(harness: &CompilerHarness) -> Option<Arc<IngressRoutes>> {
    let bind = harness.snapshot.http_binds().next().unwrap();
    let (_, listener) = bind.listeners.iter().next().unwrap();
    match &listener.routes {
        Routes::Ingresses(routes) => Some(Arc::clone(routes)),
        Routes::ByConditions(_) => None,
        Routes::ByHost(_) => panic!("an ingress listener has no routes of the Gateway API"),
    }
}

#[test]
fn class_that_changes_its_dialect_moves_its_ingresses() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let ingresses = vec![single_path_ingress("i", "i.example", "/a"), single_path_ingress("j", "j.example", "/a")];
    harness.apply(Batch { upserts: ingresses, removes: vec![] });
    for (dialect, hosts) in [
        ("kubernetes", Some(vec!["i.example", "j.example"])),
        ("kong", None),
        ("unknown", Some(vec!["i.example", "j.example"])),
        ("kubernetes", Some(vec!["i.example", "j.example"])),
    ] {
        harness.apply(Batch { upserts: vec![class_of_dialect("portico", dialect)], removes: vec![] });
        let routers = routers_of_ingresses(&harness);
        assert_eq!(routers.map(|routers| routers.into_keys().collect()), hosts.map(as_strings), "{dialect}");
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state(), "{dialect}");
    }
}

fn as_strings(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

#[test]
fn edited_ingress_keeps_the_routers_of_other_hosts() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let objects = vec![
        class_of_dialect("portico", "kubernetes"),
        single_path_ingress("i", "i.example", "/a"),
        single_path_ingress("j", "j.example", "/a"),
    ];
    harness.apply(Batch { upserts: objects, removes: vec![] });
    let before = routers_of_ingresses(&harness).unwrap();
    harness.apply(Batch { upserts: vec![single_path_ingress("i", "i.example", "/b")], removes: vec![] });
    let edited = routers_of_ingresses(&harness).unwrap();
    assert!(Arc::ptr_eq(&edited["j.example"], &before["j.example"]));
    assert!(!Arc::ptr_eq(&edited["i.example"], &before["i.example"]));
    // The Ingress moves to the host of the other one.
    harness.apply(Batch { upserts: vec![single_path_ingress("i", "j.example", "/b")], removes: vec![] });
    let moved = routers_of_ingresses(&harness).unwrap();
    assert_eq!(moved.keys().collect::<Vec<_>>(), ["j.example"]);
    assert_eq!(moved["j.example"].matches().len(), 2);
}

#[test]
fn edited_ingress_keeps_the_routers_of_the_other_dialect() {
    let mut harness =
        CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
    let objects = vec![
        class_of_dialect("portico", "kubernetes"),
        class_of_dialect("second", "kong"),
        single_path_ingress("i", "i.example", "/a"),
        ingress_of_class("second", "j", "j.example", "/a"),
    ];
    harness.apply(Batch { upserts: objects, removes: vec![] });
    let mut before = routes_of_dialects(&harness).unwrap();
    for (edited, is_router_kept, is_router_of_kong_kept) in [
        (single_path_ingress("i", "i.example", "/b"), false, true),
        (ingress_of_class("second", "j", "j.example", "/b"), true, false),
        // It leaves Kong's dialect, and returns to it.
        (single_path_ingress("j", "j.example", "/b"), true, false),
        (ingress_of_class("second", "j", "j.example", "/b"), true, false),
    ] {
        harness.apply(Batch { upserts: vec![edited], removes: vec![] });
        let after = routes_of_dialects(&harness).unwrap();
        let is_kept =
            |router: &Arc<HostRouter>| Arc::ptr_eq(router, before.by_host.most_specific("i.example").unwrap());
        assert_eq!(is_kept(after.by_host.most_specific("i.example").unwrap()), is_router_kept);
        assert_eq!(Arc::ptr_eq(&after.by_conditions, &before.by_conditions), is_router_of_kong_kept);
        assert_eq!(harness.describe_state(), harness.recompiled().describe_state());
        before = after;
    }
}
