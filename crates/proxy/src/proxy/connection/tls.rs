//! TLS with clients. All server configurations of rustls are built here.
//!
//! ```text
//!   ClientHello ─▶ server name ─▶ current snapshot ─▶ certificates of the listener ─▶ handshake ─▶ TlsSession
//! ```
//!
//! The certificates come from the snapshot that is current at the ClientHello, so a changed Secret needs no new socket
//! and closes no connection. Session tickets and the session cache belong to the process and outlive snapshots.
//! Listeners that require client certificates resume no sessions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{
    Error, HandshakeKind, PeerIncompatible, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::client_hello::{ReceivedHello, normalize_name};
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::consumers::chain_digest;
use crate::plugin_api::{CertificateFindings, ClientCertificate};
use crate::snapshot::certs::Certificates;
use crate::snapshot::client_validation::{ClientValidation, ClientValidationMode};
use crate::snapshot::handshake_limits::HandshakeLimits;
use crate::snapshot::routing::ClientTls;
use crate::unverified_certificates::AcceptClientWithKey;

/// The operator's settings for TLS with clients.
#[derive(Clone, Debug, Default)]
pub struct TlsPolicy {
    pub min_version: MinTlsVersion,
    /// In the server's order of preference, which overrides the client's. Empty means all suites of rustls, in the
    /// client's order.
    pub ciphers: Vec<SupportedCipherSuite>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinTlsVersion {
    #[default]
    V1_2,
    V1_3,
}

/// The ALPN protocols, in order of preference. A client without ALPN uses HTTP/1.1.
const ALPN_PROTOCOLS: [&[u8]; 3] = [HTTP2, b"http/1.1", b"http/1.0"];
const HTTP2: &[u8] = b"h2";

/// The TLS state that all handshakes of the process share.
pub(in crate::proxy) struct TlsTerminator {
    /// For listeners that do not verify clients.
    config: ServerConfig,
    /// For handshakes that request a certificate because a plugin reads it.
    asking_config: ServerConfig,
    versions: Vec<&'static SupportedProtocolVersion>,
}

/// The parameters negotiated in a handshake.
#[derive(Debug)]
pub(in crate::proxy) struct TlsSession {
    /// In lower case. None if the client sent no server name, or an IP address instead.
    pub(in crate::proxy) server_name: Option<Arc<str>>,
    pub(in crate::proxy) version: &'static str,
    /// For example `TLS13_AES_256_GCM_SHA384`.
    pub(in crate::proxy) cipher: Option<&'static str>,
    pub(in crate::proxy) resumed: bool,
    /// HTTP/2 was negotiated by ALPN.
    pub(in crate::proxy) http2: bool,
    /// How the certificate of the client was verified; `None` if the client was not asked for one.
    pub(in crate::proxy) client_validation: Option<Arc<ClientValidation>>,
    /// The certificates of the client, if a plugin reads them.
    client_chain: Option<Box<ClientChain>>,
}

/// The certificates of a client that has proved that it has the private key of the first one. Empty if it sent none.
#[derive(Debug)]
struct ClientChain {
    certificates: Vec<CertificateDer<'static>>,
    digest: Sha256Digest,
    findings: CertificateFindings,
}

impl ClientChain {
    fn new(certificates: &[CertificateDer<'_>]) -> Self {
        let digest = chain_digest(certificates);
        let certificates = certificates.iter().cloned().map(CertificateDer::into_owned).collect();
        ClientChain { certificates, digest, findings: CertificateFindings::default() }
    }
}

impl TlsSession {
    /// What routing reads of it.
    pub(in crate::proxy) fn for_routing(&self) -> ClientTls<'_> {
        ClientTls { server_name: self.server_name.as_deref(), client_validation: self.client_validation.as_ref() }
    }

    /// What plugins read of it.
    pub(in crate::proxy) fn client_certificate(&self) -> ClientCertificate<'_> {
        match self.client_chain.as_deref() {
            None => ClientCertificate::NotRequested,
            Some(ClientChain { certificates, .. }) if certificates.is_empty() => ClientCertificate::Missing,
            Some(ClientChain { certificates, digest, findings }) => {
                ClientCertificate::Chain(certificates, digest, findings)
            }
        }
    }
}

impl TlsTerminator {
    pub(in crate::proxy) fn new(policy: &TlsPolicy) -> Result<Self, Error> {
        let mut provider = aws_lc_rs::default_provider();
        if !policy.ciphers.is_empty() {
            provider.cipher_suites.clone_from(&policy.ciphers);
        }
        let versions = match policy.min_version {
            MinTlsVersion::V1_2 => vec![&version::TLS13, &version::TLS12],
            MinTlsVersion::V1_3 => vec![&version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)?
            .with_no_client_auth()
            // Has no certificates; each handshake sets its own resolver.
            .with_cert_resolver(Arc::new(ListenerCertResolver::default()));
        // Without configured suites the client's order applies: a phone may lack AES in hardware.
        config.ignore_client_order = !policy.ciphers.is_empty();
        // The ticketer's keys are random and rotate every few hours; tickets of the previous key are still accepted.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // For TLS 1.2 clients without ticket support.
        config.session_storage = ServerSessionMemoryCache::new(SESSION_CACHE_SIZE);
        config.alpn_protocols = ALPN_PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        let mut asking_config = ServerConfig::builder_with_provider(Arc::clone(config.crypto_provider()))
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(Arc::new(AcceptClientWithKey(Arc::clone(config.crypto_provider()))))
            .with_cert_resolver(Arc::new(ListenerCertResolver::default()));
        asking_config.ignore_client_order = config.ignore_client_order;
        asking_config.alpn_protocols.clone_from(&config.alpn_protocols);
        // A session that began without requesting a certificate must not be resumed here.
        asking_config.ticketer = aws_lc_rs::Ticketer::new()?;
        asking_config.session_storage = ServerSessionMemoryCache::new(SESSION_CACHE_SIZE);
        Ok(TlsTerminator { config, asking_config, versions })
    }

    /// The configuration for handshakes of a host with limits, which verifies no clients.
    fn limited_config(&self, limits: &HandshakeLimits, asks_client: bool) -> Result<ServerConfig, Error> {
        let cell = &limits.server_configs[usize::from(asks_client)];
        if let Some(config) = cell.get() {
            return Ok(config.clone());
        }
        let base = if asks_client { &self.asking_config } else { &self.config };
        let cipher_suites = limits.choice.of_permitted(&base.crypto_provider().cipher_suites);
        let is_used = |version: &SupportedProtocolVersion| cipher_suites.iter().any(|suite| suite.version() == version);
        let versions: Vec<_> = self.versions.iter().copied().filter(|version| is_used(version)).collect();
        if versions.is_empty() {
            return Err(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon));
        }
        let provider = CryptoProvider { cipher_suites, ..CryptoProvider::clone(base.crypto_provider()) };
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions)?;
        let builder = match asks_client {
            true => builder.with_client_cert_verifier(Arc::new(AcceptClientWithKey(provider))),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ListenerCertResolver::default()));
        let has_order = limits.choice.tls12.is_some() || base.ignore_client_order;
        config.ignore_client_order = limits.choice.prefers_server.unwrap_or(has_order);
        config.alpn_protocols.clone_from(&base.alpn_protocols);
        // A session is resumed only with a suite that the handshake would choose, and for the same server name.
        config.ticketer = Arc::clone(&base.ticketer);
        config.session_storage = Arc::clone(&base.session_storage);
        Ok(cell.get_or_init(|| config).clone())
    }

    /// The configuration for handshakes of listeners with these certificates. `asks_client`: whether a plugin reads the
    /// certificate of the client.
    fn config_for(
        &self,
        certificates: &Certificates,
        asks_client: bool,
        limits: Option<&HandshakeLimits>,
    ) -> Result<ServerConfig, Error> {
        let validation = certificates.client_validation();
        if let (Some(limits), None) = (limits, validation) {
            return self.limited_config(limits, asks_client);
        }
        // A listener that accepts every client also accepts those whose keys do not fit their certificates.
        if asks_client && validation.is_none_or(|validation| validation.mode() != ClientValidationMode::Required) {
            return Ok(self.asking_config.clone());
        }
        let Some(validation) = validation else { return Ok(self.config.clone()) };
        if let Some(config) = validation.server_config.get() {
            return Ok(config.clone());
        }
        let mut config = ServerConfig::builder_with_provider(Arc::clone(self.config.crypto_provider()))
            .with_protocol_versions(&self.versions)?
            .with_client_cert_verifier(Arc::clone(validation.verifier()))
            .with_cert_resolver(Arc::new(ListenerCertResolver::default()));
        config.ignore_client_order = self.config.ignore_client_order;
        config.alpn_protocols.clone_from(&self.config.alpn_protocols);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match validation.mode() {
            // The library resumes a session without verifying the client's certificate, and a resumed session gets a
            // new ticket: the client would stay trusted after its certificate has expired. Without tickets and storage,
            // every handshake is a full one.
            ClientValidationMode::Required => config.send_tls13_tickets = 0,
            // Every client is accepted, so a session extends no trust. It is still not shared with other listeners.
            ClientValidationMode::InsecureFallback => config.ticketer = aws_lc_rs::Ticketer::new()?,
        }
        Ok(validation.server_config.get_or_init(|| config).clone())
    }

    /// Performs the handshake after the ClientHello, with the certificates of the listener, for requests.
    /// `asks_client`: whether a certificate is requested because a plugin reads it. `limits`: those of the host.
    pub(in crate::proxy) async fn accept(
        &self,
        hello: ReceivedHello,
        certificates: Arc<Certificates>,
        asks_client: bool,
        limits: Option<&HandshakeLimits>,
    ) -> Result<(TlsStream<TcpStream>, TlsSession), FailedHandshake> {
        let config = match self.config_for(&certificates, asks_client, limits) {
            Ok(config) => config,
            Err(error) => {
                send_alert(&mut hello.into_parts().0, HANDSHAKE_FAILURE).await;
                return Err(ClientHandshakeError::from_tls_error(&error).into());
            }
        };
        let (stream, mut session) = self.handshake(hello, certificates, config).await?;
        if asks_client {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            session.client_chain = Some(Box::new(ClientChain::new(certificates)));
        }
        Ok((stream, session))
    }

    /// Like [`TlsTerminator::accept`], for connections that are forwarded: no ALPN protocol is selected, whatever the
    /// client offers.
    pub(in crate::proxy) async fn accept_stream(
        &self,
        hello: ReceivedHello,
        certificates: Arc<Certificates>,
    ) -> Result<(TlsStream<TcpStream>, TlsSession), FailedHandshake> {
        let mut config = self.config_for(&certificates, false, None).map_err(|_| ClientHandshakeError::Other)?;
        config.alpn_protocols.clear();
        self.handshake(hello, certificates, config).await
    }

    async fn handshake(
        &self,
        hello: ReceivedHello,
        certificates: Arc<Certificates>,
        mut config: ServerConfig,
    ) -> Result<(TlsStream<TcpStream>, TlsSession), FailedHandshake> {
        let server_name = hello.server_name.clone();
        let mut handshake = hello.into_handshake();
        if certificates.all().is_empty() {
            send_alert(&mut handshake.io, INTERNAL_ERROR).await;
            return Err(ClientHandshakeError::NoCertificate.into());
        }
        let client_validation = certificates.client_validation().cloned();
        config.cert_resolver = Arc::new(ListenerCertResolver { certificates });
        let stream = match handshake.into_stream(Arc::new(config)).into_fallible().await {
            Ok(stream) => stream,
            Err((error, socket)) => {
                let refused = client_validation.is_some().then_some(socket);
                return Err(FailedHandshake { reason: ClientHandshakeError::from_io_error(&error), refused });
            }
        };
        let (_, connection) = stream.get_ref();
        let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let http2 = connection.alpn_protocol() == Some(HTTP2);
        let session =
            TlsSession { server_name, version, cipher, resumed, http2, client_validation, client_chain: None };
        Ok((stream, session))
    }
}

/// Selects from the certificates of the listener with the requested server name.
#[derive(Debug, Default)]
struct ListenerCertResolver {
    certificates: Arc<Certificates>,
}

impl ResolvesServerCert for ListenerCertResolver {
    /// The best match with a key type that the client supports. If there is none, the first certificate, with which the
    /// handshake fails.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(normalize_name);
        let schemes = hello.signature_schemes();
        let mut certificates = self.certificates.by_preference(name.as_deref());
        let supported = certificates.find(|certificate| certificate.key.key.choose_scheme(schemes).is_some());
        supported.or(self.certificates.all().first()).map(|certificate| Arc::clone(&certificate.key))
    }
}

/// Closes the connection because no listener has the server name.
pub(in crate::proxy) async fn reject_server_name(hello: ReceivedHello) {
    send_alert(&mut hello.into_parts().0, UNRECOGNIZED_NAME).await;
}

/// Sends a fatal alert in plain text, before keys are negotiated (RFC 8446, section 6), and ends the connection. Errors
/// are ignored: the connection is closed anyway.
async fn send_alert(stream: &mut TcpStream, description: u8) {
    drop(stream.write_all(&[21, 3, 3, 0, 2, 2, description]).await);
    drop(stream.shutdown().await);
}

/// Reads and drops what a client sends after its refused certificate, until it closes: with TLS 1.3, it sends its
/// request before it learns of the refusal, and unread bytes would reset the connection before the client reads the
/// alert.
pub(in crate::proxy) async fn deliver_alert(mut socket: TcpStream) {
    let drain = async {
        socket.shutdown().await?;
        let mut remaining = ALERT_LINGER_BYTES;
        let mut buffer = [0; 1024];
        while remaining > 0 {
            match socket.read(&mut buffer).await? {
                0 => break,
                length => remaining = remaining.saturating_sub(length),
            }
        }
        io::Result::Ok(())
    };
    drop(timeout(ALERT_LINGER_TIMEOUT, drain).await);
}

/// How long `deliver_alert` reads, and how much. A request in one TLS record fits.
const ALERT_LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const ALERT_LINGER_BYTES: usize = 32 * 1024;
/// Descriptions of TLS alerts (RFC 8446, section 6.2).
const HANDSHAKE_FAILURE: u8 = 40;
const UNRECOGNIZED_NAME: u8 = 112;
const INTERNAL_ERROR: u8 = 80;
/// Sessions of TLS 1.2 clients without tickets; each takes about 300 bytes.
const SESSION_CACHE_SIZE: usize = 4096;

/// A handshake that failed.
#[derive(Debug)]
pub(in crate::proxy) struct FailedHandshake {
    pub(in crate::proxy) reason: ClientHandshakeError,
    /// The socket of a client whose certificate may have been refused, for [`deliver_alert`].
    pub(in crate::proxy) refused: Option<TcpStream>,
}

impl From<ClientHandshakeError> for FailedHandshake {
    fn from(reason: ClientHandshakeError) -> Self {
        FailedHandshake { reason, refused: None }
    }
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ClientHandshakeError {
    /// The handshake timed out.
    Timeout,
    /// It timed out waiting for a permit, because too many handshakes were in progress.
    Overload,
    /// The handshake took long while others waited for a permit.
    Stalled,
    /// The client closed the connection during the handshake.
    ClientDisconnected,
    /// The received bytes are not TLS.
    NotTls,
    /// No listener of the port has the requested server name.
    UnknownName,
    /// The listener has no usable certificate.
    NoCertificate,
    /// The client offers only disabled TLS versions.
    Version,
    /// No common cipher suite, key-exchange group or signature scheme.
    NoCommonCipher,
    /// None of the client's ALPN protocols is supported.
    NoCommonProtocol,
    /// The client sent no certificate, or none that is trusted, and the listener requires one.
    ClientCertificate,
    /// The client sent an alert, most often because it does not trust the certificate.
    ClientRejected,
    /// The client violated the TLS protocol.
    ProtocolViolation,
    /// Anything else.
    Other,
}

impl ClientHandshakeError {
    pub(in crate::proxy) const ALL: [ClientHandshakeError; 14] = [
        ClientHandshakeError::Timeout,
        ClientHandshakeError::Overload,
        ClientHandshakeError::Stalled,
        ClientHandshakeError::ClientDisconnected,
        ClientHandshakeError::NotTls,
        ClientHandshakeError::UnknownName,
        ClientHandshakeError::NoCertificate,
        ClientHandshakeError::Version,
        ClientHandshakeError::NoCommonCipher,
        ClientHandshakeError::NoCommonProtocol,
        ClientHandshakeError::ClientCertificate,
        ClientHandshakeError::ClientRejected,
        ClientHandshakeError::ProtocolViolation,
        ClientHandshakeError::Other,
    ];

    /// The label for metrics and logs.
    pub(in crate::proxy) fn label(self) -> &'static str {
        match self {
            ClientHandshakeError::Timeout => "timeout",
            ClientHandshakeError::Overload => "overload",
            ClientHandshakeError::Stalled => "stalled",
            ClientHandshakeError::ClientDisconnected => "client_disconnected",
            ClientHandshakeError::NotTls => "not_tls",
            ClientHandshakeError::UnknownName => "unknown_name",
            ClientHandshakeError::NoCertificate => "no_certificate",
            ClientHandshakeError::Version => "version",
            ClientHandshakeError::NoCommonCipher => "no_common_cipher",
            ClientHandshakeError::NoCommonProtocol => "no_common_protocol",
            ClientHandshakeError::ClientCertificate => "client_certificate",
            ClientHandshakeError::ClientRejected => "client_rejected",
            ClientHandshakeError::ProtocolViolation => "protocol_violation",
            ClientHandshakeError::Other => "other",
        }
    }

    fn from_io_error(error: &io::Error) -> Self {
        let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        error.map_or(ClientHandshakeError::ClientDisconnected, ClientHandshakeError::from_tls_error)
    }

    pub(super) fn from_tls_error(error: &Error) -> Self {
        use PeerIncompatible::{
            NoCipherSuitesInCommon, NoKxGroupsInCommon, NoSignatureSchemesInCommon, ServerDoesNotSupportTls12Or13,
            ServerTlsVersionIsDisabledByOurConfig, SupportedVersionsExtensionRequired, Tls12NotOffered,
            Tls12NotOfferedOrEnabled,
        };
        match error {
            Error::InvalidMessage(_) => ClientHandshakeError::NotTls,
            Error::PeerIncompatible(NoCipherSuitesInCommon | NoKxGroupsInCommon | NoSignatureSchemesInCommon) => {
                ClientHandshakeError::NoCommonCipher
            }
            Error::PeerIncompatible(
                ServerDoesNotSupportTls12Or13
                | ServerTlsVersionIsDisabledByOurConfig
                | SupportedVersionsExtensionRequired
                | Tls12NotOffered
                | Tls12NotOfferedOrEnabled,
            ) => ClientHandshakeError::Version,
            Error::NoApplicationProtocol => ClientHandshakeError::NoCommonProtocol,
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => ClientHandshakeError::ClientCertificate,
            Error::AlertReceived(_) => ClientHandshakeError::ClientRejected,
            Error::PeerIncompatible(_)
            | Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::DecryptError => ClientHandshakeError::ProtocolViolation,
            _ => ClientHandshakeError::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::telemetry::stats::ProxyHeaderOutcome;

    /// Dashboards depend on the labels, so the documentation lists exactly the existing ones.
    #[test]
    fn every_outcome_is_documented() {
        let page = include_str!("../../../../../docs/listening.md");
        let section = |title: &str| -> Vec<&str> {
            let (_, section) = page.split_once(title).unwrap();
            let section = section.split("\n## ").next().unwrap();
            section
                .lines()
                .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(label, _)| label))
                .collect()
        };
        let handshakes: Vec<_> =
            ["full", "resumed"].into_iter().chain(ClientHandshakeError::ALL.map(ClientHandshakeError::label)).collect();
        assert_eq!(section("\n## How handshakes end\n"), handshakes);
        assert_eq!(section("\n## Behind a load balancer\n"), ProxyHeaderOutcome::ALL.map(|(_, label)| label));
        let lines = include_str!("../../../../../docs/request-errors.md").lines();
        let failed: Vec<_> = lines
            .filter_map(|line| line.strip_prefix("| `portico_tls_handshakes_total` | `")?.split('`').next())
            .collect();
        assert_eq!(failed, ClientHandshakeError::ALL.map(ClientHandshakeError::label));
    }

    #[test]
    fn outcomes_match_their_counter_index() {
        for (index, failure) in ClientHandshakeError::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, index);
        }
        for (index, (outcome, _)) in ProxyHeaderOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn policy_without_usable_cipher_is_rejected() {
        let ciphers = vec![aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        assert!(TlsTerminator::new(&TlsPolicy { min_version: MinTlsVersion::V1_3, ciphers: ciphers.clone() }).is_err());
        assert!(TlsTerminator::new(&TlsPolicy { min_version: MinTlsVersion::V1_2, ciphers }).is_ok());
    }
}
