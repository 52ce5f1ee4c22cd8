//! The table of counters by identifier. Lookups of frequent identifiers take no lock.
//!
//! Each shard has an immutable map, which is only replaced as a whole, and a small map behind a lock for recently added
//! identifiers. When the lock has been taken often enough, both maps are merged into a new immutable one without the
//! identifiers whose windows have ended. The number of entries is limited for all tables together, see
//! [`super::entry_budget`].

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::entry_budget::{EntryBudget, ExpiringEntries, HeldEntries};

/// The counters of one plugin object in all scopes.
#[derive(Debug)]
pub struct CounterTable<C> {
    shards: Arc<Shards<C>>,
    hasher: RandomState,
}

/// The counters of an identifier, which several threads update.
pub trait TableCounters: Send + Sync + 'static {
    /// Retires the counters if all that they count has expired at this second since 1970, and returns whether they are
    /// retired. A thread that still holds retired counters looks the identifier up again, so that no count is lost.
    fn retire(&self, second: u64) -> bool;

    /// Copies the counts of other counters.
    fn copy_from(&self, other: &Self);
}

/// Whose requests new counters count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterOwner {
    /// Those of one identifier.
    Identifier,
    /// Those of several identifiers for which there is no room.
    Several,
}

#[derive(Debug)]
struct Shards<C> {
    shards: [CounterShard<C>; SHARDS],
    entries: HeldEntries,
    /// See [`CounterTable::set_discardable`].
    is_discardable: AtomicBool,
}

/// The key of counters, borrowed from the request.
#[derive(Clone, Copy, Debug)]
pub struct CounterKey<'a> {
    /// What the plugin is attached to.
    pub scope: &'a str,
    /// The kind of identifier. For example, the bytes of an address may equal those of a header, but their counters
    /// are separate.
    pub kind: u8,
    pub identifier: &'a [u8],
}

impl CounterKey<'_> {
    /// A hash of the scope and the kind of identifier. It needs no random seed, unlike that of the identifier: clients
    /// choose neither of both. Keys of different scopes with the same hash are compared.
    fn attachment_hash(&self) -> u64 {
        /// The fractional part of the golden ratio, which spreads the bits.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let add = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
        let (words, rest) = self.scope.as_bytes().as_chunks();
        let hash = words.iter().fold(u64::from(self.kind), |hash, word| add(hash, u64::from_le_bytes(*word)));
        rest.iter().fold(hash, |hash, byte| add(hash, u64::from(*byte)))
    }
}

/// An entry of the table. Shared by consecutive maps.
#[derive(Debug)]
struct CounterEntry<C> {
    hash: u64,
    scope: Box<str>,
    kind: u8,
    identifier: Box<[u8]>,
    counters: Arc<C>,
}

/// Keyed by a hash that is computed once per request. The hash is randomly seeded, because clients choose identifiers.
type CounterMap<C> = HashTable<Arc<CounterEntry<C>>>;

#[derive(Debug)]
struct CounterShard<C> {
    stable: ArcSwap<CounterMap<C>>,
    recent: Mutex<RecentEntries<C>>,
}

#[derive(Debug)]
struct RecentEntries<C> {
    map: CounterMap<C>,
    /// How often the lock was taken since the last merge.
    lock_count: usize,
    /// Counters that identifiers share when there is no room for an entry. Identifiers with the same counters together
    /// get at most the limit of one identifier. Allocated on first use.
    overflow: Box<[Arc<C>]>,
    /// When the maps were last merged and expired entries removed, in seconds since 1970.
    merged_at: u64,
}

impl<C> Default for CounterShard<C> {
    fn default() -> Self {
        CounterShard { stable: ArcSwap::from_pointee(CounterMap::new()), recent: Mutex::default() }
    }
}

impl<C> Default for RecentEntries<C> {
    fn default() -> Self {
        RecentEntries { map: CounterMap::new(), lock_count: 0, overflow: Box::default(), merged_at: 0 }
    }
}

impl<C: TableCounters> CounterTable<C> {
    /// `namespace`: that of the plugin object, in whose share the entries count; empty for an object without one.
    pub fn new(budget: Arc<EntryBudget>, namespace: &str) -> Self {
        let shards = Shards {
            shards: std::array::from_fn(|_| CounterShard::default()),
            entries: HeldEntries::new(Arc::clone(&budget), namespace),
            is_discardable: AtomicBool::new(false),
        };
        let shards = Arc::new(shards);
        let expiring: Weak<Shards<C>> = Arc::downgrade(&shards);
        budget.register(expiring);
        CounterTable { shards, hasher: RandomState::new() }
    }

    /// Says whether all entries may be removed if there is no room for those of other tables: if nothing uses this one,
    /// and it is only kept in case that something uses it again.
    pub(crate) fn set_discardable(&self, is_discardable: bool) {
        self.shards.is_discardable.store(is_discardable, Relaxed);
    }

    /// Whether any identifier has an entry.
    pub fn has_entries(&self) -> bool {
        self.shards.entries.held() > 0
    }

    /// Removes all entries if the table is discardable, a part of them in each step of the iterator, so that a thread
    /// can do something else between the steps.
    pub fn discard(&self) -> impl Iterator<Item = usize> {
        // Before all time, nothing has expired if the table is used again.
        (0..SHARDS).map(move |shard| self.shards.remove_expired(shard, 0))
    }

    /// Calls `count` with the counters of a key, which `create` creates if there are none. If `count` returns `None`
    /// because the counters are retired, it is called again with new ones.
    pub fn with_counters<R>(
        &self,
        key: CounterKey<'_>,
        second: u64,
        create: impl Fn(CounterOwner) -> C,
        mut count: impl FnMut(&Arc<C>) -> Option<R>,
    ) -> R {
        let hash = self.hasher.hash_one((key.attachment_hash(), key.identifier));
        // The middle bits select the shard, because the hash tables use the lowest and highest ones.
        let Shards { shards, entries, is_discardable: _ } = &*self.shards;
        let shard = &shards[(hash >> 32) as usize % SHARDS];
        loop {
            if let Some(result) = find(&shard.stable.load(), hash, key).and_then(&mut count) {
                return result;
            }
            if let Some(result) = shard.with_recent(key, second, entries, hash, &create, &mut count) {
                return result;
            }
        }
    }

    /// Calls `visit` with the scope and the counters of each entry. Entries that are moved meanwhile may be visited
    /// twice or not at all.
    pub fn for_each(&self, mut visit: impl FnMut(&str, &Arc<C>)) {
        for shard in &self.shards.shards {
            // Copied, so that requests do not wait for the visits.
            let recent: Vec<_> = shard.recent.lock().map.iter().map(Arc::clone).collect();
            for entry in shard.stable.load_full().iter().chain(&recent) {
                visit(&entry.scope, &entry.counters);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.shards.iter().map(|shard| shard.stable.load().len() + shard.recent.lock().map.len()).sum()
    }
}

impl<C: TableCounters> ExpiringEntries for Shards<C> {
    fn shard_count(&self) -> usize {
        SHARDS
    }

    fn discardable_entries(&self) -> usize {
        if self.is_discardable.load(Relaxed) { self.entries.held() } else { 0 }
    }

    fn remove_expired(&self, shard: usize, second: u64) -> usize {
        let shard = &self.shards[shard];
        // A thread that holds the lock may wait for the sweep, and removes expired entries itself.
        let Some(mut recent) = shard.recent.try_lock() else { return 0 };
        // Read under the lock: a table that something uses again keeps what it counts from then on.
        let is_discardable = self.is_discardable.load(Relaxed);
        if !is_discardable && recent.merged_at == second {
            return 0;
        }
        let stable = shard.stable.load_full();
        let before = stable.len() + recent.map.len();
        // At the end of time, everything has expired.
        let expired_at = if is_discardable { u64::MAX } else { second };
        let left = shard.merge(&mut recent, &stable, expired_at, &self.entries).len();
        // The table may be used again, and its later entries must be able to expire.
        recent.merged_at = second;
        before - left
    }
}

impl<C: TableCounters> CounterShard<C> {
    /// Finds or adds the entry of a key under the lock, and returns the result of `count` for its counters. If there is
    /// no room, a key without an entry gets counters that it shares with other keys.
    fn with_recent<R>(
        &self,
        key: CounterKey<'_>,
        second: u64,
        entries: &HeldEntries,
        hash: u64,
        create: impl Fn(CounterOwner) -> C,
        mut count: impl FnMut(&Arc<C>) -> Option<R>,
    ) -> Option<R> {
        let mut recent = self.recent.lock();
        // Another thread may have merged the maps before this one got the lock.
        let mut stable = self.stable.load_full();
        recent.lock_count += 1;
        if recent.lock_count > stable.len().max(MIN_LOCKS_BEFORE_MERGE) {
            stable = self.merge(&mut recent, &stable, second, entries);
        }
        if let Some(counters) = find(&stable, hash, key).or_else(|| find(&recent.map, hash, key)).map(Arc::clone) {
            drop(recent);
            return count(&counters);
        }
        let mut has_room = entries.try_add();
        let may_have_expired_entries = recent.merged_at != second;
        if !has_room && may_have_expired_entries {
            self.merge(&mut recent, &stable, second, entries);
            has_room = entries.try_add();
        }
        if !has_room && entries.budget.sweep(second) {
            has_room = entries.try_add();
        }
        if !has_room {
            if recent.overflow.is_empty() {
                recent.overflow = (0..OVERFLOW_COUNTERS).map(|_| Arc::new(create(CounterOwner::Several))).collect();
            }
            entries.budget.count_shared();
            // Counts under the lock, so that an identifier that gets its own entry later starts with these counts.
            return count(&recent.overflow[hash as usize % OVERFLOW_COUNTERS]);
        }
        let counters = create(CounterOwner::Identifier);
        if let Some(overflow) = recent.overflow.get(hash as usize % OVERFLOW_COUNTERS) {
            counters.copy_from(overflow);
        }
        let counters = Arc::new(counters);
        let entry = CounterEntry::new(hash, key, Arc::clone(&counters));
        recent.map.insert_unique(hash, Arc::new(entry), |entry| entry.hash);
        drop(recent);
        count(&counters)
    }

    /// Merges both maps and removes expired entries.
    fn merge(
        &self,
        recent: &mut RecentEntries<C>,
        stable: &CounterMap<C>,
        second: u64,
        entries: &HeldEntries,
    ) -> Arc<CounterMap<C>> {
        let before = stable.len() + recent.map.len();
        let mut map = CounterMap::with_capacity(before);
        for entry in stable.iter().map(Arc::clone).chain(recent.map.drain()) {
            if !entry.counters.retire(second) {
                map.insert_unique(entry.hash, entry, |entry| entry.hash);
            }
        }
        map.shrink_to_fit(|entry| entry.hash);
        entries.remove(before - map.len());
        let map = Arc::new(map);
        self.stable.store(Arc::clone(&map));
        (recent.lock_count, recent.merged_at) = (0, second);
        map
    }
}

fn find<'m, C>(map: &'m CounterMap<C>, hash: u64, key: CounterKey<'_>) -> Option<&'m Arc<C>> {
    map.find(hash, |entry| entry.has_key(key)).map(|entry| &entry.counters)
}

impl<C> CounterEntry<C> {
    fn new(hash: u64, key: CounterKey<'_>, counters: Arc<C>) -> Self {
        CounterEntry { hash, scope: key.scope.into(), kind: key.kind, identifier: key.identifier.into(), counters }
    }

    fn has_key(&self, key: CounterKey<'_>) -> bool {
        self.kind == key.kind && *self.identifier == *key.identifier && *self.scope == *key.scope
    }
}

const SHARDS: usize = 64;
/// Number of shared counters in one shard: the more there are, the fewer identifiers share each. Those of all shards
/// take about 360 kB.
const OVERFLOW_COUNTERS: usize = 64;
/// Number of locks before the maps of a small shard are merged. Those of a larger one are merged after as many locks
/// as it has entries.
const MIN_LOCKS_BEFORE_MERGE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_kit::default_limits::DEFAULT_ENTRIES;

    /// The requests of one window.
    #[derive(Debug, Default)]
    struct OneCount(Mutex<OneWindow>);

    #[derive(Clone, Copy, Debug, Default)]
    struct OneWindow {
        /// The first second after the window, and 0 for a counter without requests.
        end: u64,
        count: u64,
        is_retired: bool,
    }

    impl OneCount {
        /// Counts a request, unless the limit is reached.
        fn try_count(&self, limit: u64, length: u64, second: u64) -> Option<bool> {
            let mut window = self.0.lock();
            if window.is_retired {
                return None;
            }
            if window.end <= second {
                *window = OneWindow { end: (second / length + 1) * length, ..OneWindow::default() };
            }
            let is_counted = window.count < limit;
            window.count += u64::from(is_counted);
            Some(is_counted)
        }
    }

    impl TableCounters for OneCount {
        fn retire(&self, second: u64) -> bool {
            let mut window = self.0.lock();
            window.is_retired |= window.end <= second;
            window.is_retired
        }

        fn copy_from(&self, other: &Self) {
            *self.0.lock() = *other.0.lock();
        }
    }

    fn new_count(_: CounterOwner) -> OneCount {
        OneCount::default()
    }

    fn table_with_limit(entries: usize) -> CounterTable<OneCount> {
        CounterTable::new(Arc::new(EntryBudget::new(entries)), "team")
    }

    fn take(table: &CounterTable<OneCount>, identifier: &str, limit: u64, second: u64) -> bool {
        let key = CounterKey { scope: "global", kind: 0, identifier: identifier.as_bytes() };
        table.with_counters(key, second, new_count, |counter| counter.try_count(limit, 1, second))
    }

    #[test]
    fn identifiers_have_separate_counters() {
        let table = table_with_limit(DEFAULT_ENTRIES);
        for round in 0..3 {
            for number in 0..5000 {
                assert!(take(&table, &number.to_string(), 3, 7), "{number} in round {round}");
            }
        }
        for number in 0..5000 {
            assert!(!take(&table, &number.to_string(), 3, 7), "{number}");
        }
        assert_eq!(table.len(), 5000);
        let key = CounterKey { scope: "global", kind: 0, identifier: b"7" };
        for other in [
            CounterKey { scope: "Service/a/b:80", ..key },
            CounterKey { kind: 1, ..key },
            CounterKey { identifier: b"07", ..key },
        ] {
            assert!(table.with_counters(other, 7, new_count, |counter| counter.try_count(1, 1, 7)), "{other:?}");
        }
    }

    #[test]
    fn scopes_and_kinds_have_different_hashes() {
        let scopes = ["", "global", "globam", "Service/a/b:80", "Service/a/b:81", "HTTPRoute/default/shop/0"];
        let keys = scopes.iter().flat_map(|scope| (0..3).map(|kind| CounterKey { scope, kind, identifier: b"" }));
        let hashes: std::collections::HashSet<_> = keys.map(|key| key.attachment_hash()).collect();
        assert_eq!(hashes.len(), 3 * scopes.len());
    }

    #[test]
    fn expired_entries_are_removed() {
        let table = table_with_limit(DEFAULT_ENTRIES);
        for second in 0..50 {
            for number in 0..2000 {
                assert!(take(&table, &format!("{second} {number}"), 1, second));
            }
        }
        assert!(table.len() < 20_000, "{} of 100000 entries are left", table.len());
    }

    #[test]
    fn full_tables_never_exceed_the_limit() {
        const ENTRIES: usize = 8192;
        let table = table_with_limit(ENTRIES);
        let mut admitted = 0;
        for number in 0..30_000 {
            admitted += usize::from(take(&table, &number.to_string(), 1, 7));
            assert!(!take(&table, &number.to_string(), 1, 7), "the second request of {number} was accepted");
        }
        let (budget, shared) = (&table.shards.entries.budget, SHARDS * OVERFLOW_COUNTERS);
        assert!(table.len() > ENTRIES / 2 && budget.used() <= ENTRIES, "{budget:?}");
        assert!((table.len()..=table.len() + shared).contains(&admitted), "{admitted}");
        assert!(budget.shared_counts() > 0);
        for number in 0..100 {
            let before = budget.shared_counts();
            assert!(take(&table, &format!("another {number}"), 1, 8), "expired entries make room");
            assert_eq!(budget.shared_counts(), before, "the identifier has its own counters");
        }
    }

    #[test]
    fn full_table_does_not_affect_another_one() {
        let budget = Arc::new(EntryBudget::new(4096));
        let (full, other) =
            (CounterTable::new(Arc::clone(&budget), "team"), CounterTable::new(Arc::clone(&budget), "team"));
        for number in 0..10_000 {
            take(&full, &number.to_string(), 1, 7);
        }
        let before = budget.shared_counts();
        assert!(before > 0, "the table is full");
        for number in 0..500 {
            assert!(take(&other, &number.to_string(), 1, 7), "{number}");
        }
        assert_eq!(budget.shared_counts(), before, "the identifiers of the other table have their own counters");
    }

    #[test]
    fn expired_entries_of_idle_tables_make_room() {
        const IDLE: usize = 2000;
        let budget = Arc::new(EntryBudget::new(3200));
        let (idle, busy) =
            (CounterTable::new(Arc::clone(&budget), "team"), CounterTable::new(Arc::clone(&budget), "team"));
        for number in 0..IDLE {
            assert!(take(&idle, &number.to_string(), 1, 7));
        }
        for number in 0..IDLE {
            assert!(take(&busy, &number.to_string(), 1, 8), "{number}");
        }
        assert_eq!((busy.len(), budget.shared_counts()), (IDLE, 0));
        assert!(idle.len() < IDLE, "{}", idle.len());
        drop((idle, busy));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn tables_without_users_make_room_only_if_there_is_none() {
        const UNUSED: usize = 2000;
        let budget = Arc::new(EntryBudget::new(3200));
        // In the order in which they are searched otherwise.
        let (busy, unused) =
            (CounterTable::new(Arc::clone(&budget), "team"), CounterTable::new(Arc::clone(&budget), "team"));
        let take_long = |table: &CounterTable<OneCount>, number: usize| {
            let key = CounterKey { scope: "global", kind: 0, identifier: &number.to_le_bytes() };
            table.with_counters(key, 7, new_count, |counter| counter.try_count(1, 3600, 7))
        };
        for number in 0..UNUSED {
            assert!(take_long(&unused, number));
        }
        unused.set_discardable(true);
        for number in 0..500 {
            assert!(take_long(&busy, number));
        }
        assert_eq!(unused.len(), UNUSED, "there is room for all");
        for number in 500..UNUSED {
            assert!(take_long(&busy, number), "{number}");
        }
        assert_eq!((busy.len(), budget.shared_counts()), (UNUSED, 0));
        assert!(unused.len() < UNUSED, "{}", unused.len());
    }

    #[test]
    fn tables_without_users_can_be_emptied_again() {
        let table = table_with_limit(DEFAULT_ENTRIES);
        for (round, has_user) in [(1, false), (2, false), (3, true)] {
            table.set_discardable(false);
            assert!(take(&table, "a", 1, 7), "round {round}");
            table.set_discardable(!has_user);
            assert_eq!(table.discard().sum::<usize>(), usize::from(!has_user), "round {round}");
            assert_eq!((table.len(), table.has_entries()), (usize::from(has_user), has_user), "round {round}");
        }
    }

    #[test]
    fn new_entries_start_with_the_overflow_counts() {
        let table = table_with_limit(640);
        // As many as have room. Others would share the counters of the late identifier, with another window.
        for number in 0..420 {
            take(&table, &number.to_string(), 1, 7);
        }
        let take_late = |second| {
            let key = CounterKey { scope: "global", kind: 0, identifier: b"late" };
            table.with_counters(key, second, new_count, |counter| counter.try_count(3, 3600, second))
        };
        assert!(take_late(7) && take_late(7));
        let shared = table.shards.entries.budget.shared_counts();
        assert_eq!(shared, 2, "both requests of the late identifier");
        assert!(take_late(8), "expired entries make room");
        assert!(!take_late(8) && !take_late(9), "the earlier requests count");
        assert_eq!(table.shards.entries.budget.shared_counts(), shared, "the identifier has its own counters");
    }

    #[test]
    fn frequent_identifiers_are_found_without_the_lock() {
        let table = table_with_limit(DEFAULT_ENTRIES);
        for _ in 0..2 * MIN_LOCKS_BEFORE_MERGE {
            take(&table, "a", u64::MAX / 2, 7);
        }
        let _locks: Vec<_> = table.shards.shards.iter().map(|shard| shard.recent.lock()).collect();
        assert!(take(&table, "a", u64::MAX / 2, 7));
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let table = table_with_limit(DEFAULT_ENTRIES);
        let admitted: usize = std::thread::scope(|scope| {
            let take_all = || (0..20_000).filter(|number| take(&table, &(number % 100).to_string(), 50, 7)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 100 * 50);
    }
}
