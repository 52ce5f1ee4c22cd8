//! What a request reads: immutable, complete, swapped as a whole.
//!
//! ```text
//!   Snapshot ─ binds: address:port ─▶ Bind ─ tls ─▶ HostMap ─▶ Certificates   by server name
//!                                      └ HostMap ─▶ Listener           one, the most specific (isolation)
//!                                                    └ HostMap ─▶ HostRouter   most specific first, falling through
//!                                                                  └ entries ─▶ Rule
//! ```
//!
//! Parts are shared between snapshots: what did not change is the same `Arc`.

pub mod certs;
pub mod cors;
pub mod dump;
pub(crate) mod escape;
pub mod host;
pub mod path_edit;
pub mod redirect;
pub mod router;
pub mod rule;
pub mod tries;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::plugin::Directory;
use certs::{Certificates, Tls};
use host::HostMap;
use router::{HostRouter, Matched, Question};

/// Everything the proxy serves. A request loads it once and keeps it to its end.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub binds: BTreeMap<SocketAddr, Arc<Bind>>,
    /// Who may be asking, for plugins that want to know.
    pub consumers: Arc<Directory>,
}

/// The listeners of one Gateway on one port of one address.
#[derive(Debug)]
pub struct Bind {
    pub listeners: HostMap<Arc<Listener>>,
    /// None if the port serves plain text. Otherwise it has the same hostnames as `listeners`.
    pub tls: Option<Tls>,
}

impl Bind {
    /// The one listener whose routes a request for this host may use. Lower case, without port.
    pub fn listener(&self, host: &str) -> Option<&Arc<Listener>> {
        self.listeners.most_specific(host)
    }

    /// The listener that a TLS connection with this server name belongs to. Lower case.
    pub fn greeted(&self, name: Option<&str>) -> Option<&Arc<Listener>> {
        certs::greeted(&self.listeners, name)
    }

    /// What is shown to a client that asks for this server name: None if no listener is meant, or the port has no TLS.
    pub fn certificates(&self, name: Option<&str>) -> Option<&Arc<Certificates>> {
        certs::greeted(&self.tls.as_ref()?.listeners, name)
    }
}

/// A listener and the routers of the hosts that its routes name.
#[derive(Debug)]
pub struct Listener {
    /// `namespace/gateway`.
    pub gateway: Arc<str>,
    pub name: Arc<str>,
    /// The port clients see, as redirects write it.
    pub port: u16,
    /// By the routes' own hostnames, not by what these have in common with the listener's.
    pub hosts: HostMap<Arc<HostRouter>>,
}

impl Listener {
    /// The rule of the most specific host that has one for this request. Lower case, without port.
    ///
    /// A host whose rules do not match is no dead end: the next less specific one is asked.
    pub fn find(&self, host: &str, question: &Question<'_>) -> Option<Matched<'_>> {
        self.hosts.candidates(host).find_map(|router| router.find(question))
    }
}
