//! TLS with clients. The only place where server configurations are made.
//!
//! ```text
//!   ClientHello ─▶ server name ─▶ present snapshot ─▶ certificates of the listener ─▶ handshake ─▶ Session
//! ```
//!
//! The certificates come from the snapshot that is served when the client says hello, so a Secret that changes needs no
//! new socket and ends no connection. What resumes sessions belongs to the process and outlives every snapshot.

use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert, ServerConfig, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{Error, HandshakeKind, PeerIncompatible, ProtocolVersion, SupportedCipherSuite, version};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::snapshot::certs::Certificates;

/// What the operator decides about TLS with clients.
#[derive(Clone, Debug, Default)]
pub struct TlsPolicy {
    pub min_version: TlsVersion,
    /// Best first, and then this order counts. Empty means all that rustls has, in the client's order.
    pub ciphers: Vec<SupportedCipherSuite>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    V1_2,
    V1_3,
}

/// What is offered by ALPN, best first. A client that does not use ALPN speaks HTTP/1.1.
pub(crate) const OFFERED: [&[u8]; 3] = [HTTP2, b"http/1.1", b"http/1.0"];
const HTTP2: &[u8] = b"h2";

/// What all handshakes of the process share.
pub(crate) struct Terminator {
    config: ServerConfig,
}

/// What was agreed on in a handshake.
#[derive(Debug)]
pub(crate) struct Session {
    /// In lower case. None if the client sent none, or an address in its place.
    pub(crate) server_name: Option<Arc<str>>,
    pub(crate) version: &'static str,
    pub(crate) resumed: bool,
    /// Both sides want HTTP/2 (ALPN).
    pub(crate) http2: bool,
}

impl Terminator {
    pub(crate) fn new(policy: &TlsPolicy) -> Result<Self, Error> {
        let mut provider = aws_lc_rs::default_provider();
        if !policy.ciphers.is_empty() {
            provider.cipher_suites.clone_from(&policy.ciphers);
        }
        let versions: &[&rustls::SupportedProtocolVersion] = match policy.min_version {
            TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
            TlsVersion::V1_3 => &[&version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown::default()));
        // Without an opinion of ours the client knows best: a phone may have no AES in hardware.
        config.ignore_client_order = !policy.ciphers.is_empty();
        // Its keys are random and change by themselves every few hours; tickets of the key before are still good.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        // For clients of TLS 1.2 that know no tickets.
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.alpn_protocols = OFFERED.iter().map(|name| name.to_vec()).collect();
        Ok(Terminator { config })
    }

    /// Shakes hands with a client. `certificates` says what its server name is shown: None if no listener has that name.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        certificates: impl FnOnce(Option<&str>) -> Option<Arc<Certificates>>,
    ) -> Result<(TlsStream<TcpStream>, Session), Failure> {
        let mut hello =
            LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(|error| Failure::of(&error))?;
        let server_name: Option<Arc<str>> = hello.client_hello().server_name().map(normal);
        let certificates = match certificates(server_name.as_deref()) {
            Some(certificates) if certificates.all().is_empty() => Err((Failure::NoCertificate, INTERNAL_ERROR)),
            Some(certificates) => Ok(certificates),
            None => Err((Failure::UnknownName, UNRECOGNIZED_NAME)),
        };
        let certificates = match certificates {
            Ok(certificates) => certificates,
            Err((failure, alert)) => {
                // Whether the client still hears it changes nothing.
                drop(hello.io.write_all(&fatal(alert)).await);
                drop(hello.io.shutdown().await);
                return Err(failure);
            }
        };
        let mut config = self.config.clone();
        config.cert_resolver = Arc::new(Shown { certificates });
        let stream = hello.into_stream(Arc::new(config)).await.map_err(|error| Failure::of(&error))?;
        let (_, connection) = stream.get_ref();
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let http2 = connection.alpn_protocol() == Some(HTTP2);
        Ok((stream, Session { server_name, version, resumed, http2 }))
    }
}

/// As listeners and certificates write it.
fn normal(server_name: &str) -> Arc<str> {
    let name = server_name.strip_suffix('.').unwrap_or(server_name);
    name.to_ascii_lowercase().into()
}

/// The certificates of the listener that a client has asked for.
#[derive(Debug, Default)]
struct Shown {
    certificates: Arc<Certificates>,
}

impl ResolvesServerCert for Shown {
    /// The best fit that has a key the client can check. If there is none, the handshake fails whatever we show.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(normal);
        let schemes = hello.signature_schemes();
        let mut fitting = self.certificates.by_fit(name.as_deref());
        let fit = fitting.find(|certificate| certificate.key.key.choose_scheme(schemes).is_some());
        fit.or(self.certificates.all().first()).map(|certificate| Arc::clone(&certificate.key))
    }
}

/// An alert in plain text, as it is sent before there are keys (RFC 8446, section 6).
fn fatal(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

/// RFC 6066, section 3.
const UNRECOGNIZED_NAME: u8 = 112;
const INTERNAL_ERROR: u8 = 80;
/// Of TLS 1.2 without tickets; each takes some 300 bytes.
const SESSIONS: usize = 4096;

/// Why there is no TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It took too long.
    Timeout,
    /// Too many others were at it all the while.
    Overload,
    /// The client left in the middle.
    ClientGone,
    /// What came is not TLS.
    NotTls,
    /// No listener of the port has the name that the client asked for.
    UnknownName,
    /// The listener has no certificate that can be used.
    NoCertificate,
    /// The client speaks only versions that are not allowed.
    Version,
    /// No cipher suite, group or signature is known to both sides.
    NoCommonCipher,
    /// No protocol that the client offers by ALPN is one of ours.
    NoCommonProtocol,
    /// The client did not like our certificate, or something else; it said so.
    ClientRefused,
    /// The client broke the rules of TLS.
    Misbehaved,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) const ALL: [Failure; 12] = [
        Failure::Timeout,
        Failure::Overload,
        Failure::ClientGone,
        Failure::NotTls,
        Failure::UnknownName,
        Failure::NoCertificate,
        Failure::Version,
        Failure::NoCommonCipher,
        Failure::NoCommonProtocol,
        Failure::ClientRefused,
        Failure::Misbehaved,
        Failure::Other,
    ];

    /// For metrics and logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Failure::Timeout => "timeout",
            Failure::Overload => "overload",
            Failure::ClientGone => "client_gone",
            Failure::NotTls => "not_tls",
            Failure::UnknownName => "unknown_name",
            Failure::NoCertificate => "no_certificate",
            Failure::Version => "version",
            Failure::NoCommonCipher => "no_common_cipher",
            Failure::NoCommonProtocol => "no_common_protocol",
            Failure::ClientRefused => "client_refused",
            Failure::Misbehaved => "misbehaved",
            Failure::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        use PeerIncompatible::{
            NoCipherSuitesInCommon, NoKxGroupsInCommon, NoSignatureSchemesInCommon, ServerDoesNotSupportTls12Or13,
            ServerTlsVersionIsDisabledByOurConfig, SupportedVersionsExtensionRequired, Tls12NotOffered,
            Tls12NotOfferedOrEnabled,
        };
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Failure::ClientGone;
        };
        match error {
            Error::InvalidMessage(_) => Failure::NotTls,
            Error::PeerIncompatible(NoCipherSuitesInCommon | NoKxGroupsInCommon | NoSignatureSchemesInCommon) => {
                Failure::NoCommonCipher
            }
            Error::PeerIncompatible(
                ServerDoesNotSupportTls12Or13
                | ServerTlsVersionIsDisabledByOurConfig
                | SupportedVersionsExtensionRequired
                | Tls12NotOffered
                | Tls12NotOfferedOrEnabled,
            ) => Failure::Version,
            Error::NoApplicationProtocol => Failure::NoCommonProtocol,
            Error::AlertReceived(_) => Failure::ClientRefused,
            Error::PeerIncompatible(_)
            | Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::DecryptError => Failure::Misbehaved,
            _ => Failure::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stats::HeaderOutcome;
    use super::*;

    /// The words are what dashboards hold on to, so each is explained, and none that does not exist.
    #[test]
    fn every_outcome_is_documented() {
        let page = include_str!("../../docs/listening.md");
        let section = |title: &str| -> Vec<&str> {
            let (_, section) = page.split_once(title).unwrap();
            let section = section.split("\n## ").next().unwrap();
            section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(word, _)| word)).collect()
        };
        let handshakes: Vec<_> = ["full", "resumed"].into_iter().chain(Failure::ALL.map(Failure::word)).collect();
        assert_eq!(section("\n## How handshakes end\n"), handshakes);
        assert_eq!(section("\n## Behind a balancer\n"), HeaderOutcome::ALL.map(|(_, word)| word));
        let faults = include_str!("../../docs/faults.md").lines();
        let failed: Vec<_> = faults
            .filter_map(|line| line.strip_prefix("| `portico_tls_handshakes_total` | `")?.split('`').next())
            .collect();
        assert_eq!(failed, Failure::ALL.map(Failure::word));
    }

    #[test]
    fn failures_are_counted_where_they_belong() {
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, index);
        }
        for (index, (outcome, _)) in HeaderOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn a_policy_that_leaves_nothing_is_refused() {
        let ciphers = vec![aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        assert!(Terminator::new(&TlsPolicy { min_version: TlsVersion::V1_3, ciphers: ciphers.clone() }).is_err());
        assert!(Terminator::new(&TlsPolicy { min_version: TlsVersion::V1_2, ciphers }).is_ok());
    }
}
