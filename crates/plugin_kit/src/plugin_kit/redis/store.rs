//! Values at a Redis server, which all replicas share: sessions, tokens, cached documents.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::{Redis, RedisScript, RedisServer, RedisUnavailable};
use crate::plugin_api::kind::BuildCx;

/// A handle of the values of one plugin kind in one namespace.
///
/// The keys at the server are `portico:PLUGIN:NAMESPACE:KEY`, where the namespace is that of the plugin's object, and
/// empty for a KongClusterPlugin. No name of a plugin or namespace contains a colon, so no key of one namespace is one
/// of another. All objects of this plugin kind in the namespace share their values if they use the same server.
///
/// Calls that run concurrently share one connection and are sent without waiting for each other's replies, so
/// `futures_util::future::try_join_all` of several calls takes one round trip.
#[derive(Clone, Debug)]
pub struct RedisStore {
    redis: Arc<Redis>,
    prefix: Box<str>,
    max_value_bytes: usize,
}

/// What became of a value that was to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplacedValue {
    Replaced,
    /// The key has another value, which stays.
    Changed,
    /// The key has no value any more, and gets none.
    Absent,
}

/// Why a call of the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisStoreError {
    /// The server cannot be reached, did not respond in time, or rejected the command. The condition of the object has
    /// the details. Whether a change was made is unknown.
    #[error("Redis is unavailable")]
    Unavailable,
    /// The value is longer than the store allows. Nothing was sent.
    #[error("the value is too long for the store in Redis")]
    TooLong,
}

impl RedisStore {
    /// Returns a handle. `plugin` is the name of the plugin kind, `field` the field of the configuration that has the
    /// server. Values have at most `max_value_bytes`; a longer one in the server closes the connection.
    pub fn connect(
        server: &RedisServer,
        field: &str,
        plugin: &'static str,
        max_value_bytes: usize,
        cx: &BuildCx<'_>,
    ) -> RedisStore {
        // A reply also has its length and the ends of its lines.
        let redis = Redis::connect_with_limit(server, field, max_value_bytes.saturating_add(1024), cx);
        let prefix = format!("portico:{plugin}:{}:", cx.namespace().unwrap_or_default());
        RedisStore { redis, prefix: prefix.into(), max_value_bytes }
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, RedisStoreError> {
        let key = self.server_key(key);
        let mut command = redis::cmd("GET");
        command.arg(&key);
        self.redis.query::<Option<Vec<u8>>>(&key, command).await.map(|value| value.map(Bytes::from)).map_err(Into::into)
    }

    /// Sets the value of a key, which the server deletes after this time.
    pub async fn set(&self, key: &str, value: &[u8], expires_in: Duration) -> Result<(), RedisStoreError> {
        self.put(key, value, expires_in, None).await.map(|_| ())
    }

    /// Sets the value of a key if it has none. Returns whether the value was set. Of several concurrent calls, also of
    /// other replicas, one gets true.
    pub async fn set_if_absent(&self, key: &str, value: &[u8], expires_in: Duration) -> Result<bool, RedisStoreError> {
        self.put(key, value, expires_in, Some("NX")).await
    }

    /// Replaces the value of a key if it has one. Returns whether it had: a key that was deleted stays so.
    pub async fn replace(&self, key: &str, value: &[u8], expires_in: Duration) -> Result<bool, RedisStoreError> {
        self.put(key, value, expires_in, Some("XX")).await
    }

    /// Replaces the value of a key if it is `old`.
    pub async fn replace_if(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
        expires_in: Duration,
    ) -> Result<ReplacedValue, RedisStoreError> {
        if new.len() > self.max_value_bytes {
            return Err(RedisStoreError::TooLong);
        }
        let key = self.server_key(key);
        let milliseconds = milliseconds(expires_in);
        let add_arguments = |command: &mut redis::Cmd| {
            command.arg(old).arg(new).arg(milliseconds);
        };
        match self.redis.run_script::<u8>(&REPLACE_IF, &[key.as_bytes()], add_arguments).await? {
            0 => Ok(ReplacedValue::Absent),
            1 => Ok(ReplacedValue::Changed),
            2 => Ok(ReplacedValue::Replaced),
            _ => Err(RedisStoreError::Unavailable),
        }
    }

    /// Whether a key has this value, which the server then keeps for this time at least.
    pub async fn confirm(&self, key: &str, value: &[u8], expires_in: Duration) -> Result<bool, RedisStoreError> {
        let key = self.server_key(key);
        let milliseconds = milliseconds(expires_in);
        let add_arguments = |command: &mut redis::Cmd| {
            command.arg(value).arg(milliseconds);
        };
        Ok(self.redis.run_script::<bool>(&CONFIRM, &[key.as_bytes()], add_arguments).await?)
    }

    /// Deletes a key and returns the value that it had. Of several concurrent calls, also of other replicas, one gets
    /// the value.
    pub async fn take(&self, key: &str) -> Result<Option<Bytes>, RedisStoreError> {
        let key = self.server_key(key);
        let value = self.redis.run_script::<Option<Vec<u8>>>(&TAKE, &[key.as_bytes()], |_| ()).await?;
        Ok(value.map(Bytes::from))
    }

    /// Deletes a key. Returns whether it had a value.
    pub async fn delete(&self, key: &str) -> Result<bool, RedisStoreError> {
        let key = self.server_key(key);
        let mut command = redis::cmd("DEL");
        command.arg(&key);
        self.redis.query::<bool>(&key, command).await.map_err(Into::into)
    }

    /// Deletes a key if it has this value. Returns whether it had: what another replica has set meanwhile stays.
    pub async fn delete_if(&self, key: &str, value: &[u8]) -> Result<bool, RedisStoreError> {
        let key = self.server_key(key);
        let add_arguments = |command: &mut redis::Cmd| {
            command.arg(value);
        };
        Ok(self.redis.run_script::<bool>(&DELETE_IF, &[key.as_bytes()], add_arguments).await?)
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expires_in: Duration,
        condition: Option<&'static str>,
    ) -> Result<bool, RedisStoreError> {
        if value.len() > self.max_value_bytes {
            return Err(RedisStoreError::TooLong);
        }
        let key = self.server_key(key);
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(value).arg("PX").arg(milliseconds(expires_in));
        command.arg(condition.as_slice());
        match self.redis.query::<Value>(&key, command).await? {
            Value::Okay => Ok(true),
            Value::Nil if condition.is_some() => Ok(false),
            _ => Err(RedisStoreError::Unavailable),
        }
    }

    fn server_key(&self, key: &str) -> String {
        [&*self.prefix, key].concat()
    }
}

impl From<RedisUnavailable> for RedisStoreError {
    fn from(_: RedisUnavailable) -> Self {
        RedisStoreError::Unavailable
    }
}

/// The server rejects an expiry of 0, and one whose end has more than 64 bits.
fn milliseconds(expires_in: Duration) -> u64 {
    u64::try_from(expires_in.as_millis()).map_or(MAX_EXPIRY, |ms| ms.clamp(1, MAX_EXPIRY))
}

/// `GETDEL` does the same, but only since version 6.2.
static TAKE: RedisScript = RedisScript::new(
    "local value = redis.call('GET', KEYS[1])
    if value then
        redis.call('DEL', KEYS[1])
    end
    return value",
);

/// `PEXPIRE` never shortens a time with `GT`, but only since version 7.0.
static CONFIRM: RedisScript = RedisScript::new(
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then
        return 0
    end
    local left = redis.call('PTTL', KEYS[1])
    if left >= 0 and left < tonumber(ARGV[2]) then
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
    end
    return 1",
);

/// Comparing and replacing are one step, so that no other value is replaced.
static REPLACE_IF: RedisScript = RedisScript::new(
    "local value = redis.call('GET', KEYS[1])
    if not value then
        return 0
    end
    if value ~= ARGV[1] then
        return 1
    end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 2",
);

/// Comparing and deleting are one step, so that no other value is deleted.
static DELETE_IF: RedisScript = RedisScript::new(
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then
        return 0
    end
    return redis.call('DEL', KEYS[1])",
);

/// The longest expiry in milliseconds, which is above 100 years.
const MAX_EXPIRY: u64 = 1 << 42;
