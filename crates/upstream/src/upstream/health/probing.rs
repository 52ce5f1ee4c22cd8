//! When an endpoint is tried again that connections cannot be opened to: by probes, or else by requests.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The probes of one outage. Milliseconds of the upstream's clock.
#[derive(Debug, Default)]
pub(in crate::upstream) struct ProbeSeries {
    /// When the first probe was ordered.
    since: AtomicU64,
    /// The delay before the last probe, without its variation.
    delay: AtomicU32,
}

impl ProbeSeries {
    /// A connection has failed. `in_service`: how long the endpoint was in service before. An endpoint that fails soon
    /// after a probe has passed continues the former series, so that one to which connections can be opened, but that
    /// then does not work, does not get a request every quarter of a second.
    pub(super) fn begin(&self, now: u64, in_service: u64) {
        if in_service >= RESUME_MILLIS || self.delay.load(Relaxed) == 0 {
            self.since.store(now, Relaxed);
            self.delay.store(0, Relaxed);
        }
    }

    /// The delay before the next probe: 0.25, 0.5, 1, 1, … s for a minute, then doubling up to 15 s, each up to a tenth
    /// longer or shorter.
    pub(super) fn next_delay(&self, now: u64) -> u64 {
        let last = u64::from(self.delay.load(Relaxed));
        let is_young = now.saturating_sub(self.since.load(Relaxed)) < YOUNG_MILLIS;
        let limit = if is_young { YOUNG_DELAY_MILLIS } else { MAX_DELAY_MILLIS };
        let delay = if last == 0 { FIRST_DELAY_MILLIS } else { (2 * last).min(limit).max(last.min(limit)) };
        self.delay.store(u32::try_from(delay).unwrap_or(u32::MAX), Relaxed);
        let variation = delay / VARIATION_PART;
        delay - variation + fastrand::u64(0..=2 * variation)
    }

    /// The delay before a request may try an endpoint that is not probed: 0.5 s, doubling up to 15 s.
    pub(super) fn next_reconnect(&self) -> u64 {
        let last = u64::from(self.delay.load(Relaxed));
        let delay = if last == 0 { FIRST_RECONNECT_MILLIS } else { (2 * last).min(MAX_DELAY_MILLIS) };
        self.delay.store(u32::try_from(delay).unwrap_or(u32::MAX), Relaxed);
        delay
    }

    /// The last delay.
    pub(super) fn delay(&self) -> u64 {
        u64::from(self.delay.load(Relaxed))
    }

    /// The endpoint that is not probed has a connection.
    pub(super) fn reset(&self) {
        self.delay.store(0, Relaxed);
    }
}

const FIRST_DELAY_MILLIS: u64 = 250;
const FIRST_RECONNECT_MILLIS: u64 = 500;
/// The longest delay in the first minute, and later.
const YOUNG_DELAY_MILLIS: u64 = 1000;
const YOUNG_MILLIS: u64 = 60_000;
const MAX_DELAY_MILLIS: u64 = 15_000;
/// The part of a delay by which it varies.
const VARIATION_PART: u64 = 10;
/// Within this time after a recovery, a failure continues the former series.
const RESUME_MILLIS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(delay: u64, expected: u64) -> bool {
        (expected - expected / 10..=expected + expected / 10).contains(&delay)
    }

    #[test]
    fn probes_are_frequent_for_a_minute_and_rare_later() {
        fastrand::seed(1);
        let series = ProbeSeries::default();
        let mut now = 1;
        series.begin(now, u64::MAX);
        for expected in [250, 500, 1000, 1000, 1000] {
            let delay = series.next_delay(now);
            assert!(is_near(delay, expected), "{expected}: {delay}");
            now += delay;
        }
        while now < 60_001 {
            let delay = series.next_delay(now);
            assert!(is_near(delay, 1000), "{now}: {delay}");
            now += delay;
        }
        for expected in [2000, 4000, 8000, 15_000, 15_000] {
            let delay = series.next_delay(now);
            assert!(is_near(delay, expected), "{expected}: {delay}");
            now += delay;
        }
        series.begin(now, 9_999);
        assert!(is_near(series.next_delay(now), 15_000), "it fails again soon after it was in service");
        series.begin(now, 10_000);
        assert!(is_near(series.next_delay(now), 250), "a new outage");
    }
}
