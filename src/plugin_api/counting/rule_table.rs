//! The counters in memory of the limits of one plugin object. They outlive changes of its configuration: each limit
//! keeps its counts as long as it is configured, and all are kept for some time while the plugin does not exist, such
//! as between an edit with a mistake and its correction.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::entry_budget::{DEFAULT_ENTRIES, EntryBudget};
use super::limit_rule::LimitRule;
use super::table::CounterTable;
use super::window_counters::{CountSlots, WindowCounters};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::services::PluginServices;

/// The counters, as long as this is kept.
pub(super) struct RuleCounters {
    table: Arc<RuleTable>,
    services: Arc<dyn PluginServices>,
    /// Where the counts of the limits of this configuration are.
    pub(super) slots: CountSlots,
}

struct RuleTable {
    counters: CounterTable<WindowCounters>,
    users: Mutex<TableUsers>,
}

#[derive(Default)]
struct TableUsers {
    /// The limits that were ever configured, by [`LimitRule::identity`]. Their indexes are their slots.
    identities: Vec<Box<str>>,
    /// How many configurations use the table. During a change, the former one and the new one.
    count: usize,
    unused_since: Option<Instant>,
    /// Whether a task keeps the table.
    is_kept: bool,
}

impl RuleCounters {
    /// The counters of the object of `cx` under this name.
    pub(super) fn of(rules: &[LimitRule], name: &str, cx: &BuildCx<'_>) -> Self {
        let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
        let mut generation = 0;
        loop {
            let table = cx.state.get_or_create(&format!("{} {name} {generation}", cx.object), || RuleTable {
                counters: CounterTable::new(Arc::clone(&budget)),
                users: Mutex::default(),
            });
            if let Some(slots) = table.begin_use(rules) {
                return RuleCounters { table, services: Arc::clone(cx.services), slots };
            }
            // So many limits were configured one after the other that those of now begin again.
            generation += 1;
        }
    }

    pub(super) fn table(&self) -> &CounterTable<WindowCounters> {
        &self.table.counters
    }
}

impl Drop for RuleCounters {
    fn drop(&mut self) {
        if self.table.end_use() {
            self.services.spawn(Box::pin(keep_unused(Arc::clone(&self.table))));
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
        if identities.len() > MAX_SLOTS && !users.identities.is_empty() {
            return None;
        }
        users.identities = identities;
        users.count += 1;
        users.unused_since = None;
        self.counters.set_discardable(false);
        Some(CountSlots::new(slots))
    }

    /// Returns whether the caller has to start the task that keeps the table.
    fn end_use(&self) -> bool {
        let mut users = self.users.lock();
        users.count -= 1;
        if users.count > 0 {
            return false;
        }
        users.unused_since = Some(Instant::now());
        self.counters.set_discardable(true);
        !std::mem::replace(&mut users.is_kept, true)
    }
}

/// Keeps a table until something uses it again, or the time is over.
async fn keep_unused(table: Arc<RuleTable>) {
    loop {
        let end = {
            let mut users = table.users.lock();
            match users.unused_since.map(|since| since + KEPT_TIME).filter(|end| *end > Instant::now()) {
                Some(end) => end,
                None => {
                    users.is_kept = false;
                    return;
                }
            }
        };
        sleep_until(end).await;
    }
}

/// How long counters are kept that nothing uses, unless others need their room.
const KEPT_TIME: Duration = Duration::from_secs(600);
/// The limits of one object that were configured one after the other. More than a configuration has at a time.
const MAX_SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::limit_rule::{LimitKind, WindowLength};
    use super::*;
    use crate::plugin_api::kind::BuildNotes;
    use crate::plugin_api::scripted_server::ScriptedServer;
    use crate::plugin_api::state::PluginState;

    fn rule(name: &str) -> LimitRule {
        LimitRule::new(5, LimitKind::Fixed(WindowLength::Seconds(60))).named(name)
    }

    /// Counters for limits with these names.
    fn counters(state: &PluginState, names: &[&str]) -> RuleCounters {
        let services = ScriptedServer::new(|_| Err("refused".to_owned())).services();
        let notes = BuildNotes::default();
        let cx = BuildCx { object: "KongPlugin/a/b", state, services: &services, node: "", notes: &notes };
        let rules: Vec<LimitRule> = names.iter().map(|name| rule(name)).collect();
        RuleCounters::of(&rules, "plan", &cx)
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
        let table = Arc::downgrade(&first.table);
        drop(first);
        wait(599).await;
        let again = counters(&state, &["a"]);
        assert!(table.upgrade().is_some_and(|table| Arc::ptr_eq(&table, &again.table)));
        // The time begins again with the end of the last use.
        wait(300).await;
        drop(again);
        wait(599).await;
        assert!(table.upgrade().is_some());
        wait(2).await;
        assert!(table.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn tables_have_a_limit_of_slots() {
        let state = PluginState::default();
        let first = counters(&state, &["a"]);
        let names: Vec<String> = (0..MAX_SLOTS).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = counters(&state, &names);
        assert!(!Arc::ptr_eq(&first.table, &many.table));
        assert!(Arc::ptr_eq(&first.table, &counters(&state, &names[1..]).table), "as many as have a slot");
    }
}
