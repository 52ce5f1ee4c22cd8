//! Snapshots of HTTPS listeners with self-signed certificates, and TLS clients that record the listener's certificate.

use std::io;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use portico::bind_address::BindAddress;
use portico::proxy::BindState;
use portico::snapshot::certs::{Certificate, Certificates};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::port_tls::PortTls;
use portico::snapshot::{Bind, HttpListener, Snapshot};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Client, Options, Route, TestServer, listener, reserve_address, with_timeout};

/// A client over an established TLS connection.
pub(crate) type TlsClient = Client<TlsStream<TcpStream>>;

/// An HTTPS listener: its hostname (empty for any), its certificates, and its routes.
pub(crate) struct TlsListener {
    pub(crate) hostname: &'static str,
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) routes: Vec<Route>,
}

/// A self-signed certificate for these names.
pub(crate) fn certificate(names: &[&str]) -> Arc<Certificate> {
    certificate_with_algorithm(&rcgen::PKCS_ECDSA_P256_SHA256, names)
}

pub(crate) fn certificate_with_algorithm(
    algorithm: &'static rcgen::SignatureAlgorithm,
    names: &[&str],
) -> Arc<Certificate> {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let self_signed = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Arc::new(Certificate {
        secret: format!("default/{}", names[0]).into(),
        key: Arc::new(CertifiedKey::new(vec![self_signed.der().clone()], key)),
        names: names.iter().map(|name| HostPattern::parse(Some(name))).collect(),
        expires: 4_000_000_000,
        lifetime: 86_400,
    })
}

/// The certificate as clients receive it.
pub(crate) fn leaf(certificate: &Certificate) -> &CertificateDer<'static> {
    &certificate.key.cert[0]
}

/// A snapshot with these HTTPS listeners, all on port 443 and bound at this address.
pub(crate) fn secure_snapshot(address: std::net::SocketAddr, listeners: Vec<TlsListener>) -> Snapshot {
    let (mut http_listeners, mut certificates) = (Vec::new(), Vec::new());
    for listener_spec in listeners {
        let hostname = HostPattern::parse(Some(listener_spec.hostname));
        let name = format!("on {hostname}").into();
        http_listeners
            .push((hostname.clone(), Arc::new(HttpListener { name, port: 443, ..listener(listener_spec.routes) })));
        certificates.push((hostname, Arc::new(Certificates::new(listener_spec.certificates))));
    }
    let tls = Some(PortTls::terminating(certificates));
    Snapshot {
        binds: [(BindAddress::tcp(address), Arc::new(Bind::with_http(HostMap::new(http_listeners), tls)))].into(),
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
    /// Signature schemes that the client offers; None for all that the provider supports.
    signature_schemes: Option<Vec<SignatureScheme>>,
    last_certificate: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

/// Opens TLS connections with one configuration and records the certificate of the last full handshake.
#[derive(Clone)]
pub(crate) struct TestTlsConnector {
    config: Arc<ClientConfig>,
    last_certificate: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl TestTlsConnector {
    pub(crate) fn new() -> TestTlsConnector {
        TestTlsConnector::build(rustls::ALL_VERSIONS, None)
    }

    pub(crate) fn with_version(version: &'static SupportedProtocolVersion) -> TestTlsConnector {
        TestTlsConnector::build(&[version], None)
    }

    pub(crate) fn with_signature_scheme(
        version: &'static SupportedProtocolVersion,
        scheme: SignatureScheme,
    ) -> TestTlsConnector {
        TestTlsConnector::build(&[version], Some(vec![scheme]))
    }

    /// The ClientHello for this server name.
    pub(crate) fn client_hello(&self, server_name: &str) -> Vec<u8> {
        let mut hello = Vec::new();
        self.session(server_name).write_tls(&mut hello).unwrap();
        hello
    }

    /// A new session with this server name, without a socket.
    pub(crate) fn session(&self, server_name: &str) -> ClientConnection {
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        ClientConnection::new(Arc::clone(&self.config), name).unwrap()
    }

    fn build(
        versions: &[&'static SupportedProtocolVersion],
        signature_schemes: Option<Vec<SignatureScheme>>,
    ) -> TestTlsConnector {
        let last_certificate: Arc<Mutex<_>> = Arc::default();
        let provider = aws_lc_rs::default_provider();
        let verifier = RecordingVerifier {
            provider: provider.clone(),
            signature_schemes,
            last_certificate: Arc::clone(&last_certificate),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        TestTlsConnector { config: Arc::new(config), last_certificate }
    }

    /// Sends this certificate to servers that ask for one.
    pub(crate) fn with_client_certificate(mut self, certificate: &Arc<CertifiedKey>) -> TestTlsConnector {
        let resolver = SingleCertAndKey::from(Arc::clone(certificate));
        Arc::make_mut(&mut self.config).client_auth_cert_resolver = Arc::new(resolver);
        self
    }

    /// Offers these protocols with ALPN.
    pub(crate) fn with_alpn(mut self, protocols: &[&[u8]]) -> TestTlsConnector {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Connects with this server name, or without one if it is empty.
    pub(crate) async fn connect(&self, server: &TestServer, name: &'static str) -> io::Result<TlsClient> {
        self.connect_over(TcpStream::connect(server.address).await?, name).await
    }

    /// Like [`TestTlsConnector::connect`], over this socket.
    pub(crate) async fn connect_over(&self, socket: TcpStream, name: &'static str) -> io::Result<TlsClient> {
        // For an IP address, the client sends no server name.
        let name = ServerName::try_from(if name.is_empty() { "192.0.2.1" } else { name }).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        with_timeout("a handshake", connector.connect(name, socket)).await.map(Client::from_stream)
    }

    /// The certificate of the last full handshake.
    pub(crate) fn last_certificate(&self) -> CertificateDer<'static> {
        self.last_certificate.lock().unwrap().clone().unwrap()
    }
}

/// The error that the client reports for a failed handshake: that of rustls, or the kind of I/O error.
pub(crate) fn handshake_error(result: io::Result<TlsClient>) -> String {
    let error = result.err().expect("a failed handshake");
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
        *self.last_certificate.lock().unwrap() = Some(leaf.clone().into_owned());
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
        let supported = || self.provider.signature_verification_algorithms.supported_schemes();
        self.signature_schemes.clone().unwrap_or_else(supported)
    }
}
