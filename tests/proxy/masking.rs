//! The plugin `mask` on the wire: bodies of responses, the access log, and the objects of log plugins.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use portico::proxy::access_log::AccessLogDestination;
use serde_json::{Value, json};

use crate::accounting::access_log_records;
use crate::harness::{Endpoint, Options, Route, TestResponse, TestServer, forward, route, upstream};

async fn server(options: Options, config: Value, endpoint: &Endpoint) -> TestServer {
    let plugins = chain(&[(REGISTRY.find("mask").unwrap(), config)]);
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    TestServer::with_options(options, vec![Route { plugins: Some(plugins), ..route(action) }]).await
}

/// The response to a request for a range, of an endpoint that sends this.
async fn response(config: &Value, fields: &str, body: &[u8]) -> TestResponse {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"a\"\r\n{fields}\r\n", body.len());
    let endpoint = Endpoint::responding_with([head.as_bytes(), body].concat()).await;
    let server = server(Options::default(), config.clone(), &endpoint).await;
    let response = server.request("GET / HTTP/1.1\r\nhost: a.example\r\nrange: bytes=0-3\r\n\r\n").await;
    assert!(!endpoint.log.requests()[0].to_lowercase().contains("\r\nrange:"), "parts cannot be masked");
    response
}

#[tokio::test]
async fn bodies_are_masked_or_not_sent() {
    let config = json!({"fields": ["**.email"], "kinds": ["payment-card"], "max_body_size": 1000});
    let json = "content-type: application/json\r\n";
    let document = br#"{"user":{"email":"jane@b.example"},"note":"4111 1111 1111 1111"}"#;
    let masked = r#"{"user":{"email":"***"},"note":"***"}"#;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(document).unwrap();
    let gzip = gzip.finish().unwrap();
    let large = format!("[\"{}\"]", "x".repeat(1000));
    for (fields, body, status, expected) in [
        (json.to_owned(), &document[..], 200, masked),
        (format!("{json}content-encoding: gzip\r\n"), &gzip[..], 200, masked),
        ("content-type: text/html\r\n".to_owned(), b"<p>4111111111111111</p>", 200, "<p>***</p>"),
        ("content-type: image/png\r\n".to_owned(), b"4111111111111111", 200, "4111111111111111"),
        (json.to_owned(), b"4111111111111111, and no JSON", 502, "An invalid response"),
        (json.to_owned(), large.as_bytes(), 502, "An invalid response"),
        (format!("{json}content-encoding: gzip\r\n"), b"not gzip", 502, "An invalid response"),
        (format!("{json}content-encoding: x-secret\r\n"), document, 502, "An invalid response"),
        (format!("{json}content-range: bytes 0-3/9\r\n"), document, 502, "An invalid response"),
    ] {
        let response = response(&config, &fields, body).await;
        assert_eq!(response.status, status, "{fields}");
        assert!(response.text().contains(expected), "{fields}: {}", response.text());
        assert!(!response.text().contains("jane"), "{fields}: {}", response.text());
        if expected == masked {
            assert_eq!(response.header("etag"), Some("W/\"a\""));
            assert_eq!(response.header("content-encoding"), None);
        }
    }
}

#[tokio::test]
async fn access_log_is_masked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let endpoint = Endpoint::ok().await;
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let log = json!({"access_log_fields": ["client"]});
    let config = json!({"kinds": ["email"], "response_body": false, "log": log});
    let server = server(options, config, &endpoint).await;
    let request = "GET /users/jane%40b.example/x HTTP/1.1\r\nhost: a.example\r\nuser-agent: jane@b.example 1.0\r\n\r\n";
    assert_eq!(server.request(request).await.status, 200);
    assert!(endpoint.log.requests()[0].contains("/users/jane%40b.example/x"), "only logs are masked");
    server.proxy.drain(crate::harness::TEST_TIMEOUT).await;
    server.log.finish();
    let [record] = &access_log_records(&path)[..] else { panic!("one request was sent") };
    assert_eq!(record["path"], "/users/***/x");
    assert_eq!(record["user_agent"], "*** 1.0");
    assert_eq!(record["client"], "***");
    assert_eq!(record["host"], "a.example");
}
