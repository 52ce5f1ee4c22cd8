//! Plugins that call functions in place of backends, on the wire.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use portico::limits::ProxyLimits;
use portico::plugin_api::{AnyPluginKind, PluginState};
use portico::plugin_chain::testing::chain_with;
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use portico::snapshot::rule::{Action, RouteFailure};
use portico::upstream::{EndpointAddress, Endpoints};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, header, reserve_address, route, snapshot, upstream,
};
use crate::http_log::{consumers, loopback_services};

/// A proxy whose route has these plugins and no backends.
async fn server(plugins: &[(&str, Value)]) -> TestServer {
    failing_server(RouteFailure::NoBackends, plugins).await
}

/// A proxy whose route has these plugins and fails.
async fn failing_server(failure: RouteFailure, plugins: &[(&str, Value)]) -> TestServer {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let chain = chain_with(&plugins, &PluginState::default(), &loopback_services());
    let route = Route { plugins: Some(chain), ..route(Action::Fail(failure)) };
    let (address, reserved) = reserve_address();
    let server = TestServer::start(Options::default(), address, reserved, snapshot(address, vec![route]));
    server.proxy.reconcile().await;
    server
}

/// A server that responds to each request, given as its head and its body.
pub(crate) async fn responding(respond: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) -> Endpoint {
    let respond = Arc::new(respond);
    Endpoint::scripted(move |mut stream, _| {
        let respond = Arc::clone(&respond);
        async move {
            while let Some(request) = stream.request().await {
                let (head, body) = request.split_once("\r\n\r\n").unwrap_or((&request, ""));
                let (status, body) = respond(head, body);
                let length = body.len();
                stream.send(format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}")).await;
            }
        }
    })
    .await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the signature of a request is right, computed as the AWS documentation describes it, independently of the
/// code that signs.
fn is_signed(head: &str, body: &str, secret: &str) -> bool {
    let (line, _) = head.split_once("\r\n").unwrap();
    let mut line = line.split(' ');
    let (method, path) = (line.next().unwrap(), line.next().unwrap());
    let value = |name: &str| header(head, name).unwrap_or_default();
    let authorization = value("authorization");
    let part = |name: &str| authorization.split_once(&format!("{name}=")).unwrap().1.split(',').next().unwrap();
    let (names, signature) = (part("SignedHeaders"), part("Signature"));
    let scope = part("Credential").split_once('/').unwrap().1;
    let headers: String = names.split(';').map(|name| format!("{name}:{}\n", value(name))).collect();
    let body = hex(digest(&SHA256, body.as_bytes()).as_ref());
    let canonical = format!("{method}\n{path}\n\n{headers}\n{names}\n{body}");
    let canonical = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{canonical}", value("x-amz-date"));
    let mut key = Key::new(HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in scope.split('/') {
        key = Key::new(HMAC_SHA256, sign(&key, part.as_bytes()).as_ref());
    }
    signature == hex(sign(&key, text.as_bytes()).as_ref())
        && ["host", "x-amz-date", "x-amz-invocation-type"]
            .iter()
            .all(|name| names.split(';').any(|known| known == *name))
}

/// A rule of a Gateway needs no backend, and the function gets only requests with the right key.
#[tokio::test]
async fn a_lambda_function_responds_in_place_of_a_backend() {
    let lambda = responding(|head, body| {
        if !is_signed(head, body, "hidden") {
            return (403, r#"{"Message": "The request signature does not match"}"#.to_owned());
        }
        let event: Value = serde_json::from_str(body).unwrap();
        let body = format!("{} {}", event["httpMethod"].as_str().unwrap(), event["body"].as_str().unwrap());
        (200, json!({"statusCode": 201, "headers": {"x-function": "1"}, "body": body}).to_string())
    })
    .await;
    let config = |secret: &str| {
        json!({
            "host": "127.0.0.1", "port": lambda.address.port(), "disable_https": true, "aws_region": "eu-west-1",
            "aws_key": "AKIDEXAMPLE", "aws_secret": secret, "function_name": "thumbnails",
            "awsgateway_compatible": true, "is_proxy_integration": true, "base64_encode_body": false,
        })
    };
    let request = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let allowed = server(&[("aws-lambda", config("hidden"))]).await;
    let response = allowed.request(request).await;
    assert_eq!((response.status, &*response.text()), (201, "POST hello"));
    assert_eq!(response.header("x-function"), Some("1"));
    let wrong = server(&[("aws-lambda", config("wrong"))]).await;
    assert_eq!(wrong.request(request).await.status, 500);
    let denying = server(&[("aws-lambda", config("hidden")), ("key-auth", json!({}))]).await;
    let calls = lambda.log.requests().len();
    assert_eq!(denying.request(request).await.status, 401);
    assert_eq!(lambda.log.requests().len(), calls, "the function gets nothing that another plugin rejects");
}

/// A rule without backends runs its plugins, and fails if none of them stands in for a backend.
#[tokio::test]
async fn a_rule_without_backends_still_fails_after_its_plugins() {
    let server = server(&[("key-auth", json!({"anonymous": null}))]).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 401);
    let server = self::server(&[("cors", json!({}))]).await;
    let response = server.request("GET / HTTP/1.1\r\nhost: a\r\norigin: http://b.example\r\n\r\n").await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (500, Some("*")));
}

/// The Service's own plugins, which could refuse the request, are not known while it is missing.
#[tokio::test]
async fn nothing_responds_in_place_of_a_missing_service() {
    let api = "openapi: 3.1.0\npaths: {/a: {get: {responses: {'200': {description: b, content: {text/plain: \
               {example: mocked}}}}}}}\n";
    let mocking = [("mocking", json!({"api_specification": api}))];
    for (failure, status, reason) in [
        (RouteFailure::NoService, 503, "no Service found with those values"),
        (RouteFailure::InvalidBackend, 500, "no existing backendRef provided"),
    ] {
        let response = failing_server(failure, &mocking).await.request("GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(response.status == status && response.text().contains(reason), "{failure}: {}", response.text());
    }
    for failure in [RouteFailure::NoBackends, RouteFailure::WithoutService] {
        let response = failing_server(failure, &mocking).await.request("GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!((response.status, &*response.text()), (200, "mocked"), "{failure}");
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_for_a_function_are_rejected() {
    let lambda = responding(|_, _| (200, "{}".to_owned())).await;
    let config = json!({
        "host": "127.0.0.1", "port": lambda.address.port(), "disable_https": true, "aws_region": "eu-west-1",
        "aws_key": "a", "aws_secret": "b", "function_name": "f", "skip_large_bodies": false,
    });
    let server = server(&[("aws-lambda", config)]).await;
    let response = server.request("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4194305\r\n\r\n").await;
    assert_eq!(response.status, 413);
    assert!(lambda.log.requests().is_empty());
}

/// What a function returns is in memory until the client has read it, and counts like other bodies.
#[tokio::test]
async fn results_of_functions_count_as_bodies_in_memory() {
    const LIMIT: usize = 1 << 20;
    let lambda = responding(|_, event| {
        let bytes = if event.contains("large") { LIMIT } else { LIMIT / 4 };
        (200, json!({"statusCode": 200, "body": "x".repeat(bytes)}).to_string())
    })
    .await;
    let config = json!({
        "host": "127.0.0.1", "port": lambda.address.port(), "disable_https": true, "aws_region": "eu-west-1",
        "aws_key": "a", "aws_secret": "b", "function_name": "f", "is_proxy_integration": true,
        "forward_request_uri": true,
    });
    let plugins: Vec<(&dyn AnyPluginKind, Value)> = vec![(REGISTRY.find("aws-lambda").unwrap(), config)];
    let chain = chain_with(&plugins, &PluginState::default(), &loopback_services());
    let route = Route { plugins: Some(chain), ..route(Action::Fail(RouteFailure::NoBackends)) };
    let limits = ProxyLimits { max_buffered_bytes: LIMIT, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, vec![route]).await;
    let small = server.request("GET /small HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((small.status, small.header("content-length")), (200, Some("262144")));
    assert_eq!(small.text().len(), LIMIT / 4);
    assert_eq!(server.request("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 503);
}

#[tokio::test]
async fn an_aggregate_calls_all_servers_and_forwards_nothing() {
    let users = responding(|head, _| (200, json!({"target": head.split(' ').nth(1)}).to_string())).await;
    let failing = responding(|_, _| (503, "{}".to_owned())).await;
    let config = |on_failure: &str| {
        json!({"calls": [
            {"name": "user", "url": format!("http://{}/u/$(query_params.id)", users.address)},
            {"name": "orders", "url": format!("http://{}/", failing.address), "on_failure": on_failure},
        ]})
    };
    let lenient = server(&[("aggregate", config("null"))]).await;
    let response = lenient.request("GET /?id=a%2Fb HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((response.status, &*response.text()), (200, r#"{"user":{"target":"/u/a%2Fb"},"orders":null}"#));
    assert_eq!(lenient.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 400);
    let strict = server(&[("aggregate", config("fail"))]).await;
    assert_eq!(strict.request("GET /?id=1 HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 502);
}

/// One that hangs, ones that end before their announced length or within a chunk, one that never ends, one with a
/// head without end: each is a failed call, whose connection is closed, and the others count.
#[tokio::test]
async fn an_aggregate_survives_servers_that_hang_lie_or_never_end() {
    let good = responding(|_, _| (200, r#"{"ok":true}"#.to_owned())).await;
    let hanging = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await;
    let script = |response: &'static str| {
        Endpoint::scripted(move |mut stream, _| async move {
            stream.request().await;
            stream.send(response).await;
        })
    };
    let short = script("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"ok\":true}").await;
    let cut = script("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{\"ok\":true}").await;
    let ambiguous = script("HTTP/1.1 200 OK\r\ncontent-length: 11\r\ncontent-length: 2\r\n\r\n{\"ok\":true}").await;
    // The length is true, and beyond the limit of the call.
    let large = script("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n").await;
    let endless = |start: &'static str, part: &'static [u8]| {
        Endpoint::scripted(move |mut stream, _| async move {
            stream.request().await;
            stream.send(start).await;
            // Until the client of the server closes the connection.
            while stream.socket.write_all(part).await.is_ok() {}
        })
    };
    let endless_body =
        endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"10\r\n0123456789abcdef\r\n").await;
    let endless_head = endless("HTTP/1.1 200 OK\r\n", b"x-a: 0123456789\r\n").await;
    let servers = [
        ("hanging", &hanging),
        ("short", &short),
        ("cut", &cut),
        ("ambiguous", &ambiguous),
        ("large", &large),
        ("endless_body", &endless_body),
        ("endless_head", &endless_head),
        ("good", &good),
    ];
    let calls: Vec<Value> = servers
        .iter()
        .map(|(name, server)| {
            let timeout = if *name == "hanging" { 300 } else { 30_000 };
            let url = format!("http://{}/", server.address);
            json!({"name": name, "url": url, "on_failure": "error", "timeout": timeout})
        })
        .collect();
    let aggregating = self::server(&[("aggregate", json!({"calls": calls, "timeout": 30_000}))]).await;
    for _ in 0..2 {
        let response = aggregating.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut results: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!((response.status, results["good"].take()), (200, json!({"ok": true})));
        for (name, server) in &servers[..7] {
            assert_eq!(results[name], json!({"error": {"reason": "no_response"}}), "{name}");
            server
                .log
                .wait_for("the connection is closed", |log| {
                    log.ended.load(std::sync::atomic::Ordering::SeqCst) == log.connections()
                })
                .await;
        }
    }
}

/// The endpoint gets the message with its length, and the client JSON with the status of the `Fault`.
#[tokio::test]
async fn soap_messages_are_converted_on_the_wire() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let is_message = head.starts_with("POST / ") && header(head, "soapaction") == Some("\"urn:a\"");
            let content = match body.contains("<GetPrice xmlns=\"urn:shop\"><item>apple</item></GetPrice>") {
                true if is_message => "<r><price>1.90</price></r>",
                _ => "<s:Fault><faultcode>s:Client</faultcode><faultstring>No</faultstring></s:Fault>",
            };
            let body = format!("<s:Envelope xmlns:s='u'><s:Body>{content}</s:Body></s:Envelope>");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.send(head + &body).await;
        }
    })
    .await;
    let config = json!({"operation": "GetPrice", "namespace": "urn:shop", "action": "urn:a"});
    let plugins: Vec<(&dyn AnyPluginKind, Value)> = vec![(REGISTRY.find("soap").unwrap(), config)];
    let chain = chain_with(&plugins, &PluginState::default(), &loopback_services());
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let (address, reserved) = reserve_address();
    let route = Route { plugins: Some(chain), ..route(action) };
    let server = TestServer::start(Options::default(), address, reserved, snapshot(address, vec![route]));
    server.proxy.reconcile().await;
    let post = async |body: &str| {
        server.request(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await
    };
    let response = post(r#"{"item": "apple"}"#).await;
    assert_eq!((response.status, &*response.text()), (200, r#"{"price":"1.90"}"#));
    assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
    let fault = post(r#"{"item": "pear"}"#).await;
    assert_eq!((fault.status, fault.header("content-type")), (400, Some("application/problem+json")));
    assert_eq!(post("{").await.status, 400);
    assert_eq!(endpoint.log.requests().len(), 2, "what is not JSON is not forwarded");
}

/// A proxy gets all requests to a server outside of the cluster, and no others.
// docs/kong-compatibility.md, 5.13
#[tokio::test]
async fn requests_go_through_a_forward_proxy() {
    let proxy = responding(|head, body| (200, format!("{} {body}", head.lines().next().unwrap()))).await;
    let config = json!({
        "http_proxy_host": "127.0.0.1", "http_proxy_port": proxy.address.port(), "x_headers": "delete",
        "auth_username": "anna", "auth_password": "hidden",
    });
    let plugins = [("forward-proxy", config), ("key-auth", json!({}))];
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let direct = Endpoint::ok().await;
    for (addresses, with_key, expected) in [
        (vec![EndpointAddress::Name { host: "api.partner.example".into(), port: 8080 }], true, 200),
        (vec![EndpointAddress::Name { host: "api.partner.example".into(), port: 8080 }], false, 401),
        (vec![EndpointAddress::Ip(direct.address)], true, 502),
    ] {
        let chain = chain_with(&plugins, &PluginState::default(), &loopback_services());
        let upstream = upstream("partner", &[]);
        upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
        let routes = vec![Route { plugins: Some(chain), ..route(forward(vec![(1, upstream)])) }];
        let (address, reserved) = reserve_address();
        let snapshot = Snapshot { consumers: Arc::new(consumers()), ..snapshot(address, routes) };
        let server = TestServer::start(Options::default(), address, reserved, snapshot);
        server.proxy.reconcile().await;
        let key = if with_key { "apikey: secret\r\n" } else { "" };
        let request = format!(
            "POST /a?b=c HTTP/1.1\r\nhost: shop.example\r\nportico-hops: 2\r\n{key}content-length: 5\r\n\r\nhello"
        );
        let response = server.request(&request).await;
        assert_eq!(response.status, expected);
        if expected == 200 {
            assert_eq!(&*response.text(), "POST http://api.partner.example:8080/a?b=c HTTP/1.1 hello");
        }
    }
    let requests = proxy.log.requests();
    assert_eq!((requests.len(), direct.log.requests().len()), (1, 0), "{requests:?}");
    assert_eq!(header(&requests[0], "proxy-authorization"), Some("Basic YW5uYTpoaWRkZW4="));
    assert_eq!(header(&requests[0], "x-forwarded-for"), None);
    assert_eq!(header(&requests[0], "portico-hops"), Some("3"), "loops through the proxy end");
    assert_eq!(header(&requests[0], "host"), Some("api.partner.example:8080"));
}

/// A proxy whose route has forward-proxy, and the HTTP proxy `proxy` on the way to its backend.
async fn server_behind(proxy: &Endpoint) -> TestServer {
    let config = json!({"http_proxy_host": "127.0.0.1", "http_proxy_port": proxy.address.port()});
    let plugins: Vec<(&dyn AnyPluginKind, Value)> = vec![(REGISTRY.find("forward-proxy").unwrap(), config)];
    let chain = chain_with(&plugins, &PluginState::default(), &loopback_services());
    let upstream = upstream("partner", &[]);
    let addresses = vec![EndpointAddress::Name { host: "api.partner.example".into(), port: 80 }];
    upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
    let routes = vec![Route { plugins: Some(chain), ..route(forward(vec![(1, upstream)])) }];
    let (address, reserved) = reserve_address();
    let server = TestServer::start(Options::default(), address, reserved, snapshot(address, routes));
    server.proxy.reconcile().await;
    server
}

/// No part of a response waits for the next one, and its size has no limit.
// docs/kong-compatibility.md, 5.13
#[tokio::test]
async fn responses_stream_through_a_forward_proxy() {
    const LARGE: usize = 9 << 20;
    let proxy = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let response = match request.split(' ').nth(1).unwrap() {
                "http://api.partner.example/head" => "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_owned(),
                "http://api.partner.example/large" => {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n{}", "x".repeat(LARGE))
                }
                "http://api.partner.example/chunked" => {
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned()
                }
                "http://api.partner.example/empty" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                "http://api.partner.example/upgrade" => {
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned()
                }
                "http://api.partner.example/truncated" => {
                    stream.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").await;
                    return;
                }
                target => panic!("{target}"),
            };
            stream.send(response).await;
        }
    })
    .await;
    let server = server_behind(&proxy).await;
    let mut client = server.connect().await;
    for (path, status, length, body) in [
        ("/large", 200, Some(LARGE), "x".repeat(LARGE)),
        ("/chunked", 200, None, "ok".to_owned()),
        ("/empty", 204, None, String::new()),
    ] {
        let response = client.get(path).await;
        let found = response.header("content-length").map(|length| length.parse::<usize>().unwrap());
        assert_eq!((response.status, found), (status, length), "{path}");
        assert!(response.text() == body, "{path}");
    }
    let head = server.request("HEAD /head HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("7")));
    // The client would take the next response for one of the new protocol.
    assert_eq!(client.get("/upgrade").await.status, 502);
    assert_eq!(client.get("/chunked").await.text(), "ok");
    client.send("GET /truncated HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.try_response().await, None, "the truncated body counts as complete");
}
