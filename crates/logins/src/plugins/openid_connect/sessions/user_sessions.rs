//! The session of a user during a request: found in its cookie or its store, refreshed, and continued.

use std::sync::Arc;

use super::super::config::AuthMethod;
use super::super::decision::{AcceptedClient, is_secure};
use super::super::settings::OpenIdSettings;
use super::super::tokens::SessionTokens;
use super::revoked_sessions::{RevokedSessions, labels};
use super::session_refresh::{RefreshFailure, SessionRefresh};
use super::token_refresh::TokenRefreshes;
use crate::logged_out_sessions::session_digest;
use crate::plugin_api::{PluginServices, RequestCx};
use crate::plugin_kit::redis::RedisStoreError;
use crate::rejection_log::RejectionLog;
use crate::sealed_cookie::{OpenedSession, SessionAge, SessionPlace, StoredPlace};
use crate::stored_sessions::{FoundSession, SessionError};

/// The sessions of one plugin.
#[derive(Clone, Copy)]
pub(in crate::plugins::openid_connect) struct UserSessions<'p> {
    pub(in crate::plugins::openid_connect) settings: &'p OpenIdSettings,
    pub(in crate::plugins::openid_connect) refreshes: &'p TokenRefreshes,
    pub(in crate::plugins::openid_connect) revoked: &'p RevokedSessions,
    pub(in crate::plugins::openid_connect) services: &'p Arc<dyn PluginServices>,
    pub(in crate::plugins::openid_connect) log: &'p RejectionLog,
}

impl UserSessions<'_> {
    /// The session of a request, unless it has ended. `None` if only the store of sessions knows it.
    pub(in crate::plugins::openid_connect) fn find_now(
        &self,
        cx: &RequestCx<'_>,
        now: u64,
    ) -> Option<FoundSession<SessionTokens>> {
        if !self.settings.party.accepts(AuthMethod::Session) {
            return Some((None, SessionPlace::default()));
        }
        let (session, place) = self.settings.sessions.open_now::<SessionTokens>(&cx.head.headers, now)?;
        let session = session.filter(|session| {
            if self.settings.sessions.is_logged_out(session, now) {
                return false;
            }
            !self.revoked.has_ended(session.authenticated, || session.data.provider_session())
        });
        Some((session, place))
    }

    /// The session of a request, unless it has ended.
    pub(in crate::plugins::openid_connect) async fn find(
        &self,
        cx: &RequestCx<'_>,
        now: u64,
    ) -> Result<FoundSession<SessionTokens>, RedisStoreError> {
        if let Some(found) = self.find_now(cx, now) {
            return Ok(found);
        }
        let sessions = &self.settings.sessions;
        let (session, place) = sessions.open::<SessionTokens>(&cx.head.headers, now).await?;
        let Some(session) = session else { return Ok((None, place)) };
        // The logout may have come to a plugin with sessions elsewhere.
        if self.revoked.has_ended_stored(session.authenticated, || session.data.provider_session()) {
            return Ok((None, place));
        }
        // The store is read once more only where a logout token can arrive.
        if self.revoked.has_receiver() {
            let labels = labels(&session.data.provider_session());
            if sessions.is_revoked(labels.iter().map(|label| &**label), session.authenticated).await? {
                return Ok((None, place));
            }
        }
        Ok((Some(session), place))
    }

    /// The session with tokens that have not expired. `Ok(None)`: the session has ended.
    pub(in crate::plugins::openid_connect) async fn refresh_if_expired(
        &self,
        session: OpenedSession<SessionTokens>,
        now: u64,
    ) -> Result<Option<OpenedSession<SessionTokens>>, RefreshFailure> {
        if !session.data.has_expired(now) {
            return Ok(Some(session));
        }
        if !self.settings.refreshes_tokens || session.data.refresh_token.is_none() {
            return Ok(None);
        }
        let refresh = SessionRefresh {
            party: Arc::clone(&self.settings.party),
            sessions: Arc::clone(&self.settings.sessions),
            old: session.data.clone(),
            stored_id: session.stored.as_ref().map(|stored| stored.id.clone()),
            digest: session_digest(&session),
            revokes: self.settings.logout.revokes,
            now,
        };
        match &*self.refreshes.refresh(refresh, self.services).await {
            Ok(Some(refreshed)) => {
                // Otherwise, the cookie must be replaced, whatever its age is.
                let age = if refreshed.are_stored { session.age } else { SessionAge::Renewed };
                let stored = session.stored.map(|stored| StoredPlace { text: None, ..stored });
                Ok(Some(OpenedSession { data: refreshed.tokens.clone(), age, stored, ..session }))
            }
            Ok(None) => Ok(None),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Like [`UserSessions::continue_session`], for a session that is not in a store.
    pub(in crate::plugins::openid_connect) fn continue_now(
        &self,
        cx: &RequestCx<'_>,
        mut session: OpenedSession<SessionTokens>,
        place: SessionPlace,
        now: u64,
    ) -> AcceptedClient {
        let (sessions, mut cookies) = (&self.settings.sessions, None);
        session.times = session.times.after(session.age, now);
        if session.age != SessionAge::Current {
            let written = sessions.write_now(cookies.get_or_insert_default(), &session, place, is_secure(cx));
            self.log_unwritten(cx, written);
        }
        AcceptedClient::with_session(session, cookies, now)
    }

    /// The client of a session that continues. Writes the session if it is due, and only logs if that fails.
    pub(in crate::plugins::openid_connect) async fn continue_session(
        &self,
        cx: &RequestCx<'_>,
        mut session: OpenedSession<SessionTokens>,
        place: SessionPlace,
        now: u64,
    ) -> AcceptedClient {
        let (sessions, mut cookies) = (&self.settings.sessions, None);
        session.times = session.times.after(session.age, now);
        if session.age != SessionAge::Current {
            let written = sessions.write(cookies.get_or_insert_default(), &session, place, is_secure(cx), now).await;
            self.log_unwritten(cx, written);
        }
        AcceptedClient::with_session(session, cookies, now)
    }

    fn log_unwritten(&self, cx: &RequestCx<'_>, written: Result<(), SessionError>) {
        if let Err(error) = written {
            self.log.rejected(cx.scope, "session", &error.to_string());
        }
    }
}
