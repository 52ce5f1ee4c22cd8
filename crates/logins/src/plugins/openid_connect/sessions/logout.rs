//! The end of sessions: by their browser, and by the provider.

use super::super::decision::{OpenIdDecision, is_secure};
use super::super::form_parameters::{encode_form, single, with_query};
use super::super::provider::ProviderMetadata;
use super::super::replies;
use super::super::settings::OpenIdSettings;
use super::super::tokens::SessionTokens;
use super::revoked_sessions::{NamedSessions, RevokedName, RevokedSessions, name_of_issuer};
use crate::plugin_api::RequestCx;
use crate::plugin_api::token::TokenOrigin;
use crate::plugin_kit::redis::RedisStoreError;
use crate::rejection_log::RejectionLog;

/// The logouts of one plugin.
#[derive(Clone, Copy)]
pub(in crate::plugins::openid_connect) struct Logouts<'p> {
    pub(in crate::plugins::openid_connect) settings: &'p OpenIdSettings,
    pub(in crate::plugins::openid_connect) log: &'p RejectionLog,
    pub(in crate::plugins::openid_connect) revoked: &'p RevokedSessions,
}

impl Logouts<'_> {
    /// Ends the session of the browser, and then that at the provider.
    pub(in crate::plugins::openid_connect) async fn log_out(&self, cx: &RequestCx<'_>, now: u64) -> OpenIdDecision {
        let sessions = &self.settings.sessions;
        let opened = sessions.open::<SessionTokens>(&cx.head.headers, now).await;
        let (session, place) = match opened {
            Ok(found) => found,
            Err(error) => return OpenIdDecision::without_sessions(cx, self.log, error),
        };
        // A client that reads that it was logged out must not have a session any more.
        if let Err(error) = sessions.end(&cx.head.headers).await {
            return OpenIdDecision::without_sessions(cx, self.log, error);
        }
        if let Some(session) = &session {
            sessions.log_out(session, now);
        }
        let party = &self.settings.party;
        let metadata = party.metadata().await.ok();
        let logout = &self.settings.logout;
        if let (Some(session), Some(metadata), true) = (&session, &metadata, logout.revokes) {
            self.revoke_tokens(cx, &session.data, metadata).await;
        }
        let end_session = metadata.as_ref().and_then(|metadata| metadata.end_session.as_deref());
        let location = match end_session {
            Some(endpoint) => {
                let hint = session.as_ref().map(|session| ("id_token_hint", &*session.data.id_token));
                let page = logout.redirect_uri.as_deref().map(|page| ("post_logout_redirect_uri", page));
                let client = [("client_id", &*party.client.client_id)];
                let parameters = client.into_iter().chain(hint).chain(page);
                Some(with_query(endpoint, &encode_form(parameters)))
            }
            None => logout.redirect_uri.as_deref().map(str::to_owned),
        };
        let mut reply = replies::logged_out(location.as_deref());
        sessions.cookies.clear(&mut reply.headers, place, is_secure(cx));
        OpenIdDecision::Reply(reply)
    }

    async fn revoke_tokens(&self, cx: &RequestCx<'_>, tokens: &SessionTokens, metadata: &ProviderMetadata) {
        for token in tokens.revocable() {
            if let Err(error) = self.settings.party.client.revoke(metadata, token).await {
                self.log.rejected(cx.scope, "revocation", &error.to_string());
            }
        }
    }

    /// Ends the sessions that the logout token of a provider names (OpenID Connect Back-Channel Logout, section 2.6).
    pub(in crate::plugins::openid_connect) async fn end_sessions(
        &self,
        cx: &RequestCx<'_>,
        now: u64,
    ) -> OpenIdDecision {
        let body = cx.body.map(|body| String::from_utf8_lossy(body)).unwrap_or_default();
        let Some(token) = single(&body, "logout_token") else {
            return self.refused_logout(cx, "the request has no `logout_token`");
        };
        let party = &self.settings.party;
        let metadata = match party.metadata().await {
            Ok(metadata) => metadata,
            Err(error) => return OpenIdDecision::unavailable(cx, self.log, &error.to_string()),
        };
        let verified = party.rules.verify_with_new_keys(&token, TokenOrigin::Client, &metadata, now).await;
        let claims = match verified {
            Ok(verified) => verified.claims,
            Err(error) => return self.refused_logout(cx, &error.to_string()),
        };
        if let Err(error) = party.rules.check_audience(&claims) {
            return self.refused_logout(cx, &error.to_string());
        }
        let is_logout =
            claims.get("events").and_then(|events| events.get(LOGOUT_EVENT)).is_some_and(|it| it.is_object());
        if !is_logout || claims.contains_key("nonce") {
            return self.refused_logout(cx, "the token is not a logout token");
        }
        let text = |name: &str| claims.get(name).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
        let Some(id) = text("jti") else { return self.refused_logout(cx, "the logout token has no `jti`") };
        let issuer = text("iss").unwrap_or_default();
        let sessions = match (text("sid"), text("sub")) {
            (Some(sid), _) => NamedSessions::Session(sid),
            (None, Some(subject)) => NamedSessions::Subject(subject),
            (None, None) => return self.refused_logout(cx, "the logout token has neither `sid` nor `sub`"),
        };
        // Each issuer chooses ids of its own.
        let label = name_of_issuer("jti", issuer, id);
        let expires = claims.get("exp").and_then(|exp| exp.as_f64()).unwrap_or_default() as u64;
        let until = expires.saturating_add(u64::from(party.rules.leeway)).max(now + 1);
        match self.end_once(&RevokedName { issuer, sessions }, &label, until, now).await {
            Ok(()) => OpenIdDecision::Reply(replies::sessions_ended()),
            // The provider may send the token again.
            Err(error) => OpenIdDecision::without_sessions(cx, self.log, error),
        }
    }

    /// Ends the sessions with this name, unless the token with this label, which is valid until some second, has done
    /// so before: it must not end the sessions that the user has begun since.
    async fn end_once(&self, name: &RevokedName<'_>, label: &str, until: u64, now: u64) -> Result<(), RedisStoreError> {
        let sessions = &self.settings.sessions;
        if self.revoked.logout_tokens.contains(label, now) || sessions.has_seen(label).await? {
            return Ok(());
        }
        let lifetime = self.revoked.longest_session();
        sessions.revoke(&name.key(), now, lifetime).await?;
        // Also in this process: other plugins of the client may have their sessions elsewhere.
        self.revoked.revoke(name, now, lifetime);
        // Last, so that the provider can send the token again after an error.
        if !sessions.remember_seen(label, until - now).await? {
            self.revoked.logout_tokens.insert(label, until, now);
        }
        Ok(())
    }

    fn refused_logout(&self, cx: &RequestCx<'_>, message: &str) -> OpenIdDecision {
        self.log.rejected(cx.scope, "logout", message);
        OpenIdDecision::Reply(replies::refused_logout())
    }
}

/// The event of logout tokens.
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
