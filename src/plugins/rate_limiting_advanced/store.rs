//! Where requests are counted: in memory, at a Redis server on each request, or in memory with a periodic
//! synchronization.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::plugin_api::BuildCx;
use crate::plugin_api::counting::{
    ActiveLimit, CounterKey, CounterOwner, CounterSync, CounterTable, DEFAULT_ENTRIES, EntryBudget, LimitDecision,
    LimitIdentifier, LimitRule, WindowCounters, WindowSync, count_at_server,
};
use crate::plugin_api::redis::{Redis, RedisServer};

/// Where the counts are.
pub(super) enum Strategy {
    Local,
    /// At the server, on each request.
    Redis(Box<RedisServer>),
    /// In memory, and synchronized with the server at this interval.
    Synced(Box<RedisServer>, Duration),
}

/// The counters of one plugin object, or of all objects with the same `namespace`.
pub(super) struct RateStore {
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
    pub(super) fn build(
        rules: &[LimitRule],
        strategy: Strategy,
        namespace: Option<String>,
        cx: &BuildCx<'_>,
    ) -> RateStore {
        let owner = match &namespace {
            Some(namespace) => format!("{}:{namespace}", cx.namespace().unwrap_or_default()),
            None => cx.object.to_owned(),
        };
        // Counters of other windows are others, so a change of the windows begins again.
        let windows: Vec<&str> = rules.iter().map(LimitRule::label).collect();
        let name = format!("rate-limiting-advanced {owner} {}", windows.join(" "));
        let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
        let new_table = |sync| LimitTable { table: CounterTable::new(budget), sync };
        let (table, redis, server) = match strategy {
            Strategy::Local => (cx.state.get_or_create(&name, || new_table(None)), None, None),
            Strategy::Redis(server) => {
                let redis = Redis::connect(&server, "redis", cx);
                (cx.state.get_or_create(&name, || new_table(None)), Some(redis), Some(server))
            }
            Strategy::Synced(server, interval) => {
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
        let key_prefix = format!("ratelimit-advanced:{owner}");
        RateStore { table, redis, server, key_prefix, has_namespace: namespace.is_some() }
    }

    /// Whether requests wait for the server.
    pub(super) fn waits(&self) -> bool {
        self.redis.is_some()
    }

    /// Counts a request. While the server is unavailable, each replica counts separately.
    pub(super) async fn count(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        rules: &Arc<[LimitRule]>,
        limits: &[ActiveLimit],
        counts_rejected: bool,
    ) -> LimitDecision {
        if let Some(redis) = &self.redis {
            let group = self.key_group(identifier, scope);
            if let Ok(decision) = count_at_server(redis, &group, rules, limits, 1, counts_rejected).await {
                return decision;
            }
        }
        self.count_in_memory(identifier, scope, rules, limits, counts_rejected)
    }

    pub(super) fn count_in_memory(
        &self,
        identifier: &LimitIdentifier,
        scope: &str,
        rules: &Arc<[LimitRule]>,
        limits: &[ActiveLimit],
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
            let decision = counters.count(limits, 1, counts_rejected)?;
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
