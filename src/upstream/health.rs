//! Health of an endpoint, shared by all workers. Atomics only.
//!
//! Checks are passive: only failed connections eject an endpoint, and the probe below is an ordinary request. Settings
//! of active checks are reported as not supported, where KongUpstreamPolicies are read.
//!
//! ```text
//!            connect failed                 ejection expired, one request probes
//!  healthy ───────────────────▶ ejected ────────────────────────────────────────▶ probed
//!     ▲                           ▲                  connect failed: twice as long   │
//!     │                           └──────────────────────────────────────────────────┤
//!     └──────────────────────────────────────────────────────────────── connected ───┘
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// The health of one endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointHealth {
    /// The end of the ejection in milliseconds of the upstream's clock; 0 if healthy.
    ejected_until: AtomicU64,
    /// A request is probing the endpoint.
    is_probing: AtomicBool,
    /// Failures since the endpoint was last healthy; concurrent ones count once.
    failures: AtomicU32,
    /// The active check fails.
    fails_check: AtomicBool,
}

impl EndpointHealth {
    pub(super) fn is_healthy(&self) -> bool {
        self.ejected_until.load(Relaxed) == 0 && !self.fails_check.load(Relaxed)
    }

    pub(super) fn record_check(&self, has_passed: bool) -> bool {
        self.fails_check.swap(!has_passed, Relaxed) == has_passed
    }

    /// Makes the calling request the probe of the endpoint; true if the ejection has expired and no other request
    /// probes. Healthy endpoints need no probe. `probe_timeout` is how long the probe may take, in milliseconds.
    pub(super) fn claim_probe(&self, now: u64, probe_timeout: u64) -> bool {
        let until = self.ejected_until.load(Relaxed);
        // Claiming extends the ejection, so there is one probe at a time. If its result is never reported, another
        // probe follows.
        let claimed = until != 0
            && until <= now
            && self.ejected_until.compare_exchange(until, now + probe_timeout, Relaxed, Relaxed).is_ok();
        if claimed {
            self.is_probing.store(true, Relaxed);
        }
        claimed
    }

    /// Records a failed connection: ejects the endpoint, or extends its ejection after a failed probe.
    pub(super) fn record_failure(&self, now: u64) {
        // Connections started before the ejection give no new information.
        if self.ejected_until.load(Relaxed) > now && !self.is_probing.swap(false, Relaxed) {
            return;
        }
        let failures = self.failures.fetch_add(1, Relaxed);
        self.ejected_until.store(now + ejection_millis(failures), Relaxed);
    }

    /// Records a failed connection whose reason is unrelated to the endpoint: if it was a probe, the next request may
    /// probe.
    pub(super) fn record_inconclusive(&self, now: u64) {
        let until = self.ejected_until.load(Relaxed);
        if until != 0 && self.is_probing.swap(false, Relaxed) {
            // The exchange fails if another request has changed the state meanwhile, which then stays.
            self.ejected_until.compare_exchange(until, now, Relaxed, Relaxed).ok();
        }
    }

    /// Records a connection that was given up without a result, since the client or the rule did not wait longer. If it
    /// was a probe, the next one follows as after a failure.
    pub(super) fn record_abandoned(&self, now: u64) {
        let until = self.ejected_until.load(Relaxed);
        if until != 0 && self.is_probing.swap(false, Relaxed) {
            let failures = self.failures.load(Relaxed).saturating_sub(1);
            self.ejected_until.compare_exchange(until, now + ejection_millis(failures), Relaxed, Relaxed).ok();
        }
    }

    pub(super) fn record_success(&self) {
        self.is_probing.store(false, Relaxed);
        self.failures.store(0, Relaxed);
        self.ejected_until.store(0, Relaxed);
    }
}

/// The clock of an upstream, as integers that fit into atomics. It never returns 0.
#[derive(Debug)]
pub(super) struct UpstreamClock(Instant);

impl Default for UpstreamClock {
    fn default() -> Self {
        UpstreamClock(Instant::now())
    }
}

impl UpstreamClock {
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1)
    }
}

/// How long an endpoint is ejected after this number of earlier failures.
fn ejection_millis(failures: u32) -> u64 {
    (FIRST_EJECTION_MILLIS << failures.min(MAX_DOUBLINGS)).min(MAX_EJECTION_MILLIS)
}

/// The first and the longest ejection.
const FIRST_EJECTION_MILLIS: u64 = 500;
const MAX_EJECTION_MILLIS: u64 = 15_000;
/// How often the ejection time doubles at most.
const MAX_DOUBLINGS: u32 = 5;
/// How long a probe may take in addition to the connect timeout: the time to wait for a socket.
pub(super) const PROBE_SOCKET_MILLIS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE_TIMEOUT: u64 = 10_000;

    #[test]
    fn ejection_time_doubles_up_to_a_limit() {
        let health = EndpointHealth::default();
        assert!(health.is_healthy() && !health.claim_probe(1, PROBE_TIMEOUT));
        let mut now = 1;
        for expected in [500, 1000, 2000, 4000, 8000, 15_000, 15_000] {
            health.record_failure(now);
            health.record_failure(now + 1);
            assert!(!health.is_healthy() && !health.claim_probe(now + expected - 1, PROBE_TIMEOUT), "{expected}");
            now += expected;
            assert!(health.claim_probe(now, PROBE_TIMEOUT), "{expected}");
            assert!(!health.claim_probe(now, PROBE_TIMEOUT), "there is one probe at a time");
        }
        health.record_success();
        assert!(health.is_healthy());
        health.record_failure(now);
        assert!(health.claim_probe(now + 500, PROBE_TIMEOUT), "the ejection time starts again at its minimum");
    }

    #[test]
    fn lost_probe_is_followed_by_another() {
        let health = EndpointHealth::default();
        health.record_failure(1);
        assert!(health.claim_probe(501, PROBE_TIMEOUT));
        assert!(!health.claim_probe(501 + PROBE_TIMEOUT - 1, PROBE_TIMEOUT));
        assert!(health.claim_probe(501 + PROBE_TIMEOUT, PROBE_TIMEOUT));
    }

    #[test]
    fn abandoned_probe_is_followed_by_another_after_the_ejection_time() {
        let health = EndpointHealth::default();
        health.record_abandoned(1);
        assert!(health.is_healthy());
        health.record_failure(1);
        health.record_abandoned(400);
        assert!(health.claim_probe(501, PROBE_TIMEOUT), "the abandoned connection was no probe");
        health.record_abandoned(700);
        assert!(!health.claim_probe(1199, PROBE_TIMEOUT) && health.claim_probe(1200, PROBE_TIMEOUT));
        health.record_failure(1300);
        assert!(!health.claim_probe(2299, PROBE_TIMEOUT) && health.claim_probe(2300, PROBE_TIMEOUT));
    }
}
