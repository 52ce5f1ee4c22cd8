//! Counters of connections to upstreams. One per worker, written by it alone, read when metrics are scraped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Traffic {
    pub connected: Count,
    pub refused: Count,
    pub timed_out: Count,
    pub failed: Count,
    /// Connections over which no TLS could be had.
    pub handshake: Count,
    /// Connections that were not begun, since there were too many.
    pub no_room: Count,
    /// Requests sent on a connection that had served one before.
    pub reused: Count,
    /// Requests sent again because the kept-alive connection turned out to be gone.
    pub replayed: Count,
    /// Further tries that rules ask for.
    pub retried: Count,
    /// Connections that ended; open ones are `connected - closed`.
    pub closed: Count,
}

/// A number with one writer, so that adding needs no atomic read-modify-write.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
