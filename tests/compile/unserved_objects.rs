//! Objects of kinds that are not served: those that name a Gateway or Service of Portico are reported to their owner.

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::diagnostic::Topic;
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;

#[test]
fn objects_without_effect_name_the_gateway_and_what_does_not_happen() {
    let mut harness = harness();
    for (kind, spec, expected) in [
        (
            Kind::XTelemetryPolicy,
            json!({"targetRefs": [gateway_target("theirs"), gateway_target("web")]}),
            "spec.targetRefs[1]: XTelemetryPolicy is not served by this version, so no traces of requests to Gateway \
             default/web are sent",
        ),
        (
            Kind::XMesh,
            json!({"controllerName": "portico.dev/gateway-controller"}),
            "spec.controllerName: XMesh is not served by this version, so no mesh of controller \
             portico.dev/gateway-controller exists",
        ),
    ] {
        harness.apply(Batch { upserts: vec![object(kind, &spec)], removes: vec![] });
        let (topic, text) = report(&harness, kind).unwrap();
        assert_eq!(topic, Topic::UnservedKind, "{kind}");
        assert_eq!(text.split_once(';').unwrap().0, expected);
    }
}

fn gateway_target(name: &str) -> Value {
    json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name})
}

#[test]
fn objects_for_other_controllers_are_not_reported() {
    let mut harness = harness();
    let policy = |target: &str| object(Kind::XTelemetryPolicy, &json!({"targetRefs": [gateway_target(target)]}));
    harness.apply(Batch { upserts: vec![policy("theirs")], removes: vec![] });
    assert_eq!(report(&harness, Kind::XTelemetryPolicy), None);
    // Whose Gateway it will be is unknown.
    harness.apply(Batch { upserts: vec![policy("missing")], removes: vec![] });
    assert_eq!(report(&harness, Kind::XTelemetryPolicy).unwrap().0, Topic::Field);
    harness.apply(Batch { upserts: vec![gateway("missing", "portico")], removes: vec![] });
    assert_eq!(report(&harness, Kind::XTelemetryPolicy).unwrap().0, Topic::UnservedKind);
    harness.apply(Batch { upserts: vec![gateway("missing", "theirs")], removes: vec![] });
    assert_eq!(report(&harness, Kind::XTelemetryPolicy), None);
}

/// A policy of another controller may target the same kind of object.
#[test]
fn policies_are_reported_while_portico_sends_requests_to_their_targets() {
    let target = json!([{"group": "", "kind": "Service", "name": "shop"}]);
    let policies = [object(Kind::XTelemetryPolicy, &json!({"targetRefs": target}))];
    let backend = json!([{"backendRefs": [{"name": "shop", "port": 80}]}]);
    let route = |parent: &str| object(Kind::HttpRoute, &json!({"parentRefs": [{"name": parent}], "rules": backend}));
    let service = json!({"service": {"name": "shop", "port": {"number": 80}}});
    let ingress = object(Kind::Ingress, &json!({"ingressClassName": "portico", "defaultBackend": service}));
    let id = |object: &AnyObject| object.id();
    let steps = [
        ("nothing refers to the Service", vec![], vec![], Topic::Field),
        ("a route of another controller", vec![route("theirs")], vec![], Topic::Field),
        ("an attached route", vec![route("web")], vec![], Topic::UnservedKind),
        ("the route is deleted", vec![], vec![id(&route("web"))], Topic::Field),
        ("a served Ingress", vec![ingress.clone()], vec![], Topic::UnservedKind),
        ("a route, too", vec![route("web")], vec![], Topic::UnservedKind),
        ("only the Ingress", vec![], vec![id(&route("web"))], Topic::UnservedKind),
        ("neither", vec![], vec![id(&ingress)], Topic::Field),
    ];
    let mut harness = harness();
    harness.apply(Batch { upserts: policies.to_vec(), removes: vec![] });
    for (step, upserts, removes, expected) in steps {
        harness.apply(Batch { upserts, removes });
        for policy in &policies {
            assert_eq!(report(&harness, policy.kind()).unwrap().0, expected, "{step}: {}", policy.kind());
            assert_eq!(report(&harness, policy.kind()), report(&harness.recompiled(), policy.kind()), "{step}");
        }
    }
}

/// The topic and the text of the diagnostic on the object of a kind.
fn report(harness: &CompilerHarness, kind: Kind) -> Option<(Topic, String)> {
    let namespace = if kind.namespaced() { "default" } else { "" };
    let verdict = harness.compiler.verdicts().get(&ObjectId::new(kind, ObjectKey::new(namespace, "shop")))?;
    assert!(verdict.diagnostics.len() < 2, "{:?}", verdict.diagnostics);
    verdict.diagnostics.first().map(|diagnostic| (diagnostic.topic, diagnostic.to_string()))
}

/// Gateway `web` of Portico, and Gateway `theirs` of another controller.
fn harness() -> CompilerHarness {
    let provider = AddressProvider::Pool(GatewayAddressPool::loopback(vec![]));
    let mut harness = CompilerHarness::new(provider, AddressState::default());
    let class = |name: &str, controller: &str| {
        let object = json!({"metadata": {"name": name}, "spec": {"controllerName": controller}});
        AnyObject::parse(Kind::GatewayClass, object).unwrap()
    };
    harness.apply(Batch {
        upserts: vec![
            class("portico", "portico.dev/gateway-controller"),
            class("theirs", "example.com/controller"),
            gateway("web", "portico"),
            gateway("theirs", "theirs"),
            object(Kind::Service, &json!({"ports": [{"port": 80}]})),
        ],
        removes: vec![],
    });
    harness
}

fn gateway(name: &str, class: &str) -> AnyObject {
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let spec = json!({"gatewayClassName": class, "listeners": listeners});
    AnyObject::parse(Kind::Gateway, json!({"metadata": {"namespace": "default", "name": name}, "spec": spec})).unwrap()
}

/// An object of this name, which is the only one of its kind.
fn object(kind: Kind, spec: &Value) -> AnyObject {
    let namespace = if kind.namespaced() { "default" } else { "" };
    let metadata = json!({"namespace": namespace, "name": "shop"});
    AnyObject::parse(kind, json!({"metadata": metadata, "spec": spec})).unwrap()
}
