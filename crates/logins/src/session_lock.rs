//! The right of one task, of all replicas, to refresh a session in Redis.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::plugin_api::services::PluginServices;
use crate::plugin_kit::redis::{RedisStore, RedisStoreError};
use crate::sealed_cookie::random_text;

/// The locks of the sessions of one plugin that may have been set, and are removed in the background.
#[derive(Clone, Debug)]
pub(crate) struct LockRemovals(Arc<Semaphore>);

impl Default for LockRemovals {
    fn default() -> Self {
        LockRemovals(Arc::new(Semaphore::new(MAX_CONCURRENT_REMOVALS)))
    }
}

/// Expires by itself, because a replica may stop.
#[derive(Debug)]
pub struct SessionLock {
    key: String,
    /// Random, so that a task whose lock has expired does not remove that of another task.
    owner: String,
}

impl SessionLock {
    /// The lock of the session with this id, which expires after this time. `None` while another task has it.
    pub(super) async fn acquire(
        id: &str,
        expires_in: Duration,
        store: &RedisStore,
        services: &dyn PluginServices,
        removals: &LockRemovals,
    ) -> Result<Option<SessionLock>, RedisStoreError> {
        let lock = SessionLock { key: format!("lock:{id}"), owner: random_text(OWNER_BYTES) };
        match store.set_if_absent(&lock.key, lock.owner.as_bytes(), expires_in).await {
            Ok(is_set) => Ok(is_set.then_some(lock)),
            Err(error) => {
                // A server that is slow may still set it, and the next requests would wait until it expires.
                if let Ok(permit) = Arc::clone(&removals.0).try_acquire_owned() {
                    let store = store.clone();
                    services.spawn(Box::pin(async move {
                        lock.remove_eventually(&store).await;
                        drop(permit);
                    }));
                }
                Err(error)
            }
        }
    }

    /// Removes the lock, if this task still has it.
    pub(super) async fn remove(&self, store: &RedisStore) -> Result<bool, RedisStoreError> {
        store.delete_if(&self.key, self.owner.as_bytes()).await
    }

    /// A lock that is not there may be set later, by a command that is still on its way.
    async fn remove_eventually(&self, store: &RedisStore) {
        for _ in 0..MAX_REMOVALS {
            if matches!(self.remove(store).await, Ok(true)) {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

/// The random bytes of an owner.
const OWNER_BYTES: usize = 32;
/// How often a lock is removed that may have been set, and the pause after which the server may respond again.
const MAX_REMOVALS: usize = 5;
/// During an outage of the server, the locks of further requests expire by themselves.
const MAX_CONCURRENT_REMOVALS: usize = 64;
const PAUSE: Duration = Duration::from_millis(500);
