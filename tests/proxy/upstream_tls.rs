//! TLS to endpoints: trust anchors, server names, client certificates, and separate connections for different settings.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portico::proxy::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::rule::{Filters, Mirror};
use portico::upstream::tls::{TlsTrust, TrustAnchors, UpstreamTlsSettings};
use portico::upstream::{EndpointAddress, Endpoints, Upstream, UpstreamKey, UpstreamProtocol};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use crate::accounting::{records, scrape};
use crate::endpoints::unresponsive_address;
use crate::h2;
use crate::harness::{
    Endpoint, Options, Route, TEST_TIMEOUT, TestResponse, TestServer, forward, route, upstream, with_timeout,
};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn new(name: &str) -> Authority {
        Authority(CertifiedIssuer::self_signed(Self::params(name), KeyPair::generate().unwrap()).unwrap())
    }

    fn expiring(name: &str, year: i32) -> Authority {
        let mut params = Self::params(name);
        params.not_after = date_time_ymd(year, 1, 1);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// An intermediate authority signed by this one.
    fn intermediate(&self, name: &str) -> Authority {
        Authority(CertifiedIssuer::signed_by(Self::params(name), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for these names, with the intermediate certificates.
    fn issue(&self, names: &[&str], between: &[&Authority]) -> Arc<CertifiedKey> {
        self.issue_until(names, between, 2100)
    }

    fn issue_until(&self, names: &[&str], between: &[&Authority], year: i32) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let chain = std::iter::once(leaf.der().clone()).chain(between.iter().map(|authority| authority.der()));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(chain.collect(), any_supported_type(&key).unwrap()))
    }

    fn trust(&self, depth: Option<usize>) -> Option<TlsTrust> {
        Some(TlsTrust { anchors: Arc::new(TrustAnchors::new([self.der()])), max_intermediates: depth })
    }
}

/// A TLS endpoint that responds with facts about the connection and the request.
struct TlsEndpoint {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    received: Arc<Notify>,
}

#[derive(Debug)]
struct FixedCertificate(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl TlsEndpoint {
    async fn with_certificate(certificate: Arc<CertifiedKey>) -> TlsEndpoint {
        TlsEndpoint::with_client_auth(certificate, None, rustls::ALL_VERSIONS).await
    }

    /// `clients`: the authority of the client certificates that the endpoint requires.
    async fn with_client_auth(
        certificate: Arc<CertifiedKey>,
        clients: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsEndpoint {
        TlsEndpoint::with_protocols(certificate, clients, versions, &[b"h2", b"http/1.1"]).await
    }

    async fn with_protocols(
        certificate: Arc<CertifiedKey>,
        clients: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> TlsEndpoint {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.der()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(FixedCertificate(certificate)));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let (requests, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let seen = (Arc::clone(&requests), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, number) = (acceptor.clone(), counter.fetch_add(1, SeqCst) + 1);
                let seen = seen.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let tls = stream.get_ref().1;
                    let facts = format!(
                        "connection={number} sni={} client={} resumed={}",
                        tls.server_name().unwrap_or("none"),
                        tls.peer_certificates().is_some(),
                        tls.handshake_kind() == Some(HandshakeKind::Resumed),
                    );
                    let is_http2 = tls.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| {
                        seen.0.fetch_add(1, SeqCst);
                        seen.1.notify_one();
                        respond(facts.clone(), request)
                    });
                    let io = TokioIo::new(stream);
                    if is_http2 {
                        drop(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
                    } else {
                        drop(http1::Builder::new().serve_connection(io, service).with_upgrades().await);
                    }
                });
            }
        });
        TlsEndpoint { address, connections, requests, received: asked }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

async fn respond(facts: String, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key(UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut tunnel = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 64];
            while let Ok(read @ 1..) = tunnel.read(&mut bytes).await {
                tunnel.write_all(&bytes[..read]).await.unwrap();
                tunnel.flush().await.unwrap();
            }
        });
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
        answer.headers_mut().insert(UPGRADE, "websocket".parse().unwrap());
        return Ok(answer);
    }
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().unwrap().to_owned(),
        None => request.uri().authority().unwrap().to_string(),
    };
    let scheme = request.uri().scheme_str().unwrap_or("none").to_owned();
    let mut answer = Response::new(Full::from(format!("{facts} host={host} scheme={scheme}")));
    if request.uri().path() == "/close" {
        answer.headers_mut().insert(CONNECTION, "close".parse().unwrap());
    }
    if let Some(kind) = request.headers().get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    Ok(answer)
}

fn tls_upstream(protocol: UpstreamProtocol, terms: UpstreamTlsSettings, addresses: &[SocketAddr]) -> Arc<Upstream> {
    let upstream = Upstream::new(UpstreamKey {
        namespace: "default".into(),
        service: "secure".into(),
        port: 443,
        protocol,
        tls: Some(terms),
        ..UpstreamKey::default()
    });
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, ..Default::default() });
    Arc::new(upstream)
}

fn terms(trust: Option<TlsTrust>, client: Option<Arc<CertifiedKey>>) -> UpstreamTlsSettings {
    UpstreamTlsSettings::new(UpstreamProtocol::Http1, trust, client).unwrap()
}

fn to(terms: UpstreamTlsSettings, address: SocketAddr) -> Vec<Route> {
    vec![route(forward(vec![(1, tls_upstream(UpstreamProtocol::Http1, terms, &[address]))]))]
}

async fn send_get(server: &TestServer, host: &str) -> TestResponse {
    server.request(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await
}

// kong-compat §2.1
#[tokio::test]
async fn endpoint_certificate_is_verified() {
    let (own, other, old) = (Authority::new("own"), Authority::new("other"), Authority::expiring("old", 2020));
    let between = own.intermediate("between");
    let good = own.issue(&["a.example", "*.wild.example", "127.0.0.1"], &[]);
    let pinned = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(vec![made.der().clone()], any_supported_type(&key).unwrap()))
    };
    let pin = |depth| {
        Some(TlsTrust { anchors: Arc::new(TrustAnchors::new([pinned.cert[0].clone()])), max_intermediates: depth })
    };
    let through = between.issue(&["a.example"], &[&between]);
    let expired = own.issue_until(&["a.example"], &[], 2020);
    type Case<'a> = (&'a str, &'a Arc<CertifiedKey>, Option<TlsTrust>, &'a str, u16);
    let cases: [Case<'_>; 16] = [
        ("a trusted authority", &good, own.trust(None), "a.example", 200),
        ("names are case-insensitive, without the port", &good, own.trust(None), "A.Example:8080", 200),
        ("a wildcard", &good, own.trust(None), "x.wild.example", 200),
        ("an address", &good, own.trust(None), "127.0.0.1", 200),
        ("another address", &good, own.trust(None), "127.0.0.2", 502),
        ("another name", &good, own.trust(None), "b.example", 502),
        ("no name at all", &good, own.trust(None), "a_b~c.example", 502),
        ("another authority", &good, other.trust(None), "a.example", 502),
        (
            "no trust anchors",
            &good,
            Some(TlsTrust { anchors: Arc::default(), max_intermediates: None }),
            "a.example",
            502,
        ),
        ("expired", &expired, own.trust(None), "a.example", 502),
        ("expired authority", &old.issue(&["a.example"], &[]), old.trust(None), "a.example", 502),
        ("signed by an intermediate", &through, own.trust(None), "a.example", 200),
        ("an intermediate within the depth", &through, own.trust(Some(1)), "a.example", 200),
        ("an intermediate beyond the depth", &through, own.trust(Some(0)), "a.example", 502),
        ("a pinned certificate", &pinned, pin(Some(0)), "a.example", 200),
        ("a pinned certificate for another name", &pinned, pin(None), "b.example", 502),
    ];
    for (what, certificate, trust, host, status) in cases {
        let endpoint = TlsEndpoint::with_certificate(Arc::clone(certificate)).await;
        let server = TestServer::with_routes(to(terms(trust, None), endpoint.address)).await;
        assert_eq!(send_get(&server, host).await.status, status, "{what}");
        let lax = TestServer::with_routes(to(terms(None, None), endpoint.address)).await;
        assert_eq!(send_get(&lax, host).await.status, 200, "{what}, without verification");
    }
}

// kong-compat §3.8
#[tokio::test]
async fn server_name_is_the_host_and_separates_connections() {
    let own = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(own.issue(&["a.example", "b.example"], &[])).await;
    let server = TestServer::with_routes(to(terms(own.trust(None), None), endpoint.address)).await;
    let first = send_get(&server, "a.example").await.text();
    assert_eq!(first, "connection=1 sni=a.example client=false resumed=false host=a.example scheme=none");
    let second = send_get(&server, "b.example:81").await.text();
    assert_eq!(second, "connection=2 sni=b.example client=false resumed=false host=b.example:81 scheme=none");
    for (host, connection) in [("A.example", 1), ("b.example", 2), ("a.example", 1)] {
        let text = send_get(&server, host).await.text();
        assert!(text.starts_with(&format!("connection={connection} ")), "{text}");
    }
    assert_eq!(endpoint.connections(), 2);
}

#[tokio::test]
async fn every_connection_is_verified() {
    let own = Authority::new("own");
    for version in rustls::ALL_VERSIONS {
        // The endpoint would resume sessions, without sending its certificate again.
        let endpoint = TlsEndpoint::with_client_auth(own.issue(&["a.example"], &[]), None, &[version]).await;
        for trust in [own.trust(None), None] {
            let before = endpoint.connections();
            let server = TestServer::with_routes(to(terms(trust, None), endpoint.address)).await;
            for connection in before + 1..=before + 3 {
                let text = server.request("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.text();
                assert!(text.starts_with(&format!("connection={connection} ")), "{version:?}: {text}");
                assert!(text.contains("resumed=false "), "{version:?}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn arbitrary_hosts_do_not_evict_shared_connections() {
    let endpoint = TlsEndpoint::with_certificate(Authority::new("own").issue(&["a.example"], &[])).await;
    for (protocol, content) in [(UpstreamProtocol::Http1, "text/plain"), (UpstreamProtocol::Http2, "application/grpc")]
    {
        let before = endpoint.connections();
        let terms = UpstreamTlsSettings::new(protocol, None, None).unwrap();
        let upstream = tls_upstream(protocol, terms, &[endpoint.address]);
        let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream)]))]).await;
        let client = h2::Http2Client::connect(server.address).await;
        let ask = async |host: String| {
            let request = Request::post(format!("http://{host}/shop.Cart/Add")).header(CONTENT_TYPE, content);
            String::from_utf8(client.request(request.body(()).unwrap()).await.unwrap().body).unwrap()
        };
        for number in 0..150 {
            if number % 10 == 0 {
                let text = ask("a.example".to_owned()).await;
                assert!(text.starts_with(&format!("connection={} ", before + 1)), "{protocol:?} {number}: {text}");
            }
            ask(format!("{number}.example")).await;
        }
    }
}

// kong-compat §2.1
#[tokio::test]
async fn client_certificate_is_sent_on_request() {
    let (own, clients, others) = (Authority::new("own"), Authority::new("clients"), Authority::new("others"));
    for version in rustls::ALL_VERSIONS {
        let endpoint = TlsEndpoint::with_client_auth(own.issue(&["a.example"], &[]), Some(&clients), &[version]).await;
        for (client, status) in [
            (Some(clients.issue(&["portico.example"], &[])), 200),
            (Some(others.issue(&["portico.example"], &[])), 502),
            (None, 502),
        ] {
            let server = TestServer::with_routes(to(terms(own.trust(None), client), endpoint.address)).await;
            let answer = send_get(&server, "a.example").await;
            assert_eq!(answer.status, status, "{version:?}: {}", answer.text());
            let faults = scrape(&server).get("portico_request_errors_total{reason=\"tls_handshake\"}").copied();
            // With TLS 1.3 the rejection arrives late, and a reset may precede the alert.
            let is_certain = status == 200 || version.version == rustls::ProtocolVersion::TLSv1_2;
            assert!(!is_certain || faults.unwrap_or_default() as u16 == u16::from(status == 502), "{version:?}");
        }
    }
}

#[tokio::test]
async fn grpc_uses_http2_with_alpn() {
    let own = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(own.issue(&["a.example", "b.example"], &[])).await;
    let terms = UpstreamTlsSettings::new(UpstreamProtocol::Http2, own.trust(None), None).unwrap();
    let upstream = tls_upstream(UpstreamProtocol::Http2, terms, &[endpoint.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream)]))]).await;
    let client = h2::Http2Client::connect(server.address).await;
    for (host, connection) in [("a.example", 1), ("b.example", 2), ("a.example", 1)] {
        let request = Request::post(format!("http://{host}/shop.Cart/Add"));
        let request = request.header(CONTENT_TYPE, "application/grpc").body(()).unwrap();
        let answer = client.request(request).await.unwrap();
        assert_eq!((answer.status, answer.headers[CONTENT_TYPE].to_str().unwrap()), (200, "application/grpc"));
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.starts_with(&format!("connection={connection} sni={host} ")), "{text}");
        assert!(text.ends_with(&format!("host={host} scheme=https")), "{text}");
    }
    assert_eq!(endpoint.connections(), 2);
    // A required client certificate is known only during the handshake.
    let strict = TlsEndpoint::with_client_auth(own.issue(&["a.example"], &[]), Some(&own), rustls::ALL_VERSIONS).await;
    let terms = UpstreamTlsSettings::new(UpstreamProtocol::Http2, own.trust(None), None).unwrap();
    server.replace_routes(vec![route(forward(vec![(
        1,
        tls_upstream(UpstreamProtocol::Http2, terms, &[strict.address]),
    )]))]);
    assert_eq!(send_get(&server, "a.example").await.status, 502);
}

// kong-compat §3.8
#[tokio::test]
async fn websocket_works_over_upstream_tls() {
    let own = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(own.issue(&["a.example"], &[])).await;
    let server = TestServer::with_routes(to(terms(own.trust(None), None), endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response(false).await.status, 101);
    client.send("there and back").await;
    let mut bytes = [0; 14];
    with_timeout("the echo", client.socket.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"there and back");
}

#[tokio::test]
async fn mirrored_requests_use_tls() {
    let own = Authority::new("own");
    let plain = Endpoint::ok().await;
    for (protocol, host, arrives) in [
        (UpstreamProtocol::Http1, "a.example", true),
        (UpstreamProtocol::Http2, "a.example", true),
        (UpstreamProtocol::Http1, "b.example", false),
    ] {
        let endpoint = TlsEndpoint::with_certificate(own.issue(&["a.example"], &[])).await;
        let terms = UpstreamTlsSettings::new(protocol, own.trust(None), None).unwrap();
        let mirror =
            Mirror { upstream: tls_upstream(protocol, terms, &[endpoint.address]), numerator: 1, denominator: 1 };
        let filters = Filters { mirrors: [mirror].into(), ..Filters::default() };
        let server = TestServer::with_routes(vec![Route { filters, ..to_plain(&plain) }]).await;
        assert_eq!(send_get(&server, host).await.text(), "ok");
        if arrives {
            with_timeout("the copy", endpoint.received.notified()).await;
        } else {
            // Draining waits until the copy has failed.
            assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
            assert_eq!(endpoint.requests.load(SeqCst), 0, "{host}");
        }
    }
}

fn to_plain(endpoint: &Endpoint) -> Route {
    route(forward(vec![(1, upstream("web", &[endpoint.address]))]))
}

#[tokio::test]
async fn different_tls_settings_share_no_connection() {
    let (own, clients) = (Authority::new("own"), Authority::new("clients"));
    let endpoint = TlsEndpoint::with_certificate(own.issue(&["a.example"], &[])).await;
    let client = clients.issue(&["portico.example"], &[]);
    let all = || {
        [
            terms(None, None),
            terms(own.trust(None), None),
            terms(own.trust(Some(3)), None),
            terms(clients.trust(None), None),
            terms(None, Some(Arc::clone(&client))),
            UpstreamTlsSettings::new(UpstreamProtocol::Http2, None, None).unwrap(),
        ]
    };
    assert_eq!(all(), all());
    assert_eq!(all().into_iter().collect::<BTreeSet<_>>().len(), 6);
    let server = TestServer::with_routes(to(terms(None, None), endpoint.address)).await;
    send_get(&server, "a.example").await;
    server.replace_routes(to(terms(clients.trust(None), None), endpoint.address));
    assert_eq!(send_get(&server, "a.example").await.status, 502, "an unverified connection must not be reused");
    server.replace_routes(to(terms(own.trust(None), None), endpoint.address));
    assert_eq!(send_get(&server, "a.example").await.status, 200);
    assert_eq!(endpoint.connections(), 3);
}

#[tokio::test]
async fn authority_rotation_fails_no_request() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let endpoint = TlsEndpoint::with_certificate(old.issue(&["a.example"], &[])).await;
    let both = || TlsTrust { anchors: Arc::new(TrustAnchors::new([old.der(), new.der()])), max_intermediates: None };
    let before = tls_upstream(UpstreamProtocol::Http1, terms(old.trust(None), None), &[endpoint.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, before)]))]).await;
    let mut client = server.connect().await;
    for round in 0..20 {
        assert_eq!(client.get("/").await.status, 200, "round {round}");
        if round % 5 == 4 {
            let trust = if round % 10 == 4 { Some(both()) } else { old.trust(None) };
            server.replace_routes(to(terms(trust, None), endpoint.address));
        }
    }
}

#[tokio::test]
async fn plain_text_endpoint_is_recorded_as_tls_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let own = Authority::new("own");
    let plain = Endpoint::scripted(|mut stream, _| async move {
        stream.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        stream.read_to_end().await;
    })
    .await;
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server = TestServer::with_options(options, to(terms(own.trust(None), None), plain.address)).await;
    let answer = send_get(&server, "a.example").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("An invalid response was received from the upstream server"), "{}", answer.text());
    let scraped = scrape(&server);
    assert_eq!(scraped["portico_request_errors_total{reason=\"tls_handshake\"}"], 1.0);
    assert_eq!(scraped["portico_upstream_connects_total{outcome=\"tls_handshake\"}"], 1.0);
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    server.log.finish();
    assert_eq!(records(&path)[0]["error"], "tls_handshake");
}

#[tokio::test]
async fn connect_timeout_includes_the_handshake() {
    let own = Authority::new("own");
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let (unreached, _queue, _socket) = unresponsive_address().await;
    for address in [silent.address, unreached] {
        let limits = ProxyLimits { connect_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
        let options = Options { limits, ..Options::default() };
        let server = TestServer::with_options(options, to(terms(own.trust(None), None), address)).await;
        assert_eq!(send_get(&server, "a.example").await.status, 504);
    }
}

// kong-compat §3.8
#[tokio::test]
async fn failed_handshake_tries_another_endpoint() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let good = TlsEndpoint::with_certificate(own.issue(&["a.example"], &[])).await;
    let bad = TlsEndpoint::with_certificate(other.issue(&["a.example"], &[])).await;
    let upstream = tls_upstream(UpstreamProtocol::Http1, terms(own.trust(None), None), &[good.address, bad.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
    for _ in 0..4 {
        assert_eq!(send_get(&server, "a.example").await.status, 200);
    }
    assert!(bad.connections() > 0);
}

/// What a TLS proxy in front of an endpoint does with server names that it does not know.
#[derive(Clone, Copy, Debug)]
enum UnknownName {
    Closed,
    /// Keeps the connection open and sends nothing.
    KeptOpen,
    /// Sends the alert with this number.
    Alert(u8),
    /// Connects to another endpoint.
    Forwarded(SocketAddr),
}

/// Connects to `behind` for a.example.
async fn tls_proxy(behind: SocketAddr, stranger: UnknownName) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The first TLS record: a header of five bytes, two of which are the length, and the ClientHello with
                // the server name.
                let mut hello = [0; 4096];
                let mut got = 0;
                while got < 5 || got < 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) {
                    socket.readable().await.unwrap();
                    got = socket.peek(&mut hello).await.unwrap();
                }
                let is_known = hello[..got].windows(9).any(|bytes| bytes == b"a.example");
                let behind = match stranger {
                    _ if is_known => behind,
                    UnknownName::Closed => return,
                    UnknownName::KeptOpen => {
                        // Until the proxy gives up.
                        let mut rest = Vec::new();
                        drop(socket.read_to_end(&mut rest).await);
                        return;
                    }
                    UnknownName::Alert(alert) => {
                        socket.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
                        return;
                    }
                    UnknownName::Forwarded(elsewhere) => elsewhere,
                };
                let mut behind = TcpStream::connect(behind).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut socket, &mut behind).await);
            });
        }
    });
    address
}

fn is_healthy(upstream: &Upstream, address: SocketAddr) -> bool {
    upstream.reachable().iter().any(|one| one.address == address && one.health.is_healthy())
}

// kong-compat §3.8
#[tokio::test]
async fn unknown_server_names_do_not_eject_the_endpoint() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let good = || own.issue(&["a.example"], &[]);
    let untrusted = TlsEndpoint::with_certificate(other.issue(&["b.example"], &[])).await;
    let expired = TlsEndpoint::with_certificate(own.issue_until(&["b.example"], &[], 2020)).await;
    let secretive =
        TlsEndpoint::with_client_auth(own.issue(&["b.example"], &[]), Some(&own), rustls::ALL_VERSIONS).await;
    // Negotiates no protocol and serves HTTP/1.1.
    let old = TlsEndpoint::with_protocols(own.issue(&["b.example"], &[]), None, rustls::ALL_VERSIONS, &[]).await;
    let strangers = [
        UnknownName::Closed,
        UnknownName::KeptOpen,
        // handshake_failure, internal_error, unrecognized_name.
        UnknownName::Alert(40),
        UnknownName::Alert(80),
        UnknownName::Alert(112),
        UnknownName::Forwarded(untrusted.address),
        UnknownName::Forwarded(expired.address),
        UnknownName::Forwarded(secretive.address),
        UnknownName::Forwarded(old.address),
    ];
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        for stranger in strangers {
            let behind = TlsEndpoint::with_certificate(good()).await;
            let address = tls_proxy(behind.address, stranger).await;
            let terms = UpstreamTlsSettings::new(protocol, own.trust(None), None).unwrap();
            let upstream = tls_upstream(protocol, terms, &[address]);
            let limits = match stranger {
                UnknownName::KeptOpen => {
                    ProxyLimits { connect_timeout: Duration::from_millis(200), ..ProxyLimits::default() }
                }
                _ => ProxyLimits::default(),
            };
            let options = Options { limits, ..Options::default() };
            let server =
                TestServer::with_options(options, vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
            assert_eq!(send_get(&server, "a.example").await.status, 200, "a.example is known");
            let status = send_get(&server, "b.example").await.status;
            let expected = match (stranger, protocol) {
                (UnknownName::KeptOpen, _) => 504,
                // HTTP/1.1 is the protocol of this upstream.
                (UnknownName::Forwarded(address), UpstreamProtocol::Http1) if address == old.address => 200,
                _ => 502,
            };
            assert_eq!(status, expected, "{protocol:?} {stranger:?}");
            assert!(is_healthy(&upstream, address), "{protocol:?} {stranger:?}");
        }
    }
}

#[tokio::test]
async fn plain_or_unreachable_endpoint_is_ejected() {
    let own = Authority::new("own");
    let good = TlsEndpoint::with_certificate(own.issue(&["a.example"], &[])).await;
    let plain = Endpoint::scripted(|mut stream, _| async move {
        stream.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        stream.read_to_end().await;
    })
    .await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for bad in [plain.address, gone] {
        let upstream = tls_upstream(UpstreamProtocol::Http1, terms(own.trust(None), None), &[good.address, bad]);
        let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
        for _ in 0..4 {
            // The connection is closed, because a kept connection would be reused without choosing an endpoint.
            assert_eq!(server.request("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
        }
        assert!(!is_healthy(&upstream, bad));
        assert!(is_healthy(&upstream, good.address));
    }
}

// kong-compat §3.8
#[tokio::test]
async fn endpoint_is_ejected_if_another_accepts_the_name() {
    let own = Authority::new("own");
    let issue = || own.issue(&["a.example"], &[]);
    let expired = TlsEndpoint::with_certificate(own.issue_until(&["a.example"], &[], 2020)).await;
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let closing = Endpoint::scripted(|stream, _| async move { drop(stream) }).await;
    // Negotiates no protocol and serves HTTP/1.1.
    let old = TlsEndpoint::with_protocols(issue(), None, rustls::ALL_VERSIONS, &[]).await;
    for (what, protocol, bad) in [
        ("expired", UpstreamProtocol::Http1, expired.address),
        ("silent", UpstreamProtocol::Http1, silent.address),
        ("closing", UpstreamProtocol::Http1, closing.address),
        ("silent", UpstreamProtocol::Http2, silent.address),
        ("not HTTP/2", UpstreamProtocol::Http2, old.address),
    ] {
        let good = TlsEndpoint::with_certificate(issue()).await;
        let terms = UpstreamTlsSettings::new(protocol, own.trust(None), None).unwrap();
        let upstream = tls_upstream(protocol, terms, &[good.address, bad]);
        let limits = ProxyLimits { connect_timeout: Duration::from_millis(500), ..ProxyLimits::default() };
        let options = Options { limits, ..Options::default() };
        let server = TestServer::with_options(options, vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
        for _ in 0..6 {
            assert_ne!(send_get(&server, "b.example").await.status, 200, "{what}");
        }
        assert!(
            is_healthy(&upstream, bad) && is_healthy(&upstream, good.address),
            "{what}: no endpoint accepts this name"
        );
        for _ in 0..6 {
            // The connection is closed, because a kept connection would be reused without choosing an endpoint.
            assert_eq!(server.request("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200, "{what}");
        }
        assert!(!is_healthy(&upstream, bad), "{what}");
        send_get(&server, "b.example").await;
        assert!(is_healthy(&upstream, good.address), "{what}: a failure for another name must not eject");
    }
}

#[tokio::test]
async fn unknown_server_names_do_not_block_recovery() {
    let own = Authority::new("own");
    let good = TlsEndpoint::with_certificate(own.issue(&["a.example"], &[])).await;
    let back = tls_proxy(good.address, UnknownName::Closed).await;
    let upstream = tls_upstream(UpstreamProtocol::Http1, terms(own.trust(None), None), &[good.address, back]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
    upstream.record_failure(back);
    // Longer than the ejection, so that a request probes the endpoint.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(900) {
        assert_eq!(send_get(&server, "b.example").await.status, 502);
    }
    assert!(!is_healthy(&upstream, back), "the endpoint recovered without a successful handshake");
    let asked = async {
        while !is_healthy(&upstream, back) {
            assert_eq!(server.request("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
        }
    };
    timeout(Duration::from_secs(5), asked).await.expect("the endpoint must recover");
}
