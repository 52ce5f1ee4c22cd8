//! Backends of route rules: one type for all kinds of route.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::Channel;
use super::filter::{self, Filter};
use super::schema::form;
use super::schema::rule::rule;
use super::schema::transforms::{each, field, without};

/// A backend of a rule with its weight and, for HTTP and gRPC, its filters.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    #[serde(flatten)]
    pub target: BackendObjectReference,
    /// Share of the requests, relative to the sum of the weights in the rule; 0 means no requests.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: i32,
    #[serde(default)]
    #[schemars(length(max = 16), transform = filter::http_filters)]
    pub filters: Vec<Filter>,
}

/// The object that a backend refers to: a Service and its port, unless `group` or `kind` says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "self.group != '' || self.kind != 'Service' || has(self.port)",
    "a reference to a Service needs a port; add port, the port number of the Service",
))]
#[schemars(transform = rule(
    "self.group != 'gateway.networking.x-k8s.io' || self.kind != 'XBackend' || !has(self.port)",
    "a reference to an XBackend has a port; remove port, the XBackend contains it",
).only(Channel::Experimental))]
pub struct BackendObjectReference {
    /// Group of the object; empty for a Service.
    #[serde(default)]
    #[schemars(transform = form::group)]
    pub group: String,
    /// Kind of the object.
    #[serde(default = "service_kind")]
    #[schemars(transform = form::kind)]
    pub kind: String,
    /// Name of the object.
    #[schemars(transform = form::object_name)]
    pub name: String,
    /// Namespace of the object; defaults to that of the referrer.
    #[schemars(transform = form::namespace)]
    pub namespace: Option<String>,
    /// Port of the Service.
    #[schemars(transform = form::port)]
    pub port: Option<i32>,
}

/// Restricts backends of a gRPC route to gRPC filters.
pub(super) fn grpc_backends(schema: &mut Schema) {
    each(field("filters", filter::grpc_filters)).transform(schema);
}

/// Removes filters from backends of a TCP, UDP or TLS route.
pub(super) fn stream_backends(schema: &mut Schema) {
    each(without(["filters"])).transform(schema);
}

fn default_weight() -> i32 {
    1
}

fn service_kind() -> String {
    "Service".to_owned()
}
