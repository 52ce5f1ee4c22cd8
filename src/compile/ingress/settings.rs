//! Settings for all Ingresses, from flags.

use std::net::SocketAddr;
use std::sync::Arc;

use super::publish::PublishSource;
use crate::api::ObjectKey;
use crate::snapshot::certs::Certificate;
use crate::snapshot::router::by_conditions::RouterFlavor;

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
    /// The Secret with the certificate for hosts without one.
    pub default_secret: Option<ObjectKey>,
    /// The certificate if that Secret does not exist or is invalid. Without it, handshakes for hosts without a
    /// certificate are rejected.
    pub default_certificate: Option<Arc<Certificate>>,
    pub publish: PublishSource,
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
