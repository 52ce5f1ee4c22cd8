//! Routes of other controllers, whose rules are not translated, and routes that no listener accepts.

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::store::{AnyObject, Batch};
use portico::verdict::Verdict;
use serde_json::{Value, json};

use super::case::CompilerHarness;

#[test]
fn rules_of_routes_of_other_controllers_are_not_translated() {
    let mut harness = harness();
    for parent in ["theirs", "missing"] {
        for kind in [Kind::HttpRoute, Kind::TcpRoute, Kind::TlsRoute] {
            harness.apply(Batch { upserts: vec![route(kind, parent)], removes: vec![] });
            let verdict = verdict(&harness, kind);
            assert!(verdict.parents.is_empty(), "{kind} {parent}: {:?}", verdict.parents);
            // Whether a missing Gateway will be of this process is unknown, so that is reported, and nothing else.
            let fields: Vec<_> = verdict.diagnostics.iter().map(|diagnostic| diagnostic.field.as_str()).collect();
            let expected: &[&str] = if parent == "missing" { &["spec.parentRefs[0].name"] } else { &[] };
            assert_eq!(fields, expected, "{kind} {parent}");
        }
    }
    // Endpoints are built for used upstreams only, and DNS names are resolved for them only.
    assert!(!has_upstream(&harness), "{}", harness.describe_state());
}

#[test]
fn upstreams_of_a_rejected_route_are_built_when_a_listener_accepts_it() {
    let mut harness = harness();
    harness.apply(Batch { upserts: vec![route(Kind::HttpRoute, "closed")], removes: vec![] });
    let rejected = verdict(&harness, Kind::HttpRoute);
    let conditions = |verdict: &Verdict| -> Vec<&'static str> {
        verdict
            .parents
            .iter()
            .flat_map(|parent| &parent.conditions)
            .map(|condition| condition.code.condition())
            .collect()
    };
    assert_eq!(conditions(&rejected), ["Accepted", "ResolvedRefs"]);
    assert!(!has_upstream(&harness));
    harness.apply(Batch { upserts: vec![gateway("closed", "portico", "Same")], removes: vec![] });
    let accepted = verdict(&harness, Kind::HttpRoute);
    assert_eq!(conditions(&accepted), ["Accepted", "ResolvedRefs", "PartiallyInvalid"]);
    assert!(has_upstream(&harness));
}

/// Whether the Service of the routes has an upstream.
fn has_upstream(harness: &CompilerHarness) -> bool {
    harness.describe_state().contains("default/web:80")
}

/// Gateways `theirs` of another controller, and `closed`, whose listener accepts no route of the namespace.
fn harness() -> CompilerHarness {
    let provider = AddressProvider::Pool(GatewayAddressPool::loopback(vec![]));
    let mut harness = CompilerHarness::new(provider, AddressState::default());
    let class = |name: &str, controller: &str| {
        parse(Kind::GatewayClass, json!({"metadata": {"name": name}, "spec": {"controllerName": controller}}))
    };
    let service = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"ports": [{"port": 80}]}});
    harness.apply(Batch {
        upserts: vec![
            class("portico", "portico.dev/gateway-controller"),
            class("theirs", "example.com/controller"),
            gateway("theirs", "theirs", "Same"),
            gateway("closed", "portico", "Selector"),
            parse(Kind::Service, service),
        ],
        removes: vec![],
    });
    harness
}

fn gateway(name: &str, class: &str, from: &str) -> AnyObject {
    let namespaces = match from {
        "Selector" => json!({"from": from, "selector": {"matchLabels": {"no": "such"}}}),
        _ => json!({"from": from}),
    };
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": namespaces}});
    let spec = json!({"gatewayClassName": class, "listeners": [listener]});
    parse(Kind::Gateway, json!({"metadata": {"namespace": "default", "name": name}, "spec": spec}))
}

/// A route with a backend, an invalid annotation, and for HTTP, an invalid regular expression.
fn route(kind: Kind, parent: &str) -> AnyObject {
    let metadata = json!({
        "namespace": "default",
        "name": "shop",
        "annotations": {"konghq.com/strip-path": "perhaps", "konghq.com/host-aliases": "a.example:80"},
    });
    let backends = json!([{"name": "web", "port": 80}]);
    let invalid = json!([{"path": {"type": "RegularExpression", "value": "("}}]);
    let rules = match kind {
        Kind::HttpRoute => json!([{"matches": invalid, "backendRefs": backends}, {"backendRefs": backends}]),
        _ => json!([{"backendRefs": backends}]),
    };
    parse(kind, json!({"metadata": metadata, "spec": {"parentRefs": [{"name": parent}], "rules": rules}}))
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}

fn verdict(harness: &CompilerHarness, kind: Kind) -> Verdict {
    let id = ObjectId::new(kind, ObjectKey::new("default", "shop"));
    Verdict::clone(&harness.compiler.verdicts()[&id])
}
