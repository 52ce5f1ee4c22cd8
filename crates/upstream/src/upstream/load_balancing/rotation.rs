//! Round robin: the position of one worker in the endpoints of an upstream.
//!
//! Endpoints of equal weight are visited in a random order, which changes after each lap: laps are exact, workers and
//! replicas do not start at the same endpoint, and a pattern of requests cannot always meet the same endpoints. With
//! other weights, the endpoint with the earliest deadline is next, and its deadline grows by 1/weight.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::endpoint_set::EndpointSet;

/// The position of one worker.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Rotation {
    /// The endpoints that `order` is about.
    set: Option<Arc<EndpointSet>>,
    order: Order,
}

#[derive(Debug)]
enum Order {
    /// For equal weights.
    Lap {
        /// The endpoints of the lap.
        order: Vec<u32>,
        /// How many of them were visited.
        visited: usize,
    },
    /// For other weights.
    Deadlines {
        queue: BinaryHeap<Reverse<(Deadline, u32)>>,
        /// The last deadline that has passed.
        now: f64,
    },
}

impl Default for Order {
    fn default() -> Self {
        Order::Lap { order: Vec::new(), visited: 0 }
    }
}

/// When an endpoint is next, in picks. Finite and not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Deadline(f64);

impl Eq for Deadline {}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Rotation {
    /// The next endpoint that is usable. `None` if a round has found none.
    pub(super) fn next(&mut self, set: &Arc<EndpointSet>, mut is_usable: impl FnMut(usize) -> bool) -> Option<usize> {
        self.adopt(set);
        match &mut self.order {
            Order::Lap { order, visited } => {
                for _ in 0..order.len() {
                    if *visited == order.len() {
                        fastrand::shuffle(order);
                        *visited = 0;
                    }
                    let index = order[*visited] as usize;
                    *visited += 1;
                    if is_usable(index) {
                        return Some(index);
                    }
                }
                None
            }
            Order::Deadlines { queue, now } => {
                for _ in 0..queue.len() {
                    let mut earliest = queue.peek_mut()?;
                    let Reverse((deadline, index)) = &mut *earliest;
                    *now = deadline.0;
                    let index = *index as usize;
                    deadline.0 += 1.0 / f64::from(set[index].weight);
                    if is_usable(index) {
                        return Some(index);
                    }
                }
                None
            }
        }
    }

    /// Uses these endpoints from now on. Those that stay keep their positions.
    fn adopt(&mut self, set: &Arc<EndpointSet>) {
        if self.set.as_ref().is_some_and(|known| Arc::ptr_eq(known, set)) {
            return;
        }
        let former = self.set.replace(Arc::clone(set)).unwrap_or_default();
        let positions = Positions::new(&former, set);
        let order = std::mem::take(&mut self.order);
        self.order = match (order, set.has_equal_weights()) {
            (Order::Lap { order, visited }, true) => positions.lap(&order, visited),
            (Order::Deadlines { .. }, true) => positions.lap(&[], 0),
            (Order::Deadlines { queue, now }, false) => positions.deadlines(queue, now, &former),
            (Order::Lap { .. }, false) => positions.deadlines(BinaryHeap::new(), 0.0, &former),
        };
    }
}

/// Where the endpoints of one set are in another one.
struct Positions<'s> {
    set: &'s EndpointSet,
    /// By former position; `GONE` for endpoints that are not in the set.
    of_former: Vec<u32>,
}

const GONE: u32 = u32::MAX;

impl<'s> Positions<'s> {
    fn new(former: &EndpointSet, set: &'s EndpointSet) -> Self {
        // Both are sorted.
        let mut index = 0;
        let position = |address| {
            while set.get(index).is_some_and(|endpoint| endpoint.address < address) {
                index += 1;
            }
            if set.get(index).is_some_and(|endpoint| endpoint.address == address) { index as u32 } else { GONE }
        };
        let of_former = former.iter().map(|endpoint| endpoint.address).map(position).collect();
        Positions { set, of_former }
    }

    /// The lap whose former order this is. New endpoints get a random position in
    /// it, before or after the current one.
    fn lap(&self, order: &[u32], visited: usize) -> Order {
        let mut is_known = vec![false; self.set.len()];
        let mut kept = Vec::with_capacity(self.set.len());
        let mut visited_of_kept = 0;
        for (place, former) in order.iter().enumerate() {
            let index = self.of_former[*former as usize];
            if index != GONE {
                is_known[index as usize] = true;
                kept.push(index);
                visited_of_kept += usize::from(place < visited);
            }
        }
        // The order within each part is random anyway.
        for index in (0..self.set.len()).filter(|index| !is_known[*index]) {
            let last = kept.len();
            let is_visited = fastrand::usize(..=last) < visited_of_kept;
            kept.push(index as u32);
            if is_visited {
                kept.swap(visited_of_kept, last);
                visited_of_kept += 1;
            } else {
                kept.swap(fastrand::usize(visited_of_kept..=last), last);
            }
        }
        Order::Lap { order: kept, visited: visited_of_kept }
    }

    /// The deadlines after a change. A new endpoint gets a random one, and a changed weight scales what remains.
    fn deadlines(&self, queue: BinaryHeap<Reverse<(Deadline, u32)>>, now: f64, former: &EndpointSet) -> Order {
        let mut deadlines: Vec<Option<f64>> = vec![None; self.set.len()];
        for Reverse((deadline, index)) in queue {
            let position = self.of_former[index as usize];
            if let Some(endpoint) = self.set.get(position as usize).filter(|endpoint| endpoint.weight > 0) {
                let scale = f64::from(former[index as usize].weight) / f64::from(endpoint.weight);
                deadlines[position as usize] = Some(now + (deadline.0 - now) * scale);
            }
        }
        let weighted = self.set.iter().enumerate().filter(|(_, endpoint)| endpoint.weight > 0);
        let queued = weighted.map(|(index, endpoint)| {
            let at_random = || now + fastrand::f64() / f64::from(endpoint.weight);
            Reverse((Deadline(deadlines[index].unwrap_or_else(at_random)), index as u32))
        });
        Order::Deadlines { queue: queued.collect(), now }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::endpoint_set::{ResolvedEndpoint, SetSettings};
    use super::*;

    /// A set of endpoints, each with the last byte of its address and its weight.
    fn set(endpoints: &[(u8, u32)]) -> Arc<EndpointSet> {
        let endpoints = endpoints.iter().map(|(number, weight)| ResolvedEndpoint {
            address: SocketAddr::from(([10, 0, 0, *number], 80)),
            weight: *weight,
            state: Arc::default(),
        });
        Arc::new(EndpointSet::without_table(endpoints.collect(), SetSettings::default()))
    }

    fn equal(numbers: impl Iterator<Item = u8>) -> Arc<EndpointSet> {
        set(&numbers.map(|number| (number, 1)).collect::<Vec<_>>())
    }

    /// The next endpoints, by the last byte of their address.
    fn next(rotation: &mut Rotation, set: &Arc<EndpointSet>, count: usize) -> Vec<u8> {
        let number = |index: usize| match set[index].address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => unreachable!(),
        };
        (0..count).map(|_| number(rotation.next(set, |_| true).unwrap())).collect()
    }

    fn sorted(mut numbers: Vec<u8>) -> Vec<u8> {
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn laps_are_exact_and_differ() {
        fastrand::seed(1);
        let set = equal(0..10);
        let mut rotation = Rotation::default();
        let laps: Vec<Vec<u8>> = (0..20).map(|_| next(&mut rotation, &set, 10)).collect();
        for lap in &laps {
            assert_eq!(sorted(lap.clone()), (0..10).collect::<Vec<_>>());
        }
        assert_ne!(laps[0], laps[1]);
        assert_ne!(next(&mut Rotation::default(), &set, 10), laps[0], "workers start differently");
    }

    /// A client that alternates between two kinds of requests gets both to all endpoints.
    #[test]
    fn patterns_do_not_meet_the_same_endpoints() {
        fastrand::seed(1);
        let set = equal(0..2);
        let mut rotation = Rotation::default();
        let picks = next(&mut rotation, &set, 10_000);
        let logins = picks.iter().step_by(2).filter(|number| **number == 0).count();
        assert!((2_300..2_700).contains(&logins), "{logins} of 5000");
    }

    #[test]
    fn unusable_endpoints_leave_equal_shares() {
        fastrand::seed(1);
        let set = equal(0..10);
        let mut rotation = Rotation::default();
        let mut counts = [0; 10];
        for _ in 0..700 {
            counts[rotation.next(&set, |index| index > 2).unwrap()] += 1;
        }
        assert_eq!(counts, [0, 0, 0, 100, 100, 100, 100, 100, 100, 100]);
        assert_eq!(rotation.next(&set, |_| false), None);
        assert_eq!(rotation.next(&equal(0..0), |_| true), None);
    }

    #[test]
    fn weights_are_met_smoothly() {
        for seed in 0..50 {
            fastrand::seed(seed);
            let set = set(&[(0, 5), (1, 1), (2, 1), (3, 0)]);
            let mut rotation = Rotation::default();
            let picks = next(&mut rotation, &set, 7_000);
            for window in picks.windows(7) {
                for (number, share) in [(0, 5), (1, 1), (2, 1), (3, 0)] {
                    let count = window.iter().filter(|pick| **pick == number).count();
                    assert!(count.abs_diff(share) <= 1 && (share > 0 || count == 0), "{number}: {window:?}");
                }
            }
            assert!(picks.iter().filter(|pick| **pick == 0).count().abs_diff(5_000) <= 1);
        }
    }

    #[test]
    fn change_keeps_the_positions_of_others() {
        for seed in 0..100 {
            fastrand::seed(seed);
            let (before, after) = (equal(0..10), equal(1..11));
            let mut rotation = Rotation::default();
            let visited = next(&mut rotation, &before, 4);
            let lap: Vec<u8> = (1..10).filter(|number| !visited.contains(number)).collect();
            let picks = next(&mut rotation, &after, 20);
            // The new endpoint is in the rest of the lap, or in the next one only.
            let with_new: Vec<u8> = lap.iter().copied().chain([10]).collect();
            let is_exact = [lap, with_new].into_iter().any(|lap| {
                let (rest, next_lap) = (&picks[..lap.len()], &picks[lap.len()..][..10]);
                sorted(rest.to_vec()) == lap && sorted(next_lap.to_vec()) == (1..11).collect::<Vec<_>>()
            });
            assert!(is_exact, "seed {seed}: {visited:?}, {picks:?}");
        }
    }

    #[test]
    fn change_of_weighted_endpoints_keeps_the_positions_of_others() {
        for seed in 0..100 {
            fastrand::seed(seed);
            let (before, after) = (set(&[(0, 4), (1, 1), (2, 1)]), set(&[(0, 4), (1, 1), (2, 1), (3, 2)]));
            let mut rotation = Rotation::default();
            let mut picks = next(&mut rotation, &before, 600);
            picks.extend(next(&mut rotation, &after, 800));
            for (number, share) in [(0, 800), (1, 200), (2, 200), (3, 200)] {
                let count = picks.iter().filter(|pick| **pick == number).count();
                assert!(count.abs_diff(share) <= 2, "seed {seed}, {number}: {count}");
            }
        }
    }
}
