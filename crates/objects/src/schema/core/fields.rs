//! The structural schemas of Kubernetes' own kinds, with all fields, since they are generated from the published API.

use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::api::Kind;

/// The schema of one of Kubernetes' own kinds, with the API server's defaults.
pub(in crate::schema) fn schema(kind: Kind) -> Option<Value> {
    let mut schema = match kind {
        Kind::Ingress => structural::<Ingress>(),
        Kind::IngressClass => structural::<IngressClass>(),
        Kind::Service => structural::<Service>(),
        Kind::EndpointSlice => structural::<EndpointSlice>(),
        Kind::Secret => structural::<Secret>(),
        Kind::ConfigMap => structural::<ConfigMap>(),
        Kind::Namespace => structural::<Namespace>(),
        Kind::ClusterTrustBundle => structural::<ClusterTrustBundle>(),
        _ => return None,
    };
    for (pointer, keywords) in additions(kind) {
        let node = schema.pointer_mut(pointer).and_then(Value::as_object_mut);
        let node = node.expect("a test builds the schema of every kind");
        for (keyword, value) in keywords.as_object().into_iter().flatten() {
            node.insert(keyword.clone(), value.clone());
        }
    }
    Some(schema)
}

/// The schema of `metadata` for every kind.
pub(in crate::schema) fn object_meta() -> Value {
    structural::<ObjectMeta>()
}

/// JSON pointers into the schema, and the keywords to set there: defaults, enums, bounds and required fields that the
/// published schema lacks or describes in prose only.
fn additions(kind: Kind) -> Vec<(&'static str, Value)> {
    let port = json!({"minimum": 1, "maximum": 65535});
    let protocol = json!({"enum": ["TCP", "UDP", "SCTP"], "default": "TCP"});
    match kind {
        Kind::Ingress => vec![
            ("", json!({"required": ["spec"]})),
            ("/properties/spec/properties/rules/items/properties/http/properties/paths", json!({"minItems": 1})),
            (
                "/properties/spec/properties/rules/items/properties/http/properties/paths/items/properties/pathType",
                json!({"enum": ["Exact", "ImplementationSpecific", "Prefix"]}),
            ),
        ],
        Kind::IngressClass => vec![
            ("", json!({"required": ["spec"]})),
            (
                "/properties/spec/properties/parameters/properties/scope",
                json!({"enum": ["Cluster", "Namespace"], "default": "Cluster"}),
            ),
        ],
        Kind::Service => vec![
            ("", json!({"required": ["spec"]})),
            (
                "/properties/spec/properties/type",
                json!({"enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"], "default": "ClusterIP"}),
            ),
            ("/properties/spec/properties/sessionAffinity", json!({"enum": ["None", "ClientIP"], "default": "None"})),
            ("/properties/spec/properties/internalTrafficPolicy", json!({"enum": ["Cluster", "Local"]})),
            ("/properties/spec/properties/externalTrafficPolicy", json!({"enum": ["Cluster", "Local"]})),
            (
                "/properties/spec/properties/ipFamilyPolicy",
                json!({"enum": ["SingleStack", "PreferDualStack", "RequireDualStack"]}),
            ),
            ("/properties/spec/properties/ipFamilies/items", json!({"enum": ["IPv4", "IPv6"]})),
            ("/properties/spec/properties/ports/items/properties/port", port),
            ("/properties/spec/properties/ports/items/properties/nodePort", json!({"minimum": 0, "maximum": 65535})),
            ("/properties/spec/properties/ports/items/properties/protocol", protocol),
        ],
        Kind::EndpointSlice => vec![
            // The published schema also requires `endpoints`; the API server accepts a slice without them.
            ("", json!({"required": ["addressType"]})),
            ("/properties/addressType", json!({"enum": ["IPv4", "IPv6", "FQDN"]})),
            ("/properties/endpoints", json!({"maxItems": 1000})),
            ("/properties/endpoints/items/properties/addresses", json!({"minItems": 1, "maxItems": 100})),
            ("/properties/ports", json!({"maxItems": 100})),
            ("/properties/ports/items/properties/port", port),
            ("/properties/ports/items/properties/name", json!({"default": ""})),
            ("/properties/ports/items/properties/protocol", protocol),
        ],
        Kind::Secret => vec![("/properties/type", json!({"default": "Opaque"}))],
        _ => Vec::new(),
    }
}

fn structural<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    apply_go_decoding_rules(&mut schema);
    schema
}

/// Adds what follows from the API server's decoding: an object without published fields (`fieldsV1`) may have any
/// fields, and null in a map of strings is the empty string.
fn apply_go_decoding_rules(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_opaque = map.get("type").and_then(Value::as_str) == Some("object")
                && !map.contains_key("properties")
                && !map.contains_key("additionalProperties");
            if is_opaque {
                map.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
            }
            if let Some(Value::Object(values)) = map.get_mut("additionalProperties")
                && values.get("type").and_then(Value::as_str) == Some("string")
            {
                values.insert("default".to_owned(), json!(""));
            }
            map.values_mut().for_each(apply_go_decoding_rules);
        }
        Value::Array(values) => values.iter_mut().for_each(apply_go_decoding_rules),
        _ => {}
    }
}
