//! The `queue` object in plugin configurations.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::BuildCx;

/// How entries are collected into batches and sent. If the server does not keep up, the oldest entries are dropped.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// Maximum number of entries in a batch. A batch with more than 4 MiB is sent without further entries.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_batch_size: usize,
    /// How many seconds a batch waits for more entries, unless it is full.
    #[schemars(range(min = 0, max = 3600))]
    pub max_coalescing_delay: f64,
    /// Maximum number of entries that wait to be sent, without those of batches that are being sent or sent again.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_entries: usize,
    /// Maximum size in bytes of the same entries. If unset, 64 MiB. `--max-queued-bytes` also limits them, together
    /// with those of all other plugins.
    #[schemars(range(min = 1))]
    pub max_bytes: Option<usize>,
    /// For how many seconds a failed batch is sent again until it is dropped; -1 for no retry.
    #[schemars(range(min = -1))]
    pub max_retry_time: f64,
    /// Delay in seconds before the first retry of a batch. It doubles with each further retry, and is then at least
    /// 0.1.
    #[schemars(range(min = 0.001, max = 1_000_000))]
    pub initial_retry_delay: f64,
    /// Maximum delay in seconds before a retry. From the second retry on, it is at least 0.1.
    #[schemars(range(min = 0.001, max = 1_000_000))]
    pub max_retry_delay: f64,
    /// How many batches are sent at the same time: 1, which keeps the order of entries, or -1 for all that are ready,
    /// up to 64.
    pub concurrency_limit: i32,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig {
            max_batch_size: 1,
            max_coalescing_delay: 1.0,
            max_entries: 10_000,
            max_bytes: None,
            max_retry_time: 60.0,
            initial_retry_delay: 0.01,
            max_retry_delay: 60.0,
            concurrency_limit: 1,
        }
    }
}

/// Deprecated fields for queues, which Kong's plugins still accept outside of `queue`.
#[derive(Clone, Copy, Debug)]
pub struct DeprecatedQueueFields {
    pub retry_count: Option<u32>,
    pub queue_size: Option<usize>,
    pub flush_timeout: Option<f64>,
}

impl DeprecatedQueueFields {
    /// The settings of the queue after these fields, which precede those of `queue`, were applied.
    pub fn apply(self, queue: &QueueConfig, cx: &BuildCx<'_>) -> Result<QueueSettings, Vec<Diagnostic>> {
        let mut queue = queue.clone();
        let note = |field: &str, message: &str, remedy: &str| cx.note(Diagnostic::in_config(field, message, remedy));
        if self.retry_count.is_some() {
            note("retry_count", "is deprecated and has no effect", "set queue.max_retry_time instead");
        }
        if let Some(size) = self.queue_size {
            note("queue_size", "is deprecated", "set queue.max_batch_size instead");
            queue.max_batch_size = size;
        }
        if let Some(timeout) = self.flush_timeout {
            note("flush_timeout", "is deprecated", "set queue.max_coalescing_delay instead");
            queue.max_coalescing_delay = timeout;
        }
        queue.validate("queue")
    }
}

/// A validated [`QueueConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    pub max_batch_size: usize,
    pub max_coalescing_delay: Duration,
    pub max_entries: usize,
    pub max_bytes: usize,
    /// `None` for no retry.
    pub max_retry_time: Option<Duration>,
    pub initial_retry_delay: Duration,
    pub max_retry_delay: Duration,
    /// How many batches are sent at the same time.
    pub concurrency: NonZeroUsize,
}

impl QueueConfig {
    /// Validates the configuration. `path` is the path of the `queue` object, for diagnostics.
    pub fn validate(&self, path: &str) -> Result<QueueSettings, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut check = |field: &str, is_valid: bool, value: String, range: &str| {
            if !is_valid {
                let message = format!("{value} is out of range");
                invalid.push(Diagnostic::in_config(format!("{path}.{field}"), message, format!("use {range}")));
            }
        };
        let counts = [("max_batch_size", self.max_batch_size), ("max_entries", self.max_entries)];
        for (field, count) in counts {
            check(field, (1..=MAX_COUNT).contains(&count), count.to_string(), "an integer from 1 to 1000000");
        }
        if self.max_bytes == Some(0) {
            check("max_bytes", false, "0".to_owned(), "a number of bytes above 0, or remove it");
        }
        let delay = self.max_coalescing_delay;
        check("max_coalescing_delay", (0.0..=3600.0).contains(&delay), delay.to_string(), "0 to 3600 seconds");
        let retry_time = self.max_retry_time;
        let is_retry_time = (0.0..=MAX_SECONDS).contains(&retry_time);
        let retry_range = "0 to 1000000 seconds, or -1 for no retry";
        check("max_retry_time", is_retry_time || is_minus_one(retry_time), retry_time.to_string(), retry_range);
        let delays = [("initial_retry_delay", self.initial_retry_delay), ("max_retry_delay", self.max_retry_delay)];
        for (field, delay) in delays {
            check(field, (0.001..=MAX_SECONDS).contains(&delay), delay.to_string(), "0.001 to 1000000 seconds");
        }
        let limit = self.concurrency_limit;
        check("concurrency_limit", matches!(limit, 1 | -1), limit.to_string(), "1, or -1 for no limit");
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let concurrency = if limit == 1 { NonZeroUsize::MIN } else { MAX_CONCURRENT_BATCHES };
        Ok(QueueSettings {
            max_batch_size: self.max_batch_size,
            max_coalescing_delay: Duration::from_secs_f64(delay),
            max_entries: self.max_entries,
            max_bytes: self.max_bytes.unwrap_or(DEFAULT_MAX_BYTES),
            max_retry_time: is_retry_time.then(|| Duration::from_secs_f64(retry_time)),
            initial_retry_delay: Duration::from_secs_f64(self.initial_retry_delay),
            max_retry_delay: Duration::from_secs_f64(self.max_retry_delay),
            concurrency,
        })
    }
}

fn is_minus_one(seconds: f64) -> bool {
    (seconds + 1.0).abs() < f64::EPSILON
}

/// The largest `max_batch_size` and `max_entries`.
const MAX_COUNT: usize = 1_000_000;
/// The longest time for and between retries.
const MAX_SECONDS: f64 = 1_000_000.0;
/// Bounds the memory of a queue whose server is down, since an entry may be as large as the headers of a request.
const DEFAULT_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Without a limit of its own, a queue whose server is down would open a connection for each entry.
const MAX_CONCURRENT_BATCHES: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        let settings = QueueConfig::default().validate("queue").unwrap();
        let (delay, minute) = (Duration::from_millis(10), Duration::from_secs(60));
        let expected = QueueSettings {
            max_batch_size: 1,
            max_coalescing_delay: Duration::from_secs(1),
            max_entries: 10_000,
            max_bytes: 64 << 20,
            max_retry_time: Some(minute),
            initial_retry_delay: delay,
            max_retry_delay: minute,
            concurrency: NonZeroUsize::MIN,
        };
        assert_eq!(settings, expected);
        let unlimited = QueueConfig { concurrency_limit: -1, max_retry_time: -1.0, ..QueueConfig::default() };
        let unlimited = unlimited.validate("queue").unwrap();
        assert_eq!((unlimited.concurrency.get(), unlimited.max_retry_time), (64, None));
    }

    #[test]
    fn values_out_of_range_are_reported_with_their_fields() {
        let invalid = QueueConfig {
            max_batch_size: 0,
            max_coalescing_delay: f64::NAN,
            max_entries: 1_000_001,
            max_bytes: Some(0),
            max_retry_time: -2.0,
            initial_retry_delay: 0.0,
            max_retry_delay: f64::INFINITY,
            concurrency_limit: 2,
        };
        let invalid = invalid.validate("queue").unwrap_err();
        let fields: Vec<&str> = invalid.iter().map(|diagnostic| &*diagnostic.field).collect();
        let expected = [
            "max_batch_size",
            "max_entries",
            "max_bytes",
            "max_coalescing_delay",
            "max_retry_time",
            "initial_retry_delay",
            "max_retry_delay",
            "concurrency_limit",
        ];
        assert_eq!(fields, expected.map(|field| format!("config.queue.{field}")));
    }
}
