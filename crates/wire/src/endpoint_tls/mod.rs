//! TLS towards endpoints: settings, server names, and handshake errors.
//!
//! Settings are built when the configuration changes, once for all upstreams with equal settings.

mod anchors;
mod config_cache;
mod identity;
mod protocol;
mod sessions;
mod verified_names;
mod verifier;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use data_encoding::HEXLOWER;
use http::HeaderValue;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, HandshakeKind, SupportedCipherSuite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use anchors::TrustAnchors;
pub use config_cache::TlsConfigCache;
pub use identity::{EndpointIdentity, IdentityName};
pub use protocol::UpstreamProtocol;
use sessions::EndpointSessions;
pub use verified_names::VerifiedNames;
use verifier::EndpointVerifier;

use crate::unverified_certificates::AcceptServerWithoutProof;

/// TLS settings of an upstream. Settings with the same content are equal. They are part of an upstream's identity, so a
/// connection is never reused under different settings.
#[derive(Clone)]
pub struct UpstreamTlsSettings {
    /// Digest of everything that distinguishes settings: protocol, trust, cipher suites and client certificate, without
    /// its private key.
    digest: TlsDigest,
    has_client_certificate: bool,
    /// The server name of all handshakes; `None` for the host of each request.
    server_name: Option<HeaderValue>,
    config: Arc<EndpointTlsConfig>,
    sessions: EndpointSessions,
}

type TlsDigest = [u8; SHA256_OUTPUT_LEN];

/// Which certificates of endpoints are trusted.
#[derive(Clone, Debug)]
pub struct TlsTrust {
    pub anchors: Arc<TrustAnchors>,
    /// Maximum number of intermediate certificates; None for the limit of the TLS library.
    pub max_intermediates: Option<usize>,
    /// The required identity; `None` for the host of each request.
    pub identity: Option<EndpointIdentity>,
}

impl UpstreamTlsSettings {
    /// `protocol` is the only one that handshakes offer (ALPN); `None` to offer none. Without `trust` any certificate
    /// is accepted. `client` is the client certificate. Equal settings do not share the result; those of
    /// `UpstreamRegistry::tls_settings` do.
    pub fn new(
        protocol: impl Into<Option<UpstreamProtocol>>,
        trust: Option<TlsTrust>,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, rustls::Error> {
        TlsConfigCache::default().settings(protocol.into(), trust, client, None)
    }

    /// Whether certificates are verified.
    pub fn verifies(&self) -> bool {
        self.config.verifies
    }

    /// The server name of all handshakes, if the configuration sets one.
    pub fn configured_name(&self) -> Option<&str> {
        self.server_name.as_ref()?.to_str().ok()
    }

    /// Whether handshakes present a certificate.
    pub fn has_client_certificate(&self) -> bool {
        self.has_client_certificate
    }

    /// The configuration of the TLS library, for connections that are no part of an upstream. They share no sessions.
    pub fn library_config(&self) -> Arc<ClientConfig> {
        Arc::new(self.config.client.clone())
    }

    /// Whether all handshakes have the same server name, whatever the host of a request is.
    pub fn has_server_name(&self) -> bool {
        self.server_name.is_some()
    }

    /// The server name for a request with this `Host`, or for a connection without requests.
    pub fn server_name(&self, host: Option<&HeaderValue>) -> Option<Rc<UpstreamServerName>> {
        self.server_name.as_ref().or(host).map(UpstreamServerName::from_host)
    }

    /// Whether a certificate must have the name that the sender of a request has chosen.
    pub fn verifies_host(&self) -> bool {
        self.verifies() && self.config.required_name == RequiredName::Host
    }

    /// The same settings with another protocol, for connections that requests do not use.
    pub fn with_protocol(&self, protocol: UpstreamProtocol) -> Self {
        if self.config.client.alpn_protocols == alpn(protocol) {
            return self.clone();
        }
        let mut client = self.config.client.clone();
        client.alpn_protocols = alpn(protocol);
        let EndpointTlsConfig { verifier, verifies, required_name, .. } = &*self.config;
        let config = EndpointTlsConfig {
            client,
            verifier: Arc::clone(verifier),
            verifies: *verifies,
            required_name: *required_name,
        };
        // Sessions are found by the digest, and belong to one protocol.
        let mut digest = DigestBuilder::default();
        digest.add(&self.digest);
        digest.add(&alpn(protocol).concat());
        UpstreamTlsSettings { digest: digest.finish(), config: Arc::new(config), ..self.clone() }
    }

    pub fn client(&self) -> UpstreamTlsClient {
        UpstreamTlsClient { settings: self.clone() }
    }
}

/// The configuration of the TLS library, without sessions.
#[derive(Debug)]
struct EndpointTlsConfig {
    client: ClientConfig,
    verifier: Arc<dyn ServerCertVerifier>,
    /// Whether the verifier accepts some certificates only.
    verifies: bool,
    required_name: RequiredName,
}

/// Which name a certificate of an endpoint must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredName {
    /// The `Host` of the request.
    Host,
    /// Fixed by the configuration, whatever the client sends.
    Configured,
}

fn build_config(
    protocol: Option<UpstreamProtocol>,
    trust: Option<TlsTrust>,
    client: Option<Arc<CertifiedKey>>,
    suites: Option<&[SupportedCipherSuite]>,
) -> Result<EndpointTlsConfig, rustls::Error> {
    let provider = match suites {
        None => Arc::clone(&PROVIDER),
        Some(suites) => Arc::new(CryptoProvider { cipher_suites: suites.to_vec(), ..CryptoProvider::clone(&PROVIDER) }),
    };
    // A version without a suite would be offered in vain.
    let versions: Vec<_> = [&TLS13, &TLS12]
        .into_iter()
        .filter(|version| provider.cipher_suites.iter().any(|suite| *suite.version() == **version))
        .collect();
    let verifies = trust.is_some();
    let has_identity = trust.as_ref().is_some_and(|trust| trust.identity.is_some());
    let required_name = if has_identity { RequiredName::Configured } else { RequiredName::Host };
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Some(trust) => Arc::new(EndpointVerifier { trust, provider: Arc::clone(&provider) }),
        None => Arc::new(AcceptServerWithoutProof(Arc::clone(&provider))),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier));
    let mut client = match client {
        Some(client) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client))),
        None => config.with_no_client_auth(),
    };
    client.alpn_protocols = protocol.map(alpn).unwrap_or_default();
    client.resumption = Resumption::disabled();
    Ok(EndpointTlsConfig { client, verifier, verifies, required_name })
}

/// The names of a protocol in handshakes. FastCGI has none.
fn alpn(protocol: UpstreamProtocol) -> Vec<Vec<u8>> {
    match protocol {
        UpstreamProtocol::Http1 => vec![b"http/1.1".to_vec()],
        UpstreamProtocol::Http2 => vec![b"h2".to_vec()],
        UpstreamProtocol::FastCgi => Vec::new(),
    }
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(default_provider()));

fn settings_digest(
    protocol: Option<UpstreamProtocol>,
    trust: Option<&TlsTrust>,
    client: Option<&CertifiedKey>,
    suites: Option<&[SupportedCipherSuite]>,
) -> TlsDigest {
    let mut builder = DigestBuilder::default();
    let identity = trust.and_then(|trust| trust.identity.as_ref());
    builder.add(&[
        match protocol {
            Some(UpstreamProtocol::Http1) => 0,
            Some(UpstreamProtocol::Http2) => 1,
            None => 2,
            Some(UpstreamProtocol::FastCgi) => 3,
        },
        u8::from(trust.is_some()),
        u8::from(client.is_some()),
        u8::from(identity.is_some()),
    ]);
    if let Some(TlsTrust { anchors, max_intermediates, identity: _ }) = trust {
        builder.add(format!("{max_intermediates:?}").as_bytes());
        builder.add(anchors.digest());
    }
    if let Some(identity) = identity {
        identity.add_to(&mut builder);
    }
    // The key is determined by the first certificate, so it is not hashed.
    for certificate in client.iter().flat_map(|client| &client.cert) {
        builder.add(certificate);
    }
    if let Some(suites) = suites {
        // No certificate begins so.
        builder.add(b"suites");
        let ids: Vec<u8> = suites.iter().flat_map(|suite| u16::from(suite.suite()).to_be_bytes()).collect();
        builder.add(&ids);
    }
    builder.finish()
}

/// Digest of several byte strings, each prefixed with its length, so that different sequences cannot collide.
struct DigestBuilder(Context);

impl Default for DigestBuilder {
    fn default() -> Self {
        DigestBuilder(Context::new(&SHA256))
    }
}

impl DigestBuilder {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&bytes.len().to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> TlsDigest {
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

impl PartialEq for UpstreamTlsSettings {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for UpstreamTlsSettings {}

impl PartialOrd for UpstreamTlsSettings {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UpstreamTlsSettings {
    fn cmp(&self, other: &Self) -> Ordering {
        self.digest.cmp(&other.digest)
    }
}

impl Hash for UpstreamTlsSettings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for UpstreamTlsSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UpstreamTlsSettings({self})")
    }
}

/// `TLS unverified (terms …)`, `TLS verified for a.example with client certificate (terms …)`, with the beginning of
/// the digest.
impl fmt::Display for UpstreamTlsSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.verifies() { "TLS verified" } else { "TLS unverified" })?;
        if let Some(Ok(name)) = self.server_name.as_ref().map(HeaderValue::to_str) {
            write!(formatter, " for {name}")?;
        }
        if self.has_client_certificate {
            formatter.write_str(" with client certificate")?;
        }
        write!(formatter, " (terms {})", HEXLOWER.encode_display(&self.digest[..8]))
    }
}

/// The host of a request, which is sent as TLS server name and must match the endpoint's certificate. The comparison
/// ignores case and the port.
#[derive(Clone, Debug)]
pub struct UpstreamServerName(HeaderValue);

impl UpstreamServerName {
    /// The server name from a Host header; its port is ignored.
    pub(crate) fn from_host(host: &HeaderValue) -> Rc<Self> {
        Rc::new(UpstreamServerName(host.clone()))
    }

    /// The value of the header that it was read from.
    pub fn header(&self) -> &HeaderValue {
        &self.0
    }

    fn host(&self) -> &str {
        let header = self.0.to_str().unwrap_or_default();
        match header.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => &header[..header.find(':').unwrap_or(header.len())],
        }
    }
}

impl PartialEq for UpstreamServerName {
    fn eq(&self, other: &Self) -> bool {
        self.host().eq_ignore_ascii_case(other.host())
    }
}

impl Eq for UpstreamServerName {}

/// The TLS client of an upstream.
pub struct UpstreamTlsClient {
    settings: UpstreamTlsSettings,
}

impl fmt::Debug for UpstreamTlsClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UpstreamTlsClient").field("settings", &self.settings).finish()
    }
}

/// Whether a handshake may resume a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionUse {
    Resume,
    /// A full handshake, in which the endpoint sends its certificate.
    Full,
}

impl UpstreamTlsClient {
    pub async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        name: Option<&UpstreamServerName>,
        session_use: SessionUse,
    ) -> Result<TlsStream<TcpStream>, UpstreamHandshakeError> {
        let UpstreamTlsSettings { digest, config, sessions, .. } = &self.settings;
        let host = name.map(UpstreamServerName::host).unwrap_or_default();
        let server_name = match ServerName::try_from(host) {
            Ok(server_name) => server_name.to_owned(),
            // Only the host of a request may be invalid: a configured name is a DNS name.
            Err(_) if config.verifies => return Err(UpstreamHandshakeError::InvalidName(host.to_owned())),
            // Nothing is verified, so any name will do: an IP address is not sent as server name.
            Err(_) => ServerName::from(address.ip()),
        };
        let mut client = config.client.clone();
        if session_use == SessionUse::Resume {
            client.resumption = sessions.resumption(digest, address, &server_name);
        }
        let connecting = TlsConnector::from(Arc::new(client)).connect(server_name.clone(), stream);
        let connected = connecting.await;
        let stream = connected.map_err(|error| UpstreamHandshakeError::new(&error, host, config.required_name))?;
        let connection = stream.get_ref().1;
        // The library does not verify the certificate of a resumed session, which may have expired.
        if connection.handshake_kind() == Some(HandshakeKind::Resumed)
            && !config.accepts(connection.peer_certificates().unwrap_or_default(), &server_name, UnixTime::now())
        {
            sessions.forget(digest, address, &server_name);
            return Err(UpstreamHandshakeError::SessionOutdated);
        }
        Ok(stream)
    }
}

impl EndpointTlsConfig {
    /// Whether this chain of certificates is valid at this time.
    fn accepts(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>, now: UnixTime) -> bool {
        // The sessions of endpoints whose certificate is not verified may lack it.
        !self.verifies
            || chain.split_first().is_some_and(|(certificate, intermediates)| {
                self.verifier.verify_server_cert(certificate, intermediates, name, &[], now).is_ok()
            })
    }
}

/// Why a TLS handshake with an endpoint failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamHandshakeError {
    #[error("its certificate is not trusted: {0}")]
    Untrusted(String),
    #[error("its certificate is not valid for {0}: {1}")]
    WrongName(RequiredName, String),
    #[error("{0:?}, the Host that requests are forwarded with, is not a valid name in a certificate")]
    InvalidName(String),
    #[error(
        "it sent the alert {0:?}; check that it accepts the server name {1:?}, and whether it requires a client \
         certificate"
    )]
    Rejected(AlertDescription, String),
    #[error("it sent an alert after the handshake; check whether it requires a client certificate, or a different one")]
    RejectedAfterHandshake,
    #[error("its response is not TLS; check the protocol of the Service")]
    NotTls,
    #[error("the certificate of the resumed session is no longer valid")]
    SessionOutdated,
    #[error("it accepted the connection but did not complete the handshake within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Other(String),
}

impl UpstreamHandshakeError {
    fn new(error: &io::Error, host: &str, required_name: RequiredName) -> Self {
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(
                error @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
            )) => UpstreamHandshakeError::WrongName(required_name, error.to_string()),
            Some(rustls::Error::InvalidCertificate(error)) => UpstreamHandshakeError::Untrusted(error.to_string()),
            Some(rustls::Error::AlertReceived(alert)) => UpstreamHandshakeError::Rejected(*alert, host.to_owned()),
            Some(rustls::Error::InvalidMessage(_)) => UpstreamHandshakeError::NotTls,
            Some(error) => UpstreamHandshakeError::Other(error.to_string()),
            None => UpstreamHandshakeError::Other(error.to_string()),
        }
    }

    /// Whether the endpoint is to be ejected. The client may choose the server name, and endpoints may react to it with
    /// an untrusted or expired certificate, any alert, a close, or a delay; only a non-TLS response is independent of
    /// it. `name_succeeded`: a handshake with this name has succeeded recently, so the name does not explain the
    /// failure, except for a certificate of another name.
    pub fn ejects_endpoint(&self, name_succeeded: bool) -> bool {
        match self {
            UpstreamHandshakeError::NotTls => true,
            UpstreamHandshakeError::WrongName(..)
            | UpstreamHandshakeError::InvalidName(_)
            | UpstreamHandshakeError::SessionOutdated
            | UpstreamHandshakeError::Rejected(AlertDescription::UnrecognisedName, _) => false,
            UpstreamHandshakeError::Untrusted(_)
            | UpstreamHandshakeError::Rejected(..)
            | UpstreamHandshakeError::RejectedAfterHandshake
            | UpstreamHandshakeError::TimedOut(_)
            | UpstreamHandshakeError::Other(_) => name_succeeded,
        }
    }
}

impl fmt::Display for RequiredName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            RequiredName::Host => "the Host that requests are forwarded with",
            RequiredName::Configured => "a name that the BackendTLSPolicy requires",
        })
    }
}

/// Whether the error is an alert from the endpoint. With TLS 1.3, an endpoint may reject a connection by an alert after
/// the handshake.
pub fn is_alert(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::AlertReceived(_)))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
