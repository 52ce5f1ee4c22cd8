//! Tells the task of health checks which upstreams to look at: those that were created, whose endpoints or settings
//! have changed, or with endpoints to be probed.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Upstream;

/// The upstreams to look at. Each is contained once, so there are never more than upstreams.
#[derive(Debug, Default)]
pub struct HealthEvents {
    changed: Mutex<BTreeMap<usize, Weak<Upstream>>>,
    arrived: Notify,
}

impl HealthEvents {
    fn add(&self, upstream: &Weak<Upstream>) {
        // The weak reference keeps the allocation, so that the key is unique.
        self.changed.lock().insert(upstream.as_ptr().addr(), Weak::clone(upstream));
        self.arrived.notify_one();
    }

    /// Waits for changed upstreams.
    pub(in crate::upstream) async fn next(&self) -> Vec<Arc<Upstream>> {
        loop {
            let changed = std::mem::take(&mut *self.changed.lock());
            let upstreams: Vec<_> = changed.into_values().filter_map(|upstream| upstream.upgrade()).collect();
            if !upstreams.is_empty() {
                return upstreams;
            }
            self.arrived.notified().await;
        }
    }
}

/// Where an upstream announces changes, with the reference to itself.
#[derive(Debug)]
pub(super) struct HealthAnnouncer {
    events: Arc<HealthEvents>,
    upstream: Weak<Upstream>,
}

impl Upstream {
    /// From now on, a task of health checks probes endpoints that can not be connected, apart from requests. Datagrams
    /// have no connections: their endpoints are tried with those of clients.
    pub fn attach_health_events(self: &Arc<Self>, events: &Arc<HealthEvents>) {
        let announcer = HealthAnnouncer { events: Arc::clone(events), upstream: Arc::downgrade(self) };
        if self.health_announcer.set(announcer).is_ok() {
            if self.key.transport == crate::transport_protocol::TransportProtocol::Tcp {
                self.detection.set_probed();
            }
            self.announce_health();
        }
    }

    /// The task of health checks is to look at this upstream.
    pub(super) fn announce_health(&self) {
        if let Some(HealthAnnouncer { events, upstream }) = self.health_announcer.get() {
            events.add(upstream);
        }
    }
}
