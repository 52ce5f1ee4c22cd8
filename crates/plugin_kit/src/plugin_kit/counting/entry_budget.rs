//! The limit of entries that the tables of all plugin objects share, so that clients with many addresses or keys cannot
//! exhaust the memory of the process.
//!
//! The tables of a namespace together may hold seven times as many entries as are free, as [`crate::shared_limit`]
//! explains, however many plugin objects it has. A table may hold at most `SHARE_OF_ROOM` times as many as its
//! namespace can still get. So one busy plugin object can have most of them, and still leaves some to every other one.

use std::cmp::Reverse;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::plugin_api::state::PluginState;
use crate::shared_limit::{Share, Shares};

/// The limit of entries of the process. One object in [`PluginState`], which all plugin objects use.
#[derive(Debug)]
pub struct EntryBudget {
    limit: usize,
    used: AtomicUsize,
    /// What the tables of each namespace hold.
    namespaces: Shares,
    /// Requests that were counted in counters which several identifiers share.
    shared_counts: AtomicU64,
    sweep: Mutex<Sweep>,
    /// The last second in which all tables were searched for expired entries.
    swept_at: AtomicU64,
}

impl EntryBudget {
    /// The budget of this state. The first caller sets its limit.
    pub fn of(state: &PluginState, limit: usize) -> Arc<EntryBudget> {
        state.get_or_create("rate-limiting entries", || EntryBudget::new(limit))
    }

    pub(super) fn new(limit: usize) -> Self {
        EntryBudget {
            limit,
            used: AtomicUsize::new(0),
            namespaces: Shares::default(),
            shared_counts: AtomicU64::new(0),
            sweep: Mutex::default(),
            swept_at: AtomicU64::new(0),
        }
    }

    /// The entries that exist.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// The limit of entries.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many requests were counted together with those of other identifiers, because there was no room for an entry.
    pub fn shared_counts(&self) -> u64 {
        self.shared_counts.load(Relaxed)
    }

    pub(super) fn count_shared(&self) {
        self.shared_counts.fetch_add(1, Relaxed);
    }

    /// Lets the sweep remove expired entries of this table.
    pub(super) fn register(&self, table: Weak<dyn ExpiringEntries>) {
        let mut sweep = self.sweep.lock();
        if sweep.tables.len() == sweep.tables.capacity() {
            // Before the list grows, so that tables that are gone take no memory for long.
            sweep.remove_dropped();
        }
        sweep.tables.push(table);
    }

    /// Removes expired entries of any table, from the next few shards that were not searched in this second. Returns
    /// whether entries were removed. A table that gets no requests would otherwise keep its expired entries.
    pub(super) fn sweep(&self, second: u64) -> bool {
        if self.swept_at.load(Relaxed) == second {
            return false;
        }
        // Another thread that is sweeping makes room for this one as well.
        let Some(mut sweep) = self.sweep.try_lock() else { return false };
        if sweep.second != second {
            sweep.begin(second);
        }
        for _ in 0..SHARDS_PER_SWEEP {
            let Some(table) = sweep.tables.get(sweep.table).and_then(Weak::upgrade) else {
                if sweep.table >= sweep.tables.len() {
                    self.swept_at.store(second, Relaxed);
                    return false;
                }
                (sweep.table, sweep.shard) = (sweep.table + 1, 0);
                continue;
            };
            let shard = sweep.shard;
            sweep.shard += 1;
            if sweep.shard == table.shard_count() {
                (sweep.table, sweep.shard) = (sweep.table + 1, 0);
            }
            if table.remove_expired(shard, second) > 0 {
                return true;
            }
        }
        false
    }
}

/// The progress of removing expired entries within one second.
#[derive(Default)]
struct Sweep {
    second: u64,
    /// In the order in which they are searched.
    tables: Vec<Weak<dyn ExpiringEntries>>,
    /// The next shard to search.
    table: usize,
    shard: usize,
}

impl Sweep {
    /// Begins to search all tables in this second.
    fn begin(&mut self, second: u64) {
        // Those that were searched in the former second are the last ones, so that each of many tables has its turn.
        let searched = self.table.min(self.tables.len());
        self.tables.rotate_left(searched);
        self.remove_dropped();
        // Entries that nothing needs make room before any other one.
        let discardable =
            |table: &Weak<dyn ExpiringEntries>| Reverse(table.upgrade().map_or(0, |table| table.discardable_entries()));
        self.tables.sort_by_cached_key(discardable);
        self.second = second;
    }

    /// The search begins again: the tables have other positions.
    fn remove_dropped(&mut self) {
        self.tables.retain(|table| table.strong_count() > 0);
        (self.table, self.shard) = (0, 0);
    }
}

impl fmt::Debug for Sweep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sweep")
            .field("second", &self.second)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// A table from which expired entries can be removed.
pub(super) trait ExpiringEntries: Send + Sync {
    fn shard_count(&self) -> usize;

    /// The entries, if all may be removed when there is no room for those of other tables; otherwise 0.
    fn discardable_entries(&self) -> usize;

    /// Removes the expired entries of a shard, unless it is in use. Returns how many were removed.
    fn remove_expired(&self, shard: usize, second: u64) -> usize;
}

/// The entries of one table. They are returned when this is dropped.
#[derive(Debug)]
pub(super) struct HeldEntries {
    pub(super) budget: Arc<EntryBudget>,
    /// What all tables of the namespace hold.
    namespace: Arc<Share>,
    held: AtomicUsize,
}

impl HeldEntries {
    /// `namespace`: that of the plugin object. Objects without one have a share together.
    pub(super) fn new(budget: Arc<EntryBudget>, namespace: &str) -> Self {
        let namespace = budget.namespaces.of(namespace);
        HeldEntries { budget, namespace, held: AtomicUsize::new(0) }
    }

    /// Takes an entry, if neither the namespace nor the table has reached its share.
    pub(super) fn try_add(&self) -> bool {
        let budget = &self.budget;
        let free = budget.limit.saturating_sub(budget.used());
        let of_table = SHARE_OF_ROOM.saturating_mul(self.namespace.room(free));
        if self.held() >= of_table || !self.namespace.try_count(1, free) {
            return false;
        }
        let is_free = |used: usize| (used < budget.limit).then_some(used + 1);
        let added = budget.used.fetch_update(Relaxed, Relaxed, is_free).is_ok();
        if added {
            self.held.fetch_add(1, Relaxed);
        } else {
            self.namespace.uncount(1);
        }
        added
    }

    /// The entries of the table.
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    pub(super) fn remove(&self, entries: usize) {
        self.held.fetch_sub(entries, Relaxed);
        self.namespace.uncount(entries);
        self.budget.used.fetch_sub(entries, Relaxed);
    }
}

impl Drop for HeldEntries {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        self.namespace.uncount(held);
        self.budget.used.fetch_sub(held, Relaxed);
    }
}

/// With 3, one table can have two thirds of all entries.
const SHARE_OF_ROOM: usize = 3;
/// How many shards a request without room searches for expired entries. Searching one takes up to about a millisecond.
const SHARDS_PER_SWEEP: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// A table in which nothing has expired.
    #[derive(Default)]
    struct SearchedTable {
        discardable: usize,
        searched: AtomicUsize,
    }

    impl ExpiringEntries for SearchedTable {
        fn shard_count(&self) -> usize {
            SHARDS_PER_SWEEP
        }

        fn discardable_entries(&self) -> usize {
            self.discardable
        }

        fn remove_expired(&self, _shard: usize, _second: u64) -> usize {
            self.searched.fetch_add(1, Relaxed);
            0
        }
    }

    /// How many shards of each table are searched if one request has no room in each second.
    fn searched(tables: &[Arc<SearchedTable>], seconds: u64) -> Vec<usize> {
        let budget = EntryBudget::new(0);
        for table in tables {
            let table: Weak<SearchedTable> = Arc::downgrade(table);
            budget.register(table);
        }
        for second in 1..=seconds {
            assert!(!budget.sweep(second));
        }
        tables.iter().map(|table| table.searched.load(Relaxed)).collect()
    }

    #[test]
    fn each_table_is_searched_in_its_turn() {
        let tables: Vec<Arc<SearchedTable>> = (0..3).map(|_| Arc::default()).collect();
        assert_eq!(searched(&tables, 3), [SHARDS_PER_SWEEP; 3]);
    }

    #[test]
    fn tables_with_most_discardable_entries_are_searched_first() {
        let table = |discardable| Arc::new(SearchedTable { discardable, ..SearchedTable::default() });
        assert_eq!(searched(&[table(0), table(1), table(2)], 1), [0, 0, SHARDS_PER_SWEEP]);
    }

    #[test]
    fn dropped_tables_are_forgotten() {
        let budget = EntryBudget::new(1000);
        let kept: Arc<SearchedTable> = Arc::default();
        let weak: Weak<SearchedTable> = Arc::downgrade(&kept);
        budget.register(weak);
        for _ in 0..1000 {
            let dropped: Weak<SearchedTable> = Arc::downgrade(&Arc::default());
            budget.register(dropped);
        }
        let sweep = budget.sweep.lock();
        assert!(sweep.tables.capacity() < 100, "{}", sweep.tables.capacity());
        assert!(sweep.tables.iter().any(|table| table.strong_count() > 0));
    }

    fn fill(table: &HeldEntries) -> usize {
        std::iter::from_fn(|| table.try_add().then_some(())).count()
    }

    fn table(budget: &Arc<EntryBudget>, namespace: &str) -> HeldEntries {
        HeldEntries::new(Arc::clone(budget), namespace)
    }

    /// A tenant may write as many objects as it wants.
    #[test]
    fn tables_of_a_namespace_have_one_share_however_many_they_are() {
        let budget = Arc::new(EntryBudget::new(100_000));
        let busy: Vec<HeldEntries> = (0..40).map(|_| table(&budget, "busy")).collect();
        let filled: usize = busy.iter().map(fill).sum();
        assert!((87_000..=87_500).contains(&filled), "a namespace that is alone gets most: {filled}");
        let other = table(&budget, "other");
        assert!(fill(&other) >= 7_000, "another one finds room");
        drop(busy);
        assert!(fill(&other) >= 50_000, "nothing stays reserved");
    }

    #[test]
    fn full_tables_leave_entries_to_others() {
        let budget = Arc::new(EntryBudget::new(1000));
        let tables: Vec<HeldEntries> = (0..4).map(|_| table(&budget, "team")).collect();
        let filled: Vec<usize> = tables.iter().map(fill).collect();
        assert!((655..=660).contains(&filled[0]), "two thirds of all: {filled:?}");
        assert!(filled.windows(2).all(|pair| pair[1] > 0 && pair[1] < pair[0]), "{filled:?}");
        tables[0].remove(600);
        assert!(fill(&tables[3]) > 100, "removed entries are available to other tables");
        assert!(budget.used() < budget.limit());
        drop(tables);
        assert_eq!(budget.used(), 0);
    }
}
