//! Sessions in cookies, or in Redis with only an id in the cookie.
//!
//! ```text
//!   cookie: sealed id ─▶ Redis: sealed session ─▶ its times, and what the plugin keeps
//! ```
//!
//! A reader of Redis learns nothing, since sessions are sealed with the keys of the cookies, and cannot make a cookie.
//! A session in Redis ends for all replicas at once: by a logout, by its timeouts, or when a label of it is revoked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::logged_out_sessions::{LoggedOutSessions, SessionContents};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::services::PluginServices;
use crate::plugin_kit::redis::{RedisServer, RedisStore, RedisStoreError, ReplacedValue};
use crate::sealed_cookie::{
    CookieTooLarge, OpenedSession, SessionAge, SessionCookies, SessionPlace, SessionTimes, Stored, StoredPlace,
    random_text,
};
use crate::session_lock::{LockRemovals, SessionLock};

/// The sessions of one plugin.
pub struct Sessions {
    pub cookies: SessionCookies,
    /// Without one, sessions are in the cookies.
    store: Option<RedisStore>,
    services: Arc<dyn PluginServices>,
    lock_removals: LockRemovals,
    /// Those in cookies.
    pub logged_out: LoggedOutSessions,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sessions { cookies, store, .. } = self;
        formatter.debug_struct("Sessions").field("cookies", cookies).field("store", store).finish_non_exhaustive()
    }
}

/// Why a session was not written or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("{0}")]
    Cookie(#[from] CookieTooLarge),
    #[error("{0}")]
    Store(#[from] RedisStoreError),
}

/// A session, if there is one, and which cookies the request has.
pub type FoundSession<T> = (Option<OpenedSession<T>>, SessionPlace);

impl Sessions {
    /// `server`: with the field of the configuration that has it; without it, sessions are in the cookies.
    pub fn new(
        cookies: SessionCookies,
        server: Option<(&RedisServer, &str)>,
        plugin: &'static str,
        cx: &BuildCx<'_>,
    ) -> Self {
        let store = server.map(|(server, field)| RedisStore::connect(server, field, plugin, MAX_SESSION_BYTES, cx));
        Sessions {
            cookies,
            store,
            services: Arc::clone(cx.services),
            lock_removals: LockRemovals::default(),
            logged_out: LoggedOutSessions::of_plugin(cx),
        }
    }

    pub(crate) fn are_stored(&self) -> bool {
        self.store.is_some()
    }

    /// The session of a request, if that needs no store. `None` if only the store knows it.
    pub(crate) fn open_now<T: DeserializeOwned>(&self, request: &HeaderMap, now: u64) -> Option<FoundSession<T>> {
        if self.store.is_none() {
            return Some(self.cookies.open(request, now));
        }
        let (ids, place) = self.cookies.open_ids(request);
        ids.iter().all(Option::is_none).then_some((None, place))
    }

    /// The session of a request, unless it has ended.
    pub async fn open<T: DeserializeOwned>(
        &self,
        request: &HeaderMap,
        now: u64,
    ) -> Result<FoundSession<T>, RedisStoreError> {
        let Some(store) = &self.store else { return Ok(self.cookies.open(request, now)) };
        let ([id, remembered_id], place) = self.cookies.open_ids(request);
        if let Some(id) = &id
            && let Some((session, text)) = self.load(store, id).await?
        {
            let age = self.cookies.timeouts.age(session.times, now);
            if age != SessionAge::Expired {
                return Ok((Some(opened(session, age, id, text)), place));
            }
        }
        if let Some((id, (_, timeouts))) = remembered_id.zip(self.cookies.remember.as_ref())
            && let Some((session, text)) = self.load(store, &id).await?
        {
            let times = SessionTimes { created: session.authenticated, ..session.times };
            if timeouts.age(times, now) != SessionAge::Expired {
                // The session begins again, but not the time for which it is remembered.
                let session = Stored { times: SessionTimes::begin(now), ..session };
                return Ok((Some(opened(session, SessionAge::Renewed, &id, text)), place));
            }
        }
        Ok((None, place))
    }

    /// Writes a session in the cookies. Only for sessions that are not stored.
    pub(crate) fn write_now<T: Serialize>(
        &self,
        response: &mut HeaderMap,
        session: &OpenedSession<T>,
        place: SessionPlace,
        is_secure: bool,
    ) -> Result<(), SessionError> {
        Ok(self.cookies.write(response, session, place, is_secure)?)
    }

    /// Writes a session, and sets the cookies. A stored session that has ended meanwhile stays so, and its cookies are
    /// removed. One that another request has written meanwhile, such as new tokens, stays as it is.
    pub async fn write<T: Serialize>(
        &self,
        response: &mut HeaderMap,
        session: &OpenedSession<T>,
        place: SessionPlace,
        is_secure: bool,
        now: u64,
    ) -> Result<(), SessionError> {
        let Some(store) = &self.store else { return self.write_now(response, session, place, is_secure) };
        let OpenedSession { data, times, authenticated, age, stored: place_in_store } = session;
        let stored = Stored { times: *times, authenticated: *authenticated, data };
        let lifetime = self.lifetime(*times, *authenticated, now);
        let (id, is_written) = match place_in_store {
            Some(StoredPlace { id, text: None }) => (id.clone(), self.replace(id, &stored, now).await?),
            Some(StoredPlace { id, text: Some(read) }) => {
                let sealed = self.seal(id, &stored);
                let replaced = store.replace_if(&session_key(id), read, sealed.as_bytes(), lifetime).await?;
                (id.clone(), replaced != ReplacedValue::Absent)
            }
            None => {
                let id: Box<str> = random_text(ID_BYTES).into();
                store.set(&session_key(&id), self.seal(&id, &stored).as_bytes(), lifetime).await?;
                (id, true)
            }
        };
        if !is_written {
            self.cookies.clear(response, place, is_secure);
        } else if *age == SessionAge::Renewed {
            // Also seals the id with the key of now.
            self.cookies.write_id(response, &id, *age, place, is_secure)?;
        }
        Ok(())
    }

    /// The stored session with this id, as it is now. `None` if it has ended.
    pub async fn read<T: DeserializeOwned>(&self, id: &str) -> Result<Option<Stored<T>>, RedisStoreError> {
        Ok(self.load(self.stored()?, id).await?.map(|(session, _)| session))
    }

    /// Replaces a stored session, but not its cookies. False if it has ended meanwhile, which it then stays.
    pub async fn replace<T: Serialize>(
        &self,
        id: &str,
        session: &Stored<T>,
        now: u64,
    ) -> Result<bool, RedisStoreError> {
        let lifetime = self.lifetime(session.times, session.authenticated, now);
        self.stored()?.replace(&session_key(id), self.seal(id, session).as_bytes(), lifetime).await
    }

    /// Ends the stored session with this id if it is as `condition` requires. Returns the session if it has not ended.
    /// What another replica writes meanwhile is not removed.
    pub async fn end_if<T: DeserializeOwned>(
        &self,
        id: &str,
        condition: impl Fn(&Stored<T>) -> bool,
    ) -> Result<Option<Stored<T>>, RedisStoreError> {
        let (store, key) = (self.stored()?, session_key(id));
        for _ in 0..MAX_COMPARISONS {
            let Some(sealed) = store.get(&key).await? else { return Ok(None) };
            match self.unseal::<T>(id, &sealed) {
                Some(session) if !condition(&session) => return Ok(Some(session)),
                _ if store.delete_if(&key, &sealed).await? => return Ok(None),
                // Another request has written it, such as its times.
                _ => {}
            }
        }
        store.delete(&key).await?;
        Ok(None)
    }

    /// The lock of a stored session, which expires after this time. `None` while another task has it.
    pub async fn lock(&self, id: &str, expires_in: Duration) -> Result<Option<SessionLock>, RedisStoreError> {
        SessionLock::acquire(id, expires_in, self.stored()?, &*self.services, &self.lock_removals).await
    }

    /// Removes a lock. If that fails, the lock expires.
    pub(crate) async fn unlock(&self, lock: SessionLock) {
        if let Some(store) = &self.store {
            lock.remove(store).await.ok();
        }
    }

    /// The store, for sessions that are in it.
    fn stored(&self) -> Result<&RedisStore, RedisStoreError> {
        self.store.as_ref().ok_or(RedisStoreError::Unavailable)
    }

    /// Whether a logout at this process has ended this session. One that is stored no longer exists then.
    pub(crate) fn is_logged_out<T: SessionContents>(&self, session: &OpenedSession<T>, now: u64) -> bool {
        self.store.is_none() && self.logged_out.contains(session, now)
    }

    /// Ends this session, if it is in cookies: a response that is on its way must not set it again.
    pub fn log_out<T: SessionContents>(&self, session: &OpenedSession<T>, now: u64) {
        if self.store.is_none() {
            self.logged_out.insert(session, now);
        }
    }

    /// Ends the stored sessions in the cookies of a request.
    pub async fn end(&self, request: &HeaderMap) -> Result<(), RedisStoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let (ids, _) = self.cookies.open_ids(request);
        let keys: Vec<String> = ids.iter().flatten().map(|id| session_key(id)).collect();
        try_join_all(keys.iter().map(|key| store.delete(key))).await.map(drop)
    }

    /// Ends all sessions with this label that began up to now. `lifetime`: the seconds after which none of them exists.
    /// No effect if sessions are not stored.
    pub async fn revoke(&self, label: &str, now: u64, lifetime: u64) -> Result<(), RedisStoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let lifetime = Duration::from_secs(lifetime.min(MAX_LIFETIME));
        // Under the names of all keys: a session that one of them has sealed is found under the same name, because only
        // sessions that are not revoked are sealed again.
        let keys = self.keys_of([label].into_iter(), "revoked");
        let second = now.to_string();
        try_join_all(keys.iter().map(|key| store.set(key, second.as_bytes(), lifetime))).await?;
        Ok(())
    }

    /// Whether a session that began in this second was revoked by one of its labels.
    pub(crate) async fn is_revoked<'l>(
        &self,
        labels: impl Iterator<Item = &'l str>,
        began: u64,
    ) -> Result<bool, RedisStoreError> {
        let Some(store) = &self.store else { return Ok(false) };
        let keys = self.keys_of(labels, "revoked");
        let seconds = try_join_all(keys.iter().map(|key| store.get(key))).await?;
        // What is no number was not written by a replica, so that the session counts as revoked.
        let second = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        Ok(seconds.iter().flatten().any(|bytes| second(bytes).is_none_or(|second| second >= began)))
    }

    /// Remembers a message with this label for some seconds, so that no replica follows it again. False if sessions
    /// are not stored.
    pub(crate) async fn remember_seen(&self, label: &str, lifetime: u64) -> Result<bool, RedisStoreError> {
        let Some(store) = &self.store else { return Ok(false) };
        let lifetime = Duration::from_secs(lifetime.clamp(1, MAX_LIFETIME));
        let keys = self.keys_of([label].into_iter(), "seen");
        try_join_all(keys.iter().map(|key| store.set(key, b"1", lifetime))).await?;
        Ok(true)
    }

    /// Whether a replica has remembered a message with this label. False if sessions are not stored.
    pub(crate) async fn has_seen(&self, label: &str) -> Result<bool, RedisStoreError> {
        let Some(store) = &self.store else { return Ok(false) };
        let keys = self.keys_of([label].into_iter(), "seen");
        let found = try_join_all(keys.iter().map(|key| store.get(key))).await?;
        Ok(found.iter().any(Option::is_some))
    }

    /// The keys of these labels, which readers of Redis must not learn.
    fn keys_of<'l>(&self, labels: impl Iterator<Item = &'l str>, purpose: &str) -> Vec<String> {
        let names = labels.flat_map(|label| self.cookies.keys.names(label));
        names.map(|name| format!("{purpose}:{name}")).collect()
    }

    /// The session with this id, and its sealed text.
    async fn load<T: DeserializeOwned>(
        &self,
        store: &RedisStore,
        id: &str,
    ) -> Result<Option<(Stored<T>, Bytes)>, RedisStoreError> {
        let sealed = store.get(&session_key(id)).await?;
        Ok(sealed.and_then(|sealed| Some((self.unseal(id, &sealed)?, sealed))))
    }

    fn unseal<T: DeserializeOwned>(&self, id: &str, sealed: &[u8]) -> Option<Stored<T>> {
        let text = self.cookies.keys.open(&self.context(id), sealed)?;
        serde_json::from_slice(&text).ok()
    }

    fn seal<T: Serialize>(&self, id: &str, session: &Stored<T>) -> String {
        let text = serde_json::to_vec(session).expect("sessions consist of texts and numbers");
        self.cookies.keys.seal(&self.context(id), &text)
    }

    /// Binds a stored session to its id: a session that was copied to another id does not open.
    fn context(&self, id: &str) -> Vec<u8> {
        [b"stored session\n", self.cookies.cookie.context(), b"\n", id.as_bytes()].concat()
    }

    /// How long the store keeps a session.
    fn lifetime(&self, times: SessionTimes, authenticated: u64, now: u64) -> Duration {
        let shortest = |remaining: [Option<u64>; 3]| remaining.into_iter().flatten().min().unwrap_or(MAX_LIFETIME);
        let session = shortest(self.cookies.timeouts.remaining(times, now));
        let remembered =
            self.cookies.remember.as_ref().map(|(_, timeouts)| {
                shortest(timeouts.remaining(SessionTimes { created: authenticated, ..times }, now))
            });
        Duration::from_secs(session.max(remembered.unwrap_or_default()).clamp(1, MAX_LIFETIME))
    }
}

fn opened<T>(session: Stored<T>, age: SessionAge, id: &str, text: Bytes) -> OpenedSession<T> {
    let Stored { times, authenticated, data } = session;
    let stored = Some(StoredPlace { id: id.into(), text: Some(text) });
    OpenedSession { data, times, authenticated, age, stored }
}

fn session_key(id: &str) -> String {
    format!("session:{id}")
}

/// The random bytes of an id.
const ID_BYTES: usize = 32;
/// How often a session is compared while other requests change it, before it ends as it is.
const MAX_COMPARISONS: usize = 5;
/// The longest session in the store, sealed.
const MAX_SESSION_BYTES: usize = 256 * 1024;
/// How long the store keeps what has no limit, in seconds: 400 days, the longest lifetime of cookies in browsers.
const MAX_LIFETIME: u64 = 400 * 86_400;
