//! The plugin `compression` on the wire: framing, pauses of backends, other filters, and hostile bodies.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use portico::plugin_api::AnyPluginKind;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::h2::Http2Client;
use crate::harness::{Endpoint, Route, TestServer, forward, route, upstream, with_timeout};

const BODY: &str = r#"{"a":[1,2,3],"text":"one two three one two three"}"#;

async fn server(plugins: &[(&str, Value)], endpoint: &Endpoint) -> TestServer {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    TestServer::with_routes(vec![Route { plugins: Some(chain(&plugins)), ..route(action) }]).await
}

/// The plugin without a minimum length, in front of an endpoint that sends this response.
async fn compressing(response: impl Into<Vec<u8>>) -> TestServer {
    let endpoint = Endpoint::responding_with(response).await;
    server(&[("compression", json!({"min_length": 1}))], &endpoint).await
}

fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n{headers}\r\n")
}

fn json_response(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn decode(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    match coding {
        "gzip" => GzDecoder::new(body).read_to_end(&mut decoded).unwrap(),
        "br" => brotli::Decompressor::new(body, 4096).read_to_end(&mut decoded).unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut decoded).unwrap(),
        other => panic!("{other}"),
    };
    decoded
}

#[tokio::test]
async fn responses_are_compressed_on_both_http_versions() {
    let described = "etag: \"1\"\r\naccept-ranges: bytes\r\ncontent-md5: x\r\ndigest: x\r\n";
    let server = compressing(json_response(described, BODY)).await;
    for coding in ["gzip", "br", "zstd"] {
        let response = server.request(&get(&format!("accept-encoding: {coding}\r\n"))).await;
        let names = ["content-encoding", "content-length", "etag", "accept-ranges", "content-md5", "digest", "vary"];
        let found = names.map(|name| response.header(name));
        assert_eq!(found, [Some(coding), None, Some("W/\"1\""), None, None, None, Some("Accept-Encoding")]);
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(decode(coding, &response.body), BODY.as_bytes(), "{coding}");
    }
    let plain = server.request(&get("")).await;
    assert_eq!((plain.text().as_str(), plain.header("vary")), (BODY, Some("Accept-Encoding")));
    assert_eq!((plain.header("etag"), plain.header("content-encoding")), (Some("\"1\""), None));
    let client = Http2Client::connect(server.address).await;
    let request = http::Request::get("http://a.example/").header("accept-encoding", "gzip").body(()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.headers["content-encoding"], "gzip");
    assert_eq!(decode("gzip", &response.body), BODY.as_bytes());
}

#[tokio::test]
async fn nonsense_in_accept_encoding_compresses_nothing() {
    let server = compressing(json_response("", BODY)).await;
    for value in ["", ";;;,,,", "gzip;q=2", "gzip;q=0", "\"gzip\"", "gzi p", "deflate", &"a,".repeat(500), "\u{fc}"] {
        let response = server.request(&get(&format!("accept-encoding: {value}\r\n"))).await;
        assert_eq!((response.status, response.text().as_str()), (200, BODY), "{value}");
        assert_eq!(response.header("content-encoding"), None, "{value}");
    }
}

#[tokio::test]
async fn head_has_the_fields_of_get() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"1\"\r\ncontent-length: 5000\r\n\r\n";
    let server = compressing(head).await;
    let request = "HEAD / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\naccept-encoding: gzip\r\n\r\n";
    let response = server.request(request).await;
    let found = ["content-encoding", "content-length", "etag", "vary"].map(|name| response.header(name));
    assert_eq!(found, [Some("gzip"), None, Some("W/\"1\""), Some("Accept-Encoding")]);
    assert!(response.body.is_empty());
}

#[tokio::test]
async fn responses_without_a_whole_body_stay_as_they_are() {
    for (head, body) in [
        ("204 No Content\r\ncontent-type: text/html", ""),
        ("304 Not Modified\r\netag: \"1\"", ""),
        ("206 Partial Content\r\ncontent-type: text/html\r\ncontent-range: bytes 0-1/9\r\ncontent-length: 2", "ab"),
    ] {
        let server = compressing(format!("HTTP/1.1 {head}\r\n\r\n{body}")).await;
        let response = server.request(&get("accept-encoding: gzip\r\n")).await;
        assert_eq!((response.text().as_str(), response.header("content-encoding")), (body, None), "{head}");
        assert_eq!(response.header("vary"), Some("Accept-Encoding"), "{head}");
    }
}

/// A client gets an event although the backend pauses after it.
#[tokio::test]
async fn events_are_not_held_back() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let server = server(&[("compression", json!({}))], &endpoint).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(get("accept-encoding: gzip\r\n").as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let event = with_timeout("the first event", async {
        loop {
            assert_ne!(socket.read_buf(&mut received).await.unwrap(), 0, "the response ends");
            let Some(head) = received.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            let mut event = Vec::new();
            let chunks = dechunk(&received[head + 4..]);
            // The body has not ended, which the decoder reports after the event.
            if GzDecoder::new(&chunks[..]).read_to_end(&mut event).is_err() && !event.is_empty() {
                return event;
            }
        }
    });
    assert_eq!(event.await, b"data: 1\n\n");
}

/// The data of the complete chunks.
fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = body.get(end + 2..end + 2 + length) else { break };
        data.extend_from_slice(chunk);
        body = body.get(end + 4 + length..).unwrap_or_default();
    }
    data
}

#[tokio::test]
async fn large_bodies_are_compressed_in_parts() {
    let body = "0123456789abcdef".repeat(100_000);
    let server = compressing(json_response("", &body)).await;
    for coding in ["gzip", "br", "zstd"] {
        let response = server.request(&get(&format!("accept-encoding: {coding}\r\n"))).await;
        assert!(response.body.len() < body.len() / 50, "{coding}: {}", response.body.len());
        assert!(decode(coding, &response.body) == body.as_bytes(), "{coding}");
    }
}

/// Filters of other plugins read the text, whatever the order of the plugins, and the backend's coding.
#[tokio::test]
async fn other_filters_see_plain_text() {
    let transforming = ("response-transformer", json!({"add": {"json": ["new:1"]}}));
    let expected = r#"{"a":1,"new":"1"}"#;
    for sent in [json_response("", r#"{"a":1}"#), json_response("content-encoding: gzip\r\n", gzip(br#"{"a":1}"#))] {
        let endpoint = Endpoint::responding_with(sent).await;
        let plugins = [("compression", json!({"min_length": 1})), transforming.clone()];
        let server = server(&plugins, &endpoint).await;
        let response = server.request(&get("accept-encoding: br\r\n")).await;
        assert_eq!(response.header("content-encoding"), Some("br"));
        assert_eq!(decode("br", &response.body), expected.as_bytes());
    }
}

/// What a backend has encoded wrongly passes as it is, and is not encoded again.
#[tokio::test]
async fn truncated_bodies_of_backends_are_not_encoded_again() {
    let whole = gzip(br#"{"a":1}"#);
    let truncated = &whole[..whole.len() - 4];
    let endpoint = Endpoint::responding_with(json_response("content-encoding: gzip\r\n", truncated)).await;
    let transforming = ("response-transformer", json!({"add": {"json": ["new:1"]}}));
    let server = server(&[("compression", json!({"min_length": 1})), transforming], &endpoint).await;
    let response = server.request(&get("accept-encoding: br\r\n")).await;
    assert_eq!((&response.body[..], response.header("content-encoding")), (truncated, Some("gzip")));
}

/// A backend that breaks off must not look like a complete response.
#[tokio::test]
async fn incomplete_bodies_stay_incomplete() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5000\r\n\r\nhalf").await;
    })
    .await;
    let server = server(&[("compression", json!({}))], &endpoint).await;
    let mut client = server.connect().await;
    client.send(get("accept-encoding: gzip\r\n")).await;
    let received = client.read_to_end().await.unwrap_or_default();
    assert!(!received.ends_with(b"0\r\n\r\n"), "the response looks complete");
}

#[tokio::test]
async fn uploads_are_decompressed_for_the_backend() {
    let endpoint = Endpoint::ok().await;
    let config = json!({"request": {"decompress": true, "max_bytes": 100_000}});
    let server = server(&[("compression", config)], &endpoint).await;
    let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18);
    brotli.write_all(BODY.as_bytes()).unwrap();
    let zeros = vec![0; 10_000_000];
    for (coding, body, expected) in [
        ("gzip", gzip(BODY.as_bytes()), 200),
        ("br", brotli.into_inner(), 200),
        ("zstd", zstd::encode_all(BODY.as_bytes(), 3).unwrap(), 200),
        ("gzip", gzip(&zeros), 413),
        ("zstd", zstd::encode_all(&zeros[..], 3).unwrap(), 413),
        ("gzip", gzip(BODY.as_bytes())[..30].to_vec(), 400),
        ("gzip, br", gzip(BODY.as_bytes()), 415),
        ("identity", BODY.as_bytes().to_vec(), 200),
    ] {
        let before = endpoint.log.requests().len();
        let mut client = server.connect().await;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\ncontent-encoding: {coding}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        client.send([head.as_bytes(), &body].concat()).await;
        let response = client.response().await;
        assert_eq!(response.status, expected, "{coding}: {}", response.text());
        let requests = endpoint.log.requests();
        assert_eq!(requests.len() - before, usize::from(expected == 200), "{coding}");
        if expected == 200 {
            let request = requests.last().unwrap().to_lowercase();
            assert!(request.contains(&format!("content-length: {}\r\n", BODY.len())), "{coding}: {request}");
            assert_eq!(request.contains("content-encoding"), coding == "identity", "{coding}: {request}");
        }
    }
}
