//! `spec.loadBalancing.sessionPersistence`: sends all requests of a client session to one endpoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::duration_between;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;

/// Sends all requests of a client session to one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "!has(self.cookie) || !has(self.type) || self.type == 'Cookie'",
    "cookie is for sessions of the type Cookie; remove cookie, or set type to Cookie",
))]
#[schemars(transform = rule(
    "has(self.name) || !has(self.type) || self.type == 'Cookie'",
    "a session in a header needs the name of the header; add name",
))]
#[schemars(transform = rule(
    "has(self.absoluteTimeout) || !has(self.cookie) || !has(self.cookie.lifetimeType) \
     || self.cookie.lifetimeType != 'Permanent'",
    "a permanent cookie needs an expiry; add absoluteTimeout, or set cookie.lifetimeType to Session",
))]
#[schemars(transform = rule(
    "!has(self.idleTimeout) || !has(self.absoluteTimeout) \
     || duration(self.idleTimeout) <= duration(self.absoluteTimeout)",
    "idleTimeout is longer than absoluteTimeout; shorten idleTimeout",
))]
pub struct BackendSessionPersistence {
    /// Where clients keep the session: in a cookie, or in a header field of their requests; defaults to Cookie.
    #[serde(rename = "type")]
    #[schemars(transform = form::one_of(["Cookie", "Header"]))]
    pub kind: Option<String>,
    /// Name of the cookie or header field. A cookie without a name gets a generated one.
    #[schemars(transform = form::token)]
    pub name: Option<String>,
    /// A session ends after this time, even if it is in use.
    #[schemars(transform = duration_between("1s", "9999h"))]
    pub absolute_timeout: Option<String>,
    /// A session ends if it is not used for this time.
    #[schemars(transform = duration_between("1s", "9999h"))]
    pub idle_timeout: Option<String>,
    /// Attributes of the cookie.
    pub cookie: Option<PolicySessionCookie>,
    /// Whether the cookie or header field is removed from requests to the backend; defaults to false.
    pub strip: Option<bool>,
}

/// Attributes of the cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySessionCookie {
    /// How long clients keep the cookie; defaults to Session, until the end of the browser session. `Permanent`: until
    /// `absoluteTimeout` has passed.
    #[schemars(transform = form::one_of(["Session", "Permanent"]))]
    pub lifetime_type: Option<String>,
    /// Path of the cookie; defaults to `/`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[^;]*$"))]
    pub path: Option<String>,
    /// Attribute SameSite of the cookie; defaults to Strict.
    #[schemars(transform = form::one_of(["Strict", "Lax", "None"]))]
    pub same_site: Option<String>,
}
