//! The timeouts that a Service configures, and those of the plugin `upstream-timeout`, which precede them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};
use portico::upstream::BackendTraffic;
use portico::upstream::settings::RequestTimeouts;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::endpoints::unresponsive_address;
use crate::harness::{Endpoint, Route, TestServer, forward, route, upstream, with_timeout, with_timeouts_and_retries};
use crate::metrics::scrape;
use crate::service_retries::set_traffic;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SHORT: Duration = Duration::from_millis(300);

fn traffic(timeouts: RequestTimeouts) -> BackendTraffic {
    BackendTraffic { timeouts: Some(Arc::new(timeouts)), ..BackendTraffic::default() }
}

async fn server(address: SocketAddr, timeouts: RequestTimeouts) -> TestServer {
    let web = upstream("web", &[address]);
    set_traffic(&web, &[address], traffic(timeouts));
    TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await
}

async fn silent_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await
}

#[tokio::test]
async fn request_ends_at_the_timeouts_of_the_service() {
    let unset = RequestTimeouts::default;
    for (reason, timeouts) in [
        ("request_timeout", RequestTimeouts { request: Some(SHORT), ..unset() }),
        ("request_timeout", RequestTimeouts { max_duration: Some(SHORT), ..unset() }),
        ("backend_request_timeout", RequestTimeouts { backend_request: Some(SHORT), ..unset() }),
    ] {
        let endpoint = silent_endpoint().await;
        let server = server(endpoint.address, timeouts).await;
        assert_eq!(server.request(GET).await.status, 504);
        let name = format!("portico_request_errors_total{{reason=\"{reason}\"}}");
        assert_eq!(scrape(&server)[&name], 1.0, "{timeouts:?}");
    }
}

#[tokio::test]
async fn timeouts_of_the_rule_precede() {
    let endpoint = silent_endpoint().await;
    let web = upstream("web", &[endpoint.address]);
    let hour = Some(Duration::from_secs(3600));
    set_traffic(&web, &[endpoint.address], traffic(RequestTimeouts { request: hour, ..RequestTimeouts::default() }));
    let rule = TimeoutsAndRetries { request: TimeoutSetting::After(SHORT), ..TimeoutsAndRetries::default() };
    let action = with_timeouts_and_retries(forward(vec![(1, web)]), rule);
    let server = TestServer::with_routes(vec![route(action)]).await;
    assert_eq!(server.request(GET).await.status, 504);
}

#[tokio::test]
async fn connecting_ends_at_the_timeout_of_the_service_and_ejects_the_endpoint() {
    let (unresponsive, _queue, _listener) = unresponsive_address().await;
    let server = server(unresponsive, RequestTimeouts { connect: Some(SHORT), ..RequestTimeouts::default() }).await;
    let began = tokio::time::Instant::now();
    assert_eq!(server.request(GET).await.status, 504);
    // The default is 5 seconds.
    assert!(began.elapsed() >= SHORT);
    assert_eq!(scrape(&server)["portico_upstream_connects_total{outcome=\"timed_out\"}"], 1.0);
}

#[tokio::test]
async fn response_that_stands_still_is_aborted() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        stream.read_to_end().await;
    })
    .await;
    let timeouts = RequestTimeouts { stream_idle: Some(SHORT), ..RequestTimeouts::default() };
    let server = server(endpoint.address, timeouts).await;
    let mut client = server.connect().await;
    client.send(GET).await;
    assert!(client.try_response().await.is_none(), "the response is incomplete");
}

/// A tunnel that is not idle ends, too.
#[tokio::test]
async fn tunnel_ends_at_the_longest_duration() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await;
        let mut bytes = [0; 1024];
        while let Ok(1..) = stream.socket.read(&mut bytes).await {
            stream.send("more").await;
        }
    })
    .await;
    let timeouts = RequestTimeouts { max_duration: Some(2 * SHORT), ..RequestTimeouts::default() };
    let server = server(endpoint.address, timeouts).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await;
    let status = client.try_response().await.map(|response| response.status);
    assert!([Some(101), Some(504), None].contains(&status), "{status:?}");
    let began = tokio::time::Instant::now();
    let ended = async {
        let mut bytes = [0; 1024];
        client.send("first").await;
        while let Ok(1..) = client.socket.read(&mut bytes).await {
            use tokio::io::AsyncWriteExt;
            if client.socket.write_all(b"again").await.is_err() {
                break;
            }
        }
    };
    with_timeout("the end of the tunnel", ended).await;
    assert!(began.elapsed() < Duration::from_secs(60), "the tunnel is never idle");
}

/// A connection that has been idle for longer than the Service allows gets no request.
#[tokio::test]
async fn idle_connections_are_kept_as_long_as_the_service_allows() {
    let hour = Duration::from_secs(3600);
    for (idle, connections) in [(Duration::from_millis(1), 2), (Duration::ZERO, 1), (hour, 1)] {
        let endpoint = Endpoint::ok().await;
        let timeouts = RequestTimeouts { idle: Some(idle), ..RequestTimeouts::default() };
        let server = server(endpoint.address, timeouts).await;
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "ok");
        tokio::time::sleep(Duration::from_millis(5)).await; // Longer than the shortest timeout.
        assert_eq!(client.get("/").await.text(), "ok");
        assert_eq!(endpoint.log.connections(), connections, "{idle:?}");
    }
}

/// A server whose Service has annotated timeouts of an hour, and whose route has the plugin with this configuration.
async fn server_with_plugin(address: SocketAddr, config: Value) -> TestServer {
    let hour = Duration::from_secs(3600);
    let annotated = TimeoutsAndRetries::per_attempt(hour, hour, hour, 0);
    let action = with_timeouts_and_retries(forward(vec![(1, upstream("web", &[address]))]), annotated);
    let plugins = chain(&[(REGISTRY.find("upstream-timeout").unwrap(), config)]);
    TestServer::with_routes(vec![Route { plugins: Some(plugins), ..route(action) }]).await
}

// docs/kong-compatibility.md, 5.18
#[tokio::test]
async fn read_timeout_of_a_plugin_precedes_that_of_the_service() {
    let endpoint = silent_endpoint().await;
    let server = server_with_plugin(endpoint.address, json!({"read_timeout": 300})).await;
    let began = tokio::time::Instant::now();
    assert_eq!(with_timeout("the response", server.request(GET)).await.status, 504);
    assert!(began.elapsed() >= SHORT);
    assert_eq!(endpoint.log.connections(), 1);
}

// docs/kong-compatibility.md, 5.18
#[tokio::test]
async fn response_that_pauses_longer_than_the_read_timeout_of_a_plugin_is_aborted() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        stream.read_to_end().await;
    })
    .await;
    let server = server_with_plugin(endpoint.address, json!({"read_timeout": 300})).await;
    let mut client = server.connect().await;
    client.send(GET).await;
    assert!(client.try_response().await.is_none(), "the response is incomplete");
}

// docs/kong-compatibility.md, 5.18
#[tokio::test]
async fn connect_timeout_of_a_plugin_precedes_that_of_the_service() {
    let (unresponsive, _queue, _listener) = unresponsive_address().await;
    let server = server_with_plugin(unresponsive, json!({"connect_timeout": 300})).await;
    let began = tokio::time::Instant::now();
    assert_eq!(server.request(GET).await.status, 504);
    // The default is 5 seconds.
    assert!(began.elapsed() >= SHORT && began.elapsed() < Duration::from_secs(4));
}

/// Without other timeouts, requests take the short path, which must not skip those of the plugin.
#[tokio::test]
async fn timeouts_of_a_plugin_apply_without_others() {
    let endpoint = silent_endpoint().await;
    let plugins = chain(&[(REGISTRY.find("upstream-timeout").unwrap(), json!({"read_timeout": 300}))]);
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let server = TestServer::with_routes(vec![Route { plugins: Some(plugins), ..route(action) }]).await;
    assert_eq!(with_timeout("the response", server.request(GET)).await.status, 504);
}
