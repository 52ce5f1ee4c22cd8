//! Where the use of clients is counted: in memory, or at a Redis server.

use std::sync::Arc;

use crate::plugin_api::BuildCx;
use crate::plugin_api::counting::{
    ActiveLimit, CounterTable, DEFAULT_ENTRIES, EntryBudget, LimitDecision, LimitIdentifier, LimitRule, WindowCounters,
    add_at_server, count_at_server,
};
use crate::plugin_api::redis::{Redis, RedisServer, RedisUnavailable};

pub(super) struct UseStore {
    place: Place,
    /// The first part of the keys at the server.
    key_prefix: String,
}

enum Place {
    Memory(Arc<CounterTable<WindowCounters>>),
    Server { redis: Arc<Redis>, server: Box<RedisServer> },
}

impl UseStore {
    pub(super) fn build(rules: &[LimitRule], server: Option<Box<RedisServer>>, cx: &BuildCx<'_>) -> UseStore {
        let place = match server {
            Some(server) => Place::Server { redis: Redis::connect(&server, "redis", cx), server },
            None => {
                // Counters of other limits are others, so a change of names or periods begins again.
                let limits: Vec<&str> = rules.iter().map(LimitRule::label).collect();
                let name = format!("{} use {}", cx.object, limits.join(" "));
                let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
                Place::Memory(cx.state.get_or_create(&name, || CounterTable::new(budget)))
            }
        };
        UseStore { place, key_prefix: format!("response-ratelimit:{}", cx.object) }
    }

    /// Whether requests wait for the server.
    pub(super) fn waits(&self) -> bool {
        matches!(self.place, Place::Server { .. })
    }

    /// What was used in the current windows. In memory only.
    pub(super) fn read_in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
    ) -> LimitDecision {
        self.in_memory(identifier, scope, limits, |counters| counters.count(limits, 0, false))
    }

    /// Adds amounts, unless a resource has nothing left. In memory only.
    pub(super) fn add_in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
        amounts: &[u64],
    ) -> LimitDecision {
        self.in_memory(identifier, scope, limits, |counters| counters.add(limits, amounts))
    }

    fn in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
        count: impl Fn(&WindowCounters) -> Option<LimitDecision>,
    ) -> LimitDecision {
        let Place::Memory(table) = &self.place else { return LimitDecision::default() };
        let second = limits.first().map_or(0, |limit| limit.now_us / 1_000_000);
        let key = identifier.table_key(scope);
        table.with_counters(key, second, |_| WindowCounters::default(), |counters| count(counters))
    }

    /// What was used in the current windows.
    pub(super) async fn read_at_server(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        rules: &[LimitRule],
        limits: &[ActiveLimit],
    ) -> Result<LimitDecision, RedisUnavailable> {
        let Place::Server { redis, server } = &self.place else { return Err(RedisUnavailable) };
        count_at_server(redis, &self.group(server, identifier, scope), rules, limits, 0, false).await
    }

    /// Adds amounts, unless a resource has nothing left. Returns whether they were added.
    pub(super) async fn add_at_server(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        rules: &[LimitRule],
        limits: &[ActiveLimit],
        amounts: &[u64],
    ) -> Result<bool, RedisUnavailable> {
        let Place::Server { redis, server } = &self.place else { return Err(RedisUnavailable) };
        add_at_server(redis, &self.group(server, identifier, scope), rules, limits, amounts).await
    }

    fn group(&self, server: &RedisServer, identifier: &LimitIdentifier, scope: &str) -> String {
        server.key_group(format!("{}:{scope}:{}", self.key_prefix, identifier.for_server()))
    }
}
