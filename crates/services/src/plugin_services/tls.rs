//! TLS to servers that plugins connect to.

use std::io;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::plugin_api::{RemoteTls, TlsFiles};
use crate::tls_files::{read_authorities, read_client_certificate};
use crate::unverified_certificates::AcceptServerWithoutProof;

/// Connectors with and without certificate verification, for each value of [`Alpn`].
#[derive(Clone)]
pub(super) struct TlsConnectors {
    provider: Arc<CryptoProvider>,
    system_verifier: Arc<Verifier>,
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
        let accepting_verifier = Arc::new(AcceptServerWithoutProof(Arc::clone(&provider)));
        let both = |verifier: Arc<dyn ServerCertVerifier>| -> Result<[TlsConnector; 2], rustls::Error> {
            let without_alpn = connector(&provider, Arc::clone(&verifier), None, Alpn::None)?;
            Ok([without_alpn, connector(&provider, verifier, None, Alpn::Http2)?])
        };
        let verified = both(Arc::<Verifier>::clone(&system_verifier))?;
        let unverified = both(accepting_verifier)?;
        Ok(TlsConnectors { provider, system_verifier, verified, unverified })
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
        if let Some(files) = &tls.files {
            return self.with_files(Arc::clone(files), tls.verify, alpn).await?.connect(name, socket).await;
        }
        let [without_alpn, http2] = if tls.verify { &self.verified } else { &self.unverified };
        let connector = if alpn == Alpn::Http2 { http2 } else { without_alpn };
        connector.connect(name, socket).await
    }

    /// Built for each connection: those to the few servers with files of their own stay open.
    async fn with_files(&self, files: Arc<TlsFiles>, verify: bool, alpn: Alpn) -> io::Result<TlsConnector> {
        let read = move || {
            let authorities = files.authorities.as_deref().map(read_authorities).transpose()?;
            let client = files.client.as_ref().map(read_client_certificate).transpose()?;
            Ok::<_, String>((authorities, client))
        };
        let (authorities, client) = spawn_blocking(read).await?.map_err(io::Error::other)?;
        let verifier: Arc<dyn ServerCertVerifier> = match authorities {
            _ if !verify => Arc::new(AcceptServerWithoutProof(Arc::clone(&self.provider))),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(authorities);
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
                verifier.build().map_err(io::Error::other)?
            }
            None => Arc::<Verifier>::clone(&self.system_verifier),
        };
        connector(&self.provider, verifier, client, alpn).map_err(io::Error::other)
    }
}

fn connector(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    client: Option<Arc<CertifiedKey>>,
    alpn: Alpn,
) -> Result<TlsConnector, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client {
        Some(client) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client))),
        None => config.with_no_client_auth(),
    };
    // The library does not verify the certificate of a resumed session, which may have expired. Connections to these
    // servers stay open, so handshakes are few.
    config.resumption = Resumption::disabled();
    if alpn == Alpn::Http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(TlsConnector::from(Arc::new(config)))
}
