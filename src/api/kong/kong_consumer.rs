//! KongConsumer: somebody who asks, and how they prove it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::control_plane::{self, ControlPlaneRef, tags, without_namespace};
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::shape::set;
use crate::api::kind::{Kind, Resource};

/// A user of what is served: a person, a program, another company. Its credentials are Secrets; with one of them a request
/// is its own, for limits, access lists and logs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = rule(
        "has(self.username) || has(self.custom_id)",
        "neither username nor custom_id is set; write at least one of them",
    ),
    transform = control_plane::kept,
)]
pub struct KongConsumer {
    /// Name of the consumer, unlike that of any other consumer of the cluster. Sent to backends as X-Consumer-Username.
    pub username: Option<String>,
    /// What the consumer is called in a directory of yours. Sent to backends as X-Consumer-Custom-Id.
    #[serde(rename = "custom_id")]
    pub custom_id: Option<String>,
    /// Names of Secrets of the same namespace, each with the label `konghq.com/credential`, which says what kind of
    /// credential it holds: key-auth, basic-auth, jwt, acl and so on.
    #[serde(default)]
    #[schemars(transform = set)]
    pub credentials: Vec<String>,
    /// Names of KongConsumerGroups of the same namespace.
    #[serde(default)]
    #[schemars(transform = set)]
    pub consumer_groups: Vec<String>,
    /// Tags, and which control plane the consumer is for.
    pub spec: Option<KongConsumerSpec>,
}

impl Resource for KongConsumer {
    const KIND: Kind = Kind::KongConsumer;
}

/// Tags, and which control plane the consumer is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_namespace())]
pub struct KongConsumerSpec {
    /// The control plane that the consumer is for; left out, or of type `kic`: this controller.
    pub control_plane_ref: Option<ControlPlaneRef>,
    /// Words to find the consumer by, in logs.
    #[serde(default)]
    #[schemars(transform = tags)]
    pub tags: Vec<String>,
}
