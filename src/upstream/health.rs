//! What all workers know about an endpoint together: whether it can be connected to, and how busy it is. Atomics only.
//!
//! ```text
//!            connect failed                 its time has come, one request tries
//!   well ───────────────────▶ passed over ──────────────────────────────────────▶ probed
//!     ▲                           ▲                  connect failed: twice as long   │
//!     │                           └──────────────────────────────────────────────────┤
//!     └──────────────────────────────────────────────────────────────── connected ───┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

#[derive(Debug, Default)]
pub struct Health {
    /// Passed over until then, in milliseconds of its upstream's clock; 0 if it is well.
    until: AtomicU64,
    /// A request is finding out whether it is back.
    probed: AtomicBool,
    /// Failures since it was last well, but those that came at once count as one.
    failures: AtomicU32,
    /// Requests in progress.
    requests: AtomicU32,
}

impl Health {
    pub fn is_well(&self) -> bool {
        self.until.load(Relaxed) == 0
    }

    /// Whether this request is the one that finds out if it is well again. What is well needs none.
    pub(super) fn claim_probe(&self, now: u64) -> bool {
        let until = self.until.load(Relaxed);
        // Who takes it moves the time on, so that there is one of them, and another if nothing is heard of it.
        let claimed =
            until != 0 && until <= now && self.until.compare_exchange(until, now + PROBE, Relaxed, Relaxed).is_ok();
        if claimed {
            self.probed.store(true, Relaxed);
        }
        claimed
    }

    pub(super) fn failed(&self, now: u64) {
        // Connections that were begun before it was known tell nothing new.
        if self.until.load(Relaxed) > now && !self.probed.swap(false, Relaxed) {
            return;
        }
        let failures = self.failures.fetch_add(1, Relaxed).min(MOST_DOUBLINGS);
        self.until.store(now + (FIRST << failures).min(LONGEST), Relaxed);
    }

    /// Whoever was to find out whether it is well has not, for a reason of its own: the next one may.
    pub(super) fn undecided(&self, now: u64) {
        let until = self.until.load(Relaxed);
        if until != 0 && self.probed.swap(false, Relaxed) {
            // Not if somebody else has found out meanwhile.
            self.until.compare_exchange(until, now, Relaxed, Relaxed).ok();
        }
    }

    pub(super) fn succeeded(&self) {
        self.probed.store(false, Relaxed);
        self.failures.store(0, Relaxed);
        self.until.store(0, Relaxed);
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }
}

/// A request in progress, counted until it is dropped.
#[derive(Debug)]
pub struct Load(Arc<Health>);

impl Load {
    pub(super) fn new(health: Arc<Health>) -> Self {
        health.requests.fetch_add(1, Relaxed);
        Load(health)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// The clock of an upstream, as numbers that fit into atomics. It never says 0.
#[derive(Debug)]
pub(super) struct Instants(Instant);

impl Default for Instants {
    fn default() -> Self {
        Instants(Instant::now())
    }
}

impl Instants {
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1)
    }
}

/// In milliseconds: how long an endpoint is passed over the first time, and at most.
const FIRST: u64 = 500;
const LONGEST: u64 = 15_000;
const MOST_DOUBLINGS: u32 = 5;
/// How long one request has to find out. Longer than connecting may take.
const PROBE: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_over_for_twice_as_long_each_time_up_to_a_limit() {
        let health = Health::default();
        assert!(health.is_well() && !health.claim_probe(1));
        let mut now = 1;
        for expected in [500, 1000, 2000, 4000, 8000, 15_000, 15_000] {
            health.failed(now);
            health.failed(now + 1);
            assert!(!health.is_well() && !health.claim_probe(now + expected - 1), "{expected}");
            now += expected;
            assert!(health.claim_probe(now), "{expected}");
            assert!(!health.claim_probe(now), "one request is enough");
        }
        health.succeeded();
        assert!(health.is_well());
        health.failed(now);
        assert!(health.claim_probe(now + 500), "it begins anew");
    }

    #[test]
    fn a_probe_that_is_never_heard_of_is_followed_by_another() {
        let health = Health::default();
        health.failed(1);
        assert!(health.claim_probe(501));
        assert!(!health.claim_probe(501 + PROBE - 1));
        assert!(health.claim_probe(501 + PROBE));
    }

    #[test]
    fn requests_count_while_they_last() {
        let health = Arc::new(Health::default());
        let (first, second) = (Load::new(Arc::clone(&health)), Load::new(Arc::clone(&health)));
        assert_eq!(health.requests(), 2);
        drop(first);
        drop(second);
        assert_eq!(health.requests(), 0);
    }
}
