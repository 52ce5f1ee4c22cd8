//! Names under which hands were shaken with some endpoint of an upstream not long ago. Atomics only.
//!
//! A name that a client makes up is no reason to blame an endpoint that does not like it. One that another endpoint of the
//! same upstream takes is no excuse.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Name;

#[derive(Debug, Default)]
pub(in crate::upstream) struct Proven {
    slots: [Slot; MOST],
    /// Of its own, so that nobody can find a name that is taken for another.
    state: RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    digest: AtomicU64,
    /// When it was last noted, in milliseconds of its upstream's clock, which never says 0; 0 if the slot is free.
    at: AtomicU64,
}

impl Proven {
    /// In the place of the one that was not noted for the longest time, if there is no other.
    pub(in crate::upstream) fn note(&self, name: &Name, now: u64) {
        let digest = self.digest(name);
        let known = self.slots.iter().find(|slot| slot.digest.load(Relaxed) == digest);
        let oldest = || self.slots.iter().min_by_key(|slot| slot.at.load(Relaxed));
        if let Some(slot) = known.or_else(oldest) {
            slot.digest.store(digest, Relaxed);
            slot.at.store(now, Relaxed);
        }
    }

    pub(in crate::upstream) fn contains(&self, name: &Name, now: u64) -> bool {
        let digest = self.digest(name);
        self.slots.iter().any(|slot| {
            let at = slot.at.load(Relaxed);
            at != 0 && now.saturating_sub(at) < LONG && slot.digest.load(Relaxed) == digest
        })
    }

    fn digest(&self, name: &Name) -> u64 {
        let mut hasher = self.state.build_hasher();
        name.host().bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        hasher.finish()
    }
}

const MOST: usize = 8;
/// Ten minutes in milliseconds.
const LONG: u64 = 600_000;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_latest_few_names_are_known_for_a_while() {
        let proven = Proven::default();
        let name = |host: &str| Name::of(&HeaderValue::from_str(host).unwrap());
        assert!(!proven.contains(&name("a.example"), 1));
        proven.note(&name("a.example"), 1);
        assert!(proven.contains(&name("A.example:8080"), 2), "neither case nor port is part of a name");
        assert!(!proven.contains(&name("b.example"), 2));
        assert!(!proven.contains(&name("a.example"), 1 + LONG));
        for number in 1..MOST {
            proven.note(&name(&format!("{number}.example")), 10);
        }
        proven.note(&name("a.example"), 20);
        proven.note(&name("b.example"), 21);
        let known = |host: &str| proven.contains(&name(host), 22);
        assert!(known("a.example") && known("b.example"), "each has one place, however often it is noted");
        let others = (1..MOST).filter(|number| known(&format!("{number}.example"))).count();
        assert_eq!(others, MOST - 2, "the oldest makes room");
    }
}
