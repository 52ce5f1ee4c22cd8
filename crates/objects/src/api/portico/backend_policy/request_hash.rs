//! `spec.loadBalancing.hash`: what consistent hashing hashes of a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::duration_between;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;

/// What consistent hashing hashes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashSpec {
    /// How several keys are used; defaults to First. `First`: the first key that the request has. `All`: all keys that
    /// it has, together.
    #[schemars(transform = form::one_of(["First", "All"]))]
    pub combine: Option<String>,
    /// The parts of a request. A request with none of them is sent to the endpoints in turn.
    #[schemars(length(min = 1, max = 8))]
    pub keys: Vec<HashKeySpec>,
    /// Limits the requests in progress of an endpoint to this percentage of its share. Requests beyond it are sent to
    /// other endpoints.
    #[schemars(range(min = 100, max = 1000))]
    pub bounded_load_percent: Option<i32>,
    /// Number of slots in the table of Maglev, a prime number; defaults to 65537.
    #[schemars(range(min = 1009, max = 5_000_011))]
    pub maglev_size: Option<i32>,
    /// Number of points on the ring of RingHash; defaults to 160 for each endpoint. Never fewer than 100 for each.
    #[schemars(range(min = 1024, max = 8_388_608))]
    pub ring_size: Option<i32>,
}

/// A part of a request. A request without a Cookie key gets a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "has(self.name) == (self.source in ['Header', 'Cookie', 'Query', 'UriCapture'])",
    "name is required for Header, Cookie, Query and UriCapture and has no meaning otherwise; add or remove name",
))]
#[schemars(transform = rule(
    "!has(self.cookie) || self.source == 'Cookie'",
    "cookie is for the source Cookie; remove cookie, or change the source",
))]
#[schemars(transform = rule(
    "!has(self.ipv6Prefix) || self.source == 'ClientIP'",
    "ipv6Prefix is for the source ClientIP; remove ipv6Prefix, or change the source",
))]
pub struct HashKeySpec {
    /// Where the key is found. `UriCapture` is a named capture group of the path expression of a route, `Consumer` the
    /// authenticated consumer or else its credential, `Path` the path without the query.
    #[schemars(transform = form::one_of(
        ["Header", "Cookie", "ClientIP", "Query", "Path", "UriCapture", "Consumer", "Host"],
    ))]
    pub source: String,
    /// Name of the header field, cookie, query parameter or capture group.
    #[schemars(transform = form::token)]
    pub name: Option<String>,
    /// A regular expression. Only its first capture group is hashed, or its match if it has none. A request that does
    /// not match does not have the key.
    #[schemars(length(min = 1, max = 256))]
    pub regex: Option<String>,
    /// The cookie that a request without one gets.
    pub cookie: Option<HashCookieSpec>,
    /// The length of the prefix of IPv6 addresses that is hashed; defaults to 64.
    #[serde(rename = "ipv6Prefix")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: Option<i32>,
}

/// The cookie that a request without one gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashCookieSpec {
    /// How long the client keeps the cookie; defaults to 0s: until the end of the browser session.
    #[schemars(transform = duration_between("0s", "9999h"))]
    pub ttl: Option<String>,
    /// Path of the cookie; defaults to `/`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[^;]*$"))]
    pub path: Option<String>,
    /// Attribute SameSite of the cookie; defaults to Lax.
    #[schemars(transform = form::one_of(["Strict", "Lax", "None"]))]
    pub same_site: Option<String>,
}
