//! Access log and metrics: every request is recorded exactly once, however it ends.

use std::path::Path;

use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::rule::{Action, RouteFailure};
use serde_json::Value;

use crate::harness::{Endpoint, Options, Route, TestServer, forward, route, upstream};
pub(crate) use crate::metrics::{scrape, wait_for_metrics};

/// The records in this file of the access log.
pub(crate) fn access_log_records(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_request_is_recorded_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            if request.starts_with("GET /cut") {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
                return;
            }
            if request.starts_with("GET /never") {
                stream.read_to_end().await;
                return;
            }
            stream.send("HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello").await;
        }
    })
    .await;
    let routes = vec![
        Route { path: "/", ..route(forward(vec![(1, upstream("web", &[endpoint.address]))])) },
        Route { path: "/broken", ..route(Action::Fail(RouteFailure::Unsupported)) },
        Route { path: "/no-endpoints", ..route(forward(vec![(1, upstream("none", &[]))])) },
    ];
    let server = TestServer::with_options(
        Options { log: AccessLogDestination::File(path.clone()), ..Options::default() },
        routes,
    )
    .await;

    let mut client = server.connect().await;
    let fields = "host: a.example\r\nuser-agent: me \"x\"\r\n";
    client.send(format!("POST /x?y=1 HTTP/1.1\r\n{fields}content-length: 3\r\n\r\nabc")).await;
    let id = client.response().await.header("x-request-id").unwrap().to_owned();
    client.get("/broken").await;
    client.get("/no-endpoints").await;
    client.send("GET /cut HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    client.read_to_end().await.unwrap_or_default();
    let mut client = server.connect().await;
    client.send("GET /never HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    endpoint.log.wait_for("three requests", |log| log.requests().len() == 3).await;
    drop(client);
    endpoint
        .log
        .wait_for("two connections to end", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 2)
        .await;
    server.request("nonsense\r\n\r\n").await;

    // Draining waits until the requests of disconnected clients are recorded, too.
    assert_eq!(server.proxy.drain(crate::harness::TEST_TIMEOUT).await, 0);
    server.log.finish();
    let records = access_log_records(&path);
    let logged: Vec<_> = records
        .iter()
        .map(|record| {
            let field = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
            (field("path"), record["status"].as_u64().unwrap(), field("route"), field("upstream"), field("error"))
        })
        .collect();
    let expected = [
        ("/x", 201, "HTTPRoute/default/r0", "default/web:80", "-"),
        ("/broken", 500, "HTTPRoute/default/r1", "-", "unsupported_rule"),
        ("/no-endpoints", 503, "HTTPRoute/default/r2", "default/none:80", "no_endpoints"),
        ("/cut", 200, "HTTPRoute/default/r0", "default/web:80", "response_truncated"),
        ("/never", 499, "HTTPRoute/default/r0", "default/web:80", "client_disconnected"),
        ("-", 400, "-", "-", "malformed_request"),
    ];
    let expected = expected.map(|(path, status, route, upstream, error)| {
        (path.to_owned(), status, route.to_owned(), upstream.to_owned(), error.to_owned())
    });
    assert_eq!(logged, expected);
    let first = &records[0];
    assert_eq!(first["request_id"], id.as_str());
    assert_eq!((&first["bytes_in"], &first["bytes_out"]), (&3.into(), &5.into()));
    assert_eq!(first["user_agent"], "me \"x\"");
    assert_eq!(first["host"], "a.example");
    assert_eq!(first["method"], "POST");
    assert_eq!(first["gateway"], "default/gw");
    assert_eq!(first["listener"], "http");
    assert_eq!(first["address"], endpoint.address.to_string());
    assert_eq!(records[3]["bytes_out"], 4);

    let metrics = scrape(&server);
    let requests = |route: &str, backend: &str, class: &str| {
        let rule = if route.is_empty() { "" } else { "0" };
        let (gateway, listener) = if route.is_empty() { ("", "") } else { ("default/gw", "http") };
        metrics.get(&format!(
            "portico_requests_total{{gateway=\"{gateway}\",listener=\"{listener}\",route=\"{route}\",rule=\"{rule}\",\
             backend=\"{backend}\",code_class=\"{class}\"}}"
        ))
    };
    assert_eq!(requests("HTTPRoute/default/r0", "default/web:80", "2xx"), Some(&2.0));
    assert_eq!(requests("HTTPRoute/default/r0", "default/web:80", "4xx"), Some(&1.0));
    assert_eq!(requests("HTTPRoute/default/r1", "", "5xx"), Some(&1.0));
    assert_eq!(requests("HTTPRoute/default/r2", "default/none:80", "5xx"), Some(&1.0));
    assert_eq!(requests("", "", "4xx"), Some(&1.0));
    assert_eq!(metrics["portico_upstream_connects_total{outcome=\"connected\"}"], 2.0);
    assert_eq!(metrics["portico_upstream_reuses_total"], 1.0);
    assert_eq!(metrics["portico_access_log_dropped_total{reason=\"full\"}"], 0.0);
}

#[tokio::test]
async fn metric_series_survive_snapshot_changes() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(crate::harness::routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.get("/").await;
        server.replace_routes(crate::harness::routes_to(endpoint.address));
    }
    let metrics = scrape(&server);
    let requests: Vec<_> = metrics.iter().filter(|(name, _)| name.starts_with("portico_requests_total")).collect();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].1, &3.0);
}
