//! Metrics of configuration changes: duration of compilation and propagation, number of snapshots and routers.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Written by the control loop only, so its locks are uncontended.
#[derive(Debug)]
pub(super) struct ChangeMeters {
    compile: Histogram,
    propagation: Histogram,
    served: ServedSnapshots,
    routers_built: Counter,
}

/// What is known of the snapshots that were served. Its clones show the same.
#[derive(Clone, Debug, Default)]
pub(super) struct ServedSnapshots {
    /// How many there were.
    pub(super) revision: Gauge<u64, AtomicU64>,
    /// When the last one came into effect, in seconds since 1970; 0 before the first one.
    pub(super) swapped_at: Gauge<u64, AtomicU64>,
}

impl ChangeMeters {
    pub(super) fn register(registry: &mut Registry) -> Self {
        // 100 µs to 3.3 s.
        let histogram = || Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        let meters = ChangeMeters {
            compile: histogram(),
            propagation: histogram(),
            served: ServedSnapshots::default(),
            routers_built: Counter::default(),
        };
        registry.register(
            "portico_compile_duration_seconds",
            "Time to compile a change, from objects to a snapshot",
            meters.compile.clone(),
        );
        registry.register(
            "portico_propagation_seconds",
            "Time from the first sign of a change until the new snapshot is served",
            meters.propagation.clone(),
        );
        registry.register(
            "portico_snapshot_revision",
            "Number of snapshots served since the start",
            meters.served.revision.clone(),
        );
        registry.register(
            "portico_routers_built",
            "Host routers built because a route, Gateway or reference changed",
            meters.routers_built.clone(),
        );
        meters
    }

    /// Revision of the served snapshot.
    pub(super) fn revision(&self) -> u64 {
        self.served.revision.get()
    }

    pub(super) fn served(&self) -> ServedSnapshots {
        self.served.clone()
    }

    pub(super) fn record_compile(&self, took: Duration, routers_built: usize, swapped: bool) {
        self.compile.observe(took.as_secs_f64());
        self.routers_built.inc_by(routers_built as u64);
        if swapped {
            self.served.revision.inc();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.served.swapped_at.set(now.as_secs());
        }
    }

    pub(super) fn record_propagation(&self, took: Duration) {
        self.propagation.observe(took.as_secs_f64());
    }
}
