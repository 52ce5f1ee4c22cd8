//! `rate-limiting`: limits the number of requests per second, minute and so on, and reports the remaining number.
//!
//! ```yaml
//! plugin: rate-limiting
//! config: {minute: 20, hour: 500, limit_by: ip, policy: redis, redis: {host: redis.shop}}
//! ```

mod config;
mod counters;
mod redis_counters;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::{AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, RequestCx, decimal};
use crate::plugin_kit::counting::{
    CounterOwner, CounterSync, CounterTable, EntryBudget, LimitBy, LimitIdentifier, Period, unix_second,
};
use crate::plugin_kit::default_limits::DEFAULT_ENTRIES;
use crate::plugin_kit::redis::dumped_fields::NO_CLOUD_LOGIN;
use crate::plugin_kit::redis::{Redis, RedisServer};

pub(crate) use config::Config;
use config::{Policy, ValidatedConfig};
use counters::{LimitCounters, WindowLimit};

pub(crate) struct RateLimiting {
    /// The limits, and their values for response headers.
    limits: Box<[(Period, u64, HeaderValue)]>,
    limit_by: LimitBy,
    store: CounterStore,
    /// The object that holds the configuration.
    object: Arc<str>,
    is_fault_tolerant: bool,
    hides_headers: bool,
    status: StatusCode,
    message: Arc<str>,
    /// The server, if there is one.
    server: Option<Box<RedisServer>>,
}

/// Where requests are counted.
enum CounterStore {
    /// In memory.
    Local(Arc<CounterTable<LimitCounters>>),
    /// At the Redis server, on each request.
    Redis(Arc<Redis>),
    /// In memory, and periodically synchronized with the Redis server.
    Synced(Arc<SyncedTable>),
}

/// Local counters and their synchronization with the Redis server.
struct SyncedTable {
    table: CounterTable<LimitCounters>,
    sync: CounterSync<LimitCounters>,
}

impl PluginKind for RateLimiting {
    const NAME: &'static str = "rate-limiting";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 910;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["redis.cloud_authentication"], NO_CLOUD_LOGIN, "3.13")];
    type Config = Config;
    type Plugin = RateLimiting;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let ValidatedConfig { limits, limit_by, policy, is_fault_tolerant, hides_headers, status, message } =
            config.validate(cx)?;
        let new_table = || {
            let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
            move || CounterTable::new(budget, cx.namespace().unwrap_or_default())
        };
        let store = match &policy {
            Policy::Local => {
                CounterStore::Local(cx.state.get_or_create(&format!("{} counters", cx.object), new_table()))
            }
            Policy::Redis(server, None) => CounterStore::Redis(Redis::connect(server, "redis", cx)),
            Policy::Redis(server, Some(interval)) => {
                let redis = Redis::connect(server, "redis", cx);
                let name = format!("{} counters {} {interval:?}", cx.object, server.fingerprint());
                let new_table = new_table();
                CounterStore::Synced(cx.state.get_or_create(&name, || {
                    let (sync, task) = CounterSync::start(redis, *interval);
                    cx.services.spawn(Box::pin(task));
                    SyncedTable { table: new_table(), sync }
                }))
            }
        };
        let limits = limits.into_iter().map(|(period, limit)| (period, limit, decimal::header_value(limit))).collect();
        let object = cx.object.into();
        let server = match policy {
            Policy::Local => None,
            Policy::Redis(server, _) => Some(server),
        };
        Ok(RateLimiting { limits, limit_by, store, object, is_fault_tolerant, hides_headers, status, message, server })
    }
}

impl Plugin for RateLimiting {
    fn may_wait(&self) -> bool {
        matches!(self.store, CounterStore::Redis(_))
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if !self.hides_headers {
            fields.response.add_all(HEADERS.iter().flat_map(|(limit, remaining)| [limit, remaining]));
            fields.response.add_all(&[RATELIMIT_LIMIT, RATELIMIT_REMAINING, RATELIMIT_RESET]);
        }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.limits.is_empty() {
            return AccessOutcome::Continue;
        }
        let second = unix_second(cx.now);
        let window_limit = |(period, limit, _): &(Period, u64, HeaderValue)| WindowLimit {
            period: *period,
            max_count: *limit,
            window: period.cached_window(second),
        };
        let limits: WindowLimits = self.limits.iter().map(window_limit).collect();
        let identifier = LimitIdentifier::from_request(&self.limit_by, cx);
        let mut used = UsedCounts::new();
        match &self.store {
            CounterStore::Local(table) => {
                table.with_counters(
                    identifier.table_key(cx.scope),
                    second,
                    |_| LimitCounters::default(),
                    |counters| counters.try_count(&limits, |count| used.push(count)),
                );
            }
            CounterStore::Synced(synced) => {
                if synced.sync.is_behind() && !self.is_fault_tolerant {
                    return AccessOutcome::Reply(counters_unavailable());
                }
                let create = |owner| match owner {
                    CounterOwner::Identifier => LimitCounters::for_server(self.key_prefix(&identifier, cx.scope)),
                    CounterOwner::Several => LimitCounters::default(),
                };
                synced.table.with_counters(identifier.table_key(cx.scope), second, create, |counters| {
                    let is_counted = counters.try_count(&limits, |count| used.push(count))?;
                    if is_counted {
                        synced.sync.enqueue(counters);
                    }
                    Some(())
                });
            }
            CounterStore::Redis(redis) => {
                let key_prefix = self.key_prefix(&identifier, cx.scope);
                return AccessOutcome::Wait(Box::pin(async move {
                    match redis_counters::count_at_server(redis, &key_prefix, &limits, second).await {
                        Ok(used) => self.decide(&limits, &used, second, cx),
                        Err(_) if self.is_fault_tolerant => None,
                        Err(_) => Some(counters_unavailable()),
                    }
                }));
            }
        }
        match self.decide(&limits, &used, second, cx) {
            Some(reply) => AccessOutcome::Reply(reply),
            None => AccessOutcome::Continue,
        }
    }
}

/// The limit of which the fewest requests remain.
struct LowestLimit<'l> {
    remaining: u64,
    /// The remaining number as a header value, formatted once for both headers that have it.
    remaining_value: HeaderValue,
    limit: &'l WindowLimit,
    limit_value: &'l HeaderValue,
}

type WindowLimits = SmallVec<[WindowLimit; 6]>;
type UsedCounts = SmallVec<[u64; 6]>;

impl RateLimiting {
    /// Sets the response headers and rejects the request if a limit is reached. `used` are the counts before this
    /// request.
    fn decide(&self, limits: &[WindowLimit], used: &[u64], second: u64, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let is_reached = |(limit, used): (&WindowLimit, &u64)| *used >= limit.max_count;
        let is_rejected = limits.iter().zip(used).any(is_reached);
        let mut lowest: Option<LowestLimit<'_>> = None;
        if !self.hides_headers {
            for ((limit, used), (_, _, limit_value)) in limits.iter().zip(used).zip(&self.limits) {
                // An accepted request is already subtracted.
                let remaining = limit.max_count.saturating_sub(*used).saturating_sub(u64::from(!is_rejected));
                let (limit_header, remaining_header) = &HEADERS[limit.period as usize];
                cx.response_headers.insert(limit_header.clone(), limit_value.clone());
                let remaining_value = decimal::header_value(remaining);
                cx.response_headers.insert(remaining_header.clone(), remaining_value.clone());
                // Periods are in ascending order, so the longest one is reported if several have the lowest number.
                if lowest.as_ref().is_none_or(|lowest| remaining <= lowest.remaining) {
                    lowest = Some(LowestLimit { remaining, remaining_value, limit, limit_value });
                }
            }
        }
        let mut reply = is_rejected.then(|| Reply::negotiated(self.status, self.message.to_string(), "rate_limited"));
        if let Some(LowestLimit { remaining: _, remaining_value, limit, limit_value }) = lowest {
            let reset = decimal::header_value(limit.window.end.saturating_sub(second).max(1));
            cx.response_headers.insert(RATELIMIT_LIMIT, limit_value.clone());
            cx.response_headers.insert(RATELIMIT_REMAINING, remaining_value);
            reply = reply.map(|reply| reply.with_header(RETRY_AFTER, reset.clone()));
            cx.response_headers.insert(RATELIMIT_RESET, reset);
        }
        reply
    }

    /// The prefix of an identifier's keys at the server. All replicas use the same prefix.
    fn key_prefix(&self, identifier: &LimitIdentifier, scope: &str) -> String {
        let prefix = format!("ratelimit:{}:{scope}:{}", self.object, identifier.for_server());
        match &self.server {
            Some(server) => server.key_group(prefix),
            None => prefix,
        }
    }
}

fn counters_unavailable() -> Box<Reply> {
    let message = "An unexpected error occurred";
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "counters_unavailable")
}

/// Names of the headers with limit and remaining requests, by [`Period`].
static HEADERS: [(HeaderName, HeaderName); 6] = [
    (HeaderName::from_static("x-ratelimit-limit-second"), HeaderName::from_static("x-ratelimit-remaining-second")),
    (HeaderName::from_static("x-ratelimit-limit-minute"), HeaderName::from_static("x-ratelimit-remaining-minute")),
    (HeaderName::from_static("x-ratelimit-limit-hour"), HeaderName::from_static("x-ratelimit-remaining-hour")),
    (HeaderName::from_static("x-ratelimit-limit-day"), HeaderName::from_static("x-ratelimit-remaining-day")),
    (HeaderName::from_static("x-ratelimit-limit-month"), HeaderName::from_static("x-ratelimit-remaining-month")),
    (HeaderName::from_static("x-ratelimit-limit-year"), HeaderName::from_static("x-ratelimit-remaining-year")),
];
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
