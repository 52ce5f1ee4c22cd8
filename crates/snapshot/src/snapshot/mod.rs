//! The routing configuration that requests read: immutable, complete, and replaced atomically.
//!
//! ```text
//!   Snapshot ─ consumers ─▶ ConsumerDirectory
//!      └ binds: BindAddress ─▶ Bind ─ served ┬▶ StreamRule           TCP, UDP: one rule for all connections, sessions
//!                                            └▶ HttpBind
//!           HttpBind ─ tls ─▶ PortTls ─▶ Certificates, or a StreamRule for connections   by server name
//!              └ HostMap ─▶ HttpListener
//!                            ├ HostMap ─▶ HostRouter ─ matches ─▶ RouteRule   order by host
//!                            ├ ConditionsRouter ─ entries ─▶ RouteRule        order by conditions
//!                            └ IngressRoutes: both; the host decides which comes first
//! ```
//!
//! A request uses one listener: that of the most specific hostname. The `HostRouter`s that match the host are searched
//! from the most specific one on; a `ConditionsRouter` searches all that match, and ranks decide.
//!
//! Snapshots share parts: an unchanged part is the same `Arc` in the next snapshot.

pub mod access_logs;
mod bind_map;
pub mod certs;
pub mod client_validation;
pub mod cors;
pub mod dump;
pub mod error_backend;
mod escape;
pub mod external_auth;
pub mod fast_cgi;
pub mod fingerprint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod gateway_traces;
pub mod handshake_limits;
pub mod host;
pub mod ingress_routes;
pub mod location_path;
pub mod location_snippet;
pub mod location_steps;
pub mod next_upstream;
pub mod own_udp_listeners;
pub mod path_edit;
pub mod path_reach;
pub mod path_regex;
mod path_regexes;
pub mod port_tls;
pub mod redirect;
pub mod regex;
pub mod regex_steps;
pub mod response_rate;
pub mod router;
pub mod routing;
pub mod rule;
pub mod rule_options;
pub mod rule_telemetry;
pub mod stream;
pub mod timeouts_and_retries;
pub mod upstream_path;
pub mod uri_template;

use std::sync::Arc;

use crate::plugin_api::ConsumerDirectory;
use crate::plugin_chain::Chain;
pub use crate::transport_protocol::TransportProtocol;
use access_logs::AccessLogSettings;
pub use bind_map::BindMap;
use certs::Certificates;
use gateway_traces::GatewayTraces;
use host::{HostMap, HostPattern};
use ingress_routes::{IngressRoutes, RouteOrder};
use own_udp_listeners::OwnUdpListeners;
use port_tls::PortTls;
use router::by_conditions::ConditionsRouter;
use router::{HostRouter, RoutingRequest};
use rule::RouteRule;
use rule_options::UnmatchedStyle;
use stream::StreamRule;

/// Everything the proxy serves. A request loads the snapshot once and keeps it until the request ends.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub binds: BindMap,
    /// All consumers, for authentication plugins.
    pub consumers: Arc<ConsumerDirectory>,
    /// The plugins that run for responses to requests without a rule. `None` if there are none.
    pub unmatched_plugins: Option<Arc<Chain>>,
    /// Sources whose datagrams are dropped.
    pub own_udp_listeners: Arc<OwnUdpListeners>,
    pub access_logs: Arc<AccessLogSettings>,
    pub traces: Arc<GatewayTraces>,
}

impl Snapshot {
    /// The binds that serve HTTP.
    pub fn http_binds(&self) -> impl Iterator<Item = &HttpBind> {
        self.binds.iter().filter_map(|(_, bind)| bind.http())
    }
}

/// One bound address: what its listeners serve.
#[derive(Debug)]
pub struct Bind {
    pub served: Served,
}

/// What a bound address receives. An address with TLS serves HTTP, and TLS that it passes through.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most addresses serve HTTP, and each exists once, behind a pointer")]
pub enum Served {
    Http(HttpBind),
    /// TCP connections, whose bytes are forwarded unparsed.
    Tcp(Arc<StreamRule>),
    /// UDP datagrams, which are forwarded unparsed.
    Udp(Arc<StreamRule>),
}

impl Bind {
    /// An address with HTTP listeners. `tls` is `None` if the port serves plain HTTP.
    pub fn with_http(listeners: HostMap<Arc<HttpListener>>, tls: Option<PortTls>) -> Self {
        Bind { served: Served::Http(HttpBind { listeners, tls }) }
    }

    /// An address with a TCP listener.
    pub fn with_tcp(rule: Arc<StreamRule>) -> Self {
        Bind { served: Served::Tcp(rule) }
    }

    /// An address with a UDP listener.
    pub fn with_udp(rule: Arc<StreamRule>) -> Self {
        Bind { served: Served::Udp(rule) }
    }

    /// A copy in which the listener with this hostname is replaced. `None` if the address serves another protocol.
    pub fn with_listener(&self, hostname: &HostPattern, listener: &Arc<HttpListener>) -> Option<Self> {
        let HttpBind { mut listeners, tls } = self.http()?.clone();
        listeners.insert(hostname.clone(), Arc::clone(listener));
        Some(Bind::with_http(listeners, tls))
    }

    /// The HTTP listeners. `None` if the address serves another protocol.
    pub fn http(&self) -> Option<&HttpBind> {
        match &self.served {
            Served::Http(http) => Some(http),
            Served::Tcp(_) | Served::Udp(_) => None,
        }
    }
}

/// The HTTP listeners of one Gateway on one port of one address.
#[derive(Clone, Debug)]
pub struct HttpBind {
    pub listeners: HostMap<Arc<HttpListener>>,
    /// `None` if the port serves plain HTTP. Otherwise it terminates TLS for the hostnames of `listeners`, and may pass
    /// connections through for others.
    pub tls: Option<PortTls>,
}

impl HttpBind {
    /// Whether connections for this host are forwarded, so that a request for it belongs on no connection of the port.
    pub(crate) fn is_for_streams(&self, host: &str) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_for_streams(host))
    }

    /// The HTTP listener that TLS SNI selects for this server name. The name is lower case.
    pub fn listener_by_server_name(&self, name: Option<&str>) -> Option<&Arc<HttpListener>> {
        if self.is_for_streams(name.unwrap_or_default()) {
            return None;
        }
        port_tls::select_by_server_name(&self.listeners, name)
    }

    /// The style of responses to requests that are refused before a listener is selected. An address serves Gateways,
    /// whose listeners have the default style, or Ingresses, whose only listener would have the request. If several
    /// dialects share that, only the host could tell which one the client expects, and it may not be readable.
    pub fn style_without_listener(&self) -> UnmatchedStyle {
        match self.listeners.iter().next() {
            Some((_, listener)) if matches!(listener.routes, Routes::ByConditions(_)) => listener.unmatched,
            _ => UnmatchedStyle::default(),
        }
    }

    /// The certificates for this server name: `None` if no listener matches, or the listener does not terminate TLS.
    pub fn certificates(&self, name: Option<&str>) -> Option<&Arc<Certificates>> {
        self.tls.as_ref()?.certificates_for(name)
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
    /// The style of responses to requests that no rule matches. See also [`HttpListener::style_without_rule`].
    pub unmatched: UnmatchedStyle,
}

/// The routes of a listener, in one order of precedence, or in several.
#[derive(Debug)]
pub enum Routes {
    /// The most specific host decides first, as the Gateway API defines: one router for each hostname that a route
    /// lists, even if the hostname of the listener is narrower.
    ByHost(HostMap<Arc<HostRouter>>),
    /// The number of conditions decides first, in one router for all hosts.
    ByConditions(Arc<ConditionsRouter>),
    /// Ingresses of several dialects: each dialect has its order, and the host decides which order comes first.
    Ingresses(Arc<IngressRoutes>),
}

impl Routes {
    /// The rule of each match, in the order of the dump.
    pub fn rules(&self) -> Box<dyn Iterator<Item = &Arc<RouteRule>> + '_> {
        match self {
            Routes::ByHost(hosts) => Box::new(ingress_routes::rules_by_host(hosts)),
            Routes::ByConditions(router) => Box::new(ingress_routes::rules_by_conditions(router)),
            Routes::Ingresses(routes) => Box::new(routes.rules()),
        }
    }
}

impl HttpListener {
    /// The style of the response to a request that no rule matches. If several dialects share the listener, that of the
    /// dialect whose order comes first for the host.
    pub fn style_without_rule(&self, host: &str, request: &RoutingRequest<'_>) -> UnmatchedStyle {
        match &self.routes {
            Routes::Ingresses(routes) if routes.first_order(host, request) != Some(RouteOrder::ByConditions) => {
                UnmatchedStyle::default()
            }
            Routes::ByHost(_) | Routes::ByConditions(_) | Routes::Ingresses(_) => self.unmatched,
        }
    }

    /// Whether handshakes with this server name request a certificate, because a plugin of a rule that may
    /// serve them reads it. In the order by conditions, the rules of all hosts count.
    pub fn requests_client_certificate(&self, server_name: Option<&str>) -> bool {
        match &self.routes {
            Routes::ByHost(hosts) => match server_name {
                Some(name) => hosts.candidates(name).any(|router| router.requests_client_certificate()),
                None => hosts.iter().any(|(_, router)| router.requests_client_certificate()),
            },
            Routes::ByConditions(router) => router.requests_client_certificate(),
            Routes::Ingresses(routes) => routes.requests_client_certificate(server_name),
        }
    }

    /// Whether requests for this host may not use a connection that was opened for this other one, because one of both
    /// verifies the certificates of its clients.
    fn separates_hosts(&self, server_name: &str, host: &str) -> bool {
        match &self.routes {
            Routes::Ingresses(routes) => routes.verifies_clients(host) || routes.verifies_clients(server_name),
            Routes::ByHost(_) | Routes::ByConditions(_) => false,
        }
    }

    /// Whether the routes are those of Ingresses, which share one listener for all hosts.
    fn serves_ingresses(&self) -> bool {
        !matches!(self.routes, Routes::ByHost(_))
    }
}
