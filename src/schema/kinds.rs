//! The compiled schema of each kind, channel and version, made when it is first asked for.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::tree::Node;
use super::{Channel, core};
use crate::api::Kind;
use crate::api::gateway::schema::{served, structural_of};
use crate::api::kong;

const MOST_VERSIONS: usize = 3;

type Slot = OnceLock<Option<Arc<Node>>>;

static TREES: [[[Slot; MOST_VERSIONS]; Channel::ALL.len()]; Kind::ALL.len()] =
    [const { [const { [const { OnceLock::new() }; MOST_VERSIONS] }; Channel::ALL.len()] }; Kind::ALL.len()];

/// The versions of a kind in a channel, the preferred one first; none at all if the channel lacks the kind.
pub(super) fn versions(kind: Kind, channel: Channel) -> &'static [&'static str] {
    if core::has(kind) || kong::schema::has(kind) { kind.versions() } else { served(kind, channel) }
}

/// The tree for objects of this `apiVersion`, or that of the preferred version if there is no such one.
pub(super) fn tree(kind: Kind, channel: Channel, version: &str) -> Option<&'static Node> {
    // Only Gateway API has channels.
    let channel = if core::has(kind) || kong::schema::has(kind) { Channel::Standard } else { channel };
    let versions = versions(kind, channel);
    let index = versions.iter().position(|served| *served == version).unwrap_or(0);
    let version = versions.get(index)?;
    TREES[kind as usize][channel as usize][index]
        .get_or_init(|| {
            let schema = schema(kind, channel, version)?;
            // Most versions differ in name only.
            if index > 0 && Some(&schema) == self::schema(kind, channel, versions[0]).as_ref() {
                tree(kind, channel, versions[0])?;
                return TREES[kind as usize][channel as usize][0].get()?.clone();
            }
            let node = Node::compile(&with_head(schema));
            Some(Arc::new(node.expect("a test compiles the schema of every kind, channel and version")))
        })
        .as_deref()
}

/// The schema as it comes, without a head.
fn schema(kind: Kind, channel: Channel, version: &str) -> Option<Value> {
    core::schema(kind).or_else(|| kong::schema::structural(kind)).or_else(|| structural_of(kind, version, channel))
}

/// Adds what every object has. CRDs say of metadata only that it is an object; the API server knows the rest.
fn with_head(mut schema: Value) -> Value {
    let Some(root) = schema.as_object_mut() else { return schema };
    let Value::Object(properties) = root.entry("properties").or_insert_with(|| json!({})) else { return schema };
    properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
    properties.insert("kind".to_owned(), json!({"type": "string"}));
    properties.insert("metadata".to_owned(), core::object_meta());
    let Value::Array(required) = root.entry("required").or_insert_with(|| json!([])) else { return schema };
    for (index, name) in ["apiVersion", "kind", "metadata"].into_iter().enumerate() {
        if !required.iter().any(|known| known == name) {
            required.insert(index.min(required.len()), json!(name));
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kind::GATEWAY_X_GROUP;

    #[test]
    fn every_schema_compiles_and_has_a_head() {
        for kind in Kind::ALL {
            for channel in Channel::ALL {
                let versions = versions(*kind, channel);
                let absent = kind.group() == GATEWAY_X_GROUP && channel == Channel::Standard;
                assert_eq!(versions.is_empty(), absent, "{kind} {channel:?}");
                assert!(versions.len() <= MOST_VERSIONS, "{kind}");
                assert_eq!(tree(*kind, channel, "v1").is_none(), absent, "{kind} {channel:?}");
                for version in versions {
                    let fields = tree(*kind, channel, version).unwrap().fields.as_ref().unwrap();
                    for name in ["apiVersion", "kind", "metadata"] {
                        assert!(fields.known(name).is_some(), "{kind} {version} has {name}");
                    }
                }
            }
        }
    }

    #[test]
    fn versions_that_differ_in_name_only_share_a_tree() {
        let at = |kind, version| tree(kind, Channel::Experimental, version).map(std::ptr::from_ref);
        assert_eq!(at(Kind::HttpRoute, "v1"), at(Kind::HttpRoute, "v1beta1"));
        assert_ne!(at(Kind::TcpRoute, "v1"), at(Kind::TcpRoute, "v1alpha2"));
        assert_eq!(
            at(Kind::HttpRoute, "v1"),
            at(Kind::HttpRoute, "v7"),
            "an unknown version is judged as the preferred one"
        );
    }
}
