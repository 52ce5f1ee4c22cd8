//! KongCustomEntity: an entity of a type that a plugin defines, written by users in addition to the plugin's
//! configuration (`compile/kong/plugins/custom_entities.rs`).

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::schema::{free_form, immutable};
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;

/// An entity of a type that a plugin defines: an element of a list in the configuration of the KongPlugin that
/// `parentRef` names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongCustomEntity {
    /// Type and fields of the entity.
    pub spec: KongCustomEntitySpec,
}

/// Type and fields of the entity.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KongCustomEntitySpec {
    /// Name of the IngressClass whose controller handles the entity.
    pub controller_name: String,
    /// Type of the entity, for example `degraphql_routes`. Immutable.
    #[serde(rename = "type")]
    #[schemars(transform = immutable("type", "create another object for another type"), transform = rule(
        "!(self in ['services', 'routes', 'upstreams', 'targets', 'plugins', 'consumers', 'consumer_groups'])",
        "entities of this type are derived from other objects; use Ingress, Service, KongPlugin, KongConsumer or \
         KongConsumerGroup",
    ))]
    pub kind: String,
    /// Fields of the entity.
    #[schemars(transform = free_form)]
    pub fields: Map<String, Value>,
    /// The plugin that the entity belongs to, for everything that the plugin is attached to. Required in Portico.
    pub parent_ref: Option<CustomEntityParent>,
}

/// The plugin of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct CustomEntityParent {
    /// Group of the plugin; defaults to configuration.konghq.com.
    pub group: Option<String>,
    /// Kind of the plugin, KongPlugin or KongClusterPlugin; defaults to KongPlugin.
    #[schemars(transform = form::one_of(["KongPlugin", "KongClusterPlugin"]))]
    pub kind: Option<String>,
    /// Name of the plugin.
    pub name: String,
    /// Namespace of a KongPlugin; another namespace requires a ReferenceGrant there.
    pub namespace: Option<String>,
}
