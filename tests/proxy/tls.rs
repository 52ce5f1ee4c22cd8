//! TLS with clients: which certificate, which version, who is refused, and what outlives a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico::proxy::access_log::Destination;
use portico::proxy::{Limits, TlsPolicy, TlsVersion};
use portico::snapshot::certs::Certificate;
use portico::snapshot::rule::{Action, Redirect};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::books::{records, scrape};
use crate::harness::{Endpoint, Gate, Options, PATIENCE, Route, route, to, within};
use crate::secure::{Caller, Secure, certificate, certificate_of, leaf, open, reason, swap};

fn on(hostname: &'static str, certificates: &[&Arc<Certificate>]) -> Secure {
    Secure { hostname, certificates: certificates.iter().map(|one| Arc::clone(one)).collect(), routes: vec![] }
}

async fn handshakes(gate: &Gate, outcome: &str) -> f64 {
    scrape(gate)[&format!("portico_tls_handshakes_total{{outcome=\"{outcome}\"}}")]
}

/// The client may know of the end before the worker has booked it.
async fn booked(gate: &Gate, outcome: &str, count: f64) {
    let until = async {
        while handshakes(gate, outcome).await < count {
            tokio::task::yield_now().await;
        }
    };
    within(&format!("{count} handshakes with outcome {outcome}"), until).await;
    assert_eq!(handshakes(gate, outcome).await, count, "{outcome}");
}

#[tokio::test]
async fn the_server_name_decides_what_is_shown() {
    let exact = certificate(&["a.example"]);
    let wild = certificate(&["*.example"]);
    let inner = certificate(&["b.example", "c.example"]);
    let fallback = certificate(&["fallback.test"]);
    let gate = open(
        Options::default(),
        vec![on("a.example", &[&exact]), on("*.example", &[&wild, &inner]), on("", &[&fallback])],
    )
    .await;
    for version in [&TLS12, &TLS13] {
        for (name, expected) in [
            ("a.example", &exact),
            ("A.Example", &exact),
            ("b.example", &inner),
            ("x.example", &wild),
            // Of the listener for all names below example, but no certificate of it is good for this one.
            ("x.y.example", &wild),
            ("example", &fallback),
            ("elsewhere.test", &fallback),
            ("", &fallback),
        ] {
            let caller = Caller::with(&[version], None);
            let client = caller.connect(&gate, name).await.unwrap();
            assert_eq!(client.socket.get_ref().1.protocol_version(), Some(version.version));
            assert_eq!(&caller.seen(), leaf(expected), "{name:?} by {version:?}");
        }
    }
    booked(&gate, "full", 16.0).await;
}

#[tokio::test]
async fn a_client_without_a_server_name_gets_the_only_listener_there_is() {
    let (a, b) = (certificate(&["a.example"]), certificate(&["b.example"]));
    let gate = open(Options::default(), vec![on("a.example", &[&a])]).await;
    let caller = Caller::new();
    caller.connect(&gate, "").await.unwrap();
    assert_eq!(&caller.seen(), leaf(&a));
    // Of several it cannot be told which one is meant.
    swap(&gate.snapshot, gate.address, vec![on("a.example", &[&a]), on("b.example", &[&b])]);
    assert_eq!(reason(caller.connect(&gate, "").await), "AlertReceived(UnrecognisedName)");
}

#[tokio::test]
async fn a_certificate_whose_key_the_client_knows_is_chosen() {
    let edwards = certificate_of(&rcgen::PKCS_ED25519, &["a.example"]);
    let elliptic = certificate_of(&rcgen::PKCS_ECDSA_P384_SHA384, &["a.example"]);
    let gate = open(Options::default(), vec![on("", &[&edwards, &elliptic])]).await;
    for (scheme, expected) in
        [(SignatureScheme::ED25519, &edwards), (SignatureScheme::ECDSA_NISTP384_SHA384, &elliptic)]
    {
        for version in [&TLS12, &TLS13] {
            let caller = Caller::with(&[version], Some(vec![scheme]));
            caller.connect(&gate, "a.example").await.unwrap();
            assert_eq!(&caller.seen(), leaf(expected), "{scheme:?} by {version:?}");
        }
    }
    let caller = Caller::with(&[&TLS13], Some(vec![SignatureScheme::RSA_PSS_SHA256]));
    assert_eq!(reason(caller.connect(&gate, "a.example").await), "AlertReceived(HandshakeFailure)");
    booked(&gate, "no_common_cipher", 1.0).await;
}

#[tokio::test]
async fn who_cannot_be_served_is_refused_and_the_neighbors_live_on() {
    let good = certificate(&["good.example"]);
    let gate = open(Options::default(), vec![on("good.example", &[&good]), on("broken.example", &[])]).await;
    let caller = Caller::new();
    assert_eq!(reason(caller.connect(&gate, "unknown.example").await), "AlertReceived(UnrecognisedName)");
    assert_eq!(reason(caller.connect(&gate, "broken.example").await), "AlertReceived(InternalError)");
    caller.connect(&gate, "good.example").await.unwrap();
    let fussy = Caller::new().adjust(|config| config.alpn_protocols = vec![b"smtp".to_vec()]);
    assert_eq!(reason(fussy.connect(&gate, "good.example").await), "AlertReceived(NoApplicationProtocol)");
    for outcome in ["unknown_name", "no_certificate", "full", "no_common_protocol"] {
        booked(&gate, outcome, 1.0).await;
    }
    // A listener without a certificate is not one to fall back from: another one must not answer for it.
    let any = certificate(&["any.example"]);
    swap(&gate.snapshot, gate.address, vec![on("", &[&any]), on("broken.example", &[])]);
    assert_eq!(reason(caller.connect(&gate, "broken.example").await), "AlertReceived(InternalError)");
}

#[tokio::test]
async fn old_versions_and_other_ciphers_are_refused_where_the_operator_says_so() {
    let own = certificate(&["a.example"]);
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    let policy = TlsPolicy { min_version: TlsVersion::V1_3, ciphers: vec![suite] };
    let gate = open(Options { tls: policy, ..Options::default() }, vec![on("", &[&own])]).await;
    let old = Caller::with(&[&TLS12], None);
    assert_eq!(reason(old.connect(&gate, "a.example").await), "AlertReceived(ProtocolVersion)");
    booked(&gate, "version", 1.0).await;
    let client = Caller::new().connect(&gate, "a.example").await.unwrap();
    assert_eq!(client.socket.get_ref().1.negotiated_cipher_suite(), Some(suite));
}

#[tokio::test]
async fn sessions_are_resumed_by_every_worker_and_under_every_snapshot() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let listeners = || vec![Secure { routes: to(endpoint.address), ..on("", &[&own]) }];
    let gate = open(Options { workers: 2, ..Options::default() }, listeners()).await;
    for (version, round) in [(&TLS12, 0), (&TLS13, 1)] {
        let caller = Caller::with(&[version], None);
        for number in 0..8 {
            let mut client = caller.connect(&gate, "a.example").await.unwrap();
            // Tickets of TLS 1.3 come behind the handshake.
            assert_eq!(client.get("/").await.text(), "ok");
            let expected = if number == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            let found = client.socket.get_ref().1.handshake_kind();
            assert_eq!(found, Some(expected), "{version:?}, connection {number}");
            swap(&gate.snapshot, gate.address, listeners());
        }
        booked(&gate, "full", f64::from(round + 1)).await;
        booked(&gate, "resumed", f64::from(7 * (round + 1))).await;
    }
}

#[tokio::test]
async fn what_is_not_tls_is_shown_the_door() {
    let own = certificate(&["a.example"]);
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let gate = open(Options { limits, ..Options::default() }, vec![on("", &[&own])]).await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n",
        b"\x16\x03\x01\x00\x04\xff\xff\xff\xff",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        &[0xff; 3000],
    ];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let mut socket = TcpStream::connect(gate.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // An alert or nothing; a reset is fine too, since bytes of the client may be unread.
        drop(within("the end", socket.read_to_end(&mut answer)).await);
        assert!(answer.is_empty() || answer.starts_with(&[21, 3]), "{answer:?}");
        booked(&gate, "not_tls", (number + 1) as f64).await;
    }
    // Half of a hello, a hello without the rest, nothing at all: then silence.
    let beginnings: [&[u8]; 3] = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16", b""];
    for (number, bytes) in beginnings.into_iter().enumerate() {
        let mut socket = TcpStream::connect(gate.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(within("the end", socket.read_to_end(&mut answer)).await);
        booked(&gate, "timeout", (number + 1) as f64).await;
    }
    drop(TcpStream::connect(gate.address).await.unwrap());
    booked(&gate, "client_gone", 1.0).await;
    Caller::new().connect(&gate, "a.example").await.unwrap();
    assert_eq!(gate.proxy.drain(PATIENCE).await, 0);
    assert_eq!(gate.proxy.stats().connections(), 0);
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait_for_their_turn() {
    let own = certificate(&["a.example"]);
    let limits = Limits { max_handshakes: 1, ..Limits::default() };
    let gate = open(Options { limits, ..Options::default() }, vec![on("", &[&own])]).await;
    let mut slow = TcpStream::connect(gate.address).await.unwrap();
    slow.write_all(b"\x16\x03\x01").await.unwrap();
    // Until it has the turn nobody else may ask; the first who is answered late proves nothing otherwise.
    within("the slow one", async {
        while gate.proxy.stats().accepted() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let caller = Caller::new();
    let mut waiting = Box::pin(caller.connect(&gate, "a.example"));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "it does not wait");
    drop(slow);
    waiting.await.unwrap();
    // Whoever waits in vain is told apart from whoever is slow.
    let limits = Limits { max_handshakes: 0, handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let gate = open(Options { limits, ..Options::default() }, vec![on("", &[&own])]).await;
    // A reset, since its hello was not read, or the end, if that comes first.
    let reason = reason(caller.connect(&gate, "a.example").await);
    assert!(["UnexpectedEof", "ConnectionReset", "BrokenPipe"].contains(&&*reason), "{reason}");
    booked(&gate, "overload", 1.0).await;
}

#[tokio::test]
async fn certificates_change_under_load_without_a_failed_handshake() {
    let endpoint = Endpoint::ok().await;
    let pair = [certificate(&["a.example"]), certificate(&["a.example"])];
    let serving = |own: &Arc<Certificate>| vec![Secure { routes: to(endpoint.address), ..on("a.example", &[own]) }];
    let gate = open(Options { workers: 2, ..Options::default() }, serving(&pair[0])).await;
    // Was there before all changes, and goes on.
    let mut faithful = Caller::new().connect(&gate, "a.example").await.unwrap();
    assert_eq!(faithful.get("/").await.text(), "ok");

    let over = Arc::new(AtomicBool::new(false));
    let changing = {
        let (snapshot, address, over) = (Arc::clone(&gate.snapshot), gate.address, Arc::clone(&over));
        let snapshots = [serving(&pair[0]), serving(&pair[1])]
            .map(|listeners| Arc::new(crate::secure::secure_snapshot(address, listeners)));
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
        let caller = Caller::new();
        let mut client = caller.connect(&gate, "a.example").await.unwrap();
        assert_eq!(client.get("/").await.text(), "ok");
        let which = pair.iter().position(|one| leaf(one) == &caller.seen()).expect("one of the two");
        seen[which] += 1;
    }
    over.store(true, Ordering::Relaxed);
    let changes = changing.join().unwrap();
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?} of {changes} changes");
    assert_eq!(faithful.get("/").await.text(), "ok");
    booked(&gate, "full", 201.0).await;
}

#[tokio::test]
async fn backends_and_redirects_are_told_that_it_was_https() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let redirect = |port| Redirect { scheme: None, host: None, path: None, port, status: http::StatusCode::FOUND };
    let mut routes = to(endpoint.address);
    routes.push(Route { path: "/same", ..route(Action::Redirect(redirect(None))) });
    routes.push(Route { path: "/other", ..route(Action::Redirect(redirect(Some(8443)))) });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = Options { log: Destination::File(path.clone()), ..Options::default() };
    let gate = open(options, vec![Secure { routes, ..on("", &[&own]) }]).await;
    let mut client = Caller::new().connect(&gate, "a.example").await.unwrap();
    assert_eq!(client.get("/same").await.header("location"), Some("https://a.example/same"));
    assert_eq!(client.get("/other").await.header("location"), Some("https://a.example:8443/other"));
    assert_eq!(client.get("/").await.text(), "ok");
    let request = endpoint.log.requests().remove(0);
    assert!(
        request.contains("x-forwarded-proto: https\r\n") && request.contains("x-forwarded-port: 443\r\n"),
        "{request}"
    );

    gate.proxy.drain(PATIENCE).await;
    gate.log.finish();
    for record in records(&path) {
        assert_eq!((record["tls"].as_str(), record["sni"].as_str()), (Some("TLSv1.3"), Some("a.example")), "{record}");
    }
}

#[tokio::test]
async fn bodies_larger_than_any_buffer_go_both_ways() {
    let body: String = (0..40_000).map(|number| format!("{number:08}")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let endpoint = Endpoint::answering(answer).await;
    let own = certificate(&["a.example"]);
    let gate = open(Options::default(), vec![Secure { routes: to(endpoint.address), ..on("", &[&own]) }]).await;
    let mut client = Caller::new().connect(&gate, "a.example").await.unwrap();
    for _ in 0..2 {
        client
            .send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            .await;
        assert_eq!(client.answer(false).await.text(), body);
    }
    assert!(endpoint.log.requests().iter().all(|request| request.ends_with(&body)));
}

#[tokio::test]
async fn a_listener_that_goes_says_goodbye() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let gate = open(Options::default(), vec![Secure { routes: to(endpoint.address), ..on("", &[&own]) }]).await;
    let mut idle = Caller::new().connect(&gate, "a.example").await.unwrap();
    assert_eq!(idle.get("/").await.text(), "ok");
    gate.snapshot.store(Arc::default());
    gate.proxy.reconcile().await;
    // With the alert that says so: without it, the client would have to fear that something was cut off.
    assert_eq!(idle.rest().await.unwrap(), b"");
    assert!(TcpStream::connect(gate.address).await.is_err());
}

#[tokio::test]
async fn a_connection_that_never_shakes_hands_does_not_hold_up_the_end() {
    let own = certificate(&["a.example"]);
    let gate = open(Options::default(), vec![on("", &[&own])]).await;
    let mut silent = TcpStream::connect(gate.address).await.unwrap();
    silent.write_all(b"\x16\x03").await.unwrap();
    within("accepting", async {
        while gate.proxy.stats().accepted() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(gate.proxy.drain(Duration::from_millis(100)).await, 1);
    assert_eq!(gate.proxy.stats().connections(), 0);
}
