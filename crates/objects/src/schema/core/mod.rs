//! Kubernetes' own kinds: fields from the published API, and the checks that the API server implements in code.
//!
//! ```text
//!   fields.rs          the structural schemas, generated from k8s-openapi
//!   ingress.rs         Ingress: hosts, paths and backends; IngressClass: controller and parameters
//!   service.rs         ports, types, external names
//!   endpoint_slice.rs  addresses of the declared type, unique port names
//!   data.rs            Secret and ConfigMap: keys, sizes, required keys by type of Secret
//!   trust_bundle.rs    ClusterTrustBundle: size, the prefix of its name
//! ```

use serde_json::Value;

use super::report::ViolationReport;
use super::syntax::DNS_LABEL;
use crate::api::Kind;
use crate::api::names::NAMESPACE_NAME_LABEL;

mod data;
mod endpoint_slice;
mod fields;
mod ingress;
mod service;
mod trust_bundle;

pub(super) use fields::{object_meta, schema};

/// Applies the defaults and the checks that a schema cannot express.
pub(super) fn check(kind: Kind, object: &mut Value, report: &mut ViolationReport) {
    match kind {
        Kind::Ingress => ingress::check(object, report),
        Kind::IngressClass => ingress::check_ingress_class(object, report),
        Kind::Service => service::check(object, report),
        Kind::EndpointSlice => endpoint_slice::check(object, report),
        Kind::Secret => data::check_secret(object, report),
        Kind::ConfigMap => data::check_config_map(object, report),
        Kind::Namespace => label_with_name(object),
        Kind::ClusterTrustBundle => trust_bundle::check(object, report),
        _ => {}
    }
}

/// Adds the name label that the API server sets on every namespace, so that selectors can match it. A namespace whose
/// name is invalid gets none, because the label would be invalid, too.
fn label_with_name(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(name) = metadata.get("name").and_then(Value::as_str).filter(|name| (DNS_LABEL.accepts)(name)) else {
        return;
    };
    let name = Value::from(name);
    if let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| Value::Object(serde_json::Map::new())) {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name);
    }
}

#[cfg(test)]
mod tests;
