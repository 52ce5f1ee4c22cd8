//! Where the limits of a plugin are counted: in memory, or at a Redis server.

use std::sync::Arc;

use super::identifier::LimitIdentifier;
use super::limit_rule::{ActiveLimit, LimitDecision, LimitRule};
use super::rule_table::RuleCounters;
use super::server_limits::{add_at_server, count_at_server};
use super::window_counters::{CountSlots, WindowCounters};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_kit::redis::{Redis, RedisServer, RedisUnavailable};

/// The counts of these limits, by identifier.
pub struct LimitStore {
    rules: Arc<[LimitRule]>,
    place: CountPlace,
    /// The first part of the keys at the server.
    key_prefix: String,
}

enum CountPlace {
    Memory(RuleCounters),
    Server { redis: Arc<Redis>, server: Box<RedisServer> },
}

impl LimitStore {
    /// `name` distinguishes the counters of an object, and is part of keys at the server: it has no colon. In memory,
    /// the count of a limit outlives changes of the object that keep its [`identity`](LimitRule::identity).
    pub fn build(rules: Arc<[LimitRule]>, name: &str, server: Option<Box<RedisServer>>, cx: &BuildCx<'_>) -> Self {
        let place = match server {
            Some(server) => CountPlace::Server { redis: Redis::connect(&server, "redis", cx), server },
            None => CountPlace::Memory(RuleCounters::of(&rules, name, cx)),
        };
        LimitStore { rules, place, key_prefix: format!("{name}:{}", cx.object) }
    }

    /// Whether requests wait for the server.
    pub fn waits(&self) -> bool {
        matches!(self.place, CountPlace::Server { .. })
    }

    /// As `WindowCounters::count_in_slots`, in memory. Admits nothing if the counters are at a server.
    pub fn count_in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
        amount: u64,
    ) -> LimitDecision {
        self.in_memory(identifier, scope, limits, |counters, slots| counters.count_in_slots(limits, slots, amount))
    }

    /// As `WindowCounters::add_in_slots`, in memory.
    pub fn add_in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
        amounts: &[u64],
    ) -> LimitDecision {
        self.in_memory(identifier, scope, limits, |counters, slots| counters.add_in_slots(limits, slots, amounts))
    }

    fn in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
        count: impl Fn(&WindowCounters, &CountSlots) -> Option<LimitDecision>,
    ) -> LimitDecision {
        let CountPlace::Memory(memory) = &self.place else { return LimitDecision::default() };
        let second = limits.first().map_or(0, |limit| limit.now_us / 1_000_000);
        let key = identifier.table_key(scope);
        let count = |counters: &Arc<WindowCounters>| count(counters, &memory.slots);
        memory.table().with_counters(key, second, |_| WindowCounters::default(), count)
    }

    /// As `count_in_memory`, at the server.
    pub async fn count_at_server(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
        amount: u64,
    ) -> Result<LimitDecision, RedisUnavailable> {
        let CountPlace::Server { redis, server } = &self.place else { return Err(RedisUnavailable) };
        count_at_server(redis, &self.group(server, identifier, scope), &self.rules, limits, amount, false).await
    }

    /// As `add_in_memory`, at the server. Returns whether the amounts were added.
    pub async fn add_at_server(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        limits: &[ActiveLimit],
        amounts: &[u64],
    ) -> Result<bool, RedisUnavailable> {
        let CountPlace::Server { redis, server } = &self.place else { return Err(RedisUnavailable) };
        add_at_server(redis, &self.group(server, identifier, scope), &self.rules, limits, amounts).await
    }

    fn group(&self, server: &RedisServer, identifier: &LimitIdentifier, scope: &str) -> String {
        server.key_group(format!("{}:{scope}:{}", self.key_prefix, identifier.for_server()))
    }
}
