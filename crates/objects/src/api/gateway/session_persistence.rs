//! Session persistence: routes all requests of a client session to one endpoint.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::form;
use super::schema::rule::rule;
use super::schema::union::{member, union};

/// `kind` determines which of `cookie` and `header` is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("type", [member("Cookie", "cookie"), member("Header", "header")]))]
#[schemars(transform = rule(
    "has(self.absoluteTimeout) || !has(self.cookie) || !has(self.cookie.lifetimeType) \
     || self.cookie.lifetimeType != 'Permanent'",
    "a permanent cookie needs an expiry; add absoluteTimeout, or set cookie.lifetimeType to Session",
))]
pub struct SessionPersistence {
    #[serde(rename = "type", default = "cookie_type")]
    pub kind: String,
    /// A session ends after this time, even if it is in use.
    #[schemars(transform = form::duration)]
    pub absolute_timeout: Option<String>,
    pub cookie: Option<SessionCookie>,
    pub header: Option<SessionHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCookie {
    /// If absent, a name is generated.
    #[schemars(transform = form::token)]
    pub name: Option<String>,
    #[serde(default = "root_path")]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// A `Session` cookie expires with the browser session, a `Permanent` one after `absolute_timeout`.
    #[serde(default = "session_lifetime")]
    #[schemars(transform = form::one_of(["Permanent", "Session"]))]
    pub lifetime_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionHeader {
    #[schemars(transform = form::token)]
    pub name: String,
}

fn cookie_type() -> String {
    "Cookie".to_owned()
}

fn root_path() -> String {
    "/".to_owned()
}

fn session_lifetime() -> String {
    "Session".to_owned()
}
