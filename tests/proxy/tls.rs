//! TLS with clients: certificate and version selection, rejected handshakes, and configuration changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico::proxy::access_log::AccessLogDestination;
use portico::proxy::{MinTlsVersion, ProxyLimits, TlsPolicy};
use portico::snapshot::certs::Certificate;
use portico::snapshot::rule::{Action, RedirectAction};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::accounting::{records, scrape};
use crate::harness::{Endpoint, Options, Route, TEST_TIMEOUT, TestServer, route, routes_to, with_timeout};
use crate::tls_harness::{
    TlsCaller, TlsListener, certificate, certificate_with_algorithm, handshake_error, leaf, replace_listeners,
    start_tls_server,
};

fn tls_listener(hostname: &'static str, certificates: &[&Arc<Certificate>]) -> TlsListener {
    TlsListener { hostname, certificates: certificates.iter().map(|one| Arc::clone(one)).collect(), routes: vec![] }
}

async fn handshakes(server: &TestServer, outcome: &str) -> f64 {
    scrape(server)[&format!("portico_tls_handshakes_total{{outcome=\"{outcome}\"}}")]
}

/// Waits for the count, because the client may see the end before the worker has counted it.
async fn wait_for_count(server: &TestServer, outcome: &str, count: f64) {
    let until = async {
        while handshakes(server, outcome).await < count {
            tokio::task::yield_now().await;
        }
    };
    with_timeout(&format!("{count} handshakes with outcome {outcome}"), until).await;
    assert_eq!(handshakes(server, outcome).await, count, "{outcome}");
}

#[tokio::test]
async fn server_name_selects_the_certificate() {
    let exact = certificate(&["a.example"]);
    let wild = certificate(&["*.example"]);
    let inner = certificate(&["b.example", "c.example"]);
    let fallback = certificate(&["fallback.test"]);
    let server = start_tls_server(
        Options::default(),
        vec![
            tls_listener("a.example", &[&exact]),
            tls_listener("*.example", &[&wild, &inner]),
            tls_listener("", &[&fallback]),
        ],
    )
    .await;
    for version in [&TLS12, &TLS13] {
        for (name, expected) in [
            ("a.example", &exact),
            ("A.Example", &exact),
            ("b.example", &inner),
            ("x.example", &wild),
            // Selects the wildcard listener, although none of its certificates covers this name.
            ("x.y.example", &wild),
            ("example", &fallback),
            ("elsewhere.test", &fallback),
            ("", &fallback),
        ] {
            let caller = TlsCaller::with(&[version], None);
            let client = caller.connect(&server, name).await.unwrap();
            assert_eq!(client.socket.get_ref().1.protocol_version(), Some(version.version));
            assert_eq!(&caller.last_certificate(), leaf(expected), "{name:?} by {version:?}");
        }
    }
    wait_for_count(&server, "full", 16.0).await;
}

#[tokio::test]
async fn missing_server_name_selects_the_only_listener() {
    let (a, b) = (certificate(&["a.example"]), certificate(&["b.example"]));
    let server = start_tls_server(Options::default(), vec![tls_listener("a.example", &[&a])]).await;
    let caller = TlsCaller::new();
    caller.connect(&server, "").await.unwrap();
    assert_eq!(&caller.last_certificate(), leaf(&a));
    // With several listeners the choice would be ambiguous.
    replace_listeners(
        &server.snapshot,
        server.address,
        vec![tls_listener("a.example", &[&a]), tls_listener("b.example", &[&b])],
    );
    assert_eq!(handshake_error(caller.connect(&server, "").await), "AlertReceived(UnrecognisedName)");
}

#[tokio::test]
async fn certificate_matches_the_client_signature_schemes() {
    let edwards = certificate_with_algorithm(&rcgen::PKCS_ED25519, &["a.example"]);
    let elliptic = certificate_with_algorithm(&rcgen::PKCS_ECDSA_P384_SHA384, &["a.example"]);
    let server = start_tls_server(Options::default(), vec![tls_listener("", &[&edwards, &elliptic])]).await;
    for (scheme, expected) in
        [(SignatureScheme::ED25519, &edwards), (SignatureScheme::ECDSA_NISTP384_SHA384, &elliptic)]
    {
        for version in [&TLS12, &TLS13] {
            let caller = TlsCaller::with(&[version], Some(vec![scheme]));
            caller.connect(&server, "a.example").await.unwrap();
            assert_eq!(&caller.last_certificate(), leaf(expected), "{scheme:?} by {version:?}");
        }
    }
    let caller = TlsCaller::with(&[&TLS13], Some(vec![SignatureScheme::RSA_PSS_SHA256]));
    assert_eq!(handshake_error(caller.connect(&server, "a.example").await), "AlertReceived(HandshakeFailure)");
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
    let caller = TlsCaller::new();
    assert_eq!(handshake_error(caller.connect(&server, "unknown.example").await), "AlertReceived(UnrecognisedName)");
    assert_eq!(handshake_error(caller.connect(&server, "broken.example").await), "AlertReceived(InternalError)");
    caller.connect(&server, "good.example").await.unwrap();
    let fussy = TlsCaller::new().adjust(|config| config.alpn_protocols = vec![b"smtp".to_vec()]);
    assert_eq!(handshake_error(fussy.connect(&server, "good.example").await), "AlertReceived(NoApplicationProtocol)");
    for outcome in ["unknown_name", "no_certificate", "full", "no_common_protocol"] {
        wait_for_count(&server, outcome, 1.0).await;
    }
    // A listener without a usable certificate must not fall back to another listener.
    let any = certificate(&["any.example"]);
    replace_listeners(
        &server.snapshot,
        server.address,
        vec![tls_listener("", &[&any]), tls_listener("broken.example", &[])],
    );
    assert_eq!(handshake_error(caller.connect(&server, "broken.example").await), "AlertReceived(InternalError)");
}

#[tokio::test]
async fn minimum_version_and_ciphers_are_enforced() {
    let own = certificate(&["a.example"]);
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    let policy = TlsPolicy { min_version: MinTlsVersion::V1_3, ciphers: vec![suite] };
    let server = start_tls_server(Options { tls: policy, ..Options::default() }, vec![tls_listener("", &[&own])]).await;
    let old = TlsCaller::with(&[&TLS12], None);
    assert_eq!(handshake_error(old.connect(&server, "a.example").await), "AlertReceived(ProtocolVersion)");
    wait_for_count(&server, "version", 1.0).await;
    let client = TlsCaller::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(client.socket.get_ref().1.negotiated_cipher_suite(), Some(suite));
}

#[tokio::test]
async fn sessions_resume_across_workers_and_snapshots() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let listeners = || vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("", &[&own]) }];
    let server = start_tls_server(Options { workers: 2, ..Options::default() }, listeners()).await;
    for (version, round) in [(&TLS12, 0), (&TLS13, 1)] {
        let caller = TlsCaller::with(&[version], None);
        for number in 0..8 {
            let mut client = caller.connect(&server, "a.example").await.unwrap();
            // TLS 1.3 tickets follow the handshake.
            assert_eq!(client.get("/").await.text(), "ok");
            let expected = if number == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            let found = client.socket.get_ref().1.handshake_kind();
            assert_eq!(found, Some(expected), "{version:?}, connection {number}");
            replace_listeners(&server.snapshot, server.address, listeners());
        }
        wait_for_count(&server, "full", f64::from(round + 1)).await;
        wait_for_count(&server, "resumed", f64::from(7 * (round + 1))).await;
    }
}

#[tokio::test]
async fn non_tls_connections_are_rejected() {
    let own = certificate(&["a.example"]);
    let limits = ProxyLimits { handshake_timeout: Duration::from_millis(300), ..ProxyLimits::default() };
    let server = start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("", &[&own])]).await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n",
        b"\x16\x03\x01\x00\x04\xff\xff\xff\xff",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        &[0xff; 3000],
    ];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // An alert or nothing. A reset is acceptable, because the proxy may not have read all bytes of the client.
        drop(with_timeout("the end", socket.read_to_end(&mut answer)).await);
        assert!(answer.is_empty() || answer.starts_with(&[21, 3]), "{answer:?}");
        wait_for_count(&server, "not_tls", (number + 1) as f64).await;
    }
    // Half of a ClientHello, a single byte, and nothing, without anything after it.
    let beginnings: [&[u8]; 3] = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16", b""];
    for (number, bytes) in beginnings.into_iter().enumerate() {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(with_timeout("the end", socket.read_to_end(&mut answer)).await);
        wait_for_count(&server, "timeout", (number + 1) as f64).await;
    }
    drop(TcpStream::connect(server.address).await.unwrap());
    wait_for_count(&server, "client_disconnected", 1.0).await;
    TlsCaller::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    assert_eq!(server.proxy.stats().connections(), 0);
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait() {
    let own = certificate(&["a.example"]);
    let limits = ProxyLimits { max_handshakes: 1, ..ProxyLimits::default() };
    let server = start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("", &[&own])]).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"\x16\x03\x01").await.unwrap();
    // The slow handshake must hold the only slot before the other client connects.
    with_timeout("the slow handshake", async {
        while server.proxy.stats().accepted() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let caller = TlsCaller::new();
    let mut waiting = Box::pin(caller.connect(&server, "a.example"));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "the handshake did not wait");
    drop(slow);
    waiting.await.unwrap();
    // Waiting for a slot in vain is counted separately from a slow handshake.
    let limits =
        ProxyLimits { max_handshakes: 0, handshake_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let server = start_tls_server(Options { limits, ..Options::default() }, vec![tls_listener("", &[&own])]).await;
    // A reset, since the ClientHello was not read, or the end of the connection, if it comes first.
    let reason = handshake_error(caller.connect(&server, "a.example").await);
    assert!(["UnexpectedEof", "ConnectionReset", "BrokenPipe"].contains(&&*reason), "{reason}");
    wait_for_count(&server, "overload", 1.0).await;
}

#[tokio::test]
async fn certificate_rotation_under_load_fails_no_handshake() {
    let endpoint = Endpoint::ok().await;
    let pair = [certificate(&["a.example"]), certificate(&["a.example"])];
    let serving = |own: &Arc<Certificate>| {
        vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("a.example", &[own]) }]
    };
    let server = start_tls_server(Options { workers: 2, ..Options::default() }, serving(&pair[0])).await;
    // A connection that outlives all changes.
    let mut faithful = TlsCaller::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(faithful.get("/").await.text(), "ok");

    let over = Arc::new(AtomicBool::new(false));
    let changing = {
        let (snapshot, address, over) = (Arc::clone(&server.snapshot), server.address, Arc::clone(&over));
        let snapshots = [serving(&pair[0]), serving(&pair[1])]
            .map(|listeners| Arc::new(crate::tls_harness::secure_snapshot(address, listeners)));
        std::thread::spawn(move || {
            let mut changes = 0;
            while !over.load(Ordering::Relaxed) {
                snapshot.store(Arc::clone(&snapshots[changes % 2]));
                changes += 1;
                std::thread::yield_now();
            }
            changes
        })
    };
    let mut seen = [0, 0];
    for _ in 0..200 {
        let caller = TlsCaller::new();
        let mut client = caller.connect(&server, "a.example").await.unwrap();
        assert_eq!(client.get("/").await.text(), "ok");
        let which = pair.iter().position(|one| leaf(one) == &caller.last_certificate()).expect("one of the two");
        seen[which] += 1;
    }
    over.store(true, Ordering::Relaxed);
    let changes = changing.join().unwrap();
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?} of {changes} changes");
    assert_eq!(faithful.get("/").await.text(), "ok");
    wait_for_count(&server, "full", 201.0).await;
}

#[tokio::test]
async fn forwarded_headers_and_redirects_say_https() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let redirect =
        |port| RedirectAction { scheme: None, host: None, path: None, port, status: http::StatusCode::FOUND };
    let mut routes = routes_to(endpoint.address);
    routes.push(Route { path: "/same", ..route(Action::Redirect(redirect(None))) });
    routes.push(Route { path: "/other", ..route(Action::Redirect(redirect(Some(8443)))) });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server = start_tls_server(options, vec![TlsListener { routes, ..tls_listener("", &[&own]) }]).await;
    let mut client = TlsCaller::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(client.get("/same").await.header("location"), Some("https://a.example/same"));
    assert_eq!(client.get("/other").await.header("location"), Some("https://a.example:8443/other"));
    assert_eq!(client.get("/").await.text(), "ok");
    let request = endpoint.log.requests().remove(0);
    assert!(
        request.contains("x-forwarded-proto: https\r\n") && request.contains("x-forwarded-port: 443\r\n"),
        "{request}"
    );

    server.proxy.drain(TEST_TIMEOUT).await;
    server.log.finish();
    for record in records(&path) {
        assert_eq!((record["tls"].as_str(), record["sni"].as_str()), (Some("TLSv1.3"), Some("a.example")), "{record}");
    }
}

#[tokio::test]
async fn large_bodies_stream_in_both_directions() {
    let body: String = (0..40_000).map(|number| format!("{number:08}")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let endpoint = Endpoint::responding_with(answer).await;
    let own = certificate(&["a.example"]);
    let server = start_tls_server(
        Options::default(),
        vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("", &[&own]) }],
    )
    .await;
    let mut client = TlsCaller::new().connect(&server, "a.example").await.unwrap();
    for _ in 0..2 {
        client
            .send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            .await;
        assert_eq!(client.response(false).await.text(), body);
    }
    assert!(endpoint.log.requests().iter().all(|request| request.ends_with(&body)));
}

#[tokio::test]
async fn removed_listener_sends_close_notify() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let server = start_tls_server(
        Options::default(),
        vec![TlsListener { routes: routes_to(endpoint.address), ..tls_listener("", &[&own]) }],
    )
    .await;
    let mut idle = TlsCaller::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(idle.get("/").await.text(), "ok");
    server.snapshot.store(Arc::default());
    server.proxy.reconcile().await;
    // With the close_notify alert: without it, the client would have to assume truncation.
    assert_eq!(idle.read_to_end().await.unwrap(), b"");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn unfinished_handshake_does_not_delay_draining() {
    let own = certificate(&["a.example"]);
    let server = start_tls_server(Options::default(), vec![tls_listener("", &[&own])]).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"\x16\x03").await.unwrap();
    with_timeout("accepting", async {
        while server.proxy.stats().accepted() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.proxy.drain(Duration::from_millis(100)).await, 1);
    assert_eq!(server.proxy.stats().connections(), 0);
}
