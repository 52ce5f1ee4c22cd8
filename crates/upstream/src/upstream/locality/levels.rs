//! The endpoints of an upstream by level, and how many requests each level gets.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};

use super::loads::{CumulativeLoads, LevelEndpoints, MAX_LEVELS, cumulative_loads};
use crate::upstream::ResolvedEndpoint;

/// The levels of an upstream, the preferred one first. `S`: the endpoints of a level, as load balancing needs them.
#[derive(Debug)]
pub(in crate::upstream) struct PriorityLevels<S> {
    /// At least two, of at most [`MAX_LEVELS`].
    levels: Box<[Arc<S>]>,
    overprovisioning_percent: u32,
    /// [`CumulativeLoads`], so that a request reads them at once and without a lock.
    loads: AtomicU64,
}

impl<S: Deref<Target = [ResolvedEndpoint]>> PriorityLevels<S> {
    /// `levels` has the level of each address, sorted by address; endpoints without one are on the last level. `None`
    /// if all endpoints are on one level, so that requests pay nothing.
    pub(in crate::upstream) fn new(
        endpoints: &[ResolvedEndpoint],
        levels: &[(SocketAddr, u8)],
        overprovisioning_percent: u32,
        collect: impl Fn(Vec<ResolvedEndpoint>) -> S,
    ) -> Option<Self> {
        let last = MAX_LEVELS - 1;
        let mut grouped: [Vec<ResolvedEndpoint>; MAX_LEVELS] = Default::default();
        for endpoint in endpoints {
            let found = levels.binary_search_by_key(&endpoint.address, |(address, _)| *address);
            let level = found.map_or(last, |index| usize::from(levels[index].1).min(last));
            grouped[level].push(endpoint.clone());
        }
        let used = grouped.into_iter().filter(|level| !level.is_empty());
        let levels: Box<[_]> = used.map(|level| Arc::new(collect(level))).collect();
        if levels.len() < 2 {
            return None;
        }
        let levels = PriorityLevels { levels, overprovisioning_percent, loads: AtomicU64::new(0) };
        levels.update_loads();
        Some(levels)
    }

    /// Recomputes the loads after a change of health, and again if an endpoint has changed meanwhile. The fences make
    /// sure that the last of several concurrent updates sees the changes of all.
    pub(in crate::upstream) fn update_loads(&self) {
        let current = || {
            fence(SeqCst);
            let count = |endpoints: &Arc<S>| LevelEndpoints {
                available: endpoints.iter().filter(|endpoint| endpoint.is_available()).count(),
                total: endpoints.len(),
            };
            let counts: Vec<_> = self.levels.iter().map(count).collect();
            u64::from_le_bytes(cumulative_loads(&counts, self.overprovisioning_percent))
        };
        loop {
            let loads = current();
            self.loads.store(loads, Relaxed);
            if current() == loads {
                return;
            }
        }
    }

    /// The endpoints of each level.
    pub(in crate::upstream) fn endpoints(&self) -> &[Arc<S>] {
        &self.levels
    }

    /// The positions of the level for a number from [`draw`], and of the other levels, nearest first. None if no
    /// endpoint is available: then levels have no meaning.
    pub(in crate::upstream) fn in_order(&self, draw: u8) -> impl Iterator<Item = usize> {
        let loads: CumulativeLoads = self.loads.load(Relaxed).to_le_bytes();
        let selected = loads.iter().position(|load| draw < *load);
        let count = if selected.is_some() { self.levels.len() } else { 0 };
        selected.into_iter().chain((0..count).filter(move |index| Some(*index) != selected))
    }

    /// The percentage of requests for each level; 0 for all if no endpoint is available.
    fn loads(&self) -> Vec<u8> {
        let cumulative: CumulativeLoads = self.loads.load(Relaxed).to_le_bytes();
        let before = |index: usize| if index == 0 { 0 } else { cumulative[index - 1] };
        (0..self.levels.len()).map(|index| cumulative[index] - before(index)).collect()
    }

    /// The levels for reports.
    pub(in crate::upstream) fn report(&self) -> Vec<LevelReport> {
        let addresses = |level: &Arc<S>| level.iter().map(|endpoint| endpoint.address).collect();
        let levels = self.loads().into_iter().zip(&self.levels);
        levels.map(|(percent, level)| LevelReport { percent, addresses: addresses(level) }).collect()
    }
}

/// A level of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelReport {
    /// The requests that go to the level, in percent of all.
    pub percent: u8,
    pub addresses: Vec<SocketAddr>,
}

/// A number below 100 that selects a level: from the hash of the request, so that its requests stay on one level, or at
/// random.
pub(in crate::upstream) fn draw(hash: Option<u64>) -> u8 {
    // Mixed, because the endpoint within the level depends on the hash as well.
    let number = hash.map_or_else(|| fastrand::u64(..), |hash| hash.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    ((u128::from(number) * 100) >> 64) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    type Levels = PriorityLevels<Vec<ResolvedEndpoint>>;

    fn endpoint(number: u8) -> ResolvedEndpoint {
        ResolvedEndpoint { address: SocketAddr::from(([10, 0, 0, number], 80)), weight: 1, state: Arc::default() }
    }

    fn levels(endpoints: &[ResolvedEndpoint], levels: &[u8]) -> Option<Levels> {
        let levels: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).zip(levels.iter().copied()).collect();
        PriorityLevels::new(endpoints, &levels, 140, |level| level)
    }

    fn in_order(levels: &Levels, draw: u8) -> Vec<Vec<u8>> {
        let number = |endpoint: &ResolvedEndpoint| match endpoint.address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => unreachable!("the test has IPv4 addresses"),
        };
        levels.in_order(draw).map(|level| levels.endpoints()[level].iter().map(number).collect()).collect()
    }

    #[test]
    fn endpoints_of_one_level_have_no_levels() {
        let endpoints: Vec<_> = (0..4).map(endpoint).collect();
        assert!(levels(&endpoints, &[]).is_none());
        assert!(levels(&endpoints, &[1, 1, 1, 1]).is_none());
        assert!(levels(&[], &[]).is_none());
        assert!(levels(&endpoints, &[0]).is_some(), "the others are on the last one");
    }

    #[test]
    fn levels_follow_health() {
        let endpoints: Vec<_> = (0..6).map(endpoint).collect();
        let levels = levels(&endpoints, &[200, 0, 3, 0, 200, 3]).unwrap();
        assert_eq!(in_order(&levels, 99), [[1, 3], [2, 5], [0, 4]]);
        endpoints[1].state.health.eject_unreachable(1, true);
        levels.update_loads();
        assert_eq!(levels.loads(), [70, 30, 0]);
        assert_eq!(in_order(&levels, 69)[0], [1, 3]);
        assert_eq!(in_order(&levels, 70), [[2, 5], [1, 3], [0, 4]]);
        endpoints[3].state.health.eject_unreachable(1, true);
        levels.update_loads();
        assert_eq!(levels.loads(), [0, 100, 0]);
        for endpoint in &endpoints {
            endpoint.state.health.eject_unreachable(1, true);
        }
        levels.update_loads();
        assert_eq!(in_order(&levels, 0), Vec::<Vec<u8>>::new(), "all endpoints are alike");
        endpoints[4].state.health.record_connected(1);
        levels.update_loads();
        assert_eq!(levels.loads(), [0, 0, 100]);
    }

    #[test]
    fn hash_selects_one_level() {
        fastrand::seed(1);
        let mut counts = [0; 100];
        for key in 0..100_000_u64 {
            let hash = xxhash_rust::xxh64::xxh64(&key.to_le_bytes(), 0);
            assert_eq!(draw(Some(hash)), draw(Some(hash)));
            counts[usize::from(draw(Some(hash)))] += 1;
            counts[usize::from(draw(None))] += 1;
        }
        assert!(counts.iter().all(|count| (1_700..2_300).contains(count)), "{counts:?}");
    }
}
