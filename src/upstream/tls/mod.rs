//! TLS towards endpoints: on which terms, under which name, and what can go wrong before a request is sent.
//!
//! Everything is built when configuration changes, and once for all upstreams that are spoken to on the same terms.

mod anchors;
mod proven;
mod shared;
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
use http::HeaderValue;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Protocol;
pub use anchors::Anchors;
pub(super) use proven::Proven;
pub(super) use shared::Shared;
pub use verifier::Anybody;
use verifier::Verifier;

/// On which terms TLS is spoken to an upstream. Terms that say the same are equal, and connections under one are never used
/// under another, since they are part of an upstream's identity.
#[derive(Clone)]
pub struct Terms {
    /// Of everything that decides what a connection is good for. Of certificates alone: no key is in it.
    digest: Digest,
    verifies: bool,
    presents: bool,
    config: Arc<ClientConfig>,
}

type Digest = [u8; SHA256_OUTPUT_LEN];

/// Whose certificates are taken.
#[derive(Clone, Debug)]
pub struct Trust {
    pub anchors: Arc<Anchors>,
    /// How many authorities may stand between the endpoint and one of these. None is as many as the library takes.
    pub depth: Option<usize>,
}

impl Terms {
    /// Without trust any certificate is taken. `client` is what is shown to an endpoint that asks who we are. They share nothing with
    /// others that say the same; those of a [`Registry`](super::Registry) do.
    pub fn new(
        protocol: Protocol,
        trust: Option<Trust>,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, rustls::Error> {
        Shared::default().terms(protocol, trust, client)
    }

    /// Whether certificates are looked at.
    pub fn verifies(&self) -> bool {
        self.verifies
    }

    pub(super) fn client(&self) -> Client {
        Client { connector: TlsConnector::from(Arc::clone(&self.config)), verifies: self.verifies }
    }
}

fn config(
    protocol: Protocol,
    trust: Option<Trust>,
    client: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::clone(&PROVIDER);
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Some(trust) => Arc::new(Verifier { trust, provider: Arc::clone(&provider) }),
        None => Arc::new(Anybody(Arc::clone(&provider))),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client {
        Some(client) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![match protocol {
        Protocol::Http1 => b"http/1.1".to_vec(),
        Protocol::Http2 => b"h2".to_vec(),
    }];
    // In a handshake that resumes a session the library asks no verifier: a certificate that has expired since, or that has
    // been replaced for a reason, would go on to be good for as long as the endpoint gives tickets.
    config.resumption = Resumption::disabled();
    Ok(config)
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(default_provider()));

fn digest(protocol: Protocol, trust: Option<&Trust>, client: Option<&CertifiedKey>) -> Digest {
    let mut parts = Parts::default();
    parts.add(&[u8::from(protocol == Protocol::Http2), u8::from(trust.is_some()), u8::from(client.is_some())]);
    if let Some(Trust { anchors, depth }) = trust {
        parts.add(format!("{depth:?}").as_bytes());
        parts.add(anchors.digest());
    }
    // The key belongs to the first certificate, so that it needs not be looked at.
    for certificate in client.iter().flat_map(|client| &client.cert) {
        parts.add(certificate);
    }
    parts.finish()
}

/// A digest of several texts, each with its length, so that no two rows of them read alike.
struct Parts(Context);

impl Default for Parts {
    fn default() -> Self {
        Parts(Context::new(&SHA256))
    }
}

impl Parts {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&bytes.len().to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> Digest {
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Terms {}

impl PartialOrd for Terms {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Terms {
    fn cmp(&self, other: &Self) -> Ordering {
        self.digest.cmp(&other.digest)
    }
}

impl Hash for Terms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Terms({self})")
    }
}

/// `TLS unverified (terms …)`, `TLS verified with client certificate (terms …)`, with what tells them from others that read
/// alike.
impl fmt::Display for Terms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.verifies { "TLS verified" } else { "TLS unverified" })?;
        if self.presents {
            formatter.write_str(" with client certificate")?;
        }
        formatter.write_str(" (terms ")?;
        self.digest[..8].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        formatter.write_str(")")
    }
}

/// The host that a request goes to, which the endpoint is asked for and has to have a certificate for. Equal regardless of
/// case.
#[derive(Clone, Debug)]
pub struct Name(HeaderValue);

impl Name {
    /// Of a Host, whose port does not count.
    pub fn of(host: &HeaderValue) -> Rc<Self> {
        Rc::new(Name(host.clone()))
    }

    fn host(&self) -> &str {
        let written = self.0.to_str().unwrap_or_default();
        let bare = |host: &'_ str| -> usize { host.find(':').unwrap_or(host.len()) };
        match written.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => &written[..bare(written)],
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.host().eq_ignore_ascii_case(other.host())
    }
}

impl Eq for Name {}

/// What an upstream shakes hands with.
pub(super) struct Client {
    connector: TlsConnector,
    verifies: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("verifies", &self.verifies).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        name: Option<&Name>,
    ) -> Result<TlsStream<TcpStream>, HandshakeFailure> {
        let host = name.map(Name::host).unwrap_or_default();
        let server = match ServerName::try_from(host) {
            Ok(server) => server.to_owned(),
            Err(_) if self.verifies => return Err(HandshakeFailure::NoName(host.to_owned())),
            // An address is not sent, and nobody looks for it in the certificate.
            Err(_) => ServerName::from(address.ip()),
        };
        self.connector.connect(server, stream).await.map_err(|error| HandshakeFailure::new(&error, host))
    }
}

/// Why an endpoint cannot be spoken to in TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFailure {
    #[error("its certificate is not trusted: {0}")]
    Untrusted(String),
    #[error("its certificate is for others than the Host that requests go on with: {0}")]
    WrongName(String),
    #[error("{0:?}, the Host that requests go on with, is no name that a certificate can be for")]
    NoName(String),
    #[error("it refuses with {0:?}; does it know {1:?}, or want a client certificate?")]
    Refused(AlertDescription, String),
    #[error("it refuses once hands are shaken; does it want a client certificate, or another one?")]
    Afterwards,
    #[error("what it says is no TLS; is the protocol of the Service right?")]
    NotTls,
    #[error("it took the connection and did not shake hands within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Other(String),
}

impl HandshakeFailure {
    fn new(error: &io::Error, host: &str) -> Self {
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(
                error @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
            )) => HandshakeFailure::WrongName(error.to_string()),
            Some(rustls::Error::InvalidCertificate(error)) => HandshakeFailure::Untrusted(error.to_string()),
            Some(rustls::Error::AlertReceived(alert)) => HandshakeFailure::Refused(*alert, host.to_owned()),
            Some(rustls::Error::InvalidMessage(_)) => HandshakeFailure::NotTls,
            Some(error) => HandshakeFailure::Other(error.to_string()),
            None => HandshakeFailure::Other(error.to_string()),
        }
    }

    /// Whether the endpoint is to be passed over for a while. The name that it was asked for may be up to the client, and by
    /// the name endpoints choose what they do: show a certificate that nobody trusts or that has expired, refuse with whatever
    /// alert, close, or wait for somebody behind them. Only who knows no TLS has not read it. `proven`: the name is one under
    /// which others like it shake hands, so it explains no more than that they have different names.
    pub(super) fn blames_endpoint(&self, proven: bool) -> bool {
        match self {
            HandshakeFailure::NotTls => true,
            HandshakeFailure::WrongName(_)
            | HandshakeFailure::NoName(_)
            | HandshakeFailure::Refused(AlertDescription::UnrecognisedName, _) => false,
            HandshakeFailure::Untrusted(_)
            | HandshakeFailure::Refused(..)
            | HandshakeFailure::Afterwards
            | HandshakeFailure::TimedOut(_)
            | HandshakeFailure::Other(_) => proven,
        }
    }
}

/// Whether an endpoint ends a connection that was made because it does not want us: of TLS 1.3 it says so only then.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::AlertReceived(_)))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
