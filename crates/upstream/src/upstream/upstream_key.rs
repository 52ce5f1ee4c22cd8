//! The identity of an upstream: a port of a Service or XBackend, with what distinguishes connections to it.

use std::fmt;
use std::sync::Arc;

use super::proxy_protocol::ProxyProtocol;
use super::route_balancing::RouteBalancing;
use crate::endpoint_tls::UpstreamProtocol;
use crate::endpoint_tls::UpstreamTlsSettings;
use crate::transport_protocol::{TransportPort, TransportProtocol};

/// The kind of object that an upstream is a port of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamSource {
    #[default]
    Service,
    XBackend,
}

/// Identity of an upstream: a port of a Service or XBackend with its protocol. Pools and load-balancing state last as
/// long as the key is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamKey {
    pub namespace: Arc<str>,
    /// The name of the Service or XBackend.
    pub service: Arc<str>,
    pub port: u16,
    /// The protocol of the port.
    pub transport: TransportProtocol,
    pub protocol: UpstreamProtocol,
    /// None for plain text.
    pub tls: Option<UpstreamTlsSettings>,
    /// The KongServiceFacade used instead of the Service, which may configure load balancing differently.
    pub facade: Option<Arc<str>>,
    /// Connect to the Service's ClusterIP, where kube-proxy balances, instead of to its endpoints.
    pub via_cluster_ip: bool,
    /// The PROXY header with which forwarded connections begin. Always `None` for requests, since clients share their
    /// connections.
    pub proxy_protocol: Option<ProxyProtocol>,
    pub source: UpstreamSource,
    /// The load balancing of the routes that have the upstream for themselves; `None` for that of the Service.
    pub balancing: Option<RouteBalancing>,
}

/// `namespace/service:port`, with `/UDP` for such a port, then ` as XBackend` for an XBackend, ` as FACADE` for a
/// facade, ` via ClusterIP`, ` with PROXY VERSION`, and the load balancing of its routes.
impl fmt::Display for UpstreamKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = TransportPort { transport: self.transport, number: self.port };
        write!(formatter, "{}/{}:{port}", self.namespace, self.service)?;
        if self.source == UpstreamSource::XBackend {
            formatter.write_str(" as XBackend")?;
        }
        if let Some(facade) = &self.facade {
            write!(formatter, " as {facade}")?;
        }
        if self.via_cluster_ip {
            formatter.write_str(" via ClusterIP")?;
        }
        if let Some(version) = self.proxy_protocol {
            write!(formatter, " with PROXY {}", version.name())?;
        }
        match &self.balancing {
            Some(balancing) => write!(formatter, " {balancing}"),
            None => Ok(()),
        }
    }
}
