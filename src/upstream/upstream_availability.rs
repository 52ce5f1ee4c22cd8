//! How many endpoints of an upstream are available. Computed when the health of one changes, since each request reads
//! it.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::load_balancing::EndpointSet;
use super::settings::WhenUnhealthy;

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
    pub(super) fn of(set: &EndpointSet) -> Self {
        let (mut total, mut available, mut connectable) = (0, 0, 0);
        for endpoint in set.iter().filter(|endpoint| endpoint.weight > 0) {
            total += 1;
            available += u64::from(endpoint.is_available());
            connectable += u64::from(!endpoint.is_connect_ejected());
        }
        let settings = set.settings();
        let (part, threshold) = (available * 100, total * u64::from(settings.panic_threshold_percent));
        let is_panicking = match settings.when_unhealthy {
            WhenUnhealthy::UseAll => part < threshold,
            // As Kong's `threshold`.
            WhenUnhealthy::Fail => threshold > 0 && part <= threshold,
        };
        match (available, connectable) {
            _ if available == total => UpstreamAvailability::All,
            (0, 0) => UpstreamAvailability::NoneConnectable,
            (0, _) => UpstreamAvailability::None,
            _ if is_panicking => UpstreamAvailability::Panic,
            _ => UpstreamAvailability::Some,
        }
    }
}

/// The availability of the endpoints of one upstream.
#[derive(Debug)]
pub(super) struct CurrentAvailability(AtomicU8);

impl Default for CurrentAvailability {
    fn default() -> Self {
        CurrentAvailability(AtomicU8::new(UpstreamAvailability::All as u8))
    }
}

impl CurrentAvailability {
    pub(super) fn load(&self) -> UpstreamAvailability {
        const ALL: [UpstreamAvailability; 5] = [
            UpstreamAvailability::All,
            UpstreamAvailability::Some,
            UpstreamAvailability::Panic,
            UpstreamAvailability::None,
            UpstreamAvailability::NoneConnectable,
        ];
        ALL[usize::from(self.0.load(Relaxed))]
    }

    pub(super) fn store(&self, availability: UpstreamAvailability) {
        self.0.store(availability as u8, Relaxed);
    }
}
