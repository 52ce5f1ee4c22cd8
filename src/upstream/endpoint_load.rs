//! The load of an endpoint, shared by all workers. Atomics only.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The requests of all workers that an endpoint has.
#[derive(Debug, Default)]
pub(super) struct EndpointLoad {
    /// Requests in progress.
    requests: AtomicU32,
}

impl EndpointLoad {
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    pub(super) fn begin_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn end_request(&self) {
        self.requests.fetch_sub(1, Relaxed);
    }
}
