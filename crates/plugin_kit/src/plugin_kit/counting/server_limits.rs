//! Limits whose counts are at a Redis server: one script decides for all of them in one atomic step.

use std::time::Duration;

use super::limit_rule::{ActiveLimit, CLOCK_DIFFERENCE_US, LimitDecision, LimitKind, LimitRule, LimitUse};
use crate::plugin_kit::redis::{CounterIncrement, Redis, RedisScript, RedisUnavailable};

/// Counts an amount as `WindowCounters::count` does. `group` is the common prefix of the keys, and `limits`
/// are the rules at the time of the request.
pub async fn count_at_server(
    redis: &Redis,
    group: &str,
    rules: &[LimitRule],
    limits: &[ActiveLimit],
    amount: u64,
    counts_rejected: bool,
) -> Result<LimitDecision, RedisUnavailable> {
    let mut keys = Vec::with_capacity(2 * limits.len());
    let mut arguments = vec![amount, u64::from(counts_rejected), CLOCK_DIFFERENCE_US];
    for (rule, limit) in rules.iter().zip(limits) {
        keys.push(server_key(group, rule, limit.number));
        keys.push(server_key(group, rule, limit.number.saturating_sub(1)));
        let (rest, length, interval) = match limit.kind {
            LimitKind::Fixed(_) => (0, 1, 0),
            LimitKind::Sliding { .. } => (limit.rest_ms, limit.length_ms, 0),
            LimitKind::Bucket { interval_us } => (0, 1, interval_us),
        };
        // Up to a second is added, so that a replica whose clock is behind still finds the counter.
        arguments.extend([limit.max, limit.expires_in() + 1, rest, length, interval, limit.now_us]);
    }
    let reply = redis.run_integers(&COUNT, &keys, &arguments).await?;
    let (is_admitted, counts) = reply.split_first().ok_or(RedisUnavailable)?;
    let (uses, []) = counts.as_chunks() else { return Err(RedisUnavailable) };
    if uses.len() != limits.len() {
        return Err(RedisUnavailable);
    }
    let uses = uses.iter().map(|[current, previous]| LimitUse { current: *current, previous: *previous }).collect();
    Ok(LimitDecision { is_admitted: *is_admitted == 1, uses })
}

/// Adds amounts as `WindowCounters::add_in_slots` does. Returns whether they were added.
pub(super) async fn add_at_server(
    redis: &Redis,
    group: &str,
    rules: &[LimitRule],
    limits: &[ActiveLimit],
    amounts: &[u64],
) -> Result<bool, RedisUnavailable> {
    let increment = |((rule, limit), amount): ((&LimitRule, &ActiveLimit), &u64)| {
        (*amount > 0).then(|| CounterIncrement {
            key: server_key(group, rule, limit.number),
            amount: *amount,
            limit: Some(limit.max),
            expires_in: Duration::from_secs(limit.expires_in()),
        })
    };
    let increments: Vec<_> = rules.iter().zip(limits).zip(amounts).filter_map(increment).collect();
    if increments.is_empty() {
        return Ok(true);
    }
    redis.add(&increments).await.map(|totals| totals.is_counted)
}

/// The key of the count of a window.
pub(super) fn server_key(group: &str, rule: &LimitRule, number: u64) -> String {
    format!("{group}:{}:{number}", rule.label())
}

/// The first arguments are the amount, whether rejected requests count, and the difference between clocks. Each limit
/// has two keys, those of its window and of the one before, and six arguments: the limit, the seconds until the key
/// expires, the rest of a sliding window and its length, the interval of a bucket, and the time. A bucket that would be
/// full too late is full, as in [`ActiveLimit::used`].
static COUNT: RedisScript = RedisScript::new(
    "local amount = tonumber(ARGV[1])
    local reply = {1}
    for i = 1, #KEYS / 2 do
        local at = 6 * i - 3
        local max, rest, length = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
        local interval, now = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
        local current = tonumber(redis.call('GET', KEYS[2 * i - 1]) or 0)
        local previous, used = 0, current
        if interval > 0 then
            if current - now > max * interval + tonumber(ARGV[3]) then
                current = now
            end
            used = math.ceil(math.max(current - now, 0) / interval)
        elseif rest > 0 then
            previous = tonumber(redis.call('GET', KEYS[2 * i]) or 0)
            used = current + math.floor(previous * rest / length)
        end
        if used + amount > max then
            reply[1] = 0
        end
        reply[2 * i] = current
        reply[2 * i + 1] = previous
    end
    if amount > 0 and (reply[1] == 1 or ARGV[2] == '1') then
        for i = 1, #KEYS / 2 do
            local at = 6 * i - 3
            local key, interval, now = KEYS[2 * i - 1], tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
            if interval == 0 then
                redis.call('INCRBY', key, ARGV[1])
                redis.call('EXPIRE', key, ARGV[at + 2])
            elseif reply[1] == 1 then
                local full = math.max(reply[2 * i], now) + amount * interval
                redis.call('SET', key, string.format('%.0f', full), 'EX', ARGV[at + 2])
            end
        end
    end
    return reply",
);
