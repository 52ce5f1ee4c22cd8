//! The external authorization filter: an authorization server allows or denies each request.

use schemars::JsonSchema;
use serde::Deserialize;

use super::backend::BackendObjectReference;
use super::schema::form;
use super::schema::transforms::set;
use super::schema::union::{member, union};

/// `protocol` determines which of `grpc` and `http` is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("protocol", [member("HTTP", "http"), member("GRPC", "grpc")]))]
pub struct ExternalAuth {
    pub protocol: String,
    pub backend_ref: BackendObjectReference,
    pub grpc: Option<GrpcAuth>,
    pub http: Option<HttpAuth>,
    /// If absent, no body is sent.
    pub forward_body: Option<ForwardBody>,
}

/// Envoy's `ext_authz` protocol.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcAuth {
    /// Request headers sent to the server. Empty means all.
    #[serde(default)]
    #[schemars(length(max = 64), transform = set)]
    pub allowed_headers: Vec<String>,
}

/// An HTTP request to the server: status 200 allows the request, any other response is returned to the client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpAuth {
    /// Prefix for the path of the request.
    #[schemars(transform = form::url_path)]
    pub path: Option<String>,
    /// Request headers sent in addition to the default ones.
    #[serde(default)]
    #[schemars(length(max = 64), transform = set)]
    pub allowed_headers: Vec<String>,
    /// Headers of the server's response that are forwarded to the backend. Empty means all.
    #[serde(default)]
    #[schemars(length(max = 64), transform = set)]
    pub allowed_response_headers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBody {
    /// Maximum number of body bytes; 0 sends none.
    #[schemars(range(min = 0))]
    pub max_size: Option<i32>,
}
