//! What the API server would ask of each kind, generated from the types beside this file, and what attributes on them say
//! that is not said of Gateway API.

use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::{
    IngressClassParameters, KongClusterPlugin, KongConsumer, KongConsumerGroup, KongCustomEntity, KongIngress,
    KongLicense, KongPlugin, KongServiceFacade, KongUpstreamPolicy, KongVault, TcpIngress, UdpIngress, status,
};
use crate::api::gateway::Channel;
use crate::api::gateway::schema::rule::{Rule, rule};
use crate::api::gateway::schema::schema_of;
use crate::api::gateway::schema::settle::{settle, settle_described};
use crate::api::kind::{KONG_GROUP, KONG_INCUBATOR_GROUP, Kind};

/// Whether this is one of Kong's kinds.
pub fn has(kind: Kind) -> bool {
    [KONG_GROUP, KONG_INCUBATOR_GROUP].contains(&kind.group())
}

/// The structural schema of a kind, without descriptions. None for what is not Kong's.
pub fn structural(kind: Kind) -> Option<Value> {
    let mut schema = whole(kind)?;
    // There are no channels here; any of them does.
    settle(&mut schema, Channel::Standard);
    Some(schema)
}

/// The same with what `kubectl explain` shows.
pub fn described(kind: Kind) -> Option<Value> {
    let mut schema = whole(kind)?;
    settle_described(&mut schema, Channel::Standard);
    flow(&mut schema);
    Some(schema)
}

fn whole(kind: Kind) -> Option<Value> {
    let mut schema = match kind {
        Kind::IngressClassParameters => object::<IngressClassParameters>(),
        Kind::KongPlugin => object::<KongPlugin>(),
        Kind::KongClusterPlugin => object::<KongClusterPlugin>(),
        Kind::KongConsumer => object::<KongConsumer>(),
        Kind::KongConsumerGroup => object::<KongConsumerGroup>(),
        Kind::KongUpstreamPolicy => object::<KongUpstreamPolicy>(),
        Kind::KongIngress => object::<KongIngress>(),
        Kind::KongVault => object::<KongVault>(),
        Kind::KongLicense => object::<KongLicense>(),
        Kind::KongCustomEntity => object::<KongCustomEntity>(),
        Kind::KongServiceFacade => object::<KongServiceFacade>(),
        Kind::TcpIngress => object::<TcpIngress>(),
        Kind::UdpIngress => object::<UdpIngress>(),
        _ => return None,
    };
    if let Some(status) = status::of(kind) {
        schema["properties"]["status"] = status.to_value();
    }
    Some(schema)
}

/// The type is the whole object but for its head.
fn object<T: JsonSchema>() -> Value {
    let mut schema = schema_of::<T>().to_value();
    // The API server has its own words about these.
    for (name, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        schema["properties"][name] = json!({ "type": kind });
    }
    schema
}

/// Lets descriptions flow: a comment ends its lines where the source does, and `kubectl` breaks them itself.
fn flow(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
                *text = paragraphs.collect::<Vec<_>>().join("\n\n");
            }
            map.values_mut().for_each(flow);
        }
        Value::Array(values) => values.iter_mut().for_each(flow),
        _ => {}
    }
}

/// An object with any fields.
pub(super) fn free_form(schema: &mut Schema) {
    schema.remove("additionalProperties");
    schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
}

/// What is left out stays so, whatever we then take for it.
pub(super) fn unset(schema: &mut Schema) {
    schema.remove("default");
}

/// A field that stays what it was when the object was made.
pub(super) fn unchanged(name: &str, remedy: &str) -> Rule {
    rule("oldSelf == self", format!("{name} was changed; keep it, and {remedy}"))
}
