//! The request that a half-open endpoint gets. No other one is sent to it until there is a result.

use std::fmt;
use std::sync::Arc;

use super::endpoint_state::EndpointState;
use super::outlier_detection::OutlierDetection;

/// The only trial of an endpoint. If it is dropped without a result, as with a client that leaves, another request may
/// be the next.
pub struct EndpointTrial {
    detection: Arc<OutlierDetection>,
    endpoint: Arc<EndpointState>,
    /// Until when there is no other one.
    claimed_until: u64,
}

impl EndpointTrial {
    pub(super) fn new(detection: &Arc<OutlierDetection>, endpoint: Arc<EndpointState>, claimed_until: u64) -> Self {
        EndpointTrial { detection: Arc::clone(detection), endpoint, claimed_until }
    }
}

impl Drop for EndpointTrial {
    fn drop(&mut self) {
        self.endpoint.health.end_claim(self.claimed_until, self.detection.clock.now());
    }
}

impl fmt::Debug for EndpointTrial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EndpointTrial").field("claimed_until", &self.claimed_until).finish_non_exhaustive()
    }
}
