//! Requests for another listener than the one of the TLS connection get 421 (GEP-3567).

use std::sync::Arc;

use portico::snapshot::certs::Certificate;
use portico::snapshot::{Bind, BindAddress, Snapshot};

use crate::harness::{Client, Endpoint, Options, Route, listener, routes_to};
use crate::tls_harness::{TlsCaller, TlsListener, certificate, replace_listeners, start_tls_server};

fn tls_listener(hostname: &'static str, own: &Arc<Certificate>, routes: Vec<Route>) -> TlsListener {
    TlsListener { hostname, certificates: vec![Arc::clone(own)], routes }
}

#[tokio::test]
async fn request_for_another_listener_is_misdirected() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["*.example"]);
    let served = || routes_to(endpoint.address);
    // A route for one host only; other hosts of the listener match no route.
    let partly = || vec![Route { host: "known.wide.example", ..served().remove(0) }];
    let apart = || {
        vec![
            tls_listener("a.example", &own, served()),
            tls_listener("b.example", &own, served()),
            tls_listener("*.wide.example", &own, partly()),
        ]
    };
    let server = start_tls_server(Options::default(), apart()).await;
    let caller = TlsCaller::new();
    let check = async |name: &'static str, requests: &[(&str, u16)]| {
        // All over one connection: an error of one request does not affect the next.
        let mut client = caller.connect(&server, name).await.unwrap();
        for (host, expected) in requests {
            client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            let answer = client.response(false).await;
            assert_eq!(answer.status, *expected, "{host} over a connection to {name}: {}", answer.text());
        }
    };
    let requests = [
        ("a.example", 200),
        ("b.example", 421),
        ("A.EXAMPLE:443", 200),
        ("a.wide.example", 421),
        ("unknown.test", 421),
        ("a.example.", 200),
    ];
    check("a.example", &requests).await;
    let requests =
        [("known.wide.example", 200), ("x.wide.example", 404), ("a.b.wide.example", 404), ("a.example", 421)];
    check("known.wide.example", &requests).await;
    check("x.wide.example", &requests).await;

    let mut with_any = apart();
    with_any.push(tls_listener("", &own, served()));
    replace_listeners(&server.snapshot, server.address, with_any);
    let unknown = [("unknown.test", 200), ("other.test", 200), ("a.example", 421), ("x.wide.example", 421)];
    check("unknown.test", &unknown).await;
    check("", &unknown).await;
    check("a.example", &[("a.example", 200), ("unknown.test", 421), ("b.example", 421)]).await;
}

#[tokio::test]
async fn request_is_checked_against_current_listeners() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["*.example"]);
    let server =
        start_tls_server(Options::default(), vec![tls_listener("*.example", &own, routes_to(endpoint.address))]).await;
    let mut client = TlsCaller::new().connect(&server, "a.example").await.unwrap();
    let mut ask = async |host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        client.response(false).await.status
    };
    assert_eq!((ask("a.example").await, ask("b.example").await), (200, 200));
    let both = vec![
        tls_listener("*.example", &own, routes_to(endpoint.address)),
        tls_listener("b.example", &own, routes_to(endpoint.address)),
    ];
    replace_listeners(&server.snapshot, server.address, both);
    assert_eq!((ask("a.example").await, ask("b.example").await), (200, 421));
}

/// A connection that was accepted in plain text must not carry requests for HTTPS, nor vice versa.
#[tokio::test]
async fn old_connections_get_421_after_a_protocol_change() {
    let endpoint = Endpoint::ok().await;
    let own = certificate(&["a.example"]);
    let secure = || vec![tls_listener("", &own, routes_to(endpoint.address))];
    let server = start_tls_server(Options::default(), secure()).await;
    let mut over_tls = TlsCaller::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(over_tls.get("/").await.status, 200);

    let plain = portico::snapshot::host::HostMap::new([(
        portico::snapshot::host::HostPattern::Any,
        Arc::new(listener(routes_to(endpoint.address))),
    )]);
    let bind = Bind { listeners: plain, tls: None };
    server.snapshot.store(Arc::new(Snapshot {
        binds: [(BindAddress::tcp(server.address), Arc::new(bind))].into(),
        ..Snapshot::default()
    }));
    let mut in_plain = Client::connect(server.address).await;
    assert_eq!(in_plain.get("/").await.status, 200);
    assert_eq!(over_tls.get("/").await.status, 421);

    replace_listeners(&server.snapshot, server.address, secure());
    assert_eq!(in_plain.get("/").await.status, 421);
}
