//! Who has which counters. Looking up somebody who comes often takes no lock.
//!
//! Each shard has a map that is never changed, only replaced, and beside it a small one under a lock for those who came
//! lately. When the lock has been taken often enough, both become one new map; whoever's windows have ended is left out.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::cell::Cell;

/// The counters of one plugin, at all places where it is attached.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// Of one shard.
    most: usize,
}

/// Whose counters, borrowed from the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    /// Where the plugin is attached.
    pub scope: &'a str,
    /// What kind of identifier it is: an address may look like a header.
    pub kind: u8,
    pub identifier: &'a [u8],
}

/// Somebody who is known. Shared by the maps that follow one another.
#[derive(Debug)]
struct Known {
    hash: u64,
    scope: Box<str>,
    kind: u8,
    identifier: Box<[u8]>,
    cell: Arc<Cell>,
}

/// By a hash that is made once for a request. Clients choose the identifiers, so it is one that they cannot foresee.
type Map = HashTable<Arc<Known>>;

#[derive(Debug)]
struct Shard {
    settled: ArcSwap<Map>,
    fresh: Mutex<Fresh>,
}

#[derive(Debug, Default)]
struct Fresh {
    map: Map,
    /// How often the lock was taken since the maps became one.
    looks: usize,
    /// Shared by those for whom there is no room: they have less together than each would have, but never more. Empty until
    /// somebody needs it.
    crowd: Box<[Arc<Cell>]>,
    /// When a full shard was last searched for who can go, in seconds since 1970.
    swept: u64,
}

impl Default for Table {
    fn default() -> Self {
        Table::holding(MOST_ENTRIES)
    }
}

impl Table {
    fn holding(most: usize) -> Self {
        let hasher = RandomState::new();
        let shard = || Shard { settled: ArcSwap::default(), fresh: Mutex::default() };
        Table { shards: (0..SHARDS).map(|_| shard()).collect(), most: most / SHARDS, hasher }
    }

    /// Does something with somebody's counters, which `make` makes if there are none yet. `then` says None if they are no
    /// longer in use, and gets others.
    pub(super) fn with<R>(
        &self,
        who: Who<'_>,
        second: u64,
        make: impl Fn() -> Cell,
        mut then: impl FnMut(&Arc<Cell>) -> Option<R>,
    ) -> R {
        let hash = self.hasher.hash_one((who.scope, who.kind, who.identifier));
        // Maps find their places by the lowest and the highest bits.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        loop {
            if let Some(done) = find(&shard.settled.load(), hash, who).and_then(&mut then) {
                return done;
            }
            if let Some(done) = shard.among_fresh(who, second, self.most, hash, &make, &mut then) {
                return done;
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.settled.load().len() + shard.fresh.lock().map.len()).sum()
    }
}

impl Shard {
    fn among_fresh<R>(
        &self,
        who: Who<'_>,
        second: u64,
        most: usize,
        hash: u64,
        make: impl Fn() -> Cell,
        mut then: impl FnMut(&Arc<Cell>) -> Option<R>,
    ) -> Option<R> {
        let mut fresh = self.fresh.lock();
        // The maps may have become one since.
        let mut settled = self.settled.load_full();
        fresh.looks += 1;
        let mut room = most.saturating_sub(settled.len() + fresh.map.len());
        let is_full = room == 0 && fresh.swept != second;
        if is_full || fresh.looks > settled.len().max(FEWEST_LOOKS) {
            settled = self.settle(&mut fresh, &settled, second);
            room = most.saturating_sub(settled.len());
        }
        let crowd = fresh.crowd.get(hash as usize % CROWDS).map(Arc::clone);
        let cell = match find(&settled, hash, who).or_else(|| find(&fresh.map, hash, who)) {
            Some(cell) => Arc::clone(cell),
            None if room == 0 => {
                if fresh.crowd.is_empty() {
                    fresh.crowd = (0..CROWDS).map(|_| Arc::default()).collect();
                }
                // Under the lock: whoever gets a place later begins with all that was counted here.
                return then(&fresh.crowd[hash as usize % CROWDS]);
            }
            None => {
                let cell = make();
                if let Some(crowd) = crowd {
                    cell.start_from(&crowd);
                }
                let cell = Arc::new(cell);
                let known = Known::new(hash, who, Arc::clone(&cell));
                fresh.map.insert_unique(hash, Arc::new(known), |known| known.hash);
                cell
            }
        };
        drop(fresh);
        then(&cell)
    }

    /// Makes one map of both.
    fn settle(&self, fresh: &mut Fresh, settled: &Map, second: u64) -> Arc<Map> {
        let mut map = Map::with_capacity(settled.len() + fresh.map.len());
        for known in settled.iter().map(Arc::clone).chain(fresh.map.drain()) {
            if !known.cell.retire(second) {
                map.insert_unique(known.hash, known, |known| known.hash);
            }
        }
        map.shrink_to_fit(|known| known.hash);
        let map = Arc::new(map);
        self.settled.store(Arc::clone(&map));
        (fresh.looks, fresh.swept) = (0, second);
        map
    }
}

fn find<'m>(map: &'m Map, hash: u64, who: Who<'_>) -> Option<&'m Arc<Cell>> {
    map.find(hash, |known| known.is(who)).map(|known| &known.cell)
}

impl Known {
    fn new(hash: u64, who: Who<'_>, cell: Arc<Cell>) -> Self {
        Known { hash, scope: who.scope.into(), kind: who.kind, identifier: who.identifier.into(), cell }
    }

    fn is(&self, who: Who<'_>) -> bool {
        self.kind == who.kind && *self.identifier == *who.identifier && *self.scope == *who.scope
    }
}

const SHARDS: usize = 64;
/// Of all shards. An entry is some 250 bytes with everything.
const MOST_ENTRIES: usize = 1 << 19;
/// Of one shard.
const CROWDS: usize = 16;
const FEWEST_LOOKS: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::cell::Limit;
    use super::super::window::Period;
    use super::*;

    fn take(table: &Table, identifier: &str, most: u64, second: u64) -> bool {
        let limits = [Limit { period: Period::Second, limit: most, window: Period::Second.window(second) }];
        let who = Who { scope: "global", kind: 0, identifier: identifier.as_bytes() };
        table.with(who, second, Cell::default, |cell| cell.take(&limits, |_| {}))
    }

    #[test]
    fn everybody_has_counters_of_their_own_however_many_come() {
        let table = Table::default();
        for round in 0..3 {
            for number in 0..5000 {
                assert!(take(&table, &number.to_string(), 3, 7), "{number} in round {round}");
            }
        }
        for number in 0..5000 {
            assert!(!take(&table, &number.to_string(), 3, 7), "{number}");
        }
        assert_eq!(table.len(), 5000);
        let who = Who { scope: "global", kind: 0, identifier: b"7" };
        for other in [Who { scope: "Service/a/b:80", ..who }, Who { kind: 1, ..who }, Who { identifier: b"07", ..who }]
        {
            let limits = [Limit { period: Period::Second, limit: 1, window: Period::Second.window(7) }];
            assert!(table.with(other, 7, Cell::default, |cell| cell.take(&limits, |_| {})), "{other:?}");
        }
    }

    #[test]
    fn whose_windows_have_ended_are_forgotten() {
        let table = Table::default();
        for second in 0..50 {
            for number in 0..2000 {
                assert!(take(&table, &format!("{second} {number}"), 1, second));
            }
        }
        assert!(table.len() < 20_000, "{} of 100000 are known", table.len());
    }

    #[test]
    fn a_full_table_lets_nobody_have_more_than_the_limit() {
        let table = Table::holding(SHARDS * 4);
        let mut admitted = 0;
        for number in 0..5000 {
            admitted += usize::from(take(&table, &number.to_string(), 1, 7));
            assert!(!take(&table, &number.to_string(), 1, 7), "{number} came twice");
        }
        assert!(table.len() <= SHARDS * 4);
        assert!((SHARDS * 4..=SHARDS * (4 + CROWDS)).contains(&admitted), "{admitted}");
        assert!(take(&table, "another", 1, 8), "there is room again when windows have ended");
    }

    #[test]
    fn whoever_gets_a_place_late_has_used_what_was_used_without_one() {
        let table = Table::holding(SHARDS);
        for number in 0..2000 {
            take(&table, &number.to_string(), 1, 7);
        }
        assert_eq!(table.len(), SHARDS, "no place is left");
        let come = |second| {
            let limits = [Limit { period: Period::Hour, limit: 3, window: Period::Hour.window(second) }];
            let who = Who { scope: "global", kind: 0, identifier: b"late" };
            table.with(who, second, Cell::default, |cell| cell.take(&limits, |_| {}))
        };
        assert!(come(7) && come(7));
        assert!(come(8), "places are free again");
        assert!(!come(8) && !come(9), "that were three");
    }

    #[test]
    fn somebody_who_comes_often_is_found_without_the_lock() {
        let table = Table::default();
        for _ in 0..2 * FEWEST_LOOKS {
            take(&table, "a", u64::MAX / 2, 7);
        }
        let _held: Vec<_> = table.shards.iter().map(|shard| shard.fresh.lock()).collect();
        assert!(take(&table, "a", u64::MAX / 2, 7));
    }

    #[test]
    fn never_more_than_the_limit_on_any_number_of_threads() {
        let table = Table::default();
        let admitted: usize = std::thread::scope(|scope| {
            let come = || (0..20_000).filter(|number| take(&table, &(number % 100).to_string(), 50, 7)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 100 * 50);
    }
}
