//! Consumers with one key each, and the store and compiler that they are applied to. Also used by `tests/memory.rs`.

use std::sync::Arc;

use portico::api::Kind;
use portico::compile::testing::TestInputs;
use portico::compile::{Compiler, IngressListener, IngressSettings};
use portico::plugin_api::consumers::sha256;
use portico::snapshot::Snapshot;
use portico::store::{AnyObject, Batch, Changes, Store};
use serde_json::{Value, json};

/// Store, compiler and snapshot, as in the control loop but without sockets.
pub(crate) struct CompiledWorld {
    pub(crate) store: Store,
    compiler: Compiler,
    pub(crate) snapshot: Arc<Snapshot>,
    inputs: TestInputs,
}

impl Default for CompiledWorld {
    fn default() -> Self {
        let http_listener =
            IngressListener { address: ([127, 0, 0, 1], 8000).into(), public_port: 80, always_listen: false };
        CompiledWorld {
            store: Store::default(),
            compiler: Compiler::default(),
            snapshot: Arc::default(),
            inputs: TestInputs {
                ingress: IngressSettings { http: Some(http_listener), ..IngressSettings::default() },
                ..TestInputs::new(portico::plugins::REGISTRY)
            },
        }
    }
}

impl CompiledWorld {
    /// Stores and compiles objects.
    pub(crate) fn apply(&mut self, upserts: Vec<AnyObject>) {
        let changes = self.store.apply(Batch { upserts, removes: vec![] });
        self.compile(&changes);
    }

    pub(crate) fn compile(&mut self, changes: &Changes) {
        self.snapshot = self.inputs.compile(&mut self.compiler, &self.store, changes).snapshot;
    }

    /// Verifies that no consumer is missing, and that the edited one has the key of this revision.
    pub(crate) fn check(&self, count: usize, revision: usize) {
        let directory = &self.snapshot.consumers;
        assert_eq!((directory.consumers.len(), directory.keys.len()), (count, count), "consumers or keys are missing");
        let credential = directory.keys.get(sha256(key(count / 2, revision).as_bytes())).unwrap();
        let name = credential.consumer.username.as_deref();
        assert!(name.is_some_and(|name| name.starts_with(&format!("user-{}", count / 2))), "{name:?}");
    }
}

/// An Ingress whose plugin key-auth authenticates the consumers.
pub(crate) fn base_objects() -> Vec<AnyObject> {
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
    let plugin = json!({"metadata": {"namespace": "default", "name": "auth"}, "plugin": "key-auth"});
    let service = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({
        "metadata": {"namespace": "default", "name": "web", "annotations": {"konghq.com/plugins": "auth"}},
        "spec": {"ingressClassName": "portico", "defaultBackend": backend},
    });
    [(Kind::IngressClass, class), (Kind::KongPlugin, plugin), (Kind::Service, service), (Kind::Ingress, ingress)]
        .map(|(kind, object)| parse(kind, object))
        .into()
}

/// All consumers and the key of each.
pub(crate) fn consumers_with_keys(count: usize) -> Vec<AnyObject> {
    (0..count).flat_map(|number| [consumer(number, 0), secret(number, 0)]).collect()
}

/// A consumer with a key. The revision changes its username.
pub(crate) fn consumer(number: usize, revision: usize) -> AnyObject {
    let credentials = [format!("consumer-{number}-key")];
    parse_consumer(number, revision, &json!({"kubernetes.io/ingress.class": "portico"}), &credentials)
}

/// A consumer without keys, for which these plugins run.
pub(crate) fn consumer_with_plugins(number: usize, plugins: &str) -> AnyObject {
    let annotations = json!({"kubernetes.io/ingress.class": "portico", "konghq.com/plugins": plugins});
    parse_consumer(number, 0, &annotations, &[])
}

fn parse_consumer(number: usize, revision: usize, annotations: &Value, credentials: &[String]) -> AnyObject {
    let object = json!({
        "metadata": {
            "namespace": "default",
            "name": format!("consumer-{number}"),
            "creationTimestamp": "2026-01-02T12:00:00Z",
            "generation": revision,
            "annotations": annotations,
        },
        "username": format!("user-{number}-{revision}"),
        "credentials": credentials,
    });
    parse(Kind::KongConsumer, object)
}

/// The plugin `gold`. The revision changes its configuration.
pub(crate) fn gold_plugin(revision: usize) -> AnyObject {
    let config = json!({"minute": 100 + revision});
    let metadata = json!({"namespace": "default", "name": "gold"});
    parse(Kind::KongPlugin, json!({"metadata": metadata, "plugin": "rate-limiting", "config": config}))
}

/// Ingresses with one rule each, on which key-auth authenticates the consumers.
pub(crate) fn ingresses(count: usize) -> Vec<AnyObject> {
    let ingress = |number: usize| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        let metadata = json!({
            "namespace": "default",
            "name": format!("rule-{number}"),
            "annotations": {"konghq.com/plugins": "auth"},
        });
        let rule = json!({"host": format!("host-{number}.example"), "http": {"paths": [path]}});
        parse(Kind::Ingress, json!({"metadata": metadata, "spec": {"ingressClassName": "portico", "rules": [rule]}}))
    };
    (0..count).map(ingress).collect()
}

/// The Secret with the key of a consumer. The revision changes the key.
pub(crate) fn secret(number: usize, revision: usize) -> AnyObject {
    let object = json!({
        "metadata": {
            "namespace": "default",
            "name": format!("consumer-{number}-key"),
            "creationTimestamp": "2026-01-02T12:00:00Z",
            "labels": {"konghq.com/credential": "key-auth"},
        },
        "type": "Opaque",
        "stringData": {"key": key(number, revision)},
    });
    parse(Kind::Secret, object)
}

/// The key of a consumer, with the usual length of random keys.
fn key(number: usize, revision: usize) -> String {
    format!("key-{number:014}-{revision:013}")
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}
