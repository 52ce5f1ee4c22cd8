//! Structural schemas of Kong's kinds, generated from their types, and schema transforms that only these kinds need.

use schemars::Schema;
use serde_json::{Value, json};

use super::{
    IngressClassParameters, KongClusterPlugin, KongConsumer, KongConsumerGroup, KongCustomEntity, KongIngress,
    KongLicense, KongPlugin, KongServiceFacade, KongUpstreamPolicy, KongVault, TcpIngress, UdpIngress, status,
};
use crate::api::crd::object_schema;
use crate::api::gateway::schema::rule::{CelRule, rule};
use crate::api::kind::Kind;

/// The schema of a kind, as the derive macro returns it. `None` if the kind is not Kong's.
pub(in crate::api) fn derived_schema(kind: Kind) -> Option<Value> {
    let mut schema = match kind {
        Kind::IngressClassParameters => object_schema::<IngressClassParameters>(),
        Kind::KongPlugin => object_schema::<KongPlugin>(),
        Kind::KongClusterPlugin => object_schema::<KongClusterPlugin>(),
        Kind::KongConsumer => object_schema::<KongConsumer>(),
        Kind::KongConsumerGroup => object_schema::<KongConsumerGroup>(),
        Kind::KongUpstreamPolicy => object_schema::<KongUpstreamPolicy>(),
        Kind::KongIngress => object_schema::<KongIngress>(),
        Kind::KongVault => object_schema::<KongVault>(),
        Kind::KongLicense => object_schema::<KongLicense>(),
        Kind::KongCustomEntity => object_schema::<KongCustomEntity>(),
        Kind::KongServiceFacade => object_schema::<KongServiceFacade>(),
        Kind::TcpIngress => object_schema::<TcpIngress>(),
        Kind::UdpIngress => object_schema::<UdpIngress>(),
        _ => return None,
    };
    if let Some(status) = status::status_schema(kind) {
        schema["properties"]["status"] = status.to_value();
    }
    Some(schema)
}

/// Allows any fields in an object.
pub(super) fn free_form(schema: &mut Schema) {
    schema.remove("additionalProperties");
    schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
}

/// Removes the default of the type from the schema, so that the API server does not add an absent field.
pub(super) fn without_default(schema: &mut Schema) {
    schema.remove("default");
}

/// Makes a field immutable.
pub(super) fn immutable(name: &str, remedy: &str) -> CelRule {
    rule("oldSelf == self", format!("{name} is immutable; {remedy}"))
}
