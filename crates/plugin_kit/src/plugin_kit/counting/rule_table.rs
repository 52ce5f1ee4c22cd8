//! The counters in memory of the limits of one plugin object. They outlive changes of its configuration: each limit
//! keeps its counts as long as it is configured, and all are kept for some time while the plugin does not exist, such
//! as between an edit with a mistake and its correction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::entry_budget::EntryBudget;
use super::kept_tables::KeptTables;
use super::limit_rule::LimitRule;
use super::table::CounterTable;
use super::window_counters::{CountSlots, WindowCounters};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::services::PluginServices;
use crate::plugin_kit::default_limits::DEFAULT_ENTRIES;

/// The counters, as long as this is kept.
pub(super) struct RuleCounters {
    table: Arc<RuleTable>,
    kept: Arc<KeptTables>,
    services: Arc<dyn PluginServices>,
    /// That of the object, and empty for an object without one.
    namespace: Box<str>,
    /// Where the counts of the limits of this configuration are.
    pub(super) slots: CountSlots,
}

pub(super) struct RuleTable {
    counters: CounterTable<WindowCounters>,
    users: Mutex<TableUsers>,
    generation: usize,
    current: Arc<CurrentGeneration>,
}

/// The number of the table that the next configuration of an object uses. Each table of the object holds it, so that
/// those which follow do not begin with the first number again.
#[derive(Default)]
struct CurrentGeneration(AtomicUsize);

#[derive(Default)]
struct TableUsers {
    /// The limits that were configured with this table, by [`LimitRule::identity`]. Their indexes are their slots.
    identities: Vec<Box<str>>,
    /// How many configurations use the table. During a change, the former one and the new one.
    count: usize,
}

impl RuleCounters {
    /// The counters of the object of `cx` under this name.
    pub(super) fn of(rules: &[LimitRule], name: &str, cx: &BuildCx<'_>) -> Self {
        let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
        let kept = cx.state.get_or_create("rate-limiting kept tables", KeptTables::default);
        let name = format!("{} {name}", cx.object);
        let current = cx.state.get_or_create(&name, CurrentGeneration::default);
        loop {
            let generation = current.0.load(Relaxed);
            let table = cx.state.get_or_create(&format!("{name} {generation}"), || RuleTable {
                counters: CounterTable::new(Arc::clone(&budget), cx.namespace().unwrap_or_default()),
                users: Mutex::default(),
                generation,
                current: Arc::clone(&current),
            });
            if let Some(slots) = table.begin_use(rules) {
                kept.release(&table);
                let (services, namespace) = (Arc::clone(cx.services), cx.namespace().unwrap_or_default().into());
                return RuleCounters { table, kept, services, namespace, slots };
            }
            // So many limits were configured one after the other that those of now begin again.
            table.end_generation();
        }
    }

    pub(super) fn table(&self) -> &CounterTable<WindowCounters> {
        &self.table.counters
    }
}

impl Drop for RuleCounters {
    fn drop(&mut self) {
        if self.table.end_use() {
            self.kept.keep(&self.table, &self.namespace, &*self.services);
        }
    }
}

impl RuleTable {
    /// The slots of these limits; `None` if there are too many besides those that had one before.
    fn begin_use(&self, rules: &[LimitRule]) -> Option<CountSlots> {
        let mut users = self.users.lock();
        let mut identities = users.identities.clone();
        let slots: Box<[usize]> = rules
            .iter()
            .map(|rule| {
                let identity = rule.identity();
                identities.iter().position(|known| **known == *identity).unwrap_or_else(|| {
                    identities.push(identity.into());
                    identities.len() - 1
                })
            })
            .collect();
        // An entry has room for all slots up to the last one that is in use, which is the last one of a new limit.
        let has_new_ones = identities.len() > users.identities.len();
        if has_new_ones && identities.len() > SLOTS_OF_LIMIT * rules.len() + FURTHER_SLOTS {
            return None;
        }
        users.identities = identities;
        users.count += 1;
        self.counters.set_discardable(false);
        Some(CountSlots::new(slots))
    }

    /// Returns whether nothing uses the table any more.
    fn end_use(&self) -> bool {
        let mut users = self.users.lock();
        users.count -= 1;
        if users.count > 0 {
            return false;
        }
        self.counters.set_discardable(true);
        true
    }

    fn end_generation(&self) {
        self.current.0.fetch_max(self.generation + 1, Relaxed);
    }

    /// Whether the table is not in use, and has counts with which a later use can go on.
    pub(super) fn is_worth_keeping(&self) -> bool {
        let is_current = self.generation == self.current.0.load(Relaxed);
        is_current && self.users.lock().count == 0 && self.counters.has_entries()
    }

    /// As [`CounterTable::discard`].
    pub(super) fn discard(&self) -> impl Iterator<Item = usize> {
        self.counters.discard()
    }
}

/// An object may have had as many other limits as it has now, so that all can get other names at once, ...
const SLOTS_OF_LIMIT: usize = 2;
/// ... and some more, before its limits begin again. A slot takes 32 bytes of each entry.
const FURTHER_SLOTS: usize = 16;

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Weak;
    use std::time::Duration;

    use super::super::kept_tables::KEPT_TIME;
    use super::super::limit_rule::{LimitKind, WindowLength};
    use super::super::table::CounterKey;
    use super::*;
    use crate::plugin_api::kind::BuildNotes;
    use crate::plugin_api::scripted_server::ScriptedServer;
    use crate::plugin_api::state::PluginState;

    impl RuleCounters {
        /// Ends this use.
        pub(in crate::plugin_kit::counting) fn downgrade(self) -> Weak<RuleTable> {
            Arc::downgrade(&self.table)
        }

        pub(in crate::plugin_kit::counting) fn begin_generation(&self) {
            self.table.end_generation();
        }
    }

    fn rule(name: &str) -> LimitRule {
        LimitRule::new(5, LimitKind::Fixed(WindowLength::Seconds(60))).named(name)
    }

    /// Counters of an object for limits with these names.
    pub(in crate::plugin_kit::counting) fn counters_of(
        state: &PluginState,
        object: &str,
        names: &[&str],
    ) -> RuleCounters {
        let services = ScriptedServer::new(|_| Err("refused".to_owned())).services();
        let notes = BuildNotes::default();
        let cx = BuildCx { object, state, services: &services, node: "", notes: &notes };
        let rules: Vec<LimitRule> = names.iter().map(|name| rule(name)).collect();
        RuleCounters::of(&rules, "plan", &cx)
    }

    fn counters(state: &PluginState, names: &[&str]) -> RuleCounters {
        counters_of(state, "KongPlugin/a/b", names)
    }

    /// Adds an entry.
    pub(in crate::plugin_kit::counting) fn count_one(counters: &RuleCounters) {
        let key = CounterKey { scope: "", kind: 0, identifier: b"client" };
        counters.table().with_counters(key, 0, |_| WindowCounters::default(), |_| Some(()));
    }

    fn slots(slots: &[usize]) -> CountSlots {
        CountSlots::new(slots.into())
    }

    async fn wait(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await; // Time is paused.
    }

    #[tokio::test(start_paused = true)]
    async fn limits_keep_their_slots() {
        let state = PluginState::default();
        let first = counters(&state, &["a", "b"]);
        let second = counters(&state, &["c", "b"]);
        assert!(Arc::ptr_eq(&first.table, &second.table));
        assert_eq!((&first.slots, &second.slots), (&slots(&[0, 1]), &slots(&[2, 1])));
    }

    #[tokio::test(start_paused = true)]
    async fn counters_without_users_are_kept_for_some_time() {
        let state = PluginState::default();
        let first = counters(&state, &["a"]);
        count_one(&first);
        let table = first.downgrade();
        let time = KEPT_TIME.as_secs();
        wait(time - 1).await;
        let again = counters(&state, &["a"]);
        assert!(table.upgrade().is_some_and(|table| Arc::ptr_eq(&table, &again.table)));
        // The time begins again with the end of the last use.
        wait(time / 2).await;
        drop(again);
        wait(time - 1).await;
        assert!(table.upgrade().is_some());
        wait(2).await;
        assert!(table.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn tables_in_use_are_neither_kept_nor_discarded() {
        let state = PluginState::default();
        let first = counters(&state, &["a"]);
        count_one(&first);
        drop(first);
        let again = counters(&state, &["a"]);
        let discarded = || again.table().discard().sum::<usize>();
        assert_eq!((again.kept.count(), discarded()), (0, 0));
        // The end of one of two uses, as during a change.
        drop(counters(&state, &["a"]));
        assert_eq!((again.kept.count(), discarded()), (0, 0));
        assert!(again.table().has_entries());
    }

    #[tokio::test(start_paused = true)]
    async fn tables_have_a_limit_of_slots() {
        let state = PluginState::default();
        let first = counters(&state, &["a"]);
        let mut last = Vec::new();
        for number in 0..SLOTS_OF_LIMIT + FURTHER_SLOTS - 1 {
            last.push(counters(&state, &[&format!("n{number}")]));
        }
        assert!(last.iter().all(|counters| Arc::ptr_eq(&counters.table, &first.table)));
        let second = counters(&state, &["b"]);
        assert!(!Arc::ptr_eq(&second.table, &first.table));
        assert_eq!(second.slots, slots(&[0]));
        // Also with two limits, for which the first table has room.
        let third = counters(&state, &["c", "b"]);
        assert!(Arc::ptr_eq(&third.table, &second.table), "no limit begins again");
        assert_eq!(third.slots, slots(&[1, 0]));
    }

    #[tokio::test(start_paused = true)]
    async fn limits_that_stay_keep_their_slots_whatever_is_removed() {
        let state = PluginState::default();
        let names: Vec<String> = (0..192).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let first = counters(&state, &names);
        let second = counters(&state, &names[191..]);
        assert!(Arc::ptr_eq(&first.table, &second.table));
        assert_eq!(second.slots, slots(&[191]));
    }
}
