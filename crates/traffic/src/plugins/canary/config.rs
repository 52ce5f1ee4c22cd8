//! The fields of `canary`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The share of requests that get the new version, 0 to 100. Takes precedence over `start`.
    pub(super) percentage: Option<f64>,
    /// When the share begins to grow, in seconds since 1970-01-01 UTC. Required without `percentage`, unless `hash` is
    /// `allow` or `deny`.
    pub(super) start: Option<f64>,
    /// For how many seconds the share grows until all requests get the new version.
    pub(super) duration: f64,
    /// In how many equal steps the share grows, 1 to 1000000.
    pub(super) steps: u32,
    /// What decides which clients get the new version.
    pub(super) hash: Hash,
    /// The header that `hash: header` reads.
    pub(super) hash_header: Option<String>,
    /// The groups that get the new version with `hash: allow`, and that do not with `hash: deny`.
    pub(super) groups: Vec<String>,
    /// The Service of the new version. Without it, only the path changes.
    pub(super) upstream_host: Option<String>,
    /// The port of the Service, unless `upstream_host` contains it.
    pub(super) upstream_port: Option<u16>,
    /// The path that endpoints get instead of that of the client. The query is kept.
    pub(super) upstream_uri: Option<String>,
    /// Whether a backend of the route gets the request while no endpoint of the new version is available.
    pub(super) upstream_fallback: bool,
    /// The header with which a client decides itself: `always` selects the new version, `never` the other one.
    pub(super) canary_by_header_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            percentage: None,
            start: None,
            duration: 3600.0,
            steps: 1000,
            hash: Hash::Consumer,
            hash_header: None,
            groups: Vec::new(),
            upstream_host: None,
            upstream_port: None,
            upstream_uri: None,
            upstream_fallback: false,
            canary_by_header_name: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hash {
    /// The consumer; without one, the address of the client.
    Consumer,
    /// The address of the client; if it is unknown, each request is drawn by itself.
    Ip,
    /// The value of `hash_header`; without one, the address of the client.
    Header,
    /// Each request is drawn by itself.
    None,
    /// Only members of `groups` get the new version.
    Allow,
    /// All clients but members of `groups` get the new version.
    Deny,
}
