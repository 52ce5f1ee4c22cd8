//! The compiled schema of each kind in each channel, made when it is first asked for.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::tree::Node;
use super::{Channel, core};
use crate::api::Kind;

const CHANNELS: usize = 2;

type Slot = OnceLock<Option<Node>>;

static TREES: [[Slot; CHANNELS]; Kind::ALL.len()] = [const { [const { OnceLock::new() }; CHANNELS] }; Kind::ALL.len()];

/// The tree of a kind, or None if the channel does not have that kind.
pub(super) fn tree(kind: Kind, channel: Channel) -> Option<&'static Node> {
    TREES[kind as usize][channel as usize]
        .get_or_init(|| {
            let schema = with_head(schema(kind, channel)?);
            Some(Node::compile(&schema).expect("a test compiles the schema of every kind and channel"))
        })
        .as_ref()
}

/// The schema of a kind as it comes, without a head.
fn schema(kind: Kind, _channel: Channel) -> Option<Value> {
    Some(core::schema(kind).unwrap_or_else(open_object))
}

/// Adds what every object has. CRDs say of metadata only that it is an object; the API server knows the rest.
fn with_head(mut schema: Value) -> Value {
    let Some(root) = schema.as_object_mut() else { return schema };
    let Value::Object(properties) = root.entry("properties").or_insert_with(|| json!({})) else { return schema };
    properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
    properties.insert("kind".to_owned(), json!({"type": "string"}));
    properties.insert("metadata".to_owned(), core::object_meta());
    // A status that was saved along with the object is nothing a manifest decides about.
    properties.entry("status").or_insert_with(open_object);
    let Value::Array(required) = root.entry("required").or_insert_with(|| json!([])) else { return schema };
    for name in ["apiVersion", "kind", "metadata"] {
        if !required.iter().any(|known| known == name) {
            required.push(json!(name));
        }
    }
    schema
}

fn open_object() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_compiles_and_has_a_head() {
        for kind in Kind::ALL {
            for channel in [Channel::Standard, Channel::Experimental] {
                let tree = tree(*kind, channel).unwrap_or_else(|| panic!("{kind} has a schema"));
                let fields = tree.fields.as_ref().unwrap();
                for name in ["apiVersion", "kind", "metadata"] {
                    assert!(fields.known(name).is_some(), "{kind} has {name}");
                }
            }
        }
    }
}
