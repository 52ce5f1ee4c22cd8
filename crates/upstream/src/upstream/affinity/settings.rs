//! The settings of sessions: where requests and responses contain them, and how long they last.

use std::fmt;
use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};

use super::endpoint_keys::EndpointKeys;
use crate::upstream::settings::{SetCookie, json_form};

/// How a rule or the policy of a Service keeps sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinitySettings {
    /// A hash of the name of the rule or Service that has the setting.
    pub scope: u64,
    pub carrier: AffinityCarrier,
    /// A session ends after this time, even if it is in use.
    pub absolute_timeout: Option<Duration>,
    /// A session ends if it is not used for this time.
    pub idle_timeout: Option<Duration>,
    /// Whether the cookie or header is removed from requests to endpoints.
    pub strip: bool,
    /// How values name endpoints by keys. `None` if they contain pins; only pins have timeouts, and a scope.
    pub keys: Option<EndpointKeys>,
}

/// Where a request and a response contain the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AffinityCarrier {
    Cookie {
        cookie: SetCookie,
        /// Whether clients keep the cookie until `absolute_timeout`, and not only until they are closed.
        is_permanent: bool,
    },
    Header(HeaderName),
}

/// A session as a policy describes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionFields<'a> {
    r#type: &'static str,
    name: &'a str,
    #[serde(serialize_with = "json_form::duration")]
    absolute_timeout: Option<Duration>,
    #[serde(serialize_with = "json_form::duration")]
    idle_timeout: Option<Duration>,
    cookie: Option<SessionCookieFields<'a>>,
    strip: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionCookieFields<'a> {
    lifetime_type: &'static str,
    #[serde(flatten)]
    cookie: &'a SetCookie,
}

impl Serialize for AffinitySettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // No policy has sessions with keys.
        let AffinitySettings { scope: _, ref carrier, absolute_timeout, idle_timeout, strip, keys: _ } = *self;
        let (r#type, name, cookie) = match carrier {
            AffinityCarrier::Cookie { cookie, is_permanent } => {
                let lifetime_type = if *is_permanent { "Permanent" } else { "Session" };
                ("Cookie", &*cookie.name, Some(SessionCookieFields { lifetime_type, cookie }))
            }
            AffinityCarrier::Header(name) => ("Header", name.as_str(), None),
        };
        SessionFields { r#type, name, absolute_timeout, idle_timeout, cookie, strip }.serialize(serializer)
    }
}

/// Text for dumps: `cookie name; Path=/; HttpOnly; SameSite=Strict, permanent, for 1h, idle for 10m, stripped`, or
/// `header name`.
impl fmt::Display for AffinitySettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.carrier {
            AffinityCarrier::Cookie { cookie: SetCookie { name, attributes, .. }, is_permanent } => {
                let lifetime = if *is_permanent { ", permanent" } else { "" };
                write!(formatter, "cookie {name}{attributes}{lifetime}")?;
            }
            AffinityCarrier::Header(name) => write!(formatter, "header {name}")?,
        }
        if let Some(timeout) = self.absolute_timeout {
            write!(formatter, ", for {timeout:?}")?;
        }
        if let Some(timeout) = self.idle_timeout {
            write!(formatter, ", idle for {timeout:?}")?;
        }
        if let Some(keys) = &self.keys {
            write!(formatter, ", {}", keys.assignment)?;
        }
        formatter.write_str(if self.strip { ", stripped" } else { "" })
    }
}
