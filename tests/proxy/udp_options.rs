//! What routes and flags set for UDP sessions: plugins, and limits by client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::plugin_chain::testing::stream_chain;
use portico::plugins::REGISTRY;
use portico::snapshot::rule::RuleId;
use portico::snapshot::stream::{StreamRoute, StreamRule};
use portico::snapshot::{Bind, Snapshot};
use portico::upstream::settings::{CircuitBreakerSettings, OverloadLimit, RequestLimits};
use portico::upstream::{
    AlternativeBackends, BackendTraffic, CircuitPhase, EndpointAddress, Endpoints, Upstream, UpstreamRegistry,
};
use serde_json::{Value, json};

use crate::accounting::wait_for_metrics;
use crate::harness::{Options, TestServer, with_timeout};
use crate::udp::{
    UdpClient, UdpEndpoint, start, start_with, to_upstream, udp_key, udp_upstream, unreachable_address, wait_for_drops,
    wait_for_outcome,
};

/// Replaces the route by one with an ip-restriction plugin with this configuration.
async fn restrict(server: &TestServer, upstream: &Arc<Upstream>, config: Value) {
    let id = RuleId { route: "UDPRoute/default/dns".into(), rule: "0".into() };
    let plugins = Some(stream_chain(&[(REGISTRY.find("ip-restriction").unwrap(), config)]));
    let rule = StreamRule {
        gateway: "default/gw".into(),
        listener: "udp".into(),
        port: server.address.port(),
        route: to_upstream(upstream).map(|action| Arc::new(StreamRoute { id, plugins, action, options: None })),
    };
    let bind = Arc::new(Bind::with_udp(Arc::new(rule)));
    let binds = [(BindAddress::udp(server.address), bind)].into();
    server.snapshot.store(Arc::new(Snapshot { binds, ..Snapshot::default() }));
    server.proxy.reconcile().await;
}

#[tokio::test]
async fn datagrams_of_clients_that_a_plugin_rejects_are_dropped() {
    let endpoint = UdpEndpoint::start("").await;
    let upstream = udp_upstream("dns", &[endpoint.address]);
    let server = start_with(Options::default(), &[endpoint.address]).await;
    let (client, new) = (UdpClient::new().await, UdpClient::new().await);
    restrict(&server, &upstream, json!({"allow": ["127.0.0.0/8"]})).await;
    assert_eq!(client.exchange(&server, "allowed").await, "allowed");
    // The open session ends as well.
    restrict(&server, &upstream, json!({"deny": ["127.0.0.1"]})).await;
    for denied in [&client, &new] {
        denied.send(&server, "denied").await;
    }
    wait_for_drops(&server, "plugin_rejected", 2.0).await;
    wait_for_outcome(&server, "plugin_rejected", 1.0).await;
    wait_for_metrics(&server, "no session", |metrics| metrics["portico_udp_sessions"] == 0.0).await;
    restrict(&server, &upstream, json!({"deny": ["192.0.2.1"]})).await;
    assert_eq!(new.exchange(&server, "allowed").await, "allowed");
}

#[tokio::test]
async fn sessions_of_one_client_are_limited() {
    let endpoint = UdpEndpoint::start("").await;
    let limits = ProxyLimits { max_udp_sessions_per_client: 2, ..ProxyLimits::default() };
    let server = start_with(Options { limits, workers: 2, ..Options::default() }, &[endpoint.address]).await;
    let clients = UdpClient::many(3).await;
    for client in &clients[..2] {
        assert_eq!(client.exchange(&server, "open").await, "open");
    }
    clients[2].send(&server, "dropped").await;
    wait_for_drops(&server, "client_limit", 1.0).await;
    // Sessions that are open are not affected.
    for client in &clients[..2] {
        assert_eq!(client.exchange(&server, "kept").await, "kept");
    }
    wait_for_metrics(&server, "two sessions", |metrics| metrics["portico_udp_sessions"] == 2.0).await;
}

fn with_traffic(addresses: &[SocketAddr], traffic: BackendTraffic) -> Endpoints {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    Endpoints { addresses, traffic, ..Endpoints::default() }
}

fn with_limits(addresses: &[SocketAddr], limits: RequestLimits) -> Endpoints {
    with_traffic(addresses, BackendTraffic { overload: limits.into(), ..BackendTraffic::default() })
}

#[tokio::test]
async fn sessions_are_limited_by_the_policy_of_the_service() {
    let endpoint = UdpEndpoint::start("").await;
    let dns = udp_upstream("dns", &[]);
    // Datagrams do not wait.
    let limits = RequestLimits {
        max_requests: Some(1),
        max_pending: Some(10),
        queue_timeout: Duration::from_secs(3600),
        ..RequestLimits::default()
    };
    dns.set_endpoints(with_limits(&[endpoint.address], limits));
    let server = start(Options::default(), to_upstream(&dns)).await;
    let clients = UdpClient::many(2).await;
    assert_eq!(clients[0].exchange(&server, "first").await, "first");
    clients[1].send(&server, "second").await;
    wait_for_drops(&server, "over_limit", 1.0).await;
    assert_eq!(clients[0].exchange(&server, "again").await, "again", "a session in progress goes on");
    let report = dns.overload_report().unwrap();
    assert_eq!((report.active, report.rejected(OverloadLimit::Requests)), (1, 1));
    // A session of each endpoint.
    let limits = RequestLimits { max_requests_per_endpoint: Some(1), ..RequestLimits::default() };
    dns.set_endpoints(with_limits(&[endpoint.address], limits));
    let server = start(Options::default(), to_upstream(&dns)).await;
    assert_eq!(clients[0].exchange(&server, "first").await, "first");
    clients[1].send(&server, "second").await;
    wait_for_drops(&server, "over_limit", 1.0).await;
    dns.set_endpoints(with_limits(&[endpoint.address], RequestLimits::default()));
    assert_eq!(clients[1].exchange(&server, "third").await, "third");
}

/// Its first limit is 20, which never grows without responses.
#[tokio::test]
async fn adaptive_limit_does_not_apply_to_sessions() {
    let endpoint = UdpEndpoint::start("").await;
    let dns = udp_upstream("dns", &[]);
    let adaptive = Some(portico::upstream::settings::AdaptiveLimit { min: 1, max: 2 });
    dns.set_endpoints(with_limits(&[endpoint.address], RequestLimits { adaptive, ..RequestLimits::default() }));
    let server = start(Options::default(), to_upstream(&dns)).await;
    for client in UdpClient::many(5).await {
        assert_eq!(client.exchange(&server, "x").await, "x");
    }
}

/// Opens after two errors in a row, and is half-open at the next session.
fn circuit(open_for: Duration) -> CircuitBreakerSettings {
    CircuitBreakerSettings {
        window: Duration::from_secs(10),
        min_requests: 1_000_000,
        error_percent: 50,
        slow: None,
        consecutive: Some(2),
        statuses: Box::default(),
        open_for,
        max_open_for: open_for,
        probes: 1,
        successes: 1,
        ramp_up: Duration::ZERO,
        fallback: None,
    }
}

fn phase(upstream: &Upstream) -> CircuitPhase {
    upstream.overload_report().unwrap().circuit.unwrap().phase
}

async fn wait_for_phase(upstream: &Upstream, expected: CircuitPhase) {
    with_timeout("a change of the circuit", async {
        while phase(upstream) != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn circuit_opens_if_datagrams_are_refused_and_closes_with_a_reply() {
    let (dead, endpoint) = (unreachable_address().await, UdpEndpoint::start("").await);
    let set = |upstream: &Upstream, address, open_for| {
        let overload = circuit(open_for).into();
        upstream.set_endpoints(with_traffic(&[address], BackendTraffic { overload, ..BackendTraffic::default() }));
    };
    let dns = udp_upstream("dns", &[]);
    set(&dns, dead, Duration::from_secs(3600));
    let server = start(Options::default(), to_upstream(&dns)).await;
    let clients = UdpClient::many(4).await;
    clients[0].send(&server, "first").await;
    wait_for_outcome(&server, "connection_refused", 1.0).await;
    assert_eq!(phase(&dns), CircuitPhase::Closed);
    clients[1].send(&server, "second").await;
    wait_for_phase(&dns, CircuitPhase::Open).await;
    clients[2].send(&server, "third").await;
    wait_for_drops(&server, "circuit_open", 1.0).await;
    // Another Service, whose circuit is open for no time.
    let dns = udp_upstream("other", &[]);
    set(&dns, dead, Duration::ZERO);
    let server = start(Options::default(), to_upstream(&dns)).await;
    for (index, client) in clients[..2].iter().enumerate() {
        client.send(&server, "x").await;
        wait_for_outcome(&server, "connection_refused", 1.0 + index as f64).await;
    }
    wait_for_phase(&dns, CircuitPhase::HalfOpen).await;
    set(&dns, endpoint.address, Duration::ZERO);
    assert_eq!(clients[3].exchange(&server, "reply").await, "reply");
    wait_for_phase(&dns, CircuitPhase::Closed).await;
}

#[tokio::test]
async fn sessions_fail_over() {
    let (main, other) = (UdpEndpoint::start("main ").await, UdpEndpoint::start("other ").await);
    let registry = UpstreamRegistry::default();
    let alternatives =
        AlternativeBackends { failover: [udp_key("other")].into(), min_available_percent: 1, ..Default::default() };
    let alternatives = Some(Arc::new(alternatives));
    let set = |addresses: &[SocketAddr]| {
        let traffic = BackendTraffic { alternatives: alternatives.clone(), ..BackendTraffic::default() };
        registry.set_endpoints(&udp_key("dns"), with_traffic(addresses, traffic))
    };
    let dns = set(&[]);
    registry.set_endpoints(&udp_key("other"), with_traffic(&[other.address], BackendTraffic::default()));
    let server = start(Options::default(), to_upstream(&dns)).await;
    let clients = UdpClient::many(2).await;
    assert_eq!(clients[0].exchange(&server, "x").await, "other x");
    set(&[main.address]);
    assert_eq!(clients[0].exchange(&server, "y").await, "other y", "a session keeps its endpoint");
    assert_eq!(clients[1].exchange(&server, "x").await, "main x");
}
