//! What the cache did for a request: the values of `X-Cache-Status`, and a counter for each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheOutcome {
    /// A stored response was sent.
    Hit,
    /// Nothing was stored.
    Miss,
    /// The stored response was too old, and the endpoint has sent another one.
    Refresh,
    /// The endpoint has confirmed the stored response.
    Revalidated,
    /// A stale response was sent, because that is permitted or because the endpoint has failed.
    Stale,
    /// The request or its response is not cached.
    Bypass,
}

impl CacheOutcome {
    pub(super) const ALL: [CacheOutcome; 6] = [
        CacheOutcome::Hit,
        CacheOutcome::Miss,
        CacheOutcome::Refresh,
        CacheOutcome::Revalidated,
        CacheOutcome::Stale,
        CacheOutcome::Bypass,
    ];

    /// Kong's names, and two for what Kong does not have.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            CacheOutcome::Hit => "Hit",
            CacheOutcome::Miss => "Miss",
            CacheOutcome::Refresh => "Refresh",
            CacheOutcome::Revalidated => "Revalidated",
            CacheOutcome::Stale => "Stale",
            CacheOutcome::Bypass => "Bypass",
        }
    }

    fn label(self) -> &'static str {
        match self {
            CacheOutcome::Hit => "hit",
            CacheOutcome::Miss => "miss",
            CacheOutcome::Refresh => "refresh",
            CacheOutcome::Revalidated => "revalidated",
            CacheOutcome::Stale => "stale",
            CacheOutcome::Bypass => "bypass",
        }
    }
}

/// One counter for each outcome.
#[derive(Debug, Default)]
pub(super) struct OutcomeCounters([AtomicU64; CacheOutcome::ALL.len()]);

impl OutcomeCounters {
    pub(super) fn count(&self, outcome: CacheOutcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CacheOutcome::ALL.into_iter().map(|outcome| (outcome.label(), self.0[outcome as usize].load(Relaxed)))
    }
}
