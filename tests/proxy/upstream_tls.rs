//! TLS towards endpoints: who is trusted, under which name, what is shown, and that no connection serves two settings.

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
use portico::proxy::Limits;
use portico::proxy::access_log::Destination;
use portico::snapshot::rule::{Filters, Mirror};
use portico::upstream::tls::{Anchors, Terms, Trust};
use portico::upstream::{Address, Endpoints, Protocol, Upstream, UpstreamKey};
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

use crate::books::{records, scrape};
use crate::endpoints::deaf;
use crate::h2;
use crate::harness::{Answer, Endpoint, Gate, Options, PATIENCE, Route, forward, route, upstream, within};

/// Who issues certificates.
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

    fn until(name: &str, year: i32) -> Authority {
        let mut params = Self::params(name);
        params.not_after = date_time_ymd(year, 1, 1);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// One that this one vouches for.
    fn below(&self, name: &str) -> Authority {
        Authority(CertifiedIssuer::signed_by(Self::params(name), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for these names, with those between it and the root.
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

    fn trust(&self, depth: Option<usize>) -> Option<Trust> {
        Some(Trust { anchors: Arc::new(Anchors::new([self.der()])), depth })
    }
}

/// An endpoint that speaks TLS and says what it was asked for.
struct Secured {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    asked: Arc<Notify>,
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Secured {
    async fn showing(certificate: Arc<CertifiedKey>) -> Secured {
        Secured::asking(certificate, None, rustls::ALL_VERSIONS).await
    }

    /// `clients`: whose certificates it wants to see.
    async fn asking(
        certificate: Arc<CertifiedKey>,
        clients: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Secured {
        Secured::speaking(certificate, clients, versions, &[b"h2", b"http/1.1"]).await
    }

    async fn speaking(
        certificate: Arc<CertifiedKey>,
        clients: Option<&Authority>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Secured {
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
        let mut config = builder.with_cert_resolver(Arc::new(Shows(certificate)));
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
                        answer(facts.clone(), request)
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
        Secured { address, connections, requests, asked }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

async fn answer(facts: String, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
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

fn secure_upstream(protocol: Protocol, terms: Terms, addresses: &[SocketAddr]) -> Arc<Upstream> {
    let upstream = Upstream::new(UpstreamKey {
        namespace: "default".into(),
        service: "secure".into(),
        port: 443,
        protocol,
        tls: Some(terms),
        ..UpstreamKey::default()
    });
    let mut addresses: Vec<_> = addresses.iter().copied().map(Address::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, ..Default::default() });
    Arc::new(upstream)
}

fn terms(trust: Option<Trust>, client: Option<Arc<CertifiedKey>>) -> Terms {
    Terms::new(Protocol::Http1, trust, client).unwrap()
}

fn to(terms: Terms, address: SocketAddr) -> Vec<Route> {
    vec![route(forward(vec![(1, secure_upstream(Protocol::Http1, terms, &[address]))]))]
}

async fn ask(gate: &Gate, host: &str) -> Answer {
    gate.ask(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await
}

// kong-compat §2.1
#[tokio::test]
async fn who_is_trusted_is_answered_and_nobody_else() {
    let (own, other, old) = (Authority::new("own"), Authority::new("other"), Authority::until("old", 2020));
    let between = own.below("between");
    let good = own.issue(&["a.example", "*.wild.example", "127.0.0.1"], &[]);
    let pinned = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(vec![made.der().clone()], any_supported_type(&key).unwrap()))
    };
    let pin = |depth| Some(Trust { anchors: Arc::new(Anchors::new([pinned.cert[0].clone()])), depth });
    let through = between.issue(&["a.example"], &[&between]);
    let expired = own.issue_until(&["a.example"], &[], 2020);
    type Case<'a> = (&'a str, &'a Arc<CertifiedKey>, Option<Trust>, &'a str, u16);
    let cases: [Case<'_>; 16] = [
        ("its authority is trusted", &good, own.trust(None), "a.example", 200),
        ("names have no case, and the port is no part of them", &good, own.trust(None), "A.Example:8080", 200),
        ("a wildcard", &good, own.trust(None), "x.wild.example", 200),
        ("an address", &good, own.trust(None), "127.0.0.1", 200),
        ("another address", &good, own.trust(None), "127.0.0.2", 502),
        ("another name", &good, own.trust(None), "b.example", 502),
        ("no name at all", &good, own.trust(None), "a_b~c.example", 502),
        ("another authority", &good, other.trust(None), "a.example", 502),
        ("nobody is trusted", &good, Some(Trust { anchors: Arc::default(), depth: None }), "a.example", 502),
        ("expired", &expired, own.trust(None), "a.example", 502),
        ("its authority expired", &old.issue(&["a.example"], &[]), old.trust(None), "a.example", 502),
        ("through another authority", &through, own.trust(None), "a.example", 200),
        ("which is allowed", &through, own.trust(Some(1)), "a.example", 200),
        ("which is too far away", &through, own.trust(Some(0)), "a.example", 502),
        ("trusted itself", &pinned, pin(Some(0)), "a.example", 200),
        ("trusted itself for another name", &pinned, pin(None), "b.example", 502),
    ];
    for (what, certificate, trust, host, status) in cases {
        let endpoint = Secured::showing(Arc::clone(certificate)).await;
        let gate = Gate::open(to(terms(trust, None), endpoint.address)).await;
        assert_eq!(ask(&gate, host).await.status, status, "{what}");
        let lax = Gate::open(to(terms(None, None), endpoint.address)).await;
        assert_eq!(ask(&lax, host).await.status, 200, "{what}, and nobody looks");
    }
}

// kong-compat §3.8
#[tokio::test]
async fn the_name_is_that_of_the_host_and_connections_are_kept_for_it() {
    let own = Authority::new("own");
    let endpoint = Secured::showing(own.issue(&["a.example", "b.example"], &[])).await;
    let gate = Gate::open(to(terms(own.trust(None), None), endpoint.address)).await;
    let first = ask(&gate, "a.example").await.text();
    assert_eq!(first, "connection=1 sni=a.example client=false resumed=false host=a.example scheme=none");
    let second = ask(&gate, "b.example:81").await.text();
    assert_eq!(second, "connection=2 sni=b.example client=false resumed=false host=b.example:81 scheme=none");
    for (host, connection) in [("A.example", 1), ("b.example", 2), ("a.example", 1)] {
        let text = ask(&gate, host).await.text();
        assert!(text.starts_with(&format!("connection={connection} ")), "{text}");
    }
    assert_eq!(endpoint.connections(), 2);
}

#[tokio::test]
async fn every_connection_is_verified_anew() {
    let own = Authority::new("own");
    for version in rustls::ALL_VERSIONS {
        // One that would resume sessions, and with them would not show its certificate again.
        let endpoint = Secured::asking(own.issue(&["a.example"], &[]), None, &[version]).await;
        for trust in [own.trust(None), None] {
            let before = endpoint.connections();
            let gate = Gate::open(to(terms(trust, None), endpoint.address)).await;
            for connection in before + 1..=before + 3 {
                let text = gate.ask("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.text();
                assert!(text.starts_with(&format!("connection={connection} ")), "{version:?}: {text}");
                assert!(text.contains("resumed=false "), "{version:?}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn names_that_a_client_makes_up_close_no_connection_that_others_use() {
    let endpoint = Secured::showing(Authority::new("own").issue(&["a.example"], &[])).await;
    for (protocol, content) in [(Protocol::Http1, "text/plain"), (Protocol::Http2, "application/grpc")] {
        let before = endpoint.connections();
        let terms = Terms::new(protocol, None, None).unwrap();
        let upstream = secure_upstream(protocol, terms, &[endpoint.address]);
        let gate = Gate::open(vec![route(forward(vec![(1, upstream)]))]).await;
        let client = h2::Client::connect(gate.address).await;
        let ask = async |host: String| {
            let request = Request::post(format!("http://{host}/shop.Cart/Add")).header(CONTENT_TYPE, content);
            String::from_utf8(client.ask(request.body(()).unwrap()).await.unwrap().body).unwrap()
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
async fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let (own, clients, others) = (Authority::new("own"), Authority::new("clients"), Authority::new("others"));
    for version in rustls::ALL_VERSIONS {
        let endpoint = Secured::asking(own.issue(&["a.example"], &[]), Some(&clients), &[version]).await;
        for (client, status) in [
            (Some(clients.issue(&["portico.example"], &[])), 200),
            (Some(others.issue(&["portico.example"], &[])), 502),
            (None, 502),
        ] {
            let gate = Gate::open(to(terms(own.trust(None), client), endpoint.address)).await;
            let answer = ask(&gate, "a.example").await;
            assert_eq!(answer.status, status, "{version:?}: {}", answer.text());
            let faults = scrape(&gate).get("portico_faults_total{reason=\"tls_handshake\"}").copied();
            // Of TLS 1.3 the refusal comes late, and a reset may be quicker than its reason.
            let is_certain = status == 200 || version.version == rustls::ProtocolVersion::TLSv1_2;
            assert!(!is_certain || faults.unwrap_or_default() as u16 == u16::from(status == 502), "{version:?}");
        }
    }
}

#[tokio::test]
async fn grpc_goes_over_http2_with_alpn() {
    let own = Authority::new("own");
    let endpoint = Secured::showing(own.issue(&["a.example", "b.example"], &[])).await;
    let terms = Terms::new(Protocol::Http2, own.trust(None), None).unwrap();
    let upstream = secure_upstream(Protocol::Http2, terms, &[endpoint.address]);
    let gate = Gate::open(vec![route(forward(vec![(1, upstream)]))]).await;
    let client = h2::Client::connect(gate.address).await;
    for (host, connection) in [("a.example", 1), ("b.example", 2), ("a.example", 1)] {
        let request = Request::post(format!("http://{host}/shop.Cart/Add"));
        let request = request.header(CONTENT_TYPE, "application/grpc").body(()).unwrap();
        let answer = client.ask(request).await.unwrap();
        assert_eq!((answer.status, answer.headers[CONTENT_TYPE].to_str().unwrap()), (200, "application/grpc"));
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.starts_with(&format!("connection={connection} sni={host} ")), "{text}");
        assert!(text.ends_with(&format!("host={host} scheme=https")), "{text}");
    }
    assert_eq!(endpoint.connections(), 2);
    // Who wants a certificate says so only when hands are shaken.
    let strict = Secured::asking(own.issue(&["a.example"], &[]), Some(&own), rustls::ALL_VERSIONS).await;
    let terms = Terms::new(Protocol::Http2, own.trust(None), None).unwrap();
    gate.swap(vec![route(forward(vec![(1, secure_upstream(Protocol::Http2, terms, &[strict.address]))]))]);
    assert_eq!(ask(&gate, "a.example").await.status, 502);
}

// kong-compat §3.8
#[tokio::test]
async fn a_websocket_goes_through_tls_towards_the_endpoint() {
    let own = Authority::new("own");
    let endpoint = Secured::showing(own.issue(&["a.example"], &[])).await;
    let gate = Gate::open(to(terms(own.trust(None), None), endpoint.address)).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 101);
    client.send("there and back").await;
    let mut bytes = [0; 14];
    within("the echo", client.socket.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"there and back");
}

#[tokio::test]
async fn copies_for_mirrors_go_in_tls_too() {
    let own = Authority::new("own");
    let plain = Endpoint::ok().await;
    for (protocol, host, arrives) in [
        (Protocol::Http1, "a.example", true),
        (Protocol::Http2, "a.example", true),
        (Protocol::Http1, "b.example", false),
    ] {
        let endpoint = Secured::showing(own.issue(&["a.example"], &[])).await;
        let terms = Terms::new(protocol, own.trust(None), None).unwrap();
        let mirror = Mirror { upstream: secure_upstream(protocol, terms, &[endpoint.address]), share: 1, of: 1 };
        let filters = Filters { mirrors: [mirror].into(), ..Filters::default() };
        let gate = Gate::open(vec![Route { filters, ..to_plain(&plain) }]).await;
        assert_eq!(ask(&gate, host).await.text(), "ok");
        if arrives {
            within("the copy", endpoint.asked.notified()).await;
        } else {
            // Its end is in the books once it was given up.
            assert_eq!(gate.proxy.drain(PATIENCE).await, 0);
            assert_eq!(endpoint.requests.load(SeqCst), 0, "{host}");
        }
    }
}

fn to_plain(endpoint: &Endpoint) -> Route {
    route(forward(vec![(1, upstream("web", &[endpoint.address]))]))
}

#[tokio::test]
async fn settings_that_differ_share_no_connection_and_equal_ones_are_equal() {
    let (own, clients) = (Authority::new("own"), Authority::new("clients"));
    let endpoint = Secured::showing(own.issue(&["a.example"], &[])).await;
    let client = clients.issue(&["portico.example"], &[]);
    let all = || {
        [
            terms(None, None),
            terms(own.trust(None), None),
            terms(own.trust(Some(3)), None),
            terms(clients.trust(None), None),
            terms(None, Some(Arc::clone(&client))),
            Terms::new(Protocol::Http2, None, None).unwrap(),
        ]
    };
    assert_eq!(all(), all());
    assert_eq!(all().into_iter().collect::<BTreeSet<_>>().len(), 6);
    let gate = Gate::open(to(terms(None, None), endpoint.address)).await;
    ask(&gate, "a.example").await;
    gate.swap(to(terms(clients.trust(None), None), endpoint.address));
    assert_eq!(ask(&gate, "a.example").await.status, 502, "a connection made without a look is not used");
    gate.swap(to(terms(own.trust(None), None), endpoint.address));
    assert_eq!(ask(&gate, "a.example").await.status, 200);
    assert_eq!(endpoint.connections(), 3);
}

#[tokio::test]
async fn an_authority_is_renewed_while_requests_flow() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let endpoint = Secured::showing(old.issue(&["a.example"], &[])).await;
    let both = || Trust { anchors: Arc::new(Anchors::new([old.der(), new.der()])), depth: None };
    let before = secure_upstream(Protocol::Http1, terms(old.trust(None), None), &[endpoint.address]);
    let gate = Gate::open(vec![route(forward(vec![(1, before)]))]).await;
    let mut client = gate.client().await;
    for round in 0..20 {
        assert_eq!(client.get("/").await.status, 200, "round {round}");
        if round % 5 == 4 {
            let trust = if round % 10 == 4 { Some(both()) } else { old.trust(None) };
            gate.swap(to(terms(trust, None), endpoint.address));
        }
    }
}

#[tokio::test]
async fn what_is_no_tls_is_a_failed_handshake_in_the_books() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let own = Authority::new("own");
    let plain = Endpoint::scripted(|mut stream, _| async move {
        stream.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        stream.rest().await;
    })
    .await;
    let options = Options { log: Destination::File(path.clone()), ..Options::default() };
    let gate = Gate::with(options, to(terms(own.trust(None), None), plain.address)).await;
    let answer = ask(&gate, "a.example").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("An invalid response was received from the upstream server"), "{}", answer.text());
    let scraped = scrape(&gate);
    assert_eq!(scraped["portico_faults_total{reason=\"tls_handshake\"}"], 1.0);
    assert_eq!(scraped["portico_upstream_connects_total{outcome=\"tls_handshake\"}"], 1.0);
    assert_eq!(gate.proxy.drain(PATIENCE).await, 0);
    gate.log.finish();
    assert_eq!(records(&path)[0]["fault"], "tls_handshake");
}

#[tokio::test]
async fn a_handshake_takes_no_longer_than_a_connect_may() {
    let own = Authority::new("own");
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.rest().await;
    })
    .await;
    let (unreached, _queue, _socket) = deaf().await;
    for address in [silent.address, unreached] {
        let limits = Limits { connect_timeout: Duration::from_millis(100), ..Limits::default() };
        let options = Options { limits, ..Options::default() };
        let gate = Gate::with(options, to(terms(own.trust(None), None), address)).await;
        assert_eq!(ask(&gate, "a.example").await.status, 504);
    }
}

// kong-compat §3.8
#[tokio::test]
async fn another_endpoint_is_tried_when_hands_cannot_be_shaken() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let good = Secured::showing(own.issue(&["a.example"], &[])).await;
    let bad = Secured::showing(other.issue(&["a.example"], &[])).await;
    let upstream = secure_upstream(Protocol::Http1, terms(own.trust(None), None), &[good.address, bad.address]);
    let gate = Gate::open(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
    for _ in 0..4 {
        assert_eq!(ask(&gate, "a.example").await.status, 200);
    }
    assert!(bad.connections() > 0);
}

/// What somebody in front of an endpoint does with connections for names that it does not know.
#[derive(Clone, Copy, Debug)]
enum Stranger {
    Closed,
    /// Open, without a word.
    Kept,
    /// An alert by its number.
    Told(u8),
    /// To another endpoint.
    Led(SocketAddr),
}

/// Leads connections to `behind` that are for a.example.
async fn front(behind: SocketAddr, stranger: Stranger) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The first record of TLS: five bytes, of which two are the length of what follows, the name in it.
                let mut hello = [0; 4096];
                let mut got = 0;
                while got < 5 || got < 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) {
                    socket.readable().await.unwrap();
                    got = socket.peek(&mut hello).await.unwrap();
                }
                let is_known = hello[..got].windows(9).any(|bytes| bytes == b"a.example");
                let behind = match stranger {
                    _ if is_known => behind,
                    Stranger::Closed => return,
                    Stranger::Kept => {
                        // Until the other side is tired of it.
                        let mut rest = Vec::new();
                        drop(socket.read_to_end(&mut rest).await);
                        return;
                    }
                    Stranger::Told(alert) => {
                        socket.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
                        return;
                    }
                    Stranger::Led(elsewhere) => elsewhere,
                };
                let mut behind = TcpStream::connect(behind).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut socket, &mut behind).await);
            });
        }
    });
    address
}

fn is_well(upstream: &Upstream, address: SocketAddr) -> bool {
    upstream.reachable().iter().any(|one| one.address == address && one.health.is_well())
}

// kong-compat §3.8
#[tokio::test]
async fn no_name_that_a_client_makes_up_puts_an_endpoint_out_of_service() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let good = || own.issue(&["a.example"], &[]);
    let untrusted = Secured::showing(other.issue(&["b.example"], &[])).await;
    let expired = Secured::showing(own.issue_until(&["b.example"], &[], 2020)).await;
    let secretive = Secured::asking(own.issue(&["b.example"], &[]), Some(&own), rustls::ALL_VERSIONS).await;
    // It agrees to no protocol, and speaks HTTP/1.
    let old = Secured::speaking(own.issue(&["b.example"], &[]), None, rustls::ALL_VERSIONS, &[]).await;
    let strangers = [
        Stranger::Closed,
        Stranger::Kept,
        // handshake_failure, internal_error, unrecognized_name.
        Stranger::Told(40),
        Stranger::Told(80),
        Stranger::Told(112),
        Stranger::Led(untrusted.address),
        Stranger::Led(expired.address),
        Stranger::Led(secretive.address),
        Stranger::Led(old.address),
    ];
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for stranger in strangers {
            let behind = Secured::showing(good()).await;
            let address = front(behind.address, stranger).await;
            let terms = Terms::new(protocol, own.trust(None), None).unwrap();
            let upstream = secure_upstream(protocol, terms, &[address]);
            let limits = match stranger {
                Stranger::Kept => Limits { connect_timeout: Duration::from_millis(200), ..Limits::default() },
                _ => Limits::default(),
            };
            let options = Options { limits, ..Options::default() };
            let gate = Gate::with(options, vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
            assert_eq!(ask(&gate, "a.example").await.status, 200, "this name is one that it knows");
            let status = ask(&gate, "b.example").await.status;
            let expected = match (stranger, protocol) {
                (Stranger::Kept, _) => 504,
                // HTTP/1 is what it was asked for.
                (Stranger::Led(address), Protocol::Http1) if address == old.address => 200,
                _ => 502,
            };
            assert_eq!(status, expected, "{protocol:?} {stranger:?}");
            assert!(is_well(&upstream, address), "{protocol:?} {stranger:?}");
        }
    }
}

#[tokio::test]
async fn whoever_knows_no_tls_or_cannot_be_connected_to_is_passed_over() {
    let own = Authority::new("own");
    let good = Secured::showing(own.issue(&["a.example"], &[])).await;
    let plain = Endpoint::scripted(|mut stream, _| async move {
        stream.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        stream.rest().await;
    })
    .await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for bad in [plain.address, gone] {
        let upstream = secure_upstream(Protocol::Http1, terms(own.trust(None), None), &[good.address, bad]);
        let gate = Gate::open(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
        for _ in 0..4 {
            // Not over a connection that was kept, which nobody would have to choose an endpoint for.
            assert_eq!(gate.ask("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
        }
        assert!(!is_well(&upstream, bad));
        assert!(is_well(&upstream, good.address));
    }
}

// kong-compat §3.8
#[tokio::test]
async fn whoever_fails_under_a_name_that_another_takes_is_passed_over() {
    let own = Authority::new("own");
    let issue = || own.issue(&["a.example"], &[]);
    let expired = Secured::showing(own.issue_until(&["a.example"], &[], 2020)).await;
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.rest().await;
    })
    .await;
    let closing = Endpoint::scripted(|stream, _| async move { drop(stream) }).await;
    // It agrees to no protocol, and speaks HTTP/1.
    let old = Secured::speaking(issue(), None, rustls::ALL_VERSIONS, &[]).await;
    for (what, protocol, bad) in [
        ("expired", Protocol::Http1, expired.address),
        ("silent", Protocol::Http1, silent.address),
        ("closing", Protocol::Http1, closing.address),
        ("silent", Protocol::Http2, silent.address),
        ("not HTTP/2", Protocol::Http2, old.address),
    ] {
        let good = Secured::showing(issue()).await;
        let terms = Terms::new(protocol, own.trust(None), None).unwrap();
        let upstream = secure_upstream(protocol, terms, &[good.address, bad]);
        let limits = Limits { connect_timeout: Duration::from_millis(500), ..Limits::default() };
        let options = Options { limits, ..Options::default() };
        let gate = Gate::with(options, vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
        for _ in 0..6 {
            assert_ne!(ask(&gate, "b.example").await.status, 200, "{what}");
        }
        assert!(is_well(&upstream, bad) && is_well(&upstream, good.address), "{what}: nobody takes this name");
        for _ in 0..6 {
            // Not over a connection that was kept, which nobody would have to choose an endpoint for.
            assert_eq!(gate.ask("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200, "{what}");
        }
        assert!(!is_well(&upstream, bad), "{what}");
        ask(&gate, "b.example").await;
        assert!(is_well(&upstream, good.address), "{what}: how well another name is known is no reason");
    }
}

#[tokio::test]
async fn no_name_that_a_client_makes_up_keeps_an_endpoint_out_that_is_back() {
    let own = Authority::new("own");
    let good = Secured::showing(own.issue(&["a.example"], &[])).await;
    let back = front(good.address, Stranger::Closed).await;
    let upstream = secure_upstream(Protocol::Http1, terms(own.trust(None), None), &[good.address, back]);
    let gate = Gate::open(vec![route(forward(vec![(1, Arc::clone(&upstream))]))]).await;
    upstream.failed(back);
    // For longer than it is passed over, so that one of them is to find out whether it is back.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(900) {
        assert_eq!(ask(&gate, "b.example").await.status, 502);
    }
    assert!(!is_well(&upstream, back), "it is not known to be back");
    let asked = async {
        while !is_well(&upstream, back) {
            assert_eq!(gate.ask("GET /close HTTP/1.1\r\nhost: a.example\r\n\r\n").await.status, 200);
        }
    };
    timeout(Duration::from_secs(5), asked).await.expect("the next request may find out");
}
