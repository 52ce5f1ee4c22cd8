//! A limit: how many requests in which window, and what of it is used at a time.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use super::period::Period;

/// A limit of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// The most requests in a window, or the most at once for a bucket.
    pub max: u64,
    pub kind: LimitKind,
    /// The part of keys at the server that distinguishes the limits of one identifier.
    label: Box<str>,
}

/// How the requests of a limit are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// The requests since the window began. Windows are aligned to the UTC clock and calendar.
    Fixed(WindowLength),
    /// The requests of the current window, and the share of those of the window before that the window of this length
    /// before now still overlaps, as if they were evenly spread:
    /// `current + floor(previous * rest / length)`.
    Sliding { seconds: u64 },
    /// A bucket from which each request takes a token, and which gets one in each interval: the generic cell rate
    /// algorithm of ITU-T I.371. Its count is the time in microseconds at which the bucket is full again.
    Bucket { interval_us: u64 },
}

/// The length of fixed windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowLength {
    Seconds(u64),
    Calendar(Period),
}

/// A limit at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveLimit {
    pub max: u64,
    pub kind: LimitKind,
    /// The consecutive number of the window; 0 for a bucket.
    pub number: u64,
    /// Until the end of the window.
    pub rest_ms: u64,
    pub length_ms: u64,
    /// Since 1970.
    pub now_us: u64,
}

/// The counts of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitUse {
    pub current: u64,
    /// Of the window before. 0 unless the limit is sliding.
    pub previous: u64,
}

/// Whether a request was admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitDecision {
    pub is_admitted: bool,
    /// The counts before this request, in the order of the limits.
    pub uses: SmallVec<[LimitUse; 4]>,
}

impl LimitRule {
    pub fn new(max: u64, kind: LimitKind) -> Self {
        let label = match kind {
            LimitKind::Fixed(WindowLength::Calendar(period)) => period.name().to_owned(),
            LimitKind::Fixed(WindowLength::Seconds(seconds)) => format!("{seconds}f"),
            LimitKind::Sliding { seconds } => format!("{seconds}s"),
            LimitKind::Bucket { interval_us } => format!("{interval_us}b"),
        };
        LimitRule { max, kind, label: label.into() }
    }

    /// The limit of something that has this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let label = format!("{name}.{}", self.label).into();
        LimitRule { label, ..self }
    }

    /// Distinguishes the limits of one identifier.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What stays the same when the limit is changed: what it is for, and its window. A bucket stays the same with
    /// another interval, too, since its interval is the rate that it permits.
    pub fn identity(&self) -> Cow<'_, str> {
        let LimitKind::Bucket { interval_us } = self.kind else { return Cow::Borrowed(&self.label) };
        let name = self.label.strip_suffix(&*format!("{interval_us}b")).unwrap_or_default();
        Cow::Owned(format!("{name}bucket"))
    }

    pub fn at(&self, now: SystemTime) -> ActiveLimit {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let (second, now_ms) = (now.as_secs(), now_us / 1000);
        let (number, start, end) = match self.kind {
            LimitKind::Fixed(WindowLength::Calendar(period)) => {
                let window = period.cached_window(second);
                (window.number, window.start, window.end)
            }
            LimitKind::Fixed(WindowLength::Seconds(seconds)) | LimitKind::Sliding { seconds } => {
                let number = second / seconds;
                (number, number * seconds, (number + 1) * seconds)
            }
            LimitKind::Bucket { .. } => (0, second, second),
        };
        let rest_ms = end.saturating_mul(1000).saturating_sub(now_ms);
        let length_ms = end.saturating_sub(start).saturating_mul(1000);
        ActiveLimit { max: self.max, kind: self.kind, number, rest_ms, length_ms, now_us }
    }
}

impl ActiveLimit {
    /// The requests that count now.
    pub fn used(&self, counts: LimitUse) -> u64 {
        match self.kind {
            LimitKind::Fixed(_) => counts.current,
            LimitKind::Sliding { .. } => {
                let weighted = u128::from(counts.previous) * u128::from(self.rest_ms) / u128::from(self.length_ms);
                counts.current.saturating_add(u64::try_from(weighted).unwrap_or(u64::MAX))
            }
            LimitKind::Bucket { interval_us } => self.until_full_us(counts.current, interval_us).div_ceil(interval_us),
        }
    }

    /// Until a bucket is full again. One that would be full later than an empty one is full: the clock was set back.
    fn until_full_us(&self, full_at: u64, interval_us: u64) -> u64 {
        let longest = self.max.saturating_mul(interval_us).saturating_add(CLOCK_DIFFERENCE_US);
        Some(full_at.saturating_sub(self.now_us)).filter(|rest| *rest <= longest).unwrap_or_default()
    }

    /// The counts of a bucket that was counted with another interval or limit before: as many tokens are missing, but
    /// not more than it has now.
    pub(super) fn of_changed_bucket(&self, counts: LimitUse, interval_before: u64, max_before: u64) -> LimitUse {
        let LimitKind::Bucket { interval_us } = self.kind else { return counts };
        let before = ActiveLimit { max: max_before, ..*self };
        let rest = u128::from(before.until_full_us(counts.current, interval_before));
        let rest = (rest * u128::from(interval_us)).div_ceil(u128::from(interval_before.max(1)));
        let longest = self.max.saturating_mul(interval_us);
        let rest = u64::try_from(rest).unwrap_or(u64::MAX).min(longest);
        LimitUse { current: self.now_us.saturating_add(rest), ..counts }
    }

    pub fn admits(&self, counts: LimitUse, amount: u64) -> bool {
        self.used(counts).saturating_add(amount) <= self.max
    }

    /// The requests that may follow. `counts` are those before a request, which took this amount.
    pub fn remaining(&self, counts: LimitUse, amount: u64) -> u64 {
        self.max.saturating_sub(self.used(counts).saturating_add(amount))
    }

    /// The counts after a request.
    pub fn after(&self, counts: LimitUse, amount: u64) -> LimitUse {
        let current = match self.kind {
            LimitKind::Fixed(_) | LimitKind::Sliding { .. } => counts.current.saturating_add(amount),
            LimitKind::Bucket { interval_us } => {
                let rest = self.until_full_us(counts.current, interval_us);
                self.now_us.saturating_add(rest).saturating_add(amount.saturating_mul(interval_us))
            }
        };
        LimitUse { current, ..counts }
    }

    /// Until a request is admitted, if no other one comes before. 0 if it is admitted now.
    pub fn wait_ms(&self, counts: LimitUse) -> u64 {
        if self.admits(counts, 1) {
            return 0;
        }
        let wait = match self.kind {
            LimitKind::Fixed(_) => u128::from(self.rest_ms),
            LimitKind::Sliding { .. } => {
                let (max, length) = (u128::from(self.max), u128::from(self.length_ms));
                let (current, previous) = (u128::from(counts.current), u128::from(counts.previous));
                let rest = u128::from(self.rest_ms);
                // The rest of a window at which the earlier requests leave room for one more.
                let admitting_rest = |free: u128, earlier: u128| (free * length).saturating_sub(1) / earlier.max(1);
                if current < max {
                    rest.saturating_sub(admitting_rest(max - current, previous))
                } else {
                    // In the next window, the requests of this one are the earlier ones.
                    rest + length.saturating_sub(admitting_rest(max, current))
                }
            }
            LimitKind::Bucket { interval_us } => {
                let ahead = self.until_full_us(counts.current, interval_us);
                let allowed = self.max.saturating_sub(1).saturating_mul(interval_us);
                u128::from(ahead.saturating_sub(allowed).div_ceil(1000))
            }
        };
        u64::try_from(wait).unwrap_or(u64::MAX)
    }

    /// Until a request that takes this amount is admitted. An amount above the limit is never admitted: then this is
    /// the time until nothing is counted.
    pub(crate) fn wait_ms_for(&self, counts: LimitUse, amount: u64) -> u64 {
        let missing = amount.saturating_sub(1).min(self.max.saturating_sub(1));
        ActiveLimit { max: self.max - missing, ..*self }.wait_ms(counts)
    }

    /// Until the counts have no effect any more, in seconds.
    pub fn expires_in(&self) -> u64 {
        match self.kind {
            LimitKind::Fixed(_) => self.rest_ms.div_ceil(1000),
            LimitKind::Sliding { .. } => (self.rest_ms + self.length_ms).div_ceil(1000),
            LimitKind::Bucket { interval_us } => self.max.saturating_mul(interval_us).div_ceil(1_000_000),
        }
    }
}

/// By how much the clocks of replicas may differ that count in the same bucket: a minute.
pub(super) const CLOCK_DIFFERENCE_US: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(rule: &LimitRule, ms: u64) -> ActiveLimit {
        rule.at(UNIX_EPOCH + Duration::from_millis(ms))
    }

    #[test]
    fn sliding_windows_count_the_overlapping_share_of_the_window_before() {
        let rule = LimitRule::new(10, LimitKind::Sliding { seconds: 60 });
        let counts = LimitUse { current: 3, previous: 10 };
        for (ms, used) in [(600_000, 13), (615_000, 10), (630_000, 8), (659_999, 3)] {
            assert_eq!(at(&rule, ms).used(counts), used, "at {ms}");
        }
        assert!(!at(&rule, 615_000).admits(counts, 1));
        assert_eq!(at(&rule, 630_000).remaining(counts, 1), 1);
    }

    #[test]
    fn requests_are_admitted_after_the_wait_and_not_before() {
        let kinds = [
            LimitKind::Sliding { seconds: 60 },
            LimitKind::Sliding { seconds: 7 },
            LimitKind::Fixed(WindowLength::Seconds(60)),
            LimitKind::Fixed(WindowLength::Calendar(Period::Day)),
            LimitKind::Bucket { interval_us: 333_333 },
        ];
        for kind in kinds {
            for (max, current, previous) in [(10, 10, 0), (10, 25, 3), (10, 3, 10), (1, 1, 1), (5, 0, 900)] {
                let rule = LimitRule::new(max, kind);
                let now_ms = 86_400_000 * 3 + 1_234;
                let (current, previous) = match kind {
                    LimitKind::Bucket { interval_us } => (now_ms * 1000 + current * interval_us, 0),
                    _ => (current, previous),
                };
                let counts = LimitUse { current, previous };
                let now = at(&rule, now_ms);
                let wait = now.wait_ms(counts);
                let counts_at = |ms| {
                    let later = at(&rule, ms);
                    let later_counts = match later.number - now.number {
                        0 => counts,
                        1 if matches!(kind, LimitKind::Sliding { .. }) => LimitUse { current: 0, previous: current },
                        _ => LimitUse::default(),
                    };
                    later.admits(later_counts, 1)
                };
                assert!(counts_at(now_ms + wait), "{kind:?} {max} {counts:?} after {wait}");
                assert!(wait == 0 || !counts_at(now_ms + wait - 1), "{kind:?} {max} {counts:?} before {wait}");
            }
        }
    }

    #[test]
    fn buckets_admit_bursts_and_then_the_rate() {
        let rule = LimitRule::new(3, LimitKind::Bucket { interval_us: 500_000 });
        let mut counts = LimitUse::default();
        let mut take = |ms| {
            let limit = at(&rule, ms);
            let is_admitted = limit.admits(counts, 1);
            if is_admitted {
                counts = limit.after(counts, 1);
            }
            is_admitted
        };
        let admitted: Vec<bool> = [0, 0, 0, 0, 499, 500, 501, 5000, 5000, 5000, 5000].map(|ms| take(1_000 + ms)).into();
        let expected = [true, true, true, false, false, true, false, true, true, true, false];
        assert_eq!(admitted, expected);
    }

    /// A clock that was an hour ahead for one request must not block the client for an hour.
    #[test]
    fn buckets_begin_again_when_the_clock_is_set_back() {
        let rule = LimitRule::new(2, LimitKind::Bucket { interval_us: 1_000_000 });
        let (ahead, now) = (at(&rule, 3_700_000), at(&rule, 100_000));
        let counts = ahead.after(LimitUse::default(), 1);
        assert_eq!((now.used(counts), now.wait_ms(counts), now.remaining(counts, 0)), (0, 0, 2));
        let counts = now.after(now.after(counts, 1), 1);
        assert!(!now.admits(counts, 1));
        assert_eq!(now.wait_ms(counts), 1000);
        // Replicas whose clocks differ a little count together.
        let other = at(&rule, 70_000);
        assert!(!other.admits(counts, 1));
    }
}
