//! The retries and timeouts of an upstream.

use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use crate::upstream::attempt_settings::AttemptSettings;
use crate::upstream::retry_budget::OverBudget;
use crate::upstream::retry_counters::{RetryCounters, RetryMetrics};

impl Upstream {
    /// Takes a place in the retry budget of the Service. The error says what the client gets if there is none.
    pub fn take_retry(&self) -> Result<(), OverBudget> {
        self.retries.take_retry()
    }

    /// The counters of its retries, which are among those of the process.
    pub(in crate::upstream) fn retry_counters(&self, metrics: &RetryMetrics) -> &RetryCounters {
        self.retry_counters.get_or_init(|| metrics.of(&self.key))
    }

    /// The retries and timeouts of requests whose rule has none of its own.
    #[inline]
    pub fn attempt_settings(&self) -> Option<Arc<AttemptSettings>> {
        self.attempts.load()
    }

    /// How long connecting to an endpoint may take, if the Service limits it.
    pub(in crate::upstream) fn connect_timeout(&self) -> Option<Duration> {
        self.attempts.connect_timeout()
    }

    /// How long a connection may be idle, if the Service limits it.
    #[inline]
    pub(in crate::upstream) fn idle_timeout(&self) -> Option<Duration> {
        self.attempts.idle_timeout()
    }
}
