//! Refreshes of sessions. Requests with the same refresh token share one refresh, because a provider that replaces
//! refresh tokens ends the session if an old one is used again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::tokens::SessionTokens;
use super::session_refresh::{RefreshFailure, RefreshResult, SessionRefresh};
use crate::plugin_api::PluginServices;
use crate::plugin_api::consumers::Sha256Digest;

/// The refreshes of one plugin that are in progress, or have ended a short time ago.
#[derive(Debug, Default)]
pub(in crate::plugins::openid_connect) struct TokenRefreshes {
    by_session: Mutex<HashMap<Sha256Digest, SharedRefresh>>,
}

/// The result of a refresh, when it has ended.
type SharedRefresh = watch::Receiver<Option<EndedRefresh>>;

#[derive(Clone, Debug)]
struct EndedRefresh {
    result: Arc<RefreshResult>,
    ended_at: Instant,
}

impl TokenRefreshes {
    /// The result of a refresh of this session. Continues if the request ends, so that the new tokens are not lost.
    pub(super) async fn refresh(
        &self,
        session: SessionRefresh,
        services: &Arc<dyn PluginServices>,
    ) -> Arc<RefreshResult> {
        let (old, id, now) = (session.old.clone(), session.stored_id.clone(), session.now);
        self.share((&old, id.as_deref(), now), services, session.run()).await
    }

    async fn share(
        &self,
        (old, stored_id, now): (&SessionTokens, Option<&str>, u64),
        services: &Arc<dyn PluginServices>,
        refresh: impl Future<Output = RefreshResult> + Send + 'static,
    ) -> Arc<RefreshResult> {
        let digest = digest(old, stored_id);
        let mut shared = {
            let mut by_session = self.by_session.lock();
            by_session.retain(|_, shared| is_kept(shared));
            match by_session.get(&digest).filter(|shared| !must_begin_again(shared, old, now)) {
                Some(shared) => shared.clone(),
                None if by_session.len() >= MAX_REFRESHES => return unavailable("too many sessions are refreshed"),
                None => {
                    let (sender, shared) = watch::channel(None);
                    services.spawn(Box::pin(async move {
                        let result = Arc::new(refresh.await);
                        // The receivers no longer exist if all requests have ended and the plugin was removed.
                        sender.send_replace(Some(EndedRefresh { result, ended_at: Instant::now() }));
                    }));
                    by_session.insert(digest, shared.clone());
                    shared
                }
            }
        };
        let ended = shared.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        let result = ended.map_or_else(|| unavailable("the refresh was aborted"), |ended| ended.result);
        if result.is_err() {
            // The next request may begin another one, which must not be removed by those that waited for this one.
            let mut by_session = self.by_session.lock();
            if by_session.get(&digest).is_some_and(|current| current.same_channel(&shared)) {
                by_session.remove(&digest);
            }
        }
        result
    }
}

/// Names the refresh token, and the session if it is a stored one: another session has to get the tokens, too.
fn digest(old: &SessionTokens, stored_id: Option<&str>) -> Sha256Digest {
    let mut context = Context::new(&SHA256);
    let token = old.refresh_token.as_deref().unwrap_or_default();
    context.update(&token.len().to_le_bytes());
    context.update(token.as_bytes());
    context.update(stored_id.unwrap_or_default().as_bytes());
    let mut digest = Sha256Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Whether a refresh is in progress, however long that takes, or has ended a short time ago.
fn is_kept(shared: &SharedRefresh) -> bool {
    match &*shared.borrow() {
        Some(ended) => ended.ended_at.elapsed() < KEPT,
        // Without a sender, the refresh was aborted.
        None => shared.has_changed().is_ok(),
    }
}

/// Whether the new tokens have expired, too, and came with the same refresh token, which may be used again.
fn must_begin_again(shared: &SharedRefresh, old: &SessionTokens, now: u64) -> bool {
    let ended = shared.borrow();
    let Some(Ok(Some(refreshed))) = ended.as_ref().map(|ended| &*ended.result) else { return false };
    refreshed.tokens.refresh_token == old.refresh_token && refreshed.tokens.has_expired(now)
}

fn unavailable(message: &str) -> Arc<RefreshResult> {
    Arc::new(Err(RefreshFailure::Provider(message.to_owned())))
}

/// How long the new tokens are kept for requests that were sent with the former cookie.
const KEPT: Duration = Duration::from_secs(30);
/// How many refreshes are kept.
const MAX_REFRESHES: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::pin::{Pin, pin};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use futures_util::future::BoxFuture;
    use tokio::sync::oneshot;
    use tokio::time::advance;

    use super::*;
    use crate::plugins::openid_connect::sessions::session_refresh::RefreshedTokens;

    /// Refreshes of sessions, and how many have begun.
    struct Refreshing {
        refreshes: TokenRefreshes,
        services: Arc<dyn PluginServices>,
        begun: Arc<AtomicUsize>,
    }

    struct Spawning;

    impl PluginServices for Spawning {
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            tokio::spawn(task);
        }
    }

    impl Refreshing {
        fn new() -> Self {
            Refreshing { refreshes: TokenRefreshes::default(), services: Arc::new(Spawning), begun: Arc::default() }
        }

        /// A request with a session at second 1000.
        async fn request(
            &self,
            session: (&SessionTokens, Option<&str>),
            refresh: impl Future<Output = RefreshResult> + Send + 'static,
        ) -> Arc<RefreshResult> {
            let begun = Arc::clone(&self.begun);
            let counted = async move {
                begun.fetch_add(1, Ordering::Relaxed);
                refresh.await
            };
            self.refreshes.share((session.0, session.1, 1000), &self.services, counted).await
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::Relaxed)
        }
    }

    fn tokens(refresh_token: &str, expires: u64) -> SessionTokens {
        SessionTokens {
            access_token: "a".into(),
            id_token: "i".into(),
            refresh_token: Some(refresh_token.into()),
            expires: Some(expires),
            scope: None,
            session_id: "n".into(),
            has_claims: false,
        }
    }

    fn refreshed(tokens: SessionTokens) -> RefreshResult {
        Ok(Some(RefreshedTokens { tokens, are_stored: false }))
    }

    /// Lets a request begin, which then waits, and lets the task of its refresh run.
    async fn begin<F: Future<Output: std::fmt::Debug>>(mut request: Pin<&mut F>) {
        poll_fn(|cx| {
            let polled = request.as_mut().poll(cx);
            assert!(polled.is_pending(), "{polled:?}");
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_refresh_is_shared_until_it_has_ended() {
        let (refreshing, old) = (Refreshing::new(), tokens("r", 0));
        let (sender, receiver) = oneshot::channel();
        let mut first = pin!(refreshing.request((&old, None), async { receiver.await.unwrap() }));
        begin(first.as_mut()).await;
        advance(KEPT * 3).await;
        let mut second = pin!(refreshing.request((&old, None), pending()));
        begin(second.as_mut()).await;
        sender.send(refreshed(tokens("s", 2000))).unwrap();
        assert!(first.await.is_ok() && second.await.is_ok());
        // Counted from the end.
        advance(KEPT - Duration::from_secs(1)).await;
        assert!(refreshing.request((&old, None), pending()).await.is_ok());
        assert_eq!(refreshing.begun(), 1);
        advance(Duration::from_secs(1)).await;
        let mut late = pin!(refreshing.request((&old, None), pending()));
        begin(late.as_mut()).await;
        assert_eq!(refreshing.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_of_a_failed_refresh_leave_the_next_one_alone() {
        let (refreshing, old) = (Refreshing::new(), tokens("r", 0));
        let (sender, receiver) = oneshot::channel();
        let mut first = pin!(refreshing.request((&old, None), async { receiver.await.unwrap() }));
        let mut late = pin!(refreshing.request((&old, None), pending()));
        begin(first.as_mut()).await;
        begin(late.as_mut()).await;
        sender.send(Err(RefreshFailure::Provider("away".to_owned()))).unwrap();
        assert!(first.await.is_err());
        let mut next = pin!(refreshing.request((&old, None), pending()));
        begin(next.as_mut()).await;
        assert!(late.await.is_err());
        let mut last = pin!(refreshing.request((&old, None), pending()));
        begin(last.as_mut()).await;
        assert_eq!(refreshing.begun(), 2, "the last request waits for the refresh in progress");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_have_expired_are_refreshed_again_with_a_token_that_stays_valid() {
        for (refresh_token, expires, begun) in [("r", 1000, 2), ("r", 1001, 1), ("s", 1000, 1)] {
            let (refreshing, old) = (Refreshing::new(), tokens("r", 0));
            for _ in 0..2 {
                let result = refreshed(tokens(refresh_token, expires));
                assert!(refreshing.request((&old, None), async { result }).await.is_ok());
            }
            assert_eq!(refreshing.begun(), begun, "{refresh_token} {expires}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stored_sessions_with_the_same_token_are_refreshed_apart() {
        let (refreshing, old) = (Refreshing::new(), tokens("r", 0));
        for id in [None, Some("a"), Some("b"), Some("a")] {
            assert!(refreshing.request((&old, id), async { Ok(None) }).await.is_ok());
        }
        assert_eq!(refreshing.begun(), 3);
    }
}
