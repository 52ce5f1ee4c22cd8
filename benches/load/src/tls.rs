//! A TLS client that accepts every certificate and returns it.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::plan::Protocol;

/// TLS client settings.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Settings for full handshakes with `host`. Sessions are not resumed, because a resumed session has no
    /// certificate.
    pub fn new(host: &str, protocol: Protocol) -> Result<Tls> {
        let mut provider = aws_lc_rs::default_provider();
        // A group that all servers support, so that all do the same work.
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificateVerifier(provider)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![match protocol {
            Protocol::Http1 | Protocol::WebSocket => b"http/1.1".to_vec(),
            Protocol::Http2 | Protocol::GrpcStream => b"h2".to_vec(),
        }];
        let name =
            ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is not a valid server name"))?;
        Ok(Tls { config: Arc::new(config), name })
    }

    /// Resumes sessions where possible.
    pub fn resuming(mut self) -> Tls {
        Arc::make_mut(&mut self.config).resumption = Resumption::store(Arc::new(TicketStore::default()));
        self
    }

    pub(crate) fn into_parts(self) -> (Arc<ClientConfig>, ServerName<'static>) {
        (self.config, self.name)
    }

    /// Returns the stream, the certificate, and whether a session was resumed.
    pub(crate) async fn connect(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Vec<u8>, bool)> {
        let stream = TlsConnector::from(Arc::clone(&self.config))
            .connect(self.name.clone(), stream)
            .await
            .context("the handshake failed")?;
        let first = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = first.context("the server sent no certificate")?.to_vec();
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((stream, certificate, resumed))
    }
}

/// Single-use session tickets. The store of rustls keeps only eight, too few for many connections opened at once.
#[derive(Debug, Default)]
struct TicketStore {
    tickets: Mutex<VecDeque<Tls13ClientSessionValue>>,
    group: Mutex<Option<NamedGroup>>,
}

impl ClientSessionStore for TicketStore {
    fn set_kx_hint(&self, _name: ServerName<'static>, group: NamedGroup) {
        *self.group.lock() = Some(group);
    }

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        *self.group.lock()
    }

    // TLS 1.2 sessions are not stored: all measured handshakes use TLS 1.3.
    fn set_tls12_session(&self, _name: ServerName<'static>, _session: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.tickets.lock();
        tickets.push_back(ticket);
        if tickets.len() > MAX_TICKETS {
            tickets.pop_front();
        }
    }

    fn take_tls13_ticket(&self, _name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets.lock().pop_front()
    }
}

/// Maximum number of stored tickets.
const MAX_TICKETS: usize = 4096;

/// Accepts any certificate whose key the server owns.
#[derive(Debug)]
struct AnyCertificateVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificateVerifier {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
