//! The routing configuration that requests read: immutable, complete, and replaced atomically.
//!
//! ```text
//!   Snapshot ─ consumers ─▶ ConsumerDirectory
//!      └ binds: BindAddress ─▶ Bind  ─ tls ─▶ HostMap ─▶ Certificates   by server name
//!                               └ HostMap ─▶ HttpListener
//!                                             ├ HostMap ─▶ HostRouter ─ matches ─▶ RouteRule   Gateway API
//!                                             └ kong::Router ─ entries ─▶ RouteRule            Kong
//! ```
//!
//! A request uses one listener: that of the most specific hostname. The `HostRouter`s that match the host are searched
//! from the most specific one on; a `kong::Router` has one order for all hosts.
//!
//! Snapshots share parts: an unchanged part is the same `Arc` in the next snapshot.

mod bind_address;
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
pub mod timeouts_and_retries;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plugin_api::ConsumerDirectory;
pub use bind_address::{BindAddress, TransportProtocol};
use certs::{Certificates, PortTls};
use host::HostMap;
use router::{HostRouter, Matched, RoutingRequest};

/// Everything the proxy serves. A request loads the snapshot once and keeps it until the request ends.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub binds: BTreeMap<BindAddress, Arc<Bind>>,
    /// All consumers, for authentication plugins.
    pub consumers: Arc<ConsumerDirectory>,
}

/// The listeners of one Gateway on one port of one address.
#[derive(Debug)]
pub struct Bind {
    pub listeners: HostMap<Arc<HttpListener>>,
    /// `None` if the port serves plain HTTP. Otherwise it has the same hostnames as `listeners`.
    pub tls: Option<PortTls>,
}

impl Bind {
    /// The one listener whose routes a request for this host may use. The host is lower case and has no port.
    pub fn listener(&self, host: &str) -> Option<&Arc<HttpListener>> {
        self.listeners.most_specific(host)
    }

    /// The listener that TLS SNI selects for this server name. The name is lower case.
    pub fn listener_by_server_name(&self, name: Option<&str>) -> Option<&Arc<HttpListener>> {
        certs::select_by_server_name(&self.listeners, name)
    }

    /// The certificates for this server name: `None` if no listener matches, or the port has no TLS.
    pub fn certificates(&self, name: Option<&str>) -> Option<&Arc<Certificates>> {
        certs::select_by_server_name(&self.tls.as_ref()?.listeners, name)
    }
}

/// A listener with its routes.
#[derive(Debug)]
pub struct HttpListener {
    /// `namespace/gateway`.
    pub gateway: Arc<str>,
    pub name: Arc<str>,
    /// The port that clients see and that redirects contain.
    pub port: u16,
    pub routes: Routes,
}

/// The routes of a listener, in the precedence order of their API.
#[derive(Debug)]
pub enum Routes {
    /// Gateway API: one router for each hostname that a route lists, even if the hostname of the listener is narrower.
    Gateway(HostMap<Arc<HostRouter>>),
    /// Kong: one router for all hosts. Paths are matched after duplicate slashes are merged.
    Kong(Arc<kong::Router>),
}

impl HttpListener {
    /// The rule that serves this request. The host is lower case and has no port.
    ///
    /// With the Gateway API, the rules of the most specific host are tried first. If none of them matches, the search
    /// continues with the next less specific host.
    pub fn find(&self, host: &str, request: &RoutingRequest<'_>) -> Option<Matched<'_>> {
        match &self.routes {
            Routes::Gateway(hosts) => hosts.candidates(host).find_map(|router| router.find(request)),
            Routes::Kong(router) => router.find(host, request),
        }
    }

    pub fn is_kong(&self) -> bool {
        matches!(self.routes, Routes::Kong(_))
    }
}
