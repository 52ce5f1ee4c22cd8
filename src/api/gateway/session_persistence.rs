//! Session persistence: requests of one client stay with one endpoint.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::form;
use super::schema::rule::rule;
use super::schema::union::{member, union};

/// `kind` says which of `cookie` and `header` is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("type", [member("Cookie", "cookie"), member("Header", "header")]))]
#[schemars(transform = rule(
    "has(self.absoluteTimeout) || !has(self.cookie) || !has(self.cookie.lifetimeType) \
     || self.cookie.lifetimeType != 'Permanent'",
    "a permanent cookie has no end; add absoluteTimeout, or set cookie.lifetimeType to Session",
))]
pub struct SessionPersistence {
    #[serde(rename = "type", default = "by_cookie")]
    pub kind: String,
    /// After this time a session ends, however busy it is.
    #[schemars(transform = form::duration)]
    pub absolute_timeout: Option<String>,
    pub cookie: Option<SessionCookie>,
    pub header: Option<SessionHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCookie {
    /// Without a name one is made up.
    #[schemars(transform = form::token)]
    pub name: Option<String>,
    #[serde(default = "root")]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// `Session` ends with the browser, `Permanent` with `absolute_timeout`.
    #[serde(default = "for_the_session")]
    #[schemars(transform = form::one_of(["Permanent", "Session"]))]
    pub lifetime_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionHeader {
    #[schemars(transform = form::token)]
    pub name: String,
}

fn by_cookie() -> String {
    "Cookie".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

fn for_the_session() -> String {
    "Session".to_owned()
}
