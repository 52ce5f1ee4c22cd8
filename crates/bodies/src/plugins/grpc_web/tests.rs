//! Requests and responses of gRPC-Web, with each content type.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, chain};
use crate::plugin_formats::grpc::frame;

const PROTO: &str = r#"
    syntax = "proto3"; package shop;
    service Orders { rpc Get(Order) returns (Order); rpc Watch(Order) returns (stream Order); }
    message Order { int64 id = 1; string title = 2; }
"#;

async fn call(config: Value, request: TestRequest, response_fields: &[(&'static str, &str)]) -> TestOutcome {
    let mut request = request;
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    for (name, value) in response_fields {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    request.upstream_response = response;
    request.run(&chain(&[(&RegisteredKind::<GrpcWeb>::NEW, config)])).await
}

fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

fn sent_body(outcome: &TestOutcome) -> Option<&Bytes> {
    outcome.state.body_changes.replacement.as_ref()
}

const OK: [(&str, &str); 2] = [("grpc-status", "0"), ("x-took", "3")];

// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
#[tokio::test]
async fn trailers_follow_the_messages_in_a_frame() {
    let message = frame(0, b"message");
    let expected = [message.clone(), frame(TRAILERS_FLAG, b"grpc-status:0\r\ngrpc-message:\r\nx-took:3\r\n")].concat();
    for content_type in ["application/grpc-web", "application/grpc-web+proto", "Application/GRPC-Web-Text"] {
        let is_text = content_type.ends_with("Text");
        let body = if is_text { BASE64_STANDARD.encode(&message).into() } else { message.clone() };
        let mut outcome = call(json!({}), TestRequest::post("/shop.Orders/Get", content_type, body), &[]).await;
        assert_eq!(outcome.reply_status(), None);
        assert_eq!(outcome.upstream_header("content-type"), Some("application/grpc"));
        assert_eq!(outcome.upstream_header("te"), Some("trailers"));
        assert_eq!(sent_body(&outcome), is_text.then_some(&message));
        assert_eq!(outcome.response_header("content-type"), Some(&*content_type.to_ascii_lowercase()));
        assert_eq!(outcome.response_header("access-control-allow-origin"), Some("*"));
        let filtered = outcome.filter_body_with(message.clone(), Some(&trailers(&OK)));
        let filtered = if is_text { base64_body::decode(&filtered).unwrap() } else { filtered.to_vec() };
        assert_eq!(filtered, expected, "{content_type}");
    }
}

const TRAILERS_FLAG: u8 = 0x80;

#[tokio::test]
async fn a_head_with_the_status_becomes_a_frame() {
    let request = || TestRequest::post("/shop.Orders/Get", "application/grpc-web", "");
    let mut outcome = call(json!({}), request(), &[("grpc-status", "5"), ("grpc-message", "none")]).await;
    assert_eq!(outcome.response_header("grpc-status"), None);
    assert_eq!(outcome.filter_body(""), frame(TRAILERS_FLAG, b"grpc-status:5\r\ngrpc-message:none\r\n"));
    // The trailers of a server that has sent both precede, and those without a status end the call, too.
    let mut outcome = call(json!({}), request(), &[("grpc-status", "5")]).await;
    let filtered = outcome.filter_body_with("", Some(&trailers(&[("grpc-status", "0"), ("connection", "close")])));
    assert_eq!(filtered, frame(TRAILERS_FLAG, b"grpc-status:0\r\ngrpc-message:\r\n"));
    let mut outcome = call(json!({}), request(), &[]).await;
    assert!(String::from_utf8_lossy(&outcome.filter_body("")).contains("grpc-status:2\r\n"));
}

#[tokio::test]
async fn other_responses_pass_unchanged() {
    for fields in [[("content-type", "text/html")], [("content-type", "application/grpc-web")]] {
        let request = TestRequest::post("/shop.Orders/Get", "application/grpc-web", "");
        let mut outcome = call(json!({}), request, &fields).await;
        assert_eq!(outcome.response_header("content-type"), Some(fields[0].1));
        assert_eq!(outcome.filter_body("page"), "page");
    }
}

#[tokio::test]
async fn requests_that_are_not_of_the_protocol_get_400() {
    let json_config = || json!({"proto": PROTO});
    for (config, path, content_type, body) in [
        (json!({}), "/shop.Orders/Get", "application/grpc", ""),
        (json!({}), "/shop.Orders/Get", "text/plain", ""),
        (json!({}), "/shop.Orders/Get", "application/json", "{}"),
        (json!({}), "/shop.Orders/Get", "application/grpc-web-text", "A"),
        (json_config(), "/shop.Orders/Put", "application/json", "{}"),
        (json_config(), "/shop.Orders/Get", "application/json", "{"),
        (json_config(), "/shop.Orders/Get", "application/json", r#"{"id":"x"}"#),
        (json_config(), "/shop.Orders/Watch", "application/json", "{}"),
        (json_config(), "/shop.Orders/Get", "application/grpc-web+json", "{}"),
    ] {
        let outcome = call(config, TestRequest::post(path, content_type, body), &[]).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::BAD_REQUEST), "{path} {content_type} {body}");
        assert_eq!(outcome.response_header("access-control-allow-origin"), Some("*"));
    }
    let outcome = call(json!({}), TestRequest::get("/").header("content-type", "application/grpc-web"), &[]).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::BAD_REQUEST));
}

// docs/kong-compatibility.md, 4.12
#[tokio::test]
async fn preflight_requests_get_a_response() {
    let mut request = TestRequest::get("/shop.Orders/Get");
    *request.request.method_mut() = Method::OPTIONS;
    let outcome = call(json!({"allow_origin_header": "https://a.example"}), request, &[]).await;
    assert_eq!((outcome.reply_status(), outcome.message()), (Some(StatusCode::OK), Some("OK")));
    for (name, expected) in [
        ("access-control-allow-origin", "https://a.example"),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type,x-grpc-web,x-user-agent"),
    ] {
        assert_eq!(outcome.response_header(name), Some(expected));
    }
}

#[tokio::test]
async fn messages_in_json_are_translated() {
    let proto = frame(0, &[8, 7, 18, 1, b'a']);
    let json = br#"{"id":"7","title":"a"}"#;
    let ok = trailers(&[("grpc-status", "0")]);
    let request = TestRequest::post("/shop.Orders/Get", "application/json", &json[..]);
    let mut outcome = call(json!({"proto": PROTO}), request, &[]).await;
    assert_eq!(sent_body(&outcome), Some(&proto));
    assert_eq!(outcome.filter_body_with(proto.clone(), Some(&ok)), &json[..]);

    let web = |path| TestRequest::post(path, "application/grpc-web-text+json", BASE64_STANDARD.encode(frame(0, json)));
    let mut outcome = call(json!({"proto": PROTO}), web("/shop.Orders/Watch"), &[]).await;
    assert_eq!(sent_body(&outcome), Some(&proto));
    let two = [proto.clone(), proto.clone()].concat();
    let filtered = base64_body::decode(&outcome.filter_body_with(two, Some(&ok))).unwrap();
    let last = frame(TRAILERS_FLAG, b"grpc-status:0\r\ngrpc-message:\r\n");
    assert_eq!(filtered, [frame(0, json), frame(0, json), last].concat());
    // A message that cannot be translated ends the call with a status.
    for broken in [&proto[..6], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 0xff]] {
        let mut outcome = call(json!({"proto": PROTO}), web("/shop.Orders/Watch"), &[]).await;
        let filtered = outcome.filter_body_with(broken.to_vec(), Some(&ok));
        let filtered = base64_body::decode(&filtered).unwrap();
        assert!(String::from_utf8_lossy(&filtered).contains("grpc-status:13\r\n"), "{filtered:?}");
    }
}
