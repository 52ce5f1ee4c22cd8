//! Counters of upstream connections. Each worker writes its own; scrapes read them.

use std::sync::Arc;

use super::retry_counters::{HedgeCounters, RetryMetrics};
use super::single_writer_counter::SingleWriterCounter;

/// The counters of one worker. Aligned, so that workers do not share the cache lines that they write.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct UpstreamCounters {
    pub connected: SingleWriterCounter,
    /// Connections that the endpoint refused.
    pub refused: SingleWriterCounter,
    /// Connections that timed out, including their TLS handshake.
    pub timed_out: SingleWriterCounter,
    /// Connections with any other error.
    pub failed: SingleWriterCounter,
    /// Connections with a failed TLS handshake.
    pub tls_failed: SingleWriterCounter,
    /// Connections not attempted because of the connection limit.
    pub limited: SingleWriterCounter,
    /// Connections not attempted because the upstream has its share of the limit.
    pub share_limited: SingleWriterCounter,
    /// Requests sent on a reused connection.
    pub reused: SingleWriterCounter,
    /// Requests sent again because the kept-alive connection turned out to be closed.
    pub replayed: SingleWriterCounter,
    /// Those of all workers.
    pub retries: Arc<RetryMetrics>,
    pub hedges: HedgeCounters,
    /// Closed connections; `connected - closed` are open.
    pub closed: SingleWriterCounter,
}
