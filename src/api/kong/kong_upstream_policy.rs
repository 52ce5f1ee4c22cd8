//! KongUpstreamPolicy: how requests are shared among the endpoints of a Service, and which endpoints are asked at all.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::shape::each;
use crate::api::kind::{Kind, Resource};
use schemars::transform::Transform;
use serde_json::json;

/// How requests are shared among the endpoints of a Service, and which of them are asked at all. Services of the same
/// namespace refer to it by the annotation `konghq.com/upstream-policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongUpstreamPolicy {
    /// The policy.
    #[serde(default)]
    pub spec: KongUpstreamPolicySpec,
}

impl Resource for KongUpstreamPolicy {
    const KIND: Kind = Kind::KongUpstreamPolicy;
}

/// The policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = algorithm_fits)]
pub struct KongUpstreamPolicySpec {
    /// How an endpoint is chosen; `round-robin` when left out.
    #[schemars(transform = form::one_of(ALGORITHMS))]
    pub algorithm: Option<String>,
    /// Size of the ring that requests are hashed to; 10000 when left out.
    #[schemars(range(min = 10, max = 65536))]
    pub slots: Option<i32>,
    /// What of a request is hashed, for `consistent-hashing`.
    pub hash_on: Option<UpstreamHash>,
    /// What is hashed of a request that has not what `hashOn` names.
    pub hash_on_fallback: Option<UpstreamHashFallback>,
    /// A cookie that remembers the endpoint, for `sticky-sessions`.
    pub sticky_sessions: Option<StickySessions>,
    /// Which endpoints are well enough to be asked.
    pub healthchecks: Option<UpstreamHealthchecks>,
}

const ALGORITHMS: [&str; 5] = ["round-robin", "consistent-hashing", "least-connections", "latency", "sticky-sessions"];

/// Hashing and stickiness belong to the algorithms that know them.
fn algorithm_fits(schema: &mut Schema) {
    for (holds, message) in [
        (
            "!has(self.hashOn) || (has(self.algorithm) && self.algorithm in ['consistent-hashing', 'sticky-sessions'])",
            "hashOn is set but the algorithm does not hash; set algorithm to consistent-hashing or sticky-sessions, or \
             remove hashOn",
        ),
        (
            "!has(self.hashOnFallback) || (has(self.algorithm) && self.algorithm == 'consistent-hashing')",
            "hashOnFallback is set but the algorithm does not hash; set algorithm to consistent-hashing, or remove \
             hashOnFallback",
        ),
        (
            "!has(self.hashOnFallback) || !has(self.hashOn) || !has(self.hashOn.cookie)",
            "hashOnFallback is set but hashOn.cookie never needs it, since a missing cookie is made; remove \
             hashOnFallback",
        ),
        (
            "!has(self.stickySessions) || (has(self.algorithm) && self.algorithm == 'sticky-sessions')",
            "stickySessions is set but the algorithm is another; set algorithm to sticky-sessions, or remove \
             stickySessions",
        ),
        (
            "!has(self.stickySessions) || (has(self.hashOn) && has(self.hashOn.input) && self.hashOn.input == 'none' \
             && !has(self.hashOn.cookie) && !has(self.hashOn.cookiePath) && !has(self.hashOn.header) \
             && !has(self.hashOn.uriCapture) && !has(self.hashOn.queryArg))",
            "stickySessions does not hash; write hashOn with input none and nothing else",
        ),
    ] {
        rule(holds, message).transform(schema);
    }
}

/// What of a request is hashed. One of input, header, cookie, queryArg and uriCapture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = rule(
        "[has(self.input), has(self.cookie), has(self.header), has(self.uriCapture), has(self.queryArg)]\
         .filter(given, given).size() <= 1",
        "more than one of input, header, cookie, queryArg and uriCapture is set; keep one of them",
    ),
    transform = rule(
        "!has(self.cookie) || has(self.cookiePath)",
        "cookie is set but cookiePath is missing; write the path of the cookie, for example /",
    ),
    transform = rule(
        "!has(self.cookiePath) || has(self.cookie)",
        "cookiePath is set but cookie is missing; name the cookie, or remove cookiePath",
    ),
)]
pub struct UpstreamHash {
    /// Address of the client, name of the consumer, path of the request, or nothing.
    #[schemars(transform = form::one_of(INPUTS))]
    pub input: Option<String>,
    /// Name of a header field whose value is hashed.
    pub header: Option<String>,
    /// Name of a cookie whose value is hashed. A client without it is given one.
    pub cookie: Option<String>,
    /// Path of the cookie that is given.
    pub cookie_path: Option<String>,
    /// Name of a query parameter whose value is hashed.
    pub query_arg: Option<String>,
    /// Name of a group of the route's regular expression, whose text is hashed.
    pub uri_capture: Option<String>,
}

const INPUTS: [&str; 4] = ["ip", "consumer", "path", "none"];

/// What is hashed in second place. One of input, header, queryArg and uriCapture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "[has(self.input), has(self.header), has(self.uriCapture), has(self.queryArg)].filter(given, given).size() <= 1",
    "more than one of input, header, queryArg and uriCapture is set; keep one of them",
))]
pub struct UpstreamHashFallback {
    /// Address of the client, name of the consumer, path of the request, or nothing.
    #[schemars(transform = form::one_of(INPUTS))]
    pub input: Option<String>,
    /// Name of a header field whose value is hashed.
    pub header: Option<String>,
    /// Has no effect: a cookie is always there, so that it is no second place.
    pub cookie: Option<String>,
    /// Has no effect, as `cookie`.
    pub cookie_path: Option<String>,
    /// Name of a query parameter whose value is hashed.
    pub query_arg: Option<String>,
    /// Name of a group of the route's regular expression, whose text is hashed.
    pub uri_capture: Option<String>,
}

/// A cookie that remembers the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StickySessions {
    /// Name of the cookie.
    #[schemars(length(min = 1))]
    pub cookie: String,
    /// Path of the cookie.
    #[serde(default = "root")]
    pub cookie_path: String,
}

/// Which endpoints are well enough to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UpstreamHealthchecks {
    /// Asks endpoints by itself, whether there are requests or not.
    pub active: Option<ActiveHealthcheck>,
    /// Judges endpoints by their answers to requests.
    pub passive: Option<PassiveHealthcheck>,
    /// How much of the weight of all endpoints must be healthy, in percent. With less, requests are answered 503.
    pub threshold: Option<i32>,
}

/// Questions to endpoints, whether there are requests or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveHealthcheck {
    /// What to speak to the endpoints; http when left out. With tcp, that they take a connection is enough.
    #[serde(rename = "type")]
    #[schemars(transform = form::one_of(CHECKS))]
    pub kind: Option<String>,
    /// How many endpoints are asked at a time; 10 when left out.
    #[schemars(range(min = 1))]
    pub concurrency: Option<i32>,
    /// Header fields to ask with.
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Path to ask for; / when left out.
    #[schemars(regex(pattern = "^/.*$"))]
    pub http_path: Option<String>,
    /// Name to ask for in the TLS handshake.
    pub https_sni: Option<String>,
    /// Whether the endpoint's certificate is verified.
    pub https_verify_certificate: Option<bool>,
    /// How long an answer is waited for, in seconds; 1 when left out.
    #[schemars(range(min = 0))]
    pub timeout: Option<i32>,
    /// When an endpoint is well again.
    pub healthy: Option<Healthy>,
    /// When an endpoint is not well any more.
    pub unhealthy: Option<Unhealthy>,
}

/// What answers to requests say of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(
    transform = rule(
        "!has(self.healthy) || !has(self.healthy.interval)",
        "healthy.interval is set but nothing is asked at intervals here; remove it, or move it to the active check",
    ),
    transform = rule(
        "!has(self.unhealthy) || !has(self.unhealthy.interval)",
        "unhealthy.interval is set but nothing is asked at intervals here; remove it, or move it to the active check",
    ),
)]
pub struct PassiveHealthcheck {
    /// What the endpoints speak; http when left out.
    #[serde(rename = "type")]
    #[schemars(transform = form::one_of(CHECKS))]
    pub kind: Option<String>,
    /// When an endpoint is well again.
    pub healthy: Option<Healthy>,
    /// When an endpoint is not well any more.
    pub unhealthy: Option<Unhealthy>,
}

const CHECKS: [&str; 5] = ["http", "https", "tcp", "grpc", "grpcs"];

/// When an endpoint is well again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Healthy {
    /// Statuses that count as a success.
    #[schemars(transform = statuses)]
    pub http_statuses: Option<Vec<i32>>,
    /// Seconds between two questions to a healthy endpoint; 0, also when left out: none are asked. Not in passive checks.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// How many successes in a row it takes; 0, also when left out: they do not matter.
    #[schemars(range(min = 0))]
    pub successes: Option<i32>,
}

/// When an endpoint is not well any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unhealthy {
    /// Statuses that count as a failure.
    #[schemars(transform = statuses)]
    pub http_statuses: Option<Vec<i32>>,
    /// How many failures in a row it takes; 0, also when left out: they do not matter.
    #[schemars(range(min = 0))]
    pub http_failures: Option<i32>,
    /// Seconds between two questions to an endpoint that is not well; 0, also when left out: none are asked. Not in passive
    /// checks.
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// How many failures to connect in a row it takes; 0, also when left out: they do not matter.
    #[schemars(range(min = 0))]
    pub tcp_failures: Option<i32>,
    /// How many timeouts in a row it takes; 0, also when left out: they do not matter.
    #[schemars(range(min = 0))]
    pub timeouts: Option<i32>,
}

fn statuses(schema: &mut Schema) {
    each(|status: &mut Schema| {
        status.insert("minimum".to_owned(), json!(100));
        status.insert("maximum".to_owned(), json!(599));
    })
    .transform(schema);
}

fn root() -> String {
    "/".to_owned()
}
