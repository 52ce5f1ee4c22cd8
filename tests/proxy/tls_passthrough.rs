//! TLS listeners that forward connections without decrypting them: the server name selects the listener and the route,
//! and the endpoint gets the ClientHello as the client sent it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::proxy::BindState;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::certs::Certificates;
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::port_tls::{PortTls, StreamHosts, TlsListener};
use portico::snapshot::rule::{RouteFailure, RuleId};
use portico::snapshot::stream::{StreamAction, StreamRoute, StreamRule};
use portico::snapshot::{Bind, HttpListener, Snapshot};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::accounting::{access_log_records, scrape};
use crate::harness::{Endpoint, Options, TestServer, listener, reserve_address, routes_to, upstream, with_timeout};
use crate::stream::{outcome_count, to_upstream, wait_for_outcome, wait_until_closed};
use crate::tls::wait_for_count;
use crate::tls_harness::{TestTlsConnector, TlsListener as HttpsListener};
use crate::tls_harness::{certificate, handshake_error, leaf, start_tls_server};

pub(crate) fn rule(listener: &str, host: &str, action: Option<StreamAction>) -> Arc<StreamRule> {
    let id = RuleId { route: format!("TLSRoute/default/{host}").into(), rule: "0".into() };
    let route = action.map(|action| Arc::new(StreamRoute { id, plugins: None, action, options: None }));
    Arc::new(StreamRule { gateway: "default/gw".into(), listener: listener.into(), port: 443, route })
}

/// A listener for `*.example` that passes TLS through, with these routes.
pub(crate) fn passthrough(routes: Vec<(&str, StreamAction)>) -> (HostPattern, TlsListener) {
    let rule_of = |(host, action)| (HostPattern::parse(Some(host)), rule("pass", host, Some(action)));
    let hosts = routes.into_iter().map(rule_of).collect();
    let passthrough = StreamHosts { hosts, unrouted: rule("pass", "", None) };
    (HostPattern::parse(Some("*.example")), TlsListener::Passthrough(passthrough))
}

/// A snapshot whose only port has this TLS listener, if any, and this HTTPS listener.
fn snapshot_with(address: SocketAddr, tls: Option<(HostPattern, TlsListener)>, https: HttpsListener) -> Snapshot {
    let https_listener = HttpListener { name: "https".into(), port: 443, ..listener(https.routes) };
    let certificates = TlsListener::Terminate(Arc::new(Certificates::new(https.certificates)));
    let hostname = HostPattern::parse(Some(https.hostname));
    let listeners = HostMap::new([(hostname.clone(), Arc::new(https_listener))]);
    let tls = HostMap::new(tls.into_iter().chain([(hostname, certificates)]));
    snapshot_of(address, Bind::with_http(listeners, Some(PortTls::new(tls))))
}

fn snapshot_of(address: SocketAddr, bind: Bind) -> Snapshot {
    Snapshot { binds: [(BindAddress::tcp(address), Arc::new(bind))].into(), ..Snapshot::default() }
}

pub(crate) async fn start(options: Options, tls: (HostPattern, TlsListener), https: HttpsListener) -> TestServer {
    start_with(options, |address| snapshot_with(address, Some(tls), https)).await
}

async fn start_with(options: Options, snapshot: impl FnOnce(SocketAddr) -> Snapshot) -> TestServer {
    let (address, reserved) = reserve_address();
    let server = TestServer::start(options, address, reserved, snapshot(address));
    assert_eq!(server.proxy.reconcile().await.get(&BindAddress::tcp(address)), Some(&BindState::Bound));
    server
}

pub(crate) fn to_endpoint(address: SocketAddr) -> StreamAction {
    to_upstream(&upstream("db", &[address])).unwrap()
}

/// A TLS endpoint with a certificate for this name, whose responses are this text.
async fn tls_endpoint(
    name: &'static str,
    text: &'static str,
) -> (TestServer, Arc<portico::snapshot::certs::Certificate>) {
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let endpoint = Endpoint::responding_with(response).await;
    let certificate = certificate(&[name]);
    let https = HttpsListener {
        hostname: "",
        certificates: vec![Arc::clone(&certificate)],
        routes: routes_to(endpoint.address),
    };
    (start_tls_server(Options::default(), vec![https]).await, certificate)
}

pub(crate) async fn https_listener(hostname: &'static str) -> HttpsListener {
    let endpoint = Endpoint::ok().await;
    HttpsListener { hostname, certificates: vec![certificate(&["terminated"])], routes: routes_to(endpoint.address) }
}

#[tokio::test]
async fn server_name_selects_passthrough_or_termination() {
    let (wide, wide_certificate) = tls_endpoint("wide", "from wide").await;
    let (exact, exact_certificate) = tls_endpoint("exact", "from exact").await;
    let routes = vec![("*.b.example", to_endpoint(wide.address)), ("a.b.example", to_endpoint(exact.address))];
    let https = https_listener("").await;
    let terminated = Arc::clone(&https.certificates[0]);
    let server = start(Options::default(), passthrough(routes), https).await;
    for (name, certificate, body) in [
        ("a.b.example", &exact_certificate, "from exact"),
        ("x.y.b.example", &wide_certificate, "from wide"),
        ("a.test", &terminated, "ok"),
        ("", &terminated, "ok"),
    ] {
        let connector = TestTlsConnector::new();
        let mut client = connector.connect(&server, name).await.unwrap();
        assert!(connector.last_certificate() == *leaf(certificate), "{name}");
        // Several requests on one connection, which the endpoint parses.
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
            assert_eq!(client.response().await.text(), body, "{name}");
        }
    }
    // Passed connections have no handshake here.
    assert_eq!(scrape(&server)["portico_tls_handshakes_total{outcome=\"full\"}"], 2.0);
    wait_for_outcome(&server, "completed", 2.0).await;
}

#[tokio::test]
async fn hello_in_pieces_arrives_unchanged() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(bytes) = stream.read_some().await {
            stream.send(bytes).await;
        }
    })
    .await;
    let tls = passthrough(vec![("a.example", to_endpoint(endpoint.address))]);
    let server = start(Options::default(), tls, https_listener("").await).await;
    let mut sent = TestTlsConnector::new().client_hello("a.example");
    sent.extend_from_slice(b"bytes after the ClientHello");
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in sent.chunks(100) {
        socket.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    socket.shutdown().await.unwrap();
    let mut received = Vec::new();
    with_timeout("the echo", socket.read_to_end(&mut received)).await.unwrap();
    assert!(received == sent, "{} and {} bytes", received.len(), sent.len());
}

#[tokio::test]
async fn connections_without_route_are_reset_and_unknown_names_rejected() {
    let invalid = StreamAction::Reset(RouteFailure::Unsupported);
    let tls = passthrough(vec![("guarded.example", invalid)]);
    let server = start(Options::default(), tls, https_listener("*.test").await).await;
    let connector = TestTlsConnector::new();
    for (name, outcome) in [("other.example", "no_route"), ("guarded.example", "unsupported_rule")] {
        assert_eq!(handshake_error(connector.connect(&server, name).await), "ConnectionReset", "{name}");
        wait_for_outcome(&server, outcome, 1.0).await;
    }
    for name in ["a.org", ""] {
        assert_eq!(handshake_error(connector.connect(&server, name).await), "AlertReceived(UnrecognisedName)");
    }
    wait_for_count(&server, "unknown_name", 2.0).await;
    assert_eq!(outcome_count(&server, "no_route"), 1.0);
    // A port without termination has no TLS handshakes, so the client gets no alert.
    let server = start_with(Options::default(), |address| {
        let tls = PortTls::new(HostMap::new([passthrough(vec![])]));
        snapshot_of(address, Bind::with_http(HostMap::default(), Some(tls)))
    })
    .await;
    assert_eq!(handshake_error(connector.connect(&server, "a.org").await), "ConnectionReset");
    wait_for_count(&server, "unknown_name", 1.0).await;
}

#[tokio::test]
async fn requests_for_a_host_that_passes_through_are_misdirected() {
    let tls = passthrough(vec![]);
    let server = start(Options::default(), tls, https_listener("").await).await;
    let mut client = TestTlsConnector::new().connect(&server, "a.test").await.unwrap();
    for (host, status) in [("a.test", 200), ("b.example", 421), ("example", 200)] {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status, "{host}");
    }
}

#[tokio::test]
async fn host_that_begins_to_pass_through_is_misdirected_on_open_connections() {
    let certificate = certificate(&["b.example"]);
    let endpoint = Endpoint::ok().await;
    let https = || HttpsListener {
        hostname: "",
        certificates: vec![Arc::clone(&certificate)],
        routes: routes_to(endpoint.address),
    };
    let server = start_with(Options::default(), |address| snapshot_with(address, None, https())).await;
    let mut client = TestTlsConnector::new().connect(&server, "b.example").await.unwrap();
    let mut status = async || {
        client.send("GET / HTTP/1.1\r\nhost: b.example\r\n\r\n").await;
        client.response().await.status
    };
    assert_eq!(status().await, 200);
    server.snapshot.store(Arc::new(snapshot_with(server.address, Some(passthrough(vec![])), https())));
    // A browser repeats the request on a new connection, which reaches the backend.
    assert_eq!(status().await, 421);
}

#[tokio::test]
async fn passed_connections_need_no_handshake_permit_and_are_logged() {
    let (endpoint, _) = tls_endpoint("a.example", "ok").await;
    let limits = ProxyLimits { max_handshakes: 0, handshake_timeout: Duration::from_secs(5), ..ProxyLimits::default() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let tls = passthrough(vec![("a.example", to_endpoint(endpoint.address))]);
    let options = Options { limits, log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server = start(options, tls, https_listener("").await).await;
    let mut client = TestTlsConnector::new().connect(&server, "A.Example").await.unwrap();
    assert_eq!(client.get("/").await.status, 200);
    drop(client);
    wait_for_outcome(&server, "completed", 1.0).await;
    wait_until_closed(&server).await;
    server.log.finish();
    let records = access_log_records(&path);
    let record = &records[0];
    let expected = json!({
        "protocol": "TLS", "sni": "a.example", "route": "TLSRoute/default/a.example", "listener": "pass",
        "address": endpoint.address.to_string(), "error": null,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&record[field], value, "{field} in {record}");
    }
    assert!(record["bytes_in"].as_u64() > Some(200) && record["bytes_out"].as_u64() > Some(500), "{record}");
}
