//! What one worker keeps about the endpoints of an upstream: its subset of them, its position in the round robin, and
//! its counters.

use std::sync::Arc;

use super::load_balancing::{
    EndpointSet, HealthRule, NoEndpoint, PickContext, PickCounts, Picked, PickedBecause, Rotation, choose,
};
use super::locality::{self, PriorityLevels};
use super::worker_subset::WorkerSubsetting;

/// The endpoints of an upstream as one worker uses them.
#[derive(Debug, Default)]
pub(super) struct WorkerEndpoints {
    /// The version of the endpoints and their health when they were last read. `None` before.
    version: Option<u32>,
    all: WorkerSet,
    /// The levels of the endpoints, if there are several.
    levels: Option<WorkerLevels>,
    /// Set by the first pick that is counted.
    pub(super) counts: Option<Arc<PickCounts>>,
}

/// The levels of an upstream as one worker uses them.
#[derive(Debug)]
struct WorkerLevels {
    levels: Arc<PriorityLevels<EndpointSet>>,
    sets: Vec<WorkerSet>,
}

impl WorkerEndpoints {
    /// Whether nothing has changed since this version was adopted.
    #[inline]
    pub(super) fn has_version(&self, version: u32) -> bool {
        self.version == Some(version)
    }

    /// Uses these endpoints and levels, which are at least as new as the version, from now on.
    pub(super) fn adopt(
        &mut self,
        version: u32,
        all: &Arc<EndpointSet>,
        levels: Option<Arc<PriorityLevels<EndpointSet>>>,
        subsetting: &WorkerSubsetting,
    ) {
        self.version = Some(version);
        self.all.adopt(all, subsetting);
        match (levels, &mut self.levels) {
            (None, None) => {}
            (None, former) => *former = None,
            (Some(levels), Some(known)) if Arc::ptr_eq(&levels, &known.levels) => {}
            (Some(levels), known) => {
                // Each level keeps its position in the round robin.
                let mut sets = known.take().map(|known| known.sets).unwrap_or_default();
                sets.resize_with(levels.endpoints().len(), WorkerSet::default);
                for (set, endpoints) in sets.iter_mut().zip(levels.endpoints()) {
                    set.adopt(endpoints, subsetting);
                }
                *known = Some(WorkerLevels { levels, sets });
            }
        }
    }

    pub(super) fn all(&self) -> &Arc<EndpointSet> {
        &self.all.endpoints
    }

    /// Chooses the next endpoint: of the level that the loads select, or of the next level with a usable endpoint. If
    /// ejections are ignored, near endpoints are no better than others.
    pub(super) fn choose(&mut self, cx: &PickContext<'_>) -> Result<Picked, NoEndpoint> {
        let has_available = matches!(cx.health, HealthRule::AllAvailable | HealthRule::Available { .. });
        if let Some(WorkerLevels { levels, sets }) = self.levels.as_mut().filter(|_| has_available) {
            for level in levels.in_order(locality::draw(cx.hash)) {
                if let Ok(picked) = sets[level].choose(cx) {
                    let is_spilled = level > 0 && picked.because == PickedBecause::Preferred;
                    let because = if is_spilled { PickedBecause::Spilled } else { picked.because };
                    return Ok(Picked { because, ..picked });
                }
            }
        }
        self.all.choose(cx)
    }
}

/// Endpoints among which a worker chooses.
#[derive(Debug, Default)]
struct WorkerSet {
    endpoints: Arc<EndpointSet>,
    /// The endpoints of this worker, if there are so many that workers use subsets.
    subset: Option<Arc<EndpointSet>>,
    /// The position in the subset, or else in all.
    rotation: Rotation,
}

impl WorkerSet {
    fn adopt(&mut self, endpoints: &Arc<EndpointSet>, subsetting: &WorkerSubsetting) {
        if !Arc::ptr_eq(&self.endpoints, endpoints) {
            self.endpoints = Arc::clone(endpoints);
            let has_subset = subsetting.applies_to(endpoints.len());
            self.subset = has_subset.then(|| Arc::new(subsetting.subset(endpoints)));
        }
    }

    /// Chooses the next endpoint: of the subset, unless less than half of it is available or all of it was tried.
    fn choose(&mut self, cx: &PickContext<'_>) -> Result<Picked, NoEndpoint> {
        // All workers choose the same endpoint for a hash.
        let by_hash = cx.hash.is_some() && self.endpoints.has_table();
        let Some(subset) = self.subset.as_ref().filter(|_| !by_hash) else {
            return choose(&self.endpoints, Some(&mut self.rotation), cx);
        };
        let available = || subset.iter().filter(|endpoint| endpoint.is_available()).count();
        let is_usable = cx.health == HealthRule::AllAvailable || 2 * available() >= subset.len();
        let chosen = if is_usable { choose(subset, Some(&mut self.rotation), cx).ok() } else { None };
        chosen.map_or_else(|| choose(&self.endpoints, None, cx), Ok)
    }
}
