//! Annotations: whatever their values are, the objects compile to the same snapshot and verdicts in every order, and an
//! object with annotations that have no effect says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::testing::TestInputs;
use crate::compile::{Classes, Compiler, IngressListener, IngressSettings};
use crate::plugins::REGISTRY;
use crate::snapshot::fingerprint::Fingerprint;
use crate::store::{AnyObject, Batch, Store};
use crate::verdict::Verdicts;

/// Each line is an annotation, as `key=value`, of an Ingress of each dialect, an HTTPRoute and a Service.
pub(super) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let pairs = text.lines().take(50).filter_map(|line| line.split_once('='));
    let annotations: BTreeMap<&str, &str> = pairs.filter(|(key, _)| !OF_CLASSES.contains(key)).collect();
    let mut objects = objects(&annotations);
    let (fingerprint, verdicts) = compile(&objects);
    objects.reverse();
    let (reversed_fingerprint, reversed_verdicts) = compile(&objects);
    assert_eq!(fingerprint, reversed_fingerprint, "the snapshot does not depend on the order of the objects");
    assert_eq!(format!("{verdicts:?}"), format!("{reversed_verdicts:?}"), "nor do the verdicts");
    for name in ["kong", "kubernetes"] {
        let id = ObjectId::new(Kind::Ingress, ObjectKey::new("default", name));
        let verdict = verdicts.get(&id).unwrap_or_else(|| panic!("{id} has a verdict"));
        for diagnostic in verdict.all_conditions().flat_map(|(_, condition)| &condition.diagnostics) {
            assert!(!diagnostic.message.is_empty(), "{id}: {diagnostic:?} says what is wrong");
        }
    }
}

/// With these, the Ingresses would not be served.
const OF_CLASSES: &[&str] = &["kubernetes.io/ingress.class"];

fn compile(objects: &[AnyObject]) -> (Fingerprint, Verdicts) {
    let listener = |port| {
        Some(IngressListener {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            public_port: port,
            always_listen: false,
        })
    };
    let inputs = TestInputs {
        ingress: IngressSettings { http: listener(8000), https: listener(8443), ..IngressSettings::default() },
        classes: Classes { name: "kong".to_owned(), ..Classes::default() },
        ..TestInputs::new(REGISTRY)
    };
    let mut store = Store::default();
    store.apply(Batch { upserts: objects.to_vec(), removes: Vec::new() });
    let mut compiler = Compiler::default();
    let compiled = inputs.compile(&mut compiler, &store, &store.everything());
    (compiled.snapshot.fingerprint(), compiler.verdicts().clone())
}

fn objects(annotations: &BTreeMap<&str, &str>) -> Vec<AnyObject> {
    let metadata = |name: &str| json!({"name": name, "namespace": "default", "annotations": annotations});
    let ingress = |name: &str, path: &str, path_type: &str| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = json!({"path": path, "pathType": path_type, "backend": backend});
        let spec = json!({"ingressClassName": name, "rules": [{"host": "a.example", "http": {"paths": [path]}}]});
        json!({"apiVersion": "networking.k8s.io/v1", "metadata": metadata(name), "spec": spec})
    };
    let class = |name: &str, controller: &str, annotations: Value| json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}});
    let objects = [
        (Kind::IngressClass, class("kong", "ingress-controllers.konghq.com/kong", json!({}))),
        (
            Kind::IngressClass,
            class("kubernetes", "portico.dev/ingress-controller", json!({"portico.dev/dialect": "kubernetes"})),
        ),
        (Kind::Ingress, ingress("kong", "/~/users/(\\d+)", "ImplementationSpecific")),
        (Kind::Ingress, ingress("kubernetes", "/users", "Prefix")),
        (Kind::Service, json!({"metadata": metadata("web"), "spec": {"ports": [{"port": 80}]}})),
        (
            Kind::HttpRoute,
            json!({
                "metadata": metadata("route"),
                "spec": {"parentRefs": [{"name": "web"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
            }),
        ),
        (
            Kind::GatewayClass,
            json!({
                "metadata": {"name": "portico"},
                "spec": {"controllerName": "portico.dev/gateway-controller"},
            }),
        ),
        (
            Kind::Gateway,
            json!({
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {
                    "gatewayClassName": "portico",
                    "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                },
            }),
        ),
    ];
    let parse = |(kind, object)| AnyObject::parse(kind, object).unwrap_or_else(|error| panic!("{kind}: {error}"));
    objects.into_iter().map(parse).collect()
}
