//! The external authorization filter: an authorization server allows or denies each request.

use schemars::JsonSchema;
use serde::Deserialize;

use super::backend::BackendObjectReference;
use super::schema::form;
use super::schema::transforms::unique_entries;
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
    /// Request headers sent to the authorization server. An empty list means all.
    #[serde(default)]
    #[schemars(length(max = 64), transform = unique_entries)]
    pub allowed_headers: Vec<String>,
}

/// An HTTP request to the authorization server: status 200 allows the client's request, any other response is returned
/// to the client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpAuth {
    /// Prefix for the path of the request to the authorization server.
    #[schemars(transform = form::url_path)]
    pub path: Option<String>,
    /// Headers of the client's request that are sent, in addition to those that the Gateway API requires.
    #[serde(default)]
    #[schemars(length(max = 64), transform = unique_entries)]
    pub allowed_headers: Vec<String>,
    /// Headers of the authorization server's response that are forwarded to the backend. An empty list means all.
    #[serde(default)]
    #[schemars(length(max = 64), transform = unique_entries)]
    pub allowed_response_headers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBody {
    /// Maximum number of body bytes; 0 sends none.
    #[schemars(range(min = 0))]
    pub max_size: Option<i32>,
}
