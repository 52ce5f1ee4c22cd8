//! Counters of upstream connections. Each worker writes its own; scrapes read them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// Requests sent again because a rule configures retries.
    pub retried: SingleWriterCounter,
    /// Requests not sent again because the retry budget of the Service was used.
    pub retries_refused: SingleWriterCounter,
    /// Closed connections; `connected - closed` are open.
    pub closed: SingleWriterCounter,
}

/// A counter with a single writer, so that adding needs no atomic read-modify-write.
#[derive(Debug, Default)]
pub struct SingleWriterCounter(AtomicU64);

impl SingleWriterCounter {
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
