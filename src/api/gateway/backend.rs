//! Where a route rule sends what it matched: one type for all kinds of route.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::Channel;
use super::filter::{self, Filter};
use super::schema::form;
use super::schema::rule::rule;
use super::schema::shape::{each, field, without};

/// A backend of a rule, with its share of the requests and, for HTTP and gRPC, filters of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    #[serde(flatten)]
    pub target: BackendObjectReference,
    /// Share of the requests, in proportion to the sum over the rule. 0 takes none.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: i32,
    #[serde(default)]
    #[schemars(length(max = 16), transform = filter::http_filters)]
    pub filters: Vec<Filter>,
}

/// The object behind a backend: a Service and its port, unless group and kind say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "self.group != '' || self.kind != 'Service' || has(self.port)",
    "a Service is named without a port; add port, the port number of the Service",
))]
#[schemars(transform = rule(
    "self.group != 'gateway.networking.x-k8s.io' || self.kind != 'XBackend' || !has(self.port)",
    "an XBackend is named with a port; remove port, the XBackend says it itself",
).only(Channel::Experimental))]
pub struct BackendObjectReference {
    #[serde(default)]
    #[schemars(transform = form::group)]
    pub group: String,
    #[serde(default = "service_kind")]
    #[schemars(transform = form::kind)]
    pub kind: String,
    #[schemars(transform = form::object_name)]
    pub name: String,
    #[schemars(transform = form::namespace)]
    pub namespace: Option<String>,
    #[schemars(transform = form::port)]
    pub port: Option<i32>,
}

/// Backends of a gRPC route: their filters are those of gRPC.
pub(super) fn grpc_backends(schema: &mut Schema) {
    each(field("filters", filter::grpc_filters)).transform(schema);
}

/// Backends of a route that knows nothing of requests: no filters.
pub(super) fn stream_backends(schema: &mut Schema) {
    each(without(["filters"])).transform(schema);
}

fn one() -> i32 {
    1
}

fn service_kind() -> String {
    "Service".to_owned()
}
