//! The state of an endpoint, shared by all workers, rules and policies. It is kept as long as the address stays,
//! whatever else changes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::check_report::CheckReport;
use super::endpoint_load::EndpointLoad;
use super::health::{EndpointHealth, RateCounters};

/// The state of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointState {
    pub(super) health: EndpointHealth,
    pub(super) load: EndpointLoad,
    /// Written by every request if rates are compared, like `load`.
    pub(super) rates: RateCounters,
    /// The last active check. Written by the checks, and read by reports only.
    pub(super) check: ArcSwapOption<CheckReport>,
}

/// Counts a request in progress until dropped.
#[derive(Debug)]
pub struct ActiveRequest(Arc<EndpointState>);

impl ActiveRequest {
    pub(super) fn new(endpoint: Arc<EndpointState>) -> Self {
        endpoint.load.begin_request();
        ActiveRequest(endpoint)
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.load.end_request();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Service may have thousands of endpoints.
    #[test]
    fn state_of_an_endpoint_is_small() {
        let size = size_of::<EndpointState>();
        assert!(size <= 192, "{size} bytes");
    }

    #[test]
    fn requests_are_counted_until_dropped() {
        let endpoint = Arc::new(EndpointState::default());
        let (first, second) = (ActiveRequest::new(Arc::clone(&endpoint)), ActiveRequest::new(Arc::clone(&endpoint)));
        assert_eq!(endpoint.load.requests(), 2);
        drop(first);
        drop(second);
        assert_eq!(endpoint.load.requests(), 0);
    }
}
