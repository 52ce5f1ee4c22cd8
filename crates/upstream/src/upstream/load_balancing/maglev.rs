//! Maglev hashing (Eisenbud et al., NSDI 2016): each endpoint has its own order of the slots of a table, and the
//! endpoints take free slots in turn. Weights as in Envoy's `maglev_lb.cc`.

use super::hash::{hash64, hash64_seeded};

/// A table of slots, each with the position of an endpoint.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Box<[u16]>,
}

/// Where an endpoint is in its order of the slots.
struct SlotClaimant {
    next_slot: u64,
    skip: u64,
    weight: u64,
    /// The sum of the highest weight for each slot that the endpoint has got.
    target: u64,
}

impl Maglev {
    /// The table for endpoints with these identities and weights, sorted by identity. `size` is a prime number, or else
    /// the next one is used. `None` for more endpoints than a slot can name.
    pub(super) fn build(endpoints: &[(String, u32)], size: u32) -> Option<Self> {
        let highest = u64::from(endpoints.iter().map(|(_, weight)| *weight).max()?);
        if endpoints.len() >= usize::from(FREE) || highest == 0 {
            return None;
        }
        let size = next_prime(size.clamp(MIN_SIZE, MAX_SIZE));
        let length = u64::from(size);
        let mut claimants: Vec<SlotClaimant> = endpoints
            .iter()
            .map(|(identity, weight)| SlotClaimant {
                next_slot: hash64(identity.as_bytes()) % length,
                skip: hash64_seeded(identity.as_bytes(), 1) % (length - 1) + 1,
                weight: u64::from(*weight),
                target: 0,
            })
            .collect();
        let mut slots = vec![FREE; size as usize].into_boxed_slice();
        let mut free = slots.len();
        for round in 1.. {
            for (position, claimant) in claimants.iter_mut().enumerate() {
                if claimant.weight == 0 || round * claimant.weight < claimant.target {
                    continue;
                }
                claimant.target += highest;
                // Ends, since the order of an endpoint contains each slot once: the size is prime.
                while slots[claimant.next_slot as usize] != FREE {
                    claimant.advance(length);
                }
                slots[claimant.next_slot as usize] = position as u16;
                claimant.advance(length);
                free -= 1;
                if free == 0 {
                    return Some(Maglev { slots });
                }
            }
        }
        None
    }

    /// The positions of the endpoints for a key: that of its slot, then those of other slots that its hashes select,
    /// and the slots after the last one.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let length = self.slots.len() as u64;
        let slot_of = move |hash: u64| (hash % length) as usize;
        let rehashed = move |seed: u64| slot_of(hash64_seeded(&key.to_le_bytes(), seed));
        let last = rehashed(REHASHES);
        let onwards = (last + 1..self.slots.len()).chain(0..=last);
        let slots = std::iter::once(slot_of(key)).chain((1..=REHASHES).map(rehashed)).chain(onwards);
        slots.map(|slot| usize::from(self.slots[slot]))
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

impl SlotClaimant {
    fn advance(&mut self, length: u64) {
        self.next_slot = (self.next_slot + self.skip) % length;
    }
}

/// The smallest prime number that is not smaller.
fn next_prime(number: u32) -> u32 {
    let is_prime = |number: &u32| {
        (2..).take_while(|divisor| divisor * divisor <= *number).all(|divisor| !number.is_multiple_of(divisor))
    };
    (number..).find(is_prime).unwrap_or(MAX_SIZE)
}

/// A slot without endpoint.
const FREE: u16 = u16::MAX;
/// How many other slots a key has before the walk goes on in the order of the table. Endpoints that are skipped spread
/// their keys over all others by this.
const REHASHES: u64 = 8;
const MIN_SIZE: u32 = 3;
/// The largest supported table, a prime number.
const MAX_SIZE: u32 = 5_000_011;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_prime() {
        for (size, prime) in [(3, 3), (4, 5), (65_536, 65_537), (65_537, 65_537), (MAX_SIZE, MAX_SIZE)] {
            assert_eq!(next_prime(size), prime);
        }
        let endpoints = [("10.0.0.1:80".to_owned(), 1), ("10.0.0.2:80".to_owned(), 1)];
        for (size, slots) in [(0, 3), (4, 5), (100, 101), (u32::MAX, 5_000_011)] {
            assert_eq!(Maglev::build(&endpoints, size).unwrap().slots.len(), slots, "{size}");
        }
    }

    #[test]
    fn nothing_to_choose_is_no_table() {
        assert!(Maglev::build(&[], 65_537).is_none());
        assert!(Maglev::build(&[("a:1".to_owned(), 0)], 65_537).is_none());
        let many: Vec<_> = (0..=u16::MAX).map(|number| (number.to_string(), 1)).collect();
        assert!(Maglev::build(&many, 65_537).is_none());
    }

    #[test]
    fn slots_follow_the_weights() {
        let endpoints: Vec<(String, u32)> = [("a:1", 5), ("b:1", 1), ("c:1", 0), ("d:1", 4)]
            .map(|(identity, weight)| (identity.to_owned(), weight))
            .into();
        let table = Maglev::build(&endpoints, 65_537).unwrap();
        let share = |position: u16| {
            table.slots.iter().filter(|slot| **slot == position).count() as f64 / table.slots.len() as f64
        };
        for (position, expected) in [(0, 0.5), (1, 0.1), (2, 0.0), (3, 0.4)] {
            assert!((share(position) - expected).abs() < 0.001, "{position}: {}", share(position));
        }
    }

    #[test]
    fn walk_visits_every_slot() {
        let endpoints: Vec<_> = (0..40).map(|number| (format!("10.0.0.{number}:80"), 1)).collect();
        let table = Maglev::build(&endpoints, 251).unwrap();
        let walk: Vec<usize> = table.walk(12_345).collect();
        assert_eq!(walk.len(), 251 + 9);
        for position in 0..endpoints.len() {
            assert!(walk.contains(&position));
        }
    }
}
