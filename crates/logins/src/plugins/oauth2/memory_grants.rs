//! Grants in the memory of the process, with a limit for all plugins and a share for each namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::grant::{Grant, GrantKey, seconds};
use super::token_store::{ExchangeOutcome, StoreError};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::{Held, Share, SharedLimit};

/// The grants of one plugin, or of all plugins with `global_credentials` of one namespace.
#[derive(Debug)]
pub(super) struct MemoryGrants {
    shards: [Mutex<GrantShard>; SHARDS],
    /// The number of the next grant, by which the oldest one is found.
    next: AtomicU64,
    limit: Arc<SharedLimit>,
    share: Arc<Share>,
}

#[derive(Default)]
struct GrantShard {
    grants: HashMap<GrantKey, Entry>,
    by_age: BTreeMap<u64, GrantKey>,
    /// Those that expire, by their second.
    by_expiry: BTreeSet<(u64, GrantKey)>,
}

struct Entry {
    grant: Arc<Grant>,
    number: u64,
    _held: Held,
}

impl MemoryGrants {
    /// The grants that a plugin keeps when its configuration changes.
    pub(super) fn of_plugin(is_global: bool, cx: &BuildCx<'_>) -> Arc<MemoryGrants> {
        let namespace = cx.namespace().unwrap_or_default();
        let owner = if is_global { format!("namespace {namespace}") } else { cx.object.to_owned() };
        let limit = cx.state.get_or_create("oauth2 grants", || SharedLimit::new(MAX_GRANTS));
        let share = limit.share(namespace);
        cx.state.get_or_create(&format!("{owner} oauth2 grants"), || MemoryGrants::new(limit, share))
    }

    fn new(limit: Arc<SharedLimit>, share: Arc<Share>) -> Self {
        MemoryGrants { shards: Default::default(), next: AtomicU64::new(0), limit, share }
    }

    pub(super) fn get(&self, key: &GrantKey) -> Option<Arc<Grant>> {
        self.shard(key).lock().grants.get(key).map(|entry| Arc::clone(&entry.grant))
    }

    /// Inserts a grant. Without room, it takes the place of an expired or else of the oldest one.
    pub(super) fn insert(&self, key: GrantKey, grant: Grant, now: SystemTime) -> Result<(), StoreError> {
        let second = seconds(now);
        self.shard(&key).lock().remove_expired(second, EXPIRED_PER_INSERT);
        let held = self.make_room(second).ok_or(StoreError::Full)?;
        let number = self.next.fetch_add(1, Relaxed);
        self.shard(&key).lock().insert(key, Entry { grant: Arc::new(grant), number, _held: held });
        Ok(())
    }

    /// Replaces a grant if it is still this one.
    pub(super) fn exchange(&self, key: &GrantKey, before: &Arc<Grant>, after: Grant) -> ExchangeOutcome {
        let mut shard = self.shard(key).lock();
        let Some(entry) = shard.grants.get(key) else { return ExchangeOutcome::Gone };
        if !Arc::ptr_eq(&entry.grant, before) {
            drop(shard.remove(key));
            return ExchangeOutcome::UsedBefore;
        }
        shard.replace(key, after);
        ExchangeOutcome::Done
    }

    pub(super) fn replace(&self, key: &GrantKey, after: Grant) -> bool {
        self.shard(key).lock().replace(key, after)
    }

    pub(super) fn remove(&self, key: &GrantKey) {
        drop(self.shard(key).lock().remove(key));
    }

    /// A unit of the limit for a new grant.
    fn make_room(&self, second: u64) -> Option<Held> {
        for _ in 0..MAX_REMOVALS {
            if let Ok(held) = self.limit.try_take(&self.share, 1) {
                return Some(held);
            }
            let expired: usize =
                self.shards.iter().map(|shard| shard.lock().remove_expired(second, EXPIRED_PER_SHARD)).sum();
            if expired == 0 {
                self.remove_oldest()?;
            }
        }
        None
    }

    fn remove_oldest(&self) -> Option<()> {
        let oldest =
            |shard: &Mutex<GrantShard>| shard.lock().by_age.first_key_value().map(|(number, key)| (*number, *key));
        let (_, key) = self.shards.iter().filter_map(oldest).min()?;
        self.remove(&key);
        Some(())
    }

    fn shard(&self, key: &GrantKey) -> &Mutex<GrantShard> {
        &self.shards[usize::from(key[0]) % SHARDS]
    }
}

impl GrantShard {
    fn insert(&mut self, key: GrantKey, entry: Entry) {
        self.by_age.insert(entry.number, key);
        self.by_expiry.extend(entry.grant.expires().second().map(|second| (second, key)));
        self.grants.insert(key, entry);
    }

    fn replace(&mut self, key: &GrantKey, after: Grant) -> bool {
        let Some(entry) = self.grants.get_mut(key) else { return false };
        if let Some(second) = entry.grant.expires().second() {
            self.by_expiry.remove(&(second, *key));
        }
        entry.grant = Arc::new(after);
        self.by_expiry.extend(entry.grant.expires().second().map(|second| (second, *key)));
        true
    }

    fn remove(&mut self, key: &GrantKey) -> Option<Entry> {
        let entry = self.grants.remove(key)?;
        self.by_age.remove(&entry.number);
        if let Some(second) = entry.grant.expires().second() {
            self.by_expiry.remove(&(second, *key));
        }
        Some(entry)
    }

    /// Removes some expired grants, and returns how many.
    fn remove_expired(&mut self, second: u64, most: usize) -> usize {
        for removed in 0..most {
            let Some((expires, key)) = self.by_expiry.first().copied() else { return removed };
            if expires > second {
                return removed;
            }
            drop(self.remove(&key));
        }
        most
    }
}

impl std::fmt::Debug for GrantShard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GrantShard").field("grants", &self.grants.len()).finish_non_exhaustive()
    }
}

/// The grants of all plugins in this process. Most take half a KiB, and the largest take 8 KiB.
const MAX_GRANTS: usize = 65_536;
/// Threads rarely need the same lock at the same time.
const SHARDS: usize = 16;
const EXPIRED_PER_INSERT: usize = 4;
const EXPIRED_PER_SHARD: usize = 64;
/// Other threads may take the room that was made.
const MAX_REMOVALS: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::plugins::oauth2::grant::{Expiry, IssuedTokens, Stage};

    fn grant(number: u8, expires: Option<u64>) -> Grant {
        let access_expires = Expiry::after(UNIX_EPOCH, expires.map(Duration::from_secs));
        let tokens = IssuedTokens { access: [number; 32], access_expires, scope: None, refresh: None };
        let (client_id, credential) = ("client".into(), "credential".into());
        Grant { client_id, credential, user: None, scope: None, place: None, stage: Stage::Tokens(tokens) }
    }

    fn key(number: u8) -> GrantKey {
        [number; 32]
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn count(grants: &MemoryGrants) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for shard in &grants.shards {
            let shard = shard.lock();
            counts.0 += shard.grants.len();
            counts.1 += shard.by_age.len();
            counts.2 += shard.by_expiry.len();
        }
        counts
    }

    #[test]
    fn the_oldest_grant_of_the_same_plugin_makes_room() {
        // One namespace may hold seven eighths of the limit.
        let limit = Arc::new(SharedLimit::new(8));
        let of = |namespace| MemoryGrants::new(Arc::clone(&limit), limit.share(namespace));
        let (busy, other) = (of("a"), of("b"));
        for number in 0..20 {
            busy.insert(key(number), grant(number, None), at(1)).unwrap();
        }
        assert_eq!(count(&busy), (7, 7, 0));
        assert!(busy.get(&key(12)).is_none() && busy.get(&key(13)).is_some() && busy.get(&key(19)).is_some());
        other.insert(key(1), grant(1, None), at(1)).unwrap();
        assert!(other.get(&key(1)).is_some());
        assert_eq!(of("c").insert(key(1), grant(1, None), at(1)), Err(StoreError::Full), "all is in use");
        drop(busy);
        assert_eq!(of("c").insert(key(1), grant(1, None), at(1)), Ok(()));
    }

    #[test]
    fn expired_grants_make_room_before_the_oldest() {
        let limit = Arc::new(SharedLimit::new(8));
        let grants = MemoryGrants::new(Arc::clone(&limit), limit.share("a"));
        for number in 0..7 {
            let expires = if number == 3 { 10 } else { 1000 };
            grants.insert(key(number), grant(number, Some(expires)), at(1)).unwrap();
        }
        grants.insert(key(7), grant(7, Some(1000)), at(10)).unwrap();
        assert!(grants.get(&key(0)).is_some() && grants.get(&key(3)).is_none());
        assert_eq!(count(&grants), (7, 7, 7));
    }

    #[test]
    fn the_first_exchange_wins_and_the_second_one_ends_the_grant() {
        let limit = Arc::new(SharedLimit::new(80));
        let grants = MemoryGrants::new(Arc::clone(&limit), limit.share("a"));
        grants.insert(key(1), grant(1, Some(10)), at(1)).unwrap();
        let before = grants.get(&key(1)).unwrap();
        assert_eq!(grants.exchange(&key(1), &before, grant(2, Some(20))), ExchangeOutcome::Done);
        assert!(*grants.get(&key(1)).unwrap() == grant(2, Some(20)));
        assert_eq!(grants.exchange(&key(1), &before, grant(3, Some(20))), ExchangeOutcome::UsedBefore);
        assert_eq!(grants.exchange(&key(1), &before, grant(3, Some(20))), ExchangeOutcome::Gone);
        assert!(!grants.replace(&key(1), grant(3, None)));
        assert_eq!((count(&grants), limit.free()), ((0, 0, 0), 80));
    }
}
