//! What one worker keeps about the endpoints of an upstream: its subset of them, its position in the round robin, and
//! its counters.

use std::sync::Arc;

use super::load_balancing::{EndpointSet, HealthRule, NoEndpoint, PickContext, PickCounts, Picked, Rotation, choose};
use super::worker_subset::WorkerSubsetting;

/// The endpoints of an upstream as one worker uses them.
#[derive(Debug, Default)]
pub(super) struct WorkerEndpoints {
    /// All endpoints of the upstream.
    all: Arc<EndpointSet>,
    /// The endpoints of this worker, if the upstream has so many that workers use subsets.
    subset: Option<Arc<EndpointSet>>,
    /// The position in the subset, or else in all.
    rotation: Rotation,
    /// Set by the first pick that is counted.
    pub(super) counts: Option<Arc<PickCounts>>,
}

impl WorkerEndpoints {
    /// Uses these endpoints from now on.
    pub(super) fn adopt(&mut self, all: &Arc<EndpointSet>, subsetting: &WorkerSubsetting) {
        if !Arc::ptr_eq(&self.all, all) {
            self.all = Arc::clone(all);
            self.subset = subsetting.applies_to(all.len()).then(|| Arc::new(subsetting.subset(all)));
        }
    }

    pub(super) fn all(&self) -> &Arc<EndpointSet> {
        &self.all
    }

    /// Chooses the next endpoint: of the subset, unless less than half of it is available or all of it was tried.
    pub(super) fn choose(&mut self, cx: &PickContext<'_>) -> Result<Picked, NoEndpoint> {
        // All workers choose the same endpoint for a hash.
        let by_hash = cx.hash.is_some() && self.all.has_table();
        let Some(subset) = self.subset.as_ref().filter(|_| !by_hash) else {
            return choose(&self.all, Some(&mut self.rotation), cx);
        };
        let available = || subset.iter().filter(|endpoint| endpoint.is_available()).count();
        let is_usable = cx.health == HealthRule::AllAvailable || 2 * available() >= subset.len();
        let chosen = if is_usable { choose(subset, Some(&mut self.rotation), cx).ok() } else { None };
        chosen.map_or_else(|| choose(&self.all, None, cx), Ok)
    }
}
