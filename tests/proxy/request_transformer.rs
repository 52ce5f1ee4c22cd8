//! The plugin request-transformer on the wire: what the endpoint receives over HTTP/1.1 and HTTP/2.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use portico::compile::kong::rule_options;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::router::by_conditions::PathCondition;
use portico::snapshot::rule::{Action, Filters, Rewrite};
use portico::snapshot::rule_options::RuleOptions;
use portico::snapshot::upstream_path::UpstreamPath;
use portico::snapshot::uri_template::UriTemplate;
use serde_json::{Value, json};

use crate::accounting::scrape;
use crate::h2::{Http2Client, read_response, send_all};
use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, header, retries, route, upstream, with_timeouts_and_retries,
};
use crate::kong;

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

fn forward_to(endpoint: &Endpoint) -> Action {
    forward(vec![(1, upstream("web", &[endpoint.address]))])
}

fn transformer(config: Value) -> Arc<portico::plugin_chain::Chain> {
    chain(&[(REGISTRY.find("request-transformer").unwrap(), config)])
}

/// A proxy whose only route has the plugin.
async fn server(config: Value, endpoint: &Endpoint) -> TestServer {
    let options = Some(Box::new(rule_options::defaults()));
    let route = Route { plugins: Some(transformer(config)), options, ..route(forward_to(endpoint)) };
    TestServer::with_routes(vec![route]).await
}

/// Target and body of the last request that the endpoint received.
fn received(endpoint: &Endpoint) -> (String, String) {
    let request = endpoint.log.requests().pop().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn every_field() -> Value {
    json!({
        "http_method": "PUT",
        "remove": {"headers": ["x-remove"], "querystring": ["remove"], "body": ["remove"]},
        "rename": {"headers": ["x-old:x-new"], "querystring": ["old:new"], "body": ["old:new"]},
        "replace": {
            "headers": ["x-replace:1", "host:shop.internal"], "querystring": ["replace:1"], "body": ["replace:1"],
            "uri": "/v2$(headers.x_path)",
        },
        "add": {"headers": ["x-add:$(query_params.remove)"], "querystring": ["add:1"], "body": ["add:1"]},
        "append": {"headers": ["x-append:2"], "querystring": ["append:2"], "body": ["append:2"]},
    })
}

const QUERY: &str = "remove=secret&old=0&replace=0&append=1";
const EDITED: &str = "new=0&replace=1&append=1&add=1&append=2";

fn check_every_field(endpoint: &Endpoint) {
    let request = endpoint.log.requests().pop().unwrap();
    assert_eq!(received(endpoint), (format!("PUT /v2/p?{EDITED} HTTP/1.1"), EDITED.to_owned()));
    for (name, expected) in [
        ("x-remove", None),
        ("x-old", None),
        ("x-new", Some("0")),
        ("x-replace", Some("1")),
        ("host", Some("shop.internal")),
        ("x-add", Some("secret")),
        ("content-length", Some("39")),
        ("transfer-encoding", None),
    ] {
        assert_eq!(header(&request, name), expected, "{name} in {request}");
    }
    assert_eq!(request.matches("x-append: ").count(), 2, "{request}");
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn every_field_changes_http1_requests() {
    assert_eq!(EDITED.len(), 39);
    let endpoint = Endpoint::ok().await;
    let server = server(every_field(), &endpoint).await;
    let headers = format!("host: a\r\nx-remove: 0\r\nx-old: 0\r\nx-replace: 0\r\nx-append: 1\r\nx-path: /p\r\n{FORM}");
    let length = format!("content-length: {}\r\n\r\n{QUERY}", QUERY.len());
    let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{QUERY}\r\n0\r\n\r\n", QUERY.len());
    for body in [length, chunked] {
        let response = server.request(&format!("POST /?{QUERY} HTTP/1.1\r\n{headers}{body}")).await;
        assert_eq!(response.status, 200);
        check_every_field(&endpoint);
    }
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn every_field_changes_http2_requests() {
    let endpoint = Endpoint::ok().await;
    let server = server(every_field(), &endpoint).await;
    let client = Http2Client::connect(server.address).await;
    for body in [QUERY.as_bytes().to_vec(), gzip(QUERY.as_bytes())] {
        let request = Request::post(format!("http://a.example/?{QUERY}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("content-encoding", if body.len() == QUERY.len() { "identity" } else { "gzip" });
        let request = [("x-remove", "0"), ("x-old", "0"), ("x-replace", "0"), ("x-append", "1"), ("x-path", "/p")]
            .into_iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        let (response, mut stream) = client.start_with_body(request.body(()).unwrap()).await;
        send_all(&mut stream, &body).await.unwrap();
        assert_eq!(read_response(response).await.unwrap().status, 200);
        check_every_field(&endpoint);
        assert_eq!(header(&endpoint.log.requests().pop().unwrap(), "content-encoding"), None);
    }
}

#[tokio::test]
async fn bodies_that_are_not_edited_stream_unchanged() {
    let endpoint = Endpoint::ok().await;
    let server = server(json!({"remove": {"body": ["a"]}}), &endpoint).await;
    let large = "x".repeat((1 << 20) + 1);
    for (headers, body) in [
        ("content-type: text/plain\r\n", &*large),
        ("content-type: application/grpc\r\n", &*large),
        ("", "a=1"),
        ("content-type: application/json\r\n", "{ \"b\": 1 }"),
        ("content-type: application/json\r\n", "not json"),
        ("content-type: application/json\r\ncontent-encoding: br\r\n", &*large),
    ] {
        let length = body.len();
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n{body}");
        assert_eq!(server.request(&request).await.status, 200, "{headers}");
        assert!(received(&endpoint).1 == body, "{headers}");
    }
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_rejected() {
    let endpoint = Endpoint::ok().await;
    let server = server(json!({"remove": {"body": ["a"]}}), &endpoint).await;
    let large = "x".repeat((1 << 20) + 1);
    let compressed = gzip(large.as_bytes());
    let length = format!("POST / HTTP/1.1\r\nhost: a\r\n{FORM}content-length: {}\r\n\r\n{large}", large.len());
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: a\r\n{FORM}transfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    let mut bomb = format!(
        "POST / HTTP/1.1\r\nhost: a\r\n{FORM}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        compressed.len()
    )
    .into_bytes();
    bomb.extend(compressed);
    let mut broken =
        format!("POST / HTTP/1.1\r\nhost: a\r\n{FORM}content-encoding: gzip\r\ncontent-length: 3\r\n\r\n").into_bytes();
    broken.extend(b"a=1");
    for (request, expected) in [(length.into_bytes(), 413), (chunked.into_bytes(), 413), (bomb, 413), (broken, 400)] {
        let mut client = server.connect().await;
        client.send(request).await;
        assert_eq!(client.response().await.status, expected);
    }
    assert!(endpoint.log.requests().is_empty());
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn forms_move_to_the_query_of_methods_without_body() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let body = if request.starts_with("HEAD") { "" } else { "ok" };
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{body}")).await;
        }
    })
    .await;
    for method in ["GET", "HEAD"] {
        let server = server(json!({"http_method": method, "remove": {"body": ["b"]}}), &endpoint).await;
        let mut client = server.connect().await;
        // The connection stays usable although the response to HEAD announces a body.
        for _ in 0..2 {
            let request = format!("POST /p?q=1 HTTP/1.1\r\nhost: a\r\n{FORM}content-length: 7\r\n\r\na=1&b=2");
            client.send(request).await;
            let response = client.response().await;
            assert_eq!((response.status, &*response.text()), (200, if method == "GET" { "ok" } else { "" }));
            assert_eq!(received(&endpoint), (format!("{method} /p?q=1&a=1 HTTP/1.1"), String::new()));
            let request = endpoint.log.requests().pop().unwrap();
            for name in ["content-length", "content-type", "transfer-encoding"] {
                assert_eq!(header(&request, name), None, "{request}");
            }
        }
    }
}

#[tokio::test]
async fn the_changed_request_is_sent_again() {
    let endpoint = Endpoint::scripted(|mut stream, connection| async move {
        stream.request().await.unwrap();
        let status = if connection == 0 { 503 } else { 200 };
        stream.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")).await;
    })
    .await;
    let config = json!({"http_method": "PUT", "remove": {"body": ["a"]}, "add": {"querystring": ["c:3"]}});
    let action = with_timeouts_and_retries(forward_to(&endpoint), retries(1, &[503]));
    let route = Route { plugins: Some(transformer(config)), ..route(action) };
    let server = TestServer::with_routes(vec![route]).await;
    let request = format!("PUT / HTTP/1.1\r\nhost: a\r\n{FORM}content-length: 7\r\n\r\na=1&b=2");
    assert_eq!(server.request(&request).await.status, 200);
    assert_eq!(endpoint.log.requests().len(), 2);
    for request in endpoint.log.requests() {
        assert!(request.starts_with("PUT /?c=3 ") && request.ends_with("\r\n\r\nb=2"), "{request}");
    }
}

#[tokio::test]
async fn failures_are_500_and_counted() {
    let endpoint = Endpoint::ok().await;
    let config = json!({"add": {"headers": ["x-a:$(query_params.v)"]}, "replace": {"uri": "/$(query_params.p or '')"}});
    let server = server(config, &endpoint).await;
    // The segments of dots would lead out of a configured path.
    let with_dots = ["/?p=../../x", "/?p=a%2f..%2fb", "/?p=a/%252e%252E"];
    for target in ["/?v=%0d%0ax-evil:%201", "/?v=%00", "/?p=%0dGET%20/", "/?p=%0A"].into_iter().chain(with_dots) {
        let response = server.request(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(response.status, 500, "{target}");
        assert!(!response.text().contains("evil"));
    }
    assert!(endpoint.log.requests().is_empty());
    let errors: f64 =
        scrape(&server).iter().filter(|(name, _)| name.contains("transformation_failed")).map(|(_, count)| count).sum();
    assert_eq!(errors, 7.0);
    for (target, expected) in [
        ("/?p=a%20b%20HTTP/1.1%23", "/a%20b%20HTTP/1.1%23?p=a%20b%20HTTP/1.1%23"),
        ("/?p=http://evil.example/", "/http://evil.example/?p=http://evil.example/"),
        ("/?p=%3fq", "/%3Fq?p=%3fq"),
    ] {
        assert_eq!(server.request(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")).await.status, 200, "{target}");
        assert_eq!(received(&endpoint).0, format!("GET {expected} HTTP/1.1"));
    }
}

/// A proxy with an Ingress route whose path is a regular expression.
async fn ingress_server(config: Value, upstream_path: UpstreamPath, endpoint: &Endpoint) -> TestServer {
    let path = PathCondition::regex("/users/(?<id>[^/]+)/(.*)").unwrap();
    let options = RuleOptions { upstream_path: Some(upstream_path), ..rule_options::defaults() };
    let mut route = kong::ingress_route(path, options, forward_to(endpoint));
    Arc::get_mut(&mut route.rule).unwrap().plugins = Some(transformer(config));
    kong::server(Options::default(), vec![route]).await
}

// docs/kong-compatibility.md, 4.29
#[tokio::test]
async fn path_follows_rewrites_of_the_route() {
    let captured = || json!({"replace": {"uri": "/v2/$(uri_captures.id)/$(uri_captures[2])"}});
    let stripped = || UpstreamPath { strip_matched: true, prefix: "/base".into(), ..UpstreamPath::default() };
    let rewritten =
        || UpstreamPath { template: Some(UriTemplate::parse("/new/$2").unwrap()), ..UpstreamPath::default() };
    for (config, behavior, expected) in [
        (captured(), UpstreamPath::default(), "/v2/ann/x%20y?q=1"),
        (captured(), stripped(), "/v2/ann/x%20y?q=1"),
        (captured(), rewritten(), "/v2/ann/x%20y?q=1"),
        (json!({"add": {"querystring": ["a:1"]}}), stripped(), "/base?q=1&a=1"),
        (json!({"add": {"querystring": ["a:1"]}}), rewritten(), "/new/x%20y?q=1&a=1"),
    ] {
        let endpoint = Endpoint::ok().await;
        let server = ingress_server(config.clone(), behavior, &endpoint).await;
        let response = server.request("GET /users/ann/x%20y?q=1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(response.status, 200);
        assert_eq!(received(&endpoint).0, format!("GET {expected} HTTP/1.1"), "{config}");
    }
}

#[tokio::test]
async fn path_replaces_that_of_a_filter() {
    let endpoint = Endpoint::ok().await;
    for (config, expected) in [
        (json!({"replace": {"uri": "/a/b"}}), "/a/b?q=1"),
        (json!({"add": {"querystring": ["a:1"]}}), "/filter/c?q=1&a=1"),
    ] {
        let rewrite = Rewrite { path: Some(PathEdit::prefix("/a", "/filter")), ..Rewrite::default() };
        let filters = Filters { rewrite: Some(rewrite), ..Filters::default() };
        let route = Route { plugins: Some(transformer(config)), filters, path: "/a", ..route(forward_to(&endpoint)) };
        let server = TestServer::with_routes(vec![route]).await;
        assert_eq!(server.request("GET /a/c?q=1 HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 200);
        assert_eq!(received(&endpoint).0, format!("GET {expected} HTTP/1.1"));
    }
}

#[tokio::test]
async fn upgrades_are_not_buffered() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.record(&head);
        stream.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello").await;
        stream.read_to_end().await;
    })
    .await;
    let config = json!({"remove": {"body": ["a"]}, "add": {"headers": ["x-add:1"]}});
    let server = server(config, &endpoint).await;
    let mut client = server.connect().await;
    client
        .send(
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(header(&endpoint.log.requests().pop().unwrap(), "x-add"), Some("1"));
}
