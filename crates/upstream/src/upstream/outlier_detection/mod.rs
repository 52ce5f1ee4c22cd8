//! Outlier detection: which endpoints of a Service port are ejected, and when they return.
//!
//! ```text
//!   outcomes of attempts ─▶ record ─▶ counts of the endpoint ─▶ eject ─▶ log, counters, transitions
//!   rates of an interval ─▶ sweep ───────────────────────────────┘ at most `max_ejection_percent`
//!   probes, active checks ─▶ record_connected, record_check
//! ```
//!
//! All upstreams with the same endpoints share one detector, such as one with other TLS settings and the one that it
//! replaces: health belongs to the endpoint, and no change of the configuration resets it.

mod changes;
mod members;
mod quota;
mod record;
mod report;
mod sweep;
#[cfg(test)]
mod tests;
mod transitions;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
    fence,
};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::endpoint_state::EndpointState;
use super::health::{EjectionCause, UpstreamClock};
use super::outcome::{Outcome, OutcomeClass};
use super::settings::HealthSettings;
use members::Members;
pub use report::{EndpointCounters, EndpointHealthReport};
use transitions::TransitionLog;
pub use transitions::{HealthState, HealthTransition};

/// The detector of one set of endpoints.
#[derive(Debug, Default)]
pub(super) struct OutlierDetection {
    pub(super) clock: UpstreamClock,
    /// What requires attention to outcomes that are no failures: bits `DEGRADED` and others.
    attention: AtomicU8,
    settings: ArcSwap<HealthSettings>,
    is_dry_run: AtomicBool,
    /// Whether endpoints that cannot be connected are probed apart from requests.
    is_probed: AtomicBool,
    /// The number of marks of idle connections.
    marks: AtomicU32,
    /// The endpoints that may get requests, sorted by address.
    current: ArcSwap<Vec<Arc<EndpointState>>>,
    /// All endpoints whose state is kept. Requests take this lock only for transitions.
    members: Mutex<Members>,
    log: Mutex<TransitionLog>,
    /// Ejections by cause.
    ejections: [AtomicU64; EjectionCause::ALL.len()],
    /// When it was last looked for endpoints with counted failures.
    looked_at: AtomicU64,
    /// Incremented after each change of the health of an endpoint, and of the endpoints.
    version: AtomicU32,
}

/// An endpoint that something was observed of.
#[derive(Clone, Copy)]
pub(super) struct ObservedEndpoint<'o> {
    /// The upstream, as logs name it.
    pub(super) upstream: &'o dyn fmt::Display,
    pub(super) address: SocketAddr,
    pub(super) state: &'o EndpointState,
    /// What happened, for the log.
    pub(super) error: Option<&'o dyn fmt::Display>,
}

/// What has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum FollowUp {
    None,
    /// The endpoint is to be probed.
    Probe,
}

/// An endpoint is ejected, half-open or suspect.
const DEGRADED: u8 = 1;
/// An endpoint has counted failures.
const HAS_FAILURES: u8 = 2;
/// Statuses of responses count.
const COUNTS_STATUSES: u8 = 4;
/// Rates of failures are compared, so that every request counts.
const COUNTS_RATES: u8 = 8;

impl OutlierDetection {
    /// Whether this outcome may change anything. Costs one load if all endpoints are healthy.
    #[inline]
    pub(super) fn concerns(&self, outcome: &Outcome) -> bool {
        let attention = self.attention.load(Relaxed);
        match outcome.class {
            OutcomeClass::Responded => attention & !COUNTS_STATUSES != 0 || attention != 0 && outcome.is_error_status(),
            OutcomeClass::Connected
            | OutcomeClass::Completed
            | OutcomeClass::Inconclusive
            | OutcomeClass::Abandoned
            | OutcomeClass::NotProcessed => attention & (DEGRADED | HAS_FAILURES) != 0,
            OutcomeClass::ConnectFailed
            | OutcomeClass::Stale
            | OutcomeClass::NoResponse
            | OutcomeClass::TimedOut
            | OutcomeClass::Failed
            | OutcomeClass::Truncated => true,
        }
    }

    /// Whether no response is counted, and all endpoints are healthy.
    #[inline]
    pub(super) fn ignores_responses(&self) -> bool {
        self.attention.load(Relaxed) == 0
    }

    /// Whether any endpoint is not simply available.
    #[inline]
    pub(super) fn is_degraded(&self) -> bool {
        self.attention.load(Relaxed) & DEGRADED != 0
    }

    /// Whether statuses of gRPC calls count, which arrive with trailers.
    #[inline]
    pub(super) fn counts_statuses(&self) -> bool {
        self.attention.load(Relaxed) & (COUNTS_STATUSES | COUNTS_RATES) != 0
    }

    /// Whether the end of a response is to be reported.
    #[inline]
    pub(super) fn awaits_completion(&self) -> bool {
        self.attention.load(Relaxed) & (DEGRADED | HAS_FAILURES) != 0
    }

    /// The number of marks so far. Connections that became idle before the mark of their endpoint are not used.
    #[inline]
    pub(super) fn marks(&self) -> u32 {
        self.marks.load(Relaxed)
    }

    /// Ejections by cause so far, those without effect included.
    pub(super) fn ejections(&self) -> [(EjectionCause, u64); EjectionCause::ALL.len()] {
        EjectionCause::ALL.map(|cause| (cause, self.ejections[cause as usize].load(Relaxed)))
    }

    /// The time that endpoints have for a response, unless the owner of the Service says more about it.
    pub(super) fn timeout_after(&self) -> Duration {
        self.settings.load().passive.timeout_after
    }

    pub(super) fn is_probed(&self) -> bool {
        self.is_probed.load(Relaxed)
    }

    /// From now on, endpoints that cannot be connected are probed.
    pub(super) fn set_probed(&self) {
        self.is_probed.store(true, Relaxed);
    }

    fn is_dry_run(&self) -> bool {
        self.is_dry_run.load(Relaxed)
    }

    /// Differs after each change of the health of an endpoint, and of the endpoints.
    #[inline]
    pub(super) fn version(&self) -> u32 {
        self.version.load(Acquire)
    }

    /// What was computed from the health of the endpoints is outdated.
    pub(super) fn set_changed(&self) {
        self.version.fetch_add(1, AcqRel);
    }

    /// Recomputes whether any endpoint is not available, and again if one has changed meanwhile. The fences make sure
    /// that the last of several concurrent updates sees the changes of all.
    fn update_degraded(&self) {
        self.set_changed();
        let is_any_degraded = || {
            fence(SeqCst);
            self.current.load().iter().any(|state| !state.health.is_plain())
        };
        loop {
            let is_degraded = is_any_degraded();
            self.set_attention(DEGRADED, is_degraded);
            if is_any_degraded() == is_degraded {
                return;
            }
        }
    }

    /// An endpoint has a counted failure.
    fn set_has_failures(&self) {
        fence(SeqCst);
        self.set_attention(HAS_FAILURES, true);
    }

    /// Outcomes need less attention if no endpoint has counted failures any more, which is looked for now and then.
    /// `state`: that of an endpoint with a success, which may have counted failures of other kinds.
    fn forget_failures(&self, state: &EndpointState, now: u64) {
        if self.attention.load(Relaxed) & HAS_FAILURES == 0 || state.health.has_failures() {
            return;
        }
        let looked_at = self.looked_at.load(Relaxed);
        let is_due = now.saturating_sub(looked_at) >= LOOK_MILLIS;
        if !is_due || self.looked_at.compare_exchange(looked_at, now, Relaxed, Relaxed).is_err() {
            return;
        }
        self.set_attention(HAS_FAILURES, false);
        fence(SeqCst);
        if self.current.load().iter().any(|state| state.health.has_failures()) {
            self.set_attention(HAS_FAILURES, true);
        }
    }

    fn set_attention(&self, bits: u8, is_set: bool) {
        if is_set {
            self.attention.fetch_or(bits, SeqCst);
        } else {
            self.attention.fetch_and(!bits, SeqCst);
        }
    }
}

/// The shortest time between two looks at all endpoints.
const LOOK_MILLIS: u64 = 100;
