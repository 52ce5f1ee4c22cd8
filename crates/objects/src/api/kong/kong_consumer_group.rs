//! KongConsumerGroup: a group of consumers with common plugins.

use schemars::JsonSchema;
use serde::Deserialize;

use super::control_plane::{self, ControlPlaneRef, tags, without_namespace};

/// A group of consumers with common plugins. Consumers list it in `consumerGroups`. The name of the object is the name
/// of the group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(transform = control_plane::immutable_when_programmed)]
pub struct KongConsumerGroup {
    /// Tags and control plane of the group.
    pub spec: Option<KongConsumerGroupSpec>,
}

/// Tags and control plane of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_namespace())]
pub struct KongConsumerGroupSpec {
    /// Control plane that the group belongs to; if absent or of type `kic`, this controller.
    pub control_plane_ref: Option<ControlPlaneRef>,
    /// Has no effect: the name of the object is the name of the group.
    pub name: Option<String>,
    /// Tags of the group, which have no effect: only Kong's logging plugins use them.
    #[serde(default)]
    #[schemars(transform = tags)]
    pub tags: Vec<String>,
}
