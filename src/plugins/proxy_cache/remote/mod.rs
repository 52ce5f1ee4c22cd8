//! `strategy: redis`: stored responses at a Redis server, which all replicas share.
//!
//! ```text
//!   e:KEY ──▶ the response, or the names of the fields by which several differ ──▶ v:KEY:VALUES ──▶ the response
//!   t:TARGET, n ──▶ what the last purge of the target and of the namespace has set; a response has the values that it
//!                   was requested with, and ends when they change
//! ```
//!
//! A look-up takes one round trip, and a second one for responses with `Vary`. Calls that wait are limited, and so are
//! their values, so that a slow server does not let the memory grow. Each server has a share of the calls of its
//! namespace, so a server that hangs leaves places to others. Storing and purging never let a request wait.

mod entry;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use futures_util::future::try_join3;
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::semantics::vary::Vary;
use super::store::{CacheKey, FlightGuard, Reservation, StoredFields, StoredResponse, head_bytes};
use crate::plugin_api::redis::{RedisServer, RedisStore, RedisStoreError};
use crate::plugin_api::{BuildCx, PluginServices, Reply};
use crate::shared_limit::{Share, SharedLimit};
pub(crate) use entry::Epoch;
use entry::{EntryResponse, RemoteEntry};

/// The responses of the plugins of one kind in one namespace.
pub(crate) struct RemoteStore {
    redis: RedisStore,
    services: Arc<dyn PluginServices>,
    /// The calls of the namespace, of which each server has a share.
    calls: Arc<SharedLimit>,
    server_share: Arc<Share>,
    purges: Arc<Semaphore>,
    /// Whether requests are forwarded if the server does not respond.
    pub(super) bypasses_errors: bool,
}

/// What was found for a request.
#[derive(Debug, Default)]
pub(crate) struct RemoteFound {
    pub(super) response: Option<Arc<StoredResponse>>,
    pub(super) epoch: Epoch,
}

impl RemoteStore {
    pub(super) fn connect(
        name: &'static str,
        server: &RedisServer,
        bypasses_errors: bool,
        max_body: usize,
        cx: &BuildCx<'_>,
    ) -> Arc<RemoteStore> {
        // Shared by the plugins of a namespace, so that a tenant cannot take more memory with more plugins.
        let calls = format!("calls of response caches in {}", cx.namespace().unwrap_or_default());
        let calls = cx.state.get_or_create(&calls, || SharedLimit::new(MAX_CALLS));
        Arc::new(RemoteStore {
            redis: RedisStore::connect(server, "redis", name, max_body + MAX_HEAD_BYTES, cx),
            services: Arc::clone(cx.services),
            server_share: calls.share(&server.fingerprint()),
            calls,
            purges: Arc::new(Semaphore::new(MAX_PURGES)),
            bypasses_errors,
        })
    }

    /// The stored response for a request. `reservation` takes its bytes, and it is not found without room for them.
    pub(super) async fn look_up(
        &self,
        key: CacheKey,
        request: &HeaderMap,
        now: SystemTime,
        mut reservation: Reservation,
    ) -> Result<RemoteFound, RedisStoreError> {
        let taken = self.calls.take(&self.server_share, 1, Instant::now() + MAX_WAIT).await;
        let _call = taken.map_err(|_| RedisStoreError::Unavailable)?;
        let (entry_key, target_key) = (entry_key(key), target_key(key));
        let (entry, target, namespace) =
            try_join3(self.redis.get(&entry_key), self.redis.get(&target_key), self.redis.get(NAMESPACE)).await?;
        let text = |value: Option<bytes::Bytes>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
        let epoch = Epoch { target: text(target), namespace: text(namespace) };
        let entry = match entry.as_ref().and_then(RemoteEntry::decode) {
            Some(RemoteEntry::Varies(names)) => {
                let variant = self.redis.get(&variant_key(key, &Vary::of_request(names, request))).await?;
                variant.as_ref().and_then(RemoteEntry::decode)
            }
            entry => entry,
        };
        let Some(RemoteEntry::Response(found)) = entry else { return Ok(RemoteFound { response: None, epoch }) };
        let is_valid = found.epoch == epoch && found.keep_until > now && found.vary.matches(request);
        let fields = StoredFields::copy(&found.headers, |_| true);
        let bytes = head_bytes(&fields, &found.vary, &[]) + found.body.len();
        if !is_valid || !reservation.grow(bytes) {
            return Ok(RemoteFound { response: None, epoch });
        }
        let EntryResponse { status, vary, directives, freshness, received, keep_until, body, .. } = *found;
        let tags = Box::default();
        let response = StoredResponse {
            status,
            fields,
            body,
            vary,
            tags,
            directives,
            freshness,
            received,
            keep_until,
            reservation,
        };
        Ok(RemoteFound { response: Some(Arc::new(response)), epoch })
    }

    /// Stores a response in the background, unless something was purged since its request. `flight` lets requests for
    /// it wait until it is stored.
    pub(super) fn store(
        self: &Arc<Self>,
        key: CacheKey,
        response: Arc<StoredResponse>,
        epoch: Epoch,
        flight: Option<FlightGuard>,
    ) {
        let Ok(call) = self.calls.try_take(&self.server_share, 1) else { return };
        let store = Arc::clone(self);
        self.services.spawn(Box::pin(async move {
            let _held = (call, flight);
            // The plugin reports to the condition of its object that the server is not available.
            if store.put(key, &response, epoch).await.is_err() {
                debug!("A response could not be stored in Redis");
            }
        }));
    }

    async fn put(&self, key: CacheKey, response: &StoredResponse, epoch: Epoch) -> Result<(), RedisStoreError> {
        if self.epoch(key).await? != epoch {
            return Ok(());
        }
        let keep = response.keep_until.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST);
        if keep.is_zero() {
            return Ok(());
        }
        let names: Vec<HeaderName> = response.vary.fields().iter().map(|(name, _)| name.clone()).collect();
        let entry = RemoteEntry::Response(Box::new(EntryResponse {
            epoch,
            status: response.status,
            headers: response.fields.to_map(),
            vary: response.vary.clone(),
            directives: response.directives,
            freshness: response.freshness,
            received: response.received,
            keep_until: response.keep_until,
            body: response.body.clone(),
        }));
        if names.is_empty() {
            return self.redis.set(&entry_key(key), &entry.encode(), keep).await;
        }
        self.redis.set(&variant_key(key, &response.vary), &entry.encode(), keep).await?;
        self.redis.set(&entry_key(key), &RemoteEntry::Varies(names).encode(), keep).await
    }

    async fn epoch(&self, key: CacheKey) -> Result<Epoch, RedisStoreError> {
        let target_key = target_key(key);
        let (target, namespace) =
            futures_util::future::try_join(self.redis.get(&target_key), self.redis.get(NAMESPACE)).await?;
        let text = |value: Option<bytes::Bytes>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
        Ok(Epoch { target: text(target), namespace: text(namespace) })
    }

    /// Removes all responses for a target, for all consumers, in the background.
    pub(super) fn invalidate(self: &Arc<Self>, key: CacheKey) {
        self.purge_by(move |store| Box::pin(async move { store.begin_epoch(&target_key(key)).await }));
    }

    /// Removes responses in the background: those for the target of a key, or all of the namespace, also for a tag.
    pub(super) fn purge(self: &Arc<Self>, key: Option<CacheKey>) {
        match key {
            Some(key) => self.invalidate(key),
            None => self.purge_by(|store| Box::pin(async move { store.begin_epoch(NAMESPACE).await })),
        }
    }

    async fn begin_epoch(&self, key: &str) -> Result<(), RedisStoreError> {
        let value = format!("{:032x}", fastrand::u128(..));
        self.redis.set(key, value.as_bytes(), LONGEST + EPOCH_MARGIN).await
    }

    fn purge_by<F>(self: &Arc<Self>, purge: F)
    where
        F: for<'s> FnOnce(&'s RemoteStore) -> futures_util::future::BoxFuture<'s, Result<(), RedisStoreError>>
            + Send
            + 'static,
    {
        let Ok(permit) = Arc::clone(&self.purges).try_acquire_owned() else {
            warn!("Too many purges of stored responses wait for Redis, so responses stay until they are stale");
            return;
        };
        let store = Arc::clone(self);
        self.services.spawn(Box::pin(async move {
            let _permit: OwnedSemaphorePermit = permit;
            if purge(&store).await.is_err() {
                warn!("Redis is not available for a purge of stored responses, which stay until they are stale");
            }
        }));
    }
}

/// The reply to a request while the server does not respond.
pub(super) fn unavailable() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "cache_unavailable")
}

fn entry_key(key: CacheKey) -> String {
    format!("e:{}", key.to_hex())
}

fn target_key(key: CacheKey) -> String {
    format!("t:{}", &key.to_hex()[..32])
}

fn variant_key(key: CacheKey, vary: &Vary) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for (name, value) in vary.fields() {
        let value = value.as_deref();
        context.update(name.as_str().as_bytes());
        context.update(&[0, u8::from(value.is_some())]);
        context.update(&(value.map_or(0, <[u8]>::len) as u64).to_be_bytes());
        context.update(value.unwrap_or_default());
    }
    let digest = context.finish();
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v:{}:{hex}", key.to_hex())
}

const NAMESPACE: &str = "n";
/// How many look-ups and stores of a namespace wait for all of its servers at the same time.
const MAX_CALLS: usize = 64;
/// How long a look-up waits for others to end.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MAX_PURGES: usize = 1_024;
/// The largest head of a stored response.
const MAX_HEAD_BYTES: usize = 256 << 10;
/// How long a response is kept at most.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A purge must be remembered longer than what it purges.
const EPOCH_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest body of a response that is stored.
pub(super) const MAX_REMOTE_BODY: u32 = 1 << 20;
