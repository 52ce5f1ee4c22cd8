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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    /// The time of the runtime stands still here, and that of the system does not.
    #[tokio::test(start_paused = true)]
    async fn time_of_the_system_changes_nothing() {
        let clock = UpstreamClock::default();
        let started = std::time::SystemTime::now();
        while started.elapsed().is_ok_and(|passed| passed < Duration::from_millis(5)) {
            std::hint::spin_loop();
        }
        assert_eq!(clock.now(), 1);
        advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now(), 3001);
    }
}
