//! The clock of an upstream, as integers that fit into atomics.

use tokio::time::Instant;

/// Milliseconds since the upstream was created. Monotonic: a step of the system's clock ends no ejection.
#[derive(Debug)]
pub(in crate::upstream) struct UpstreamClock(Instant);

impl Default for UpstreamClock {
    fn default() -> Self {
        UpstreamClock(Instant::now())
    }
}

impl UpstreamClock {
    /// Never 0.
    pub(in crate::upstream) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1)
    }
}
