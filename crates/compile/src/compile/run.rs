//! What the steps of one compilation pass on to later ones.

use std::collections::BTreeSet;

use crate::api::{ObjectId, ObjectKey};
use crate::upstream::UpstreamKey;

/// The objects that one compilation changed, or must still update.
#[derive(Default)]
pub(super) struct CompileRun {
    /// Gateways and routes that were planned.
    pub objects_planned: usize,
    /// Whether the plan of a Gateway or ListenerSet changed.
    pub have_gateways_changed: bool,
    /// Upstreams that became used or unused.
    pub upstreams_changed: BTreeSet<UpstreamKey>,
    /// Gateways and ListenerSets whose verdict must be updated.
    pub parents_to_update: BTreeSet<ObjectId>,
    /// Services whose verdict may change, because a policy starts or stops applying to them, or because a route becomes
    /// able or unable to connect to them.
    pub services_to_update: BTreeSet<ObjectKey>,
    /// Whether verdicts on other objects depend on the routes and Ingresses that are planned.
    pub records_planned: bool,
    /// Routes and Ingresses that were planned, if they are recorded.
    pub replanned: BTreeSet<ObjectId>,
}

impl CompileRun {
    /// Records that a route or Ingress was planned, if verdicts on other objects depend on it.
    pub(super) fn record_planned(&mut self, id: &ObjectId) {
        if self.records_planned {
            self.replanned.insert(id.clone());
        }
    }
}
