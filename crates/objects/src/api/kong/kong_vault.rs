//! KongVault: an external source of secret configuration values.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::control_plane::{self, ControlPlaneRef, tags};
use super::schema::{free_form, immutable};

/// A vault with secret values, which replace references such as `{vault://PREFIX/PATH/KEY}` in the configurations of
/// plugins. Of several with one prefix, the oldest is used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(transform = control_plane::immutable_when_programmed)]
pub struct KongVault {
    /// Type of the vault and the prefix of references.
    pub spec: KongVaultSpec,
}

/// Type of the vault and the prefix of references.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KongVaultSpec {
    /// Type of the vault: env, hcv, aws, gcp or kubernetes. The types azure and conjur are not supported.
    #[schemars(length(min = 1))]
    pub backend: String,
    /// Prefix of references, after `vault://`. Immutable.
    #[schemars(length(min = 1), transform = immutable("prefix", "create another object for another prefix"))]
    pub prefix: String,
    /// Settings that depend on the backend, for example `prefix: SECRET_` for env.
    #[schemars(transform = free_form)]
    pub config: Option<Map<String, Value>>,
    /// Description of the vault.
    pub description: Option<String>,
    /// Tags of the vault.
    #[serde(default)]
    #[schemars(transform = tags)]
    pub tags: Vec<String>,
    /// Control plane that the vault belongs to; if absent or of type `kic`, this controller.
    pub control_plane_ref: Option<ControlPlaneRef>,
}
