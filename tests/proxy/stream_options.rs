//! What routes, Services and flags set for forwarded connections: PROXY headers to endpoints, plugins, limits by
//! client, and the end of connections whose endpoint was removed.

use std::net::SocketAddr;
use std::sync::Arc;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::plugin_chain::StreamChain;
use portico::plugin_chain::testing::stream_chain;
use portico::plugins::REGISTRY;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::host::HostPattern;
use portico::snapshot::port_tls::{StreamHosts, TlsListener};
use portico::snapshot::rule::RuleId;
use portico::snapshot::stream::{StreamRoute, StreamRule};
use portico::snapshot::{Bind, Snapshot};
use portico::upstream::{EndpointAddress, Endpoints, ProxyProtocol, Upstream, UpstreamKey};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::accounting::{access_log_records, scrape};
use crate::harness::{Client, Endpoint, LONGER_THAN_PAUSES, Options, TestServer, upstream, with_timeout};
use crate::stream::{
    assert_reset, assert_reset_at_once, echo_endpoint, expect_text, outcome_count, start, to_upstream, wait_for_outcome,
};
use crate::tls_harness::{TestTlsConnector, TlsListener as HttpsListener, certificate};
use crate::tls_passthrough::{self, https_listener, passthrough};
use crate::tls_stream_termination::terminating;

/// An upstream that requests a PROXY header.
fn upstream_with_header(version: ProxyProtocol, address: SocketAddr) -> Arc<Upstream> {
    let upstream = Upstream::new(UpstreamKey {
        namespace: "default".into(),
        service: "db".into(),
        port: 80,
        proxy_protocol: Some(version),
        ..UpstreamKey::default()
    });
    upstream.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(address)], ..Endpoints::default() });
    Arc::new(upstream)
}

/// Records what it receives until the client closes its direction.
async fn recording_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        let mut received = Vec::new();
        while let Some(bytes) = stream.read_some().await {
            received.extend(bytes);
        }
        stream.record(&received.escape_ascii().to_string());
    })
    .await
}

async fn wait_for_record(endpoint: &Endpoint, expected: &str) {
    endpoint.log.wait_for(expected, |log| log.requests().last().is_some_and(|received| received == expected)).await;
}

#[tokio::test]
async fn endpoint_gets_a_proxy_header_with_the_address_of_the_client() {
    let endpoint = recording_endpoint().await;
    let server =
        start(Options::default(), to_upstream(&upstream_with_header(ProxyProtocol::V1, endpoint.address))).await;
    let mut client = server.connect().await;
    let (own, listener) = (client.socket.local_addr().unwrap(), server.address);
    client.send("hello").await;
    client.socket.shutdown().await.unwrap();
    let ports = format!("{} {}", own.port(), listener.port());
    wait_for_record(&endpoint, &format!("PROXY TCP4 127.0.0.1 127.0.0.1 {ports}\\r\\nhello")).await;
}

#[tokio::test]
async fn address_that_a_load_balancer_reports_is_passed_on() {
    let endpoint = recording_endpoint().await;
    let options = || Options { proxy_header_peers: vec!["127.0.0.0/8"], ..Options::default() };
    for (version, received, sent) in [
        (
            ProxyProtocol::V1,
            "PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n",
            "PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\\r\\n",
        ),
        (
            ProxyProtocol::V2,
            "PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n",
            "\\r\\n\\r\\n\\x00\\r\\nQUIT\\n!\\x11\\x00\\x0c\\xc0\\x00\\x02\\x07\\xc63d\\x0109\\x01\\xbb",
        ),
    ] {
        let server = start(options(), to_upstream(&upstream_with_header(version, endpoint.address))).await;
        let mut client = server.connect().await;
        client.send(format!("{received}PROXY TCP4 6.6.6.6 6.6.6.6 1 1\r\n")).await;
        client.socket.shutdown().await.unwrap();
        // What the client itself sends comes after the header.
        wait_for_record(&endpoint, &format!("{sent}PROXY TCP4 6.6.6.6 6.6.6.6 1 1\\r\\n")).await;
    }
}

#[tokio::test]
async fn proxy_header_precedes_passed_and_decrypted_bytes() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let received = stream.read_some().await.unwrap();
        let line = received.split(|byte| *byte == b'\n').next().unwrap().to_vec();
        stream.record(&String::from_utf8_lossy(&line));
        stream.read_to_end().await;
    })
    .await;
    let action = || to_upstream(&upstream_with_header(ProxyProtocol::V1, endpoint.address)).unwrap();
    for tls in [passthrough(vec![("a.example", action())]), terminating(vec![("a.example", action())])] {
        let server = tls_passthrough::start(Options::default(), tls, https_listener("").await).await;
        let is_terminated = endpoint.log.connections() > 0;
        if is_terminated {
            let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
            client.send("decrypted").await;
            endpoint.log.wait_for("the header", |log| log.requests().len() == 2).await;
        } else {
            let mut client = server.connect().await;
            client.send(TestTlsConnector::new().client_hello("a.example")).await;
            endpoint.log.wait_for("the header", |log| log.requests().len() == 1).await;
        }
        let header = endpoint.log.requests().pop().unwrap();
        let expected = format!(" {}\r", server.address.port());
        assert!(header.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && header.ends_with(&expected), "{header:?}");
    }
}

/// An ip-restriction plugin with this configuration.
fn restriction(config: serde_json::Value) -> Option<Arc<StreamChain>> {
    Some(stream_chain(&[(REGISTRY.find("ip-restriction").unwrap(), config)]))
}

/// A server whose only listener forwards to the upstream, if its plugins admit the client.
async fn start_with_plugins(
    options: Options,
    upstream: &Arc<Upstream>,
    plugins: Option<Arc<StreamChain>>,
) -> TestServer {
    let server = start(options, to_upstream(upstream)).await;
    replace_plugins(&server, upstream, plugins).await;
    server
}

async fn replace_plugins(server: &TestServer, upstream: &Arc<Upstream>, plugins: Option<Arc<StreamChain>>) {
    let id = RuleId { route: "TCPRoute/default/db".into(), rule: "0".into() };
    let rule = StreamRule {
        gateway: "default/gw".into(),
        listener: "tcp".into(),
        port: server.address.port(),
        route: to_upstream(upstream).map(|action| Arc::new(StreamRoute { id, plugins, action, options: None })),
    };
    let bind = Arc::new(Bind::with_tcp(Arc::new(rule)));
    let binds = [(BindAddress::tcp(server.address), bind)].into();
    server.snapshot.store(Arc::new(Snapshot { binds, ..Snapshot::default() }));
    server.proxy.reconcile().await;
}

#[tokio::test]
async fn plugin_rejects_connections_by_the_address_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let endpoint = echo_endpoint().await;
    let options = Options {
        proxy_header_peers: vec!["127.0.0.0/8"],
        log: AccessLogDestination::File(path.clone()),
        ..Options::default()
    };
    let pool = upstream("db", &[endpoint.address]);
    let denies = restriction(json!({"deny": ["192.0.2.0/24", "2001:db8::/32"]}));
    let server = start_with_plugins(options, &pool, denies).await;
    for (source, is_allowed) in [("TCP4 198.51.100.7", true), ("TCP4 192.0.2.7", false), ("TCP6 2001:db8::7", false)] {
        let mut client = server.connect().await;
        let destination = if source.starts_with("TCP4") { "127.0.0.1" } else { "::1" };
        client.send(format!("PROXY {source} {destination} 1 2\r\nhello")).await;
        match is_allowed {
            true => expect_text(&mut client, "hello").await,
            false => assert_reset(&mut client).await,
        }
    }
    wait_for_outcome(&server, "plugin_rejected", 2.0).await;
    assert_eq!(endpoint.log.connections(), 1);
    server.log.finish();
    let records = access_log_records(&path);
    let rejected = records.iter().filter(|record| record["error"] == "plugin_rejected");
    let clients: Vec<_> = rejected.map(|record| record["client"].as_str().unwrap()).collect();
    assert_eq!(clients, ["192.0.2.7:1", "[2001:db8::7]:1"]);
}

#[tokio::test]
async fn plugin_change_applies_to_new_connections() {
    let endpoint = echo_endpoint().await;
    let pool = upstream("db", &[endpoint.address]);
    let server = start_with_plugins(Options::default(), &pool, restriction(json!({"allow": ["127.0.0.0/8"]}))).await;
    let mut open = server.connect().await;
    open.send("before").await;
    expect_text(&mut open, "before").await;
    replace_plugins(&server, &pool, restriction(json!({"deny": ["127.0.0.0/8"]}))).await;
    open.send("after").await;
    expect_text(&mut open, "after").await;
    assert_reset_at_once(&server).await;
    wait_for_outcome(&server, "plugin_rejected", 1.0).await;
}

#[tokio::test]
async fn plugin_rejects_tls_connections_of_both_modes() {
    let endpoint = echo_endpoint().await;
    let denied = |listener: &str| {
        let id = RuleId { route: "TLSRoute/default/db".into(), rule: "0".into() };
        let plugins = restriction(json!({"deny": ["127.0.0.1"]}));
        let action = to_upstream(&upstream("db", &[endpoint.address]));
        let route = action.map(|action| Arc::new(StreamRoute { id, plugins, action, options: None }));
        let rule = StreamRule { gateway: "default/gw".into(), listener: listener.into(), port: 443, route };
        let hosts = [(HostPattern::parse(Some("a.example")), Arc::new(rule))].into_iter().collect();
        StreamHosts { hosts, unrouted: tls_passthrough::rule(listener, "", None) }
    };
    let hostname = HostPattern::parse(Some("*.example"));
    let certificates = portico::snapshot::certs::Certificates::new(vec![certificate(&["*.example"])]);
    let modes = [
        TlsListener::Passthrough(denied("pass")),
        TlsListener::TerminateStream(Arc::new(certificates), denied("terminate")),
    ];
    for (number, listener) in modes.into_iter().enumerate() {
        let https: HttpsListener = https_listener("").await;
        let server = tls_passthrough::start(Options::default(), (hostname.clone(), listener), https).await;
        if number == 0 {
            let mut client = server.connect().await;
            client.send(TestTlsConnector::new().client_hello("a.example")).await;
            assert_reset(&mut client).await;
        } else {
            let mut client = TestTlsConnector::new().connect(&server, "a.example").await.unwrap();
            assert!(client.read_to_end().await.is_err(), "the connection is reset");
        }
        wait_for_outcome(&server, "plugin_rejected", 1.0).await;
    }
    assert_eq!(endpoint.log.connections(), 0);
}

#[tokio::test]
async fn connections_of_one_client_are_limited() {
    let endpoint = echo_endpoint().await;
    let limits = ProxyLimits { max_stream_connections_per_client: 2, ..ProxyLimits::default() };
    let options = Options { limits, proxy_header_peers: vec!["127.0.0.0/8"], workers: 2, ..Options::default() };
    let server = start(options, to_upstream(&upstream("db", &[endpoint.address]))).await;
    let open = async |client: &str| {
        let mut stream = server.connect().await;
        stream.send(format!("PROXY TCP4 {client} 127.0.0.1 1 2\r\nopen")).await;
        stream
    };
    let mut held = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
        let mut stream = open(client).await;
        expect_text(&mut stream, "open").await;
        held.push(stream);
    }
    assert_reset(&mut open("192.0.2.1").await).await;
    wait_for_outcome(&server, "client_limit", 1.0).await;
    // A closed connection makes room.
    held[0].socket.shutdown().await.unwrap();
    assert_eq!(held[0].read_to_end().await.unwrap(), b"bye");
    wait_for_outcome(&server, "completed", 1.0).await;
    wait_until_open(&server, 2.0).await;
    expect_text(&mut open("192.0.2.1").await, "open").await;
    assert_eq!(outcome_count(&server, "client_limit"), 1.0);
}

/// Waits until this number of connections is open.
async fn wait_until_open(server: &TestServer, count: f64) {
    let what = format!("{count} connections");
    crate::accounting::wait_for_metrics(server, &what, |metrics| metrics["portico_streams"] == count).await;
}

/// Sets the endpoints, and lets the workers notice.
async fn set_endpoints(server: &TestServer, pool: &Upstream, endpoints: Endpoints) {
    pool.set_endpoints(endpoints);
    server.proxy.reconcile().await;
}

fn ready(addresses: &[SocketAddr]) -> Endpoints {
    let addresses = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    Endpoints { addresses, ..Endpoints::default() }
}

#[tokio::test]
async fn connections_to_a_removed_endpoint_end_after_the_grace_period() {
    let (endpoint, other) = (echo_endpoint().await, echo_endpoint().await);
    let limits = ProxyLimits { listener_grace_period: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let pool = upstream("db", &[endpoint.address]);
    let server = start(Options { limits, ..Options::default() }, to_upstream(&pool)).await;
    let mut client = server.connect().await;
    client.send("open").await;
    expect_text(&mut client, "open").await;
    set_endpoints(&server, &pool, ready(&[other.address])).await;
    client.send("still open").await;
    expect_text(&mut client, "still open").await;
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    wait_for_outcome(&server, "endpoint_removed", 1.0).await;
    let mut next = server.connect().await;
    next.send("next").await;
    expect_text(&mut next, "next").await;
    assert_eq!(other.log.connections(), 1);
}

#[tokio::test]
async fn connections_to_endpoints_that_are_unready_or_come_back_stay_open() {
    let (endpoint, other) = (echo_endpoint().await, echo_endpoint().await);
    let limits = ProxyLimits { listener_grace_period: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let pool = upstream("db", &[endpoint.address]);
    let server = start(Options { limits, ..Options::default() }, to_upstream(&pool)).await;
    let mut client: Client = server.connect().await;
    client.send("open").await;
    expect_text(&mut client, "open").await;
    set_endpoints(&server, &pool, ready(&[other.address])).await;
    set_endpoints(&server, &pool, Endpoints { unready: vec![endpoint.address], ..ready(&[other.address]) }).await;
    // A connection to an endpoint that is removed later ends later, so the grace period of the first change is over.
    let mut reference = server.connect().await;
    reference.send("open").await;
    expect_text(&mut reference, "open").await;
    set_endpoints(&server, &pool, Endpoints { unready: vec![endpoint.address], ..Endpoints::default() }).await;
    assert_eq!(reference.read_to_end().await.unwrap(), b"");
    client.send("still open").await;
    expect_text(&mut client, "still open").await;
    assert_eq!(outcome_count(&server, "endpoint_removed"), 1.0);
    assert_eq!(scrape(&server)["portico_streams"], 1.0);
    // A name may have other addresses each time.
    let name = EndpointAddress::Name { host: "db.example".into(), port: endpoint.address.port() };
    set_endpoints(&server, &pool, Endpoints { addresses: vec![name], ..Endpoints::default() }).await;
    assert!(pool.is_configured(endpoint.address));
    with_timeout("the end", client.socket.shutdown()).await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"bye");
}
