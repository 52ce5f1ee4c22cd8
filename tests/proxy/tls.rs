//! TLS with clients: selection of certificate, version and cipher suite, rejected handshakes, limits, and configuration
//! changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico::limits::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use portico::proxy::{MinTlsVersion, TlsPolicy};
use portico::snapshot::certs::Certificate;
use portico::snapshot::rule::{Action, RedirectAction};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::accounting::{access_log_records, scrape, wait_for_metrics};
use crate::harness::{Endpoint, Options, Route, TEST_TIMEOUT, TestServer, route, routes_to, with_timeout};
use crate::tls_harness::{
    TestTlsConnector, TlsListener, certificate, certificate_with_algorithm, handshake_error, leaf, replace_listeners,
    secure_snapshot, start_tls_server,
};

fn tls_listener(hostname: &'static str, certificates: &[&Arc<Certificate>]) -> TlsListener {
    TlsListener {
        hostname,
        certificates: certificates.iter().map(|certificate| Arc::clone(certificate)).collect(),
        routes: vec![],
    }
}

/// Number of handshakes with this outcome.
async fn handshakes(server: &TestServer, outcome: &str) -> f64 {
    scrape(server)[&format!("portico_tls_handshakes_total{{outcome=\"{outcome}\"}}")]
}

/// Waits for the count, because the client may see the end of the handshake before the worker has counted it.
pub(crate) async fn wait_for_count(server: &TestServer, outcome: &str, count: f64) {
    let counted = async {
        while handshakes(server, outcome).await < count {
            tokio::task::yield_now().await;
        }
    };
    with_timeout(&format!("{count} handshakes with outcome {outcome}"), counted).await;
    assert_eq!(handshakes(server, outcome).await, count, "{outcome}");
}

#[tokio::test]
async fn server_name_selects_the_certificate() {
    let exact = certificate(&["a.example"]);
    let wildcard = certificate(&["*.example"]);
    let two_names = certificate(&["b.example", "c.example"]);
    let fallback = certificate(&["fallback.test"]);
    let server = start_tls_server(
        Options::default(),
        vec![
            tls_listener("a.example", &[&exact]),
            tls_listener("*.example", &[&wildcard, &two_names]),
            tls_listener("", &[&fallback]),
        ],
    )
    .await;
    for version in [&TLS12, &TLS13] {
        for (name, expected) in [
            ("a.example", &exact),
            ("A.Example", &exact),
            ("b.example", &two_names),
            ("x.example", &wildcard),
            // The name selects the wildcard listener, although none of its certificates covers the name.
            ("x.y.example", &wildcard),
            ("example", &fallback),
            ("elsewhere.test", &fallback),
            ("", &fallback),
        ] {
            let connector = TestTlsConnector::with_version(version);
            let client = connector.connect(&server, name).await.unwrap();
            assert_eq!(client.socket.get_ref().1.protocol_version(), Some(version.version));
            assert_eq!(&connector.last_certificate(), leaf(expected), "{name:?} by {version:?}");
        }
    }
    wait_for_count(&server, "full", 16.0).await;
}

#[tokio::test]
async fn missing_server_name_selects_the_only_listener() {
    let (a, b) = (certificate(&["a.example"]), certificate(&["b.example"]));
    let server = start_tls_server(Options::default(), vec![tls_listener("a.example", &[&a])]).await;
    let connector = TestTlsConnector::new();
    connector.connect(&server, "").await.unwrap();
    assert_eq!(&connector.last_certificate(), leaf(&a));
    // With several listeners the choice would be ambiguous.
    replace_listeners(
        &server.snapshot,
        server.address,
        vec![tls_listener("a.example", &[&a]), tls_listener("b.example", &[&b])],
    );
    assert_eq!(handshake_error(connector.connect(&server, "").await), "AlertReceived(UnrecognisedName)");
}

#[tokio::test]
async fn certificate_matches_the_client_signature_schemes() {
    let ed25519 = certificate_with_algorithm(&rcgen::PKCS_ED25519, &["a.example"]);
    let ecdsa = certificate_with_algorithm(&rcgen::PKCS_ECDSA_P384_SHA384, &["a.example"]);
    let server = start_tls_server(Options::default(), vec![tls_listener("", &[&ed25519, &ecdsa])]).await;
    for (scheme, expected) in [(SignatureScheme::ED25519, &ed25519), (SignatureScheme::ECDSA_NISTP384_SHA384, &ecdsa)] {
        for version in [&TLS12, &TLS13] {
            let connector = TestTlsConnector::with_signature_scheme(version, scheme);
            connector.connect(&server, "a.example").await.unwrap();
            assert_eq!(&connector.last_certificate(), leaf(expected), "{scheme:?} by {version:?}");
        }
    }
    let connector = TestTlsConnector::with_signature_scheme(&TLS13, SignatureScheme::RSA_PSS_SHA256);
    assert_eq!(handshake_error(connector.connect(&server, "a.example").await), "AlertReceived(HandshakeFailure)");
    // Despite its name, this outcome includes handshakes without a common signature scheme.
    wait_for_count(&server, "no_common_cipher", 1.0).await;
}

#[tokio::test]
async fn rejected_handshakes_do_not_affect_other_listeners() {
    let good = certificate(&["good.example"]);
    let server = start_tls_server(
        Options::default(),
        vec![tls_listener("good.example", &[&good]), tls_listener("broken.example", &[])],
    )
    .await;
    let connector = TestTlsConnector::new();
    assert_eq!(handshake_error(connector.connect(&server, "unknown.example").await), "AlertReceived(UnrecognisedName)");
    assert_eq!(handshake_error(connector.connect(&server, "broken.example").await), "AlertReceived(InternalError)");
    connector.connect(&server, "good.example").await.unwrap();
    let smtp_connector = TestTlsConnector::new().with_alpn(&[b"smtp"]);
    assert_eq!(
        handshake_error(smtp_connector.connect(&server, "good.example").await),
        "AlertReceived(NoApplicationProtocol)"
    );
    for outcome in ["unknown_name", "no_certificate", "full", "no_common_protocol"] {
        wait_for_count(&server, outcome, 1.0).await;
    }
    // A listener without a usable certificate must not fall back to another listener.
    let any_host = certificate(&["any.example"]);
    replace_listeners(
        &server.snapshot,
        server.address,
        vec![tls_listener("", &[&any_host]), tls_listener("broken.example", &[])],
    );
    assert_eq!(handshake_error(connector.connect(&server, "broken.example").await), "AlertReceived(InternalError)");
}

#[tokio::test]
async fn minimum_version_and_ciphers_are_enforced() {
    let certificate = certificate(&["a.example"]);
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    let policy = TlsPolicy { min_version: MinTlsVersion::V1_3, ciphers: vec![suite] };
    let server =
        start_tls_server(Options { tls: policy, ..Options::default() }, vec![tls_listener("", &[&certificate])]).await;
    let tls12_connector = TestTlsConnector::with_version(&TLS12);
    assert_eq!(handshake_error(tls12_connector.connect(&server, "a.example").await), "AlertReceived(ProtocolVersion)");
    wait_for_count(&server, "version", 1.0).await;
    let client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(client.socket.get_ref().1.negotiated_cipher_suite(), Some(suite));
}

#[tokio::test]
async fn sessions_resume_across_workers_and_snapshots() {
    let endpoint = Endpoint::ok().await;
    let certificate = certificate(&["a.example"]);
    let listeners = || vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("", &[&certificate]) }];
    let server = start_tls_server(Options { workers: 2, ..Options::default() }, listeners()).await;
    for (version, round) in [(&TLS12, 0), (&TLS13, 1)] {
        let connector = TestTlsConnector::with_version(version);
        for number in 0..8 {
            let mut client = connector.connect(&server, "a.example").await.unwrap();
            // TLS 1.3 tickets follow the handshake, so the client reads a response.
            assert_eq!(client.get("/").await.text(), "ok");
            let expected = if number == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            let handshake_kind = client.socket.get_ref().1.handshake_kind();
            assert_eq!(handshake_kind, Some(expected), "{version:?}, connection {number}");
            replace_listeners(&server.snapshot, server.address, listeners());
        }
        wait_for_count(&server, "full", f64::from(round + 1)).await;
        wait_for_count(&server, "resumed", f64::from(7 * (round + 1))).await;
    }
}

#[tokio::test]
async fn non_tls_connections_are_rejected() {
    let certificate = certificate(&["a.example"]);
    let server = start_tls_server(Options::default(), vec![tls_listener("", &[&certificate])]).await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n",
        b"\x16\x03\x01\x00\x04\xff\xff\xff\xff",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        &[0xff; 3000],
    ];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut response = Vec::new();
        // The proxy sends an alert or nothing. A reset is acceptable, because it may not have read all bytes.
        drop(with_timeout("the end", socket.read_to_end(&mut response)).await);
        assert!(response.is_empty() || response.starts_with(&[21, 3]), "{response:?}");
        wait_for_count(&server, "not_tls", (number + 1) as f64).await;
    }
    drop(TcpStream::connect(server.address).await.unwrap());
    wait_for_count(&server, "client_disconnected", 1.0).await;
    TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0, "connections were still open at the timeout");
    assert_eq!(server.proxy.stats().connections(), 0);
}

#[tokio::test]
async fn unfinished_handshakes_end_at_the_timeout() {
    let certificate = certificate(&["a.example"]);
    let limits = ProxyLimits { handshake_timeout: Duration::from_millis(300), ..ProxyLimits::default() };
    let server =
        start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("", &[&certificate])]).await;
    // The beginning of a ClientHello, a single byte, and nothing. The client sends no more.
    let beginnings: [&[u8]; 3] = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16", b""];
    for (number, bytes) in beginnings.into_iter().enumerate() {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        // The timeout may already have ended the connection.
        drop(socket.write_all(bytes).await);
        let mut response = Vec::new();
        drop(with_timeout("the end", socket.read_to_end(&mut response)).await);
        wait_for_count(&server, "timeout", (number + 1) as f64).await;
    }
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0, "connections were still open at the timeout");
    assert_eq!(server.proxy.stats().connections(), 0);
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait() {
    let certificate = certificate(&["a.example"]);
    let limits = ProxyLimits { max_handshakes: 1, ..ProxyLimits::default() };
    let server =
        start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("", &[&certificate])]).await;
    let connector = TestTlsConnector::new();
    // Clients that have not sent a whole ClientHello do not count.
    let hello = connector.client_hello("a.example");
    let mut silent = Vec::new();
    for bytes in [&hello[..0], &hello[..1], &hello[..hello.len() - 1]] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        silent.push(socket);
    }
    connector.connect(&server, "a.example").await.unwrap();
    // A handshake that has begun and does not continue has the only slot.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(&hello).await.unwrap();
    with_timeout("the response to the ClientHello", slow.read_u8()).await.unwrap();
    let mut waiting = Box::pin(connector.connect(&server, "a.example"));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "the handshake did not wait");
    drop(slow);
    waiting.await.unwrap();
    // A handshake that gets no slot before the timeout is counted separately from a slow handshake.
    let limits =
        ProxyLimits { max_handshakes: 0, handshake_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let server =
        start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("", &[&certificate])]).await;
    assert_eq!(handshake_error(connector.connect(&server, "a.example").await), "UnexpectedEof");
    wait_for_count(&server, "overload", 1.0).await;
}

/// A client that stops after its ClientHello would otherwise hold its slot until the timeout.
#[tokio::test]
async fn stalled_handshakes_give_way_to_waiting_ones() {
    let certificate = certificate(&["a.example"]);
    let limits = ProxyLimits { max_handshakes: 2, ..ProxyLimits::default() };
    let server =
        start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("", &[&certificate])]).await;
    let connector = TestTlsConnector::new();
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(&connector.client_hello("a.example")).await.unwrap();
        with_timeout("the response to the ClientHello", socket.read_u8()).await.unwrap();
        stalled.push(socket);
    }
    let began = Instant::now();
    connector.connect(&server, "a.example").await.unwrap();
    assert!(began.elapsed() < ProxyLimits::default().handshake_timeout / 2, "{:?}", began.elapsed());
    let mut response = Vec::new();
    with_timeout("the end of the oldest handshake", stalled[0].read_to_end(&mut response)).await.unwrap();
    // The socket closes before the handshake is counted.
    let stalled = "portico_tls_handshakes_total{outcome=\"stalled\"}";
    wait_for_metrics(&server, "the stalled handshake", |metrics| metrics[stalled] >= 1.0).await;
}

#[tokio::test]
async fn certificate_rotation_under_load_fails_no_handshake() {
    let endpoint = Endpoint::ok().await;
    let certificates = [certificate(&["a.example"]), certificate(&["a.example"])];
    let listeners_with = |certificate: &Arc<Certificate>| {
        vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("a.example", &[certificate]) }]
    };
    let server = start_tls_server(Options { workers: 2, ..Options::default() }, listeners_with(&certificates[0])).await;
    // A connection that outlives all changes.
    let mut long_lived_client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(long_lived_client.get("/").await.text(), "ok");

    let is_over = Arc::new(AtomicBool::new(false));
    let rotation = {
        let (snapshot, address, is_over) = (Arc::clone(&server.snapshot), server.address, Arc::clone(&is_over));
        // Built once, so that the thread only stores them.
        let snapshots = [listeners_with(&certificates[0]), listeners_with(&certificates[1])]
            .map(|listeners| Arc::new(secure_snapshot(address, listeners)));
        std::thread::spawn(move || {
            let mut changes = 0;
            while !is_over.load(Ordering::Relaxed) {
                snapshot.store(Arc::clone(&snapshots[changes % 2]));
                changes += 1;
                std::thread::yield_now();
            }
            changes
        })
    };
    let mut counts = [0, 0];
    for _ in 0..200 {
        let connector = TestTlsConnector::new();
        let mut client = connector.connect(&server, "a.example").await.unwrap();
        assert_eq!(client.get("/").await.text(), "ok");
        let index = certificates
            .iter()
            .position(|certificate| leaf(certificate) == &connector.last_certificate())
            .expect("one of the two certificates");
        counts[index] += 1;
    }
    is_over.store(true, Ordering::Relaxed);
    let changes = rotation.join().unwrap();
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?} of {changes} changes");
    assert_eq!(long_lived_client.get("/").await.text(), "ok");
    wait_for_count(&server, "full", 201.0).await;
}

#[tokio::test]
async fn forwarded_headers_and_redirects_use_https() {
    let endpoint = Endpoint::ok().await;
    let certificate = certificate(&["a.example"]);
    let redirect = |port| RedirectAction { port, ..RedirectAction::new(http::StatusCode::FOUND) };
    let mut routes = routes_to(endpoint.address);
    routes.push(Route { path: "/same", ..route(Action::Redirect(redirect(None))) });
    routes.push(Route { path: "/other", ..route(Action::Redirect(redirect(Some(8443)))) });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server = start_tls_server(options, vec![TlsListener { routes, ..tls_listener("", &[&certificate]) }]).await;
    let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(client.get("/same").await.header("location"), Some("https://a.example/same"));
    assert_eq!(client.get("/other").await.header("location"), Some("https://a.example:8443/other"));
    assert_eq!(client.get("/").await.text(), "ok");
    let request = endpoint.log.requests().remove(0);
    // 443 is the port of all TLS listeners in these tests; the bound port differs.
    assert!(
        request.contains("x-forwarded-proto: https\r\n") && request.contains("x-forwarded-port: 443\r\n"),
        "{request}"
    );

    server.proxy.drain(TEST_TIMEOUT).await;
    server.log.finish();
    for record in access_log_records(&path) {
        assert_eq!((record["tls"].as_str(), record["sni"].as_str()), (Some("TLSv1.3"), Some("a.example")), "{record}");
    }
}

#[tokio::test]
async fn large_bodies_stream_in_both_directions() {
    let body: String = (0..40_000).map(|number| format!("{number:08}")).collect();
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let endpoint = Endpoint::responding_with(response).await;
    let certificate = certificate(&["a.example"]);
    let server = start_tls_server(
        Options::default(),
        vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("", &[&certificate]) }],
    )
    .await;
    let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    for _ in 0..2 {
        client
            .send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            .await;
        assert_eq!(client.response().await.text(), body);
    }
    assert!(endpoint.log.requests().iter().all(|request| request.ends_with(&body)));
}

#[tokio::test]
async fn removed_listener_sends_close_notify() {
    let endpoint = Endpoint::ok().await;
    let certificate = certificate(&["a.example"]);
    let server = start_tls_server(
        Options::default(),
        vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("", &[&certificate]) }],
    )
    .await;
    let mut idle = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(idle.get("/").await.text(), "ok");
    server.snapshot.store(Arc::default());
    server.proxy.reconcile().await;
    // Without the close_notify alert, the client would have to assume truncation, and reading would fail.
    assert_eq!(idle.read_to_end().await.unwrap(), b"");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn draining_closes_unfinished_handshakes_at_the_timeout() {
    let certificate = certificate(&["a.example"]);
    let server = start_tls_server(Options::default(), vec![tls_listener("", &[&certificate])]).await;
    let mut unfinished = TcpStream::connect(server.address).await.unwrap();
    unfinished.write_all(b"\x16\x03").await.unwrap();
    with_timeout("the connection to be accepted", async {
        while server.proxy.stats().accepted() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let closed_at_timeout = server.proxy.drain(Duration::from_millis(100)).await;
    assert_eq!(closed_at_timeout, 1);
    assert_eq!(server.proxy.stats().connections(), 0);
}
