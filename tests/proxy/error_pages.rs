//! The plugin `error-pages` on the wire: errors of backends, of plugins and of the proxy, with and without a route.

use portico::plugin_api::AnyPluginKind;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::accounting::scrape;
use crate::h2::Http2Client;
use crate::harness::{Endpoint, Route, TestServer, forward, route, snapshot, upstream};

/// All errors from everywhere, as HTML or as JSON.
fn pages() -> Value {
    let template = "<p>{{status}} {{title}} {{reason}} {{host}}{{path}} {{request_id}}</p>";
    let json = "{\"status\": {{status}}, \"path\": \"{{path}}\"}";
    json!({"pages": [{
        "statuses": ["4xx", "5xx"], "from": "both",
        "bodies": [
            {"content_type": "text/html; charset=utf-8", "template": template},
            {"content_type": "application/problem+json", "template": json},
        ],
    }]})
}

fn plugins(list: &[(&str, Value)]) -> Vec<(&'static dyn AnyPluginKind, Value)> {
    list.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect()
}

async fn server(list: &[(&str, Value)], endpoint: &Endpoint) -> TestServer {
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    TestServer::with_routes(vec![Route { plugins: Some(chain(&plugins(list))), path: "/shop", ..route(action) }]).await
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn errors_of_backends_are_replaced_and_their_connection_is_used_again() {
    let endpoint = Endpoint::responding_with(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\nserver-timing: a\r\netag: \"1\"\r\n\
         content-type: text/plain\r\ncontent-length: 6\r\n\r\nsecret",
    )
    .await;
    let server = server(&[("error-pages", pages())], &endpoint).await;
    for _ in 0..2 {
        let response = server.request(&request("GET", "/shop/%3Cb%3E?key=secret", "")).await;
        assert_eq!((response.status, response.header("retry-after")), (503, Some("7")));
        let text = response.text();
        assert!(text.starts_with("<p>503 Service Unavailable  a.example/shop/%3Cb%3E "), "{text}");
        assert!(!text.contains("secret"), "{text}");
        let found =
            ["content-type", "etag", "cache-control", "vary", "content-length"].map(|name| response.header(name));
        let length = text.len().to_string();
        let expected = [Some("text/html; charset=utf-8"), None, Some("no-store"), Some("Accept"), Some(&*length)];
        assert_eq!(found, expected);
        assert_eq!(response.head.to_lowercase().matches("x-request-id").count(), 1, "{}", response.head);
    }
    let response = server.request(&request("GET", "/shop", "accept: application/json\r\n")).await;
    assert_eq!(response.text(), r#"{"status": 503, "path": "/shop"}"#);
    let client = Http2Client::connect(server.address).await;
    let response = client.get("/shop").await;
    assert_eq!(response.headers["content-type"], "text/html; charset=utf-8");
}

#[tokio::test]
async fn head_gets_the_length_of_the_page() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n").await;
    let server = server(&[("error-pages", pages())], &endpoint).await;
    let response = server.request(&request("HEAD", "/shop", "accept: application/json\r\n")).await;
    assert_eq!((response.status, response.header("content-length")), (404, Some("32")));
    assert!(response.body.is_empty());
}

#[tokio::test]
async fn replies_of_plugins_keep_their_reason_and_challenge() {
    let endpoint = Endpoint::ok().await;
    let server = server(&[("error-pages", pages()), ("key-auth", json!({}))], &endpoint).await;
    let response = server.request(&request("GET", "/shop", "")).await;
    assert_eq!(response.status, 401);
    assert!(response.header("www-authenticate").is_some_and(|value| value.contains("Key")), "{}", response.head);
    let text = response.text();
    assert!(text.starts_with("<p>401 Unauthorized no_credentials a.example/shop "), "{text}");
    let counted = scrape(&server);
    let errors: Vec<_> = counted.iter().filter(|(name, _)| name.starts_with("portico_request_errors_total")).collect();
    assert!(errors.iter().any(|(name, value)| name.contains("no_credentials") && **value == 1.0), "{errors:?}");
}

#[tokio::test]
async fn successful_responses_pass() {
    let endpoint = Endpoint::ok().await;
    let server = server(&[("error-pages", pages())], &endpoint).await;
    assert_eq!(server.request(&request("GET", "/shop", "")).await.status, 200);
}

/// The snapshot has the global plugins that run without a route.
#[tokio::test]
async fn requests_without_a_route_get_a_page_of_a_global_plugin() {
    let endpoint = Endpoint::ok().await;
    let server = server(&[("error-pages", pages())], &endpoint).await;
    let plain = server.request(&request("GET", "/other", "")).await;
    assert_eq!((plain.status, plain.header("content-type")), (404, Some("application/json; charset=utf-8")));
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let routes = vec![Route { path: "/shop", ..route(action) }];
    let unmatched_plugins = Some(chain(&plugins(&[("error-pages", pages())])));
    server.snapshot.store(Snapshot { unmatched_plugins, ..snapshot(server.address, routes) }.into());
    let response = server.request(&request("GET", "/other/%22x%22", "")).await;
    assert_eq!(response.status, 404);
    let text = response.text();
    assert!(text.starts_with("<p>404 Not Found no_route a.example/other/%22x%22 "), "{text}");
    // A request that a route matches does not run the plugins of those without.
    assert_eq!(server.request(&request("GET", "/shop", "")).await.text(), "ok");
}

#[tokio::test]
async fn calls_of_grpc_keep_their_status() {
    let endpoint = Endpoint::ok().await;
    let server = server(&[("error-pages", pages()), ("key-auth", json!({}))], &endpoint).await;
    let client = Http2Client::connect(server.address).await;
    let call =
        http::Request::post("http://a.example/shop").header("content-type", "application/grpc").body(()).unwrap();
    let response = client.request(call).await.unwrap();
    assert_eq!((response.status, response.headers["grpc-status"].to_str().unwrap()), (200, "16"));
}

/// Both plugins together: the page is compressed.
#[tokio::test]
async fn pages_are_compressed() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let server = server(&[("error-pages", pages()), ("compression", json!({"min_length": 1}))], &endpoint).await;
    let response = server.request(&request("GET", "/shop", "accept-encoding: gzip\r\n")).await;
    assert_eq!((response.status, response.header("content-encoding")), (404, Some("gzip")));
}
