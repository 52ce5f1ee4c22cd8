//! The rate at which a response is sent.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// The most bytes of a body that have been sent at any time: those without a limit, and so many for each second, of
/// which the first one begins with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseRate {
    pub bytes_per_second: NonZeroU64,
    /// How many bytes come before the limit.
    pub unlimited_bytes: u64,
}

impl ResponseRate {
    /// How many bytes may have been sent after this time.
    pub fn allowed(self, elapsed: Duration) -> u64 {
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_add(1000);
        let limited = u128::from(self.bytes_per_second.get()) * u128::from(milliseconds) / 1000;
        u64::try_from(limited).unwrap_or(u64::MAX).saturating_add(self.unlimited_bytes)
    }

    /// After which time so many bytes may have been sent.
    pub fn time_of(self, bytes: u64) -> Duration {
        let limited = u128::from(bytes.saturating_sub(self.unlimited_bytes));
        let milliseconds = (limited * 1000).div_ceil(u128::from(self.bytes_per_second.get())).saturating_sub(1000);
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for ResponseRate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResponseRate { bytes_per_second, unlimited_bytes } = self;
        write!(formatter, "response {bytes_per_second} bytes per second after {unlimited_bytes}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_allowed_when_their_time_has_come() {
        let rate = |bytes_per_second, unlimited_bytes| ResponseRate {
            bytes_per_second: NonZeroU64::new(bytes_per_second).unwrap(),
            unlimited_bytes,
        };
        for (rate, bytes, milliseconds) in [
            (rate(1000, 0), 1000, 0),
            (rate(1000, 0), 1001, 1),
            (rate(1000, 0), 2500, 1500),
            (rate(1000, 500), 1500, 0),
            (rate(1000, 500), 2500, 1000),
            (rate(3, 0), 4, 334),
            (rate(u64::MAX, u64::MAX), u64::MAX, 0),
        ] {
            let time = rate.time_of(bytes);
            assert_eq!(time, Duration::from_millis(milliseconds), "{rate}, {bytes}");
            assert!(rate.allowed(time) >= bytes, "{rate}, {bytes}");
        }
        assert_eq!(rate(1, 0).time_of(u64::MAX), Duration::from_millis(u64::MAX), "the longest time");
        assert_eq!(rate(1000, 7).allowed(Duration::MAX), u64::MAX);
    }
}
