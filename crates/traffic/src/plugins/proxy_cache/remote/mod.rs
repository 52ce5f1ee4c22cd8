//! `strategy: redis`: stored responses at a Redis server, which all replicas share.
//!
//! ```text
//!   e:KEY ──▶ the response, or the names of the fields by which several differ ──▶ v:KEY:VALUES ──▶ the response
//!   t:TARGET, n ──▶ a random value for the target and for the namespace, which a purge deletes; a response has the
//!                   values that it was requested with, and ends with them
//! ```
//!
//! A value that is gone never comes back, so what the server evicts ends responses as a purge does, and undoes none.
//! A look-up takes one round trip, a second one for responses with `Vary`, and one more for a target without a value.
//! Calls that wait are limited, and so are their values, so that a slow server does not let the memory grow. Each
//! server has a share of the calls of its namespace, so a server that hangs leaves places to others. Storing and
//! purging never let a request wait.

mod entry;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::future::{join, try_join, try_join3};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::semantics::vary::Vary;
use super::store::{CacheKey, FlightGuard, Reservation, StoredFields, StoredResponse, head_bytes};
use crate::plugin_api::{BuildCx, PluginServices, Reply};
use crate::plugin_kit::redis::{RedisServer, RedisStore, RedisStoreError};
use crate::shared_limit::{Share, SharedLimit};
pub(crate) use entry::Epoch;
use entry::{EntryResponse, RemoteEntry};

/// The responses of the plugins of one kind in one namespace.
pub(crate) struct RemoteStore {
    redis: Arc<RedisStore>,
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
            redis: Arc::new(RedisStore::connect(server, "redis", name, max_body + MAX_HEAD_BYTES, cx)),
            services: Arc::clone(cx.services),
            server_share: calls.share(&server.fingerprint()),
            calls,
            purges: Arc::new(Semaphore::new(MAX_PURGES)),
            bypasses_errors,
        })
    }

    /// The same store for a KongClusterPlugin and the routes of another namespace, which have calls of their own.
    pub(super) fn in_another_namespace(&self) -> RemoteStore {
        let calls = Arc::new(SharedLimit::new(MAX_CALLS));
        RemoteStore {
            redis: Arc::clone(&self.redis),
            services: Arc::clone(&self.services),
            server_share: calls.share(""),
            calls,
            purges: Arc::clone(&self.purges),
            bypasses_errors: self.bypasses_errors,
        }
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
        let (Some(target), Some(namespace)) = (&target, &namespace) else {
            let epoch = self.begin_epoch(&target_key, target, namespace).await;
            return Ok(RemoteFound { response: None, epoch });
        };
        let epoch = Epoch { target: to_text(target), namespace: to_text(namespace) };
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
        let (tags, body) = (Box::default(), reservation.split_off(body));
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
        let keep = response.keep_until.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST);
        if keep.is_zero() || !self.confirm(key, &epoch, keep + EPOCH_MARGIN).await? {
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

    /// Sets the values that the server does not have. Without them, what the request gets is not stored.
    async fn begin_epoch(&self, target_key: &str, target: Option<Bytes>, namespace: Option<Bytes>) -> Epoch {
        let (target, namespace) = join(self.begin(target_key, target), self.begin(NAMESPACE, namespace)).await;
        Epoch { target, namespace }
    }

    async fn begin(&self, key: &str, value: Option<Bytes>) -> String {
        if let Some(value) = value {
            return to_text(&value);
        }
        let new = format!("{:032x}", fastrand::u128(..));
        match self.redis.set_if_absent(key, new.as_bytes(), LONGEST_REQUEST).await {
            // A concurrent request has set it.
            Ok(false) => self.redis.get(key).await.ok().flatten().map_or(new, |value| to_text(&value)),
            // A server without memory for it stores no response either.
            Ok(true) | Err(_) => new,
        }
    }

    /// Whether the server still has the values of an epoch, which it then keeps for this time.
    async fn confirm(&self, key: CacheKey, epoch: &Epoch, keep: Duration) -> Result<bool, RedisStoreError> {
        let target_key = target_key(key);
        let target = self.redis.confirm(&target_key, epoch.target.as_bytes(), keep);
        let namespace = self.redis.confirm(NAMESPACE, epoch.namespace.as_bytes(), keep);
        let (target, namespace) = try_join(target, namespace).await?;
        Ok(target && namespace)
    }

    /// Removes all responses for a target, for all consumers, in the background.
    pub(super) fn invalidate(self: &Arc<Self>, key: CacheKey) {
        self.end_epoch(target_key(key));
    }

    /// Removes responses in the background: those for the target of a key, or all of the namespace, also for a tag.
    pub(super) fn purge(self: &Arc<Self>, key: Option<CacheKey>) {
        self.end_epoch(key.map_or_else(|| NAMESPACE.to_owned(), target_key));
    }

    fn end_epoch(self: &Arc<Self>, key: String) {
        let Ok(permit) = Arc::clone(&self.purges).try_acquire_owned() else {
            warn!("Too many purges of stored responses wait for Redis, so responses stay until they are stale");
            return;
        };
        let store = Arc::clone(self);
        self.services.spawn(Box::pin(async move {
            let _permit: OwnedSemaphorePermit = permit;
            if store.redis.delete(&key).await.is_err() {
                warn!("Redis is not available for a purge of stored responses, which stay until they are stale");
            }
        }));
    }
}

/// The reply to a request while the server does not respond.
pub(super) fn unavailable() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "cache_unavailable")
}

fn to_text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
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
    format!("v:{}:{}", key.to_hex(), HEXLOWER.encode(&digest.as_ref()[..16]))
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
/// How much longer the values of an epoch are kept than its responses.
const EPOCH_MARGIN: Duration = Duration::from_secs(60);
/// A response whose request takes longer is not stored, unless another one has been stored for its target.
const LONGEST_REQUEST: Duration = Duration::from_secs(10 * 60);
/// The largest body of a response that is stored.
pub(super) const MAX_REMOTE_BODY: u32 = 1 << 20;
