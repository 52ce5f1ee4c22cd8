//! KongIngress: balancing of a Service as older manifests say it. Deprecated in favor of KongUpstreamPolicy.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::schema::free_form;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::kind::{Kind, Resource};

/// How requests are shared among the endpoints of a Service, which refers to it by the annotation `konghq.com/override`.
/// KongUpstreamPolicy is the newer way, and goes before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(
    transform = rule(
        "!has(self.proxy)",
        "proxy is not taken any more; use annotations of the Service, for example konghq.com/read-timeout",
    ),
    transform = rule(
        "!has(self.route)",
        "route is not taken any more; use annotations of the Ingress, for example konghq.com/strip-path",
    ),
)]
pub struct KongIngress {
    /// Refused; annotations of the Service have taken its place.
    #[schemars(transform = free_form)]
    pub proxy: Option<Map<String, Value>>,
    /// Refused; annotations of the Ingress have taken its place.
    #[schemars(transform = free_form)]
    pub route: Option<Map<String, Value>>,
    /// How requests are shared among endpoints.
    pub upstream: Option<KongIngressUpstream>,
}

impl Resource for KongIngress {
    const KIND: Kind = Kind::KongIngress;
}

/// How requests are shared among endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressUpstream {
    /// Host that endpoints are asked for where `preserve-host` is off.
    pub host_header: Option<String>,
    /// How an endpoint is chosen.
    #[schemars(transform = form::one_of(["round-robin", "consistent-hashing", "least-connections", "latency"]))]
    pub algorithm: Option<String>,
    /// Size of the ring that requests are hashed to.
    #[schemars(range(min = 10))]
    pub slots: Option<i32>,
    /// What is hashed: none, consumer, ip, header, cookie, path, query_arg or uri_capture.
    pub hash_on: Option<String>,
    /// Name of the header field, with `hash_on: header`.
    pub hash_on_header: Option<String>,
    /// Name of the cookie, with `hash_on: cookie`.
    pub hash_on_cookie: Option<String>,
    /// Path of the cookie, with `hash_on: cookie`.
    pub hash_on_cookie_path: Option<String>,
    /// Name of the query parameter, with `hash_on: query_arg`.
    pub hash_on_query_arg: Option<String>,
    /// Name of the group of the route's regular expression, with `hash_on: uri_capture`.
    pub hash_on_uri_capture: Option<String>,
    /// What is hashed of a request that has not what `hash_on` names.
    pub hash_fallback: Option<String>,
    /// Name of the header field, with `hash_fallback: header`.
    pub hash_fallback_header: Option<String>,
    /// Name of the query parameter, with `hash_fallback: query_arg`.
    pub hash_fallback_query_arg: Option<String>,
    /// Name of the group of the route's regular expression, with `hash_fallback: uri_capture`.
    pub hash_fallback_uri_capture: Option<String>,
    /// Which endpoints are well enough to be asked.
    pub healthchecks: Option<KongIngressHealthchecks>,
}

/// Which endpoints are well enough to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressHealthchecks {
    /// Asks endpoints by itself, whether there are requests or not.
    pub active: Option<KongIngressActive>,
    /// Judges endpoints by their answers to requests.
    pub passive: Option<KongIngressPassive>,
    /// How much of the weight of all endpoints must be healthy, in percent.
    pub threshold: Option<serde_json::Number>,
}

/// Questions to endpoints, whether there are requests or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressActive {
    /// What to speak to the endpoints.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// How many endpoints are asked at a time.
    #[schemars(range(min = 1))]
    pub concurrency: Option<i32>,
    /// Header fields to ask with.
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Path to ask for.
    #[schemars(regex(pattern = "^/.*$"))]
    pub http_path: Option<String>,
    /// Name to ask for in the TLS handshake.
    pub https_sni: Option<String>,
    /// Whether the endpoint's certificate is verified.
    pub https_verify_certificate: Option<bool>,
    /// How long an answer is waited for, in seconds.
    #[schemars(range(min = 0))]
    pub timeout: Option<i32>,
    /// When an endpoint is well again.
    pub healthy: Option<KongIngressHealthy>,
    /// When an endpoint is not well any more.
    pub unhealthy: Option<KongIngressUnhealthy>,
}

/// What answers to requests say of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressPassive {
    /// What the endpoints speak.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// When an endpoint is well again.
    pub healthy: Option<KongIngressHealthy>,
    /// When an endpoint is not well any more.
    pub unhealthy: Option<KongIngressUnhealthy>,
}

/// When an endpoint is well again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressHealthy {
    /// Statuses that count as a success.
    pub http_statuses: Option<Vec<i32>>,
    /// Seconds between two questions to a healthy endpoint.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// How many successes in a row it takes.
    #[schemars(range(min = 0))]
    pub successes: Option<i32>,
}

/// When an endpoint is not well any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongIngressUnhealthy {
    /// Statuses that count as a failure.
    pub http_statuses: Option<Vec<i32>>,
    /// How many failures in a row it takes.
    #[schemars(range(min = 0))]
    pub http_failures: Option<i32>,
    /// Seconds between two questions to an endpoint that is not well.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// How many failures to connect in a row it takes.
    #[schemars(range(min = 0))]
    pub tcp_failures: Option<i32>,
    /// How many timeouts in a row it takes.
    #[schemars(range(min = 0))]
    pub timeouts: Option<i32>,
}
