//! Test listeners with certificates, and TLS clients that record the certificate they receive.

use std::io;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use portico::proxy::BindState;
use portico::snapshot::certs::{Certificate, Certificates, PortTls};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::{Bind, BindAddress, HttpListener, Snapshot};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Client, Options, Route, TestServer, listener, reserve_address, with_timeout};

pub(crate) type TlsClient = Client<TlsStream<TcpStream>>;

/// An HTTPS listener: its hostname (empty for any), its certificates, and its routes.
pub(crate) struct TlsListener {
    pub(crate) hostname: &'static str,
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) routes: Vec<Route>,
}

pub(crate) fn certificate(names: &[&str]) -> Arc<Certificate> {
    certificate_with_algorithm(&rcgen::PKCS_ECDSA_P256_SHA256, names)
}

pub(crate) fn certificate_with_algorithm(
    algorithm: &'static rcgen::SignatureAlgorithm,
    names: &[&str],
) -> Arc<Certificate> {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Arc::new(Certificate {
        secret: format!("default/{}", names[0]).into(),
        key: Arc::new(CertifiedKey::new(vec![made.der().clone()], key)),
        names: names.iter().map(|name| HostPattern::parse(Some(name))).collect(),
        expires: 4_000_000_000,
        lifetime: 86_400,
    })
}

pub(crate) fn leaf(certificate: &Certificate) -> &CertificateDer<'static> {
    &certificate.key.cert[0]
}

/// A snapshot with all listeners on port 443.
pub(crate) fn secure_snapshot(address: std::net::SocketAddr, listeners: Vec<TlsListener>) -> Snapshot {
    let (mut served, mut shown) = (Vec::new(), Vec::new());
    for secure in listeners {
        let hostname = HostPattern::parse(Some(secure.hostname));
        let name = format!("on {hostname}").into();
        served.push((hostname.clone(), Arc::new(HttpListener { name, port: 443, ..listener(secure.routes) })));
        shown.push((hostname, Arc::new(Certificates::new(secure.certificates))));
    }
    let tls = Some(PortTls { listeners: HostMap::new(shown) });
    Snapshot {
        binds: [(BindAddress::tcp(address), Arc::new(Bind { listeners: HostMap::new(served), tls }))].into(),
        ..Snapshot::default()
    }
}

/// A proxy whose only port serves TLS.
pub(crate) async fn start_tls_server(options: Options, listeners: Vec<TlsListener>) -> TestServer {
    let (address, reserved) = reserve_address();
    let server = TestServer::start(options, address, reserved, secure_snapshot(address, listeners));
    assert_eq!(server.proxy.reconcile().await.get(&BindAddress::tcp(address)), Some(&BindState::Bound));
    server
}

pub(crate) fn replace_listeners(
    snapshot: &ArcSwap<Snapshot>,
    address: std::net::SocketAddr,
    listeners: Vec<TlsListener>,
) {
    snapshot.store(Arc::new(secure_snapshot(address, listeners)));
}

/// Accepts every certificate whose signature is valid, and records the last one.
#[derive(Debug)]
struct RecordingVerifier {
    provider: CryptoProvider,
    schemes: Option<Vec<SignatureScheme>>,
    seen: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

/// A TLS client.
#[derive(Clone)]
pub(crate) struct TlsCaller {
    pub(crate) config: Arc<ClientConfig>,
    seen: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl TlsCaller {
    pub(crate) fn new() -> TlsCaller {
        TlsCaller::with(rustls::ALL_VERSIONS, None)
    }

    pub(crate) fn with(
        versions: &[&'static SupportedProtocolVersion],
        schemes: Option<Vec<SignatureScheme>>,
    ) -> TlsCaller {
        let seen: Arc<Mutex<_>> = Arc::default();
        let provider = aws_lc_rs::default_provider();
        let witness = RecordingVerifier { provider: provider.clone(), schemes, seen: Arc::clone(&seen) };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(witness))
            .with_no_client_auth();
        TlsCaller { config: Arc::new(config), seen }
    }

    pub(crate) fn adjust(mut self, change: impl FnOnce(&mut ClientConfig)) -> TlsCaller {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// Connects with this server name, or without one if it is empty.
    pub(crate) async fn connect(&self, server: &TestServer, name: &'static str) -> io::Result<TlsClient> {
        self.connect_over(TcpStream::connect(server.address).await?, name).await
    }

    pub(crate) async fn connect_over(&self, socket: TcpStream, name: &'static str) -> io::Result<TlsClient> {
        let name = ServerName::try_from(if name.is_empty() { "192.0.2.1" } else { name }).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        with_timeout("a handshake", connector.connect(name, socket)).await.map(Client::from_stream)
    }

    /// The certificate of the last full handshake.
    pub(crate) fn last_certificate(&self) -> CertificateDer<'static> {
        self.seen.lock().unwrap().clone().unwrap()
    }
}

/// The error that the client reports for a failed handshake.
pub(crate) fn handshake_error(outcome: io::Result<TlsClient>) -> String {
    let error = outcome.err().expect("a failed handshake");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => format!("{error:?}"),
        None => format!("{:?}", error.kind()),
    }
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap() = Some(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let all = || self.provider.signature_verification_algorithms.supported_schemes();
        self.schemes.clone().unwrap_or_else(all)
    }
}
