//! Settings for all Ingresses, from flags.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::publish::PublishSource;
use crate::api::gateway::LabelSelector;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::snapshot::certs::Certificate;
use crate::snapshot::router::by_conditions::RouterFlavor;
use crate::transport_protocol::TransportProtocol;

/// Settings for all Ingresses.
#[derive(Clone, Debug, Default)]
pub struct IngressSettings {
    /// The listener for plain text. `None` disables it.
    pub http: Option<IngressListener>,
    /// The listener for TLS.
    pub https: Option<IngressListener>,
    pub flavor: RouterFlavor,
    pub host_ownership: HostOwnership,
    /// Whether to serve Ingresses with annotations of other controllers that restrict requests there, and not here.
    pub ignore_foreign_guards: bool,
    /// The ConfigMap with the settings for all Ingresses of the dialect of ingress-nginx.
    pub nginx_config_map: Option<ObjectKey>,
    /// The Service that responds to requests which no Ingress of that dialect has, and in place of errors.
    pub nginx_default_backend: Option<ObjectKey>,
    /// Whether annotations of that dialect may let the TLS connections of a host pass through.
    pub nginx_ssl_passthrough: bool,
    /// The labels of the namespaces whose Ingresses are served in that dialect; `None` for those of all.
    pub nginx_namespaces: Option<LabelSelector>,
    /// Whether Ingresses of that dialect with a default backend are left out.
    pub nginx_excludes_catch_all: bool,
    /// The ConfigMaps of ports of that dialect, for connections and for datagrams.
    pub nginx_tcp_services: Option<ObjectKey>,
    pub nginx_udp_services: Option<ObjectKey>,
    /// The Secret with the certificate for hosts without one.
    pub default_secret: Option<ObjectKey>,
    /// The certificate if that Secret does not exist or is invalid. Without it, handshakes for hosts without a
    /// certificate are rejected.
    pub default_certificate: Option<Arc<Certificate>>,
    pub publish: PublishSource,
    /// The ports of TCPIngresses, UDPIngresses and ConfigMaps of ports. `None` if it is unknown which there are, as in
    /// `portico check`.
    pub streams: Option<Vec<StreamListener>>,
}

/// A port that TCPIngresses, UDPIngresses or ConfigMaps of ports share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamListener {
    pub address: SocketAddr,
    pub protocol: StreamProtocol,
}

/// The protocol of the clients of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamProtocol {
    Tcp,
    /// TLS, which ends here.
    Tls,
    Udp,
}

impl StreamProtocol {
    pub(in crate::compile) fn transport(self) -> TransportProtocol {
        match self {
            StreamProtocol::Tcp | StreamProtocol::Tls => TransportProtocol::Tcp,
            StreamProtocol::Udp => TransportProtocol::Udp,
        }
    }

    pub(in crate::compile) fn name(self) -> &'static str {
        match self {
            StreamProtocol::Tcp => "tcp",
            StreamProtocol::Tls => "tls",
            StreamProtocol::Udp => "udp",
        }
    }

    /// What follows the port in `--ingress-stream-ports`.
    pub(in crate::compile) fn suffix(self) -> &'static str {
        match self {
            StreamProtocol::Tcp => "",
            StreamProtocol::Tls => "/tls",
            StreamProtocol::Udp => "/udp",
        }
    }
}

/// A port that all Ingresses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngressListener {
    pub address: SocketAddr,
    /// The port that clients connect to.
    pub public_port: u16,
    /// Whether to listen even if no Ingress is served.
    pub always_listen: bool,
}

impl IngressSettings {
    /// The port of redirects to HTTPS.
    pub(super) fn public_https(&self) -> u16 {
        self.https.map_or(443, |listener| listener.public_port)
    }

    /// The ConfigMaps of ports, each once.
    pub(in crate::compile) fn stream_config_maps(&self) -> BTreeSet<ObjectId> {
        let named = [&self.nginx_tcp_services, &self.nginx_udp_services].into_iter().flatten();
        named.map(|key| ObjectId::new(Kind::ConfigMap, key.clone())).collect()
    }

    /// The ConfigMaps that flags name, so that no object refers to them.
    pub fn config_maps(&self) -> BTreeSet<ObjectId> {
        let settings = self.nginx_config_map.clone().map(|key| ObjectId::new(Kind::ConfigMap, key));
        settings.into_iter().chain(self.stream_config_maps()).collect()
    }
}

/// Whether Ingresses of several namespaces may have routes for the same exact host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostOwnership {
    /// They may, and are reported.
    #[default]
    Any,
    /// The host belongs to the namespace of the oldest Ingress that names it. What Ingresses of other namespaces have
    /// for the host is not served.
    Namespace,
}
