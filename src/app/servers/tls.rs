//! TLS towards servers that plugins talk to.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::upstream::tls::Anybody;

/// With and without a look at the certificate.
pub(super) struct Configs {
    verified: TlsConnector,
    unverified: TlsConnector,
}

impl Configs {
    pub(super) fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Verifier::new(Arc::clone(&provider))?);
        let unverified = Arc::new(Anybody(Arc::clone(&provider)));
        let config = |verifier: Arc<dyn ServerCertVerifier>| -> anyhow::Result<TlsConnector> {
            let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Configs { verified: config(verifier)?, unverified: config(unverified)? })
    }

    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        name: &str,
        verify: bool,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| io::Error::other(format!("{name:?} can be the name of no server")))?;
        let connector = if verify { &self.verified } else { &self.unverified };
        connector.connect(name, socket).await
    }
}
