//! UDP listeners: sessions, their backends and endpoints, limits, changes of the configuration, and accounting.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::proxy::BindState;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::own_udp_listeners::OwnUdpListeners;
use portico::snapshot::rule::{Backend, BackendTarget, Filters, RouteFailure, RuleId, WeightedBackends};
use portico::snapshot::stream::{StreamAction, StreamRoute, StreamRule};
use portico::snapshot::{Bind, Snapshot};
use portico::transport_protocol::TransportProtocol;
use portico::upstream::{EndpointAddress, Endpoints, Upstream, UpstreamKey};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::accounting::{access_log_records, scrape, wait_for_metrics};
use crate::harness::{LONGER_THAN_PAUSES, Options, TestServer, reserve_address, with_timeout};

/// The rule of a UDP listener. Without an action, no route is attached to it.
fn udp_rule(address: SocketAddr, action: Option<StreamAction>) -> Arc<StreamRule> {
    let id = RuleId { route: "UDPRoute/default/dns".into(), rule: "0".into() };
    Arc::new(StreamRule {
        gateway: "default/gw".into(),
        listener: "udp".into(),
        port: address.port(),
        route: action.map(|action| Arc::new(StreamRoute { id, plugins: None, action, options: None })),
    })
}

fn udp_snapshot(address: SocketAddr, action: Option<StreamAction>) -> Snapshot {
    let bind = Arc::new(Bind::with_udp(udp_rule(address, action)));
    Snapshot { binds: [(BindAddress::udp(address), bind)].into(), ..Snapshot::default() }
}

fn weighted(backends: Vec<(u32, BackendTarget)>) -> Option<StreamAction> {
    let backend = |(weight, target)| Backend { weight, filters: Filters::default(), target };
    Some(StreamAction::Forward(WeightedBackends::new(backends.into_iter().map(backend).collect()).unwrap()))
}

pub(crate) fn udp_key(service: &str) -> UpstreamKey {
    UpstreamKey {
        namespace: "default".into(),
        service: service.into(),
        port: 53,
        transport: TransportProtocol::Udp,
        ..UpstreamKey::default()
    }
}

pub(crate) fn udp_upstream(service: &str, addresses: &[SocketAddr]) -> Arc<Upstream> {
    let upstream = Upstream::new(udp_key(service));
    set_endpoints(&upstream, addresses);
    Arc::new(upstream)
}

fn set_endpoints(upstream: &Upstream, addresses: &[SocketAddr]) {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
}

pub(crate) fn to_upstream(upstream: &Arc<Upstream>) -> Option<StreamAction> {
    weighted(vec![(1, BackendTarget::Upstream(Arc::clone(upstream)))])
}

/// A server with a UDP listener at `ip`. Its port is unique among all tests, because a TCP socket reserves it, and the
/// address is one that no other socket has.
async fn start_at(ip: IpAddr, options: Options, action: Option<StreamAction>) -> TestServer {
    let (reserved_address, reserved) = reserve_address();
    let address = SocketAddr::new(ip, reserved_address.port());
    let server = TestServer::start(options, address, reserved, udp_snapshot(address, action));
    let binds = server.proxy.reconcile().await;
    assert_eq!(binds.get(&BindAddress::udp(address)), Some(&BindState::Bound));
    server
}

pub(crate) async fn start(options: Options, action: Option<StreamAction>) -> TestServer {
    start_at(LISTENER_IP, options, action).await
}

pub(crate) async fn start_with(options: Options, endpoints: &[SocketAddr]) -> TestServer {
    start(options, to_upstream(&udp_upstream("dns", endpoints))).await
}

/// Clients and endpoints have 127.0.0.1.
const LISTENER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

/// Replies to each datagram with its name and the datagram. It replies to `hold` when it is released.
pub(crate) struct UdpEndpoint {
    pub(crate) address: SocketAddr,
    received: Arc<AtomicBool>,
    release: Arc<Notify>,
}

impl UdpEndpoint {
    pub(crate) async fn start(name: &'static str) -> UdpEndpoint {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let endpoint =
            UdpEndpoint { address: socket.local_addr().unwrap(), received: Arc::default(), release: Arc::default() };
        let (received, release) = (Arc::clone(&endpoint.received), Arc::clone(&endpoint.release));
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let reply = [name.as_bytes(), &buffer[..length]].concat();
                if &buffer[..length] == b"hold" {
                    received.store(true, Ordering::SeqCst);
                    let (socket, release) = (Arc::clone(&socket), Arc::clone(&release));
                    tokio::spawn(async move {
                        release.notified().await;
                        socket.send_to(&reply, from).await.unwrap();
                    });
                } else {
                    socket.send_to(&reply, from).await.unwrap();
                }
            }
        });
        endpoint
    }

    /// Waits for the datagram `hold`.
    async fn wait_for_hold(&self) {
        with_timeout("the datagram", async {
            while !self.received.swap(false, Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// An address on whose port nothing receives datagrams.
pub(crate) async fn unreachable_address() -> SocketAddr {
    let (address, _reserved) = reserve_address();
    SocketAddr::new(Ipv4Addr::new(127, 0, 0, 78).into(), address.port())
}

pub(crate) struct UdpClient(UdpSocket);

impl UdpClient {
    pub(crate) async fn new() -> UdpClient {
        UdpClient(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    /// Clients with addresses of their own. The address of a dropped client could be used again.
    pub(crate) async fn many(count: usize) -> Vec<UdpClient> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(UdpClient::new().await);
        }
        clients
    }

    pub(crate) async fn send(&self, server: &TestServer, datagram: impl AsRef<[u8]>) {
        self.0.send_to(datagram.as_ref(), server.address).await.unwrap();
    }

    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 1 << 16];
        let (length, from) = with_timeout("a reply", self.0.recv_from(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        (buffer, from)
    }

    async fn receive_text(&self) -> String {
        String::from_utf8(self.receive().await.0).unwrap()
    }

    pub(crate) async fn exchange(&self, server: &TestServer, text: &str) -> String {
        self.send(server, text).await;
        self.receive_text().await
    }
}

/// The counters of these names with this label, added up.
fn sum(metrics: &BTreeMap<String, f64>, name: &str, label: &str) -> f64 {
    metrics.iter().filter(|(key, _)| key.starts_with(name) && key.contains(label)).map(|(_, count)| count).sum()
}

pub(crate) async fn wait_for_outcome(server: &TestServer, outcome: &str, count: f64) {
    let label = format!("outcome=\"{outcome}\"");
    let what = format!("{count} sessions with outcome {outcome}");
    wait_for_metrics(server, &what, |metrics| sum(metrics, "portico_stream_connections_total", &label) >= count).await;
}

pub(crate) async fn wait_for_drops(server: &TestServer, reason: &str, count: f64) {
    let name = format!("portico_udp_datagrams_dropped_total{{reason=\"{reason}\"}}");
    let what = format!("{count} datagrams dropped because of {reason}");
    wait_for_metrics(server, &what, |metrics| metrics[&name] >= count).await;
}

async fn replace(server: &TestServer, action: Option<StreamAction>) {
    server.snapshot.store(Arc::new(udp_snapshot(server.address, action)));
    server.proxy.reconcile().await;
}

#[tokio::test]
async fn datagrams_and_replies_are_forwarded() {
    let endpoint = UdpEndpoint::start("").await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let client = UdpClient::new().await;
    // The sizes include the largest datagram of IPv4, and an empty one.
    for length in [0, 1, 512, 1473, 9000, 65_507] {
        let datagram: Vec<u8> = (0..length).map(|index: usize| (index % 251) as u8).collect();
        client.send(&server, &datagram).await;
        let (reply, from) = client.receive().await;
        assert!(reply == datagram, "{length}: {} bytes", reply.len());
        assert_eq!(from, server.address);
    }
    // Many at once, which the kernel may join.
    for number in 0..50 {
        client.send(&server, format!("{number:04}")).await;
    }
    for number in 0..50 {
        assert_eq!(client.receive_text().await, format!("{number:04}"));
    }
    assert_eq!(scrape(&server)["portico_udp_sessions"], 1.0);
}

#[tokio::test]
async fn replies_come_from_the_address_that_the_client_sent_to() {
    let endpoint = UdpEndpoint::start("").await;
    let action = || to_upstream(&udp_upstream("dns", &[endpoint.address]));
    let server = start_at(Ipv4Addr::UNSPECIFIED.into(), Options::default(), action()).await;
    let client = UdpClient::new().await;
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 7, 7, 7]] {
        let address = SocketAddr::from((ip, server.address.port()));
        client.0.send_to(b"x", address).await.unwrap();
        assert_eq!(client.receive().await, (b"x".to_vec(), address));
    }
    assert_eq!(scrape(&server)["portico_udp_sessions"], 3.0, "a session for each address");

    let server = start_at("::".parse().unwrap(), Options::default(), action()).await;
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    let address: SocketAddr = ("::1".parse::<IpAddr>().unwrap(), server.address.port()).into();
    client.send_to(b"six", address).await.unwrap();
    let mut buffer = [0; 10];
    let (length, from) = with_timeout("a reply", client.recv_from(&mut buffer)).await.unwrap();
    assert_eq!((&buffer[..length], from), (&b"six"[..], address));
}

/// Over IPv6, the socket sends no fragments.
#[tokio::test]
async fn reply_larger_than_the_mtu_is_dropped() {
    let endpoint = UdpEndpoint::start("").await;
    let action = to_upstream(&udp_upstream("dns", &[endpoint.address]));
    let server = start_at("::1".parse().unwrap(), Options::default(), action).await;
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    // The MTU of the loopback interface is 65,536.
    client.send_to(&[0; 65_500], server.address).await.unwrap();
    wait_for_drops(&server, "too_large", 1.0).await;
    client.send_to(b"small", server.address).await.unwrap();
    let mut buffer = [0; 10];
    let (length, _) = with_timeout("a reply", client.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"small", "the session goes on");
}

#[tokio::test]
async fn sessions_are_split_by_weight() {
    let (a, b) = (UdpEndpoint::start("a").await, UdpEndpoint::start("b").await);
    let target = |name, endpoint: &UdpEndpoint| BackendTarget::Upstream(udp_upstream(name, &[endpoint.address]));
    let action = weighted(vec![(3, target("a", &a)), (1, target("b", &b)), (0, target("c", &b))]);
    let server = start(Options::default(), action).await;
    let mut from_a = 0;
    for client in UdpClient::many(40).await {
        let first = client.exchange(&server, "").await;
        assert_eq!(client.exchange(&server, "").await, first, "a session stays at its endpoint");
        from_a += usize::from(first == "a");
    }
    assert_eq!(from_a, 30);
}

#[tokio::test]
async fn all_workers_serve_sessions() {
    let endpoint = UdpEndpoint::start("").await;
    let server = start_with(Options { workers: 4, ..Options::default() }, &[endpoint.address]).await;
    for (number, client) in UdpClient::many(64).await.iter().enumerate() {
        let text = number.to_string();
        assert_eq!(client.exchange(&server, &text).await, text);
        assert_eq!(client.exchange(&server, &text).await, text);
    }
    assert_eq!(scrape(&server)["portico_udp_sessions"], 64.0);
}

#[tokio::test]
async fn invalid_backend_keeps_its_share() {
    let endpoint = UdpEndpoint::start("").await;
    let valid = udp_upstream("dns", &[endpoint.address]);
    let invalid = || BackendTarget::Fail(RouteFailure::InvalidBackend);
    let action = weighted(vec![(1, BackendTarget::Upstream(valid)), (1, invalid())]);
    let server = start(Options::default(), action).await;
    let clients = [UdpClient::new().await, UdpClient::new().await];
    // Each sends three datagrams, of which those of one client are dropped.
    for _ in 0..3 {
        for client in &clients {
            client.send(&server, "x").await;
        }
    }
    wait_for_drops(&server, "invalid_backend", 3.0).await;
    let served = async |client: &UdpClient| (client.receive_text().await, client.receive_text().await);
    tokio::select! {
        received = served(&clients[0]) => assert_eq!(received, ("x".into(), "x".into())),
        received = served(&clients[1]) => assert_eq!(received, ("x".into(), "x".into())),
    }
    // When the backend is valid, the next datagram of the other client is forwarded.
    let action = to_upstream(&udp_upstream("dns", &[endpoint.address]));
    replace(&server, action).await;
    for client in &clients {
        client.send(&server, "valid").await;
        while client.receive_text().await != "valid" {}
    }
    wait_for_outcome(&server, "reassigned", 2.0).await;
}

#[tokio::test]
async fn datagrams_without_a_usable_backend_are_dropped() {
    let cases = [
        (None, "no_route"),
        (Some(StreamAction::Reset(RouteFailure::NoBackends)), "no_backends"),
        (Some(StreamAction::Reset(RouteFailure::Unsupported)), "unsupported_rule"),
        (to_upstream(&udp_upstream("dns", &[])), "no_endpoints"),
    ];
    for (action, reason) in cases {
        let server = start(Options::default(), action).await;
        let client = UdpClient::new().await;
        client.send(&server, "1").await;
        client.send(&server, "2").await;
        wait_for_drops(&server, reason, 2.0).await;
        assert_eq!(scrape(&server)["portico_udp_sessions"], 0.0, "{reason}");
    }
}

#[tokio::test]
async fn datagrams_are_not_forwarded_to_a_listener_of_the_process() {
    let unspecified: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    for (listener, endpoint) in [(LISTENER_IP, LISTENER_IP), (unspecified, LISTENER_IP)] {
        let pool = udp_upstream("loop", &[]);
        let server = start_at(listener, Options::default(), to_upstream(&pool)).await;
        let address = SocketAddr::new(endpoint, server.address.port());
        set_endpoints(&pool, &[address]);
        let client = UdpClient::new().await;
        client.0.send_to(b"x", address).await.unwrap();
        wait_for_drops(&server, "loop", 1.0).await;
        assert_eq!(scrape(&server)["portico_udp_sessions"], 0.0);
    }
}

/// A datagram that appears to come from a listener would go back and forth between that listener and the endpoint.
#[tokio::test]
async fn datagrams_from_the_address_of_a_listener_are_dropped() {
    let endpoint = UdpEndpoint::start("a").await;
    let pool = udp_upstream("dns", &[endpoint.address]);
    let server = start(Options::default(), to_upstream(&pool)).await;
    // Stands for another listener, or for a client that forges its address.
    let listener = UdpClient::new().await;
    let source = listener.0.local_addr().unwrap();
    assert_eq!(listener.exchange(&server, "1").await, "a1");
    for sockets in [vec![source], vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), source.port())]] {
        let listeners = OwnUdpListeners::new(sockets, []);
        let snapshot = udp_snapshot(server.address, to_upstream(&pool));
        server.snapshot.store(Arc::new(Snapshot { own_udp_listeners: Arc::new(listeners), ..snapshot }));
        server.proxy.reconcile().await;
        let dropped = scrape(&server)["portico_udp_datagrams_dropped_total{reason=\"own_source\"}"];
        // Also in the session that is known.
        listener.0.send_to(b"2", server.address).await.unwrap();
        wait_for_drops(&server, "own_source", dropped + 1.0).await;
        assert_eq!(UdpClient::new().await.exchange(&server, "3").await, "a3");
    }
    server.snapshot.store(Arc::new(udp_snapshot(server.address, to_upstream(&pool))));
    server.proxy.reconcile().await;
    assert_eq!(listener.exchange(&server, "4").await, "a4", "nothing was sent in between");
}

#[tokio::test]
async fn removed_endpoint_is_replaced_by_the_next_datagram() {
    let (a, b) = (UdpEndpoint::start("a").await, UdpEndpoint::start("b").await);
    let pool = udp_upstream("dns", &[a.address]);
    let server = start(Options::default(), to_upstream(&pool)).await;
    let client = UdpClient::new().await;
    assert_eq!(client.exchange(&server, "1").await, "a1");
    set_endpoints(&pool, &[b.address]);
    assert_eq!(client.exchange(&server, "2").await, "b2");
    wait_for_outcome(&server, "reassigned", 1.0).await;
    // An endpoint that was added changes nothing.
    set_endpoints(&pool, &[a.address, b.address]);
    for _ in 0..4 {
        assert_eq!(client.exchange(&server, "3").await, "b3");
    }
}

#[tokio::test]
async fn reply_in_flight_arrives_after_a_change() {
    let (a, b) = (UdpEndpoint::start("a").await, UdpEndpoint::start("b").await);
    let server = start_with(Options::default(), &[a.address]).await;
    let client = UdpClient::new().await;
    client.send(&server, "hold").await;
    a.wait_for_hold().await;
    replace(&server, to_upstream(&udp_upstream("other", &[b.address]))).await;
    assert_eq!(client.exchange(&server, "new").await, "bnew");
    a.release.notify_one();
    assert_eq!(client.receive_text().await, "ahold");
    wait_for_outcome(&server, "reassigned", 1.0).await;

    // The same if the route is removed: its datagrams are dropped, and the reply arrives.
    client.send(&server, "hold").await;
    b.wait_for_hold().await;
    replace(&server, None).await;
    client.send(&server, "lost").await;
    wait_for_drops(&server, "no_route", 1.0).await;
    b.release.notify_one();
    assert_eq!(client.receive_text().await, "bhold");
}

#[tokio::test]
async fn unrelated_change_keeps_sessions() {
    let (a, b) = (UdpEndpoint::start("a").await, UdpEndpoint::start("b").await);
    let (pool, other) = (udp_upstream("dns", &[a.address]), udp_upstream("other", &[b.address]));
    let target = |upstream: &Arc<Upstream>| BackendTarget::Upstream(Arc::clone(upstream));
    let server = start(Options::default(), to_upstream(&pool)).await;
    let client = UdpClient::new().await;
    assert_eq!(client.exchange(&server, "1").await, "a1");
    // Most of the weight moves to another backend.
    for _ in 0..3 {
        replace(&server, weighted(vec![(1, target(&pool)), (1_000_000, target(&other))])).await;
        assert_eq!(client.exchange(&server, "2").await, "a2");
    }
    assert_eq!(sum(&scrape(&server), "portico_stream_connections_total", ""), 0.0, "no session has ended");
    // Without weight, the backend gets nothing.
    replace(&server, weighted(vec![(0, target(&pool)), (1, target(&other))])).await;
    assert_eq!(client.exchange(&server, "3").await, "b3");
}

#[tokio::test]
async fn unreachable_port_moves_the_client_to_another_endpoint() {
    let (endpoint, unreachable) = (UdpEndpoint::start("").await, unreachable_address().await);
    let server = start_with(Options::default(), &[unreachable, endpoint.address]).await;
    // Two clients, of which one is assigned to the unreachable endpoint first.
    let clients = [UdpClient::new().await, UdpClient::new().await];
    for client in &clients {
        client.send(&server, "first").await;
    }
    wait_for_outcome(&server, "connection_refused", 1.0).await;
    for client in &clients {
        client.send(&server, "second").await;
        while client.receive_text().await != "second" {}
    }
    // The endpoint is ejected, so that further clients are not assigned to it.
    for client in UdpClient::many(6).await {
        assert_eq!(client.exchange(&server, "new").await, "new");
    }
}

#[tokio::test]
async fn only_endpoint_is_tried_again_after_its_port_was_unreachable() {
    let unreachable = unreachable_address().await;
    let server = start_with(Options::default(), &[unreachable]).await;
    let client = UdpClient::new().await;
    client.send(&server, "lost").await;
    wait_for_outcome(&server, "connection_refused", 1.0).await;
    let socket = UdpSocket::bind(unreachable).await.unwrap();
    client.send(&server, "received").await;
    let mut buffer = [0; 10];
    let length = with_timeout("the datagram", socket.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"received");
}

#[tokio::test]
async fn new_session_replaces_the_one_idle_for_longest() {
    let endpoint = UdpEndpoint::start("").await;
    let limits = ProxyLimits { max_udp_sessions: 3, ..ProxyLimits::default() };
    let server = start_with(Options { limits, ..Options::default() }, &[endpoint.address]).await;
    let clients = UdpClient::many(3).await;
    for client in &clients {
        assert_eq!(client.exchange(&server, "open").await, "open");
    }
    // The first session was used last, so the second one is replaced.
    assert_eq!(clients[0].exchange(&server, "again").await, "again");
    let new = UdpClient::new().await;
    assert_eq!(new.exchange(&server, "new").await, "new");
    wait_for_outcome(&server, "session_limit", 1.0).await;
    for client in [&clients[0], &clients[2], &new] {
        assert_eq!(client.exchange(&server, "kept").await, "kept");
    }
    let evicted =
        |metrics: &BTreeMap<String, f64>| sum(metrics, "portico_stream_connections_total", "outcome=\"session_limit\"");
    assert_eq!(evicted(&scrape(&server)), 1.0);
    // A flood from many addresses neither adds sessions nor locks out a client.
    for client in UdpClient::many(50).await {
        client.send(&server, "flood").await;
    }
    assert_eq!(clients[1].exchange(&server, "served").await, "served");
    wait_for_metrics(&server, "three sessions", |metrics| metrics["portico_udp_sessions"] == 3.0).await;
}

#[tokio::test]
async fn idle_sessions_end() {
    let endpoint = UdpEndpoint::start("").await;
    let limits = ProxyLimits { udp_idle_timeout: Duration::from_millis(50), ..ProxyLimits::default() };
    let server = start_with(Options { limits, ..Options::default() }, &[endpoint.address]).await;
    let client = UdpClient::new().await;
    for round in 1..=2 {
        // If the machine pauses, the session may end before the reply, so the client sends again.
        with_timeout("a reply", async {
            loop {
                client.send(&server, "x").await;
                if let Ok(reply) = timeout(Duration::from_secs(1), client.receive_text()).await {
                    assert_eq!(reply, "x");
                    return;
                }
            }
        })
        .await;
        wait_for_outcome(&server, "completed", f64::from(round)).await;
    }
    wait_for_metrics(&server, "no session", |metrics| metrics["portico_udp_sessions"] == 0.0).await;
}

#[tokio::test]
async fn removed_listener_closes_its_socket() {
    let endpoint = UdpEndpoint::start("").await;
    let server = start_with(Options { workers: 2, ..Options::default() }, &[endpoint.address]).await;
    let (client, waiting) = (UdpClient::new().await, UdpClient::new().await);
    assert_eq!(client.exchange(&server, "open").await, "open");
    waiting.send(&server, "hold").await;
    endpoint.wait_for_hold().await;
    // The reply arrives while the listener is removed.
    endpoint.release.notify_one();
    server.snapshot.store(Arc::new(Snapshot::default()));
    assert_eq!(server.proxy.reconcile().await, [].into());
    assert_eq!(waiting.receive_text().await, "hold");
    let other = std::net::UdpSocket::bind(server.address).expect("the sockets of all workers are closed");
    wait_for_metrics(&server, "no session", |metrics| metrics["portico_udp_sessions"] == 0.0).await;

    // The address is in use by another process, then free again.
    let action = || to_upstream(&udp_upstream("dns", &[endpoint.address]));
    server.snapshot.store(Arc::new(udp_snapshot(server.address, action())));
    assert_eq!(server.proxy.reconcile().await, [(BindAddress::udp(server.address), BindState::InUse)].into());
    drop(other);
    replace(&server, action()).await;
    assert_eq!(client.exchange(&server, "again").await, "again");
}

#[tokio::test]
async fn tcp_and_udp_listeners_share_a_port_number() {
    let endpoint = UdpEndpoint::start("").await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let mut snapshot = udp_snapshot(server.address, to_upstream(&udp_upstream("dns", &[endpoint.address])));
    let tcp = Arc::new(Bind::with_tcp(udp_rule(server.address, None)));
    snapshot.binds.set(BindAddress::tcp(server.address), Some(tcp));
    server.snapshot.store(Arc::new(snapshot));
    let binds = server.proxy.reconcile().await;
    assert!(binds.len() == 2 && binds.values().all(|state| *state == BindState::Bound), "{binds:?}");
    assert_eq!(UdpClient::new().await.exchange(&server, "udp").await, "udp");
}

#[tokio::test]
async fn drain_serves_sessions_in_use() {
    let endpoint = UdpEndpoint::start("").await;
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let client = UdpClient::new().await;
    assert_eq!(client.exchange(&server, "open").await, "open");
    let used_at = Cell::new(Instant::now());
    let drained = tokio::select! {
        drained = server.proxy.drain(LONGER_THAN_PAUSES) => drained,
        () = async {
            loop {
                assert_eq!(client.exchange(&server, "while draining").await, "while draining");
                used_at.set(Instant::now());
                sleep(Duration::from_millis(100)).await; // A session that is idle for a second is not waited for.
            }
        } => unreachable!(),
    };
    // If this process was paused, the session was idle for as long.
    let was_paused = used_at.get().elapsed() >= Duration::from_secs(1);
    assert!(drained == 1 || was_paused, "the session was in use: {drained}");
    assert!(std::net::UdpSocket::bind(server.address).is_ok(), "the socket is closed");
    // Without sessions, there is nothing to wait for.
    let server = start_with(Options::default(), &[endpoint.address]).await;
    assert_eq!(with_timeout("the drain", server.proxy.drain(Duration::from_secs(3600))).await, 0);
}

#[tokio::test]
async fn sessions_are_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (a, b) = (UdpEndpoint::start("a").await, UdpEndpoint::start("b").await);
    let log = AccessLogDestination::File(path.clone());
    let server = start_with(Options { log, ..Options::default() }, &[a.address]).await;
    let client = UdpClient::new().await;
    assert_eq!(client.exchange(&server, "123").await, "a123");
    assert_eq!(client.exchange(&server, "4567").await, "a4567");
    replace(&server, to_upstream(&udp_upstream("other", &[b.address]))).await;
    assert_eq!(client.exchange(&server, "8").await, "b8");
    wait_for_outcome(&server, "reassigned", 1.0).await;
    server.proxy.drain(Duration::ZERO).await;
    wait_for_outcome(&server, "listener_closed", 1.0).await;
    wait_for_metrics(&server, "no session", |metrics| metrics["portico_udp_sessions"] == 0.0).await;
    server.log.finish();

    let records = access_log_records(&path);
    let described: Vec<_> = records
        .iter()
        .map(|record| {
            let text = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
            assert_eq!(text("client"), client.0.local_addr().unwrap().to_string());
            assert_eq!((text("listener"), text("route")), ("udp".to_owned(), "UDPRoute/default/dns".to_owned()));
            let bytes = (record["bytes_in"].as_u64().unwrap(), record["bytes_out"].as_u64().unwrap());
            (text("protocol"), text("upstream"), text("address"), bytes, text("error"))
        })
        .collect();
    let expected = [
        ("UDP", "default/dns:53/UDP", a.address.to_string(), (7, 9), "reassigned"),
        ("UDP", "default/other:53/UDP", b.address.to_string(), (1, 2), "listener_closed"),
    ];
    let expected = expected.map(|(protocol, upstream, address, bytes, error)| {
        (protocol.to_owned(), upstream.to_owned(), address, bytes, error.to_owned())
    });
    assert_eq!(described, expected);
    let metrics = scrape(&server);
    assert_eq!(sum(&metrics, "portico_stream_received_bytes_total", "default/dns:53/UDP"), 7.0);
    assert_eq!(sum(&metrics, "portico_stream_sent_bytes_total", "default/dns:53/UDP"), 9.0);
}
