//! The spec that TCPRoute and UDPRoute share, and the type of its rules, which TLSRoute uses, too.

use schemars::JsonSchema;
use serde::Deserialize;

use super::backend::{self, BackendRef};
use super::route_spec::route_spec;
use super::schema::form;

route_spec! {
    StreamRouteSpec {
        #[schemars(length(min = 1, max = 1))]
        pub rules: Vec<StreamRouteRule>,
    }
}

/// The backends of all connections or datagrams that reach the route.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteRule {
    #[schemars(transform = form::section_name)]
    pub name: Option<String>,
    #[schemars(length(min = 1, max = 16), transform = backend::stream_backends)]
    pub backend_refs: Vec<BackendRef>,
}
