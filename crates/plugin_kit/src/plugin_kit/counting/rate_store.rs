//! Where requests are counted: in memory, at a Redis server on each request, or in memory with a periodic
//! synchronization.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::entry_budget::EntryBudget;
use super::identifier::LimitIdentifier;
use super::limit_rule::{ActiveLimit, LimitDecision, LimitRule};
use super::server_limits::count_at_server;
use super::sync::CounterSync;
use super::table::{CounterKey, CounterOwner, CounterTable};
use super::window_counters::{WindowCounters, WindowSync};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_kit::default_limits::DEFAULT_ENTRIES;
use crate::plugin_kit::redis::{Redis, RedisServer};

/// Where the counts are.
pub enum CountStrategy {
    Local,
    /// At the server, on each request.
    Redis(Box<RedisServer>),
    /// In memory, and synchronized with the server at this interval.
    Synced(Box<RedisServer>, Duration),
}

/// The counters of one plugin object, or of all objects with the same `namespace`.
pub struct RateStore {
    /// Also the counters while the server is unavailable.
    table: Arc<LimitTable>,
    redis: Option<Arc<Redis>>,
    server: Option<Box<RedisServer>>,
    /// The first part of the keys at the server.
    key_prefix: String,
    /// Whether the counters are the same for everything that the plugin is attached to.
    has_namespace: bool,
}

struct LimitTable {
    table: CounterTable<WindowCounters>,
    sync: Option<CounterSync<WindowCounters>>,
}

impl RateStore {
    /// `plugin`: the name of the plugin. `key_prefix`: the first part of the keys at the server.
    pub fn build(
        (plugin, key_prefix): (&str, &str),
        rules: &[LimitRule],
        strategy: CountStrategy,
        namespace: Option<String>,
        cx: &BuildCx<'_>,
    ) -> RateStore {
        let owner = match &namespace {
            Some(namespace) => format!("{}:{namespace}", cx.namespace().unwrap_or_default()),
            None => cx.object.to_owned(),
        };
        // Counters of other windows are others, so a change of the windows begins again.
        let windows: Vec<&str> = rules.iter().map(LimitRule::label).collect();
        let name = format!("{plugin} {owner} {}", windows.join(" "));
        let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
        let table_owner = cx.namespace().unwrap_or_default();
        let new_table = |sync| LimitTable { table: CounterTable::new(budget, table_owner), sync };
        let (table, redis, server) = match strategy {
            CountStrategy::Local => (cx.state.get_or_create(&name, || new_table(None)), None, None),
            CountStrategy::Redis(server) => {
                let redis = Redis::connect(&server, "redis", cx);
                (cx.state.get_or_create(&name, || new_table(None)), Some(redis), Some(server))
            }
            CountStrategy::Synced(server, interval) => {
                let redis = Redis::connect(&server, "redis", cx);
                let name = format!("{name} {} {interval:?}", server.fingerprint());
                let table = cx.state.get_or_create(&name, || {
                    let (sync, task) = CounterSync::start(redis, interval);
                    cx.services.spawn(Box::pin(task));
                    new_table(Some(sync))
                });
                (table, None, Some(server))
            }
        };
        let key_prefix = format!("{key_prefix}:{owner}");
        RateStore { table, redis, server, key_prefix, has_namespace: namespace.is_some() }
    }

    /// Whether requests wait for the server.
    pub fn waits(&self) -> bool {
        self.redis.is_some()
    }

    /// Counts an amount. While the server is unavailable, each replica counts separately.
    pub async fn count(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        rules: &Arc<[LimitRule]>,
        limits: &[ActiveLimit],
        amount: u64,
        counts_rejected: bool,
    ) -> LimitDecision {
        if let Some(redis) = &self.redis {
            let group = self.key_group(identifier, scope);
            if let Ok(decision) = count_at_server(redis, &group, rules, limits, amount, counts_rejected).await {
                return decision;
            }
        }
        self.count_in_memory(identifier, scope, rules, limits, amount, counts_rejected)
    }

    pub fn count_in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        rules: &Arc<[LimitRule]>,
        limits: &[ActiveLimit],
        amount: u64,
        counts_rejected: bool,
    ) -> LimitDecision {
        let LimitTable { table, sync } = &*self.table;
        let create = |owner| match sync {
            Some(_) if owner == CounterOwner::Identifier => WindowCounters::synced(WindowSync {
                group: self.key_group(identifier, scope),
                rules: Arc::clone(rules),
                is_queued: AtomicBool::new(false),
            }),
            _ => WindowCounters::default(),
        };
        let key = CounterKey { scope: if self.has_namespace { "" } else { scope }, ..identifier.table_key(scope) };
        let second = limits.first().map_or(0, |limit| limit.now_us / 1_000_000);
        table.with_counters(key, second, create, |counters| {
            let decision = counters.count(limits, amount, counts_rejected)?;
            if let Some(sync) = sync.as_ref().filter(|_| decision.is_admitted || counts_rejected) {
                sync.enqueue(counters);
            }
            Some(decision)
        })
    }

    fn key_group(&self, identifier: &LimitIdentifier, scope: &str) -> String {
        let scope = if self.has_namespace { "" } else { scope };
        let group = format!("{}:{scope}:{}", self.key_prefix, identifier.for_server());
        match &self.server {
            Some(server) => server.key_group(group),
            None => group,
        }
    }
}
