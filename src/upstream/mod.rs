//! Upstreams: what stands behind a backend, with the memory that configuration changes must not lose.
//!
//! ```text
//!   snapshot ──Arc<Upstream>──▶ endpoints (ArcSwap: churn swaps these, not the snapshot)
//!                               pick ──▶ per-worker pool ──▶ connection
//! ```

pub mod dns;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Identity of an upstream: a port of a Service. As long as it stays in use, its pools and cursors stay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamKey {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    pub port: u16,
}

/// `namespace/service:port`.
impl fmt::Display for UpstreamKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Ip(SocketAddr),
    /// A name to be resolved by DNS, whose answers are followed for as long as they live.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(formatter, "{address}"),
            Address::Name { host, port } => write!(formatter, "{host}:{port}"),
        }
    }
}

/// The endpoints that may be sent requests now, in sorted order without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub addresses: Vec<Address>,
}

/// One upstream, shared by all routes and workers that use it.
#[derive(Debug)]
pub struct Upstream {
    pub key: UpstreamKey,
    endpoints: ArcSwap<Endpoints>,
    /// Round robin over endpoints, from all workers.
    pub cursor: AtomicUsize,
}

impl Upstream {
    fn new(key: UpstreamKey) -> Self {
        Upstream { key, endpoints: ArcSwap::default(), cursor: AtomicUsize::new(0) }
    }

    pub fn endpoints(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.endpoints.load()
    }

    pub fn set_endpoints(&self, endpoints: Endpoints) {
        if **self.endpoints.load() != endpoints {
            self.endpoints.store(Arc::new(endpoints));
        }
    }
}

/// All upstreams by identity.
#[derive(Debug, Default)]
pub struct Registry {
    upstreams: Mutex<BTreeMap<UpstreamKey, Arc<Upstream>>>,
}

impl Registry {
    /// The upstream of this identity, made if there is none yet.
    pub fn upstream(&self, key: &UpstreamKey) -> Arc<Upstream> {
        let mut upstreams = self.upstreams.lock();
        upstreams.entry(key.clone()).or_insert_with(|| Arc::new(Upstream::new(key.clone()))).clone()
    }

    /// Forgets what no snapshot uses any more. Requests in flight keep what they hold.
    pub fn retain(&self, used: &BTreeSet<UpstreamKey>) {
        self.upstreams.lock().retain(|key, _| used.contains(key));
    }
}
