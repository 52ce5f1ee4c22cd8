//! Valid and invalid objects of Kubernetes' core kinds.

use portico::api::Kind;
use serde_json::{Value, json};

/// The objects, with their kinds instead of the fields apiVersion and kind.
pub(crate) fn objects() -> Vec<(Kind, Value)> {
    let service = |spec: Value| (Kind::Service, json!({ "spec": spec }));
    let ports = |ports: Value| service(json!({ "ports": ports }));
    let slice = |fields: Value| {
        let mut slice = json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["10.1.2.3"] }] });
        let slice_fields = slice.as_object_mut().expect("the slice is an object");
        slice_fields.extend(fields.as_object().cloned().unwrap_or_default());
        (Kind::EndpointSlice, slice)
    };
    vec![
        ports(json!([{ "port": 80, "targetPort": 8080, "appProtocol": "kubernetes.io/h2c" }])),
        ports(json!([{ "port": 53, "name": "a" }, { "port": 53, "name": "b", "protocol": "UDP" }])),
        service(json!({ "clusterIP": "None" })),
        service(json!({ "type": "ExternalName", "externalName": "example.com" })),
        service(json!({})),
        ports(json!([{ "port": 0 }])),
        ports(json!([{ "port": 65536, "targetPort": 1 }])),
        ports(json!([{ "port": 80, "protocol": "tcp" }])),
        ports(json!([{ "port": 80, "targetPort": 70000 }])),
        ports(json!([{ "port": 80, "targetPort": "80" }])),
        ports(json!([{ "port": 80, "name": "HTTP" }])),
        ports(json!([{ "port": 80, "name": "a" }, { "port": 81 }])),
        ports(json!([{ "port": 80, "name": "a" }, { "port": 81, "name": "a" }])),
        ports(json!([{ "port": 80, "name": "a" }, { "port": 80, "name": "b" }])),
        ports(json!([{ "port": 80, "appProtocol": "h2c!" }])),
        service(json!({ "ports": [{ "port": 80 }], "type": "Nodeport" })),
        service(json!({ "type": "ExternalName" })),
        service(json!({ "type": "ExternalName", "externalName": "https://example.com" })),
        service(json!({ "clusterIP": "none", "ports": [{ "port": 80 }] })),
        service(json!({ "ports": [{ "port": 80 }], "prots": [] })),
        slice(json!({ "ports": [{ "name": "http", "port": 8080 }] })),
        slice(json!({ "endpoints": [{ "addresses": ["10.0.0.256"] }] })),
        slice(json!({ "endpoints": [{ "addresses": [] }] })),
        slice(json!({ "endpoints": [{ "addresses": ["127.0.0.1"] }] })),
        slice(json!({ "addressType": "IPv6" })),
        slice(json!({ "addressType": "IPv5" })),
        slice(json!({ "ports": [{ "port": 8080 }, { "port": 8081 }] })),
        slice(json!({ "ports": [{ "name": "HTTP", "port": 8080 }] })),
        slice(json!({ "ports": [{ "port": 8080, "protocol": "http" }] })),
        (Kind::Secret, json!({ "data": { "a": "YQ==" } })),
        (Kind::Secret, json!({ "data": { "a/b": "YQ==" } })),
        (Kind::Secret, json!({ "type": "kubernetes.io/tls", "data": { "tls.crt": "" } })),
        (Kind::ConfigMap, json!({ "data": { "a.b": "c" } })),
        (Kind::ConfigMap, json!({ "data": { "a b": "c" } })),
        (Kind::ConfigMap, json!({ "data": { "a": "b" }, "binaryData": { "a": "YQ==" } })),
        (Kind::ConfigMap, json!({ "metadata": { "name": "Upper" } })),
        (Kind::ConfigMap, json!({ "metadata": { "name": "one", "labels": { "a b": "c" } } })),
        (Kind::ConfigMap, json!({ "metadata": { "name": "one", "labels": { "a": "b c" } } })),
        (Kind::Namespace, json!({})),
        (Kind::Namespace, json!({ "metadata": { "name": "a.b" } })),
    ]
}
