//! Spec shared by TCPRoute and UDPRoute, and rules shared with TLSRoute.

use schemars::JsonSchema;
use serde::Deserialize;

use super::backend::{self, BackendRef};
use super::reference::{self, ParentReference};
use super::schema::form;
use super::schema::transforms::experimental;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteSpec {
    #[serde(default)]
    #[schemars(length(max = 32), transform = reference::parents_differ)]
    pub parent_refs: Vec<ParentReference>,
    #[schemars(transform = experimental, transform = form::one_of(["All", "None"]))]
    pub use_default_gateways: Option<String>,
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<StreamRouteRule>,
}

/// All connections or datagrams go to one of the backends.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteRule {
    #[schemars(transform = form::section_name)]
    pub name: Option<String>,
    #[schemars(length(min = 1, max = 16), transform = backend::stream_backends)]
    pub backend_refs: Vec<BackendRef>,
}
