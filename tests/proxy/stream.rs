//! TCP listeners: forwarding of connections, failures to connect, limits, draining, and accounting.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::proxy::BindState;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::rule::{Backend, BackendTarget, Filters, RouteFailure, RuleId, WeightedBackends};
use portico::snapshot::stream::{StreamAction, StreamRoute, StreamRule};
use portico::snapshot::{Bind, Snapshot};
use portico::upstream::{EndpointAddress, Endpoints, Upstream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::accounting::{access_log_records, scrape, wait_for_metrics};
use crate::harness::{
    Client, Endpoint, LONGER_THAN_PAUSES, Options, TestServer, reserve_address, upstream, with_timeout,
};

/// A snapshot with one TCP listener. Without an action, no route is attached to it.
fn stream_snapshot(address: SocketAddr, action: Option<StreamAction>) -> Snapshot {
    let id = RuleId { route: "TCPRoute/default/db".into(), rule: "0".into() };
    let rule = StreamRule {
        gateway: "default/gw".into(),
        listener: "tcp".into(),
        port: address.port(),
        route: action.map(|action| Arc::new(StreamRoute { id, plugins: None, action, options: None })),
    };
    Snapshot {
        binds: [(BindAddress::tcp(address), Arc::new(Bind::with_tcp(Arc::new(rule))))].into(),
        ..Snapshot::default()
    }
}

fn weighted(backends: Vec<(u32, BackendTarget)>) -> Option<StreamAction> {
    let backend = |(weight, target)| Backend { weight, filters: Filters::default(), target };
    Some(StreamAction::Forward(WeightedBackends::new(backends.into_iter().map(backend).collect()).unwrap()))
}

pub(crate) fn to_upstream(upstream: &Arc<Upstream>) -> Option<StreamAction> {
    weighted(vec![(1, BackendTarget::Upstream(Arc::clone(upstream)))])
}

pub(crate) async fn start(options: Options, action: Option<StreamAction>) -> TestServer {
    let (address, reserved) = reserve_address();
    let server = TestServer::start(options, address, reserved, stream_snapshot(address, action));
    let binds = server.proxy.reconcile().await;
    assert_eq!(binds.get(&BindAddress::tcp(address)), Some(&BindState::Bound));
    server
}

/// A server whose listener forwards to these endpoints.
async fn start_with(options: Options, endpoints: &[SocketAddr]) -> TestServer {
    start(options, to_upstream(&upstream("db", endpoints))).await
}

/// Sends every byte back; at the end of the client's direction, sends `bye`.
pub(crate) async fn echo_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(bytes) = stream.read_some().await {
            stream.send(bytes).await;
        }
        stream.send("bye").await;
    })
    .await
}

/// Sends its name, then waits until the client closes.
async fn named_endpoint(name: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        stream.send(name).await;
        stream.read_to_end().await;
    })
    .await
}

pub(crate) async fn expect_text(client: &mut Client, text: &str) {
    let mut bytes = vec![0; text.len()];
    with_timeout(text, client.socket.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// The name that the next connection's endpoint sends; None if the connection is reset.
async fn name_of_next_endpoint(server: &TestServer) -> Option<String> {
    // The connecting client may notice the reset already.
    let mut client = Client::from_stream(TcpStream::connect(server.address).await.ok()?);
    client.socket.shutdown().await.ok();
    let name = client.read_to_end().await.ok()?;
    Some(String::from_utf8(name).unwrap())
}

/// Waits until connections with this outcome have been counted.
pub(crate) async fn wait_for_outcome(server: &TestServer, outcome: &str, count: f64) {
    let what = format!("{count} connections with outcome {outcome}");
    wait_for_metrics(server, &what, |metrics| count_in(metrics, outcome) >= count).await;
}

/// Waits until no connection is open. That is counted last, after the connection is in the access log.
pub(crate) async fn wait_until_closed(server: &TestServer) {
    wait_for_metrics(server, "the end of all connections", |metrics| metrics["portico_streams"] == 0.0).await;
}

/// The connections with this outcome, over all backends.
pub(crate) fn outcome_count(server: &TestServer, outcome: &str) -> f64 {
    count_in(&scrape(server), outcome)
}

fn count_in(metrics: &BTreeMap<String, f64>, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    let counts = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("portico_stream_connections_total{") && name.contains(label.as_str()));
    counts.map(|(_, count)| count).sum()
}

/// Connects; the connection must be reset, which the connecting client may notice already.
pub(crate) async fn assert_reset_at_once(server: &TestServer) {
    match TcpStream::connect(server.address).await {
        Ok(socket) => assert_reset(&mut Client::from_stream(socket)).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

pub(crate) async fn assert_reset(client: &mut Client) {
    assert_eq!(client.read_to_end().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connections_are_not_forwarded_to_a_listener_of_the_process() {
    let pool = upstream("loop", &[]);
    let server = start(Options::default(), to_upstream(&pool)).await;
    pool.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(server.address)], ..Endpoints::default() });
    assert_reset_at_once(&server).await;
    wait_for_outcome(&server, "loop_detected", 1.0).await;
    wait_until_closed(&server).await;
    assert_eq!(server.proxy.stats().accepted(), 1, "no connection came back");
}

#[tokio::test]
async fn bytes_are_forwarded_in_both_directions() {
    let endpoint = echo_endpoint().await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut client = server.connect().await;
    // Neither TLS nor HTTP is interpreted.
    for text in ["GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", "\0\r\n"] {
        client.send(text).await;
        expect_text(&mut client, text).await;
    }
}

#[tokio::test]
async fn server_that_sends_first_is_served() {
    let endpoint = named_endpoint("220 ready\r\n").await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut client = server.connect().await;
    expect_text(&mut client, "220 ready\r\n").await;
}

#[tokio::test]
async fn client_half_close_keeps_the_other_direction_open() {
    let endpoint = echo_endpoint().await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut client = server.connect().await;
    client.send("last words ").await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"last words bye");
    wait_for_outcome(&server, "completed", 1.0).await;
}

#[tokio::test]
async fn endpoint_half_close_keeps_the_other_direction_open() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.send("hello").await;
        stream.socket.shutdown().await.unwrap();
        let mut received = Vec::new();
        while let Some(bytes) = stream.read_some().await {
            received.extend(bytes);
        }
        stream.record(&String::from_utf8(received).unwrap());
    })
    .await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut client = server.connect().await;
    assert_eq!(client.read_to_end().await.unwrap(), b"hello");
    client.send("sent after the end of the other direction").await;
    client.socket.shutdown().await.unwrap();
    endpoint.log.wait_for("the bytes", |log| log.requests() == ["sent after the end of the other direction"]).await;
    wait_for_outcome(&server, "completed", 1.0).await;
}

#[tokio::test]
async fn slow_reader_stops_the_sender() {
    const TOTAL: usize = 64 << 20;
    let (written, mut progress) = tokio::sync::watch::channel(0);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let written = written.clone();
        async move {
            let block = vec![b'x'; 64 << 10];
            for sent in 1..=TOTAL / block.len() {
                if stream.socket.write_all(&block).await.is_err() {
                    return;
                }
                written.send_replace(sent * block.len());
            }
        }
    })
    .await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut client = server.connect().await;
    // The client does not read. The sender stops when the buffers of the sockets and of the proxy are full.
    with_timeout("the sender to stop", async {
        progress.changed().await.unwrap();
        while timeout(Duration::from_millis(300), progress.changed()).await.is_ok() {}
    })
    .await;
    let buffered = *progress.borrow();
    assert!(buffered < TOTAL / 2, "{buffered} bytes were taken from the sender, but the client has read none");
    let received = with_timeout("all bytes", async {
        let (mut received, mut block) = (0, vec![0; 256 << 10]);
        while let read @ 1.. = client.socket.read(&mut block).await.unwrap() {
            received += read;
        }
        received
    })
    .await;
    assert_eq!(received, TOTAL);
}

#[tokio::test]
async fn connections_are_split_by_weight() {
    let (a, b) = (named_endpoint("a").await, named_endpoint("b").await);
    let target = |name, endpoint: &Endpoint| BackendTarget::Upstream(upstream(name, &[endpoint.address]));
    let action = weighted(vec![(3, target("a", &a)), (1, target("b", &b)), (0, target("c", &b))]);
    let server = start(Options::default(), action).await;
    let mut from_a = 0;
    for _ in 0..40 {
        from_a += usize::from(name_of_next_endpoint(&server).await.unwrap() == "a");
    }
    assert_eq!(from_a, 30);
}

#[tokio::test]
async fn connections_alternate_between_endpoints() {
    let (a, b) = (named_endpoint("a").await, named_endpoint("b").await);
    let server = start_with(Options::default(), &[a.address, b.address]).await;
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(name_of_next_endpoint(&server).await.unwrap());
    }
    // The order may differ in each lap.
    assert!(names[0] != names[1] && names[2] != names[3], "{names:?}");
}

#[tokio::test]
async fn next_endpoint_is_tried_when_one_refuses() {
    let endpoint = named_endpoint("up").await;
    let (refusing, _reserved) = reserve_address();
    let server = start_with(Options::default(), &[refusing, endpoint.address]).await;
    for _ in 0..10 {
        assert_eq!(name_of_next_endpoint(&server).await.as_deref(), Some("up"));
    }
    // The refusing endpoint is ejected after its first failure, so most connections do not try it.
    let refused = scrape(&server)["portico_upstream_connects_total{outcome=\"refused\"}"];
    assert!((1.0..=3.0).contains(&refused), "{refused}");
}

#[tokio::test]
async fn connections_without_a_usable_backend_are_reset_at_once() {
    let (refusing, _reserved) = reserve_address();
    let failed = |failure| weighted(vec![(1, BackendTarget::Fail(failure))]);
    let cases = [
        (None, "no_route"),
        (Some(StreamAction::Reset(RouteFailure::NoBackends)), "no_backends"),
        (Some(StreamAction::Reset(RouteFailure::Unsupported)), "unsupported_rule"),
        (failed(RouteFailure::InvalidBackend), "invalid_backend"),
        (to_upstream(&upstream("db", &[])), "no_endpoints"),
        (to_upstream(&upstream("db", &[refusing])), "connection_refused"),
    ];
    for (action, outcome) in cases {
        let server = start(Options::default(), action).await;
        assert_reset_at_once(&server).await;
        wait_for_outcome(&server, outcome, 1.0).await;
    }
}

/// The client is still sending when the endpoint has closed.
#[tokio::test]
async fn early_response_of_an_endpoint_that_resets_reaches_the_client() {
    const RESPONSE: usize = 32 * 1024;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.read_some().await;
        // What is not read resets the connection when it is closed.
        stream.socket.readable().await.unwrap();
        stream.send(vec![b'r'; RESPONSE]).await;
    })
    .await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    for attempt in 0..40 {
        let (mut reader, mut writer) = server.connect().await.socket.into_split();
        let upload = tokio::spawn(async move { while writer.write_all(&[b'x'; 65_536]).await.is_ok() {} });
        let mut received = Vec::new();
        with_timeout("the end", async { while reader.read_buf(&mut received).await.is_ok_and(|read| read > 0) {} })
            .await;
        assert_eq!(received.len(), RESPONSE, "attempt {attempt}");
        upload.await.unwrap();
    }
    wait_for_outcome(&server, "endpoint_reset", 40.0).await;
}

#[tokio::test]
async fn reset_of_one_side_resets_the_other() {
    let endpoint = Endpoint::scripted(|mut stream, number| async move {
        stream.send("partial").await;
        if number == 0 {
            stream.read_some().await;
            stream.socket.set_zero_linger().unwrap();
            return;
        }
        let mut byte = [0];
        let ended = stream.socket.read(&mut byte).await.map_err(|error| error.kind());
        stream.record(&format!("{ended:?}"));
    })
    .await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut client = server.connect().await;
    expect_text(&mut client, "partial").await;
    client.send("reset now").await;
    assert_reset(&mut client).await;
    wait_for_outcome(&server, "endpoint_reset", 1.0).await;

    let mut client = server.connect().await;
    expect_text(&mut client, "partial").await;
    client.socket.set_zero_linger().unwrap();
    drop(client);
    endpoint.log.wait_for("the reset", |log| log.requests() == ["Err(ConnectionReset)"]).await;
    wait_for_outcome(&server, "client_reset", 1.0).await;
}

#[tokio::test]
async fn open_connection_keeps_its_endpoint_through_changes() {
    let (endpoint, other) = (echo_endpoint().await, named_endpoint("other").await);
    let pool = upstream("db", &[endpoint.address]);
    let server = start(Options::default(), to_upstream(&pool)).await;
    let mut client = server.connect().await;
    client.send("before ").await;
    expect_text(&mut client, "before ").await;

    pool.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(other.address)], ..Endpoints::default() });
    let replaced = stream_snapshot(server.address, to_upstream(&upstream("another", &[other.address])));
    server.snapshot.store(Arc::new(replaced));
    server.proxy.reconcile().await;
    client.send("after").await;
    expect_text(&mut client, "after").await;
    assert_eq!(name_of_next_endpoint(&server).await.as_deref(), Some("other"));
}

#[tokio::test]
async fn removed_listener_drains_its_connections() {
    let endpoint = echo_endpoint().await;
    let limits = ProxyLimits { listener_grace_period: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let server = start_with(Options { limits, ..Options::default() }, &[endpoint.address]).await;
    let (mut quick, mut slow) = (server.connect().await, server.connect().await);
    for client in [&mut quick, &mut slow] {
        client.send("open").await;
        expect_text(client, "open").await;
    }
    server.snapshot.store(Arc::new(Snapshot::default()));
    server.proxy.reconcile().await;
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is still open");
    // The connections are served until the grace period has passed.
    quick.send("more").await;
    expect_text(&mut quick, "more").await;
    quick.socket.shutdown().await.unwrap();
    assert_eq!(quick.read_to_end().await.unwrap(), b"bye");
    assert_eq!(slow.read_to_end().await.unwrap(), b"");
    wait_for_outcome(&server, "listener_closed", 1.0).await;
    assert_eq!(outcome_count(&server, "completed"), 1.0);
}

#[tokio::test]
async fn drain_of_the_process_closes_remaining_connections() {
    let endpoint = echo_endpoint().await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut client = server.connect().await;
    client.send("open").await;
    expect_text(&mut client, "open").await;
    assert_eq!(with_timeout("the drain", server.proxy.drain(Duration::from_millis(100))).await, 1);
    assert_eq!(client.read_to_end().await.unwrap(), b"");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let endpoint = echo_endpoint().await;
    let limits = ProxyLimits { stream_idle_timeout: Duration::from_millis(3500), ..ProxyLimits::default() };
    let server = start_with(Options { limits, ..Options::default() }, &[endpoint.address]).await;
    let mut client = server.connect().await;
    // Bytes restart the timeout: the pauses together are longer than it is.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(800)).await; // Shorter than the timeout by more than a pause.
        client.send("x").await;
        expect_text(&mut client, "x").await;
    }
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    wait_for_outcome(&server, "idle_timeout", 1.0).await;
}

#[tokio::test]
async fn changed_port_serves_tcp_instead_of_http() {
    let (http, tcp) = (Endpoint::ok().await, named_endpoint("tcp").await);
    let server = TestServer::with_routes(crate::harness::routes_to(http.address)).await;
    let mut old = server.connect().await;
    assert_eq!(old.get("/").await.text(), "ok");
    let changed = stream_snapshot(server.address, to_upstream(&upstream("db", &[tcp.address])));
    server.snapshot.store(Arc::new(changed));
    server.proxy.reconcile().await;
    assert_eq!(name_of_next_endpoint(&server).await.as_deref(), Some("tcp"));
    assert_eq!(old.get("/").await.status, 404, "requests on an old connection have no listener");
    server.replace_routes(crate::harness::routes_to(http.address));
    server.proxy.reconcile().await;
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
}

#[tokio::test]
async fn connection_limit_delays_further_connections() {
    let endpoint = named_endpoint("up").await;
    let limits = ProxyLimits { max_connections: 1, ..ProxyLimits::default() };
    let server = start_with(Options { limits, ..Options::default() }, &[endpoint.address]).await;
    let mut first = server.connect().await;
    expect_text(&mut first, "up").await;
    let mut second = server.connect().await;
    let mut byte = [0];
    let early = timeout(Duration::from_millis(200), second.socket.read(&mut byte)).await;
    assert!(early.is_err(), "the second connection was served beyond the limit");
    drop(first);
    expect_text(&mut second, "up").await;
}

#[tokio::test]
async fn endpoint_connection_limit_resets_further_connections() {
    let endpoint = named_endpoint("up").await;
    let limits = ProxyLimits {
        max_upstream_connections: 1,
        connect_timeout: Duration::from_millis(200),
        ..ProxyLimits::default()
    };
    let server = start_with(Options { limits, ..Options::default() }, &[endpoint.address]).await;
    let mut first = server.connect().await;
    expect_text(&mut first, "up").await;
    assert_reset_at_once(&server).await;
    wait_for_outcome(&server, "connection_limit", 1.0).await;
}

#[tokio::test]
async fn connections_are_logged_and_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let endpoint = echo_endpoint().await;
    let options = Options {
        log: AccessLogDestination::File(path.clone()),
        proxy_header_peers: vec!["127.0.0.0/8"],
        ..Options::default()
    };
    let server = start_with(options, &[endpoint.address]).await;
    let mut client = server.connect().await;
    client.send("PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\nhello").await;
    expect_text(&mut client, "hello").await;
    let is_of_requests = |name: &String| name.starts_with("portico_request") && name.contains("TCPRoute");
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_streams"], 1.0);
    assert!(!metrics.keys().any(is_of_requests), "while the connection is open: {metrics:?}");
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), b"bye");
    // A connection without a valid PROXY header never reaches a backend.
    let mut malformed = server.connect().await;
    malformed.send("hello, who is there?\r\n").await;
    assert_eq!(malformed.read_to_end().await.unwrap_or_default(), b"");
    wait_for_outcome(&server, "completed", 1.0).await;
    wait_until_closed(&server).await;
    assert_eq!(endpoint.log.connections(), 1);

    let metrics = scrape(&server);
    let labels =
        "gateway=\"default/gw\",listener=\"tcp\",route=\"TCPRoute/default/db\",rule=\"0\",backend=\"default/db:80\"";
    for (name, expected) in [
        (format!("portico_stream_connections_total{{{labels},outcome=\"completed\"}}"), 1.0),
        (format!("portico_stream_received_bytes_total{{{labels}}}"), 5.0),
        (format!("portico_stream_sent_bytes_total{{{labels}}}"), 8.0),
        ("portico_streams".to_owned(), 0.0),
        ("portico_upstream_connections".to_owned(), 0.0),
    ] {
        assert_eq!(metrics.get(&name), Some(&expected), "{name}");
    }
    assert!(!metrics.keys().any(is_of_requests), "{metrics:?}");

    server.log.finish();
    let records = access_log_records(&path);
    assert_eq!(records.len(), 1, "{records:?}");
    let record = &records[0];
    let expected = json!({
        "client": "192.0.2.7:12345", "protocol": "TCP", "method": null, "status": null, "bytes_in": 5, "bytes_out": 8,
        "gateway": "default/gw", "listener": "tcp", "route": "TCPRoute/default/db", "upstream": "default/db:80",
        "address": endpoint.address.to_string(), "error": null,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(record[field], *value, "{field}");
    }
}
