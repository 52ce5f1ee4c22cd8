//! How long endpoints are ejected.

use std::time::Duration;

/// How long an endpoint is ejected for the `ejections`th time, in milliseconds: a multiple of `base` up to `max`, with
/// up to a tenth more, so that the endpoints that were ejected together do not return together.
pub(in crate::upstream) fn ejection_millis(base: Duration, max: Duration, ejections: u32) -> u64 {
    let time = millis(base.saturating_mul(ejections.max(1)).min(max));
    time + fastrand::u64(0..=time / JITTER_PART)
}

/// Bounded, so that sums of times do not overflow.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(MAX_MILLIS)
}

/// The part of an ejection time that is added at most.
const JITTER_PART: u64 = 10;
/// A year.
const MAX_MILLIS: u64 = 365 * 24 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ejection times that grow without end keep a service small for hours after an outage (envoy#6016).
    #[test]
    fn ejection_time_grows_up_to_its_limit() {
        fastrand::seed(1);
        let (base, max) = (Duration::from_secs(30), Duration::from_secs(300));
        for (ejections, expected) in [(1, 30_000), (2, 60_000), (9, 270_000), (10, 300_000), (u32::MAX, 300_000)] {
            for _ in 0..100 {
                let time = ejection_millis(base, max, ejections);
                assert!((expected..=expected + expected / 10).contains(&time), "{ejections}: {time}");
            }
        }
        assert!(ejection_millis(Duration::MAX, Duration::MAX, u32::MAX) < u64::MAX / 1000);
    }
}
