//! The plugins `grpc-web` and `grpc-gateway` on the wire, in front of a gRPC endpoint.

use std::sync::Arc;

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderMap, Request, Response};
use portico::plugin_chain::testing::chain;
use portico::plugin_formats::grpc::frame;
use portico::plugins::REGISTRY;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::accounting::scrape;
use crate::h2::{Http2Client, post_request, read_body, send_all};
use crate::h2_upstream::{EndpointCall, Http2Endpoint, http2_endpoint};
use crate::harness::{Route, TestServer, forward, h2c_upstream, route, with_timeout};

const PROTO: &str = r#"
    syntax = "proto3"; package shop; import "google/api/annotations.proto";
    service Orders {
      rpc Get(Order) returns (Order) { option (google.api.http) = { get: "/v1/orders/{id}" }; }
      rpc Watch(Order) returns (stream Order) { option (google.api.http) = { get: "/v1/orders:watch" }; }
    }
    message Order { int64 id = 1; string title = 2; }
"#;

async fn server(plugin: &str, config: Value, endpoint: &Http2Endpoint) -> TestServer {
    let plugins = Some(chain(&[(REGISTRY.find(plugin).unwrap(), config)]));
    let action = forward(vec![(1, h2c_upstream(endpoint.address))]);
    TestServer::with_routes(vec![Route { plugins, ..route(action) }]).await
}

/// A server of gRPC. It responds to `Get` with the message that it gets, and to other methods with two messages; it
/// sends the second one after `next`. `Fail` fails, and `Reset` is reset after the first message.
async fn grpc_endpoint(next: &Arc<Notify>) -> Http2Endpoint {
    let next = Arc::clone(next);
    http2_endpoint(server::Builder::new(), move |call| {
        let next = Arc::clone(&next);
        async move { serve(call, &next).await }
    })
    .await
}

async fn serve(mut call: EndpointCall, next: &Notify) {
    let (head, mut body) = call.request.into_parts();
    let field = |name| head.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!((head.method.as_str(), field("content-type")), ("POST", Some("application/grpc")));
    assert_eq!((field("te"), field("grpc-encoding"), head.uri.query()), (Some("trailers"), None, None));
    let (message, _) = read_body(&mut body).await.unwrap();
    let response = Response::builder().header("content-type", "application/grpc");
    let method = head.uri.path().strip_prefix("/shop.Orders/").unwrap();
    if method == "Refuse" {
        let response = response.header("grpc-status", "16").header("grpc-message", "no%20key").body(()).unwrap();
        call.response.send_response(response, true).unwrap();
        return;
    }
    let mut stream = call.response.send_response(response.body(()).unwrap(), false).unwrap();
    stream.send_data(message.clone().into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    match method {
        "Get" => {}
        "Fail" => drop(trailers.insert("grpc-status", "5".parse().unwrap())),
        "Reset" => {
            next.notified().await;
            return stream.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => {
            next.notified().await;
            stream.send_data(message.into(), false).unwrap();
        }
    }
    stream.send_trailers(trailers).unwrap();
}

fn web_request(method: &str, content_type: &str) -> Request<()> {
    let mut request = post_request(&format!("/shop.Orders/{method}"));
    request.headers_mut().insert("content-type", content_type.parse().unwrap());
    request
}

/// A call over HTTP/1.1, as browsers without TLS send it.
fn web_call(method: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /shop.Orders/{method} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const MESSAGE: &[u8] = &[0, 0, 0, 0, 2, 8, 7];

fn trailers(block: &[u8]) -> Vec<u8> {
    frame(0x80, block).to_vec()
}

// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
#[tokio::test]
async fn browsers_call_grpc_backends() {
    let endpoint = grpc_endpoint(&Arc::default()).await;
    let server = server("grpc-web", json!({"proto": PROTO}), &endpoint).await;
    let ok = [MESSAGE, &trailers(b"grpc-status:0\r\ngrpc-message:\r\n")].concat();
    let failed = [MESSAGE, &trailers(b"grpc-status:5\r\ngrpc-message:\r\n")].concat();
    let refused = trailers(b"grpc-status:16\r\ngrpc-message:no%20key\r\n");
    let json = [&frame(0, br#"{"id":"7","title":""}"#)[..], &trailers(b"grpc-status:0\r\ngrpc-message:\r\n")].concat();
    let text = b"AAAAAAIIBw==";
    for (method, content_type, body, expected) in [
        ("Get", "application/grpc-web+proto", MESSAGE, ok.clone()),
        ("Fail", "application/grpc-web", MESSAGE, failed),
        ("Refuse", "application/grpc-web", MESSAGE, refused),
        ("Get", "application/grpc-web-text", text, ok),
        ("Get", "application/grpc-web+json", &frame(0, br#"{"id":7}"#), json),
        ("Get", "application/json", br#"{"id":7}"#, br#"{"id":"7","title":""}"#.to_vec()),
    ] {
        let mut client = server.connect().await;
        client.send(web_call(method, content_type, body)).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{method} {content_type}: {}", response.text());
        assert_eq!(response.header("content-type"), Some(content_type));
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        assert_eq!((response.header("grpc-status"), response.header("trailer")), (None, None));
        let found = if content_type.contains("text") { decode(&response.body) } else { response.body };
        assert_eq!(found, expected, "{method} {content_type}");
    }
    let mut client = server.connect().await;
    client.send(web_call("Get", "application/grpc", MESSAGE)).await;
    let response = client.response().await;
    assert_eq!(response.status, 400);
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"invalid_grpc_web\"}"], 1.0);
    assert_eq!(endpoint.requests(), 6);
}

/// Texts in base64, each padded by itself.
fn decode(text: &[u8]) -> Vec<u8> {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    let groups = text.chunks(4).map(|group| BASE64_STANDARD.decode(group).unwrap());
    groups.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn messages_of_streams_arrive_one_by_one() {
    let next = Arc::new(Notify::new());
    let endpoint = grpc_endpoint(&next).await;
    let web = server("grpc-web", json!({}), &endpoint).await;
    let gateway = server("grpc-gateway", json!({"proto": PROTO}), &endpoint).await;
    let order: &[u8] = b"{\"id\":\"0\",\"title\":\"\"}\n";
    let cases = [
        (&web, web_request("Watch", "application/grpc-web"), MESSAGE, trailers(b"grpc-status:0\r\ngrpc-message:\r\n")),
        (
            &web,
            web_request("Watch", "application/grpc-web-text"),
            MESSAGE,
            trailers(b"grpc-status:0\r\ngrpc-message:\r\n"),
        ),
        (&gateway, Request::get("http://a.example/v1/orders:watch").body(()).unwrap(), order, Vec::new()),
    ];
    for (server, request, message, last) in cases {
        let is_text = request.headers().get("content-type").is_some_and(|value| value == "application/grpc-web-text");
        let client = Http2Client::connect(server.address).await;
        let (response, mut sent) = client.start_with_body(request).await;
        let body = if is_text { b"AAAAAAIIBw==".as_slice() } else { MESSAGE };
        // A body of a GET request is not read by the rule.
        send_all(&mut sent, body).await.unwrap();
        let mut body = with_timeout("a response", response).await.unwrap().into_body();
        let mut first = Vec::new();
        let decoded = |bytes: &[u8]| if is_text { decode(bytes) } else { bytes.to_vec() };
        while decoded(&first).len() < message.len() {
            first.extend_from_slice(&with_timeout("a message", body.data()).await.unwrap().unwrap());
        }
        assert_eq!(decoded(&first), message, "before the endpoint sends the second one");
        next.notify_one();
        let (rest, trailers) = read_body(&mut body).await.unwrap();
        assert_eq!((decoded(&rest), trailers), ([message, &last].concat(), None));
    }
}

/// The client must not take a part of a stream for all of it.
#[tokio::test]
async fn a_call_that_is_reset_does_not_end_well() {
    let next = Arc::new(Notify::new());
    let endpoint = grpc_endpoint(&next).await;
    let server = server("grpc-web", json!({}), &endpoint).await;
    let client = Http2Client::connect(server.address).await;
    let (response, mut sent) = client.start_with_body(web_request("Reset", "application/grpc-web")).await;
    send_all(&mut sent, MESSAGE).await.unwrap();
    let mut body = with_timeout("a response", response).await.unwrap().into_body();
    assert_eq!(with_timeout("a message", body.data()).await.unwrap().unwrap(), MESSAGE);
    next.notify_one();
    assert!(read_body(&mut body).await.is_err());
}

// docs/kong-compatibility.md, 4.11
#[tokio::test]
async fn json_clients_call_grpc_backends() {
    let endpoint = grpc_endpoint(&Arc::default()).await;
    let proto = PROTO.replace(
        "message Order",
        "service Others { rpc Get(Order) returns (Order) { option (google.api.http) = { post: '/others' body: '*' }; } }
         message Order",
    );
    let server = server("grpc-gateway", json!({"proto": proto, "max_message_bytes": 1000}), &endpoint).await;
    let response = server.request("GET /v1/orders/7?title=a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!((response.status, &*response.text()), (200, r#"{"id":"7","title":"a"}"#));
    assert_eq!(response.header("content-length"), Some("22"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    let response = Http2Client::connect(server.address).await.get("/v1/orders/8").await;
    assert_eq!((response.status, &*response.body, response.trailers), (200, &br#"{"id":"8","title":""}"#[..], None));
    for (request, status) in
        [("GET /v1/orders/x", 400), ("GET /v1/nothing", 400), ("HEAD /v1/orders/7", 400), ("OPTIONS /v1/orders/7", 200)]
    {
        let response = server.request(&format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(response.status, status, "{request}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    }
    let large = format!("{{\"title\":\"{}\"}}", "a".repeat(1000));
    let length = large.len();
    let head = format!("POST /others HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    assert_eq!(server.request(&(head + &large)).await.status, 413);
    assert_eq!(endpoint.requests(), 2);
}

/// What an endpoint sends that is no response of its method.
#[tokio::test]
async fn responses_that_are_not_of_the_method_become_errors() {
    for (body, status, expected) in [
        (MESSAGE.to_vec(), Some("0"), 200),
        (MESSAGE.to_vec(), Some("14"), 503),
        (MESSAGE.to_vec(), Some("seven"), 500),
        (MESSAGE.to_vec(), None, 500),
        (MESSAGE[..6].to_vec(), Some("0"), 500),
        ([MESSAGE, MESSAGE].concat(), Some("0"), 500),
        (vec![1, 0, 0, 0, 0], Some("0"), 500),
        (vec![0, 0xff, 0xff, 0xff, 0xff], Some("0"), 500),
        (vec![0, 0, 0, 0, 1, 0xff], Some("0"), 500),
        // A title that is not UTF-8.
        (vec![0, 0, 0, 0, 3, 18, 1, 0xff], Some("0"), 500),
        // An unknown field.
        (vec![0, 0, 0, 0, 2, 80, 1], Some("0"), 200),
        (vec![0; 2 << 20], Some("0"), 500),
    ] {
        let sent = Bytes::from(body.clone());
        let endpoint = http2_endpoint(server::Builder::new(), move |mut call| {
            let sent = sent.clone();
            async move {
                let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut stream = call.response.send_response(head, false).unwrap();
                let Some(status) = status else { return stream.send_data(sent, true).unwrap() };
                // The proxy may not need all of a body that is too large.
                if crate::h2::send_some(&mut stream, sent).await.is_ok() {
                    stream
                        .send_trailers(HeaderMap::from_iter([(
                            "grpc-status".parse().unwrap(),
                            status.parse().unwrap(),
                        )]))
                        .ok();
                }
            }
        })
        .await;
        let server = server("grpc-gateway", json!({"proto": PROTO}), &endpoint).await;
        let response = server.request("GET /v1/orders/7 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(response.status, expected, "{:?} {status:?}: {}", &body[..body.len().min(9)], response.text());
        let json: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(json.get("code").is_some(), expected != 200, "{json}");
    }
}
