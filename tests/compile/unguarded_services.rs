//! Services whose own guards do not run for requests that they get: copies of mirrors, and requests for which canary or
//! route-by-header has chosen the Service.

use std::sync::Arc;

use http::{HeaderMap, Method};
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::plugin_chain::testing::TestRequest;
use portico::snapshot::router::RoutingRequest;
use portico::snapshot::rule::{Action, BackendTarget, RouteFailure, RouteRule};
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;
use super::edits::parse;

/// The plugins that choose a Service, and always choose `guarded`.
fn choosing_plugins() -> [(&'static str, Value); 2] {
    let rule = json!({"condition": {"x-region": "eu"}, "upstream_name": "guarded.a.80.svc"});
    [
        ("canary", json!({"percentage": 100, "upstream_host": "guarded.a.80.svc"})),
        ("route-by-header", json!({"rules": [rule]})),
    ]
}

fn plugin(name: &str, plugin: &str, config: &Value) -> AnyObject {
    let metadata = json!({"namespace": "a", "name": name});
    parse(Kind::KongPlugin, json!({"metadata": metadata, "plugin": plugin, "config": config}))
}

fn service(name: &str, plugins: &str) -> AnyObject {
    let metadata = json!({"namespace": "a", "name": name, "annotations": {"konghq.com/plugins": plugins}});
    parse(Kind::Service, json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}}))
}

/// A route to `shop` with these plugins, and with these filters of the rule and of its backend.
fn route(plugins: &str, filters: &Value, filters_of_backend: &Value) -> AnyObject {
    let metadata = json!({"namespace": "a", "name": "r", "annotations": {"konghq.com/plugins": plugins}});
    let backend = json!({"name": "shop", "port": 80, "filters": filters_of_backend});
    let spec = json!({"parentRefs": [{"name": "g"}], "rules": [{"filters": filters, "backendRefs": [backend]}]});
    parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec}))
}

fn plain_route(plugins: &str) -> AnyObject {
    route(plugins, &json!([]), &json!([]))
}

fn ingress(plugins: &str) -> AnyObject {
    let metadata = json!({"namespace": "a", "name": "r", "annotations": {"konghq.com/plugins": plugins}});
    let backend = json!({"service": {"name": "shop", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let spec = json!({"ingressClassName": "portico", "rules": [{"host": "shop.example", "http": {"paths": [path]}}]});
    parse(Kind::Ingress, json!({"metadata": metadata, "spec": spec}))
}

/// A class of each kind, a Gateway, the Services `shop` without plugins and `guarded` with key-auth.
fn harness() -> CompilerHarness {
    let pool = GatewayAddressPool::loopback(vec![]);
    let mut harness = CompilerHarness::new(AddressProvider::Pool(pool), AddressState::default());
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let ingress_class =
        json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
    let listeners = json!([{"name": "web", "port": 80, "protocol": "HTTP"}]);
    let spec = json!({"gatewayClassName": "portico", "listeners": listeners});
    let gateway = json!({"metadata": {"namespace": "a", "name": "g"}, "spec": spec});
    let upserts = vec![
        parse(Kind::GatewayClass, class),
        parse(Kind::IngressClass, ingress_class),
        parse(Kind::Gateway, gateway),
        plugin("keys", "key-auth", &json!({})),
        service("shop", ""),
        service("guarded", "keys"),
    ];
    harness.apply(Batch { upserts, removes: vec![] });
    harness
}

/// Puts an object. The result is the same as that of a compilation from scratch.
fn put(harness: &mut CompilerHarness, object: AnyObject) {
    harness.apply(Batch { upserts: vec![object], removes: vec![] });
    assert_eq!(harness.describe_state(), harness.recompiled().describe_state());
}

/// The only rule of the object `r` of this kind.
fn rule(harness: &CompilerHarness, kind: Kind) -> Arc<RouteRule> {
    let headers = HeaderMap::new();
    let request = RoutingRequest::plaintext("/", None, &Method::GET, &headers);
    let listeners = harness.snapshot.http_binds().flat_map(|bind| bind.listeners.iter()).map(|(_, listener)| listener);
    let mut rules =
        listeners.filter_map(|listener| Some(Arc::clone(listener.route("shop.example", &request).ok()?.rule)));
    rules.find(|rule| *rule.id.route == *format!("{kind}/a/r")).unwrap()
}

/// How requests for the Service that a plugin chooses fail.
fn failure_of_chosen(harness: &CompilerHarness, kind: Kind) -> Option<RouteFailure> {
    let rule = rule(harness, kind);
    let Action::Forward(backends) = &rule.action else { panic!("{:?}", rule.action) };
    let [chosen] = backends.chosen_by_plugins() else { panic!("{:?}", backends.chosen_by_plugins()) };
    match &chosen.target {
        BackendTarget::Fail(failure) => Some(*failure),
        BackendTarget::Upstream(_) => None,
    }
}

/// Everything that the verdict on the object `r` of this kind says.
fn said(harness: &CompilerHarness, kind: Kind) -> String {
    let verdict = &harness.compiler.verdicts()[&ObjectId::new(kind, ObjectKey::new("a", "r"))];
    let of_conditions = verdict.all_conditions().flat_map(|(_, condition)| condition.diagnostics.clone());
    of_conditions.chain(verdict.diagnostics.clone()).map(|problem| format!("{problem}\n")).collect()
}

/// Requests without a key reached a Service that accepts none, by a plugin that chooses it.
#[test]
fn plugins_choose_no_service_whose_guard_does_not_run() {
    const PROBLEM: &str = "KongPlugin/a/keys guards Service a/guarded, which a plugin chooses, and does not run for \
                           requests of the rule, so they get status 503";
    for (kind_of_plugin, config) in choosing_plugins() {
        for (kind, object) in
            [(Kind::HttpRoute, plain_route as fn(&str) -> AnyObject), (Kind::Ingress, ingress as fn(&str) -> AnyObject)]
        {
            let what = format!("{kind_of_plugin} on {kind}");
            let mut harness = harness();
            put(&mut harness, plugin("choice", kind_of_plugin, &config));
            put(&mut harness, object("choice"));
            assert_eq!(failure_of_chosen(&harness, kind), Some(RouteFailure::UnsupportedProtection), "{what}");
            assert!(said(&harness, kind).contains(PROBLEM), "{what}: {}", said(&harness, kind));
            let is_forwarded = |harness: &CompilerHarness| {
                !said(harness, kind).contains(PROBLEM) && failure_of_chosen(harness, kind).is_none()
            };
            // The guard runs for all requests of the rule.
            put(&mut harness, object("choice, keys"));
            assert!(is_forwarded(&harness), "{what}: {}", said(&harness, kind));
            // Nothing guards the Service, and something does again.
            put(&mut harness, object("choice"));
            put(&mut harness, service("guarded", ""));
            assert!(is_forwarded(&harness), "{what}: {}", said(&harness, kind));
            put(&mut harness, service("guarded", "keys"));
            assert!(!is_forwarded(&harness), "{what}");
            // It may have been a guard.
            put(&mut harness, service("guarded", "missing"));
            assert_eq!(failure_of_chosen(&harness, kind), Some(RouteFailure::UnsupportedProtection), "{what}");
            // The other plugins of the Service protect nothing.
            put(&mut harness, plugin("helper", "correlation-id", &json!({})));
            put(&mut harness, service("guarded", "helper"));
            assert!(is_forwarded(&harness), "{what}: {}", said(&harness, kind));
        }
    }
}

/// The status with which the plugins of the rule reject a request without credentials.
async fn rejection(harness: &CompilerHarness) -> Option<u16> {
    let chain = rule(harness, Kind::HttpRoute).plugins.clone()?;
    TestRequest::get("/").run(&chain).await.reply_status().map(|status| status.as_u16())
}

/// Copies of requests without a key reached a Service that accepts none.
#[tokio::test]
async fn rules_do_not_mirror_to_a_service_whose_guard_does_not_run() {
    const PROBLEM: &str = "KongPlugin/a/keys guards Service a/guarded, and does not run for copies of requests, so \
                           requests get status 503";
    let mirror = json!({"backendRef": {"name": "guarded", "port": 80}});
    let filters = json!([{"type": "RequestMirror", "requestMirror": mirror}]);
    for (field, of_rule, of_backend) in [
        ("spec.rules[0].filters[0]", &filters, &json!([])),
        ("spec.rules[0].backendRefs[0].filters[0]", &json!([]), &filters),
    ] {
        let mut harness = harness();
        put(&mut harness, route("", of_rule, of_backend));
        assert_eq!(rejection(&harness).await, Some(503), "{field}");
        let expected = format!("{field}: {PROBLEM}");
        assert!(said(&harness, Kind::HttpRoute).contains(&expected), "{}", said(&harness, Kind::HttpRoute));
        // The guard runs for all requests of the rule, and so for those that are copied.
        put(&mut harness, route("keys", of_rule, of_backend));
        assert_eq!(rejection(&harness).await, Some(401), "{field}");
        put(&mut harness, route("", of_rule, of_backend));
        put(&mut harness, service("guarded", ""));
        assert_eq!(rejection(&harness).await, None, "{field}");
        put(&mut harness, service("guarded", "keys"));
        assert_eq!(rejection(&harness).await, Some(503), "{field}");
    }
}
