//! What routes and flags set for UDP sessions: plugins, and limits by client.

use std::sync::Arc;

use portico::plugin_api::testing::stream_chain;
use portico::plugins::REGISTRY;
use portico::proxy::ProxyLimits;
use portico::snapshot::rule::RuleId;
use portico::snapshot::stream::{StreamRoute, StreamRule};
use portico::snapshot::{Bind, BindAddress, Snapshot};
use portico::upstream::Upstream;
use serde_json::{Value, json};

use crate::accounting::wait_for_metrics;
use crate::harness::{Options, TestServer};
use crate::udp::{UdpClient, UdpEndpoint, start_with, to_upstream, udp_upstream, wait_for_drops, wait_for_outcome};

/// Replaces the route by one with an ip-restriction plugin with this configuration.
async fn restrict(server: &TestServer, upstream: &Arc<Upstream>, config: Value) {
    let id = RuleId { route: "UDPRoute/default/dns".into(), rule: "0".into() };
    let plugins = Some(stream_chain(&[(REGISTRY.find("ip-restriction").unwrap(), config)]));
    let rule = StreamRule {
        gateway: "default/gw".into(),
        listener: "udp".into(),
        port: server.address.port(),
        route: to_upstream(upstream).map(|action| Arc::new(StreamRoute { id, plugins, action })),
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
