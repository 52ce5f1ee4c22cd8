//! The external authorization filter: another server decides whether a request may pass.

use schemars::JsonSchema;
use serde::Deserialize;

use super::backend::BackendObjectReference;
use super::schema::form;
use super::schema::shape::set;
use super::schema::union::{member, union};

/// `protocol` says which of `grpc` and `http` is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("protocol", [member("HTTP", "http"), member("GRPC", "grpc")]))]
pub struct ExternalAuth {
    pub protocol: String,
    pub backend_ref: BackendObjectReference,
    pub grpc: Option<GrpcAuth>,
    pub http: Option<HttpAuth>,
    /// Without it no body is sent along.
    pub forward_body: Option<ForwardBody>,
}

/// Envoy's `ext_authz` protocol.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcAuth {
    /// Request headers that are sent along. None means all.
    #[serde(default)]
    #[schemars(length(max = 64), transform = set)]
    pub allowed_headers: Vec<String>,
}

/// A request to the server, whose status decides: 200 passes, all else is the answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpAuth {
    /// Put before the path of the request.
    #[schemars(transform = form::url_path)]
    pub path: Option<String>,
    /// Request headers that are sent along, beside the ones that always are.
    #[serde(default)]
    #[schemars(length(max = 64), transform = set)]
    pub allowed_headers: Vec<String>,
    /// Headers of the server's answer that the backend gets to see. None means all.
    #[serde(default)]
    #[schemars(length(max = 64), transform = set)]
    pub allowed_response_headers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBody {
    /// Bytes of the body at most. 0 sends none.
    #[schemars(range(min = 0))]
    pub max_size: Option<i32>,
}
