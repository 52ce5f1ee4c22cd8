//! What a request reads: immutable, complete, swapped as a whole.
//!
//! ```text
//!   Snapshot ─ binds: address:port ─▶ Bind
//!                                      └ HostMap ─▶ Listener           one, the most specific (isolation)
//!                                                    └ HostMap ─▶ HostRouter   most specific first, falling through
//!                                                                  └ entries ─▶ Rule
//! ```
//!
//! Parts are shared between snapshots: what did not change is the same `Arc`.

pub mod dump;
pub mod host;
pub mod router;
pub mod rule;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use host::HostMap;
use router::HostRouter;

/// Everything the proxy serves. A request loads it once and keeps it to its end.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub binds: BTreeMap<SocketAddr, Arc<Bind>>,
}

/// The listeners of one Gateway on one port of one address.
#[derive(Debug)]
pub struct Bind {
    pub listeners: HostMap<Arc<Listener>>,
}

/// A listener and the routers of the hosts that its routes name.
#[derive(Debug)]
pub struct Listener {
    /// `namespace/gateway`.
    pub gateway: Arc<str>,
    pub name: Arc<str>,
    /// The port clients see, as redirects write it.
    pub port: u16,
    pub hosts: HostMap<Arc<HostRouter>>,
}
