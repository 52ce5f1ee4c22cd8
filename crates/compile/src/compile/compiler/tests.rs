//! What an edit plans and updates, and what it does not.

use serde_json::{Value, json};

use super::*;
use crate::api::Kind;
use crate::compile::Compiled;
use crate::compile::addressable_gateways;
use crate::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use crate::compile::testing::TestInputs;
use crate::plugin_api::PluginRegistry;
use crate::store::{AnyObject, Batch, Store, VISITED_DEPENDENTS};

struct World {
    store: Store,
    inputs: TestInputs,
    compiler: Compiler,
    address_state: AddressState,
}

impl World {
    fn new(objects: Vec<AnyObject>) -> World {
        let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
        let (store, address_state) = (Store::default(), AddressState::default());
        let mut world = World { store, inputs, compiler: Compiler::default(), address_state };
        let class = json!({"metadata": {"name": "c"}, "spec": {"controllerName": world.inputs.controllers[0]}});
        world.apply(vec![AnyObject::parse(Kind::GatewayClass, class).unwrap()]);
        world.apply(objects);
        world
    }

    fn apply(&mut self, upserts: Vec<AnyObject>) -> Compiled {
        let mut changes = self.store.apply(Batch { upserts, removes: vec![] });
        let provider = AddressProvider::Pool(GatewayAddressPool::loopback(vec![]));
        let gateways = addressable_gateways(&self.store, &self.inputs.controllers);
        let gateways: Vec<_> = gateways.collect();
        let readdressed = self.inputs.addresses.assign(&provider, &self.address_state, gateways.into_iter());
        changes.extend(readdressed.into_iter().map(|key| ObjectId::new(Kind::Gateway, key)));
        self.inputs.compile(&mut self.compiler, &self.store, &changes)
    }
}

fn object(kind: Kind, name: &str, spec: &Value) -> AnyObject {
    AnyObject::parse(kind, json!({"metadata": {"namespace": "a", "name": name}, "spec": spec})).unwrap()
}

fn gateway(name: &str, listeners: Value, annotation: &str) -> AnyObject {
    let infrastructure = json!({"annotations": {"note": annotation}});
    let spec = json!({"gatewayClassName": "c", "listeners": listeners, "infrastructure": infrastructure});
    let object = json!({"metadata": {"namespace": "a", "name": name, "generation": annotation.len()}, "spec": spec});
    AnyObject::parse(Kind::Gateway, object).unwrap()
}

#[test]
fn gateway_changes_plan_only_routes_that_can_see_them() {
    let listeners = |hostname: &str, from: &str| {
        let allowed = json!({"namespaces": {"from": from}});
        json!([
            {"name": "x", "port": 80, "protocol": "HTTP", "hostname": hostname},
            {"name": "y", "port": 81, "protocol": "HTTP", "allowedRoutes": allowed},
        ])
    };
    let route = |name: &str, section: Value| {
        object(Kind::HttpRoute, name, &json!({"parentRefs": [{"name": "g", "sectionName": section}]}))
    };
    let mut world = World::new(vec![
        gateway("g", listeners("x.example", "Same"), "1"),
        route("to-x", json!("x")),
        route("to-y", json!("y")),
        route("to-both", Value::Null),
    ]);
    // The Gateway is planned, and this number of routes.
    for (hostname, from, annotation, routes) in [
        ("x.example", "Same", "22", 0),
        ("x.example", "All", "22", 2),
        ("z.example", "All", "22", 3),
        ("z.example", "All", "333", 0),
    ] {
        let compiled = world.apply(vec![gateway("g", listeners(hostname, from), annotation)]);
        assert_eq!(compiled.objects_planned, 1 + routes, "{hostname} {from} {annotation}");
    }
}

/// A Gateway may have thousands of ListenerSets, whose owners edit them independently.
#[test]
fn edits_of_listener_sets_plan_only_their_routes() {
    let set = |index: usize, hostname: &str, from: &str| {
        let allowed = json!({"namespaces": {"from": from}});
        let listener = json!({"name": "x", "port": 80, "protocol": "HTTP", "hostname": hostname,
            "allowedRoutes": allowed});
        let spec = json!({"parentRef": {"name": "g"}, "listeners": [listener]});
        object(Kind::ListenerSet, &format!("s{index:02}"), &spec)
    };
    let route = |index: usize| {
        let parent = json!({"kind": "ListenerSet", "name": format!("s{index:02}")});
        object(Kind::HttpRoute, &format!("r{index:02}"), &json!({"parentRefs": [parent]}))
    };
    let listener = json!({"name": "x", "port": 80, "protocol": "HTTP", "hostname": "g.example"});
    let spec = json!({"gatewayClassName": "c", "listeners": [listener],
        "allowedListeners": {"namespaces": {"from": "Same"}}});
    let mut objects = vec![object(Kind::Gateway, "g", &spec)];
    objects.extend((0..50).flat_map(|index| [set(index, &format!("h{index}.example"), "Same"), route(index)]));
    let mut world = World::new(objects);
    for (hostname, from, planned) in [
        ("new.example", "Same", 2),
        ("new.example", "All", 2),
        ("new.example", "All", 0),
        // It conflicts with s03, which keeps the hostname: a conflict is no difference that routes can see.
        ("h3.example", "All", 2),
        // s07, which comes later in the order of names, loses its hostname.
        ("h7.example", "All", 3),
    ] {
        let compiled = world.apply(vec![set(5, hostname, from)]);
        assert_eq!(compiled.objects_planned, planned, "{hostname} {from}");
    }
}

/// As in Kubernetes, where an empty selector matches everything and an absent one nothing.
#[test]
fn listeners_without_a_selector_admit_no_route() {
    for (selector, is_attached) in [(Value::Null, false), (json!({}), true)] {
        let allowed = json!({"namespaces": {"from": "Selector", "selector": selector}});
        let listener = json!({"name": "x", "port": 80, "protocol": "HTTP", "allowedRoutes": allowed});
        let namespace = AnyObject::parse(Kind::Namespace, json!({"metadata": {"name": "a"}})).unwrap();
        let route = object(Kind::HttpRoute, "r", &json!({"parentRefs": [{"name": "g"}]}));
        let id = route.id();
        let world = World::new(vec![namespace, gateway("g", json!([listener]), ""), route]);
        assert_eq!(!world.compiler.routes.plans[&id].attachments.is_empty(), is_attached, "{selector}");
    }
}

#[test]
fn gateways_with_other_ports_are_not_planned() {
    let listeners = |port: u16| json!([{"name": "x", "port": port, "protocol": "HTTP"}]);
    let mut world =
        World::new((0..50).map(|index| gateway(&format!("g{index:02}"), listeners(1000 + index), "")).collect());
    assert_eq!(world.apply(vec![gateway("g07", listeners(2000), "")]).objects_planned, 1);
    // A port that another Gateway has, at another address.
    assert!(world.apply(vec![gateway("g07", listeners(1008), "")]).objects_planned <= 2);
    assert_eq!(world.apply(vec![gateway("new", listeners(3000), "")]).objects_planned, 1);
}

/// Otherwise, an edit of one of many routes with the same plugin costs as much as there are such routes.
#[test]
fn edits_of_plugin_referrers_do_not_look_at_the_others() {
    let route = |index: usize, path: &str| {
        let metadata = json!({"namespace": "a", "name": format!("r{index}"),
            "annotations": {"konghq.com/plugins": "p"}});
        let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}]});
        let spec = json!({"parentRefs": [{"name": "g"}], "rules": [rule]});
        AnyObject::parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec})).unwrap()
    };
    let visited_by_edit = |routes: usize| {
        let plugin = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "cors"});
        let listener = json!({"name": "x", "port": 80, "protocol": "HTTP"});
        let mut objects: Vec<_> = (0..routes).map(|index| route(index, "/")).collect();
        objects.push(AnyObject::parse(Kind::KongPlugin, plugin).unwrap());
        objects.push(gateway("g", json!([listener]), ""));
        let mut world = World::new(objects);
        let before = VISITED_DEPENDENTS.get();
        assert_eq!(world.apply(vec![route(7, "/changed")]).objects_planned, 1);
        VISITED_DEPENDENTS.get() - before
    };
    assert_eq!(visited_by_edit(20), visited_by_edit(200));
}

#[test]
fn changed_replicas_update_only_services_with_their_addresses() {
    let backend = |name: &str| json!({"name": name, "port": 80});
    let slice = |name: &str, ip: &str| {
        let metadata = json!({"namespace": "a", "name": name, "labels": {"kubernetes.io/service-name": name}});
        let endpoints = json!([{"addresses": [ip]}]);
        let ports = json!([{"name": "", "port": 80}]);
        let object = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        AnyObject::parse(Kind::EndpointSlice, object).unwrap()
    };
    let service = |name: &str| object(Kind::Service, name, &json!({"ports": [{"port": 80}]}));
    let spec = json!({"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [backend("s"), backend("t")]}]});
    let mut world = World::new(vec![
        gateway("g", json!([{"name": "x", "port": 80, "protocol": "HTTP"}]), ""),
        object(Kind::HttpRoute, "r", &spec),
        service("s"),
        service("t"),
        slice("s", "10.0.0.1"),
        slice("t", "10.0.0.2"),
    ]);
    for (replicas, updated) in [(vec!["10.0.0.1"], vec!["s"]), (vec!["10.0.0.2", "10.0.0.3"], vec!["s", "t"])] {
        world.address_state.replica_addresses = replicas.iter().map(|ip| ip.parse().unwrap()).collect();
        let compiled = world.apply(vec![]);
        let services: Vec<_> = compiled.endpoints.keys().map(|upstream| &*upstream.service).collect();
        assert_eq!((services, compiled.objects_planned), (updated, 0), "{replicas:?}");
    }
}

/// The process learns its zone when its Pod is in the EndpointSlice of its Service, after it has started.
#[test]
fn endpoints_get_levels_when_the_own_zone_is_known() {
    let slice = |namespace: &str, name: &str, endpoints: Value| {
        let metadata = json!({"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": name}});
        let ports = json!([{"name": "", "port": 80}]);
        let object = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        AnyObject::parse(Kind::EndpointSlice, object).unwrap()
    };
    let at = |ip: &str, zone: &str| json!({"addresses": [ip], "zone": zone});
    let service = |name: &str, distribution: Value| {
        object(Kind::Service, name, &json!({"ports": [{"port": 80}], "trafficDistribution": distribution}))
    };
    let backends = json!([{"name": "near", "port": 80}, {"name": "any", "port": 80}]);
    let mut world = World::new(vec![]);
    world.compiler.set_machine_addresses(["10.9.0.1".parse().unwrap()].into());
    world.compiler.set_location(Some("portico-system".into()), ProcessLocation::default());
    let compiled = world.apply(vec![
        gateway("g", json!([{"name": "x", "port": 80, "protocol": "HTTP"}]), ""),
        object(Kind::HttpRoute, "r", &json!({"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": backends}]})),
        service("near", json!("PreferSameZone")),
        service("any", Value::Null),
        slice("a", "near", json!([at("10.0.0.1", "z1"), at("10.0.0.2", "z2")])),
        slice("a", "any", json!([at("10.0.0.1", "z1"), at("10.0.0.2", "z2")])),
    ]);
    let levels = |compiled: &Compiled| -> Vec<(String, Vec<u8>)> {
        let levels = |endpoints: &Endpoints| endpoints.levels.iter().map(|(_, level)| *level).collect();
        compiled.endpoints.iter().map(|(key, endpoints)| (key.service.to_string(), levels(endpoints))).collect()
    };
    let none = [("any".to_owned(), vec![]), ("near".to_owned(), vec![])];
    assert_eq!(levels(&compiled), none, "the zone is unknown");
    assert!(world.apply(vec![slice("portico-system", "portico", json!([at("10.9.0.2", "z1")]))]).endpoints.is_empty());
    let own_slice = || slice("portico-system", "portico", json!([at("10.9.0.2", "z1"), at("10.9.0.1", "z2")]));
    let compiled = world.apply(vec![own_slice()]);
    assert_eq!(levels(&compiled), [("any".to_owned(), vec![]), ("near".to_owned(), vec![6, 1])]);
    assert!(world.apply(vec![own_slice()]).endpoints.is_empty(), "nothing has changed");
    let compiled = world.apply(vec![service("near", Value::Null)]);
    assert_eq!(levels(&compiled), [("near".to_owned(), vec![])]);
}

/// An edit of the order changes the levels, and neither routes nor routers.
#[test]
fn endpoints_get_the_levels_of_their_policy() {
    let at = |ip: &str, zone: &str| json!({"addresses": [ip], "zone": zone});
    let metadata = json!({"namespace": "a", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}});
    let slice = json!({
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [at("10.0.0.1", "n-1a"), at("10.0.0.2", "n-1b"), at("10.0.0.3", "n-1c"), at("10.0.0.4", "s-1a")],
        "ports": [{"name": "", "port": 80}],
    });
    let policy = |failover: Value| {
        let target_refs = json!([{"group": "", "kind": "Service", "name": "s"}]);
        let locality = json!({"mode": "PreferSameZone", "failover": failover});
        let spec = json!({"targetRefs": target_refs, "loadBalancing": {"locality": locality}});
        object(Kind::BackendPolicy, "p", &spec)
    };
    let backends = json!([{"name": "s", "port": 80}]);
    let mut world = World::new(vec![]);
    let location = ProcessLocation { zone: Some("n-1a".into()), node: None };
    world.compiler.set_location(None, location);
    let levels = |compiled: &Compiled| -> Vec<u8> {
        compiled.endpoints.values().flat_map(|endpoints| endpoints.levels.iter().map(|(_, level)| *level)).collect()
    };
    let compiled = world.apply(vec![
        gateway("g", json!([{"name": "x", "port": 80, "protocol": "HTTP"}]), ""),
        object(Kind::HttpRoute, "r", &json!({"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": backends}]})),
        object(Kind::Service, "s", &json!({"ports": [{"port": 80}]})),
        AnyObject::parse(Kind::EndpointSlice, slice).unwrap(),
        policy(json!([{"zone": "n-1c"}, {"region": "n-1"}])),
    ]);
    assert_eq!(levels(&compiled), [1, 3, 2, 6]);
    let compiled = world.apply(vec![policy(json!([{"region": "s-1"}]))]);
    assert_eq!((levels(&compiled), compiled.objects_planned), (vec![1, 6, 6, 2], 0));
}
