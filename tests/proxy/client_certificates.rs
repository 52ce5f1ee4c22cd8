//! HTTPS listeners that verify the certificates of clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::proxy::BindState;
use portico::snapshot::certs::Certificates;
use portico::snapshot::client_validation::{ClientValidation, ClientValidationMode};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::port_tls::PortTls;
use portico::snapshot::{Bind, HttpListener, Snapshot};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::accounting::{scrape, wait_for_metrics};
use crate::harness::{Endpoint, Options, TestServer, listener, reserve_address, routes_to, with_timeout};
use crate::tls_harness::{TestTlsConnector, TlsClient, certificate};

/// An authority for certificates of clients.
pub(crate) struct ClientAuthority(CertifiedIssuer<'static, KeyPair>);

impl ClientAuthority {
    pub(crate) fn new() -> ClientAuthority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ClientAuthority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self) -> Arc<CertifiedKey> {
        self.issue_with(|_| {})
    }

    pub(crate) fn issue_with(&self, edit: impl FnOnce(&mut CertificateParams)) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        edit(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key).unwrap()))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn validation(&self, mode: ClientValidationMode) -> Option<Arc<ClientValidation>> {
        Some(Arc::new(ClientValidation::new(mode, vec![self.0.der().clone()]).unwrap()))
    }
}

/// HTTPS listeners for any host that forward to this endpoint, one at each address, with the validation of its clients.
pub(crate) fn snapshot(endpoint: SocketAddr, ports: &[(SocketAddr, Option<Arc<ClientValidation>>)]) -> Snapshot {
    let server_certificate = certificate(&["a.example"]);
    let bind = |(address, validation): &(SocketAddr, Option<Arc<ClientValidation>>)| {
        let certificates = Certificates::new(vec![Arc::clone(&server_certificate)]);
        let certificates = Arc::new(certificates.with_client_validation(validation.clone()));
        let http = Arc::new(HttpListener { port: 443, ..listener(routes_to(endpoint)) });
        let tls = PortTls::terminating([(HostPattern::Any, certificates)]);
        let bind = Bind::with_http(HostMap::new([(HostPattern::Any, http)]), Some(tls));
        (BindAddress::tcp(*address), Arc::new(bind))
    };
    Snapshot { binds: ports.iter().map(bind).collect(), ..Snapshot::default() }
}

/// A server with one listener.
async fn start(endpoint: &Endpoint, validation: Option<Arc<ClientValidation>>) -> TestServer {
    let (address, reserved) = reserve_address();
    let snapshot = snapshot(endpoint.address, &[(address, validation)]);
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    assert_eq!(server.proxy.reconcile().await.get(&BindAddress::tcp(address)), Some(&BindState::Bound));
    server
}

/// The status of a request on this connection; `None` if the server ended it. In TLS 1.3, a client learns only then
/// that its certificate was rejected.
pub(crate) async fn status(client: std::io::Result<TlsClient>) -> Option<u16> {
    let mut client = client.ok()?;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    client.try_response().await.map(|response| response.status)
}

#[tokio::test]
async fn clients_need_a_certificate_of_a_trusted_authority() {
    let endpoint = Endpoint::ok().await;
    let (trusted, other) = (ClientAuthority::new(), ClientAuthority::new());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let connector = || TestTlsConnector::with_version(version);
        let cases = [
            ("trusted", connector().with_client_certificate(&trusted.issue()), Some(200)),
            ("of another authority", connector().with_client_certificate(&other.issue()), None),
            ("none", connector(), None),
        ];
        let strict = start(&endpoint, trusted.validation(ClientValidationMode::Required)).await;
        let fallback = start(&endpoint, trusted.validation(ClientValidationMode::InsecureFallback)).await;
        for (what, connector, expected) in cases {
            assert_eq!(status(connector.connect(&strict, "a.example").await).await, expected, "{what}, {version:?}");
            assert_eq!(status(connector.connect(&fallback, "a.example").await).await, Some(200), "{what}, {version:?}");
        }
        let refused = "portico_tls_handshakes_total{outcome=\"client_certificate\"}";
        wait_for_metrics(&strict, "refused handshakes", |metrics| metrics.get(refused) == Some(&2.0)).await;
    }
}

/// In TLS 1.3, a client may send a request before it learns that its certificate was refused. If the request stayed
/// unread, the connection would be reset before the client has read the reason.
#[tokio::test]
async fn refused_clients_that_send_a_request_read_the_reason() {
    let endpoint = Endpoint::ok().await;
    let server = start(&endpoint, ClientAuthority::new().validation(ClientValidationMode::Required)).await;
    for _ in 0..20 {
        let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
        client.send(format!("GET /{} HTTP/1.1\r\nhost: a.example\r\n\r\n", "a".repeat(8_000))).await;
        let error = client.read_to_end().await.unwrap_err().to_string();
        assert!(error.contains("CertificateRequired"), "{error}");
    }
}

/// The handshakes of all of them fit into the timeout only if none waits until a refused client has disconnected.
#[tokio::test]
async fn refused_clients_that_stay_connected_delay_no_handshakes() {
    let endpoint = Endpoint::ok().await;
    let (address, reserved) = reserve_address();
    let validation = ClientAuthority::new().validation(ClientValidationMode::Required);
    let snapshot = snapshot(endpoint.address, &[(address, validation)]);
    let limits = ProxyLimits { max_handshakes: 1, ..ProxyLimits::default() };
    let server = TestServer::start(Options { limits, ..Options::default() }, address, reserved, snapshot);
    server.proxy.reconcile().await;
    let connector = TestTlsConnector::with_version(&rustls::version::TLS13);
    let clients = (0..20).map(|_| connector.connect(&server, "a.example"));
    let clients = futures_util::future::join_all(clients).await;
    assert!(clients.iter().all(Result::is_ok), "with TLS 1.3, the server verifies after the client is connected");
    let refused = "portico_tls_handshakes_total{outcome=\"client_certificate\"}";
    wait_for_metrics(&server, "refused handshakes", |metrics| metrics.get(refused) == Some(&20.0)).await;
}

/// The certificate of a client that resumes a session is not verified again.
#[tokio::test]
async fn sessions_of_other_listeners_are_not_resumed() {
    let endpoint = Endpoint::ok().await;
    let (trusted, other) = (ClientAuthority::new(), ClientAuthority::new());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let ((open, reserved), (strict, reserved_strict)) = (reserve_address(), reserve_address());
        let ((fallback, reserved_fallback), (foreign, reserved_foreign)) = (reserve_address(), reserve_address());
        let ports = [
            (open, None),
            (strict, trusted.validation(ClientValidationMode::Required)),
            (fallback, trusted.validation(ClientValidationMode::InsecureFallback)),
            (foreign, other.validation(ClientValidationMode::Required)),
        ];
        drop((reserved_strict, reserved_fallback, reserved_foreign));
        let server = TestServer::start(Options::default(), open, reserved, snapshot(endpoint.address, &ports));
        server.proxy.reconcile().await;
        let status_at = async |connector: &TestTlsConnector, address: SocketAddr| {
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            status(connector.connect_over(socket, "a.example").await).await
        };
        let resumed = || scrape(&server)["portico_tls_handshakes_total{outcome=\"resumed\"}"];
        let anonymous = TestTlsConnector::with_version(version);
        for (address, expected) in [(open, Some(200)), (strict, None), (fallback, Some(200)), (strict, None)] {
            assert_eq!(status_at(&anonymous, address).await, expected, "{version:?}");
        }
        let client = TestTlsConnector::with_version(version).with_client_certificate(&trusted.issue());
        for (address, expected) in [(strict, Some(200)), (foreign, None)] {
            assert_eq!(status_at(&client, address).await, expected, "{version:?}");
        }
        // A listener that requires certificates verifies them each time; one that accepts every client resumes.
        for (address, expected) in [(strict, 0.0), (fallback, 1.0)] {
            let before = resumed();
            let returning = TestTlsConnector::with_version(version).with_client_certificate(&trusted.issue());
            for _ in 0..2 {
                assert_eq!(status_at(&returning, address).await, Some(200), "{version:?}");
            }
            assert_eq!(resumed() - before, expected, "{version:?}");
        }
    }
}

/// Also if the client connected so often before that each connection could resume the session of the last one.
#[tokio::test]
async fn expired_client_certificate_ends_with_its_period() {
    let endpoint = Endpoint::ok().await;
    let authority = ClientAuthority::new();
    let server = start(&endpoint, authority.validation(ClientValidationMode::Required)).await;
    let check = async |version| {
        let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3);
        let client = authority.issue_with(|params| params.not_after = date_time_ymd(1970, 1, 1) + expiry);
        let connector = TestTlsConnector::with_version(version).with_client_certificate(&client);
        let mut served = 0;
        with_timeout("the end of the certificate", async {
            while status(connector.connect(&server, "a.example").await).await == Some(200) {
                served += 1;
            }
        })
        .await;
        assert!(served > 1, "{version:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now >= expiry, "refused before its end, {version:?}");
    };
    // At the same time, because both wait for an expiry.
    tokio::join!(check(&rustls::version::TLS12), check(&rustls::version::TLS13));
}

#[tokio::test]
async fn open_connections_need_the_certificate_that_is_required_now() {
    let endpoint = Endpoint::ok().await;
    let (trusted, other) = (ClientAuthority::new(), ClientAuthority::new());
    let server = start(&endpoint, None).await;
    let replace = |validation| {
        server.snapshot.store(Arc::new(snapshot(endpoint.address, &[(server.address, validation)])));
    };
    let connector = TestTlsConnector::new().with_client_certificate(&trusted.issue());
    let mut before = connector.connect(&server, "a.example").await.unwrap();
    assert_eq!(before.get("/").await.status, 200);
    replace(trusted.validation(ClientValidationMode::Required));
    assert_eq!(before.get("/").await.status, 421, "the client was not asked for a certificate");
    let mut verified = connector.connect(&server, "a.example").await.unwrap();
    assert_eq!(verified.get("/").await.status, 200);
    // Equal settings, as after an unrelated change.
    replace(trusted.validation(ClientValidationMode::Required));
    assert_eq!(verified.get("/").await.status, 200);
    replace(other.validation(ClientValidationMode::Required));
    assert_eq!(verified.get("/").await.status, 421, "another authority is trusted now");
    replace(None);
    assert_eq!(before.get("/").await.status, 200);
}
