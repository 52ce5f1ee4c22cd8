//! The windows of plugins with lists of limits and lengths, and where they are counted, as configurations have them.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit_rule::{LimitKind, LimitRule, WindowLength};
use super::rate_store::CountStrategy;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_kit::redis::RedisConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WindowType {
    /// The requests of the current window and the part of the window before that a window ending now overlaps, as if
    /// its requests were evenly spread: `current + previous × (rest of the current window ÷ its length)`, rounded down.
    Sliding,
    /// The requests since the window began. Windows begin at multiples of their length since 1970, in UTC.
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CountStrategyName {
    /// In memory: each replica counts separately.
    Local,
    /// Rejected, because replicas share no database.
    Cluster,
    /// On a Redis server that all replicas share.
    Redis,
}

/// The rules of `limit` and `window_size`, from the shortest window to the longest.
pub fn read_windows(
    limits: &[u64],
    sizes: &[u64],
    window_type: WindowType,
    invalid: &mut Vec<Diagnostic>,
) -> Arc<[LimitRule]> {
    for (name, count) in [("limit", limits.len()), ("window_size", sizes.len())] {
        if count == 0 || count > MAX_WINDOWS {
            let message = if count == 0 { "is missing".to_owned() } else { format!("has more than {MAX_WINDOWS}") };
            let remedy = "set `limit` and `window_size` to lists of the same length, such as [5] and [60]";
            invalid.push(Diagnostic::in_config(name, message, remedy));
        }
    }
    if limits.len() != sizes.len() && !limits.is_empty() && !sizes.is_empty() {
        let message = format!("has {} windows for {} limits", sizes.len(), limits.len());
        invalid.push(Diagnostic::in_config("window_size", message, "write one window for each limit"));
    }
    for (index, limit) in limits.iter().enumerate().filter(|(_, limit)| !(1..=MAX_LIMIT).contains(*limit)) {
        let (field, message) = (format!("limit[{index}]"), format!("{limit} is out of range"));
        invalid.push(Diagnostic::in_config(field, message, format!("use 1 to {MAX_LIMIT}")));
    }
    for (index, size) in sizes.iter().enumerate() {
        let field = format!("window_size[{index}]");
        if !(1..=MAX_WINDOW_SECONDS).contains(size) {
            let remedy = format!("use 1 to {MAX_WINDOW_SECONDS} seconds");
            invalid.push(Diagnostic::in_config(field, format!("{size} is out of range"), remedy));
        } else if sizes[..index].contains(size) {
            let message = format!("the window of {size} seconds is listed twice");
            invalid.push(Diagnostic::in_config(field, message, "keep the lower limit"));
        }
    }
    let mut windows: Vec<(u64, u64)> = sizes.iter().copied().zip(limits.iter().copied()).collect();
    windows.sort_unstable();
    let kind = |seconds| match window_type {
        WindowType::Sliding => LimitKind::Sliding { seconds },
        WindowType::Fixed => LimitKind::Fixed(WindowLength::Seconds(seconds)),
    };
    windows.into_iter().map(|(seconds, max)| LimitRule::new(max, kind(seconds))).collect()
}

/// Checks the name of shared counters. It is part of keys, so it has no characters that separate their parts.
pub fn check_counter_namespace(namespace: Option<&str>, invalid: &mut Vec<Diagnostic>) {
    let Some(namespace) = namespace else { return };
    let is_plain = namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if namespace.is_empty() || namespace.len() > MAX_NAMESPACE_BYTES || !is_plain {
        let message = "is not a valid name of counters";
        let remedy = format!("use 1 to {MAX_NAMESPACE_BYTES} letters, digits, `-`, `_` and `.`");
        invalid.push(Diagnostic::in_config("namespace", message, remedy));
    }
}

impl CountStrategyName {
    /// Where a plugin with these fields counts.
    pub fn validate(
        self,
        sync_rate: Option<f64>,
        redis: RedisConfig,
        cx: &BuildCx<'_>,
        invalid: &mut Vec<Diagnostic>,
    ) -> Option<CountStrategy> {
        match self {
            CountStrategyName::Local => Some(CountStrategy::Local),
            CountStrategyName::Cluster => {
                let message = "`cluster` counts in a database, which Portico does not have";
                invalid.push(Diagnostic::in_config("strategy", message, "use `redis` to share counters, or `local`"));
                None
            }
            CountStrategyName::Redis => synced_strategy(sync_rate, redis, cx, invalid),
        }
    }
}

/// The strategy `redis`: at the server on each request, or synchronized with it at the interval `sync_rate`.
fn synced_strategy(
    rate: Option<f64>,
    redis: RedisConfig,
    cx: &BuildCx<'_>,
    invalid: &mut Vec<Diagnostic>,
) -> Option<CountStrategy> {
    let server = match redis.validate("redis", cx) {
        Ok(server) => Some(Box::new(server)),
        Err(errors) => {
            invalid.extend(errors);
            None
        }
    };
    let remedy = "use 0 to update the server on each request, 0.02 to 3600 seconds, or -1 for never";
    match rate {
        None => invalid.push(Diagnostic::in_config("sync_rate", "is missing", remedy)),
        Some(rate) if rate == NEVER_SYNCED => {
            let message = "-1 never synchronizes: each replica counts separately, and Redis is not used";
            cx.note(Diagnostic::in_config("sync_rate", message, "use 0 or an interval to share counters"));
            return Some(CountStrategy::Local);
        }
        Some(0.0) => return server.map(CountStrategy::Redis),
        Some(rate) if (MIN_SYNC_RATE..=MAX_SYNC_RATE).contains(&rate) => {
            return server.map(|server| CountStrategy::Synced(server, Duration::from_secs_f64(rate)));
        }
        Some(rate) => {
            let message = format!("{rate} is out of range");
            invalid.push(Diagnostic::in_config("sync_rate", message, remedy));
        }
    }
    None
}

/// The name of a window in response headers: a word, or the number of seconds.
pub(super) fn window_name(rule: &LimitRule) -> String {
    let (LimitKind::Fixed(WindowLength::Seconds(seconds)) | LimitKind::Sliding { seconds }) = rule.kind else {
        return rule.label().to_owned();
    };
    match seconds {
        1 => "second".to_owned(),
        60 => "minute".to_owned(),
        3600 => "hour".to_owned(),
        86_400 => "day".to_owned(),
        2_592_000 => "month".to_owned(),
        31_536_000 => "year".to_owned(),
        other => other.to_string(),
    }
}

/// The `sync_rate` without synchronization.
pub const NEVER_SYNCED: f64 = -1.0;
const MIN_SYNC_RATE: f64 = 0.02;
const MAX_SYNC_RATE: f64 = 3600.0;
/// Each window is counted for each request.
const MAX_WINDOWS: usize = 16;
/// A script in Redis calculates in floating-point numbers, which are exact for products of this and any window.
const MAX_LIMIT: u64 = 1 << 31;
/// About three years.
pub const MAX_WINDOW_SECONDS: u64 = 100_000_000;
const MAX_NAMESPACE_BYTES: usize = 128;
