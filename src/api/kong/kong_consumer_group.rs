//! KongConsumerGroup: consumers who are treated alike.

use schemars::JsonSchema;
use serde::Deserialize;

use super::control_plane::{self, ControlPlaneRef, tags, without_namespace};
use crate::api::kind::{Kind, Resource};

/// Consumers who are treated alike: they name the group in `consumerGroups`, and its plugins run for them. The group is
/// called as the object is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(transform = control_plane::kept)]
pub struct KongConsumerGroup {
    /// Tags, and which control plane the group is for.
    pub spec: Option<KongConsumerGroupSpec>,
}

impl Resource for KongConsumerGroup {
    const KIND: Kind = Kind::KongConsumerGroup;
}

/// Tags, and which control plane the group is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_namespace())]
pub struct KongConsumerGroupSpec {
    /// The control plane that the group is for; left out, or of type `kic`: this controller.
    pub control_plane_ref: Option<ControlPlaneRef>,
    /// Has no effect here: the name of the object is the name of the group.
    pub name: Option<String>,
    /// Words to find the group by, in logs.
    #[serde(default)]
    #[schemars(transform = tags)]
    pub tags: Vec<String>,
}
