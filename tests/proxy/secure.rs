//! Listeners with certificates, and clients that look at what they are shown.

use std::io;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use portico::proxy::BindState;
use portico::snapshot::certs::{Certificate, Certificates, Tls};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::{Bind, Listener, Snapshot};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Client, Gate, Options, Route, listener, reserve, within};

pub(crate) type TlsClient = Client<TlsStream<TcpStream>>;

/// A listener of HTTPS: its hostname (empty for any), the names of each of its certificates, and its routes.
pub(crate) struct Secure {
    pub(crate) hostname: &'static str,
    pub(crate) certificates: Vec<Arc<Certificate>>,
    pub(crate) routes: Vec<Route>,
}

pub(crate) fn certificate(names: &[&str]) -> Arc<Certificate> {
    certificate_of(&rcgen::PKCS_ECDSA_P256_SHA256, names)
}

pub(crate) fn certificate_of(algorithm: &'static rcgen::SignatureAlgorithm, names: &[&str]) -> Arc<Certificate> {
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

/// All listeners are on port 443, as clients see it.
pub(crate) fn secure_snapshot(address: std::net::SocketAddr, listeners: Vec<Secure>) -> Snapshot {
    let (mut served, mut shown) = (Vec::new(), Vec::new());
    for secure in listeners {
        let hostname = HostPattern::parse(Some(secure.hostname));
        let name = format!("on {hostname}").into();
        served.push((hostname.clone(), Arc::new(Listener { name, port: 443, ..listener(secure.routes) })));
        shown.push((hostname, Arc::new(Certificates::new(secure.certificates))));
    }
    let tls = Some(Tls { listeners: HostMap::new(shown) });
    Snapshot {
        binds: [(address, Arc::new(Bind { listeners: HostMap::new(served), tls }))].into(),
        ..Snapshot::default()
    }
}

/// A gate whose only port serves TLS.
pub(crate) async fn open(options: Options, listeners: Vec<Secure>) -> Gate {
    let (address, reserved) = reserve();
    let gate = Gate::start(options, address, reserved, secure_snapshot(address, listeners));
    assert_eq!(gate.proxy.reconcile().await.get(&address), Some(&BindState::Bound));
    gate
}

pub(crate) fn swap(snapshot: &ArcSwap<Snapshot>, address: std::net::SocketAddr, listeners: Vec<Secure>) {
    snapshot.store(Arc::new(secure_snapshot(address, listeners)));
}

/// Takes every certificate, but only with a signature by its key, and remembers the last one.
#[derive(Debug)]
struct Witness {
    provider: CryptoProvider,
    schemes: Option<Vec<SignatureScheme>>,
    seen: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

/// A client's side of TLS.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) config: Arc<ClientConfig>,
    seen: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl Caller {
    pub(crate) fn new() -> Caller {
        Caller::with(rustls::ALL_VERSIONS, None)
    }

    pub(crate) fn with(
        versions: &[&'static SupportedProtocolVersion],
        schemes: Option<Vec<SignatureScheme>>,
    ) -> Caller {
        let seen: Arc<Mutex<_>> = Arc::default();
        let provider = aws_lc_rs::default_provider();
        let witness = Witness { provider: provider.clone(), schemes, seen: Arc::clone(&seen) };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(witness))
            .with_no_client_auth();
        Caller { config: Arc::new(config), seen }
    }

    pub(crate) fn adjust(mut self, change: impl FnOnce(&mut ClientConfig)) -> Caller {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// Without a server name if `name` is empty.
    pub(crate) async fn connect(&self, gate: &Gate, name: &'static str) -> io::Result<TlsClient> {
        self.over(TcpStream::connect(gate.address).await?, name).await
    }

    pub(crate) async fn over(&self, socket: TcpStream, name: &'static str) -> io::Result<TlsClient> {
        let name = ServerName::try_from(if name.is_empty() { "192.0.2.1" } else { name }).unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        within("a handshake", connector.connect(name, socket)).await.map(Client::over)
    }

    /// What the last full handshake showed.
    pub(crate) fn seen(&self) -> CertificateDer<'static> {
        self.seen.lock().unwrap().clone().unwrap()
    }
}

/// What a client says about a handshake that failed.
pub(crate) fn reason(outcome: io::Result<TlsClient>) -> String {
    let error = outcome.err().expect("a handshake that fails");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => format!("{error:?}"),
        None => format!("{:?}", error.kind()),
    }
}

impl ServerCertVerifier for Witness {
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
