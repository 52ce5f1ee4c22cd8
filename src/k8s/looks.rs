//! When to ask the API server again what it serves.

use std::time::Duration;

use tokio::time::Instant;

/// When to ask next what is served.
pub(super) struct Looks {
    pub(super) next: Instant,
    /// Steps that are left of those that follow a change of CRDs: what they define is served a moment later.
    soon: &'static [u64],
}

impl Looks {
    pub(super) fn now() -> Self {
        Looks { next: Instant::now(), soon: &[] }
    }

    pub(super) fn at(&mut self, next: Instant) {
        self.next = next;
    }

    pub(super) fn soon(&mut self) {
        self.next = self.next.min(Instant::now());
    }

    pub(super) fn often(&mut self) {
        self.soon = AFTER_CRDS;
        self.soon();
    }

    /// `unsure`: what was said is not believed yet. `blind`: CRDs cannot be watched.
    pub(super) fn went_well(&mut self, unsure: bool, blind: bool) {
        let wait = match self.soon {
            [first, rest @ ..] => {
                self.soon = rest;
                Duration::from_millis(*first)
            }
            [] if unsure => UNSURE,
            [] if blind => BLIND,
            [] => NOW_AND_THEN,
        };
        self.next = Instant::now() + wait;
    }
}

/// Milliseconds between the looks that follow a change of CRDs.
const AFTER_CRDS: &[u64] = &[100, 200, 400, 800, 1_600, 3_200, 6_400];
const UNSURE: Duration = Duration::from_secs(3);
const NOW_AND_THEN: Duration = Duration::from_secs(300);
/// For those who may not watch CRDs.
pub(super) const BLIND: Duration = Duration::from_secs(30);
