//! KongUpstreamPolicy: load balancing and health checks of a Service.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::health_checks::{ActiveHealthcheck, PassiveHealthcheck};
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;

/// Load balancing, sessions and health checks for Services in the same namespace that refer to this policy by the
/// annotation `konghq.com/upstream-policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KongUpstreamPolicy {
    /// The policy.
    #[serde(default)]
    pub spec: KongUpstreamPolicySpec,
}

/// The policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = fields_by_algorithm)]
pub struct KongUpstreamPolicySpec {
    /// Load balancing algorithm; defaults to `round-robin`.
    #[schemars(transform = form::one_of(ALGORITHMS))]
    pub algorithm: Option<String>,
    /// Number of points in the hash ring, for the algorithm `consistent-hashing`; defaults to 160 for each endpoint.
    #[schemars(range(min = 10, max = 65536))]
    pub slots: Option<i32>,
    /// Input of the hash for the algorithm `consistent-hashing`. With `stickySessions`, `input: none` is required and
    /// no other field is allowed.
    pub hash_on: Option<UpstreamHash>,
    /// Input of the hash for requests that lack the input of `hashOn`.
    pub hash_on_fallback: Option<UpstreamHashFallback>,
    /// Cookie that binds a client to an endpoint, for the algorithm `sticky-sessions`.
    pub sticky_sessions: Option<StickySessions>,
    /// Health checks of endpoints.
    pub healthchecks: Option<UpstreamHealthchecks>,
}

const ALGORITHMS: [&str; 5] = ["round-robin", "consistent-hashing", "least-connections", "latency", "sticky-sessions"];

/// Rejects fields for hashing and sticky sessions that the algorithm does not use.
fn fields_by_algorithm(schema: &mut Schema) {
    for (holds, message) in [
        (
            "!has(self.hashOn) || (has(self.algorithm) && self.algorithm in ['consistent-hashing', 'sticky-sessions'])",
            "hashOn is set but the algorithm does not use it; set algorithm to consistent-hashing or sticky-sessions, \
             or remove hashOn",
        ),
        (
            "!has(self.hashOnFallback) || (has(self.algorithm) && self.algorithm == 'consistent-hashing')",
            "hashOnFallback is set but the algorithm does not use it; set algorithm to consistent-hashing, or remove \
             hashOnFallback",
        ),
        (
            "!has(self.hashOnFallback) || !has(self.hashOn) || !has(self.hashOn.cookie)",
            "hashOnFallback is never used with hashOn.cookie, since a missing cookie is generated; remove \
             hashOnFallback",
        ),
        (
            "!has(self.stickySessions) || (has(self.algorithm) && self.algorithm == 'sticky-sessions')",
            "stickySessions is set but the algorithm does not use it; set algorithm to sticky-sessions, or remove \
             stickySessions",
        ),
        (
            "!has(self.stickySessions) || (has(self.hashOn) && has(self.hashOn.input) && self.hashOn.input == 'none' \
             && !has(self.hashOn.cookie) && !has(self.hashOn.cookiePath) && !has(self.hashOn.header) \
             && !has(self.hashOn.uriCapture) && !has(self.hashOn.queryArg))",
            "stickySessions needs hashOn.input none; set it, and remove all other fields of hashOn",
        ),
    ] {
        rule(holds, message).transform(schema);
    }
}

/// Input of the hash: at most one of input, header, cookie, queryArg and uriCapture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = rule(
        "[has(self.input), has(self.cookie), has(self.header), has(self.uriCapture), has(self.queryArg)]\
         .filter(is_set, is_set).size() <= 1",
        "more than one of input, header, cookie, queryArg and uriCapture is set; keep one of them",
    ),
    transform = rule(
        "!has(self.cookie) || has(self.cookiePath)",
        "cookie is set but cookiePath is missing; write the path of the cookie, for example /",
    ),
    transform = rule(
        "!has(self.cookiePath) || has(self.cookie)",
        "cookiePath is set but cookie is missing; set cookie to its name, or remove cookiePath",
    ),
)]
pub struct UpstreamHash {
    /// What is hashed: `ip` for the client address, `consumer` for the consumer, `path` for the request path, or
    /// `none`.
    #[schemars(transform = form::one_of(HASH_INPUTS))]
    pub input: Option<String>,
    /// Name of a header field whose value is hashed.
    pub header: Option<String>,
    /// Name of a cookie whose value is hashed. Clients without it receive one.
    pub cookie: Option<String>,
    /// Path of the generated cookie.
    pub cookie_path: Option<String>,
    /// Name of a query parameter whose value is hashed.
    pub query_arg: Option<String>,
    /// Name of a capture group of the route's regular expression whose match is hashed.
    pub uri_capture: Option<String>,
}

const HASH_INPUTS: [&str; 4] = ["ip", "consumer", "path", "none"];

/// Fallback input of the hash: at most one of input, header, queryArg and uriCapture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "[has(self.input), has(self.header), has(self.uriCapture), has(self.queryArg)].filter(is_set, is_set).size() <= 1",
    "more than one of input, header, queryArg and uriCapture is set; keep one of them",
))]
pub struct UpstreamHashFallback {
    /// What is hashed: `ip` for the client address, `consumer` for the consumer, `path` for the request path, or
    /// `none`.
    #[schemars(transform = form::one_of(HASH_INPUTS))]
    pub input: Option<String>,
    /// Name of a header field whose value is hashed.
    pub header: Option<String>,
    /// Has no effect: a fallback cannot use a cookie.
    pub cookie: Option<String>,
    /// Has no effect, like `cookie`.
    pub cookie_path: Option<String>,
    /// Name of a query parameter whose value is hashed.
    pub query_arg: Option<String>,
    /// Name of a capture group of the route's regular expression whose match is hashed.
    pub uri_capture: Option<String>,
}

/// Cookie that binds a client to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StickySessions {
    /// Name of the cookie.
    #[schemars(length(min = 1))]
    pub cookie: String,
    /// Path of the cookie.
    #[serde(default = "root_path")]
    pub cookie_path: String,
}

/// Health checks of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UpstreamHealthchecks {
    /// Active health checks, independent of client requests.
    pub active: Option<ActiveHealthcheck>,
    /// Passive health checks, based on responses to client requests.
    pub passive: Option<PassiveHealthcheck>,
    /// Percentage of the endpoints of which more must be healthy; defaults to 0. Otherwise, requests receive status
    /// 503.
    pub threshold: Option<i32>,
}

fn root_path() -> String {
    "/".to_owned()
}
