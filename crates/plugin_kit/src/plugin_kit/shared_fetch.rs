//! Requests to a server that several requests of clients share: those that need the same value at the same time wait
//! for one fetch.

use std::collections::HashMap;
use std::fmt;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use crate::plugin_api::consumers::Sha256Digest;

type SharedFetch<T> = Shared<BoxFuture<'static, T>>;

/// The fetches in progress, by the digest of what they are for. There are at most as many as requests that wait.
pub struct SharedFetches<T: Clone>(Mutex<HashMap<Sha256Digest, SharedFetch<T>>>);

impl<T: Clone> Default for SharedFetches<T> {
    fn default() -> Self {
        SharedFetches(Mutex::default())
    }
}

impl<T: Clone + Send + Sync> SharedFetches<T> {
    /// The result of the fetch with this key. Starts it if there is none.
    pub async fn get(&self, key: Sha256Digest, start: impl FnOnce() -> BoxFuture<'static, T>) -> T {
        let fetch = self.0.lock().entry(key).or_insert_with(|| start().shared()).clone();
        let waiting = WaitingFetch { fetches: self, key, fetch };
        waiting.fetch.clone().await
    }

    /// How many fetches are in progress.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A request that waits. The fetch ends with its result, or with the last request that waits.
struct WaitingFetch<'f, T: Clone> {
    fetches: &'f SharedFetches<T>,
    key: Sha256Digest,
    fetch: SharedFetch<T>,
}

impl<T: Clone> Drop for WaitingFetch<'_, T> {
    fn drop(&mut self) {
        let mut fetches = self.fetches.0.lock();
        let Some(current) = fetches.get(&self.key).filter(|current| current.ptr_eq(&self.fetch)) else { return };
        // The map and this request have one reference each.
        let is_last = current.strong_count().is_none_or(|count| count <= 2);
        if is_last || current.peek().is_some() {
            fetches.remove(&self.key);
        }
    }
}

impl<T: Clone> fmt::Debug for SharedFetches<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedFetches")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn requests_at_the_same_time_share_a_fetch() {
        let fetches = SharedFetches::<usize>::default();
        let (started, finish) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let start = || {
            let (started, finish) = (Arc::clone(&started), Arc::clone(&finish));
            async move {
                let number = started.fetch_add(1, Ordering::Relaxed);
                finish.notified().await;
                number
            }
            .boxed()
        };
        let get = |key: u8| fetches.get([key; 32], start);
        let mut all = join_all([get(1), get(1), get(1)]);
        assert!((&mut all).now_or_never().is_none(), "the fetch is in progress");
        finish.notify_one();
        assert_eq!(all.await, [0, 0, 0]);
        assert!(fetches.is_empty());
        finish.notify_one();
        assert_eq!(get(1).await, 1, "a later request fetches again");
    }

    /// Clients that disconnect must not leave anything behind.
    #[tokio::test]
    async fn a_fetch_ends_with_the_last_request() {
        let fetches = SharedFetches::<()>::default();
        let pending = || async { std::future::pending().await }.boxed();
        let (mut first, mut second) =
            (Box::pin(fetches.get([0; 32], pending)), Box::pin(fetches.get([0; 32], pending)));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(fetches.len(), 1);
        drop(second);
        assert!(fetches.is_empty());
    }
}
