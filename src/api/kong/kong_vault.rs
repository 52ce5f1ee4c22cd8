//! KongVault: where secret values of configurations are looked up.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::control_plane::{self, ControlPlaneRef, tags};
use super::schema::{free_form, unchanged};
use crate::api::kind::{Kind, Resource};

/// A place that keeps secrets outside of the cluster. A field of a plugin that is marked as referenceable takes
/// `{vault://PREFIX/PATH/KEY}` for a value of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(transform = control_plane::kept)]
pub struct KongVault {
    /// What kind of place it is, and how values refer to it.
    pub spec: KongVaultSpec,
}

impl Resource for KongVault {
    const KIND: Kind = Kind::KongVault;
}

/// What kind of place it is, and how values refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KongVaultSpec {
    /// What keeps the secrets: env, aws, gcp, hcv, azure or conjur.
    #[schemars(length(min = 1))]
    pub backend: String,
    /// What references begin with, behind `vault://`. It cannot be changed.
    #[schemars(length(min = 1), transform = unchanged("prefix", "make another object for another prefix"))]
    pub prefix: String,
    /// How to reach the place, in fields that depend on the backend, for example `prefix: SECRET_` for env.
    #[schemars(transform = free_form)]
    pub config: Option<Map<String, Value>>,
    /// Words for people.
    pub description: Option<String>,
    /// Words to find the vault by.
    #[serde(default)]
    #[schemars(transform = tags)]
    pub tags: Vec<String>,
    /// The control plane that the vault is for; left out, or of type `kic`: this controller.
    pub control_plane_ref: Option<ControlPlaneRef>,
}
