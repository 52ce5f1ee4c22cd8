//! Rules whose backend a plugin replaces, such as by a function: what the rule cannot have then makes it invalid, and
//! further plugins of this kind are reported.

use http::{HeaderMap, Method};
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::snapshot::router::RoutingRequest;
use portico::snapshot::rule::{Action, RouteFailure};
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;
use super::edits::parse;

fn plugin(name: &str, plugin: &str, config: &Value) -> AnyObject {
    let metadata = json!({"namespace": "a", "name": name});
    parse(Kind::KongPlugin, json!({"metadata": metadata, "plugin": plugin, "config": config}))
}

/// A route with these plugins, whose first rule has these fields. The second one keeps the route valid.
fn compiled(plugins: &str, fields: &Value) -> CompilerHarness {
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let listeners = json!([{"name": "web", "port": 80, "protocol": "HTTP"}]);
    let gateway = json!({"gatewayClassName": "portico", "listeners": listeners});
    let api = json!({
        "openapi": "3.1.0", "paths": {"/": {"get": {"responses": {"200": {"description": "ok"}}}}},
    });
    let mut rule = json!({"backendRefs": [{"name": "s", "port": 80}]});
    rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let metadata = json!({"namespace": "a", "name": "r", "annotations": {"konghq.com/plugins": plugins}});
    let other = json!({"matches": [{"path": {"type": "PathPrefix", "value": "/other"}}]});
    let spec = json!({"parentRefs": [{"name": "g"}], "rules": [rule, other]});
    let service = json!({"metadata": {"namespace": "a", "name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let pool = GatewayAddressPool::loopback(vec![]);
    let mut harness = CompilerHarness::new(AddressProvider::Pool(pool), AddressState::default());
    let upserts = vec![
        parse(Kind::GatewayClass, class),
        parse(Kind::Gateway, json!({"metadata": {"namespace": "a", "name": "g"}, "spec": gateway})),
        parse(Kind::Service, service),
        plugin("mock", "mocking", &json!({"api_specification": api.to_string()})),
        plugin("function", "azure-functions", &json!({"appname": "shop", "functionname": "invoices"})),
        parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec})),
    ];
    harness.apply(Batch { upserts, removes: vec![] });
    harness
}

/// How requests of the first rule fail. `None` if they are forwarded.
fn failure(harness: &CompilerHarness) -> Option<RouteFailure> {
    let headers = HeaderMap::new();
    let request = RoutingRequest::plaintext("/", None, &Method::GET, &headers);
    let mut listeners = harness.snapshot.http_binds().flat_map(|bind| bind.listeners.iter());
    let matched = listeners.find_map(|(_, listener)| listener.route("a.example", &request).ok()).unwrap();
    match &matched.rule.action {
        Action::Fail(failure) => Some(*failure),
        Action::Forward(_) => None,
        Action::Redirect(redirect) => panic!("{redirect:?}"),
    }
}

/// Everything that the verdict on the route says.
fn said(harness: &CompilerHarness) -> String {
    format!("{:?}", harness.compiler.verdicts()[&ObjectId::new(Kind::HttpRoute, ObjectKey::new("a", "r"))])
}

/// Mirrors, timeouts and retries of a rule had no effect in front of a function, and nothing said so.
#[test]
fn rules_with_what_cannot_apply_in_front_of_a_function_are_not_served() {
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s", "port": 80}}});
    let header = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-internal"]}});
    for (fields, field) in [
        (json!({}), None),
        (json!({"filters": [header]}), None),
        (json!({"filters": [header, mirror]}), Some("spec.rules[0].filters[1]")),
        (json!({"timeouts": {"request": "5s"}}), Some("spec.rules[0].timeouts")),
        (json!({"retry": {"codes": [503]}}), Some("spec.rules[0].retry")),
    ] {
        for plugin in ["mock", "function"] {
            let harness = compiled(plugin, &fields);
            let expected = field.map(|_| RouteFailure::Unsupported);
            assert_eq!(failure(&harness), expected, "{plugin} {fields}: {}", said(&harness));
            let is_reported = said(&harness).contains("takes the place of the backend, so");
            assert_eq!(is_reported, field.is_some(), "{plugin} {fields}: {}", said(&harness));
            assert!(field.is_none_or(|field| said(&harness).contains(field)), "{plugin}: {}", said(&harness));
        }
        // Without such a plugin, the same is in effect.
        let harness = compiled("", &fields);
        assert_eq!(failure(&harness), None, "{fields}: {}", said(&harness));
        assert!(!said(&harness).contains("takes the place of the backend"), "{fields}: {}", said(&harness));
    }
}

#[test]
fn further_plugins_that_would_replace_the_backend_are_reported() {
    const FIRST: &str = "takes the place of the backend first, so";
    for (plugins, is_reported) in [("mock", false), ("function", false), ("mock, function", true)] {
        let harness = compiled(plugins, &json!({}));
        assert_eq!(said(&harness).contains(FIRST), is_reported, "{plugins}: {}", said(&harness));
        assert_eq!(failure(&harness), None, "{plugins}: the first one responds");
    }
}
