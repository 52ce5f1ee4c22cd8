//! Server names with a recent successful TLS handshake to some endpoint of an upstream. Atomics only.
//!
//! A failed handshake under a name that a client made up must not eject an endpoint. A failed handshake under a name
//! that succeeded recently does.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::UpstreamServerName;

/// The names, of which only the most recent ones are kept.
#[derive(Debug, Default)]
pub struct VerifiedNames {
    slots: [NameSlot; SLOTS],
    /// Randomly seeded, so that clients cannot construct hash collisions.
    hash_state: RandomState,
}

#[derive(Debug, Default)]
struct NameSlot {
    digest: AtomicU64,
    /// When the name was last recorded, in milliseconds of the upstream's clock, which never returns 0; 0 if the slot
    /// is free.
    recorded_at: AtomicU64,
}

impl VerifiedNames {
    /// Records a name, replacing the least recently recorded one if all slots are used.
    pub fn record(&self, name: &UpstreamServerName, now: u64) {
        let digest = self.digest(name);
        let existing = self.slots.iter().find(|slot| slot.digest.load(Relaxed) == digest);
        let oldest = || self.slots.iter().min_by_key(|slot| slot.recorded_at.load(Relaxed));
        if let Some(slot) = existing.or_else(oldest) {
            slot.digest.store(digest, Relaxed);
            slot.recorded_at.store(now, Relaxed);
        }
    }

    pub fn contains(&self, name: &UpstreamServerName, now: u64) -> bool {
        let digest = self.digest(name);
        self.slots.iter().any(|slot| {
            let recorded_at = slot.recorded_at.load(Relaxed);
            recorded_at != 0 && now.saturating_sub(recorded_at) < MEMORY_MILLIS && slot.digest.load(Relaxed) == digest
        })
    }

    fn digest(&self, name: &UpstreamServerName) -> u64 {
        let mut hasher = self.hash_state.build_hasher();
        name.host().bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        hasher.finish()
    }
}

/// The number of names that are remembered.
const SLOTS: usize = 8;
/// How long a name is remembered: ten minutes, in milliseconds.
const MEMORY_MILLIS: u64 = 600_000;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn recent_names_are_remembered() {
        let names = VerifiedNames::default();
        let name = |host: &str| UpstreamServerName::from_host(&HeaderValue::from_str(host).unwrap());
        assert!(!names.contains(&name("a.example"), 1));
        names.record(&name("a.example"), 1);
        assert!(names.contains(&name("A.example:8080"), 2), "case and port are ignored");
        assert!(!names.contains(&name("b.example"), 2));
        assert!(!names.contains(&name("a.example"), 1 + MEMORY_MILLIS));
        for number in 1..SLOTS {
            names.record(&name(&format!("{number}.example")), 10);
        }
        names.record(&name("a.example"), 20);
        names.record(&name("b.example"), 21);
        let known = |host: &str| names.contains(&name(host), 22);
        assert!(known("a.example") && known("b.example"), "each name takes one slot, however often it is recorded");
        let others = (1..SLOTS).filter(|number| known(&format!("{number}.example"))).count();
        assert_eq!(others, SLOTS - 2, "the oldest name is replaced");
    }
}
