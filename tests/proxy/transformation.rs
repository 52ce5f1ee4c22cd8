//! The plugins `jq`, `request-transformer-advanced` and `response-transformer-advanced` on the wire: new bodies and
//! their framing, and bodies that must not pass.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use portico::plugin_api::AnyPluginKind;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use crate::harness::{Endpoint, Route, TestServer, forward, header, route, upstream};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";

async fn server(plugins: &[(&str, Value)], endpoint: &Endpoint) -> TestServer {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    TestServer::with_routes(vec![Route { plugins: Some(chain(&plugins)), ..route(action) }]).await
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

// docs/kong-compatibility.md, 5.15
#[tokio::test]
async fn jq_changes_responses_or_replaces_them() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(br#"{"secret":1,"a":1.50}"#).unwrap();
    let compressed = encoder.finish().unwrap();
    let large = format!("{{\"secret\":\"{}\"}}", "x".repeat(1 << 20));
    let config = json!({"response_jq_program": "del(.secret) | if .stop then [repeat(1)] else . end"});
    for (status, headers, body, expected_status, expected_body) in [
        ("200 OK", "", &br#"{"secret":1,"a":1.50}"#[..], 200, Some("{\"a\":1.50}\n")),
        ("200 OK", "content-encoding: gzip\r\n", &compressed, 200, Some("{\"a\":1.50}\n")),
        ("404 Not Found", "", br#"{"secret":1}"#, 404, Some(r#"{"secret":1}"#)),
        ("200 OK", "", br#"{"secret":1"#, 502, None),
        ("200 OK", "", br#"{"secret":1,"stop":true}"#, 502, None),
        ("200 OK", "content-encoding: unknown\r\n", br#"{"secret":1}"#, 502, None),
        ("200 OK", "", large.as_bytes(), 502, None),
    ] {
        let endpoint = Endpoint::responding_with(response(status, headers, body)).await;
        let received = server(&[("jq", config.clone())], &endpoint).await.request(GET).await;
        assert_eq!(received.status, expected_status, "{status} {headers}");
        match expected_body {
            Some(expected) => assert_eq!(received.text(), expected, "{status} {headers}"),
            None => assert!(!received.text().contains("secret"), "{status} {headers}: {}", received.text()),
        }
    }
}

// docs/kong-compatibility.md, 5.12
#[tokio::test]
async fn requests_and_responses_change_shape_together() {
    let endpoint = Endpoint::responding_with(response("200 OK", "", br#"{"a":{"b":1,"c":2},"d":3}"#)).await;
    let plugins = [
        ("jq", json!({"request_jq_program": "{order: .}"})),
        (
            "request-transformer-advanced",
            json!({"dots_in_keys": false, "add": {"body": ["order.count:2"], "json_types": ["number"]}}),
        ),
        ("response-transformer-advanced", json!({"dots_in_keys": false, "remove": {"json": ["a.c", "d"]}})),
    ];
    let server = server(&plugins, &endpoint).await;
    let body = r#"{"id":1}"#;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let received = server.request(&request).await;
    assert_eq!((received.status, &*received.text()), (200, r#"{"a":{"b":1}}"#));
    let forwarded = endpoint.log.requests().pop().unwrap();
    assert!(forwarded.ends_with(r#"{"order":{"id":1,"count":2}}"#), "{forwarded}");
    assert_eq!(header(&forwarded, "content-length"), Some("28"), "{forwarded}");
    // A program that fails rejects the request.
    let received = server.request(&request.replace(body, "{\"id\":1]")).await;
    assert_eq!(received.status, 400);
    assert_eq!(endpoint.log.requests().len(), 1);
}

// docs/kong-compatibility.md, 5.12
#[tokio::test]
async fn whole_bodies_are_replaced_by_status() {
    let config = json!({"replace": {"body": "{\"error\":\"later\"}", "if_status": ["500-599"]}});
    let endpoint = Endpoint::responding_with(response("500 Oops", "", br#"{"trace":"secret"}"#)).await;
    let received = server(&[("response-transformer-advanced", config)], &endpoint).await.request(GET).await;
    assert_eq!((received.status, &*received.text()), (500, r#"{"error":"later"}"#));
}
