//! Counters at a Redis server for all replicas, updated on each request.

use std::time::Duration;

use super::counters::WindowLimit;
use crate::plugin_kit::redis::{CounterIncrement, CounterTotals, Redis, RedisUnavailable};

/// Counts a request in every period, or in none if one of the limits is reached. Returns the previous counts.
pub(super) async fn count_at_server(
    redis: &Redis,
    key_prefix: &str,
    limits: &[WindowLimit],
    second: u64,
) -> Result<Vec<u64>, RedisUnavailable> {
    let limited = |limit: &WindowLimit| CounterIncrement {
        limit: Some(limit.max_count),
        ..counter_increment(key_prefix, limit, 1, second)
    };
    let CounterTotals { is_counted, values } = redis.add(&limits.iter().map(limited).collect::<Vec<_>>()).await?;
    Ok(values.into_iter().map(|total| total.saturating_sub(u64::from(is_counted))).collect())
}

/// The increment of a counter at the server.
pub(super) fn counter_increment(key_prefix: &str, limit: &WindowLimit, amount: u64, second: u64) -> CounterIncrement {
    let WindowLimit { period, window, .. } = limit;
    let key = format!("{key_prefix}:{}:{}", window.start, period.name());
    let expires_in = Duration::from_secs(window.end.saturating_sub(second));
    CounterIncrement { key, amount, limit: None, expires_in }
}
