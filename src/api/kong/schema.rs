//! Structural schemas of Kong's kinds, generated from their types, and schema transforms that only these kinds need.

use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::{
    IngressClassParameters, KongClusterPlugin, KongConsumer, KongConsumerGroup, KongCustomEntity, KongIngress,
    KongLicense, KongPlugin, KongServiceFacade, KongUpstreamPolicy, KongVault, TcpIngress, UdpIngress, status,
};
use crate::api::gateway::Channel;
use crate::api::gateway::schema::rule::{CelRule, rule};
use crate::api::gateway::schema::schema_of;
use crate::api::gateway::schema::to_structural::{to_structural, to_structural_with_descriptions};
use crate::api::kind::Kind;

/// The structural schema of a kind, without descriptions. `None` if the kind is not Kong's.
pub fn structural(kind: Kind) -> Option<Value> {
    let mut schema = derived_schema(kind)?;
    // Kong's kinds have no channels, so the argument does not matter.
    to_structural(&mut schema, Channel::Standard);
    Some(schema)
}

/// The structural schema of a kind, with descriptions for `kubectl explain`. `None` if the kind is not Kong's.
pub fn described(kind: Kind) -> Option<Value> {
    let mut schema = derived_schema(kind)?;
    to_structural_with_descriptions(&mut schema, Channel::Standard);
    join_description_lines(&mut schema);
    Some(schema)
}

fn derived_schema(kind: Kind) -> Option<Value> {
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

/// Schema of a type that represents an object without its metadata.
fn object_schema<T: JsonSchema>() -> Value {
    let mut schema = schema_of::<T>().to_value();
    // The API server has its own descriptions for these fields.
    for (name, json_type) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        schema["properties"][name] = json!({ "type": json_type });
    }
    schema
}

/// Joins the lines of each paragraph in descriptions, since `kubectl` wraps them itself.
fn join_description_lines(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
                *text = paragraphs.collect::<Vec<_>>().join("\n\n");
            }
            map.values_mut().for_each(join_description_lines);
        }
        Value::Array(values) => values.iter_mut().for_each(join_description_lines),
        _ => {}
    }
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
