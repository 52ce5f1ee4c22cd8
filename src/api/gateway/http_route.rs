//! HTTPRoute: which requests go where.

use serde::Deserialize;
use serde_json::Value;

use super::backend::BackendRef;
use super::filter::Filter;
use super::reference::ParentReference;
use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct HttpRoute {
    pub spec: HttpRouteSpec,
}

impl Resource for HttpRoute {
    const KIND: Kind = Kind::HttpRoute;
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    pub use_default_gateways: Option<String>,
    #[serde(default)]
    pub hostnames: Vec<String>,
    #[serde(default = "match_all")]
    pub rules: Vec<HttpRouteRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRule {
    pub name: Option<String>,
    /// Any of them suffices; none at all means every request.
    #[serde(default)]
    pub matches: Vec<HttpRouteMatch>,
    #[serde(default)]
    pub filters: Vec<Filter>,
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    pub timeouts: Option<HttpRouteTimeouts>,
    pub retry: Option<HttpRouteRetry>,
    pub session_persistence: Option<Value>,
}

/// Everything in it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    pub path: Option<HttpPathMatch>,
    #[serde(default)]
    pub headers: Vec<HttpValueMatch>,
    #[serde(default)]
    pub query_params: Vec<HttpValueMatch>,
    pub method: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpPathMatch {
    #[serde(rename = "type", default = "path_prefix")]
    pub kind: String,
    #[serde(default = "root")]
    pub value: String,
}

/// A header field or a query parameter, `Exact` or `RegularExpression`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpValueMatch {
    #[serde(rename = "type", default = "exact")]
    pub kind: String,
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteTimeouts {
    pub request: Option<String>,
    pub backend_request: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRetry {
    #[serde(default)]
    pub codes: Vec<u16>,
    pub attempts: Option<i32>,
    pub backoff: Option<String>,
}

fn match_all() -> Vec<HttpRouteRule> {
    vec![HttpRouteRule::default()]
}

fn path_prefix() -> String {
    "PathPrefix".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

fn exact() -> String {
    "Exact".to_owned()
}
