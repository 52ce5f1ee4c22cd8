//! HTTPRoutes and Ingresses, each with its own host, and the store and compiler that they are applied to. Also used by
//! `tests/memory.rs`.

use std::sync::Arc;

use portico::api::{Kind, ObjectId};
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::compile::testing::TestInputs;
use portico::compile::{Compiler, IngressListener, IngressSettings, addressable_gateways};
use portico::snapshot::Snapshot;
use portico::store::{AnyObject, Batch, Store};
use serde_json::{Value, json};

/// Store, compiler and snapshot, as in the control loop but without sockets.
pub(crate) struct RouteWorld {
    store: Store,
    compiler: Compiler,
    pub(crate) inputs: TestInputs,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) certificates: Certificates,
}

/// Certificates and keys as PEM. Each is used by many Secrets.
pub(crate) struct Certificates(Vec<(String, String)>);

/// More than this number of listeners are not allowed in a Gateway.
pub(crate) const MAX_LISTENERS_PER_GATEWAY: usize = 64;
/// Routes with the same Service.
const ROUTES_PER_SERVICE: usize = 50;
/// The budgets of a namespace are for fewer than all routes.
const ROUTES_PER_NAMESPACE: usize = 1000;
const CERTIFICATES: usize = 20;

impl RouteWorld {
    pub(crate) fn new() -> Self {
        let listener = |port: u16, public_port| {
            Some(IngressListener { address: ([127, 0, 0, 1], port).into(), public_port, always_listen: false })
        };
        RouteWorld {
            store: Store::default(),
            compiler: Compiler::default(),
            inputs: TestInputs {
                ingress: IngressSettings {
                    http: listener(8000, 80),
                    https: listener(8443, 443),
                    ..IngressSettings::default()
                },
                ..TestInputs::new(portico::plugins::REGISTRY)
            },
            snapshot: Arc::default(),
            certificates: Certificates::generate(),
        }
    }

    /// Stores and compiles objects.
    pub(crate) fn apply(&mut self, upserts: Vec<AnyObject>) {
        let mut changes = self.store.apply(Batch { upserts, removes: vec![] });
        // The control loop takes them after every change.
        drop(self.store.take_changed_references());
        // As in the control loop, only a change of a Gateway or its class assigns addresses.
        if changes.iter().any(|id| matches!(id.kind, Kind::Gateway | Kind::GatewayClass)) {
            let provider = AddressProvider::Pool(GatewayAddressPool::loopback(vec![]));
            let gateways: Vec<_> = addressable_gateways(&self.store, &self.inputs.controllers).collect();
            let readdressed = self.inputs.addresses.assign(&provider, &AddressState::default(), gateways.into_iter());
            changes.extend(readdressed.into_iter().map(|key| ObjectId::new(Kind::Gateway, key)));
        }
        let compiled = self.inputs.compile(&mut self.compiler, &self.store, &changes);
        for (key, endpoints) in compiled.endpoints {
            self.inputs.upstreams.upstream(&key).set_endpoints(endpoints);
        }
        self.snapshot = compiled.snapshot;
    }

    /// The number of hosts with routes in the snapshot.
    pub(crate) fn served_hosts(&self) -> usize {
        let listeners = self.snapshot.http_binds().flat_map(|bind| bind.listeners.iter());
        let rules = listeners.flat_map(|(_, listener)| listener.routes.rules());
        rules.map(Arc::as_ptr).collect::<std::collections::BTreeSet<_>>().len()
    }
}

impl Certificates {
    fn generate() -> Self {
        let generate = |_| {
            let generated = rcgen::generate_simple_self_signed(["*.example.com".to_owned()]).unwrap();
            (generated.cert.pem(), generated.signing_key.serialize_pem())
        };
        Certificates((0..CERTIFICATES).map(generate).collect())
    }

    /// The Secret of an Ingress. Each revision has another certificate.
    pub(crate) fn secret(&self, number: usize, revision: usize) -> AnyObject {
        let (certificate, key) = &self.0[(number + revision) % self.0.len()];
        let metadata = metadata(&namespace(number), &format!("tls-{number}"), revision);
        let data = json!({"tls.crt": certificate, "tls.key": key});
        parse(Kind::Secret, json!({"metadata": metadata, "type": "kubernetes.io/tls", "stringData": data}))
    }
}

/// A GatewayClass, and Gateways with this number of listeners together, each for the subdomains of one name.
pub(crate) fn gateways(listeners: usize, per_gateway: usize) -> Vec<AnyObject> {
    let class = json!({"metadata": {"name": "portico"},
        "spec": {"controllerName": "portico.dev/gateway-controller"}});
    let listener = |number: usize| {
        json!({
            "name": format!("l{number}"),
            "port": 80,
            "protocol": "HTTP",
            "hostname": format!("*.l{number}.example.com"),
            "allowedRoutes": {"namespaces": {"from": "All"}},
        })
    };
    let numbers: Vec<usize> = (0..listeners).collect();
    let gateways = numbers.chunks(per_gateway).enumerate().map(|(index, numbers)| {
        let listeners: Vec<Value> = numbers.iter().map(|number| listener(*number)).collect();
        let metadata = metadata("edge", &format!("gateway-{index}"), 0);
        let all = json!({"namespaces": {"from": "All"}});
        let spec = json!({"gatewayClassName": "portico", "listeners": listeners, "allowedListeners": all});
        parse(Kind::Gateway, json!({"metadata": metadata, "spec": spec}))
    });
    std::iter::once(parse(Kind::GatewayClass, class)).chain(gateways).collect()
}

/// A ListenerSet of the first Gateway. The revision changes the hostname of its listener.
pub(crate) fn listener_set(set: usize, revision: usize) -> AnyObject {
    let hostname = format!("revision-{revision}.set-{set}.example.com");
    let all = json!({"namespaces": {"from": "All"}});
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP", "hostname": hostname, "allowedRoutes": all});
    let spec = json!({"parentRef": {"name": "gateway-0", "namespace": "edge"}, "listeners": [listener]});
    parse(Kind::ListenerSet, json!({"metadata": metadata("sets", &format!("set-{set}"), revision), "spec": spec}))
}

/// A route of one of this number of ListenerSets. The revision changes its path.
pub(crate) fn route_of_listener_set(number: usize, sets: usize, revision: usize) -> AnyObject {
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": format!("/route-{number}/revision-{revision}")}}],
        "backendRefs": [{"name": service_name(number), "port": 80}],
    });
    let parent = json!({"kind": "ListenerSet", "name": format!("set-{}", number % sets), "namespace": "sets"});
    let metadata = metadata(&namespace(number), &format!("route-{number}"), revision);
    parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": {"parentRefs": [parent], "rules": [rule]}}))
}

/// The IngressClass, which selects Kong's dialect.
pub(crate) fn ingress_class() -> AnyObject {
    let class = json!({"metadata": {"name": "portico"}, "spec": {"controller": "portico.dev/ingress-controller"}});
    parse(Kind::IngressClass, class)
}

/// The Services of this number of routes, each with an EndpointSlice.
pub(crate) fn services(routes: usize) -> Vec<AnyObject> {
    let service = |number: usize| {
        let (namespace, name) = (namespace(number), service_name(number));
        let spec = json!({"ports": [{"port": 80, "targetPort": 8080}], "clusterIP": "10.96.0.7"});
        let service = json!({"metadata": metadata(&namespace, &name, 0), "spec": spec});
        let mut slice_metadata = metadata(&namespace, &format!("{name}-slice"), 0);
        slice_metadata["labels"] = json!({"kubernetes.io/service-name": name});
        let endpoint = |last: usize| json!({"addresses": [format!("10.1.{}.{last}", number % 200)], "conditions": {"ready": true}});
        let slice = json!({
            "metadata": slice_metadata,
            "addressType": "IPv4",
            "endpoints": [endpoint(1), endpoint(2)],
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        });
        [parse(Kind::Service, service), parse(Kind::EndpointSlice, slice)]
    };
    (0..routes).step_by(ROUTES_PER_SERVICE).flat_map(service).collect()
}

/// A route of one of this number of listeners. The revision changes its path.
pub(crate) fn http_route(number: usize, listeners: usize, per_gateway: usize, revision: usize) -> AnyObject {
    let listener = number % listeners;
    let gateway = format!("gateway-{}", listener / per_gateway);
    let parent = json!({"name": gateway, "namespace": "edge", "sectionName": format!("l{listener}")});
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": format!("/revision-{revision}")}}],
        "backendRefs": [{"name": service_name(number), "port": 80}],
    });
    let spec = json!({
        "parentRefs": [parent],
        "hostnames": [format!("host-{number}.l{listener}.example.com")],
        "rules": [rule],
    });
    let metadata = metadata(&namespace(number), &format!("route-{number}"), revision);
    parse(Kind::HttpRoute, json!({"metadata": metadata, "spec": spec}))
}

/// An Ingress with a certificate. The revision changes its path.
pub(crate) fn ingress(number: usize, revision: usize) -> AnyObject {
    let host = format!("host-{number}.example.com");
    let backend = json!({"service": {"name": service_name(number), "port": {"number": 80}}});
    let path = json!({"path": format!("/revision-{revision}"), "pathType": "Prefix", "backend": backend});
    let spec = json!({
        "ingressClassName": "portico",
        "rules": [{"host": host, "http": {"paths": [path]}}],
        "tls": [{"hosts": [host], "secretName": format!("tls-{number}")}],
    });
    let metadata = metadata(&namespace(number), &format!("ingress-{number}"), revision);
    parse(Kind::Ingress, json!({"metadata": metadata, "spec": spec}))
}

fn metadata(namespace: &str, name: &str, revision: usize) -> Value {
    json!({
        "namespace": namespace,
        "name": name,
        "uid": "4b0a6ae5-3c2b-4f5e-9a0c-6d1f0a2b3c4d",
        "resourceVersion": (1000 + revision).to_string(),
        "creationTimestamp": "2026-01-02T12:00:00Z",
        "generation": revision + 1,
        "labels": {"app.kubernetes.io/name": name},
    })
}

fn namespace(number: usize) -> String {
    format!("team-{}", number / ROUTES_PER_NAMESPACE)
}

fn service_name(number: usize) -> String {
    format!("service-{}", number / ROUTES_PER_SERVICE)
}

fn parse(kind: Kind, object: Value) -> AnyObject {
    AnyObject::parse(kind, object).unwrap()
}
