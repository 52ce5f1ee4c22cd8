//! TLS to servers that plugins connect to.

use std::io;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::plugin_api::{Authorities, RemoteTls};
use crate::upstream::tls::AcceptAnyCertificate;

/// Connectors with and without certificate verification, for each value of [`Alpn`].
#[derive(Clone)]
pub(super) struct TlsConnectors {
    provider: Arc<CryptoProvider>,
    verified: [TlsConnector; 2],
    unverified: [TlsConnector; 2],
}

/// The protocol that the handshake names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    /// Not HTTP, or HTTP/1.1.
    None,
    Http2,
}

impl TlsConnectors {
    pub(super) fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let system_verifier = Arc::new(Verifier::new(Arc::clone(&provider))?);
        let accepting_verifier = Arc::new(AcceptAnyCertificate(Arc::clone(&provider)));
        let both = |verifier: Arc<dyn ServerCertVerifier>| -> Result<[TlsConnector; 2], rustls::Error> {
            let without_alpn = connector(&provider, Arc::clone(&verifier), Alpn::None)?;
            Ok([without_alpn, connector(&provider, verifier, Alpn::Http2)?])
        };
        let (verified, unverified) = (both(system_verifier)?, both(accepting_verifier)?);
        Ok(TlsConnectors { provider, verified, unverified })
    }

    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        name: &str,
        tls: &RemoteTls,
        alpn: Alpn,
    ) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| io::Error::other(format!("{name:?} is not a valid server name")))?;
        if let Some(authorities) = tls.authorities.as_ref().filter(|_| tls.verify) {
            return self.with_authorities(authorities, alpn)?.connect(name, socket).await;
        }
        let [without_alpn, http2] = if tls.verify { &self.verified } else { &self.unverified };
        let connector = if alpn == Alpn::Http2 { http2 } else { without_alpn };
        connector.connect(name, socket).await
    }

    /// Built for each connection: those to the few servers with authorities of their own stay open.
    fn with_authorities(&self, authorities: &Authorities, alpn: Alpn) -> io::Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.certificates().iter().cloned());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(io::Error::other)?;
        connector(&self.provider, verifier, alpn).map_err(io::Error::other)
    }
}

fn connector(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    alpn: Alpn,
) -> Result<TlsConnector, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // The library does not verify the certificate of a resumed session, which may have expired. Connections to these
    // servers stay open, so handshakes are few.
    config.resumption = Resumption::disabled();
    if alpn == Alpn::Http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(TlsConnector::from(Arc::new(config)))
}
