//! What is measured about changes: how long they take from a file to the snapshot that is served.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Written by the control loop only, so the locks inside are never waited for.
#[derive(Debug)]
pub(super) struct Meters {
    compile: Histogram,
    propagation: Histogram,
    revision: Gauge<u64, AtomicU64>,
    routers: Counter,
}

impl Meters {
    pub(super) fn register(registry: &mut Registry) -> Self {
        // 100 µs to 3.3 s.
        let buckets = || Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        let meters = Meters {
            compile: buckets(),
            propagation: buckets(),
            revision: Gauge::default(),
            routers: Counter::default(),
        };
        registry.register(
            "portico_compile_duration_seconds",
            "How long compiling a change took, from objects to a snapshot",
            meters.compile.clone(),
        );
        registry.register(
            "portico_propagation_seconds",
            "How long a change took, from the first sign of it to the snapshot that is served",
            meters.propagation.clone(),
        );
        registry.register(
            "portico_snapshot_revision",
            "How many snapshots were served since the start",
            meters.revision.clone(),
        );
        registry.register(
            "portico_routers_built",
            "Host routers built because a route, Gateway or reference changed",
            meters.routers.clone(),
        );
        meters
    }

    /// Of the snapshot that is served.
    pub(super) fn revision(&self) -> u64 {
        self.revision.get()
    }

    pub(super) fn compiled(&self, took: Duration, routers: usize, swapped: bool) {
        self.compile.observe(took.as_secs_f64());
        self.routers.inc_by(routers as u64);
        if swapped {
            self.revision.inc();
        }
    }

    pub(super) fn propagated(&self, took: Duration) {
        self.propagation.observe(took.as_secs_f64());
    }
}
