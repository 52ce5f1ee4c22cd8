//! TCPRoute: forwards TCP connections of a listener to backends.

use schemars::JsonSchema;
use serde::Deserialize;

use super::stream_route::StreamRouteSpec;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct TcpRoute {
    pub spec: StreamRouteSpec,
}
