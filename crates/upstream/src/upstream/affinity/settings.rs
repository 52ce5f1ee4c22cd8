//! The settings of sessions: where requests and responses contain them, and how long they last.

use std::fmt;
use std::time::Duration;

use http::HeaderName;

use crate::upstream::settings::SetCookie;

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
        formatter.write_str(if self.strip { ", stripped" } else { "" })
    }
}
