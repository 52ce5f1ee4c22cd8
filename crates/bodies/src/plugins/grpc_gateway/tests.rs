//! Requests that become calls, and responses that become JSON.

use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, notes};
use crate::plugin_formats::grpc::frame;

const KIND: RegisteredKind<GrpcGateway> = RegisteredKind::NEW;

const PROTO: &str = r#"
    syntax = "proto3"; package shop;
    import "google/api/annotations.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
    service Orders {
      rpc Get(Query) returns (Order) {
        option (google.api.http) = { get: "/v1/orders/{id}" additional_bindings { get: "/v1/{name=shops/*/orders/*}" } };
      }
      rpc Put(Change) returns (Order) { option (google.api.http) = { put: "/v1/orders/{order.id}" body: "order" }; }
      rpc Add(Order) returns (Order) {
        option (google.api.http) = { post: "/v1/orders:add" body: "*" response_body: "title" };
      }
      rpc Watch(Query) returns (stream Order) { option (google.api.http) = { get: "/v1/orders:watch" }; }
      rpc Find(Query) returns (Order) { option (google.api.http) = { custom { kind: "*" path: "/v1/find/{name=**}" } }; }
      rpc Load(stream Order) returns (Order) { option (google.api.http) = { post: "/v1/load" body: "*" }; }
      rpc Hidden(Order) returns (Order);
    }
    enum Color { UNKNOWN = 0; RED = 1; }
    message Query {
      int64 id = 1; string name = 2; repeated string tags = 3; Color color = 4; Filter filter = 5; bool all = 6;
    }
    message Filter { google.protobuf.Timestamp since = 1; google.protobuf.BoolValue paid = 2; Filter or = 3; map<string, string> labels = 4; }
    message Change { Order order = 1; string reason = 2; }
    message Order { int64 id = 1; string title = 2; }
"#;

async fn run(config: Value, request: TestRequest, response_fields: &[(&'static str, &str)]) -> TestOutcome {
    run_with(PROTO, config, request, response_fields).await
}

async fn run_with(
    proto: &str,
    config: Value,
    request: TestRequest,
    response_fields: &[(&'static str, &str)],
) -> TestOutcome {
    let mut request = request;
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
    for (name, value) in response_fields {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    request.upstream_response = response;
    let mut config = config;
    config["proto"] = json!(proto);
    request.run(&chain(&[(&KIND, config)])).await
}

fn request(method: &str, target: &str, body: &'static str) -> TestRequest {
    let mut request = TestRequest::post(target, "application/json", body);
    *request.request.method_mut() = method.parse().unwrap();
    request
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CallStatus::STATUS_FIELD, HeaderValue::from_static(code))])
}

/// The JSON of the message in the call.
fn message(outcome: &TestOutcome, name: &str) -> Value {
    let none = BTreeMap::new();
    let pool = Definitions { proto: Some(PROTO), imports: &none, descriptor_set: None }.load().unwrap().unwrap();
    let message = pool.get_message_by_name(name).unwrap();
    let body = outcome.state.body_changes.replacement.as_ref().unwrap();
    let writer = crate::plugin_formats::grpc::MessageWriter::new(message, false, 10_000);
    serde_json::from_slice(&writer.write(&body[5..]).unwrap()).unwrap()
}

// google/api/http.proto
#[tokio::test]
async fn requests_become_calls() {
    for (method, target, body, path, name, expected) in [
        ("GET", "/v1/orders/7", "", "/shop.Orders/Get", "shop.Query", json!({"id": "7"})),
        (
            "GET",
            "/v1/orders/7?tags=a&tags=b+c&color=RED&filter.since=2026-01-02T12:00:00Z&filter.paid=false&all=true&id=8",
            "",
            "/shop.Orders/Get",
            "shop.Query",
            json!({
                "id": "7", "tags": ["a", "b c"], "color": "RED", "all": true,
                "filter": {"since": "2026-01-02T12:00:00Z", "paid": false},
            }),
        ),
        (
            "GET",
            "/v1/shops/a%20b/orders/c%2Fd?color=1&unknown=1&name=x",
            "",
            "/shop.Orders/Get",
            "shop.Query",
            json!({"name": "shops/a b/orders/c%2Fd", "color": "RED"}),
        ),
        (
            "PUT",
            "/v1/orders/7?reason=none&order.title=ignored",
            r#"{"title": "new", "id": 9, "unknown": 1}"#,
            "/shop.Orders/Put",
            "shop.Change",
            json!({"order": {"id": "7", "title": "new"}, "reason": "none"}),
        ),
        ("PUT", "/v1/orders/7", "", "/shop.Orders/Put", "shop.Change", json!({"order": {"id": "7"}})),
        ("POST", "/v1/orders:add?id=3", r#"{"title": "a"}"#, "/shop.Orders/Add", "shop.Order", json!({"title": "a"})),
        ("POST", "/v1/orders:add", "", "/shop.Orders/Add", "shop.Order", json!({})),
        ("GET", "/v1/orders/7?all=1", "", "/shop.Orders/Get", "shop.Query", json!({"id": "7", "all": true})),
        ("DELETE", "/v1/find/a/b", "", "/shop.Orders/Find", "shop.Query", json!({"name": "a/b"})),
        ("GET", "/v1/find", "", "/shop.Orders/Find", "shop.Query", json!({})),
    ] {
        let outcome = run(json!({}), request(method, target, body), &[]).await;
        assert_eq!(outcome.reply_status(), None, "{target}: {:?}", outcome.message());
        assert_eq!((outcome.request.method.as_str(), outcome.request.uri.path()), ("POST", path), "{target}");
        assert_eq!(outcome.request.uri.query(), None);
        assert_eq!(outcome.upstream_header("content-type"), Some("application/grpc"));
        assert_eq!(outcome.upstream_header("te"), Some("trailers"));
        assert_eq!(message(&outcome, name), expected, "{target}");
    }
}

#[tokio::test]
async fn requests_that_cannot_become_calls_get_400() {
    let deep = format!("/v1/orders/7?{}since=x", "filter.".to_owned() + &"or.".repeat(40));
    let many = format!("/v1/orders/7?{}", "tags=a&".repeat(1001));
    for (method, target, body) in [
        ("GET", "/v2", ""),
        ("POST", "/v1/orders/7", ""),
        ("HEAD", "/v1/orders/7", ""),
        ("POST", "/shop.Orders/Hidden", ""),
        ("POST", "/v1/load", ""),
        ("GET", "/v1/orders/x", ""),
        ("GET", "/v1/orders/7?color=BLUE", ""),
        ("GET", "/v1/orders/7?all=yes", ""),
        ("GET", "/v1/orders/7?filter=x", ""),
        ("GET", "/v1/orders/7?filter.since=today", ""),
        ("GET", "/v1/orders/7?filter.labels=x", ""),
        ("GET", "/v1/orders/7?tags=%ff", ""),
        ("GET", "/v1/find/%ff", ""),
        ("GET", &many, ""),
        ("PUT", "/v1/orders/7", "[]"),
        ("PUT", "/v1/orders/7", r#"{}, "reason": "x""#),
        ("POST", "/v1/orders:add", r#"{"title": 1}"#),
        ("POST", "/v1/orders:add", "{"),
    ] {
        let outcome = run(json!({}), request(method, target, body), &[]).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::BAD_REQUEST), "{method} {target} {body}");
        let error: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
        assert_eq!((&error["code"], &error["details"]), (&json!(3), &json!([])), "{target}");
    }
    // Fields that are too deep do not exist, as others that do not.
    for (config, target, expected) in [
        (json!({}), &*deep, None),
        (json!({"reject_unknown_fields": true}), &deep, Some(StatusCode::BAD_REQUEST)),
        (json!({"reject_unknown_fields": true}), "/v1/orders/7?x=1", Some(StatusCode::BAD_REQUEST)),
    ] {
        assert_eq!(run(config, request("GET", target, ""), &[]).await.reply_status(), expected, "{target}");
    }
}

// docs/kong-compatibility.md, 4.11
#[tokio::test]
async fn responses_become_json() {
    let order = frame(0, &[8, 7, 18, 1, b'a']);
    for (method, target, body, trailers, expected) in [
        ("GET", "/v1/orders/7", order.clone(), status("0"), (200, r#"{"id":"7","title":"a"}"#)),
        ("POST", "/v1/orders:add", order.clone(), status("0"), (200, r#""a""#)),
        ("GET", "/v1/orders/7", Bytes::new(), status("5"), (404, r#"{"code":5,"message":"","details":[]}"#)),
        ("GET", "/v1/orders/7", order.clone(), status("16"), (401, r#"{"code":16,"message":"","details":[]}"#)),
    ] {
        let mut outcome = run(json!({}), request(method, target, ""), &[]).await;
        let body = outcome.filter_body_with(body, Some(&trailers));
        assert_eq!((outcome.response.status.as_u16(), &*body), (expected.0, expected.1.as_bytes()));
        assert_eq!(outcome.response_header("content-type"), Some("application/json"));
    }
    let head = [("grpc-status", "7"), ("grpc-message", "no%20access")];
    for target in ["/v1/orders/7", "/v1/orders:watch"] {
        let mut outcome = run(json!({}), request("GET", target, ""), &head).await;
        let body = outcome.filter_body("");
        assert_eq!(
            (outcome.response.status, &*body),
            (StatusCode::FORBIDDEN, &br#"{"code":7,"message":"no access","details":[]}"#[..])
        );
        assert_eq!(outcome.response_header("grpc-status"), Some("7"));
        assert_eq!(outcome.response_header("grpc-message"), None);
    }
    let mut outcome = run(json!({}), request("GET", "/v1/orders/7", ""), &[]).await;
    assert_eq!(outcome.filter_body_with(frame(0, &[8, 7]), Some(&status("0"))), r#"{"id":"7","title":""}"#);
}

/// As in Kong: with the names of the definitions, and numbers for flags.
#[tokio::test]
async fn names_are_those_of_the_definitions() {
    let proto = PROTO.replace("string title = 2;", "string title = 2; bool is_paid = 3;");
    let paid = frame(0, &[8, 7, 24, 1]);
    for (config, expected) in [
        (json!({"emit_defaults": false}), r#"{"id":"7","is_paid":true}"#),
        (json!({"emit_defaults": false, "json_names": true}), r#"{"id":"7","isPaid":true}"#),
    ] {
        let mut outcome = run_with(&proto, config, request("GET", "/v1/orders/7", ""), &[]).await;
        assert_eq!(outcome.filter_body_with(paid.clone(), Some(&status("0"))), expected);
    }
}

#[tokio::test]
async fn streams_are_lines_or_events() {
    let order = frame(0, &[8, 7]);
    let two = [order.clone(), order.clone()].concat();
    let error = r#"{"code":14,"message":"","details":[]}"#;
    for (accept, body, trailers, expected) in [
        ("*/*", &two[..], "0", "{\"id\":\"7\"}\n{\"id\":\"7\"}\n".to_owned()),
        ("*/*", &order, "14", format!("{{\"id\":\"7\"}}\n{{\"error\":{error}}}\n")),
        ("text/event-stream", &two, "0", "data: {\"id\":\"7\"}\n\ndata: {\"id\":\"7\"}\n\n".to_owned()),
        ("text/event-stream", &order, "14", format!("data: {{\"id\":\"7\"}}\n\nevent: error\ndata: {error}\n\n")),
        ("text/event-stream;q=0, */*", b"", "0", String::new()),
    ] {
        let watch = request("GET", "/v1/orders:watch", "").header("accept", accept);
        let mut outcome = run(json!({"emit_defaults": false}), watch, &[]).await;
        let is_events = accept == "text/event-stream";
        let content_type = if is_events { "text/event-stream" } else { "application/x-ndjson" };
        assert_eq!(outcome.response_header("content-type"), Some(content_type));
        assert_eq!(outcome.filter_body_with(body.to_vec(), Some(&status(trailers))), expected);
    }
    for broken in [&order[..6], &[0x80, 0, 0, 0, 0], &[0, 0xff, 0, 0, 0], &[0, 0, 0, 0, 1, 0xff]] {
        let mut outcome = run(json!({}), request("GET", "/v1/orders:watch", ""), &[]).await;
        let body = outcome.filter_body_with(broken.to_vec(), Some(&status("0")));
        assert!(body.starts_with(b"{\"error\":{\"code\":13,"), "{body:?}");
    }
}

#[tokio::test]
async fn preflight_requests_get_a_response() {
    let outcome = run(json!({}), request("OPTIONS", "/anything", ""), &[]).await;
    assert_eq!((outcome.reply_status(), outcome.message()), (Some(StatusCode::OK), Some("OK")));
    assert_eq!(outcome.response_header("access-control-allow-origin"), Some("*"));
    assert_eq!(outcome.response_header("access-control-allow-methods"), Some("GET,POST,PATCH,DELETE"));
}

#[test]
fn invalid_rules_are_refused() {
    assert!(notes(&KIND, &json!({"proto": PROTO}))[0].message.contains("shop.Orders.Load"));
    for (rule, text) in [
        ("get: 'v1'", "slash"),
        ("get: '/v1/{nothing}'", "variable nothing"),
        ("get: '/v1/{inner}'", "not a single value"),
        ("get: '/v1/{names}'", "not a single value"),
        ("post: '/v1' body: 'nothing'", "body nothing"),
        ("post: '/v1' response_body: 'nothing'", "response_body nothing"),
        ("custom { kind: 'A B' path: '/v1' }", "invalid method"),
        ("body: '*'", "no path"),
        ("get: '/v1' additional_bindings { get: '/v1' }", "path of a rule of /S/Get"),
    ] {
        let proto = format!(
            "syntax = 'proto3'; import 'google/api/annotations.proto'; \
             service S {{ rpc Get(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }} }} \
             message M {{ M inner = 1; repeated string names = 2; }}"
        );
        let problems = build(&KIND, &json!({"proto": proto})).map(drop).unwrap_err();
        assert_eq!(problems[0].field, "config.proto");
        assert!(problems[0].message.contains(text), "{rule}: {problems:?}");
    }
}
