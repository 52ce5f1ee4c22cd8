//! Where grants are stored: in Redis, or in the memory of the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::grant::{Grant, GrantKey};
use super::memory_grants::MemoryGrants;
use crate::plugin_api::consumers::{Sha256Digest, hex};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_kit::redis::{RedisServer, RedisStore, RedisStoreError};

#[derive(Debug)]
pub(super) enum TokenStore {
    Memory(Arc<MemoryGrants>),
    Redis(RedisStore),
}

/// Why a call of the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreError {
    /// There is no room for another grant, and the plugin has none that could make room.
    Full,
    Unavailable,
}

/// The result of replacing the code or the refresh token of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExchangeOutcome {
    Done,
    /// It was used before, so the grant was removed.
    UsedBefore,
    /// The grant has ended.
    Gone,
}

impl TokenStore {
    /// The store of a plugin. Plugins with `global_credentials` in one namespace share it.
    pub(super) fn open(server: Option<&RedisServer>, is_global: bool, cx: &BuildCx<'_>) -> TokenStore {
        match server {
            Some(server) => TokenStore::Redis(RedisStore::connect(server, "redis", "oauth2", MAX_GRANT_BYTES, cx)),
            None => TokenStore::Memory(MemoryGrants::of_plugin(is_global, cx)),
        }
    }

    /// The grant, if that is known without waiting.
    pub(super) fn get_now(&self, key: &GrantKey) -> Option<Option<Arc<Grant>>> {
        match self {
            TokenStore::Memory(grants) => Some(grants.get(key)),
            TokenStore::Redis(_) => None,
        }
    }

    pub(super) async fn get(&self, key: &GrantKey) -> Result<Option<Arc<Grant>>, StoreError> {
        match self {
            TokenStore::Memory(grants) => Ok(grants.get(key)),
            TokenStore::Redis(store) => {
                let entry = store.get(&grant_key(key)).await?;
                // An entry that cannot be read was not written by a replica, and allows nothing.
                Ok(entry.and_then(|entry| serde_json::from_slice(&entry).ok()).map(Arc::new))
            }
        }
    }

    pub(super) async fn insert(&self, key: GrantKey, grant: Grant, now: SystemTime) -> Result<(), StoreError> {
        match self {
            TokenStore::Memory(grants) => grants.insert(key, grant, now),
            TokenStore::Redis(store) => {
                Ok(store.set(&grant_key(&key), &entry_of(&grant), remaining(&grant, now)).await?)
            }
        }
    }

    /// Replaces a grant by what follows from the use of this code or refresh token. Of several concurrent uses, also at
    /// other replicas, one is the first, and the others end the grant.
    pub(super) async fn exchange(
        &self,
        key: &GrantKey,
        used: &Sha256Digest,
        before: &Arc<Grant>,
        after: Grant,
        now: SystemTime,
    ) -> Result<ExchangeOutcome, StoreError> {
        let store = match self {
            TokenStore::Memory(grants) => return Ok(grants.exchange(key, before, after)),
            TokenStore::Redis(store) => store,
        };
        let claim = format!("used:{}", hex(used));
        if !store.set_if_absent(&claim, b"1", CLAIM_LIFETIME).await? {
            store.delete(&grant_key(key)).await?;
            return Ok(ExchangeOutcome::UsedBefore);
        }
        match store.replace(&grant_key(key), &entry_of(&after), remaining(&after, now)).await {
            Ok(true) => Ok(ExchangeOutcome::Done),
            Ok(false) => Ok(ExchangeOutcome::Gone),
            Err(error) => {
                // So that the client can try again. If this fails too, the claim expires.
                store.delete(&claim).await.ok();
                Err(error.into())
            }
        }
    }

    /// Replaces a grant, unless it has ended. Returns whether it had not.
    pub(super) async fn replace(&self, key: &GrantKey, after: Grant, now: SystemTime) -> Result<bool, StoreError> {
        match self {
            TokenStore::Memory(grants) => Ok(grants.replace(key, after)),
            TokenStore::Redis(store) => {
                Ok(store.replace(&grant_key(key), &entry_of(&after), remaining(&after, now)).await?)
            }
        }
    }

    /// Ends a grant with all its tokens.
    pub(super) async fn remove(&self, key: &GrantKey) -> Result<(), StoreError> {
        match self {
            TokenStore::Memory(grants) => grants.remove(key),
            TokenStore::Redis(store) => drop(store.delete(&grant_key(key)).await?),
        }
        Ok(())
    }
}

impl From<RedisStoreError> for StoreError {
    fn from(_: RedisStoreError) -> Self {
        StoreError::Unavailable
    }
}

fn grant_key(key: &GrantKey) -> String {
    format!("grant:{}", hex(key))
}

fn entry_of(grant: &Grant) -> Vec<u8> {
    serde_json::to_vec(grant).expect("a grant consists of texts and numbers")
}

fn remaining(grant: &Grant, now: SystemTime) -> Duration {
    grant.expires().remaining(now).unwrap_or(Duration::MAX)
}

/// The largest grants have scopes, a user and a redirect URI of the longest permitted length.
const MAX_GRANT_BYTES: usize = 16 << 10;
/// How long a use of a code or refresh token counts as in progress. Later, the grant has its next tokens.
const CLAIM_LIFETIME: Duration = Duration::from_secs(60);
