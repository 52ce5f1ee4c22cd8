//! Refreshes of sessions. Requests with the same refresh token share one refresh, because a provider that replaces
//! refresh tokens ends the session if an old one is used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::session_refresh::{RefreshFailure, RefreshResult, SessionRefresh};
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

impl TokenRefreshes {
    /// The result of a refresh of this session. Continues if the request ends, so that the new tokens are not lost.
    pub(super) async fn refresh(
        &self,
        session: SessionRefresh,
        services: &Arc<dyn PluginServices>,
    ) -> Arc<RefreshResult> {
        let unavailable = |message: &str| Arc::new(Err(RefreshFailure::Provider(message.to_owned())));
        let digest = sha256(session.old.refresh_token.as_deref().unwrap_or_default().as_bytes());
        let mut result = {
            let mut by_token = self.by_token.lock();
            by_token.retain(|_, refresh| refresh.started_at.elapsed() < KEPT);
            match by_token.get(&digest) {
                Some(refresh) => refresh.result.clone(),
                None if by_token.len() >= MAX_REFRESHES => return unavailable("too many sessions are refreshed"),
                None => {
                    let (sender, result) = watch::channel(None);
                    services.spawn(Box::pin(async move {
                        // The receivers no longer exist if all requests have ended and the plugin was removed.
                        sender.send_replace(Some(Arc::new(session.run().await)));
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
