//! Consumers with a key each, and what makes a snapshot of them: for the benchmark, and for the test that counts their bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use portico::api::Kind;
use portico::api::names::GATEWAY_CONTROLLER;
use portico::compile::addresses::Addresses;
use portico::compile::{Classes, Compiler, Entrance, IngressSettings, Inputs};
use portico::plugin::Workshop;
use portico::plugin::consumers::digest_of;
use portico::snapshot::Snapshot;
use portico::store::{AnyObject, Batch, Changes, Store};
use portico::upstream::Registry;
use serde_json::{Value, json};

/// The control loop's part of the program, without sockets.
pub(crate) struct World {
    pub(crate) store: Store,
    compiler: Compiler,
    pub(crate) snapshot: Arc<Snapshot>,
    upstreams: Registry,
    workshop: Workshop,
    controllers: Vec<String>,
    ingress: IngressSettings,
}

impl Default for World {
    fn default() -> Self {
        let entrance = Entrance { address: ([127, 0, 0, 1], 8000).into(), public: 80, always: false };
        World {
            store: Store::default(),
            compiler: Compiler::default(),
            snapshot: Arc::default(),
            upstreams: Registry::default(),
            workshop: Workshop::offline(portico::plugins::REGISTRY),
            controllers: vec![GATEWAY_CONTROLLER.to_owned()],
            ingress: IngressSettings { http: Some(entrance), ..IngressSettings::default() },
        }
    }
}

impl World {
    pub(crate) fn apply(&mut self, upserts: Vec<AnyObject>) {
        let changes = self.store.apply(Batch { upserts, removes: vec![] });
        self.compile(&changes);
    }

    pub(crate) fn compile(&mut self, changes: &Changes) {
        let inputs = Inputs {
            controllers: &self.controllers,
            addresses: &Addresses::default(),
            upstreams: &self.upstreams,
            classes: &Classes::default(),
            workshop: &self.workshop,
            unknown: &BTreeSet::new(),
            ingress: &self.ingress,
        };
        let compiled = self.compiler.compile(&self.store, changes, &inputs);
        self.snapshot = compiled.snapshot;
    }

    /// A figure for a snapshot in which somebody is missing is worth nothing.
    pub(crate) fn check(&self, count: usize, revision: usize) {
        let directory = &self.snapshot.consumers;
        assert_eq!((directory.consumers.len(), directory.keys.len()), (count, count), "everybody is there");
        let found = directory.keys.get(digest_of(key(count / 2, revision).as_bytes())).unwrap();
        let name = found.consumer.username.as_deref();
        assert!(name.is_some_and(|name| name.starts_with(&format!("user-{}", count / 2))), "{name:?}");
    }
}

/// A route with key-auth, for which the consumers are.
pub(crate) fn surroundings() -> Vec<AnyObject> {
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

/// Everybody, and the key of each.
pub(crate) fn people(count: usize) -> Vec<AnyObject> {
    (0..count).flat_map(|number| [consumer(number, 0), secret(number, 0)]).collect()
}

pub(crate) fn consumer(number: usize, revision: usize) -> AnyObject {
    let object = json!({
        "metadata": {
            "namespace": "default",
            "name": format!("consumer-{number}"),
            "creationTimestamp": "2026-01-02T12:00:00Z",
            "generation": revision,
            "annotations": {"kubernetes.io/ingress.class": "portico"},
        },
        "username": format!("user-{number}-{revision}"),
        "credentials": [format!("consumer-{number}-key")],
    });
    parse(Kind::KongConsumer, object)
}

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

/// As long as those that are made at random usually are.
fn key(number: usize, revision: usize) -> String {
    format!("key-{number:014}-{revision:013}")
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}
