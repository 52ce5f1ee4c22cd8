//! Refreshes of sessions. Requests with the same refresh token share one refresh, because a provider that replaces
//! refresh tokens ends the session if an old one is used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::relying_party::{AuthenticationError, RelyingParty};
use super::session_tokens::SessionTokens;
use crate::plugin_api::PluginServices;
use crate::plugin_api::consumers::{Sha256Digest, sha256};

/// The refreshes of one plugin that are in progress, or have ended a short time ago.
#[derive(Debug, Default)]
pub(super) struct TokenRefreshes {
    by_token: Mutex<HashMap<Sha256Digest, Refresh>>,
}

#[derive(Debug)]
struct Refresh {
    started_at: Instant,
    result: watch::Receiver<Option<Arc<RefreshResult>>>,
}

/// The new tokens. An error is `Ok(None)` if the session has ended, and `Err` if the provider is not available.
pub(super) type RefreshResult = Result<Option<SessionTokens>, String>;

impl TokenRefreshes {
    /// The new tokens for those of a session. Continues if the request ends, so that the new tokens are not lost.
    pub(super) async fn refresh(
        &self,
        old: &SessionTokens,
        party: &Arc<RelyingParty>,
        services: &Arc<dyn PluginServices>,
        now: u64,
    ) -> Arc<RefreshResult> {
        let unavailable = |message: &str| Arc::new(Err(message.to_owned()));
        let digest = sha256(old.refresh_token.as_deref().unwrap_or_default().as_bytes());
        let mut result = {
            let mut by_token = self.by_token.lock();
            by_token.retain(|_, refresh| refresh.started_at.elapsed() < KEPT);
            match by_token.get(&digest) {
                Some(refresh) => refresh.result.clone(),
                None if by_token.len() >= MAX_REFRESHES => return unavailable("too many sessions are refreshed"),
                None => {
                    let (sender, result) = watch::channel(None);
                    let (party, old) = (Arc::clone(party), old.clone());
                    services.spawn(Box::pin(async move {
                        let result = match party.refresh(&old, now).await {
                            Ok(tokens) => Ok(Some(tokens)),
                            Err(AuthenticationError::Rejected(_)) => Ok(None),
                            Err(AuthenticationError::Unavailable(message)) => Err(message),
                        };
                        // The receivers no longer exist if all requests have ended and the plugin was removed.
                        sender.send_replace(Some(Arc::new(result)));
                    }));
                    by_token.insert(digest, Refresh { started_at: Instant::now(), result: result.clone() });
                    result
                }
            }
        };
        let ended = result.wait_for(Option::is_some).await.ok().and_then(|result| result.clone());
        let result = ended.unwrap_or_else(|| unavailable("the refresh was aborted"));
        if result.is_err() {
            // The next request may begin another one.
            self.by_token.lock().remove(&digest);
        }
        result
    }
}

/// How long the new tokens are kept for requests that were sent with the former cookie.
const KEPT: Duration = Duration::from_secs(30);
/// How many refreshes are kept.
const MAX_REFRESHES: usize = 10_000;
