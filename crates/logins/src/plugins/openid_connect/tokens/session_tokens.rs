//! The tokens of a session, as its cookie contains them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::claims::ClaimSources;
use super::signed_token::{TokenClaims, claims_of_verified};
use crate::logged_out_sessions::SessionContents;

/// The tokens of a user who has logged in. The names are short, because a cookie contains them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::plugins::openid_connect) struct SessionTokens {
    #[serde(rename = "a")]
    pub(in crate::plugins::openid_connect) access_token: Box<str>,
    #[serde(rename = "i")]
    pub(in crate::plugins::openid_connect) id_token: Box<str>,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none", default)]
    pub(in crate::plugins::openid_connect) refresh_token: Option<Box<str>>,
    /// When the access token expires, in seconds since 1970. `None` if that is not known.
    #[serde(rename = "e", skip_serializing_if = "Option::is_none", default)]
    pub(in crate::plugins::openid_connect) expires: Option<u64>,
    #[serde(rename = "s", skip_serializing_if = "Option::is_none", default)]
    pub(in crate::plugins::openid_connect) scope: Option<Box<str>>,
    /// Random, and the same until the session ends. Empty in sessions that began before Portico had it.
    #[serde(rename = "n", skip_serializing_if = "str::is_empty", default)]
    pub(in crate::plugins::openid_connect) session_id: Box<str>,
    /// Whether the access token is a signed token of the provider, so that its claims count.
    #[serde(rename = "j")]
    pub(in crate::plugins::openid_connect) has_claims: bool,
}

/// What identifies the session at the provider, by its ID token.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugins::openid_connect) struct ProviderSession {
    pub(in crate::plugins::openid_connect) issuer: String,
    pub(in crate::plugins::openid_connect) sid: Option<String>,
    /// The user.
    pub(in crate::plugins::openid_connect) subject: Option<String>,
}

impl SessionContents for SessionTokens {
    fn identity(&self) -> Box<str> {
        if self.session_id.is_empty() {
            return format!("{:?}", self.provider_session()).into();
        }
        self.session_id.clone()
    }
}

impl SessionTokens {
    /// The claims of the access token, then those of the ID token, then the scope.
    pub(in crate::plugins::openid_connect) fn claims(&self) -> ClaimSources {
        let access_token = self.has_claims.then(|| claims_of_verified(&self.access_token));
        let id_token = claims_of_verified(&self.id_token);
        let scope =
            self.scope.as_deref().map(|scope| TokenClaims::from_iter([("scope".to_owned(), Value::from(scope))]));
        ClaimSources(access_token.into_iter().chain([id_token]).chain(scope).collect())
    }

    pub(in crate::plugins::openid_connect) fn provider_session(&self) -> ProviderSession {
        let claims = claims_of_verified(&self.id_token);
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        ProviderSession { issuer: text("iss").unwrap_or_default(), sid: text("sid"), subject: text("sub") }
    }

    /// The tokens that a logout revokes, that with the longer life first.
    pub(in crate::plugins::openid_connect) fn revocable(&self) -> impl Iterator<Item = &str> {
        self.refresh_token.as_deref().into_iter().chain([&*self.access_token])
    }

    pub(in crate::plugins::openid_connect) fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
