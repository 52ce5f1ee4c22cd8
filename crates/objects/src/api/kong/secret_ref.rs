//! References to keys of Secrets: in the same namespace for KongPlugin, in any namespace for KongClusterPlugin.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use crate::api::gateway::schema::transforms::{each, field, required, without};
use schemars::transform::Transform;

/// Source of the whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSource {
    /// A key of a Secret.
    pub secret_key_ref: SecretKeyRef,
}

/// A location in the configuration and the Secret that contains its value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigPatch {
    /// Location in `config` as a JSON pointer: `/redis/password`, `/add/headers`. Missing parents are created; the
    /// empty pointer replaces the whole configuration.
    pub path: String,
    /// Source of the value.
    pub value_from: PatchSource,
}

/// Source of the value of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchSource {
    /// A key of a Secret. The value is JSON, so a string is quoted: `"s3cret"`.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in the Secret's `data`.
    pub key: String,
    /// Namespace of the Secret.
    pub namespace: Option<String>,
}

/// Allows only Secrets in the same namespace: the references have no namespace.
pub(super) fn in_same_namespace(schema: &mut Schema) {
    transform_references(without(["namespace"]), without(["namespace"]), schema);
}

/// Allows Secrets in any namespace: the references must have a namespace.
pub(super) fn in_any_namespace(schema: &mut Schema) {
    transform_references(required(["namespace"]), required(["namespace"]), schema);
}

fn transform_references(in_source: impl Transform, in_patches: impl Transform, schema: &mut Schema) {
    field("configFrom", field("secretKeyRef", in_source)).transform(schema);
    field("configPatches", each(field("valueFrom", field("secretKeyRef", in_patches)))).transform(schema);
}
