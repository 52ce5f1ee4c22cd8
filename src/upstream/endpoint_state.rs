//! The state of an endpoint, shared by all workers, rules and policies. It is kept as long as the address stays,
//! whatever else changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::endpoint_load::EndpointLoad;
use super::health::EndpointHealth;

/// The state of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointState {
    pub(super) health: EndpointHealth,
    pub(super) load: EndpointLoad,
    /// When the endpoint became available, in milliseconds of the upstream's clock. 0: it does not start slowly.
    available_since: AtomicU64,
}

impl EndpointState {
    /// The time from which on the endpoint starts slowly. `None`: it has its full weight.
    pub(super) fn available_since(&self) -> Option<u64> {
        Some(self.available_since.load(Relaxed)).filter(|since| *since != 0)
    }

    /// The endpoint has become available at this time of the upstream's clock.
    pub(super) fn start_slowly(&self, now: u64) {
        self.available_since.store(now, Relaxed);
    }
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
