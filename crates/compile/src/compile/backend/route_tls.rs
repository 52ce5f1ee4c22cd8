//! TLS to a Service as an object about routes configures it for its own requests.

use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::sign::CertifiedKey;

use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::{TlsTrust, UpstreamProtocol, UpstreamTlsSettings};

/// What replaces the annotations of the Service about TLS. A BackendTLSPolicy replaces it in turn.
#[derive(Clone, Debug)]
pub(in crate::compile) struct RouteTls {
    /// `None` if any certificate is accepted.
    pub trust: Option<TlsTrust>,
    pub client: Option<Arc<CertifiedKey>>,
    /// The field of the object that names the client certificate.
    pub client_field: String,
    /// The cipher suites of handshakes, and with them the versions of TLS; `None` for all.
    pub suites: Option<Arc<[SupportedCipherSuite]>>,
}

impl RouteTls {
    pub(super) fn settings(
        &self,
        cx: CompileContext<'_>,
        protocol: UpstreamProtocol,
    ) -> Result<UpstreamTlsSettings, Diagnostic> {
        let (trust, client) = (self.trust.clone(), self.client.clone());
        let settings = match &self.suites {
            None => cx.inputs.upstreams.tls_settings(protocol, trust, client),
            Some(suites) => cx.inputs.upstreams.tls_settings_with_suites(protocol, trust, client, suites),
        };
        settings.map_err(|error| Diagnostic::error(&*self.client_field, error.to_string(), "use another certificate"))
    }
}
