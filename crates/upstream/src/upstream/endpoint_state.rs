//! The state of an endpoint, shared by all workers, rules and policies. It is kept as long as the address stays,
//! whatever else changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use super::check_report::CheckReport;
use super::endpoint_load::EndpointLoad;
use super::health::{EndpointHealth, RateCounters};

/// The state of one endpoint. With the two counts of its `Arc`, it has two cache lines if the allocator places it at a
/// multiple of their size, as jemalloc does.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EndpointState {
    /// Written by every request if the load balancing or a limit depends on it, as are the counts of the `Arc`.
    pub(super) load: EndpointLoad,
    /// Written by every request if rates are compared, like `load`.
    pub(super) rates: RateCounters,
    /// The last active check. Written by the checks, and read by reports only.
    pub(super) check: ArcSwapOption<CheckReport>,
    /// The rest of the first line, so that counters of requests do not slow down picks, which read the health.
    pub(super) rest_of_line: [u64; 2],
    pub(super) health: EndpointHealth,
}

/// Counts a request in progress until dropped.
#[derive(Debug)]
pub struct ActiveRequest {
    endpoint: Arc<EndpointState>,
    /// The requests of the upstream, if the load balancing depends on their number.
    total: Option<Arc<AtomicU32>>,
}

impl ActiveRequest {
    pub(super) fn new(endpoint: Arc<EndpointState>, total: Option<Arc<AtomicU32>>) -> Self {
        endpoint.load.begin_request();
        if let Some(total) = &total {
            total.fetch_add(1, Relaxed);
        }
        ActiveRequest { endpoint, total }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.endpoint.load.end_request();
        if let Some(total) = &self.total {
            total.fetch_sub(1, Relaxed);
        }
    }
}

/// Counts a connection that is being opened until dropped.
#[derive(Debug)]
pub(super) struct PendingDial(Arc<EndpointState>);

impl PendingDial {
    pub(super) fn new(endpoint: Arc<EndpointState>) -> Self {
        endpoint.load.begin_dial();
        PendingDial(endpoint)
    }
}

impl Drop for PendingDial {
    fn drop(&mut self) {
        self.0.load.end_dial();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Service may have thousands of endpoints.
    #[test]
    fn state_of_an_endpoint_is_small() {
        let counts_of_arc = 2 * size_of::<usize>();
        assert_eq!(counts_of_arc + size_of::<EndpointState>(), 128, "two cache lines");
        assert_eq!(counts_of_arc + std::mem::offset_of!(EndpointState, health), 64, "each has one of them");
    }

    #[test]
    fn requests_are_counted_until_dropped() {
        let (endpoint, total) = (Arc::new(EndpointState::default()), Arc::new(AtomicU32::new(0)));
        let first = ActiveRequest::new(Arc::clone(&endpoint), Some(Arc::clone(&total)));
        let second = ActiveRequest::new(Arc::clone(&endpoint), None);
        let dial = PendingDial::new(Arc::clone(&endpoint));
        let counts = || (endpoint.load.requests(), endpoint.load.dials(), total.load(Relaxed));
        assert_eq!(counts(), (2, 1, 1));
        drop((first, second, dial));
        assert_eq!(counts(), (0, 0, 0));
    }
}
