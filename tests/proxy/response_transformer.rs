//! The plugin `response-transformer` on the wire: content codings, framing, and responses without a body.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use portico::plugin_api::AnyPluginKind;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use crate::accounting::scrape;
use crate::h2::{Http2Client, get_request};
use crate::harness::{Endpoint, Route, TestResponse, TestServer, forward, route, upstream};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";

async fn server_with(plugins: &[(&str, Value)], endpoints: &[&Endpoint]) -> TestServer {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let action = forward(vec![(1, upstream("web", &addresses))]);
    TestServer::with_routes(vec![Route { plugins: Some(chain(&plugins)), ..route(action) }]).await
}

/// A proxy with the plugin in front of an endpoint that sends this response.
async fn server(config: Value, response: impl Into<Vec<u8>>) -> TestServer {
    let endpoint = Endpoint::responding_with(response).await;
    server_with(&[("response-transformer", config)], &[&endpoint]).await
}

/// A response with this JSON body, these header lines, and its length.
fn json_response(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn adding() -> Value {
    json!({"add": {"json": ["new:1"]}})
}

fn unfiltered(server: &TestServer, reason: &str) -> Option<f64> {
    let series =
        format!("portico_plugin_unfiltered_bodies_total{{plugin=\"response-transformer\",reason=\"{reason}\"}}");
    scrape(server).get(&series).copied()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn every_field_on_both_http_versions() {
    let config = json!({
        "remove": {"json": ["a"], "headers": ["X-A"]},
        "rename": {"json": ["b:c"], "headers": ["X-B:X-C"]},
        "replace": {"json": ["d:1"], "json_types": ["number"], "headers": ["X-D:new"]},
        "add": {"json": ["e:true"], "json_types": ["boolean"], "headers": ["X-E:new"]},
        "append": {"json": ["f:new"], "json_types": ["string"], "headers": ["X-F:new"]},
    });
    let headers = "x-a: 1\r\nx-b: 2\r\nx-d: 3\r\nx-f: 4\r\n";
    let server = server(config, json_response(headers, r#"{"a":1,"b":[],"d":2,"f":[3]}"#)).await;
    let expected = r#"{"c":[],"d":1,"f":[3,"new"],"e":true}"#;
    let response = server.request(GET).await;
    let values = ["x-a", "x-b", "x-c", "x-d", "x-e", "x-f"].map(|name| response.header(name));
    assert_eq!(values, [None, None, Some("2"), Some("new"), Some("new"), Some("4")]);
    assert!(response.head.to_lowercase().contains("x-f: new\r\n"), "{}", response.head);
    assert_eq!((response.text().as_str(), response.header("content-length")), (expected, Some("37")));
    assert_eq!(response.header("transfer-encoding"), None);
    let response = Http2Client::connect(server.address).await.get("/").await;
    assert_eq!(response.body, expected.as_bytes());
    assert_eq!(response.headers["content-length"], "37");
    assert_eq!(response.headers.get_all("x-f").iter().collect::<Vec<_>>(), ["4", "new"]);
    assert!(!response.headers.contains_key("x-a"));
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn compressed_bodies_are_sent_uncompressed_if_they_change() {
    let body = br#"{"a":[]}"#;
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(body).unwrap();
    let described =
        "etag: \"1\"\r\ndigest: sha-256=x\r\ncontent-md5: x\r\naccept-ranges: bytes\r\nvary: accept-encoding\r\n";
    for (coding, compressed) in [("gzip", gzip(body)), ("deflate", zlib.finish().unwrap())] {
        let headers = format!("content-encoding: {coding}\r\n{described}");
        let changing = server(adding(), json_response(&headers, &compressed)).await;
        let response = changing.request(GET).await;
        assert_eq!(response.text(), r#"{"a":[],"new":"1"}"#);
        let found = ["content-encoding", "digest", "content-md5", "accept-ranges", "content-length", "etag", "vary"]
            .map(|name| response.header(name));
        assert_eq!(found, [None, None, None, None, Some("18"), Some("W/\"1\""), Some("accept-encoding")]);
        // A body that does not change is sent as the endpoint compressed it.
        let unchanging = server(json!({"remove": {"json": ["x"]}}), json_response(&headers, &compressed)).await;
        let response = unchanging.request(GET).await;
        assert_eq!((&response.body, response.header("content-encoding")), (&compressed, Some(coding)));
        assert_eq!((response.header("etag"), response.header("digest")), (Some("\"1\""), Some("sha-256=x")));
    }
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn bodies_that_cannot_be_decoded_pass_unchanged_and_are_counted() {
    let compressed = gzip(br#"{"a":1}"#);
    let truncated = &compressed[..compressed.len() - 4];
    for (coding, body, reason) in [
        ("compress", &compressed[..], "unknown_encoding"),
        ("gzip, br", &compressed, "unknown_encoding"),
        ("gzip", truncated, "invalid_encoding"),
        ("gzip", b"{}", "invalid_encoding"),
    ] {
        let server = server(adding(), json_response(&format!("content-encoding: {coding}\r\n"), body)).await;
        let response = server.request(GET).await;
        assert_eq!((&response.body[..], response.header("content-encoding")), (body, Some(coding)));
        assert_eq!(unfiltered(&server, reason), Some(1.0), "{coding} {reason}");
    }
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn bodies_beyond_the_limit_and_decompression_bombs_pass_unchanged() {
    const LIMIT: usize = 1 << 20;
    let text = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8)).into_bytes();
    let chunked = |body: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunks =
            body.chunks(50_000).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        [head.as_bytes(), &chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n"].concat()
    };
    let bomb = gzip(&text(20 * LIMIT));
    assert!(bomb.len() < LIMIT / 10);
    for (response, body) in [
        (json_response("", text(LIMIT + 1)), text(LIMIT + 1)),
        (chunked(&text(LIMIT + 1)), text(LIMIT + 1)),
        (json_response("content-encoding: gzip\r\n", &bomb), bomb.clone()),
    ] {
        let server = server(adding(), response).await;
        let response = server.request(GET).await;
        assert!(response.body == body, "{} bytes instead of {}", response.body.len(), body.len());
        let response = Http2Client::connect(server.address).await.get("/").await;
        assert!(response.body == body, "{} bytes instead of {}", response.body.len(), body.len());
        assert_eq!(unfiltered(&server, "too_large"), Some(2.0));
    }
    let server = server(adding(), chunked(&text(LIMIT))).await;
    assert_eq!(server.request(GET).await.body.len(), LIMIT + ",\"new\":\"1\"".len());
    assert_eq!(unfiltered(&server, "too_large"), None);
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn trailers_of_a_changed_body_are_kept() {
    let response = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntrailer: x-sum, digest\r\n\
                    transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nx-sum: 7\r\ndigest: x\r\n\r\n";
    let server = server(adding(), response).await;
    let mut request = get_request("/");
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let http2 = Http2Client::connect(server.address).await.request(request).await.unwrap();
    let trailers = http2.trailers.unwrap();
    assert_eq!((&http2.body[..], trailers.len()), (&br#"{"new":"1"}"#[..], 1));
    assert_eq!(trailers["x-sum"], "7");
    let http1 = server.request(&GET.replace("connection: close", "te: trailers")).await;
    assert_eq!(http1.text(), "{\"new\":\"1\"}x-sum: 7\r\n");
    assert_eq!(server.request(GET).await.text(), r#"{"new":"1"}"#);
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn responses_without_a_whole_body_keep_it() {
    let config = json!({"add": {"json": ["new:1"], "headers": ["X-New:1"]}});
    let json = "content-type: application/json\r\n";
    for (status, headers, body) in [
        ("204 No Content", String::new(), ""),
        ("304 Not Modified", "etag: \"1\"\r\n".to_owned(), ""),
        ("206 Partial Content", "content-range: bytes 0-1/9\r\ncontent-length: 2\r\n".to_owned(), "{}"),
        ("200 OK", "content-range: bytes 0-1/9\r\ncontent-length: 2\r\n".to_owned(), "{}"),
    ] {
        let endpoint_response = format!("HTTP/1.1 {status}\r\n{json}{headers}\r\n{body}");
        let response = server(config.clone(), endpoint_response).await.request(GET).await;
        assert_eq!((response.text().as_str(), response.header("x-new")), (body, Some("1")), "{status}");
        for header in headers.lines() {
            assert!(response.head.to_lowercase().contains(header), "{}", response.head);
        }
    }
    // The headers of a response to HEAD are those of the response to GET, as far as they are known.
    let head_of = async |status: &str, headers: &str| {
        let response = format!("HTTP/1.1 {status}\r\n{json}etag: \"1\"\r\n{headers}\r\n");
        let server = server(config.clone(), response).await;
        let response = server.request(&GET.replace("GET", "HEAD")).await;
        ["content-length", "etag", "x-new"].map(|name| response.header(name).map(str::to_owned))
    };
    let own = |values: [Option<&str>; 3]| values.map(|value| value.map(str::to_owned));
    let weak = Some("W/\"1\"");
    assert_eq!(head_of("200 OK", "content-length: 9\r\n").await, own([None, weak, Some("1")]));
    assert_eq!(
        head_of("200 OK", "content-length: 9\r\ncontent-encoding: gzip\r\n").await,
        own([None, weak, Some("1")])
    );
    for (status, headers, length) in [
        ("200 OK", "content-length: 9\r\ncontent-encoding: compress\r\n", Some("9")),
        ("200 OK", "content-length: 1048577\r\n", Some("1048577")),
        ("304 Not Modified", "", None),
    ] {
        assert_eq!(head_of(status, headers).await, own([length, Some("\"1\""), Some("1")]), "{status} {headers}");
    }
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn http10_clients_get_the_new_length() {
    let server = server(adding(), json_response("", "{}")).await;
    let response = server.request("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await;
    assert_eq!((response.text().as_str(), response.header("content-length")), (r#"{"new":"1"}"#, Some("11")));
}

// docs/kong-compatibility.md, 4.31
#[tokio::test]
async fn replies_of_plugins_and_errors_are_transformed() {
    let transformer = || ("response-transformer", json!({"add": {"json": ["new:1"], "headers": ["X-New:1"]}}));
    let check = |response: TestResponse, status: u16| {
        assert_eq!((response.status, response.header("x-new")), (status, Some("1")));
        assert!(response.text().ends_with(r#","new":"1"}"#), "{}", response.text());
        assert_eq!(response.header("content-length"), Some(response.body.len().to_string().as_str()));
    };
    let endpoint = Endpoint::ok().await;
    let terminating = [transformer(), ("request-termination", json!({"status_code": 418, "message": "short"}))];
    check(server_with(&terminating, &[&endpoint]).await.request(GET).await, 418);
    let authenticating = [transformer(), ("key-auth", json!({}))];
    check(server_with(&authenticating, &[&endpoint]).await.request(GET).await, 401);
    let no_endpoint = server_with(&[transformer()], &[]).await;
    check(no_endpoint.request(GET).await, 503);
    let response = no_endpoint.request(&GET.replace("GET", "HEAD")).await;
    assert_eq!((response.status, response.header("content-length")), (503, None));
    assert_eq!(endpoint.log.connections(), 0);
}

#[tokio::test]
async fn connection_to_the_endpoint_is_used_again() {
    let endpoint = Endpoint::responding_with(json_response("", "{}")).await;
    let server = server_with(&[("response-transformer", adding())], &[&endpoint]).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), r#"{"new":"1"}"#);
    }
    assert_eq!(endpoint.log.connections(), 1);
}
