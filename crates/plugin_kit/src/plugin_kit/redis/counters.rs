//! Counters at a Redis server, which all replicas share.

use std::time::Duration;

use super::{Redis, RedisScript, RedisUnavailable};

/// An increment of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterIncrement {
    pub key: String,
    pub amount: u64,
    /// The counter is full if it has this value. If one counter of a call is full, none of them is incremented.
    pub limit: Option<u64>,
    /// Time until the counter expires at the server.
    pub expires_in: Duration,
}

/// The counters of a call after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterTotals {
    /// Whether the counters were incremented: none of them was full.
    pub is_counted: bool,
    /// The values, in the order of the increments.
    pub values: Vec<u64>,
}

impl Redis {
    /// Increments all of these counters, or none if one is full, in one atomic step. In a cluster, the keys of a call
    /// must have the same hash tag, see [`super::RedisServer::key_group`].
    pub async fn add(&self, increments: &[CounterIncrement]) -> Result<CounterTotals, RedisUnavailable> {
        let keys: Vec<&[u8]> = increments.iter().map(|increment| increment.key.as_bytes()).collect();
        let (is_counted, values): (bool, Vec<u64>) = self
            .run_script(&INCREMENT, &keys, |command| {
                for CounterIncrement { amount, limit, expires_in, .. } in increments {
                    // Up to a second is added, so that a replica whose clock is behind still finds the counter.
                    let seconds = expires_in.as_secs().saturating_add(1);
                    // An empty argument is no number to the script.
                    let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
                    command.arg(*amount).arg(seconds).arg(limit);
                }
            })
            .await?;
        if values.len() == increments.len() { Ok(CounterTotals { is_counted, values }) } else { Err(RedisUnavailable) }
    }
}

/// A script is atomic and a single command. A transaction would take five commands, and the client crate does not
/// return a clear error if the server rejects the first one.
static INCREMENT: RedisScript = RedisScript::new(
    "local totals = {}
    local is_counted = 1
    for i, key in ipairs(KEYS) do
        local limit = tonumber(ARGV[3 * i])
        if limit then
            totals[i] = tonumber(redis.call('GET', key) or 0)
            if totals[i] >= limit then
                is_counted = 0
            end
        end
    end
    if is_counted == 1 then
        for i, key in ipairs(KEYS) do
            totals[i] = redis.call('INCRBY', key, ARGV[3 * i - 2])
            redis.call('EXPIRE', key, ARGV[3 * i - 1])
        end
    end
    return {is_counted, totals}",
);
