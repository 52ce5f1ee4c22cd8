//! TLS to endpoints: trust anchors, server names, client certificates, and separate connections for different settings.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portico::endpoint_tls::UpstreamProtocol;
use portico::endpoint_tls::{EndpointIdentity, IdentityName, TlsTrust, TrustAnchors, UpstreamTlsSettings};
use portico::limits::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::rule::{Filters, Mirror};
use portico::upstream::{
    Availability, EndpointAddress, Endpoints, Outcome, OutcomeClass, Upstream, UpstreamKey, UpstreamRegistry,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::accounting::{access_log_records, scrape};
use crate::endpoints::unresponsive_address;
use crate::external_auth::{guarded_routes, http_filter};
use crate::h2;
use crate::harness::{
    Endpoint, LONGER_THAN_PAUSES, Options, Route, TEST_TIMEOUT, TestResponse, TestServer, forward, refusing_address,
    route, upstream, with_timeout,
};
use crate::stream::{self, to_upstream, wait_for_outcome};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn issuer_params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    pub(crate) fn new(name: &str) -> Authority {
        Authority(CertifiedIssuer::self_signed(Self::issuer_params(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// An authority whose certificate expires at the beginning of this year.
    fn expiring(name: &str, year: i32) -> Authority {
        let mut params = Self::issuer_params(name);
        params.not_after = date_time_ymd(year, 1, 1);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// An intermediate authority signed by this one.
    fn intermediate(&self, name: &str) -> Authority {
        Authority(CertifiedIssuer::signed_by(Self::issuer_params(name), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for these names, with the certificates of the intermediate authorities.
    pub(crate) fn issue(&self, names: &[&str], intermediates: &[&Authority]) -> Arc<CertifiedKey> {
        self.issue_until(names, intermediates, 2100)
    }

    /// Like [`Authority::issue`], for a certificate that expires at the beginning of this year.
    fn issue_until(&self, names: &[&str], intermediates: &[&Authority], year: i32) -> Arc<CertifiedKey> {
        self.issue_with(names, intermediates, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    fn issue_with(
        &self,
        names: &[&str],
        intermediates: &[&Authority],
        set_params: impl FnOnce(&mut CertificateParams),
    ) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        set_params(&mut params);
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let chain = std::iter::once(leaf.der().clone()).chain(intermediates.iter().map(|authority| authority.der()));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(chain.collect(), any_supported_type(&key).unwrap()))
    }

    /// Trust in this authority with at most this number of intermediate authorities.
    pub(crate) fn trust(&self, max_intermediates: Option<usize>) -> Option<TlsTrust> {
        Some(TlsTrust { anchors: Arc::new(TrustAnchors::new([self.der()])), max_intermediates, identity: None })
    }
}

/// A TLS endpoint that responds with a description of the connection and the request.
pub(crate) struct TlsEndpoint {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// Notified for each request.
    received: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct FixedCertificate(pub(crate) Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl TlsEndpoint {
    pub(crate) async fn with_certificate(certificate: Arc<CertifiedKey>) -> TlsEndpoint {
        TlsEndpoint::with_tls_options(certificate, None, rustls::ALL_VERSIONS).await
    }

    /// Supports these TLS versions, and requires a client certificate of `client_authority`, if there is one.
    async fn with_tls_options(
        certificate: Arc<CertifiedKey>,
        client_authority: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsEndpoint {
        TlsEndpoint::with_protocols(certificate, client_authority, versions, &[b"h2", b"http/1.1"]).await
    }

    async fn with_protocols(
        certificate: Arc<CertifiedKey>,
        client_authority: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn_protocols: &[&[u8]],
    ) -> TlsEndpoint {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
        let builder = match client_authority {
            None => builder.with_no_client_auth(),
            Some(client_authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(client_authority.der()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(FixedCertificate(certificate)));
        config.alpn_protocols = alpn_protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let connection_counter = Arc::clone(&connections);
        let (requests, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (request_counter, request_received) = (Arc::clone(&requests), Arc::clone(&received));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, number) = (acceptor.clone(), connection_counter.fetch_add(1, SeqCst) + 1);
                let (request_counter, request_received) = (Arc::clone(&request_counter), Arc::clone(&request_received));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let tls = stream.get_ref().1;
                    let connection_facts = format!(
                        "connection={number} sni={} client={} resumed={}",
                        tls.server_name().unwrap_or("none"),
                        tls.peer_certificates().is_some(),
                        tls.handshake_kind() == Some(HandshakeKind::Resumed),
                    );
                    let is_http2 = tls.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| {
                        request_counter.fetch_add(1, SeqCst);
                        request_received.notify_one();
                        respond(connection_facts.clone(), request)
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
        TlsEndpoint { address, connections, requests, received }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Responds with the facts about the connection and the request, or echoes the bytes of an upgraded connection.
async fn respond(
    connection_facts: String,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
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
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
        response.headers_mut().insert(UPGRADE, "websocket".parse().unwrap());
        return Ok(response);
    }
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().unwrap().to_owned(),
        None => request.uri().authority().unwrap().to_string(),
    };
    let scheme = request.uri().scheme_str().unwrap_or("none").to_owned();
    let mut response = Response::new(Full::from(format!("{connection_facts} host={host} scheme={scheme}")));
    if request.uri().path() == "/close" {
        response.headers_mut().insert(CONNECTION, "close".parse().unwrap());
    }
    if let Some(content_type) = request.headers().get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    Ok(response)
}

pub(crate) fn tls_upstream(
    protocol: UpstreamProtocol,
    settings: UpstreamTlsSettings,
    addresses: &[SocketAddr],
) -> Arc<Upstream> {
    let upstream = Upstream::new(UpstreamKey {
        namespace: "default".into(),
        service: "secure".into(),
        port: 443,
        protocol,
        tls: Some(settings),
        ..UpstreamKey::default()
    });
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, ..Default::default() });
    Arc::new(upstream)
}

fn http1_settings(trust: Option<TlsTrust>, client_certificate: Option<Arc<CertifiedKey>>) -> UpstreamTlsSettings {
    UpstreamTlsSettings::new(UpstreamProtocol::Http1, trust, client_certificate).unwrap()
}

fn http1_routes_to(settings: UpstreamTlsSettings, address: SocketAddr) -> Vec<Route> {
    vec![route(forward(vec![(1, tls_upstream(UpstreamProtocol::Http1, settings, &[address]))]))]
}

async fn send_get(server: &TestServer, host: &str) -> TestResponse {
    server.request(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await
}

// docs/kong-compatibility.md, 2.1
#[tokio::test]
async fn endpoint_certificate_is_verified() {
    let (authority, other_authority, expired_authority) =
        (Authority::new("own"), Authority::new("other"), Authority::expiring("old", 2020));
    let intermediate = authority.intermediate("between");
    let valid = authority.issue(&["a.example", "*.wild.example", "127.0.0.1"], &[]);
    let pinned = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let self_signed = params.self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(vec![self_signed.der().clone()], any_supported_type(&key).unwrap()))
    };
    let pinned_trust = |max_intermediates| {
        Some(TlsTrust {
            anchors: Arc::new(TrustAnchors::new([pinned.cert[0].clone()])),
            max_intermediates,
            identity: None,
        })
    };
    let through_intermediate = intermediate.issue(&["a.example"], &[&intermediate]);
    let expired = authority.issue_until(&["a.example"], &[], 2020);
    type Case<'a> = (&'a str, &'a Arc<CertifiedKey>, Option<TlsTrust>, &'a str, u16);
    let cases: [Case<'_>; 16] = [
        ("a trusted authority", &valid, authority.trust(None), "a.example", 200),
        ("names are case-insensitive, without the port", &valid, authority.trust(None), "A.Example:8080", 200),
        ("a wildcard", &valid, authority.trust(None), "x.wild.example", 200),
        ("an address", &valid, authority.trust(None), "127.0.0.1", 200),
        ("another address", &valid, authority.trust(None), "127.0.0.2", 502),
        ("another name", &valid, authority.trust(None), "b.example", 502),
        ("a Host that is no DNS name", &valid, authority.trust(None), "a_b~c.example", 502),
        ("another authority", &valid, other_authority.trust(None), "a.example", 502),
        (
            "no trust anchors",
            &valid,
            Some(TlsTrust { anchors: Arc::default(), max_intermediates: None, identity: None }),
            "a.example",
            502,
        ),
        ("expired", &expired, authority.trust(None), "a.example", 502),
        (
            "expired authority",
            &expired_authority.issue(&["a.example"], &[]),
            expired_authority.trust(None),
            "a.example",
            502,
        ),
        ("signed by an intermediate", &through_intermediate, authority.trust(None), "a.example", 200),
        ("an intermediate within the depth", &through_intermediate, authority.trust(Some(1)), "a.example", 200),
        ("an intermediate beyond the depth", &through_intermediate, authority.trust(Some(0)), "a.example", 502),
        ("a pinned certificate", &pinned, pinned_trust(Some(0)), "a.example", 200),
        ("a pinned certificate for another name", &pinned, pinned_trust(None), "b.example", 502),
    ];
    for (what, certificate, trust, host, status) in cases {
        let endpoint = TlsEndpoint::with_certificate(Arc::clone(certificate)).await;
        let server = TestServer::with_routes(http1_routes_to(http1_settings(trust, None), endpoint.address)).await;
        assert_eq!(send_get(&server, host).await.status, status, "{what}");
        let unverifying_server =
            TestServer::with_routes(http1_routes_to(http1_settings(None, None), endpoint.address)).await;
        assert_eq!(send_get(&unverifying_server, host).await.status, 200, "{what}, without verification");
    }
}

/// Settings as a BackendTLSPolicy with this `hostname` and these `subjectAltNames` requires them.
fn policy_settings(
    protocol: Option<UpstreamProtocol>,
    authority: &Authority,
    hostname: &'static str,
    alternatives: &[IdentityName],
) -> UpstreamTlsSettings {
    let server_name = HeaderValue::from_static(hostname);
    let identity = EndpointIdentity { server_name, alternatives: alternatives.into() };
    let trust = authority.trust(None).map(|trust| TlsTrust { identity: Some(identity), ..trust });
    UpstreamTlsSettings::new(protocol, trust, None).unwrap()
}

/// Gateway API, `BackendTLSPolicy.spec.validation`: the name of the policy is sent and verified, whatever the `Host`.
#[tokio::test]
async fn policy_fixes_the_server_name_and_the_identity() {
    let authority = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(authority.issue(&["a.example", "b.example"], &[])).await;
    let other = || IdentityName::Dns("b.example".try_into().unwrap());
    let foreign = || IdentityName::Uri("spiffe://cluster.local/ns/x".into());
    for (what, protocol, hostname, alternatives, status) in [
        ("its name", UpstreamProtocol::Http1, "a.example", vec![], 200),
        ("its name, over HTTP/2", UpstreamProtocol::Http2, "a.example", vec![], 200),
        ("another name", UpstreamProtocol::Http1, "c.example", vec![], 502),
        ("an alternative", UpstreamProtocol::Http1, "c.example", vec![foreign(), other()], 200),
        ("no alternative, though the name is valid", UpstreamProtocol::Http1, "a.example", vec![foreign()], 502),
    ] {
        let settings = policy_settings(Some(protocol), &authority, hostname, &alternatives);
        let action = forward(vec![(1, tls_upstream(protocol, settings, &[endpoint.address]))]);
        let server = TestServer::with_routes(vec![route(action)]).await;
        let before = endpoint.connections();
        // Two hosts share the connection, because both use the name of the policy.
        for host in ["x.example", "127.0.0.1:8080"] {
            let response = send_get(&server, host).await;
            assert_eq!(response.status, status, "{what}");
            if status == 200 {
                let facts = format!("sni={hostname} client=false resumed=false host={host}");
                assert!(response.text().contains(&facts), "{what}: {}", response.text());
            }
        }
        if status == 200 {
            assert_eq!(endpoint.connections() - before, 1, "{what}");
        }
    }
}

/// Bytes of TCP connections are encrypted, too. No protocol is offered, since any may follow.
#[tokio::test]
async fn policy_encrypts_forwarded_connections() {
    let authority = Authority::new("own");
    let certificate = authority.issue(&["db.example"], &[]);
    let endpoint = TlsEndpoint::with_certificate(certificate).await;
    for (hostname, is_trusted) in [("db.example", true), ("other.example", false)] {
        let settings = policy_settings(None, &authority, hostname, &[]);
        let action = to_upstream(&tls_upstream(UpstreamProtocol::Http1, settings, &[endpoint.address]));
        let server = stream::start(Options::default(), action).await;
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: from-client.example\r\n\r\n").await;
        if is_trusted {
            let text = client.response().await.text();
            assert!(text.contains("sni=db.example client=false"), "{text}");
        } else {
            assert!(client.read_to_end().await.is_err(), "the connection is reset");
            wait_for_outcome(&server, "connection_refused", 1.0).await;
        }
    }
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn server_name_is_the_host_and_separates_connections() {
    let authority = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(authority.issue(&["a.example", "b.example"], &[])).await;
    let server =
        TestServer::with_routes(http1_routes_to(http1_settings(authority.trust(None), None), endpoint.address)).await;
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

/// Sends a request over a connection that is closed afterwards, and returns whether its TLS session was resumed.
async fn is_resumed(server: &TestServer, host: &str) -> bool {
    let text = server.request(&format!("GET /close HTTP/1.1\r\nhost: {host}\r\n\r\n")).await.text();
    assert!(text.contains(" resumed="), "{text}");
    text.contains(" resumed=true ")
}

#[tokio::test]
async fn sessions_are_resumed_under_the_same_settings_only() {
    let (authority, other_authority) = (Authority::new("own"), Authority::new("other"));
    let names = ["a.example", "b.example"];
    let client_certificate = other_authority.issue(&["portico.example"], &[]);
    let trust_in_both = || {
        let anchors = Arc::new(TrustAnchors::new([authority.der(), other_authority.der()]));
        Some(TlsTrust { anchors, max_intermediates: None, identity: None })
    };
    for version in rustls::ALL_VERSIONS {
        // Both have the same certificate and different keys for their sessions.
        let certificate = authority.issue(&names, &[]);
        let endpoint = TlsEndpoint::with_tls_options(Arc::clone(&certificate), None, &[version]).await;
        let other_endpoint = TlsEndpoint::with_tls_options(certificate, None, &[version]).await;
        let registry = UpstreamRegistry::default();
        let settings = |trust, client| registry.tls_settings(UpstreamProtocol::Http1, trust, client).unwrap();
        let all_settings = [
            settings(authority.trust(None), None),
            settings(authority.trust(Some(1)), None),
            settings(trust_in_both(), None),
            settings(authority.trust(None), Some(Arc::clone(&client_certificate))),
            settings(None, None),
        ];
        let server = TestServer::with_routes(vec![]).await;
        for settings in &all_settings {
            server.replace_routes(http1_routes_to(settings.clone(), endpoint.address));
            for host in names {
                assert!(!is_resumed(&server, host).await, "{version:?} {settings} {host}");
                assert!(is_resumed(&server, host).await, "{version:?} {settings} {host}");
                assert!(is_resumed(&server, host).await, "{version:?} {settings} {host}");
            }
        }
        server.replace_routes(http1_routes_to(all_settings[0].clone(), other_endpoint.address));
        assert!(!is_resumed(&server, names[0]).await, "{version:?}");
        // Settings that return find their sessions.
        server.replace_routes(http1_routes_to(all_settings[0].clone(), endpoint.address));
        assert!(is_resumed(&server, names[0]).await, "{version:?}");
        // An authority that did not issue the certificate.
        server.replace_routes(http1_routes_to(settings(other_authority.trust(None), None), endpoint.address));
        assert_eq!(send_get(&server, names[0]).await.status, 502, "{version:?}");
    }
}

#[tokio::test]
async fn expired_certificate_ends_its_sessions() {
    let authority = Authority::new("own");
    for version in rustls::ALL_VERSIONS {
        let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(4);
        let certificate =
            authority.issue_with(&["a.example"], &[], |params| params.not_after = date_time_ymd(1970, 1, 1) + expiry);
        let endpoint = TlsEndpoint::with_tls_options(certificate, None, &[version]).await;
        let server =
            TestServer::with_routes(http1_routes_to(http1_settings(authority.trust(None), None), endpoint.address))
                .await;
        let request = "GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n";
        let mut resumed = 0;
        let last = with_timeout("the end of the certificate", async {
            loop {
                let response = server.request(request).await;
                if response.status != 200 {
                    return response.status;
                }
                resumed += usize::from(response.text().contains(" resumed=true "));
            }
        })
        .await;
        assert_eq!(last, 502, "{version:?}");
        assert!(resumed > 0, "{version:?}");
        let errors = scrape(&server);
        assert_eq!(errors["portico_request_errors_total{reason=\"tls_handshake\"}"], 1.0, "{version:?}: {errors:?}");
    }
}

#[tokio::test]
async fn arbitrary_hosts_do_not_evict_the_connection_of_a_used_host() {
    let endpoint = TlsEndpoint::with_certificate(Authority::new("own").issue(&["a.example"], &[])).await;
    // A POST gets no HTTP/1 connection that was idle for a second.
    for (protocol, method, content_type) in [
        (UpstreamProtocol::Http1, Method::GET, "text/plain"),
        (UpstreamProtocol::Http2, Method::POST, "application/grpc"),
    ] {
        let connections_before = endpoint.connections();
        let settings = UpstreamTlsSettings::new(protocol, None, None).unwrap();
        let upstream = tls_upstream(protocol, settings, &[endpoint.address]);
        let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream)]))]).await;
        let client = h2::Http2Client::connect(server.address).await;
        let send = async |host: String| {
            let target = format!("http://{host}/shop.Cart/Add");
            let request = Request::builder().method(&method).uri(target).header(CONTENT_TYPE, content_type);
            String::from_utf8(client.request(request.body(()).unwrap()).await.unwrap().body).unwrap()
        };
        // More hosts than the pool keeps: 128 idle HTTP/1 connections, and HTTP/2 connections under 64 names.
        for number in 0..150 {
            if number % 10 == 0 {
                let text = send("a.example".to_owned()).await;
                assert!(
                    text.starts_with(&format!("connection={} ", connections_before + 1)),
                    "{protocol:?} {number}: {text}"
                );
            }
            send(format!("{number}.example")).await;
        }
    }
}

// docs/kong-compatibility.md, 2.1
#[tokio::test]
async fn client_certificate_is_sent_to_endpoints_that_require_one() {
    let (authority, client_authority, other_authority) =
        (Authority::new("own"), Authority::new("clients"), Authority::new("others"));
    for version in rustls::ALL_VERSIONS {
        let endpoint =
            TlsEndpoint::with_tls_options(authority.issue(&["a.example"], &[]), Some(&client_authority), &[version])
                .await;
        for (client_certificate, status) in [
            (Some(client_authority.issue(&["portico.example"], &[])), 200),
            (Some(other_authority.issue(&["portico.example"], &[])), 502),
            (None, 502),
        ] {
            let server = TestServer::with_routes(http1_routes_to(
                http1_settings(authority.trust(None), client_certificate),
                endpoint.address,
            ))
            .await;
            let response = send_get(&server, "a.example").await;
            assert_eq!(response.status, status, "{version:?}: {}", response.text());
            let error_count = scrape(&server).get("portico_request_errors_total{reason=\"tls_handshake\"}").copied();
            // With TLS 1.3, the rejection arrives after the handshake, and a reset may precede the alert, so the reason
            // varies.
            if status == 200 || version.version == rustls::ProtocolVersion::TLSv1_2 {
                let expected = if status == 502 { 1.0 } else { 0.0 };
                assert_eq!(error_count.unwrap_or_default(), expected, "{version:?}");
            }
        }
    }
}

#[tokio::test]
async fn grpc_uses_http2_with_alpn() {
    let authority = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(authority.issue(&["a.example", "b.example"], &[])).await;
    let settings = UpstreamTlsSettings::new(UpstreamProtocol::Http2, authority.trust(None), None).unwrap();
    let upstream = tls_upstream(UpstreamProtocol::Http2, settings, &[endpoint.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, upstream)]))]).await;
    let client = h2::Http2Client::connect(server.address).await;
    for (host, connection) in [("a.example", 1), ("b.example", 2), ("a.example", 1)] {
        let request = Request::post(format!("http://{host}/shop.Cart/Add"));
        let request = request.header(CONTENT_TYPE, "application/grpc").body(()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!((response.status, response.headers[CONTENT_TYPE].to_str().unwrap()), (200, "application/grpc"));
        let text = String::from_utf8(response.body).unwrap();
        assert!(text.starts_with(&format!("connection={connection} sni={host} ")), "{text}");
        assert!(text.ends_with(&format!("host={host} scheme=https")), "{text}");
    }
    assert_eq!(endpoint.connections(), 2);
    // This endpoint requires a client certificate, and the proxy has none.
    let strict =
        TlsEndpoint::with_tls_options(authority.issue(&["a.example"], &[]), Some(&authority), rustls::ALL_VERSIONS)
            .await;
    let settings = UpstreamTlsSettings::new(UpstreamProtocol::Http2, authority.trust(None), None).unwrap();
    server.replace_routes(vec![route(forward(vec![(
        1,
        tls_upstream(UpstreamProtocol::Http2, settings, &[strict.address]),
    )]))]);
    assert_eq!(send_get(&server, "a.example").await.status, 502);
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn websocket_works_over_upstream_tls() {
    let authority = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(authority.issue(&["a.example"], &[])).await;
    let server =
        TestServer::with_routes(http1_routes_to(http1_settings(authority.trust(None), None), endpoint.address)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response().await.status, 101);
    client.send("there and back").await;
    let mut bytes = [0; 14];
    with_timeout("the echo", client.socket.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"there and back");
}

#[tokio::test]
async fn mirrored_requests_use_tls() {
    let authority = Authority::new("own");
    let original = Endpoint::ok().await;
    for (protocol, host, arrives) in [
        (UpstreamProtocol::Http1, "a.example", true),
        (UpstreamProtocol::Http2, "a.example", true),
        (UpstreamProtocol::Http1, "b.example", false),
    ] {
        let endpoint = TlsEndpoint::with_certificate(authority.issue(&["a.example"], &[])).await;
        let settings = UpstreamTlsSettings::new(protocol, authority.trust(None), None).unwrap();
        let mirror =
            Mirror { upstream: tls_upstream(protocol, settings, &[endpoint.address]), numerator: 1, denominator: 1 };
        let filters = Filters { mirrors: [mirror].into(), ..Filters::default() };
        let server = TestServer::with_routes(vec![Route { filters, ..plain_route_to(&original) }]).await;
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

#[tokio::test]
async fn authorization_servers_use_tls() {
    let authority = Authority::new("own");
    let endpoint = Endpoint::ok().await;
    for (protocol, host, status) in [
        (UpstreamProtocol::Http1, "a.example", 200),
        (UpstreamProtocol::Http2, "a.example", 200),
        // Its certificate is for another name.
        (UpstreamProtocol::Http1, "b.example", 503),
    ] {
        let authorization = TlsEndpoint::with_certificate(authority.issue(&["a.example"], &[])).await;
        let settings = UpstreamTlsSettings::new(protocol, authority.trust(None), None).unwrap();
        let filter = http_filter(tls_upstream(protocol, settings, &[authorization.address]));
        let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
        assert_eq!(send_get(&server, host).await.status, status, "{protocol:?} {host}");
        assert_eq!(authorization.requests.load(SeqCst), usize::from(status == 200), "{protocol:?} {host}");
    }
    assert_eq!(endpoint.log.requests().len(), 2);
}

fn plain_route_to(endpoint: &Endpoint) -> Route {
    route(forward(vec![(1, upstream("web", &[endpoint.address]))]))
}

#[tokio::test]
async fn different_tls_settings_share_no_connection() {
    let (authority, client_authority) = (Authority::new("own"), Authority::new("clients"));
    let endpoint = TlsEndpoint::with_certificate(authority.issue(&["a.example"], &[])).await;
    let client_certificate = client_authority.issue(&["portico.example"], &[]);
    let all_settings = || {
        [
            http1_settings(None, None),
            http1_settings(authority.trust(None), None),
            http1_settings(authority.trust(Some(3)), None),
            http1_settings(client_authority.trust(None), None),
            http1_settings(None, Some(Arc::clone(&client_certificate))),
            UpstreamTlsSettings::new(UpstreamProtocol::Http2, None, None).unwrap(),
        ]
    };
    assert_eq!(all_settings(), all_settings());
    assert_eq!(all_settings().into_iter().collect::<BTreeSet<_>>().len(), 6);
    let server = TestServer::with_routes(http1_routes_to(http1_settings(None, None), endpoint.address)).await;
    send_get(&server, "a.example").await;
    server.replace_routes(http1_routes_to(http1_settings(client_authority.trust(None), None), endpoint.address));
    assert_eq!(send_get(&server, "a.example").await.status, 502, "an unverified connection must not be reused");
    server.replace_routes(http1_routes_to(http1_settings(authority.trust(None), None), endpoint.address));
    assert_eq!(send_get(&server, "a.example").await.status, 200);
    assert_eq!(endpoint.connections(), 3);
}

#[tokio::test]
async fn authority_rotation_fails_no_request() {
    let (old_authority, new_authority) = (Authority::new("old"), Authority::new("new"));
    let endpoint = TlsEndpoint::with_certificate(old_authority.issue(&["a.example"], &[])).await;
    let trust_in_both = || TlsTrust {
        anchors: Arc::new(TrustAnchors::new([old_authority.der(), new_authority.der()])),
        max_intermediates: None,
        identity: None,
    };
    let first_upstream =
        tls_upstream(UpstreamProtocol::Http1, http1_settings(old_authority.trust(None), None), &[endpoint.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, first_upstream)]))]).await;
    let mut client = server.connect().await;
    // Every five requests the trust changes: to both authorities, and back. The endpoint keeps its certificate.
    for round in 0..20 {
        assert_eq!(client.get("/").await.status, 200, "round {round}");
        if round % 5 == 4 {
            let trust = if round % 10 == 4 { Some(trust_in_both()) } else { old_authority.trust(None) };
            server.replace_routes(http1_routes_to(http1_settings(trust, None), endpoint.address));
        }
    }
}

#[tokio::test]
async fn plain_text_endpoint_is_recorded_as_tls_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let authority = Authority::new("own");
    let plain = Endpoint::scripted(|mut stream, _| async move {
        stream.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        stream.read_to_end().await;
    })
    .await;
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server =
        TestServer::with_options(options, http1_routes_to(http1_settings(authority.trust(None), None), plain.address))
            .await;
    let response = send_get(&server, "a.example").await;
    assert_eq!(response.status, 502);
    assert!(
        response.text().contains("An invalid response was received from the upstream server"),
        "{}",
        response.text()
    );
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_request_errors_total{reason=\"tls_handshake\"}"], 1.0);
    assert_eq!(metrics["portico_upstream_connects_total{outcome=\"tls_handshake\"}"], 1.0);
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    server.log.finish();
    assert_eq!(access_log_records(&path)[0]["error"], "tls_handshake");
}

#[tokio::test]
async fn connect_timeout_includes_the_handshake() {
    let authority = Authority::new("own");
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let (unresponsive, _queue, _socket) = unresponsive_address().await;
    for address in [silent.address, unresponsive] {
        let limits = ProxyLimits { connect_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
        let options = Options { limits, ..Options::default() };
        let server =
            TestServer::with_options(options, http1_routes_to(http1_settings(authority.trust(None), None), address))
                .await;
        assert_eq!(send_get(&server, "a.example").await.status, 504);
    }
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn failed_handshake_tries_another_endpoint() {
    let (authority, other_authority) = (Authority::new("own"), Authority::new("other"));
    let valid = TlsEndpoint::with_certificate(authority.issue(&["a.example"], &[])).await;
    let untrusted = TlsEndpoint::with_certificate(other_authority.issue(&["a.example"], &[])).await;
    let upstream = tls_upstream(
        UpstreamProtocol::Http1,
        http1_settings(authority.trust(None), None),
        &[valid.address, untrusted.address],
    );
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
    for _ in 0..4 {
        assert_eq!(send_get(&server, "a.example").await.status, 200);
    }
    assert!(untrusted.connections() > 0);
}

/// What a TLS passthrough proxy in front of an endpoint does with connections for unknown server names.
#[derive(Clone, Copy, Debug)]
enum UnknownName {
    /// Closes the connection.
    Closed,
    /// Keeps the connection open and sends nothing.
    KeptOpen,
    /// Sends the alert with this number.
    Alert(u8),
    /// Connects to the endpoint at this address.
    Forwarded(SocketAddr),
}

/// A TLS passthrough proxy that connects to `known_endpoint` for a.example, and treats all other names as stated.
async fn tls_proxy(known_endpoint: SocketAddr, unknown_name: UnknownName) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Waits for the first TLS record: a header of five bytes, of which the last two are the length, and the
                // ClientHello with the server name.
                let mut hello = [0; 4096];
                let mut received = 0;
                while received < 5 || received < 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) {
                    socket.readable().await.unwrap();
                    received = socket.peek(&mut hello).await.unwrap();
                }
                let is_known = hello[..received].windows(9).any(|bytes| bytes == b"a.example");
                let target = match unknown_name {
                    _ if is_known => known_endpoint,
                    UnknownName::Closed => return,
                    UnknownName::KeptOpen => {
                        // Ends when Portico closes the connection.
                        let mut rest = Vec::new();
                        drop(socket.read_to_end(&mut rest).await);
                        return;
                    }
                    UnknownName::Alert(alert) => {
                        socket.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
                        return;
                    }
                    UnknownName::Forwarded(other_endpoint) => other_endpoint,
                };
                let mut endpoint = TcpStream::connect(target).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut socket, &mut endpoint).await);
            });
        }
    });
    address
}

pub(crate) fn is_healthy(upstream: &Upstream, address: SocketAddr) -> bool {
    upstream.endpoint_reports().iter().any(|report| report.address == Some(address) && report.is_healthy)
}

fn is_suspect(upstream: &Upstream, address: SocketAddr) -> bool {
    let reports = upstream.endpoint_reports();
    let report = reports.iter().find(|report| report.address == Some(address)).unwrap();
    report.health.as_ref().is_some_and(|health| health.availability == Availability::Suspect)
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn unknown_server_names_do_not_eject_the_endpoint() {
    let (authority, other_authority) = (Authority::new("own"), Authority::new("other"));
    let certificate = || authority.issue(&["a.example"], &[]);
    let untrusted = TlsEndpoint::with_certificate(other_authority.issue(&["b.example"], &[])).await;
    let expired = TlsEndpoint::with_certificate(authority.issue_until(&["b.example"], &[], 2020)).await;
    let client_auth_endpoint =
        TlsEndpoint::with_tls_options(authority.issue(&["b.example"], &[]), Some(&authority), rustls::ALL_VERSIONS)
            .await;
    // This endpoint negotiates no protocol with ALPN and serves HTTP/1.1.
    let http1_endpoint =
        TlsEndpoint::with_protocols(authority.issue(&["b.example"], &[]), None, rustls::ALL_VERSIONS, &[]).await;
    let unknown_names = [
        UnknownName::Closed,
        UnknownName::KeptOpen,
        // The alerts handshake_failure, internal_error and unrecognized_name.
        UnknownName::Alert(40),
        UnknownName::Alert(80),
        UnknownName::Alert(112),
        UnknownName::Forwarded(untrusted.address),
        UnknownName::Forwarded(expired.address),
        UnknownName::Forwarded(client_auth_endpoint.address),
        UnknownName::Forwarded(http1_endpoint.address),
    ];
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        for unknown_name in unknown_names {
            let known_endpoint = TlsEndpoint::with_certificate(certificate()).await;
            let address = tls_proxy(known_endpoint.address, unknown_name).await;
            let settings = UpstreamTlsSettings::new(protocol, authority.trust(None), None).unwrap();
            let upstream = tls_upstream(protocol, settings, &[address]);
            let limits = match unknown_name {
                UnknownName::KeptOpen => ProxyLimits { connect_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() },
                _ => ProxyLimits::default(),
            };
            let options = Options { limits, ..Options::default() };
            let server =
                TestServer::with_options(options, vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
            assert_eq!(send_get(&server, "a.example").await.status, 200, "a.example is known");
            let status = send_get(&server, "b.example").await.status;
            let expected = match (unknown_name, protocol) {
                (UnknownName::KeptOpen, _) => 504,
                // HTTP/1.1 is the protocol of this upstream.
                (UnknownName::Forwarded(address), UpstreamProtocol::Http1) if address == http1_endpoint.address => 200,
                _ => 502,
            };
            assert_eq!(status, expected, "{protocol:?} {unknown_name:?}");
            assert!(is_healthy(&upstream, address), "{protocol:?} {unknown_name:?}");
            assert!(!is_suspect(&upstream, address), "{protocol:?} {unknown_name:?}");
        }
    }
}

#[tokio::test]
async fn plain_or_unreachable_endpoint_is_ejected() {
    let authority = Authority::new("own");
    let valid = TlsEndpoint::with_certificate(authority.issue(&["a.example"], &[])).await;
    let plain = Endpoint::scripted(|mut stream, _| async move {
        stream.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        stream.read_to_end().await;
    })
    .await;
    let unreachable = refusing_address();
    for failing in [plain.address, unreachable] {
        let upstream = tls_upstream(
            UpstreamProtocol::Http1,
            http1_settings(authority.trust(None), None),
            &[valid.address, failing],
        );
        let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
        for _ in 0..4 {
            // `/close` closes the connection. An open one would be reused, without choosing an endpoint.
            assert_eq!(server.request("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
        }
        assert!(!is_healthy(&upstream, failing));
        assert!(is_healthy(&upstream, valid.address));
    }
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn endpoint_is_ejected_if_another_accepts_the_name() {
    let authority = Authority::new("own");
    let certificate = || authority.issue(&["a.example"], &[]);
    let expired = TlsEndpoint::with_certificate(authority.issue_until(&["a.example"], &[], 2020)).await;
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let closing = Endpoint::scripted(|stream, _| async move { drop(stream) }).await;
    // This endpoint negotiates no protocol with ALPN and serves HTTP/1.1.
    let http1_endpoint = TlsEndpoint::with_protocols(certificate(), None, rustls::ALL_VERSIONS, &[]).await;
    let cases = [
        ("expired", UpstreamProtocol::Http1, expired.address),
        ("silent", UpstreamProtocol::Http1, silent.address),
        ("closing", UpstreamProtocol::Http1, closing.address),
        ("silent", UpstreamProtocol::Http2, silent.address),
        ("not HTTP/2", UpstreamProtocol::Http2, http1_endpoint.address),
    ];
    let check = async |what: &'static str, protocol: UpstreamProtocol, failing: SocketAddr| {
        let valid = TlsEndpoint::with_certificate(certificate()).await;
        let settings = UpstreamTlsSettings::new(protocol, authority.trust(None), None).unwrap();
        let upstream = tls_upstream(protocol, settings, &[valid.address, failing]);
        let limits = ProxyLimits { connect_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
        let options = Options { limits, ..Options::default() };
        let server = TestServer::with_options(options, vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
        // By round robin, one for each endpoint.
        for _ in 0..2 {
            assert_ne!(send_get(&server, "b.example").await.status, 200, "{what}");
        }
        assert!(
            is_healthy(&upstream, failing) && is_healthy(&upstream, valid.address),
            "{what}: no endpoint accepts this name"
        );
        for _ in 0..6 {
            // After a second without a handshake, the endpoint is suspect, and no request chooses it before its probe
            // has opened a connection. This test has no probes.
            if is_suspect(&upstream, failing) {
                upstream.report(failing, &Outcome::of(OutcomeClass::Connected));
            }
            // `/close` closes the connection. An open one would be reused, without choosing an endpoint.
            assert_eq!(server.request("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200, "{what}");
        }
        assert!(!is_healthy(&upstream, failing), "{what}");
        send_get(&server, "b.example").await;
        assert!(is_healthy(&upstream, valid.address), "{what}: a failure for another name must not eject");
    };
    // At the same time, because some cases wait for a timeout.
    join_all(cases.map(|(what, protocol, failing)| check(what, protocol, failing))).await;
}

#[tokio::test]
async fn unknown_server_names_do_not_block_recovery() {
    let authority = Authority::new("own");
    let endpoint = TlsEndpoint::with_certificate(authority.issue(&["a.example"], &[])).await;
    let recovering = tls_proxy(endpoint.address, UnknownName::Closed).await;
    let upstream = tls_upstream(
        UpstreamProtocol::Http1,
        http1_settings(authority.trust(None), None),
        &[endpoint.address, recovering],
    );
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
    upstream.report(recovering, &Outcome::of(OutcomeClass::ConnectFailed));
    // The requests go on for longer than the ejection, so that one of them probes the endpoint.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(900) {
        assert_eq!(send_get(&server, "b.example").await.status, 502);
    }
    assert!(!is_healthy(&upstream, recovering), "the endpoint recovered without a successful handshake");
    let recovery = async {
        while !is_healthy(&upstream, recovering) {
            assert_eq!(server.request("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
        }
    };
    with_timeout("the recovery of the endpoint", recovery).await;
}
