//! TLS to servers that plugins connect to.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::upstream::tls::AcceptAnyCertificate;

/// Connectors with and without certificate verification.
#[derive(Clone)]
pub(super) struct TlsConnectors {
    verified: TlsConnector,
    unverified: TlsConnector,
}

impl TlsConnectors {
    pub(super) fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let system_verifier = Arc::new(Verifier::new(Arc::clone(&provider))?);
        let accepting_verifier = Arc::new(AcceptAnyCertificate(Arc::clone(&provider)));
        let connector = |verifier: Arc<dyn ServerCertVerifier>| -> anyhow::Result<TlsConnector> {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            // The library does not verify the certificate of a resumed session, which may have expired. Connections
            // to these servers stay open, so handshakes are few.
            config.resumption = Resumption::disabled();
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(TlsConnectors { verified: connector(system_verifier)?, unverified: connector(accepting_verifier)? })
    }

    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        name: &str,
        verify: bool,
    ) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| io::Error::other(format!("{name:?} is not a valid server name")))?;
        let connector = if verify { &self.verified } else { &self.unverified };
        connector.connect(name, socket).await
    }
}
