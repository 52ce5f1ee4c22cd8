//! The compiled schema of each kind, channel and version, compiled on first use.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::tree::SchemaNode;
use super::{Channel, core};
use crate::api::gateway::schema::{served_versions, structural_of_version};
use crate::api::kind::KindFamily;
use crate::api::{Kind, definitions};

const MAX_VERSIONS: usize = 3;

type CompiledTree = OnceLock<Option<Arc<SchemaNode>>>;

static TREES: [[[CompiledTree; MAX_VERSIONS]; Channel::ALL.len()]; Kind::ALL.len()] =
    [const { [const { [const { OnceLock::new() }; MAX_VERSIONS] }; Channel::ALL.len()] }; Kind::ALL.len()];

/// The versions of a kind in a channel, the preferred one first; empty if the channel lacks the kind.
pub(super) fn versions(kind: Kind, channel: Channel) -> &'static [&'static str] {
    match kind.family() {
        KindFamily::GatewayApi => served_versions(kind, channel),
        KindFamily::Kubernetes | KindFamily::Kong | KindFamily::Portico => kind.versions(),
    }
}

/// The tree for objects of this version, or for the preferred version if this one is unknown. `None` if the channel
/// lacks the kind.
pub(super) fn tree(kind: Kind, channel: Channel, version: &str) -> Option<&'static SchemaNode> {
    // Only the Gateway API has channels.
    let channel = if kind.family() == KindFamily::GatewayApi { channel } else { Channel::Standard };
    let versions = versions(kind, channel);
    let index = versions.iter().position(|served| *served == version).unwrap_or(0);
    let version = versions.get(index)?;
    TREES[kind as usize][channel as usize][index]
        .get_or_init(|| {
            let schema = schema(kind, channel, version)?;
            // Most versions of a kind have the same schema, so they share a tree.
            if index > 0 && Some(&schema) == self::schema(kind, channel, versions[0]).as_ref() {
                tree(kind, channel, versions[0])?;
                return TREES[kind as usize][channel as usize][0].get()?.clone();
            }
            let node = SchemaNode::compile(&with_object_fields(schema));
            Some(Arc::new(node.expect("a test compiles the schema of every kind, channel and version")))
        })
        .as_deref()
}

/// The schema as in the CustomResourceDefinition or the published API, where the fields of `metadata` are missing.
pub(super) fn schema(kind: Kind, channel: Channel, version: &str) -> Option<Value> {
    match kind.family() {
        KindFamily::GatewayApi => structural_of_version(kind, version, channel),
        KindFamily::Kubernetes => core::schema(kind),
        KindFamily::Kong | KindFamily::Portico => definitions::structural(kind),
    }
}

/// Adds the fields that every object has: `apiVersion`, `kind`, and `metadata` with its fields.
fn with_object_fields(mut schema: Value) -> Value {
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
    use crate::api::kind::{GATEWAY_X_GROUP, StatusUse};

    #[test]
    fn every_schema_compiles_and_has_metadata() {
        for kind in Kind::ALL {
            for channel in Channel::ALL {
                let versions = versions(*kind, channel);
                let absent = kind.group() == GATEWAY_X_GROUP && channel == Channel::Standard;
                assert_eq!(versions.is_empty(), absent, "{kind} {channel:?}");
                assert!(versions.len() <= MAX_VERSIONS, "{kind}");
                assert_eq!(tree(*kind, channel, "v1").is_none(), absent, "{kind} {channel:?}");
                for version in versions {
                    let fields = tree(*kind, channel, version).unwrap().fields.as_ref().unwrap();
                    for name in ["apiVersion", "kind", "metadata"] {
                        assert!(fields.known_node(name).is_some(), "{kind} {version} has {name}");
                    }
                }
            }
        }
    }

    #[test]
    fn statuses_match_the_table_of_kinds() {
        for kind in Kind::ALL {
            let schema = schema(*kind, Channel::Experimental, kind.versions()[0]);
            let schema = schema.unwrap_or_else(|| panic!("{kind} has no schema; add it to the schemas of its family"));
            let has_status = schema["properties"].get("status").is_some();
            match kind.family() {
                // Objects of these kinds may have a status that Portico does not use.
                KindFamily::Kubernetes => assert!(has_status || !kind.has_written_status(), "{kind} has no status"),
                KindFamily::GatewayApi | KindFamily::Kong | KindFamily::Portico => assert_eq!(
                    has_status,
                    kind.status_use() != StatusUse::Ignored,
                    "{kind}: its schema and its row in the table of kinds disagree about a status"
                ),
            }
        }
    }

    #[test]
    fn identical_versions_share_a_tree() {
        let tree_of = |kind, version| tree(kind, Channel::Experimental, version).map(std::ptr::from_ref);
        assert_eq!(tree_of(Kind::HttpRoute, "v1"), tree_of(Kind::HttpRoute, "v1beta1"));
        assert_ne!(tree_of(Kind::TcpRoute, "v1"), tree_of(Kind::TcpRoute, "v1alpha2"));
        assert_eq!(
            tree_of(Kind::HttpRoute, "v1"),
            tree_of(Kind::HttpRoute, "v7"),
            "an unknown version is validated as the preferred one"
        );
    }
}
