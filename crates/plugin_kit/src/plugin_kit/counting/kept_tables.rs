//! Tables of counters that nothing uses, kept for some time in case that their plugin returns. They have limits of
//! their own, since the limit of entries does not count what a table takes besides them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::rule_table::RuleTable;
use crate::plugin_api::services::PluginServices;

/// The tables of the process that are kept. One object in the state of plugins, which all users of tables hold.
#[derive(Default)]
pub(super) struct KeptTables {
    list: Mutex<KeptList>,
}

#[derive(Default)]
struct KeptList {
    /// From the oldest to the newest.
    tables: VecDeque<KeptTable>,
    /// Whether a task ends the time of each table.
    has_task: bool,
}

struct KeptTable {
    table: Arc<RuleTable>,
    /// That of the object, and empty for an object without one.
    namespace: Box<str>,
    since: Instant,
}

/// What the task has to do.
enum NextTable {
    Expired(Arc<RuleTable>),
    At(Instant),
    None,
}

impl KeptTables {
    /// Keeps a table, unless something uses it or it has nothing to keep.
    pub(super) fn keep(self: &Arc<Self>, table: &Arc<RuleTable>, namespace: &str, services: &dyn PluginServices) {
        // Dropped after the lock, since a table may have many entries.
        let mut removed = Vec::new();
        let mut list = self.list.lock();
        removed.extend(list.remove(table));
        if !table.is_worth_keeping() {
            return;
        }
        removed.extend(list.make_room(namespace));
        list.tables.push_back(KeptTable {
            table: Arc::clone(table),
            namespace: namespace.into(),
            since: Instant::now(),
        });
        let has_task = std::mem::replace(&mut list.has_task, true);
        drop(list);
        if !has_task {
            services.spawn(Box::pin(end_kept(Arc::clone(self))));
        }
    }

    /// Does not keep a table any more. Called after the table has got a user.
    pub(super) fn release(&self, table: &Arc<RuleTable>) {
        let removed = self.list.lock().remove(table);
        drop(removed);
    }

    fn next(&self) -> NextTable {
        let mut list = self.list.lock();
        let Some(end) = list.tables.front().map(|oldest| oldest.since + KEPT_TIME) else {
            list.has_task = false;
            return NextTable::None;
        };
        if end > Instant::now() {
            return NextTable::At(end);
        }
        list.tables.pop_front().map_or(NextTable::None, |oldest| NextTable::Expired(oldest.table))
    }
}

impl KeptList {
    fn remove(&mut self, table: &Arc<RuleTable>) -> Option<KeptTable> {
        let index = self.tables.iter().position(|kept| Arc::ptr_eq(&kept.table, table))?;
        self.tables.remove(index)
    }

    /// Removes a table if there is no place for another one of this namespace.
    fn make_room(&mut self, namespace: &str) -> Option<KeptTable> {
        let index = self.giving_place(namespace)?;
        self.tables.remove(index)
    }

    /// The oldest table of the namespace if it has its share, and without a place the oldest one of those namespaces
    /// that have most.
    fn giving_place(&self, namespace: &str) -> Option<usize> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for kept in &self.tables {
            *counts.entry(&kept.namespace).or_default() += 1;
        }
        if counts.get(namespace).is_some_and(|count| *count >= MAX_KEPT_OF_NAMESPACE) {
            self.tables.iter().position(|kept| *kept.namespace == *namespace)
        } else if self.tables.len() >= MAX_KEPT {
            let most = counts.values().max();
            self.tables.iter().position(|kept| counts.get(&*kept.namespace) == most)
        } else {
            None
        }
    }
}

/// Ends the time of all tables, as long as there are any.
async fn end_kept(kept: Arc<KeptTables>) {
    loop {
        match kept.next() {
            NextTable::Expired(table) => {
                // Other tasks of the thread would wait if all entries were dropped at once.
                for _ in table.discard() {
                    yield_now().await;
                }
            }
            NextTable::At(end) => sleep_until(end).await,
            NextTable::None => return,
        }
    }
}

/// How long counters are kept that nothing uses, unless others need their room.
pub(super) const KEPT_TIME: Duration = Duration::from_secs(600);
/// A table takes up to about 13 KiB besides its entries.
const MAX_KEPT: usize = 256;
/// All plans of a usage-plan.
const MAX_KEPT_OF_NAMESPACE: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::super::rule_table::tests::{count_one, counters_of};
    use super::*;
    use crate::plugin_api::state::PluginState;

    impl KeptTables {
        pub(in crate::plugin_kit::counting) fn count(&self) -> usize {
            self.list.lock().tables.len()
        }
    }

    /// Uses the counters of this object, and ends the use.
    fn abandon(state: &PluginState, object: &str) -> Weak<RuleTable> {
        let counters = counters_of(state, object, &["a"]);
        count_one(&counters);
        counters.downgrade()
    }

    fn kept(tables: &[Weak<RuleTable>]) -> Vec<bool> {
        tables.iter().map(|table| table.strong_count() > 0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_have_a_share() {
        let state = PluginState::default();
        let _user = counters_of(&state, "KongPlugin/user/b", &["a"]);
        let other = abandon(&state, "KongPlugin/other/b");
        let object = |number: usize| format!("KongPlugin/a/{number}");
        let tables: Vec<_> = (0..=MAX_KEPT_OF_NAMESPACE).map(|number| abandon(&state, &object(number))).collect();
        let mut expected = vec![true; tables.len()];
        expected[0] = false;
        assert_eq!(kept(&tables), expected, "the oldest one gives its place");
        assert!(other.strong_count() > 0);
        // One that was in use meanwhile is the newest.
        drop(counters_of(&state, &object(1), &["a"]));
        drop(abandon(&state, &object(MAX_KEPT_OF_NAMESPACE + 1)));
        expected[2] = false;
        assert_eq!(kept(&tables), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn the_process_has_a_limit() {
        let state = PluginState::default();
        let _user = counters_of(&state, "KongPlugin/user/b", &["a"]);
        let few = abandon(&state, "KongPlugin/few/b");
        let mut tables = Vec::new();
        for number in 0..MAX_KEPT + 10 {
            let namespace = number / MAX_KEPT_OF_NAMESPACE;
            tables.push(abandon(&state, &format!("KongPlugin/n{namespace}/{number}")));
        }
        let number = kept(&tables).into_iter().filter(|is_kept| *is_kept).count();
        assert_eq!(number + 1, MAX_KEPT);
        assert!(few.strong_count() > 0, "namespaces with many tables give places");
    }

    #[tokio::test(start_paused = true)]
    async fn tables_without_entries_or_of_a_former_generation_are_not_kept() {
        let state = PluginState::default();
        let _user = counters_of(&state, "KongPlugin/user/b", &["a"]);
        let empty = counters_of(&state, "KongPlugin/a/b", &["a"]).downgrade();
        assert_eq!(empty.strong_count(), 0);
        let former = counters_of(&state, "KongPlugin/a/b", &["a"]);
        count_one(&former);
        former.begin_generation();
        let former = former.downgrade();
        assert_eq!(former.strong_count(), 0);
    }
}
