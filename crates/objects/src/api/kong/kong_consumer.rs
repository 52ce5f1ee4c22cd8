//! KongConsumer: an API client and its credentials.

use schemars::JsonSchema;
use serde::Deserialize;

use super::control_plane::{self, ControlPlaneRef, tags, without_namespace};
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::unique_entries;

/// A consumer of the served APIs, for example a person or a program. Its credentials are Secrets. Requests
/// authenticated with one of them are attributed to the consumer for rate limits, access lists and logs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = rule(
        "has(self.username) || has(self.custom_id)",
        "username and custom_id are missing; set at least one of them",
    ),
    transform = control_plane::immutable_when_programmed,
)]
pub struct KongConsumer {
    /// Name of the consumer, unique in the cluster. Sent to backends as X-Consumer-Username.
    pub username: Option<String>,
    /// ID of the consumer in an external system. Sent to backends as X-Consumer-Custom-Id.
    #[serde(rename = "custom_id")]
    pub custom_id: Option<String>,
    /// Names of Secrets in the same namespace. The label `konghq.com/credential` of each determines the type of the
    /// credential: key-auth, basic-auth, hmac-auth, jwt, mtls-auth, oauth2 or acl.
    #[serde(default)]
    #[schemars(transform = unique_entries)]
    pub credentials: Vec<String>,
    /// Names of KongConsumerGroups in the same namespace.
    #[serde(default)]
    #[schemars(transform = unique_entries)]
    pub consumer_groups: Vec<String>,
    /// Tags and control plane of the consumer.
    pub spec: Option<KongConsumerSpec>,
}

/// Tags and control plane of the consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_namespace())]
pub struct KongConsumerSpec {
    /// Control plane that the consumer belongs to; if absent or of type `kic`, this controller.
    pub control_plane_ref: Option<ControlPlaneRef>,
    /// Tags of the consumer, which have no effect: only Kong's logging plugins use them.
    #[serde(default)]
    #[schemars(transform = tags)]
    pub tags: Vec<String>,
}
