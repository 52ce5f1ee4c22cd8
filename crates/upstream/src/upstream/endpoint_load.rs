//! The load of an endpoint, shared by all workers. Atomics only.

mod latency;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub(super) use latency::{EndpointLatency, LatencySample};

/// The requests of all workers that an endpoint has, and how fast it responds.
#[derive(Debug, Default)]
pub(super) struct EndpointLoad {
    /// Requests in progress.
    requests: AtomicU32,
    /// Connections that are being opened.
    dials: AtomicU32,
    pub(super) latency: EndpointLatency,
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

    /// Connections that are being opened.
    pub(super) fn dials(&self) -> u32 {
        self.dials.load(Relaxed)
    }

    pub(super) fn begin_dial(&self) {
        self.dials.fetch_add(1, Relaxed);
    }

    pub(super) fn end_dial(&self) {
        self.dials.fetch_sub(1, Relaxed);
    }
}
