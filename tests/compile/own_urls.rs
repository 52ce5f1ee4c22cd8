//! Redirect URIs of openid-connect: a warning says if no route with the plugin serves one, and if its https contradicts
//! the listeners, as long as the objects are so.

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;
use super::edits::parse;

fn gateway(listeners: &Value) -> AnyObject {
    let spec = json!({"gatewayClassName": "portico", "listeners": listeners});
    parse(Kind::Gateway, json!({"metadata": {"namespace": "a", "name": "g"}, "spec": spec}))
}

fn plain_listener() -> Value {
    json!([{"name": "web", "port": 80, "protocol": "HTTP"}])
}

/// A route for these paths. `plugin`: whether it has the plugin.
fn route(name: &str, path: &str, plugin: bool) -> AnyObject {
    let annotations = if plugin { json!({"konghq.com/plugins": "login"}) } else { json!({}) };
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": "s", "port": 80}],
    });
    let spec = json!({"parentRefs": [{"name": "g"}], "hostnames": ["shop.example"], "rules": [rule]});
    let metadata = json!({"namespace": "a", "name": name, "annotations": annotations});
    parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec}))
}

fn login(redirect_uri: &str) -> AnyObject {
    let config = json!({
        "issuer": "https://login.example", "client_id": ["shop"], "client_secret": ["s"], "redirect_uri": [redirect_uri],
        "session_secret": "0123456789abcdef0123456789abcdef", "audience_required": ["shop"],
    });
    let plugin = json!({"metadata": {"namespace": "a", "name": "login"}, "plugin": "openid-connect", "config": config});
    parse(Kind::KongPlugin, plugin)
}

fn harness() -> CompilerHarness {
    let pool = GatewayAddressPool::loopback(vec![]);
    let mut harness = CompilerHarness::new(AddressProvider::Pool(pool), AddressState::default());
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let ports = json!({"ports": [{"name": "web", "port": 80}]});
    let service = json!({"metadata": {"namespace": "a", "name": "s"}, "spec": ports});
    let upserts = vec![parse(Kind::GatewayClass, class), parse(Kind::Service, service), gateway(&plain_listener())];
    harness.apply(Batch { upserts, removes: vec![] });
    harness
}

fn put(harness: &mut CompilerHarness, object: AnyObject) {
    harness.apply(Batch { upserts: vec![object], removes: vec![] });
}

fn warnings(harness: &CompilerHarness) -> Vec<String> {
    let id = ObjectId::new(Kind::KongPlugin, ObjectKey::new("a", "login"));
    let verdict = &harness.compiler.verdicts()[&id];
    assert!(verdict.diagnostics.iter().all(|diagnostic| !diagnostic.is_error()));
    verdict.diagnostics.iter().map(ToString::to_string).collect()
}

const UNSERVED: &str = "config.redirect_uri[0]: no route with this plugin serves ";

#[test]
fn redirect_uri_that_no_route_with_the_plugin_serves_is_reported() {
    let mut harness = harness();
    put(&mut harness, login("https://shop.example/callback"));
    assert_eq!(warnings(&harness), [] as [String; 0], "nothing refers to the plugin");
    put(&mut harness, route("app", "/app", true));
    let found = warnings(&harness);
    assert!(found.len() == 1 && found[0].starts_with(UNSERVED), "{found:?}");
    assert!(found[0].contains("https://shop.example/callback, so each login ends there"), "{found:?}");
    // Another route serves the path.
    put(&mut harness, route("callback", "/callback", false));
    assert!(warnings(&harness)[0].starts_with(UNSERVED));
    put(&mut harness, route("callback", "/callback", true));
    assert_eq!(warnings(&harness), [] as [String; 0]);
    // A more specific one takes it.
    put(&mut harness, route("other", "/callback/", false));
    assert_eq!(warnings(&harness), [] as [String; 0]);
    harness.apply(Batch {
        upserts: vec![],
        removes: vec![ObjectId::new(Kind::HttpRoute, ObjectKey::new("a", "callback"))],
    });
    assert!(warnings(&harness)[0].starts_with(UNSERVED));
    for (uri, is_served) in [
        ("https://shop.example/app/callback", true),
        ("https://SHOP.example:8443/app/%63allback", true),
        ("https://shop.example/apps", false),
        ("https://other.example/app/callback", false),
    ] {
        put(&mut harness, login(uri));
        assert_eq!(warnings(&harness).is_empty(), is_served, "{uri}: {:?}", warnings(&harness));
    }
}

#[test]
fn https_redirect_uri_of_a_listener_that_is_not_told_of_tls_is_reported() {
    for (uri, has_trusted_peers, is_reported) in [
        ("https://shop.example/app", false, true),
        ("https://shop.example/app", true, false),
        ("http://shop.example/app", false, false),
    ] {
        let mut harness = harness();
        harness.inputs.plugin_factory.has_trusted_peers = has_trusted_peers;
        put(&mut harness, route("app", "/app", true));
        put(&mut harness, login(uri));
        let found = warnings(&harness);
        assert_eq!(found.iter().any(|warning| warning.contains("without Secure")), is_reported, "{uri}: {found:?}");
        assert_eq!(found.len(), usize::from(is_reported), "{found:?}");
    }
}
