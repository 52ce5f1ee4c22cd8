//! What the owner of an object learns without access to the log: that another object gets its requests, that its class
//! does not exist, and why a reference is refused. The topics of these diagnostics are those that have events.

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::diagnostic::Topic;
use portico::store::{AnyObject, Batch};
use portico::verdict::Verdict;
use serde_json::{Value, json};

use super::case::{CompilerHarness, with_certificates};
use super::edits::parse;

fn compiled(upserts: Vec<AnyObject>) -> CompilerHarness {
    let pool = GatewayAddressPool::loopback(vec![]);
    let mut harness = CompilerHarness::new(AddressProvider::Pool(pool), AddressState::default());
    harness.apply(Batch { upserts, removes: vec![] });
    harness
}

fn verdict<'h>(harness: &'h CompilerHarness, kind: Kind, namespace: &str, name: &str) -> &'h Verdict {
    &harness.compiler.verdicts()[&ObjectId::new(kind, ObjectKey::new(namespace, name))]
}

fn ingress_class(name: &str, controller: &str, dialect: &str) -> AnyObject {
    let metadata = json!({"name": name, "annotations": {"portico.dev/dialect": dialect}});
    parse(Kind::IngressClass, json!({"metadata": metadata, "spec": {"controller": controller}}))
}

fn service(namespace: &str) -> AnyObject {
    let metadata = json!({"namespace": namespace, "name": "s"});
    parse(Kind::Service, json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}}))
}

const CONTROLLER: &str = "portico.dev/ingress-controller";

/// A rule for this host and path.
fn rule(host: &str, path: &str) -> Value {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    json!({"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}})
}

/// An Ingress of a class, with further fields.
fn spec(class: &str, fields: &Value) -> Value {
    let mut spec = json!({"ingressClassName": class});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

fn ingress(namespace: &str, name: &str, created: u8, spec: &Value) -> AnyObject {
    let created = format!("2026-01-01T00:00:{created:02}Z");
    let metadata = json!({"namespace": namespace, "name": name, "creationTimestamp": created});
    parse(Kind::Ingress, json!({"metadata": metadata, "spec": spec}))
}

/// A Secret with one of the two certificates of tests.
fn certificate(number: &str) -> AnyObject {
    let data = json!({"tls.crt": format!("CERTIFICATE {number}"), "tls.key": format!("KEY {number}")});
    let metadata = json!({"namespace": "a", "name": number});
    let secret = json!({"kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "stringData": data});
    parse(Kind::Secret, with_certificates(&secret))
}

/// Only the log of Portico said that.
#[test]
fn ingresses_that_lose_requests_to_others_have_a_conflict() {
    let shop = |path: &str| json!({"rules": [rule("shop.example", path)]});
    let with_default = || json!({"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}});
    let with_certificate = |path: &str, secret: &str| {
        let tls = json!([{"hosts": ["shop.example"], "secretName": secret}]);
        json!({"tls": tls, "rules": [rule("shop.example", path)]})
    };
    // The namespace of the younger Ingress, the specifications of both, and the conflict of the younger one.
    for (namespace, older, younger, expected) in [
        (
            "a",
            spec("portico", &shop("/")),
            spec("portico", &shop("/")),
            "Ingress a/older has the same host and path and comes first, so no request gets to this backend",
        ),
        (
            "a",
            spec("plain", &shop("/")),
            spec("plain", &shop("/")),
            "Ingress a/older has the same host and path and comes first, so no request gets to this backend",
        ),
        (
            "a",
            spec("portico", &shop("/")),
            spec("plain", &shop("/cart")),
            "Ingress a/older is older and has the host shop.example too, in dialect kong",
        ),
        (
            "b",
            spec("portico", &shop("/")),
            spec("portico", &shop("/cart")),
            "Ingresses of namespace a name host shop.example, too",
        ),
        (
            "a",
            spec("portico", &with_default()),
            spec("portico", &with_default()),
            "Ingress a/older is older and also has a default backend",
        ),
        (
            "a",
            spec("portico", &with_certificate("/", "one")),
            spec("portico", &with_certificate("/cart", "two")),
            "shop.example uses the certificate of Ingress a/older, which is older",
        ),
    ] {
        let harness = compiled(vec![
            service("a"),
            service("b"),
            ingress_class("portico", CONTROLLER, "kong"),
            ingress_class("plain", CONTROLLER, "kubernetes"),
            certificate("one"),
            certificate("two"),
            ingress("a", "older", 1, &older),
            ingress(namespace, "younger", 2, &younger),
        ]);
        let conflicts = |namespace: &str, name: &str| -> Vec<String> {
            verdict(&harness, Kind::Ingress, namespace, name).about(Topic::Conflict).map(ToString::to_string).collect()
        };
        let of_younger = conflicts(namespace, "younger");
        assert!(of_younger.iter().any(|text| text.contains(expected)), "{expected}: {of_younger:?}");
        // The owner of a host learns that another namespace uses it, too.
        let of_older = conflicts("a", "older");
        assert_eq!(!of_older.is_empty(), namespace == "b", "{expected}: {of_older:?}");
    }
}

/// `kubectl get` showed no status of such objects for ever, and `kubectl describe` said nothing.
#[test]
fn objects_of_a_class_that_does_not_exist_say_so() {
    let own = || ingress_class("portico", CONTROLLER, "kong");
    let foreign = || ingress_class("nginx", "k8s.io/ingress-nginx", "kong");
    let of_field = |class: Option<&str>| {
        let metadata = json!({"namespace": "a", "name": "x"});
        parse(Kind::Ingress, json!({"metadata": metadata, "spec": {"ingressClassName": class}}))
    };
    let annotated = |class: &str| {
        let annotations = json!({"kubernetes.io/ingress.class": class});
        let metadata = json!({"namespace": "a", "name": "x", "annotations": annotations});
        parse(Kind::Ingress, json!({"metadata": metadata, "spec": {}}))
    };
    let gateway = |class: &str| {
        let listeners = json!([{"name": "web", "port": 80, "protocol": "HTTP"}]);
        let metadata = json!({"namespace": "a", "name": "x"});
        let spec = json!({"gatewayClassName": class, "listeners": listeners});
        parse(Kind::Gateway, json!({"metadata": metadata, "spec": spec}))
    };
    let gateway_class = |name: &str| {
        parse(Kind::GatewayClass, json!({"metadata": {"name": name}, "spec": {"controllerName": "example.com/other"}}))
    };
    for (what, classes, object, is_reported) in [
        ("a Gateway", vec![], gateway("portcio"), true),
        ("a Gateway of another controller", vec![gateway_class("other")], gateway("other"), false),
        ("a field", vec![own()], of_field(Some("portcio")), true),
        ("a field, the class of another controller", vec![own(), foreign()], of_field(Some("nginx")), false),
        ("an annotation like the class of Portico", vec![own()], annotated("portcio"), true),
        // Other controllers need no object for it.
        ("another annotation", vec![own()], annotated("nginx"), false),
        ("no class, and no default class", vec![own()], of_field(None), true),
        ("no class, and no classes", vec![], of_field(None), true),
        ("no class, which another controller may serve", vec![own(), foreign()], of_field(None), false),
    ] {
        let id = object.id();
        let harness = compiled([classes, vec![object]].concat());
        let verdict = harness.compiler.verdicts().get(&id);
        let reported = verdict.map_or(0, |verdict| verdict.about(Topic::MissingClass).count());
        assert_eq!(reported, usize::from(is_reported), "{what}: {verdict:?}");
    }
}

#[test]
fn refused_references_name_the_kind_of_the_referrers_in_its_plural() {
    let annotations = json!({"konghq.com/plugins": "b:keys"});
    let metadata = json!({"namespace": "a", "name": "x", "annotations": annotations});
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let listeners = json!([{"name": "web", "port": 80, "protocol": "HTTP"}]);
    let gateway = json!({"gatewayClassName": "portico", "listeners": listeners});
    let backend = json!([{"backendRefs": [{"name": "s", "port": 80}]}]);
    let harness = compiled(vec![
        parse(Kind::GatewayClass, class),
        parse(Kind::Gateway, json!({"metadata": {"namespace": "a", "name": "g"}, "spec": gateway})),
        ingress_class("portico", CONTROLLER, "kong"),
        parse(
            Kind::KongPlugin,
            json!({"metadata": {"namespace": "b", "name": "keys"}, "plugin": "key-auth", "config": {}}),
        ),
        parse(
            Kind::Ingress,
            json!({"metadata": metadata, "spec": spec("portico", &json!({"rules": [rule("a.example", "/")]}))}),
        ),
        parse(
            Kind::HttpRoute,
            json!({"metadata": metadata, "spec": {"parentRefs": [{"name": "g"}], "rules": backend}}),
        ),
    ]);
    for (kind, expected) in [
        (Kind::Ingress, "no ReferenceGrant lets Ingresses of namespace a use KongPlugin b/keys"),
        (Kind::HttpRoute, "no ReferenceGrant lets HTTPRoutes of namespace a use KongPlugin b/keys"),
    ] {
        let said = format!("{:?}", verdict(&harness, kind, "a", "x"));
        assert!(said.contains(expected), "{said}");
    }
}
