//! Worker subsets: each worker keeps connections to some endpoints of a large upstream only.
//!
//! Without subsets, an upstream gets as many connections as there are pairs of a worker and an endpoint. Above a limit,
//! each worker takes an arc of the endpoints, which are arranged as a ring:
//!
//! ```text
//!   endpoints   a  f  c  h  b  e  g  d      in the order of a hash, which differs between processes
//!   worker 0    ━━━━━━━━━━━
//!   worker 1             ━━━━━━━━━━━
//!   worker 2    ━━━━━               ━━━━━   each endpoint belongs to the same number of workers
//! ```

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::load_balancing::{EndpointSet, ResolvedEndpoint};

/// How a worker selects its endpoints.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSubsetting {
    /// The number of the worker, from 0.
    pub worker: usize,
    pub workers: usize,
    /// Determines the order of the ring. It differs between processes, so that the arcs of replicas do.
    pub seed: u64,
    /// The pairs of a worker and an endpoint that an upstream may have without subsets.
    pub max_pairs: usize,
}

impl WorkerSubsetting {
    /// The settings of a process with this number of workers, which may have `max_sockets` connections to endpoints.
    pub fn new(workers: usize, max_sockets: usize) -> Self {
        WorkerSubsetting { worker: 0, workers, seed: fastrand::u64(..), max_pairs: max_sockets / UPSTREAM_PART }
    }

    /// Whether workers use subsets of this number of endpoints.
    pub(super) fn applies_to(&self, endpoints: usize) -> bool {
        endpoints.saturating_mul(self.workers) > self.max_pairs && self.arcs(endpoints) < self.workers
    }

    /// The endpoints of the worker.
    pub(super) fn subset(&self, endpoints: &EndpointSet) -> EndpointSet {
        let hasher = FixedState::with_seed(self.seed);
        let mut ring: Vec<&ResolvedEndpoint> = endpoints.iter().collect();
        ring.sort_by_cached_key(|endpoint| (hasher.hash_one(endpoint.address), endpoint.address));
        let boundary = |arc: usize| arc * ring.len() / self.workers;
        let positions = boundary(self.worker)..boundary(self.worker + self.arcs(ring.len()));
        let mut subset: Vec<_> = positions.map(|position| ring[position % ring.len()].clone()).collect();
        subset.sort_by_key(|endpoint| endpoint.address);
        EndpointSet::without_table(subset, endpoints.settings().clone())
    }

    /// How many workers each endpoint belongs to: the ring is divided into as many arcs as there are workers, and each
    /// worker takes this many.
    fn arcs(&self, endpoints: usize) -> usize {
        let size = MIN_SUBSET.max(self.max_pairs / self.workers);
        (size * self.workers).div_ceil(endpoints.max(1)).min(self.workers)
    }
}

/// The part of all connections to endpoints that the pairs of one upstream may be: half of what
/// [`SocketBudget`](super::SocketBudget) lets an upstream have when sockets are scarce.
const UPSTREAM_PART: usize = 8;
/// The smallest subset. With fewer endpoints, the failure of one would move too much load to each of the others.
const MIN_SUBSET: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::SocketAddr;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::load_balancing::SetSettings;
    use super::*;

    fn endpoints(count: usize) -> EndpointSet {
        let address = |number: usize| SocketAddr::from(([10, 0, (number / 256) as u8, (number % 256) as u8], 80));
        let endpoint = |number| ResolvedEndpoint { address: address(number), weight: 1, state: Arc::default() };
        EndpointSet::without_table((0..count).map(endpoint).collect(), SetSettings::default())
    }

    #[test]
    fn only_many_pairs_get_subsets() {
        let settings = |workers, max_pairs| WorkerSubsetting { worker: 0, workers, seed: 7, max_pairs };
        for (workers, max_pairs, count, expected) in [
            (1, 100, 10_000, false),
            (4, 100, 25, false),
            // The smallest subset has all of them.
            (4, 100, 16, false),
            (8, 100, 16, false),
            // Three of four arcs would be too small.
            (4, 100, 26, false),
            (4, 100, 34, true),
            (64, 8192, 128, false),
            (64, 8192, 500, true),
            (4, 0, 0, false),
        ] {
            let applies = settings(workers, max_pairs).applies_to(count);
            assert_eq!(applies, expected, "{workers} workers, {count} endpoints");
        }
        let subset = settings(64, 8192).subset(&endpoints(500));
        assert!((128..=136).contains(&subset.len()), "{}", subset.len());
    }

    proptest! {
        /// Each worker sends the same load to its endpoints in turn.
        #[test]
        fn load_stays_even(
            workers in 2..80_usize, count in 17..600_usize, max_pairs in 0..5000_usize, seed in any::<u64>(),
        ) {
            let settings = WorkerSubsetting { worker: 0, workers, seed, max_pairs };
            prop_assume!(settings.applies_to(count));
            let all = endpoints(count);
            let mut loads: BTreeMap<SocketAddr, f64> = BTreeMap::new();
            for worker in 0..workers {
                let subset = WorkerSubsetting { worker, ..settings }.subset(&all);
                prop_assert!((MIN_SUBSET..=count).contains(&subset.len()), "{} of {}", subset.len(), count);
                for endpoint in subset.iter() {
                    *loads.entry(endpoint.address).or_default() += 1.0 / subset.len() as f64;
                }
            }
            let mean = workers as f64 / count as f64;
            prop_assert_eq!(loads.len(), count, "every endpoint is used");
            for (address, load) in loads {
                prop_assert!((mean / 2.0..=mean * 2.0).contains(&load), "{}: {} of {}", address, load, mean);
            }
        }

        /// A subset keeps most of its endpoints if one is added.
        #[test]
        fn change_of_one_endpoint_moves_few(
            count in 100..300_usize, worker in 0..16_usize, seed in any::<u64>(),
        ) {
            let settings = WorkerSubsetting { worker, workers: 16, seed, max_pairs: 400 };
            let subset = |count| settings.subset(&endpoints(count)).iter().map(|endpoint| endpoint.address).collect::<Vec<_>>();
            let before: BTreeSet<_> = subset(count).into_iter().collect();
            let kept = subset(count + 1).iter().filter(|address| before.contains(*address)).count();
            // The number of arcs may change as well, which makes the subsets smaller by one arc.
            prop_assert!(kept + 4 + count / 16 >= before.len(), "{} of {}", kept, before.len());
        }
    }
}
