//! KongIngress: load balancing of a Service in older manifests. Deprecated in favor of KongUpstreamPolicy.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::schema::free_form;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;

/// Load balancing for a Service, which refers to this object by the annotation `konghq.com/override`. Deprecated:
/// KongUpstreamPolicy replaces it and takes precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(
    transform = rule(
        "!has(self.proxy)",
        "proxy is not supported any more; use annotations of the Service, for example konghq.com/read-timeout",
    ),
    transform = rule(
        "!has(self.route)",
        "route is not supported any more; use annotations of the Ingress, for example konghq.com/strip-path",
    ),
)]
pub struct KongIngress {
    /// Rejected; replaced by annotations of the Service.
    #[schemars(transform = free_form)]
    pub proxy: Option<Map<String, Value>>,
    /// Rejected; replaced by annotations of the Ingress.
    #[schemars(transform = free_form)]
    pub route: Option<Map<String, Value>>,
    /// Load balancing.
    pub upstream: Option<KongIngressUpstream>,
}

/// Load balancing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressUpstream {
    /// Host header for endpoints if `preserve-host` is off.
    pub host_header: Option<String>,
    /// Load balancing algorithm.
    #[schemars(transform = form::one_of(["round-robin", "consistent-hashing", "least-connections", "latency"]))]
    pub algorithm: Option<String>,
    /// Number of slots in the hash ring.
    #[schemars(range(min = 10))]
    pub slots: Option<i32>,
    /// Input of the hash: none, consumer, ip, header, cookie, path, query_arg or uri_capture.
    pub hash_on: Option<String>,
    /// Name of the header field, with `hash_on: header`.
    pub hash_on_header: Option<String>,
    /// Name of the cookie, with `hash_on: cookie`.
    pub hash_on_cookie: Option<String>,
    /// Path of the cookie, with `hash_on: cookie`.
    pub hash_on_cookie_path: Option<String>,
    /// Name of the query parameter, with `hash_on: query_arg`.
    pub hash_on_query_arg: Option<String>,
    /// Name of a capture group of the route's regular expression, with `hash_on: uri_capture`.
    pub hash_on_uri_capture: Option<String>,
    /// Input of the hash for requests that lack the input of `hash_on`.
    pub hash_fallback: Option<String>,
    /// Name of the header field, with `hash_fallback: header`.
    pub hash_fallback_header: Option<String>,
    /// Name of the query parameter, with `hash_fallback: query_arg`.
    pub hash_fallback_query_arg: Option<String>,
    /// Name of a capture group of the route's regular expression, with `hash_fallback: uri_capture`.
    pub hash_fallback_uri_capture: Option<String>,
    /// Health checks of endpoints.
    pub healthchecks: Option<KongIngressHealthchecks>,
}

/// Health checks of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressHealthchecks {
    /// Active health checks, independent of client requests.
    pub active: Option<KongIngressActive>,
    /// Passive health checks, based on responses to client requests.
    pub passive: Option<KongIngressPassive>,
    /// Minimum healthy share of the total weight of all endpoints, in percent.
    pub threshold: Option<serde_json::Number>,
}

/// Active health checks, independent of client requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressActive {
    /// Protocol of the checks.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Maximum number of concurrent checks.
    #[schemars(range(min = 1))]
    pub concurrency: Option<i32>,
    /// Header fields of the checks.
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Path of the checks.
    #[schemars(regex(pattern = "^/.*$"))]
    pub http_path: Option<String>,
    /// Server name (SNI) for the TLS handshake.
    pub https_sni: Option<String>,
    /// Whether the endpoint's certificate is verified.
    pub https_verify_certificate: Option<bool>,
    /// Timeout of a check, in seconds.
    #[schemars(range(min = 0))]
    pub timeout: Option<i32>,
    /// When an endpoint becomes healthy.
    pub healthy: Option<KongIngressHealthy>,
    /// When an endpoint becomes unhealthy.
    pub unhealthy: Option<KongIngressUnhealthy>,
}

/// Passive health checks, based on responses to client requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressPassive {
    /// Protocol of the endpoints.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// When an endpoint becomes healthy.
    pub healthy: Option<KongIngressHealthy>,
    /// When an endpoint becomes unhealthy.
    pub unhealthy: Option<KongIngressUnhealthy>,
}

/// When an endpoint becomes healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressHealthy {
    /// Status codes that count as success.
    pub http_statuses: Option<Vec<i32>>,
    /// Seconds between checks of a healthy endpoint.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// Required number of consecutive successes.
    #[schemars(range(min = 0))]
    pub successes: Option<i32>,
}

/// When an endpoint becomes unhealthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressUnhealthy {
    /// Status codes that count as failure.
    pub http_statuses: Option<Vec<i32>>,
    /// Required number of consecutive HTTP failures.
    #[schemars(range(min = 0))]
    pub http_failures: Option<i32>,
    /// Seconds between checks of an unhealthy endpoint.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// Required number of consecutive connection failures.
    #[schemars(range(min = 0))]
    pub tcp_failures: Option<i32>,
    /// Required number of consecutive timeouts.
    #[schemars(range(min = 0))]
    pub timeouts: Option<i32>,
}
