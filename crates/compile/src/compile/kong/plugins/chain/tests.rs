//! Tests of the chains of rules.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::api::{Kind, Meta, ObjectKey};
use crate::compile::kong::plugins::ChoiceSettings;
use crate::compile::kong::service_annotations;
use crate::compile::parents::plans::ParentPlans;
use crate::compile::testing::TestInputs;
use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::TrustAnchors;
use crate::plugin_api::{self, BuildCx, Phases, Plugin, PluginKinds, PluginRegistry, RegisteredKind, Scopes};
use crate::plugin_chain::testing;
use crate::ssrf_guard::{AddressPolicy, AddressSources, TrustModel};
use crate::store::{AnyObject, Batch, Store};
use crate::upstream::UpstreamRegistry;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// A plugin that may be a guard, and may be attached to routes.
struct TestPlugin<const IS_GUARD: bool, const FITS_ROUTES: bool>;

/// A guard for services, but not for routes.
type ServiceGuard = TestPlugin<true, false>;
/// The same, but not a guard.
type ServiceHelper = TestPlugin<false, false>;
/// A guard that can be attached everywhere.
type AnywhereGuard = TestPlugin<true, true>;

impl<const IS_GUARD: bool, const FITS_ROUTES: bool> Plugin for TestPlugin<IS_GUARD, FITS_ROUTES> {}

impl<const IS_GUARD: bool, const FITS_ROUTES: bool> plugin_api::PluginKind for TestPlugin<IS_GUARD, FITS_ROUTES> {
    const NAME: &'static str = match (IS_GUARD, FITS_ROUTES) {
        (true, false) => "service-guard",
        (true, true) => "anywhere-guard",
        (false, _) => "service-helper",
    };
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = IS_GUARD;
    const SCOPES: Scopes = Scopes { route: FITS_ROUTES, ..Scopes::ALL };
    type Config = Nothing;
    type Plugin = Self;

    fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        Ok(TestPlugin)
    }
}

/// A guard that sends requests to the host of a backend itself.
struct NamedBackendGuard;

impl Plugin for NamedBackendGuard {
    fn needs_named_backend(&self) -> bool {
        true
    }
}

impl plugin_api::PluginKind for NamedBackendGuard {
    const NAME: &'static str = "named-backend-guard";
    const FAIL_CLOSED: bool = true;
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = ServiceGuard::PRIORITY;
    const PHASES: Phases = ServiceGuard::PHASES;
    type Config = Nothing;
    type Plugin = Self;

    fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        Ok(NamedBackendGuard)
    }
}

/// The value of `PluginFactory::fail_open` for Kong's behavior.
const FAIL_OPEN: bool = true;

/// The chain and the diagnostics of a route with plugin `p` in its annotation, given these objects.
fn chain_and_diagnostics(objects: Vec<(Kind, Value)>, fail_open: bool) -> (Option<Arc<Chain>>, String) {
    chain_of_route("p", objects, fail_open)
}

/// The same for a route with these plugins.
fn chain_of_route(plugins: &str, objects: Vec<(Kind, Value)>, fail_open: bool) -> (Option<Arc<Chain>>, String) {
    chain_with_trust(TrustModel::default(), plugins, objects, fail_open)
}

/// The same with this trust in the objects.
fn chain_with_trust(
    trust: TrustModel,
    plugins: &str,
    objects: Vec<(Kind, Value)>,
    fail_open: bool,
) -> (Option<Arc<Chain>>, String) {
    let annotations = json!({"konghq.com/plugins": plugins});
    let route = json!({"metadata": {"namespace": "a", "name": "r", "annotations": annotations}, "spec": {}});
    let objects = objects.into_iter().chain([(Kind::HttpRoute, route)]);
    let upserts = objects.map(|(kind, object)| AnyObject::parse(kind, object).unwrap()).collect();
    let mut store = Store::default();
    store.apply(Batch { upserts, removes: vec![] });
    static KINDS: PluginKinds = &[
        &RegisteredKind::<ServiceHelper>::NEW,
        &RegisteredKind::<ServiceGuard>::NEW,
        &RegisteredKind::<AnywhereGuard>::NEW,
        &RegisteredKind::<NamedBackendGuard>::NEW,
    ];
    let mut inputs = TestInputs::new(const { PluginRegistry { kinds: &[&KINDS], internal: &[] } });
    inputs.plugin_factory.fail_open = fail_open;
    inputs.upstreams = UpstreamRegistry::new(TrustAnchors::new([]), trust);
    let inputs = inputs.as_inputs();
    let cx = CompileContext::new(&store, &inputs);
    let mut plugins = Plugins::default();
    plugins.update(cx, &ParentPlans::default(), &store.everything(), &BTreeSet::new());
    let route = &store.http_routes[&ObjectKey::new("a", "r")];
    let services = || store.services.values().map(|service| &service.meta);
    let is_mirror = |service: &&Meta| &*service.key.name == "copies";
    let backends: Vec<_> =
        services().filter(|service| !is_mirror(service)).map(|service| (Kind::Service, service)).collect();
    let mirrors: Vec<_> = services().filter(is_mirror).map(|service| ("spec.rules[0]".to_owned(), service)).collect();
    let site = PluginSite {
        kind: Kind::HttpRoute,
        meta: &route.meta,
        extensions: &[],
        backends: &backends,
        mirrors: &mirrors,
        names: testing::names(),
        facts: &|| panic!("no plugin of these tests reads heads"),
        counter_scope: "HTTPRoute/a/r/0".into(),
        choice: ChoiceSettings { settings: service_annotations::for_gateway_api, replaces_host: false },
    };
    let rule_chain = plugins.chain(cx, &site);
    let mut diagnostics = UniqueDiagnostics::default();
    let chain = rule_chain.report_into(&mut diagnostics);
    (chain, diagnostics.into_vec().iter().map(ToString::to_string).collect())
}

// docs/kong-compatibility.md, 5.13
#[test]
fn backends_that_a_plugin_cannot_send_requests_to_are_reported() {
    let port = json!([{"port": 80}]);
    let annotated = || json!({"portico.dev/address": "api.partner.example"});
    let sources = AddressSources { annotation: false, external_names: true };
    let in_cluster = || TrustModel::MultiTenant { addresses: AddressPolicy::default(), sources };
    let external = json!({"type": "ExternalName", "externalName": "api.partner.example", "ports": port});
    for (annotations, spec, trust, is_reported) in [
        (json!({}), external, in_cluster(), false),
        (json!({}), json!({"ports": port}), in_cluster(), true),
        (annotated(), json!({"ports": port}), TrustModel::SingleTenant, false),
        // The annotation has no effect in a cluster.
        (annotated(), json!({"ports": port}), in_cluster(), true),
    ] {
        let metadata = json!({"namespace": "a", "name": "web", "annotations": annotations});
        let service = json!({"metadata": metadata, "spec": spec});
        let plugin = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "named-backend-guard"});
        let objects = vec![(Kind::KongPlugin, plugin), (Kind::Service, service)];
        let (_, diagnostics) = chain_with_trust(trust, "p", objects, !FAIL_OPEN);
        let message = "KongPlugin/a/p sends requests to ExternalName Services only, so requests for Service a/web \
                           get status 502";
        assert_eq!(diagnostics.contains(message), is_reported, "{diagnostics}");
        assert_eq!(diagnostics.is_empty(), !is_reported, "{diagnostics}");
    }
}

// docs/kong-compatibility.md, 1.4
#[test]
fn plugin_named_twice_is_in_effect() {
    let plugin = |name: &str, plugin: &str| {
        (Kind::KongPlugin, json!({"metadata": {"namespace": "a", "name": name}, "plugin": plugin}))
    };
    let cases = [
        ("p, p", vec![plugin("p", "anywhere-guard")], "(\"route\", \"KongPlugin/a/p\")", false),
        ("p, a:p", vec![plugin("p", "anywhere-guard")], "(\"route\", \"KongPlugin/a/p\")", false),
        ("p, p", vec![plugin("p", "anywhere-guard"), consumer("a", "c")], "ConsumerAndRoute", false),
        (
            "p, q",
            vec![plugin("p", "anywhere-guard"), plugin("q", "anywhere-guard")],
            "(\"route\", \"KongPlugin/a/p\")",
            true,
        ),
    ];
    for (annotation, objects, expected, is_reported) in cases {
        let (chain, diagnostics) = chain_of_route(annotation, objects, !FAIL_OPEN);
        let description = format!("{:?}", chain.unwrap());
        assert!(description.contains(expected), "{annotation}: {description}");
        assert_eq!(description.matches("KongPlugin/").count(), 1, "{annotation}: {description}");
        let message = "another anywhere-guard is already attached to the same object, so KongPlugin/a/q has no effect";
        assert_eq!(diagnostics.contains(message), is_reported, "{annotation}: {diagnostics}");
        assert_eq!(diagnostics.is_empty(), !is_reported, "{annotation}: {diagnostics}");
    }
}

// docs/kong-compatibility.md, 3.12
#[tokio::test]
async fn misplaced_guard_rejects_all_requests() {
    let plugin =
        |name: &str| vec![(Kind::KongPlugin, json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": name}))];
    let (chain, diagnostics) = chain_and_diagnostics(plugin("service-guard"), !FAIL_OPEN);
    let outcome = testing::TestRequest::get("/").run(&chain.unwrap()).await;
    assert_eq!(outcome.reply_status(), Some(http::StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(outcome.message(), Some("KongPlugin/a/p cannot guard this route"));
    assert!(
        diagnostics.contains("service-guard cannot be attached to routes, so requests get status 503"),
        "{diagnostics}"
    );

    for (name, fail_open) in [("service-guard", FAIL_OPEN), ("service-helper", !FAIL_OPEN)] {
        let (chain, diagnostics) = chain_and_diagnostics(plugin(name), fail_open);
        assert!(chain.is_none(), "{name}: {chain:?}");
        assert!(
            diagnostics.contains("cannot be attached to routes, so requests are served without it"),
            "{diagnostics}"
        );
    }
}

/// Requests without a key would reach a Service that accepts none.
#[tokio::test]
async fn no_copies_go_to_a_service_whose_guard_does_not_run() {
    let plugin = |name: &str, plugin: &str| {
        (Kind::KongPlugin, json!({"metadata": {"namespace": "a", "name": name}, "plugin": plugin}))
    };
    let copies = |plugins: &str| {
        let annotations = json!({"konghq.com/plugins": plugins});
        let metadata = json!({"namespace": "a", "name": "copies", "annotations": annotations});
        (Kind::Service, json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}}))
    };
    for (of_route, of_service, fail_open, is_rejected) in [
        ("p", "g", !FAIL_OPEN, true),
        // It runs for all requests, and so for those that are copied.
        ("g", "g", !FAIL_OPEN, false),
        ("p", "h", !FAIL_OPEN, false),
        ("p", "missing", !FAIL_OPEN, true),
        ("p", "g", FAIL_OPEN, false),
    ] {
        let objects = vec![
            plugin("p", "anywhere-guard"),
            plugin("g", "anywhere-guard"),
            plugin("h", "service-helper"),
            copies(of_service),
        ];
        let (chain, diagnostics) = chain_of_route(of_route, objects, fail_open);
        let outcome = testing::TestRequest::get("/").run(&chain.unwrap()).await;
        let expected = is_rejected.then_some(http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(outcome.reply_status(), expected, "{of_route}, {of_service}: {diagnostics}");
        let message = "guards Service a/copies, and does not run for copies of requests, so requests get status 503";
        assert_eq!(diagnostics.contains(message), is_rejected, "{diagnostics}");
    }
}

/// A consumer of a namespace that refers to plugin `p`.
fn consumer(namespace: &str, name: &str) -> (Kind, Value) {
    let annotations = json!({"kubernetes.io/ingress.class": "portico", "konghq.com/plugins": "p"});
    let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
    (Kind::KongConsumer, json!({"metadata": metadata, "username": name}))
}

#[test]
fn broken_guard_of_many_consumers_has_one_instance() {
    let broken =
        json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "anywhere-guard", "config": {"unknown": 1}});
    let consumers = (0..100).map(|number| consumer("a", &format!("c-{number}")));
    let (chain, _) = chain_and_diagnostics(consumers.chain([(Kind::KongPlugin, broken)]).collect(), !FAIL_OPEN);
    let chain = chain.unwrap();
    assert_eq!(format!("{chain:?}").matches("ConsumerAndRoute").count(), 100);
    assert_eq!(chain.configuration_hashes().count(), 1, "one instance serves all of them");
}

// docs/kong-compatibility.md, 1.4
#[test]
fn cluster_plugin_combines_consumers_and_routes_per_namespace() {
    let cluster = |object: Value| (Kind::KongClusterPlugin, object);
    let plugin = || cluster(json!({"metadata": {"name": "p"}, "plugin": "anywhere-guard"}));
    let cases = [
        ("same namespace", "a", !FAIL_OPEN, "ConsumerAndRoute"),
        ("other namespace", "b", !FAIL_OPEN, "(\"route\", \"KongClusterPlugin/p\")"),
        ("other namespace, fail-open", "b", FAIL_OPEN, "ConsumerAndRoute"),
    ];
    for (name, namespace, fail_open, expected) in cases {
        let (chain, _) = chain_and_diagnostics(vec![plugin(), consumer(namespace, "c")], fail_open);
        let description = format!("{:?}", chain.unwrap());
        assert!(description.contains(expected), "{name}: {description}");
    }
}
