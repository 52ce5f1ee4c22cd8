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

    /// Whether the endpoint has as many requests as it may. A limit of 0 is none.
    pub(super) fn is_full(&self, limit: u32) -> bool {
        limit != 0 && self.requests() >= limit
    }

    pub(super) fn begin_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn end_request(&self) {
        self.requests.fetch_sub(1, Relaxed);
    }
}
