//! Kubernetes' own kinds: fields from the published API, and the checks that the API server implements in code.
//!
//! ```text
//!   fields.rs          the structural schemas, generated from k8s-openapi
//!   ingress.rs         hosts, paths and backends; controllers of classes
//!   service.rs         ports, types, external names
//!   endpoint_slice.rs  addresses of the right family, bounded numbers
//!   data.rs            Secret and ConfigMap: keys, sizes, required keys by type of Secret
//! ```

use serde_json::Value;

use super::report::ViolationReport;
use crate::api::Kind;
use crate::api::names::NAMESPACE_NAME_LABEL;

mod data;
mod endpoint_slice;
mod fields;
mod ingress;
mod service;

pub(super) use fields::{object_meta, schema};

/// Applies defaults and checks beyond the schema.
pub(super) fn check(kind: Kind, object: &mut Value, report: &mut ViolationReport) {
    match kind {
        Kind::Ingress => ingress::check(object, report),
        Kind::IngressClass => ingress::check_ingress_class(object, report),
        Kind::Service => service::check(object, report),
        Kind::EndpointSlice => endpoint_slice::check(object, report),
        Kind::Secret => data::check_secret(object, report),
        Kind::ConfigMap => data::check_config_map(object, report),
        Kind::Namespace => label_with_name(object),
        _ => {}
    }
}

/// Adds the name label that the API server sets on every namespace, so that selectors can match it.
fn label_with_name(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(name) = metadata.get("name").filter(|name| name.is_string()).cloned() else { return };
    if let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| Value::Object(serde_json::Map::new())) {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name);
    }
}

#[cfg(test)]
mod tests;
