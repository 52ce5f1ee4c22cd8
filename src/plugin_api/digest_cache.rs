//! A cache of fixed size without locks, whose keys are digests, so that it contains no secret as a key.
//!
//! The digest selects a set of a few slots. An entry may be replaced by another one at any time; its value is then
//! determined again.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;

use super::consumers::Sha256Digest;

/// The cache. The slots are allocated when the first entry is inserted.
pub struct DigestCache<T> {
    slots: OnceLock<Box<[ArcSwapOption<CachedValue<T>>]>>,
}

struct CachedValue<T> {
    digest: Sha256Digest,
    expires: SystemTime,
    value: Arc<T>,
}

/// Number of sets. With a few hundred bytes per entry, a full cache takes some megabytes.
const SETS: usize = 2048;
/// Slots per set.
const WAYS: usize = 4;

impl<T> Default for DigestCache<T> {
    fn default() -> Self {
        DigestCache { slots: OnceLock::new() }
    }
}

impl<T> DigestCache<T> {
    /// The value with this key, unless it has expired.
    pub fn find(&self, digest: &Sha256Digest, now: SystemTime) -> Option<Arc<T>> {
        let set = &self.slots.get()?[set_of(digest)..][..WAYS];
        set.iter().find_map(|slot| {
            let slot = slot.load();
            let entry = slot.as_ref().filter(|entry| entry.digest == *digest && entry.expires > now)?;
            Some(Arc::clone(&entry.value))
        })
    }

    /// Stores a value in the slot that already has the key. If there is none, an empty or expired slot of its set is
    /// used, and otherwise a random one.
    pub fn insert(&self, digest: Sha256Digest, value: Arc<T>, expires: SystemTime, now: SystemTime) {
        if expires <= now {
            return;
        }
        let slots = self.slots.get_or_init(|| (0..SETS * WAYS).map(|_| ArcSwapOption::empty()).collect());
        let set = &slots[set_of(&digest)..][..WAYS];
        let has_key =
            |slot: &ArcSwapOption<CachedValue<T>>| slot.load().as_ref().is_some_and(|old| old.digest == digest);
        let is_free = |slot: &ArcSwapOption<CachedValue<T>>| slot.load().as_ref().is_none_or(|old| old.expires <= now);
        let way = set.iter().position(has_key).or_else(|| set.iter().position(is_free));
        let entry = Arc::new(CachedValue { digest, expires, value });
        set[way.unwrap_or_else(|| fastrand::usize(..WAYS))].store(Some(entry));
    }

    /// Removes the value with this key.
    pub fn remove(&self, digest: &Sha256Digest) {
        let Some(slots) = self.slots.get() else { return };
        for slot in &slots[set_of(digest)..][..WAYS] {
            if slot.load().as_ref().is_some_and(|entry| entry.digest == *digest) {
                slot.store(None);
            }
        }
    }
}

/// The index of the first slot of a set.
fn set_of(digest: &Sha256Digest) -> usize {
    usize::from(u16::from_le_bytes([digest[0], digest[1]])) % SETS * WAYS
}

impl<T> fmt::Debug for DigestCache<T> {
    /// Omits the entries, which belong to clients.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DigestCache")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plugin_api::testing::noon;

    fn digest(number: u8) -> Sha256Digest {
        let mut digest = [0; 32];
        digest[31] = number;
        digest
    }

    #[test]
    fn expired_entries_are_replaced_first() {
        let cache = DigestCache::<u8>::default();
        let at = |seconds| noon() + Duration::from_secs(seconds);
        assert!(cache.find(&digest(0), noon()).is_none());
        for number in 0..4 {
            cache.insert(digest(number), Arc::new(number), at(1 + u64::from(number)), noon());
        }
        let found = |now| (0..6).map(|number| cache.find(&digest(number), now).is_some()).collect::<Vec<_>>();
        assert_eq!(found(noon()), [true, true, true, true, false, false]);
        assert_eq!(found(at(2)), [false, false, true, true, false, false], "expired");
        cache.insert(digest(4), Arc::new(4), at(100), at(1));
        assert_eq!(found(at(1)), [false, true, true, true, true, false], "the first had expired");
        cache.insert(digest(3), Arc::new(30), at(100), at(1));
        assert_eq!(cache.find(&digest(3), at(50)).as_deref(), Some(&30), "an entry has one slot");
        cache.insert(digest(5), Arc::new(5), at(1), at(1));
        assert_eq!(found(at(1)), [false, true, true, true, true, false], "it has expired before");
        cache.remove(&digest(4));
        assert_eq!(found(at(1)), [false, true, true, true, false, false]);
        for number in 6..200 {
            cache.insert(digest(number), Arc::new(number), at(100), noon());
        }
        let kept = (0..200).filter(|number| cache.find(&digest(*number), noon()).is_some()).count();
        assert_eq!(kept, WAYS, "a set does not grow");
    }
}
