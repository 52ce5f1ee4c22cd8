//! How many endpoints of an upstream are available. Computed once after each change of the health of one, since each
//! request reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::health::Availability;
use super::load_balancing::EndpointSet;

/// How many endpoints are available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum UpstreamAvailability {
    All,
    /// Enough.
    Some,
    /// Some, but fewer than the panic threshold.
    Panic,
    /// None, and connections can be opened to some.
    None,
    /// None, and connections can be opened to none.
    NoneConnectable,
}

impl UpstreamAvailability {
    /// The availability of endpoints whose weight is positive.
    pub(super) fn of(set: &EndpointSet, now: u64) -> Self {
        let (mut total, mut available, mut suspect, mut connectable) = (0, 0, 0, 0);
        for endpoint in set.iter().filter(|endpoint| endpoint.weight > 0) {
            total += 1;
            available += u64::from(endpoint.is_available());
            suspect += u64::from(endpoint.state.health.availability(now) == Availability::Suspect);
            connectable += u64::from(!endpoint.is_connect_ejected());
        }
        let settings = set.settings();
        let (part, threshold) = (available * 100, total * u64::from(settings.panic_threshold_percent));
        let is_threshold = settings.must_exceed_threshold && threshold > 0 && part == threshold;
        match (available, connectable) {
            _ if available == total && suspect == 0 => UpstreamAvailability::All,
            (0, 0) => UpstreamAvailability::NoneConnectable,
            (0, _) => UpstreamAvailability::None,
            _ if available < total && (part < threshold || is_threshold) => UpstreamAvailability::Panic,
            _ => UpstreamAvailability::Some,
        }
    }
}

/// What was last seen of the endpoints of one upstream.
#[derive(Debug)]
pub(super) struct CurrentAvailability {
    /// The version of the health of the endpoints in the high half, and the availability in the low half.
    seen: AtomicU64,
    /// When the last slow start ends, in milliseconds of the upstream's clock; 0 if there was none.
    slow_starts_until: AtomicU64,
}

impl Default for CurrentAvailability {
    fn default() -> Self {
        CurrentAvailability { seen: AtomicU64::new(u64::MAX), slow_starts_until: AtomicU64::new(0) }
    }
}

impl CurrentAvailability {
    /// What was seen of this version; `None` if it was another one.
    pub(super) fn load(&self, version: u32) -> Option<UpstreamAvailability> {
        const ALL: [UpstreamAvailability; 5] = [
            UpstreamAvailability::All,
            UpstreamAvailability::Some,
            UpstreamAvailability::Panic,
            UpstreamAvailability::None,
            UpstreamAvailability::NoneConnectable,
        ];
        let seen = self.seen.load(Relaxed);
        if seen >> u32::BITS != u64::from(version) {
            return None;
        }
        ALL.get((seen & u64::from(u32::MAX)) as usize).copied()
    }

    pub(super) fn store(&self, version: u32, availability: UpstreamAvailability) {
        self.seen.store(u64::from(version) << u32::BITS | availability as u64, Relaxed);
    }

    pub(super) fn slow_starts_until(&self) -> u64 {
        self.slow_starts_until.load(Relaxed)
    }

    pub(super) fn set_slow_starts_until(&self, until: u64) {
        self.slow_starts_until.store(until, Relaxed);
    }
}
