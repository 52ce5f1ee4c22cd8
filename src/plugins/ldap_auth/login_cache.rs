//! A cache of logins that a directory has accepted, without their passwords.
//!
//! A set-associative cache of fixed size without locks. The key of a login selects a set of a few slots. A login may be
//! replaced by another one at any time; the directory then decides again.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwapOption, Guard};
use aws_lc_rs::{hmac, rand};

use crate::plugin_api::consumers::{EntityId, Sha256Digest};

/// The cache, shared by all `ldap-auth` plugins of the process.
#[derive(Debug, Default)]
pub(super) struct LoginCache {
    /// Allocated on first use.
    slots: OnceLock<Box<[ArcSwapOption<CachedLogin>]>>,
}

/// A login that the directory has accepted.
#[derive(Debug)]
pub(super) struct CachedLogin {
    pub(super) key: LoginKey,
    /// From this time on, the directory decides again.
    pub(super) expires: SystemTime,
    pub(super) credential: EntityId,
    pub(super) groups: Vec<Arc<str>>,
}

/// Identifies a login at a plugin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct LoginKey(Sha256Digest);

/// Number of sets. With a few hundred bytes per login, a full cache takes some megabytes.
const SETS: usize = 2048;
/// Slots per set.
const WAYS: usize = 4;

/// Keys are made with a secret of the process, so that passwords cannot be guessed from them elsewhere.
static SECRET: LazyLock<hmac::Key> = LazyLock::new(|| {
    hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).expect("the system has random bytes")
});

impl LoginKey {
    /// `plugin` distinguishes the configurations of plugins.
    pub(super) fn new(plugin: &Sha256Digest, username: &str, password: &[u8]) -> Self {
        let mut context = hmac::Context::with_key(&SECRET);
        let length = username.len().to_be_bytes();
        [&plugin[..], &length, username.as_bytes(), password].into_iter().for_each(|part| context.update(part));
        let mut key = Sha256Digest::default();
        key.copy_from_slice(context.sign().as_ref());
        LoginKey(key)
    }
}

impl std::fmt::Debug for LoginKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LoginKey")
    }
}

impl LoginCache {
    /// The login, if it is still valid.
    pub(super) fn find(&self, key: LoginKey, now: SystemTime) -> Option<Guard<Option<Arc<CachedLogin>>>> {
        let mut logins = self.set(key).iter().map(ArcSwapOption::load);
        logins.find(|login| login.as_ref().is_some_and(|login| login.key == key && login.expires > now))
    }

    /// Stores a login in the slot that already contains it. If there is none, a free slot of its set is used, which is
    /// empty or contains an expired login, and otherwise a random one.
    pub(super) fn insert(&self, login: Arc<CachedLogin>, now: SystemTime) {
        let set = self.set(login.key);
        let has_login =
            |slot: &ArcSwapOption<CachedLogin>| slot.load().as_ref().is_some_and(|old| old.key == login.key);
        let is_free = |slot: &ArcSwapOption<CachedLogin>| slot.load().as_ref().is_none_or(|old| old.expires <= now);
        let way = set.iter().position(has_login).or_else(|| set.iter().position(is_free));
        set[way.unwrap_or_else(|| fastrand::usize(..WAYS))].store(Some(login));
    }

    fn set(&self, key: LoginKey) -> &[ArcSwapOption<CachedLogin>] {
        let slots = self.slots.get_or_init(|| (0..SETS * WAYS).map(|_| ArcSwapOption::empty()).collect());
        let set_index = usize::from(u16::from_le_bytes([key.0[0], key.0[1]])) % SETS;
        &slots[set_index * WAYS..][..WAYS]
    }
}

/// When a login that is accepted now expires. `None` if it is not stored.
pub(super) fn expiry(now: SystemTime, lifetime: Duration) -> Option<SystemTime> {
    (!lifetime.is_zero()).then(|| now.checked_add(lifetime)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::testing::noon;

    fn login(username: &str, seconds: u64) -> Arc<CachedLogin> {
        let key = LoginKey::new(&[0; 32], username, b"secret");
        let expires = noon() + Duration::from_secs(seconds);
        Arc::new(CachedLogin { key, expires, credential: EntityId::from_text("id"), groups: Vec::new() })
    }

    #[test]
    fn logins_are_found_until_they_expire() {
        let cache = LoginCache::default();
        cache.insert(login("anna", 10), noon());
        let is_cached =
            |login: &CachedLogin, second| cache.find(login.key, noon() + Duration::from_secs(second)).is_some();
        assert_eq!([0, 9, 10].map(|second| is_cached(&login("anna", 0), second)), [true, true, false]);
        assert!(!is_cached(&login("bert", 0), 0));
        cache.insert(login("anna", 20), noon());
        assert!(is_cached(&login("anna", 0), 10), "renewed");
        assert_eq!(expiry(noon(), Duration::ZERO), None);
    }

    #[test]
    fn keys_differ_by_each_part() {
        let keys = [
            LoginKey::new(&[0; 32], "ab", b"c"),
            LoginKey::new(&[0; 32], "a", b"bc"),
            LoginKey::new(&[1; 32], "ab", b"c"),
            LoginKey::new(&[0; 32], "ab", b"d"),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert!(keys[0] == LoginKey::new(&[0; 32], "ab", b"c"));
    }
}
