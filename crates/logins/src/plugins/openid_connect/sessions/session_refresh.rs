//! The refresh of one session. That of a session in Redis happens at one replica only, while the others wait for it.
//!
//! ```text
//!   lock ─ got it ─▶ same tokens in Redis? ─ yes ─▶ refresh ─▶ write ─▶ unlock
//!     │ another replica has it    └ no: it was refreshed meanwhile ─▶ the tokens in Redis
//!     └─▶ other tokens in Redis? ─ yes ─▶ these
//!              └ no ─▶ again, after a moment
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::tokens::{AuthenticationError, RelyingParty, SessionTokens};
use crate::logged_out_sessions::SessionDigest;
use crate::plugin_kit::redis::RedisStoreError;
use crate::sealed_cookie::Stored;
use crate::stored_sessions::Sessions;

/// A session whose access token has expired.
pub(super) struct SessionRefresh {
    pub(super) party: Arc<RelyingParty>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) old: SessionTokens,
    /// The id of a session in Redis.
    pub(super) stored_id: Option<Box<str>>,
    /// The name of one in cookies.
    pub(super) digest: SessionDigest,
    /// Whether logouts revoke the tokens of sessions.
    pub(super) revokes: bool,
    /// In seconds since 1970.
    pub(super) now: u64,
}

/// The new tokens. `Ok(None)`: the session has ended.
pub(super) type RefreshResult = Result<Option<RefreshedTokens>, RefreshFailure>;

#[derive(Debug)]
pub(super) struct RefreshedTokens {
    pub(super) tokens: SessionTokens,
    /// Whether the session in Redis has them. Otherwise, a request must write them.
    pub(super) are_stored: bool,
}

/// Why it is not known whether the session continues.
#[derive(Clone, Debug)]
pub(in crate::plugins::openid_connect) enum RefreshFailure {
    /// The message is for the log.
    Provider(String),
    Store(RedisStoreError),
}

impl From<RedisStoreError> for RefreshFailure {
    fn from(error: RedisStoreError) -> Self {
        RefreshFailure::Store(error)
    }
}

impl SessionRefresh {
    pub(super) async fn run(self) -> RefreshResult {
        match &self.stored_id {
            Some(id) => self.run_alone(id).await,
            None => {
                let Some(tokens) = self.request_tokens(self.now).await? else { return Ok(None) };
                // A logout that has ended the session meanwhile did not know these tokens.
                if self.sessions.logged_out.contains_digest(&self.digest, self.now) {
                    self.revoke(&tokens).await;
                    return Ok(None);
                }
                Ok(Some(RefreshedTokens { tokens, are_stored: false }))
            }
        }
    }

    async fn run_alone(&self, id: &str) -> RefreshResult {
        let start = Instant::now();
        let longest = self.party.client.timeout + MARGIN;
        loop {
            let lock = self.sessions.lock(id, longest).await?;
            // After the lock: a replica that had it has written the new tokens before.
            let result = match (self.sessions.read::<SessionTokens>(id).await, &lock) {
                (Err(error), _) => Some(Err(error.into())),
                (Ok(None), _) => Some(Ok(None)),
                (Ok(Some(stored)), _) if stored.data != self.old => {
                    Some(Ok(Some(RefreshedTokens { tokens: stored.data, are_stored: true })))
                }
                (Ok(Some(stored)), Some(_)) => {
                    let now = self.now.saturating_add(start.elapsed().as_secs());
                    Some(self.refresh_and_store(id, stored, now).await)
                }
                (Ok(Some(_)), None) => None,
            };
            if let Some(lock) = lock {
                self.sessions.unlock(lock).await;
            }
            if let Some(result) = result {
                return result;
            }
            if start.elapsed() > longest {
                let message = "another replica has not finished the refresh of the session";
                return Err(RefreshFailure::Provider(message.to_owned()));
            }
            sleep(PAUSE).await;
        }
    }

    async fn refresh_and_store(&self, id: &str, stored: Stored<SessionTokens>, now: u64) -> RefreshResult {
        let Some(tokens) = self.request_tokens(now).await? else { return self.end_refused(id).await };
        let session = Stored { data: tokens, ..stored };
        for _ in 0..MAX_WRITES {
            match self.sessions.replace(id, &session, now).await {
                Ok(true) => return Ok(Some(RefreshedTokens { tokens: session.data, are_stored: true })),
                // A logout has ended the session meanwhile, and did not know these tokens.
                Ok(false) => {
                    self.revoke(&session.data).await;
                    return Ok(None);
                }
                Err(RedisStoreError::TooLong) => break,
                Err(RedisStoreError::Unavailable) => sleep(PAUSE).await,
            }
        }
        // The provider no longer accepts the old tokens, so the new ones must not be lost.
        Ok(Some(RefreshedTokens { tokens: session.data, are_stored: false }))
    }

    /// Ends the session, because the other replicas must not use the token again. A replica whose lock had expired may
    /// have used it before, and have written the tokens that it got.
    async fn end_refused(&self, id: &str) -> RefreshResult {
        let end = |stored: &Stored<SessionTokens>| stored.data == self.old;
        match self.sessions.end_if(id, end).await {
            Ok(Some(stored)) => Ok(Some(RefreshedTokens { tokens: stored.data, are_stored: true })),
            // If it was not ended, the provider refuses the token again.
            Ok(None) | Err(_) => Ok(None),
        }
    }

    async fn revoke(&self, tokens: &SessionTokens) {
        if !self.revokes {
            return;
        }
        let Ok(metadata) = self.party.metadata().await else { return };
        for token in tokens.revocable() {
            if let Err(error) = self.party.client.revoke(&metadata, token).await {
                tracing::warn!(%error, "Cannot revoke the new tokens of a session that has ended");
            }
        }
    }

    /// `None` if the provider refuses.
    async fn request_tokens(&self, now: u64) -> Result<Option<SessionTokens>, RefreshFailure> {
        match self.party.refresh(&self.old, now).await {
            Ok(tokens) => Ok(Some(tokens)),
            Err(AuthenticationError::Rejected(_)) => Ok(None),
            Err(AuthenticationError::Unavailable(message)) => Err(RefreshFailure::Provider(message)),
        }
    }
}

/// Time for a refresh in addition to the timeout of the request for tokens: the keys and the document of the provider
/// may have to be fetched.
const MARGIN: Duration = Duration::from_secs(15);
/// Pause between two looks at a session that another replica refreshes, and between two attempts to write one.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the new tokens are written while Redis is not available.
const MAX_WRITES: usize = 5;
