//! A cache of what a secret text, such as a token, was found to be. It is found by the digest of the text.
//!
//! A set-associative cache of fixed size without locks. The digest selects a set of a few slots. An entry may be
//! replaced by another one at any time; what it contained is then determined again when it is needed again.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Guard};

use crate::plugin_api::consumers::Sha256Digest;

/// An entry of a [`DigestCache`].
pub trait DigestEntry {
    /// Digest of the text and of everything else that the entry depends on, such as the configuration.
    fn digest(&self) -> &Sha256Digest;

    /// Whether the entry is no longer of use, so that its slot is free.
    fn is_expired(&self, now: SystemTime) -> bool;
}

/// An entry that is of use until some time.
pub struct Expiring<T> {
    digest: Sha256Digest,
    expires: SystemTime,
    value: Arc<T>,
}

impl<T> DigestEntry for Expiring<T> {
    fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    fn is_expired(&self, now: SystemTime) -> bool {
        self.expires <= now
    }
}

/// Omits the value, which may belong to a client.
impl<T> fmt::Debug for Expiring<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Expiring").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl<T> DigestCache<Expiring<T>> {
    /// The value, unless it has expired.
    pub fn find_value(&self, digest: &Sha256Digest, now: SystemTime) -> Option<Arc<T>> {
        let found = self.find(digest)?;
        let entry = found.as_ref().filter(|entry| !entry.is_expired(now))?;
        Some(Arc::clone(&entry.value))
    }

    /// Stores a value, unless it has expired already.
    pub fn insert_value(&self, digest: Sha256Digest, value: Arc<T>, expires: SystemTime, now: SystemTime) {
        if expires > now {
            self.insert(Arc::new(Expiring { digest, expires, value }), now);
        }
    }
}

/// A cache of at most `SETS * WAYS` entries.
#[derive(Debug)]
pub struct DigestCache<T> {
    /// Allocated on first use.
    slots: OnceLock<Box<[ArcSwapOption<T>]>>,
}

/// Number of sets. With a few hundred bytes per token, a full cache takes some megabytes.
const SETS: usize = 4096;
/// Slots per set.
const WAYS: usize = 4;

impl<T> Default for DigestCache<T> {
    fn default() -> Self {
        DigestCache { slots: OnceLock::new() }
    }
}

impl<T: DigestEntry> DigestCache<T> {
    pub fn find(&self, digest: &Sha256Digest) -> Option<Guard<Option<Arc<T>>>> {
        let mut entries = self.set(digest).iter().map(ArcSwapOption::load);
        entries.find(|entry| entry.as_ref().is_some_and(|entry| entry.digest() == digest))
    }

    /// Stores an entry in the slot that already has its digest. If there is none, a free slot of its set is used, which
    /// is empty or contains an expired entry, and otherwise a random one.
    pub fn insert(&self, entry: Arc<T>, now: SystemTime) {
        let set = self.set(entry.digest());
        let has_digest =
            |slot: &ArcSwapOption<T>| slot.load().as_ref().is_some_and(|old| old.digest() == entry.digest());
        let is_free = |slot: &ArcSwapOption<T>| slot.load().as_ref().is_none_or(|old| old.is_expired(now));
        let way = set.iter().position(has_digest).or_else(|| set.iter().position(is_free));
        set[way.unwrap_or_else(|| fastrand::usize(..WAYS))].store(Some(entry));
    }

    fn set(&self, digest: &Sha256Digest) -> &[ArcSwapOption<T>] {
        let slots = self.slots.get_or_init(|| (0..SETS * WAYS).map(|_| ArcSwapOption::empty()).collect());
        let set_index = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % SETS;
        &slots[set_index * WAYS..][..WAYS]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plugin_chain::testing::noon;

    struct Entry {
        digest: Sha256Digest,
        end: SystemTime,
    }

    impl DigestEntry for Entry {
        fn digest(&self) -> &Sha256Digest {
            &self.digest
        }

        fn is_expired(&self, now: SystemTime) -> bool {
            self.end <= now
        }
    }

    fn entry(number: u8, seconds: u64) -> Arc<Entry> {
        let mut digest = [0; 32];
        digest[31] = number;
        Arc::new(Entry { digest, end: noon() + Duration::from_secs(seconds) })
    }

    #[test]
    fn expired_entries_are_replaced_first() {
        let cache = DigestCache::default();
        for number in 0..4 {
            cache.insert(entry(number, 1 + u64::from(number)), noon());
        }
        let is_cached = || (0..6).map(|number| cache.find(&entry(number, 0).digest).is_some()).collect::<Vec<_>>();
        assert_eq!(is_cached(), [true, true, true, true, false, false]);
        cache.insert(entry(4, 100), noon() + Duration::from_secs(1));
        assert_eq!(is_cached(), [false, true, true, true, true, false], "the first had expired");
        cache.insert(entry(3, 100), noon() + Duration::from_secs(3));
        assert_eq!(is_cached().iter().filter(|is_cached| **is_cached).count(), 4, "an entry has one slot");
        cache.insert(entry(5, 100), noon());
        assert_eq!(is_cached().iter().filter(|is_cached| **is_cached).count(), 4, "a set has four slots");
    }

    #[test]
    fn expired_values_are_not_found() {
        let cache = DigestCache::default();
        let (digest, end) = (entry(0, 0).digest, noon() + Duration::from_secs(1));
        cache.insert_value(digest, Arc::new("late"), noon(), noon());
        assert_eq!(cache.find_value(&digest, noon()), None);
        cache.insert_value(digest, Arc::new("kept"), end, noon());
        assert_eq!(cache.find_value(&digest, noon()).as_deref(), Some(&"kept"));
        assert_eq!(cache.find_value(&digest, end), None);
    }
}
