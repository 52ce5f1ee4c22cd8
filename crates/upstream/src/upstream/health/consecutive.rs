//! Counts of consecutive failures, in one word, so that a success needs one load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum FailureKind {
    Connect,
    LocalOrigin,
    GatewayError,
    ServerError,
}

/// The failures of each kind since the last success, up to 65,535.
#[derive(Debug, Default)]
pub(super) struct ConsecutiveFailures(AtomicU64);

impl FailureKind {
    fn shift(self) -> u32 {
        self as u32 * BITS
    }
}

impl ConsecutiveFailures {
    pub(super) fn is_zero(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    /// Counts a failure. Returns the failures of this kind, this one included.
    pub(super) fn add(&self, kind: FailureKind) -> u32 {
        let count = |counts: u64| (counts >> kind.shift()) & MASK;
        let added = self
            .0
            .fetch_update(Relaxed, Relaxed, |counts| (count(counts) < MASK).then(|| counts + (1 << kind.shift())));
        match added {
            Ok(before) => u32::try_from(count(before)).unwrap_or(u32::MAX) + 1,
            Err(full) => u32::try_from(count(full)).unwrap_or(u32::MAX),
        }
    }

    /// The failures of this kind.
    pub(super) fn count(&self, kind: FailureKind) -> u32 {
        u32::try_from((self.0.load(Relaxed) >> kind.shift()) & MASK).unwrap_or(u32::MAX)
    }

    /// Resets the count of this kind, if there is one.
    pub(super) fn reset(&self, kind: FailureKind) {
        let counted = MASK << kind.shift();
        if self.0.load(Relaxed) & counted != 0 {
            self.0.fetch_and(!counted, Relaxed);
        }
    }

    pub(super) fn reset_all(&self) {
        if !self.is_zero() {
            self.0.store(0, Relaxed);
        }
    }
}

/// The bits of one count.
const BITS: u32 = 16;
const MASK: u64 = (1 << BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_apart_and_do_not_overflow() {
        let counts = ConsecutiveFailures::default();
        assert_eq!([counts.add(FailureKind::LocalOrigin), counts.add(FailureKind::LocalOrigin)], [1, 2]);
        assert_eq!(counts.add(FailureKind::ServerError), 1);
        for _ in 0..70_000 {
            counts.add(FailureKind::GatewayError);
        }
        assert_eq!(counts.count(FailureKind::GatewayError), 65_535);
        assert_eq!(counts.count(FailureKind::ServerError), 1, "a full count does not carry");
        counts.reset(FailureKind::GatewayError);
        let left =
            [FailureKind::Connect, FailureKind::LocalOrigin, FailureKind::GatewayError, FailureKind::ServerError]
                .map(|kind| counts.count(kind));
        assert_eq!(left, [0, 2, 0, 1]);
        counts.reset_all();
        assert!(counts.is_zero());
    }
}
