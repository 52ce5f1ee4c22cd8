//! Tests of `compression`: which responses are compressed, and which requests are decompressed.

use http::HeaderName;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_api::content_coding::ContentCoding;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, notes};

const KIND: RegisteredKind<Compression> = RegisteredKind::NEW;

/// The outcome for a response with these fields, whose type is JSON unless they have another.
async fn run(config: Value, request: &[(&'static str, &str)], response: &[(&'static str, &str)]) -> TestOutcome {
    let mut sent = TestRequest::get("/");
    for (name, value) in request {
        sent = sent.header(name, value);
    }
    let headers = sent.upstream_response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in response {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    sent.run(&chain(&[(&KIND, config)])).await
}

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

#[tokio::test]
async fn bodies_are_compressed_for_clients_that_accept_it() {
    let body = "{\"a\":1}".repeat(1000);
    for (accepted, coding) in
        [("gzip", ContentCoding::Gzip), ("br, gzip", ContentCoding::Brotli), ("zstd, br", ContentCoding::Zstd)]
    {
        let mut outcome = run(json!({}), &[("accept-encoding", accepted)], &[]).await;
        let encoded = outcome.filter_body(body.clone());
        assert!(encoded.len() < 200, "{accepted}: {}", encoded.len());
        assert_eq!(ContentCoding::from_headers(&outcome.response.headers), coding, "{accepted}");
        assert_eq!(outcome.response_header("vary"), Some("Accept-Encoding"));
        assert_eq!(coding.decode(&encoded, 1 << 20).unwrap(), body, "{accepted}");
    }
}

#[tokio::test]
async fn what_is_compressed_depends_on_both_heads() {
    let with_credentials = json!({"with_credentials": true});
    for (config, request, response, is_compressed, varies) in [
        (json!({}), &[GZIP][..], &[][..], true, true),
        (json!({}), &[], &[], false, true),
        (json!({}), &[GZIP], &[("content-type", "image/png")], false, false),
        (json!({"types": ["image/*"]}), &[GZIP], &[("content-type", "image/png")], true, true),
        (json!({}), &[GZIP], &[("content-encoding", "br")], false, false),
        (json!({}), &[GZIP], &[("cache-control", "max-age=1, No-Transform")], false, false),
        (json!({}), &[GZIP], &[("content-range", "bytes 0-1/2")], false, true),
        (json!({}), &[GZIP], &[("set-cookie", "a=b")], false, true),
        (json!({}), &[GZIP, ("cookie", "a=b")], &[], false, true),
        (json!({}), &[GZIP, ("authorization", "Basic YTpi")], &[], false, true),
        (with_credentials.clone(), &[GZIP, ("authorization", "Basic YTpi")], &[], true, true),
        (with_credentials, &[GZIP, ("cookie", "a=b")], &[("set-cookie", "a=b")], true, true),
        (json!({"min_length": 2001}), &[GZIP], &[], false, false),
        (json!({"codings": [], "request": {"decompress": true}}), &[GZIP], &[], false, false),
        (json!({"codings": ["br"]}), &[GZIP], &[], false, true),
    ] {
        let mut outcome = run(config.clone(), request, response).await;
        let body = outcome.filter_body(vec![b'x'; 2000]);
        let what = format!("{config} {request:?} {response:?}");
        assert_eq!(body.len() < 2000, is_compressed, "{what}");
        assert_eq!(outcome.response_header("content-encoding") == Some("gzip"), is_compressed, "{what}");
        assert_eq!(outcome.response_header("vary").is_some(), varies, "{what}");
    }
}

#[tokio::test]
async fn vary_is_added_once() {
    for (existing, expected) in
        [("accept-encoding", "accept-encoding"), ("Origin, Accept-Encoding", "Origin, Accept-Encoding"), ("*", "*")]
    {
        let mut outcome = run(json!({}), &[GZIP], &[("vary", existing)]).await;
        outcome.filter_body(vec![b'x'; 2000]);
        let values: Vec<_> = outcome.response.headers.get_all(VARY).iter().collect();
        assert_eq!(values, [expected]);
    }
}

fn encoded_upload(coding: &str, body: impl Into<bytes::Bytes>) -> TestRequest {
    TestRequest::post("/", "application/json", body).header("content-encoding", coding).header("content-digest", "x")
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoded = EncodedBody::new(Coding::Gzip, 6, None).unwrap();
    [encoded.part(bytes::Bytes::copy_from_slice(body)), encoded.end()].concat()
}

#[tokio::test]
async fn uploads_are_decompressed() {
    let chain = chain(&[(&KIND, json!({"request": {"decompress": true}}))]);
    let outcome = encoded_upload("gzip", gzip(b"{\"a\":1}")).run(&chain).await;
    assert_eq!(outcome.reply_status(), None);
    assert_eq!(outcome.state.body_changes.replacement.as_deref(), Some(&b"{\"a\":1}"[..]));
    let headers = ["content-encoding", "content-digest", "content-length"].map(|name| outcome.upstream_header(name));
    assert_eq!(headers, [None, None, Some("7")]);
    for plain in [TestRequest::get("/"), TestRequest::post("/", "text/plain", "a"), encoded_upload("identity", "a")] {
        let outcome = plain.run(&chain).await;
        assert_eq!((outcome.reply_status(), outcome.state.body_changes.replacement), (None, None));
    }
    let call = TestRequest::post("/", "application/grpc", "a").header("content-encoding", "gzip");
    assert_eq!(call.run(&chain).await.reply_status(), None);
}

#[tokio::test]
async fn hostile_uploads_are_rejected() {
    let config = json!({"request": {"decompress": true, "max_bytes": 200_000, "max_ratio": 10}});
    let chain = chain(&[(&KIND, config)]);
    let whole = gzip(b"{\"a\":1}");
    for (coding, body, expected) in [
        ("gzip", whole[..whole.len() - 1].to_vec(), Some((400, "invalid_encoding"))),
        ("gzip", b"{}".to_vec(), Some((400, "invalid_encoding"))),
        ("br", b"{}{}{}".to_vec(), Some((400, "invalid_encoding"))),
        ("gzip, gzip", gzip(&whole), Some((415, "unsupported_encoding"))),
        ("compress", whole.clone(), Some((415, "unsupported_encoding"))),
        // Small bodies may have any ratio.
        ("gzip", gzip(&[0; 60_000]), None),
        ("gzip", gzip(&[0; 70_000]), Some((413, "decompressed_body_too_large"))),
        ("gzip", gzip(&[0; 50_000_000]), Some((413, "decompressed_body_too_large"))),
    ] {
        let length = body.len();
        let outcome = encoded_upload(coding, body).run(&chain).await;
        let found = outcome.reply.as_ref().map(|reply| (reply.status.as_u16(), reply.reason));
        assert_eq!(found, expected, "{coding}, {length} bytes");
    }
    let outcome = encoded_upload("compress", "a").run(&chain).await;
    assert_eq!(outcome.response_header("accept-encoding"), Some("gzip, deflate, br, zstd"));
}

#[test]
fn bodies_are_buffered_only_if_they_are_decoded() {
    let decompressing = build(&KIND, &json!({"request": {"decompress": true}})).unwrap();
    assert_eq!(decompressing.body_buffer_limit(), Some(1 << 20));
    for (name, value, expected) in
        [("content-encoding", "gzip", true), ("content-encoding", "identity", false), ("x-other", "gzip", false)]
    {
        let head = http::Request::post("/").header(name, value).body(()).unwrap().into_parts().0;
        assert_eq!(decompressing.buffers_body(&head), expected, "{name}: {value}");
    }
    let plain = build(&KIND, &json!({})).unwrap();
    assert_eq!((plain.body_buffer_limit(), plain.may_wait()), (None, false));
}

#[test]
fn invalid_configurations_are_refused_with_their_field() {
    for (config, field) in [
        (json!({"levels": {"gzip": 0}}), "config.levels.gzip"),
        (json!({"levels": {"gzip": 10}}), "config.levels.gzip"),
        (json!({"levels": {"br": 7}}), "config.levels.br"),
        (json!({"levels": {"zstd": 13}}), "config.levels.zstd"),
        (json!({"codings": ["gzip", "br", "gzip"]}), "config.codings[2]"),
        (json!({"codings": ["deflate"]}), "config.codings[0]"),
        (json!({"codings": []}), "config.codings"),
        (json!({"types": []}), "config.types"),
        (json!({"types": ["html"]}), "config.types[0]"),
        (json!({"request": {"max_bytes": 0}}), "config.request.max_bytes"),
        (json!({"request": {"max_bytes": 16_777_217}}), "config.request.max_bytes"),
        (json!({"request": {"max_ratio": 0}}), "config.request.max_ratio"),
    ] {
        let problems = build(&KIND, &config).map(drop).unwrap_err();
        assert_eq!(problems.iter().map(|problem| &*problem.field).collect::<Vec<_>>(), [field], "{config}");
    }
}

#[test]
fn limits_of_uploads_without_decompression_are_noted() {
    let request = |fields: Value| notes(&KIND, &json!({"request": fields}));
    assert_eq!(request(json!({"max_bytes": 5_000_000}))[0].field, "config.request.max_bytes");
    assert_eq!(request(json!({"max_ratio": 5}))[0].field, "config.request.max_ratio");
    assert!(request(json!({"max_bytes": 5_000_000, "decompress": true})).is_empty());
}
