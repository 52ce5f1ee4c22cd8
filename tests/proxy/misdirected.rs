//! Requests for another listener than the one of the TLS connection get 421 (GEP-3567).

use std::sync::Arc;

use portico::bind_address::BindAddress;
use portico::snapshot::certs::Certificate;
use portico::snapshot::{Bind, Snapshot};

use crate::harness::{Client, Endpoint, Options, Route, listener, routes_to};
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, replace_listeners, start_tls_server};

fn tls_listener(hostname: &'static str, certificate: &Arc<Certificate>, routes: Vec<Route>) -> TlsListener {
    TlsListener { hostname, certificates: vec![Arc::clone(certificate)], routes }
}

#[tokio::test]
async fn request_for_another_listener_is_misdirected() {
    let endpoint = Endpoint::ok().await;
    let certificate = certificate(&["*.example"]);
    let all_hosts = || routes_to(endpoint.address);
    // The route matches one host; other hosts of the listener match no route.
    let known_host_only = || vec![Route { host: "known.wide.example", ..all_hosts().remove(0) }];
    let three_listeners = || {
        vec![
            tls_listener("a.example", &certificate, all_hosts()),
            tls_listener("b.example", &certificate, all_hosts()),
            tls_listener("*.wide.example", &certificate, known_host_only()),
        ]
    };
    let server = start_tls_server(Options::default(), three_listeners()).await;
    let connector = TestTlsConnector::new();
    let check = async |name: &'static str, requests: &[(&str, u16)]| {
        // All requests share one connection, because an error of one must not affect the next.
        let mut client = connector.connect(&server, name).await.unwrap();
        for (host, expected) in requests {
            client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            let response = client.response().await;
            assert_eq!(response.status, *expected, "{host} over a connection to {name}: {}", response.text());
        }
    };
    let requests = [
        ("a.example", 200),
        ("b.example", 421),
        ("A.EXAMPLE:443", 200),
        ("a.wide.example", 421),
        ("unknown.test", 404),
        ("a.example.", 200),
    ];
    check("a.example", &requests).await;
    let requests =
        [("known.wide.example", 200), ("x.wide.example", 404), ("a.b.wide.example", 404), ("a.example", 421)];
    check("known.wide.example", &requests).await;
    check("x.wide.example", &requests).await;

    let mut four_listeners = three_listeners();
    four_listeners.push(tls_listener("", &certificate, all_hosts()));
    replace_listeners(&server.snapshot, server.address, four_listeners);
    let unlisted_hosts = [("unknown.test", 200), ("other.test", 200), ("a.example", 421), ("x.wide.example", 421)];
    check("unknown.test", &unlisted_hosts).await;
    check("", &unlisted_hosts).await;
    check("a.example", &[("a.example", 200), ("unknown.test", 421), ("b.example", 421)]).await;
}

#[tokio::test]
async fn request_is_checked_against_current_listeners() {
    let endpoint = Endpoint::ok().await;
    let certificate = certificate(&["*.example"]);
    let server = start_tls_server(
        Options::default(),
        vec![tls_listener("*.example", &certificate, routes_to(endpoint.address))],
    )
    .await;
    let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    let mut get = async |host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        client.response().await.status
    };
    assert_eq!((get("a.example").await, get("b.example").await), (200, 200));
    let two_listeners = vec![
        tls_listener("*.example", &certificate, routes_to(endpoint.address)),
        tls_listener("b.example", &certificate, routes_to(endpoint.address)),
    ];
    replace_listeners(&server.snapshot, server.address, two_listeners);
    assert_eq!((get("a.example").await, get("b.example").await), (200, 421));
}

/// A connection without TLS must not carry requests for an HTTPS listener, and a TLS connection none for an HTTP
/// listener.
#[tokio::test]
async fn old_connections_get_421_after_a_protocol_change() {
    let endpoint = Endpoint::ok().await;
    let certificate = certificate(&["a.example"]);
    let tls_listeners = || vec![tls_listener("", &certificate, routes_to(endpoint.address))];
    let server = start_tls_server(Options::default(), tls_listeners()).await;
    let mut tls_client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
    assert_eq!(tls_client.get("/").await.status, 200);

    let plain_listeners = portico::snapshot::host::HostMap::new([(
        portico::snapshot::host::HostPattern::Any,
        Arc::new(listener(routes_to(endpoint.address))),
    )]);
    let bind = Bind::with_http(plain_listeners, None);
    server.snapshot.store(Arc::new(Snapshot {
        binds: [(BindAddress::tcp(server.address), Arc::new(bind))].into(),
        ..Snapshot::default()
    }));
    let mut plain_client = Client::connect(server.address).await;
    assert_eq!(plain_client.get("/").await.status, 200);
    assert_eq!(tls_client.get("/").await.status, 421);

    replace_listeners(&server.snapshot, server.address, tls_listeners());
    assert_eq!(plain_client.get("/").await.status, 421);
}
