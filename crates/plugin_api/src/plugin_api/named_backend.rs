//! The server outside of the cluster that a backend names, for plugins that send requests to it themselves.

use std::sync::Arc;

use crate::endpoint_tls::UpstreamTlsSettings;

/// A backend that may be one server with a name.
pub trait NamedBackend {
    /// `None` if it has several endpoints, addresses in place of a name, or gets HTTP/2 only.
    fn server(&self) -> Option<NamedServer>;
}

/// A server by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedServer {
    pub host: Arc<str>,
    pub port: u16,
    pub tls: Option<NamedServerTls>,
}

/// The TLS settings of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedServerTls {
    /// The server name of the handshake, if it is not the host.
    pub name: Option<String>,
    /// Its trust, the names that it requires, and its client certificate.
    pub settings: UpstreamTlsSettings,
}
