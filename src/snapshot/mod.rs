//! What a request reads: immutable, complete, swapped as a whole.
//!
//! ```text
//!   Snapshot ─ binds: address:port ─▶ Bind ─ tls ─▶ HostMap ─▶ Certificates   by server name
//!                                      └ HostMap ─▶ Listener           one, the most specific (isolation)
//!                                                    ├ HostMap ─▶ HostRouter   most specific first, falling through
//!                                                    │             └ entries ─▶ Rule
//!                                                    └ or kong::Router ─ entries ─▶ Rule   one order over all hosts
//! ```
//!
//! Parts are shared between snapshots: what did not change is the same `Arc`.

pub mod certs;
pub mod cors;
pub mod dump;
pub(crate) mod escape;
pub mod fingerprint;
pub mod host;
pub mod kong;
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
    pub routes: Routes,
}

/// Whose order decides between the routes of a listener.
#[derive(Debug)]
pub enum Routes {
    /// Gateway API: by the routes' own hostnames, not by what these have in common with the listener's.
    Gateway(HostMap<Arc<HostRouter>>),
    /// Kong: one list for all hosts. Paths are matched with their slashes merged.
    Kong(Arc<kong::Router>),
}

impl Listener {
    /// The rule that serves this request. Lower case, without port.
    ///
    /// With the Gateway API that of the most specific host which has one: a host whose rules do not match is no dead end,
    /// but the next less specific one is asked.
    pub fn find(&self, host: &str, question: &Question<'_>) -> Option<Matched<'_>> {
        match &self.routes {
            Routes::Gateway(hosts) => hosts.candidates(host).find_map(|router| router.find(question)),
            Routes::Kong(router) => router.find(host, question),
        }
    }

    pub fn is_kong(&self) -> bool {
        matches!(self.routes, Routes::Kong(_))
    }
}
