//! KongIngress: load balancing of a Service in older manifests. Deprecated in favor of KongUpstreamPolicy.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::health_checks::{self, ActiveHealthcheck, PassiveHealthcheck};
use super::schema::free_form;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;

/// Load balancing for a Service, which refers to this object by the annotation `konghq.com/override`. Deprecated:
/// KongUpstreamPolicy replaces it, and takes precedence if a Service refers to both.
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
    /// Rejected, because annotations of the Service replace this field.
    #[schemars(transform = free_form)]
    pub proxy: Option<Map<String, Value>>,
    /// Rejected, because annotations of the Ingress replace this field.
    #[schemars(transform = free_form)]
    pub route: Option<Map<String, Value>>,
    /// Load balancing.
    pub upstream: Option<KongIngressUpstream>,
}

/// Load balancing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressUpstream {
    /// Host header of requests to endpoints if the annotation `konghq.com/preserve-host` of the route is `false`.
    pub host_header: Option<String>,
    /// Load balancing algorithm.
    #[schemars(transform = form::one_of(["round-robin", "consistent-hashing", "least-connections", "latency"]))]
    pub algorithm: Option<String>,
    /// Number of points in the hash ring.
    #[schemars(range(min = 10))]
    pub slots: Option<i32>,
    /// Input of the hash: none, consumer, ip, header, cookie, path, query_arg or uri_capture. All but none enable
    /// hashing, whatever the algorithm is.
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
    #[schemars(transform = health_checks::as_in_kong_ingress)]
    pub active: Option<ActiveHealthcheck>,
    /// Passive health checks, based on responses to client requests.
    #[schemars(transform = health_checks::as_in_kong_ingress)]
    pub passive: Option<PassiveHealthcheck>,
    /// Percentage of the endpoints of which more must be healthy. Otherwise, requests receive status 503.
    pub threshold: Option<serde_json::Number>,
}
