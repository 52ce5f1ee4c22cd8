//! References to a key of a Secret, from a KongPlugin to its own namespace and from a KongClusterPlugin to any.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use crate::api::gateway::schema::shape::{each, field, required, without};
use schemars::transform::Transform;

/// Where to take the whole configuration from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSource {
    /// A key of a Secret.
    pub secret_key_ref: SecretKeyRef,
}

/// One location of the configuration, and the Secret whose key holds its value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigPatch {
    /// Where in `config` the value goes, as a JSON pointer: `/redis/password`, `/add/headers`. What is missing on the way
    /// is created; the empty pointer replaces the whole configuration.
    pub path: String,
    /// Where the value is taken from.
    pub value_from: PatchSource,
}

/// Where the value of a patch is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchSource {
    /// A key of a Secret. What it holds is JSON: a string stands in quotes there, `"s3cret"`.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key below the Secret's `data`.
    pub key: String,
    /// Namespace of the Secret.
    pub namespace: Option<String>,
}

/// Secrets of the own namespace only.
pub(super) fn local(schema: &mut Schema) {
    of_references(without(["namespace"]), without(["namespace"]), schema);
}

/// Secrets whose namespace is always said.
pub(super) fn anywhere(schema: &mut Schema) {
    of_references(required(["namespace"]), required(["namespace"]), schema);
}

fn of_references(in_source: impl Transform, in_patches: impl Transform, schema: &mut Schema) {
    field("configFrom", field("secretKeyRef", in_source)).transform(schema);
    field("configPatches", each(field("valueFrom", field("secretKeyRef", in_patches)))).transform(schema);
}
