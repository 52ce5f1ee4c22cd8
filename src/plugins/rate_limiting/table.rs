//! The table of counters by identifier. Lookups of frequent identifiers take no lock.
//!
//! Each shard has an immutable map, which is only replaced as a whole, and a small map behind a lock for recently added
//! identifiers. When the lock has been taken often enough, both are merged into a new immutable map without the
//! identifiers whose windows have ended.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::counters::LimitCounters;

/// The counters of one plugin object in all scopes.
#[derive(Debug)]
pub(super) struct CounterTable {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// Limit of the entries in one shard.
    shard_capacity: usize,
}

/// The key of counters, borrowed from the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct CounterKey<'a> {
    /// What the plugin is attached to.
    pub scope: &'a str,
    /// The kind of identifier, because the bytes of an address may equal those of a header.
    pub kind: u8,
    pub identifier: &'a [u8],
}

/// An entry of the table. Shared by consecutive maps.
#[derive(Debug)]
struct CounterEntry {
    hash: u64,
    scope: Box<str>,
    kind: u8,
    identifier: Box<[u8]>,
    cell: Arc<LimitCounters>,
}

/// Keyed by a hash that is computed once per request. The hash is randomly seeded, because clients choose identifiers.
type CounterMap = HashTable<Arc<CounterEntry>>;

#[derive(Debug)]
struct Shard {
    stable: ArcSwap<CounterMap>,
    recent: Mutex<RecentEntries>,
}

#[derive(Debug, Default)]
struct RecentEntries {
    map: CounterMap,
    /// How often the lock was taken since the last merge.
    lock_count: usize,
    /// Counters that identifiers share when the shard is full. Together they get at most the limit of one identifier.
    /// Allocated on first use.
    overflow: Box<[Arc<LimitCounters>]>,
    /// When expired entries of a full shard were last removed, in seconds since 1970.
    swept: u64,
}

impl Default for CounterTable {
    fn default() -> Self {
        CounterTable::with_capacity(MAX_ENTRIES)
    }
}

impl CounterTable {
    fn with_capacity(most: usize) -> Self {
        let hasher = RandomState::new();
        let shard = || Shard { stable: ArcSwap::default(), recent: Mutex::default() };
        CounterTable { shards: (0..SHARDS).map(|_| shard()).collect(), shard_capacity: most / SHARDS, hasher }
    }

    /// Calls `then` with the counters of a key, which `make` creates if there are none. If `then` returns `None`
    /// because the counters are retired, it is called again with new ones.
    pub(super) fn with_counters<R>(
        &self,
        who: CounterKey<'_>,
        second: u64,
        make: impl Fn() -> LimitCounters,
        mut then: impl FnMut(&Arc<LimitCounters>) -> Option<R>,
    ) -> R {
        let hash = self.hasher.hash_one((who.scope, who.kind, who.identifier));
        // The middle bits, because the tables use the lowest and highest ones.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        loop {
            if let Some(done) = find(&shard.stable.load(), hash, who).and_then(&mut then) {
                return done;
            }
            if let Some(done) = shard.with_recent(who, second, self.shard_capacity, hash, &make, &mut then) {
                return done;
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.stable.load().len() + shard.recent.lock().map.len()).sum()
    }
}

impl Shard {
    fn with_recent<R>(
        &self,
        who: CounterKey<'_>,
        second: u64,
        most: usize,
        hash: u64,
        make: impl Fn() -> LimitCounters,
        mut then: impl FnMut(&Arc<LimitCounters>) -> Option<R>,
    ) -> Option<R> {
        let mut fresh = self.recent.lock();
        // Another thread may have merged the maps in the meantime.
        let mut settled = self.stable.load_full();
        fresh.lock_count += 1;
        let mut room = most.saturating_sub(settled.len() + fresh.map.len());
        let is_full = room == 0 && fresh.swept != second;
        if is_full || fresh.lock_count > settled.len().max(MIN_LOCKS_BEFORE_MERGE) {
            settled = self.merge(&mut fresh, &settled, second);
            room = most.saturating_sub(settled.len());
        }
        let overflow = fresh.overflow.get(hash as usize % OVERFLOW_COUNTERS).map(Arc::clone);
        let cell = match find(&settled, hash, who).or_else(|| find(&fresh.map, hash, who)) {
            Some(cell) => Arc::clone(cell),
            None if room == 0 => {
                if fresh.overflow.is_empty() {
                    fresh.overflow = (0..OVERFLOW_COUNTERS).map(|_| Arc::default()).collect();
                }
                // Counts under the lock, so that an identifier that gets its own entry later starts with these counts.
                return then(&fresh.overflow[hash as usize % OVERFLOW_COUNTERS]);
            }
            None => {
                let cell = make();
                if let Some(overflow) = overflow {
                    cell.copy_from(&overflow);
                }
                let cell = Arc::new(cell);
                let known = CounterEntry::new(hash, who, Arc::clone(&cell));
                fresh.map.insert_unique(hash, Arc::new(known), |known| known.hash);
                cell
            }
        };
        drop(fresh);
        then(&cell)
    }

    /// Merges both maps and removes expired entries.
    fn merge(&self, fresh: &mut RecentEntries, settled: &CounterMap, second: u64) -> Arc<CounterMap> {
        let mut map = CounterMap::with_capacity(settled.len() + fresh.map.len());
        for known in settled.iter().map(Arc::clone).chain(fresh.map.drain()) {
            if !known.cell.retire(second) {
                map.insert_unique(known.hash, known, |known| known.hash);
            }
        }
        map.shrink_to_fit(|known| known.hash);
        let map = Arc::new(map);
        self.stable.store(Arc::clone(&map));
        (fresh.lock_count, fresh.swept) = (0, second);
        map
    }
}

fn find<'m>(map: &'m CounterMap, hash: u64, key: CounterKey<'_>) -> Option<&'m Arc<LimitCounters>> {
    map.find(hash, |known| known.has_key(key)).map(|known| &known.cell)
}

impl CounterEntry {
    fn new(hash: u64, key: CounterKey<'_>, cell: Arc<LimitCounters>) -> Self {
        CounterEntry { hash, scope: key.scope.into(), kind: key.kind, identifier: key.identifier.into(), cell }
    }

    fn has_key(&self, key: CounterKey<'_>) -> bool {
        self.kind == key.kind && *self.identifier == *key.identifier && *self.scope == *key.scope
    }
}

const SHARDS: usize = 64;
/// Limit of the entries in all shards. An entry takes about 250 bytes.
const MAX_ENTRIES: usize = 1 << 19;
/// Number of shared counters in one full shard.
const OVERFLOW_COUNTERS: usize = 16;
const MIN_LOCKS_BEFORE_MERGE: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::counters::WindowLimit;
    use super::super::window::Period;
    use super::*;

    fn take(table: &CounterTable, identifier: &str, most: u64, second: u64) -> bool {
        let limits = [WindowLimit { period: Period::Second, limit: most, window: Period::Second.window(second) }];
        let key = CounterKey { scope: "global", kind: 0, identifier: identifier.as_bytes() };
        table.with_counters(key, second, LimitCounters::default, |cell| cell.try_take(&limits, |_| {}))
    }

    #[test]
    fn identifiers_have_separate_counters() {
        let table = CounterTable::default();
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
            let limits = [WindowLimit { period: Period::Second, limit: 1, window: Period::Second.window(7) }];
            assert!(
                table.with_counters(other, 7, LimitCounters::default, |cell| cell.try_take(&limits, |_| {})),
                "{other:?}"
            );
        }
    }

    #[test]
    fn expired_entries_are_removed() {
        let table = CounterTable::default();
        for second in 0..50 {
            for number in 0..2000 {
                assert!(take(&table, &format!("{second} {number}"), 1, second));
            }
        }
        assert!(table.len() < 20_000, "{} of 100000 are known", table.len());
    }

    #[test]
    fn full_tables_never_exceed_the_limit() {
        let table = CounterTable::with_capacity(SHARDS * 4);
        let mut admitted = 0;
        for number in 0..5000 {
            admitted += usize::from(take(&table, &number.to_string(), 1, 7));
            assert!(!take(&table, &number.to_string(), 1, 7), "the second request of {number} was accepted");
        }
        assert!(table.len() <= SHARDS * 4);
        assert!((SHARDS * 4..=SHARDS * (4 + OVERFLOW_COUNTERS)).contains(&admitted), "{admitted}");
        assert!(take(&table, "another", 1, 8), "expired entries make room");
    }

    #[test]
    fn new_entries_start_with_the_overflow_counts() {
        let table = CounterTable::with_capacity(SHARDS);
        for number in 0..2000 {
            take(&table, &number.to_string(), 1, 7);
        }
        assert_eq!(table.len(), SHARDS, "the table is full");
        let come = |second| {
            let limits = [WindowLimit { period: Period::Hour, limit: 3, window: Period::Hour.window(second) }];
            let key = CounterKey { scope: "global", kind: 0, identifier: b"late" };
            table.with_counters(key, second, LimitCounters::default, |cell| cell.try_take(&limits, |_| {}))
        };
        assert!(come(7) && come(7));
        assert!(come(8), "the table has room again");
        assert!(!come(8) && !come(9), "the earlier requests count");
    }

    #[test]
    fn frequent_identifiers_are_found_without_the_lock() {
        let table = CounterTable::default();
        for _ in 0..2 * MIN_LOCKS_BEFORE_MERGE {
            take(&table, "a", u64::MAX / 2, 7);
        }
        let _held: Vec<_> = table.shards.iter().map(|shard| shard.recent.lock()).collect();
        assert!(take(&table, "a", u64::MAX / 2, 7));
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let table = CounterTable::default();
        let admitted: usize = std::thread::scope(|scope| {
            let come = || (0..20_000).filter(|number| take(&table, &(number % 100).to_string(), 50, 7)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 100 * 50);
    }
}
