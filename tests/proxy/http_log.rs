//! The plugin http-log on the wire: its objects, its batches, and servers that do not accept them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Request;
use portico::plugin_api::batch_queue::{QueueCounts, flush_queues, queue_counts};
use portico::plugin_api::consumers::plugins::{ConsumerPlugin, PluginSubject};
use portico::plugin_api::consumers::{EntityId, KeyCredential};
use portico::plugin_api::http_proxy::ProxyRoute;
use portico::plugin_api::instance::ExecutionPlace;
use portico::plugin_api::{
    ConsumerDirectory, PluginServices, PluginState, Remote, RemoteDatagrams, RemoteFailure, RemoteRequest,
    RemoteResponse, RemoteStream, StreamedResponse,
};
use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::{build_with, chain_with, consumer, instance, names};
use portico::plugin_kit::remote_client::{RemoteClient, RemoteConnector};
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use portico::snapshot::rule::Action;
use portico::ssrf_guard::AddressPolicy;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UdpSocket};

use crate::h2::Http2Client;
use crate::harness::{
    Client, Endpoint, Options, Route, TestServer, forward, header, reserve_address, retries, route, snapshot, upstream,
    with_timeout, with_timeouts_and_retries,
};
use crate::polling::until;
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

/// Services that connect to loopback addresses.
struct LoopbackServices(RemoteClient);

#[derive(Default)]
struct TcpConnector {
    /// The port of connections to port 80, which no test can listen on.
    port_80: Option<u16>,
}

impl RemoteConnector for TcpConnector {
    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        let port = self.port_80.filter(|_| remote.port == 80).unwrap_or(remote.port);
        Box::pin(async move {
            let stream = TcpStream::connect((remote.host, port)).await;
            let stream = stream.map_err(|error| RemoteFailure::Unreachable(error.to_string()))?;
            Ok(Box::new(stream) as Box<dyn RemoteStream>)
        })
    }

    fn connect_through(
        &self,
        remote: Remote,
        route: ProxyRoute,
    ) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        self.connect(route.proxy_for(&remote).clone())
    }
}

impl PluginServices for LoopbackServices {
    fn address_policy(&self) -> AddressPolicy {
        AddressPolicy::default()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn send(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let client = self.0.clone();
        Box::pin(async move { client.send(request).await })
    }

    fn send_in_place_of_backend(
        &self,
        _address: IpAddr,
        request: RemoteRequest,
        route: Option<ProxyRoute>,
    ) -> BoxFuture<'static, Result<StreamedResponse, RemoteFailure>> {
        let client = self.0.clone();
        Box::pin(async move { client.stream(request, route, ()).await })
    }

    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        Box::pin(async move { TcpConnector::default().connect(remote).await.map_err(RemoteFailure::into_message) })
    }

    fn connect_datagrams(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteDatagrams>, String>> {
        Box::pin(async move {
            let connected = async {
                let socket = UdpSocket::bind("127.0.0.1:0").await?;
                socket.connect((remote.host, remote.port)).await.map(|()| socket)
            };
            let socket = connected.await.map_err(|error: io::Error| error.to_string())?;
            Ok(Box::new(Datagrams(socket)) as Box<dyn RemoteDatagrams>)
        })
    }
}

struct Datagrams(UdpSocket);

impl RemoteDatagrams for Datagrams {
    fn send<'s>(&'s self, datagram: &'s [u8]) -> BoxFuture<'s, io::Result<()>> {
        Box::pin(async move { self.0.send(datagram).await.map(drop) })
    }
}

/// A proxy whose route has a log plugin.
pub(crate) struct LoggingServer {
    pub(crate) server: TestServer,
    pub(crate) state: PluginState,
}

impl LoggingServer {
    async fn start(config: Value, receiver: &Endpoint, plugins: &[(&str, Value)], action: Action) -> LoggingServer {
        let state = PluginState::default();
        let chain = logging_chain(config, receiver, plugins, &state);
        LoggingServer::with_chain(chain, consumers(), state, action).await
    }

    pub(crate) async fn with_chain(
        chain: Arc<Chain>,
        consumers: ConsumerDirectory,
        state: PluginState,
        action: Action,
    ) -> LoggingServer {
        let routes = vec![Route { plugins: Some(chain), ..route(action) }];
        let (address, reserved) = reserve_address();
        let snapshot = Snapshot { consumers: Arc::new(consumers), ..snapshot(address, routes) };
        let server = TestServer::start(Options::default(), address, reserved, snapshot);
        server.proxy.reconcile().await;
        LoggingServer { server, state }
    }

    /// With an endpoint that responds with `ok`.
    async fn with_config(config: Value, receiver: &Endpoint) -> LoggingServer {
        let endpoint = Endpoint::ok().await;
        LoggingServer::start(config, receiver, &[], to(&endpoint)).await
    }

    fn counts(&self) -> QueueCounts {
        queue_counts(&self.state).first().map(|(_, counts)| *counts).unwrap_or_default()
    }

    pub(crate) async fn wait_for_counts(&self, what: &str, condition: impl Fn(&QueueCounts) -> bool) {
        until(what, async || condition(&self.counts())).await;
    }

    /// Sends requests for `/0`, `/1` and so on, each of which must succeed.
    pub(crate) async fn get(&self, requests: usize) {
        let mut client = Client::connect(self.server.address).await;
        for number in 0..requests {
            assert_eq!(client.get(&format!("/{number}")).await.text(), "ok");
        }
    }
}

/// The consumers `anna`, whose key is `secret`, and `bert`, whose key is `other`.
pub(crate) fn consumers() -> ConsumerDirectory {
    let mut consumers = ConsumerDirectory::default();
    for (name, key, id) in [("anna", "secret", "id-key"), ("bert", "other", "id-other")] {
        let consumer = consumer(name, &[]);
        consumers.add(&consumer);
        consumers.keys.insert(KeyCredential::new(EntityId::from_text(id), key.as_bytes(), None, consumer).into());
    }
    consumers
}

fn logging_chain(config: Value, receiver: &Endpoint, plugins: &[(&str, Value)], state: &PluginState) -> Arc<Chain> {
    let find = |name: &str| REGISTRY.find(name).unwrap();
    let plugins = plugins.iter().map(|(name, config)| (find(name), config.clone()));
    let plugins: Vec<_> = plugins.chain([(find("http-log"), with_receiver(config, receiver))]).collect();
    chain_with(&plugins, state, &loopback_services())
}

pub(crate) fn loopback_services() -> Arc<dyn PluginServices> {
    Arc::new(LoopbackServices(RemoteClient::new(Arc::new(TcpConnector::default()))))
}

/// The same for plugins that connect to port 80: their connections go to this port.
pub(crate) fn services_with_port_80(port: u16) -> Arc<dyn PluginServices> {
    Arc::new(LoopbackServices(RemoteClient::new(Arc::new(TcpConnector { port_80: Some(port) }))))
}

/// The configuration with the URL of the receiver, unless it has one.
fn with_receiver(mut config: Value, receiver: &Endpoint) -> Value {
    if config.get("http_endpoint").is_none() {
        config["http_endpoint"] = json!(format!("http://{}/in?from=test", receiver.address));
    }
    config
}

pub(crate) fn to(endpoint: &Endpoint) -> Action {
    forward(vec![(1, upstream("web", &[endpoint.address]))])
}

async fn accepting_receiver() -> Endpoint {
    Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
}

/// The bodies that a receiver got.
fn bodies(receiver: &Endpoint) -> Vec<Value> {
    let requests = receiver.log.requests();
    requests.iter().map(|request| serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()).collect()
}

async fn wait_for_bodies(receiver: &Endpoint, number: usize) -> Vec<Value> {
    receiver.log.wait_for("logs", |log| log.requests().len() >= number).await;
    bodies(receiver)
}

/// The path of each object.
fn paths(objects: &[Value]) -> Vec<&str> {
    objects.iter().map(|object| object["request"]["uri"].as_str().unwrap()).collect()
}

/// Removes the values at these paths, which differ in each run, after a check that they are numbers.
fn without_times(object: &mut Value) {
    for pointer in [
        "/started_at",
        "/latencies/request",
        "/latencies/kong",
        "/latencies/receive",
        "/tries/0/balancer_start",
        "/tries/0/balancer_start_ns",
        "/tries/0/balancer_latency",
        "/tries/0/balancer_latency_ns",
    ] {
        if let Some(value) = object.pointer_mut(pointer) {
            assert!(value.is_u64(), "{pointer}: {value}");
            *value = json!("number");
        }
    }
}

const REQUEST: &str = "POST /a%20b?x=1&x=2&flag HTTP/1.1\r\nHost: a.example\r\nX-Two: 1\r\nX-Two: 2\r\n\
                       content-length: 4\r\n\r\nbody";

// docs/kong-compatibility.md, 4.14
// docs/kong-compatibility.md, 6.3
#[tokio::test]
async fn object_has_the_fields_of_kong() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 201 Created\r\nx-own: 1\r\ncontent-length: 2\r\n\r\nok").await;
    let receiver = accepting_receiver().await;
    let logging = LoggingServer::start(json!({}), &receiver, &[], to(&endpoint)).await;
    let mut client = Client::connect(logging.server.address).await;
    client.send(REQUEST).await;
    let response = client.response().await;
    assert_eq!(response.status, 201);
    let mut object = wait_for_bodies(&receiver, 1).await.remove(0);
    assert!(object["latencies"]["proxy"].is_u64() && object["request"]["id"].as_str().unwrap().len() == 32);
    without_times(&mut object);
    object["latencies"]["proxy"] = json!("number");
    object["request"]["id"] = json!("id");
    let headers = object["response"]["headers"].take();
    assert_eq!((&headers["x-own"], &headers["content-length"]), (&json!("1"), &json!("2")));
    let number = "number";
    let response_size = response.head.len() + response.body.len();
    let sent_size = object["response"]["size"].as_u64().unwrap();
    // The codec adds the Date header, and writes the reason phrase.
    assert!(sent_size.abs_diff(response_size as u64) < 60, "{sent_size} {response_size}");
    let expected = json!({
        "request": {
            "id": "id",
            "method": "POST",
            "uri": "/a%20b?x=1&x=2&flag",
            "url": "http://a.example:80/a%20b?x=1&x=2&flag",
            "querystring": {"x": ["1", "2"], "flag": true},
            "headers": {"host": "a.example", "x-two": ["1", "2"], "content-length": "4"},
            "size": REQUEST.len(),
        },
        "upstream_uri": "/a%20b?x=1&x=2&flag",
        "upstream_status": "201",
        "response": {"status": 201, "size": sent_size, "headers": null},
        "latencies": {"request": number, "kong": number, "proxy": number, "receive": number},
        "tries": [{
            "balancer_start": number,
            "balancer_start_ns": number,
            "balancer_latency": number,
            "balancer_latency_ns": number,
            "ip": "127.0.0.1",
            "port": endpoint.address.port(),
        }],
        "client_ip": "127.0.0.1",
        "started_at": number,
        "route": {"name": "default.test.web..80"},
        "service": {"name": "default.web.80"},
        "workspace": "00000000-0000-0000-0000-000000000000",
        "workspace_name": "default",
        "source": "upstream",
    });
    assert_eq!(object, expected);
    let sent = &receiver.log.requests()[0];
    let head = sent.split_once("\r\n\r\n").unwrap().0.to_lowercase();
    assert!(head.starts_with("post /in?from=test http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: {}", receiver.address)), "{head}");
    assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
}

#[tokio::test]
async fn object_of_http2_over_tls_has_the_parameters_of_tls() {
    let (endpoint, receiver) = (Endpoint::ok().await, accepting_receiver().await);
    let state = PluginState::default();
    let routes =
        vec![Route { plugins: Some(logging_chain(json!({}), &receiver, &[], &state)), ..route(to(&endpoint)) }];
    let listener = TlsListener { hostname: "a.example", certificates: vec![certificate(&["a.example"])], routes };
    let server = start_tls_server(Options::default(), vec![listener]).await;
    let tls_client = TestTlsConnector::new().with_alpn(&[b"h2"]).connect(&server, "a.example").await.unwrap();
    let (sender, connection) = h2::client::handshake(tls_client.socket).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://a.example/path?q=1").body(()).unwrap();
    let (response, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(crate::h2::read_response(response).await.unwrap().status, 200);
    let object = wait_for_bodies(&receiver, 1).await.remove(0);
    let tls = &object["request"]["tls"];
    assert_eq!((&tls["version"], &tls["client_verify"]), (&json!("TLSv1.3"), &json!("NONE")));
    assert!(tls["cipher"].as_str().unwrap().starts_with("TLS_AES_") || tls["cipher"] == "TLS_CHACHA20_POLY1305_SHA256");
    assert_eq!(object["request"]["uri"], "/path?q=1");
    let url = object["request"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://a.example:") && url.ends_with("/path?q=1"), "{url}");
}

#[tokio::test]
async fn http2_requests_without_tls_are_logged_once_each() {
    let receiver = accepting_receiver().await;
    let logging = LoggingServer::with_config(json!({}), &receiver).await;
    let client = Http2Client::connect(logging.server.address).await;
    for path in ["/0", "/1"] {
        assert_eq!(client.get(path).await.status, 200);
    }
    let objects = wait_for_bodies(&receiver, 2).await;
    assert_eq!(paths(&objects), ["/0", "/1"]);
    assert!(objects[0]["request"].get("tls").is_none());
}

#[tokio::test]
async fn reply_of_a_plugin_is_logged_with_its_source() {
    let (endpoint, receiver) = (Endpoint::ok().await, accepting_receiver().await);
    let plugins = [("request-termination", json!({"status_code": 418, "message": "no"}))];
    let logging = LoggingServer::start(json!({}), &receiver, &plugins, to(&endpoint)).await;
    let mut client = Client::connect(logging.server.address).await;
    assert_eq!(client.get("/").await.status, 418);
    let object = wait_for_bodies(&receiver, 1).await.remove(0);
    assert_eq!((&object["source"], &object["latencies"]["proxy"]), (&json!("kong"), &json!(-1)));
    assert_eq!((&object["tries"], &object["upstream_status"]), (&json!([]), &json!("")));
    assert_eq!((&object["upstream_uri"], &object["response"]["status"]), (&json!(""), &json!(418)));
}

#[tokio::test]
async fn every_attempt_is_logged() {
    let busy = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let receiver = accepting_receiver().await;
    let action = with_timeouts_and_retries(to(&busy), retries(2, &[503]));
    let logging = LoggingServer::start(json!({}), &receiver, &[], action).await;
    let mut client = Client::connect(logging.server.address).await;
    assert_eq!(client.get("/").await.status, 503);
    let object = wait_for_bodies(&receiver, 1).await.remove(0);
    assert_eq!((object["tries"].as_array().unwrap().len(), &object["upstream_status"]), (3, &json!("503, 503, 503")));

    // Nothing listens on a reserved port.
    let (refusing, _reserved) = reserve_address();
    let action = forward(vec![(1, upstream("web", &[refusing]))]);
    let logging = LoggingServer::start(json!({}), &receiver, &[], action).await;
    let mut client = Client::connect(logging.server.address).await;
    assert_eq!(client.get("/").await.status, 503);
    let object = wait_for_bodies(&receiver, 2).await.remove(1);
    let attempt = &object["tries"][0];
    assert_eq!((&attempt["state"], &attempt["port"]), (&json!("failed"), &json!(refusing.port())));
    // That of Kong, whatever the client gets.
    assert_eq!((&attempt["code"], &object["upstream_status"]), (&json!(502), &json!("502")));
    assert_eq!(object["source"], json!("kong"));
}

// docs/kong-compatibility.md, 4.39
#[tokio::test]
async fn correlation_ids_are_logged() {
    let endpoint = Endpoint::ok().await;
    let plugins = [("correlation-id", json!({"header_name": "X-Id"})), ("key-auth", json!({"key_names": ["x-id"]}))];
    for (plugins, expected) in [(&plugins[..1], "secret"), (&plugins[..], "REDACTED")] {
        let receiver = accepting_receiver().await;
        let logging = LoggingServer::start(json!({}), &receiver, plugins, to(&endpoint)).await;
        let mut client = Client::connect(logging.server.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\nX-Id: secret\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        let object = wait_for_bodies(&receiver, 1).await.remove(0);
        assert_eq!(object["correlation_id"], json!(expected));
    }
}

#[tokio::test]
async fn credentials_are_redacted_and_the_consumer_is_named() {
    // The response repeats the target.
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let fields =
            "location: /p/?a=b&api_key=secret\r\nset-cookie: session=secret; Path=/\r\nlink: </n?token=secret>\r\n";
        while stream.request().await.is_some() {
            stream.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")).await;
        }
    })
    .await;
    let receiver = accepting_receiver().await;
    let plugins = [
        ("key-auth", json!({"key_names": ["api_key"]})),
        ("jwt", json!({"anonymous": "anna", "cookie_names": ["session"], "uri_param_names": ["token"]})),
    ];
    let custom = json!({
        "leaked_header": "return kong.request.get_header('api-key')",
        "leaked_argument": "return kong.request.get_query_arg('api_key')",
        "leaked_cookie": "return kong.request.get_header('cookie')",
        "leaked_referer": "return kong.request.get_header('referer')",
        "leaked_location": "return kong.response.get_header('location')",
        "leaked_page": "return kong.request.get_query_arg('next')",
    });
    let config = json!({"custom_fields_by_lua": custom});
    let logging = LoggingServer::start(config, &receiver, &plugins, to(&endpoint)).await;
    let mut client = Client::connect(logging.server.address).await;
    let request = "GET /p?a=b&api_key=secret&token=secret HTTP/1.1\r\nhost: a.example\r\napi-key: secret\r\n\
                   referer: https://a.example/?c=d&api%5Fkey=secret&e\r\napi_key: secret\r\n\
                   proxy-authorization: Basic secret\r\ncookie: a=b; session=secret\r\n\r\n";
    client.send(request).await;
    assert_eq!(client.response().await.status, 200);
    client.send("GET /p?api_key=secret&next=%2Fq%3Ftoken%3Dsecret HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    // A value that is not UTF-8 is redacted as well.
    client.send(b"GET /p?api_key=secret HTTP/1.1\r\nhost: a.example\r\ncookie: a=\xff; session=secret\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    let objects = wait_for_bodies(&receiver, 3).await;
    for object in &objects {
        assert!(!object.to_string().contains("secret"), "{object}");
    }
    let request = &objects[0]["request"];
    assert_eq!(request["uri"], "/p?a=b&api_key=REDACTED&token=REDACTED");
    assert_eq!(request["querystring"], json!({"a": "b", "api_key": "REDACTED", "token": "REDACTED"}));
    assert_eq!(request["headers"]["cookie"], "a=b; session=REDACTED");
    assert_eq!(request["headers"]["proxy-authorization"], "REDACTED");
    assert_eq!(objects[0]["leaked_header"], "REDACTED");
    assert_eq!(objects[1]["leaked_argument"], "REDACTED");
    assert_eq!(objects[0]["leaked_cookie"], "a=b; session=REDACTED");
    assert_eq!(objects[2]["leaked_cookie"], "a=\u{fffd}; session=REDACTED");
    let consumer = json!({"id": "id-anna", "username": "anna", "custom_id": "custom-anna"});
    assert_eq!(objects[1]["consumer"], consumer);
    assert_eq!(objects[1]["authenticated_entity"], json!({"id": "id-key", "consumer_id": "id-anna"}));
    assert_eq!(objects[1]["upstream_uri"], "/p?api_key=REDACTED&next=%2Fq%3Ftoken%3DREDACTED");
    assert_eq!(request["headers"]["referer"], "https://a.example/?c=d&api%5Fkey=REDACTED&e");
    let response = &objects[0]["response"]["headers"];
    assert_eq!(response["location"], "/p/?a=b&api_key=REDACTED");
    assert_eq!(response["set-cookie"], "session=REDACTED; Path=/");
    assert_eq!(response["link"], "</n?token=REDACTED>");
    assert_eq!(objects[0]["leaked_referer"], request["headers"]["referer"]);
    assert_eq!(objects[0]["leaked_location"], "/p/?a=b&api_key=REDACTED");
    assert_eq!(objects[1]["leaked_page"], "/q?token=REDACTED");
}

#[tokio::test]
async fn plugin_of_a_consumer_logs_heads_without_credentials() {
    let (endpoint, receiver) = (Endpoint::ok().await, accepting_receiver().await);
    let (state, services) = (PluginState::default(), loopback_services());
    let kind = REGISTRY.find("http-log").unwrap();
    let plugin = build_with(kind, &with_receiver(json!({}), &receiver), &state, &services).unwrap();
    let place = ExecutionPlace { kind: kind.name(), priority: kind.priority() };
    let plugin = Arc::new(ConsumerPlugin { place, instance: instance(kind, plugin) });
    let mut consumers = consumers();
    consumers.set_plugins(&PluginSubject::Consumer("id-anna".into()), [plugin].into_iter().collect());
    let chain = chain_with(&[(REGISTRY.find("key-auth").unwrap(), json!({}))], &state, &services);
    let logging = LoggingServer::with_chain(chain, consumers, state, to(&endpoint)).await;
    let mut client = Client::connect(logging.server.address).await;
    for (path, key) in [("/of-bert", "other"), ("/of-anna", "secret")] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a.example\r\napikey: {key}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, 200);
    }
    let objects = wait_for_bodies(&receiver, 1).await;
    assert_eq!(objects.len(), 1);
    let object = &objects[0];
    assert_eq!(object["request"]["uri"], "/of-anna");
    assert_eq!(object["request"]["headers"]["apikey"], "REDACTED");
    assert_eq!(object["response"]["headers"]["content-length"], "2");
    assert_eq!((&object["route"]["name"], &object["consumer"]["id"]), (&json!(names().route), &json!("id-anna")));
}

#[tokio::test]
async fn custom_fields_are_added_nested_and_removed() {
    let receiver = accepting_receiver().await;
    let fields = json!({
        "tenant.name": "return kong.request.get_header('x-tenant')",
        r"dotted\.name": "return 'text'",
        "status": "return kong.response.get_status()",
        "route": "return nil",
        "request.headers": "return nil",
        "failing": "return 1 + nil",
    });
    let logging = LoggingServer::with_config(json!({"custom_fields_by_lua": fields}), &receiver).await;
    let mut client = Client::connect(logging.server.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\nx-tenant: blue\r\n\r\n").await;
    client.response().await;
    let object = wait_for_bodies(&receiver, 1).await.remove(0);
    assert_eq!((&object["tenant"]["name"], &object["dotted.name"]), (&json!("blue"), &json!("text")));
    assert_eq!(object["status"], 200);
    for absent in ["/route", "/request/headers", "/failing"] {
        assert!(object.pointer(absent).is_none(), "{absent}: {object}");
    }
}

#[tokio::test]
async fn settings_of_the_request_apply() {
    let receiver = accepting_receiver().await;
    let config = json!({
        "http_endpoint": format!("http://us:pa%21@{}/in", receiver.address),
        "method": "PUT",
        "content_type": "application/json; charset=utf-8",
        "headers": {"X-Token": "abc"},
    });
    let logging = LoggingServer::with_config(config, &receiver).await;
    logging.get(2).await;
    wait_for_bodies(&receiver, 2).await;
    let head = receiver.log.requests()[0].to_lowercase();
    for expected in [
        "put /in http/1.1\r\n",
        "\r\ncontent-type: application/json; charset=utf-8\r\n",
        "\r\nx-token: abc\r\n",
        // us:pa!
        "\r\nauthorization: basic dxm6cgeh\r\n",
    ] {
        assert!(head.contains(expected), "{expected}: {head}");
    }
    assert_eq!(receiver.log.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn batches_are_lists_in_order() {
    let receiver = accepting_receiver().await;
    let queue = json!({"max_batch_size": 3, "max_coalescing_delay": 3600});
    let logging = LoggingServer::with_config(json!({"queue": queue}), &receiver).await;
    logging.get(4).await;
    wait_for_bodies(&receiver, 1).await;
    with_timeout("the last batch", flush_queues(&logging.state, Duration::from_secs(10))).await;
    let batches = wait_for_bodies(&receiver, 2).await;
    let batches: Vec<_> = batches.iter().map(|batch| paths(batch.as_array().unwrap())).collect();
    assert_eq!(batches, [&["/0", "/1", "/2"][..], &["/3"]]);
    logging.wait_for_counts("accepted entries", |counts| counts.sent == 4).await;
}

#[tokio::test]
async fn rejected_batches_are_sent_again_in_order() {
    let receiver = Endpoint::scripted(|mut stream, _| async move {
        for status in ["500 Oops", "302 Found", "204 No Content"] {
            if stream.request().await.is_none() {
                return;
            }
            let length = if status.starts_with("204") { "" } else { "content-length: 0\r\n" };
            stream.send(format!("HTTP/1.1 {status}\r\n{length}\r\n")).await;
        }
        while stream.request().await.is_some() {
            stream.send("HTTP/1.1 299 Fine\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let logging = LoggingServer::with_config(json!({}), &receiver).await;
    logging.get(2).await;
    logging.wait_for_counts("accepted entries", |counts| counts.sent == 2).await;
    assert_eq!(paths(&bodies(&receiver)), ["/0", "/0", "/0", "/1"]);
    assert_eq!(logging.counts(), QueueCounts { sent: 2, retries: 2, ..QueueCounts::default() });
}

#[tokio::test]
async fn faulty_servers_do_not_affect_requests() {
    const CASES: [(&str, &str); 4] = [
        ("closes", ""),
        ("responds with garbage", "nonsense\r\n\r\n"),
        ("closes midway", "HTTP/1.1 200 OK\r\ncontent-le"),
        ("is slow", "wait"),
    ];
    for (what, response) in CASES {
        let receiver = Endpoint::scripted(move |mut stream, _| async move {
            stream.request().await;
            if response == "wait" {
                std::future::pending::<()>().await;
            }
            stream.send(response).await;
        })
        .await;
        let config = json!({"timeout": 50, "queue": {"max_retry_time": 0.05}});
        let logging = LoggingServer::with_config(config, &receiver).await;
        logging.get(2).await;
        logging.wait_for_counts(what, |counts| counts.dropped_failed == 2).await;
        assert_eq!(logging.counts().sent, 0, "{what}");
    }
    let (down, _reserved) = reserve_address();
    let receiver = accepting_receiver().await;
    let config = json!({"http_endpoint": format!("http://{down}/"), "queue": {"max_retry_time": -1}});
    let logging = LoggingServer::with_config(config, &receiver).await;
    logging.get(2).await;
    logging.wait_for_counts("dropped entries", |counts| counts.dropped_failed == 2).await;
    assert_eq!(logging.counts().retries, 0);
}

#[tokio::test]
async fn endless_body_of_an_accepting_server_is_not_read() {
    let receiver = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\n\r\n").await;
        // Ends when the client closes the connection.
        let part = [b'x'; 64 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut stream.socket, &part).await.is_ok() {}
    })
    .await;
    let logging = LoggingServer::with_config(json!({}), &receiver).await;
    logging.get(2).await;
    logging.wait_for_counts("accepted entries", |counts| counts.sent == 2).await;
    receiver.log.wait_for("closed connections", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn overflow_drops_the_oldest_and_is_counted() {
    let released = Arc::new(tokio::sync::Notify::new());
    let held = Arc::clone(&released);
    let receiver = Endpoint::scripted(move |mut stream, _| {
        let held = Arc::clone(&held);
        async move {
            let mut is_first = true;
            while stream.request().await.is_some() {
                if std::mem::take(&mut is_first) {
                    held.notified().await;
                }
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let logging = LoggingServer::with_config(json!({"queue": {"max_entries": 2}}), &receiver).await;
    logging.get(1).await;
    receiver.log.wait_for("the first log", |log| log.requests().len() == 1).await;
    logging.get(5).await;
    logging.wait_for_counts("drops", |counts| counts.dropped_full == 3).await;
    released.notify_one();
    logging.wait_for_counts("the rest", |counts| counts.sent == 3).await;
    assert_eq!(paths(&bodies(&receiver)), ["/0", "/3", "/4"]);
}

#[tokio::test]
async fn stop_flushes_what_waits_within_a_bound() {
    let receiver = accepting_receiver().await;
    let queue = json!({"max_batch_size": 100, "max_coalescing_delay": 3600});
    let logging = LoggingServer::with_config(json!({"queue": queue}), &receiver).await;
    logging.get(3).await;
    logging.wait_for_counts("waiting entries", |counts| counts.pending == 3).await;
    assert!(bodies(&receiver).is_empty());
    with_timeout("the flush", flush_queues(&logging.state, Duration::from_secs(10))).await;
    assert_eq!(paths(bodies(&receiver)[0].as_array().unwrap()), ["/0", "/1", "/2"]);

    let (down, _reserved) = reserve_address();
    let config = json!({"http_endpoint": format!("http://{down}/")});
    let logging = LoggingServer::with_config(config, &receiver).await;
    logging.get(2).await;
    logging.wait_for_counts("waiting entries", |counts| counts.pending == 2).await;
    with_timeout("the bound", flush_queues(&logging.state, Duration::from_millis(100))).await;
    let counts = logging.counts();
    assert_eq!((counts.dropped_stopped, counts.pending), (2, 0));
}

#[tokio::test]
async fn plugin_that_is_built_again_keeps_its_queue() {
    let receiver = accepting_receiver().await;
    let state = PluginState::default();
    let queue = json!({"queue": {"max_batch_size": 2, "max_coalescing_delay": 3600}});
    let (address, reserved) = reserve_address();
    let endpoint = Endpoint::ok().await;
    let with_chain = |chain| snapshot(address, vec![Route { plugins: Some(chain), ..route(to(&endpoint)) }]);
    let before = with_chain(logging_chain(queue.clone(), &receiver, &[], &state));
    let server = TestServer::start(Options::default(), address, reserved, before);
    server.proxy.reconcile().await;
    let mut client = Client::connect(address).await;
    client.get("/before").await;
    until("the first entry", async || queue_counts(&state).iter().any(|(_, counts)| counts.pending > 0)).await;
    server.snapshot.store(Arc::new(with_chain(logging_chain(queue, &receiver, &[], &state))));
    client.get("/after").await;
    let batch = wait_for_bodies(&receiver, 1).await.remove(0);
    assert_eq!(paths(batch.as_array().unwrap()), ["/before", "/after"]);
}

#[tokio::test]
async fn concurrent_requests_are_all_logged() {
    let receiver = accepting_receiver().await;
    let queue = json!({"max_batch_size": 50, "max_coalescing_delay": 0.05, "concurrency_limit": -1});
    let logging = LoggingServer::with_config(json!({"queue": queue}), &receiver).await;
    futures_util::future::join_all((0..8).map(|_| logging.get(25))).await;
    logging.wait_for_counts("accepted entries", |counts| counts.sent == 200).await;
    let mut logged = BTreeMap::new();
    for batch in bodies(&receiver) {
        for path in paths(batch.as_array().unwrap()) {
            *logged.entry(path.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(logged.len() == 25 && logged.values().all(|count| *count == 8), "{logged:?}");
}

/// Functions of all phases add fields, which `custom_fields_by_lua` precedes; their values are also in templates of
/// other plugins. Credentials that a function of `log` reads are replaced, and copies that others have made.
// docs/kong-compatibility.md, 4.22
#[tokio::test]
async fn functions_add_fields_and_share_values() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok").await;
    let receiver = accepting_receiver().await;
    let functions = json!({
        "access": ["kong.ctx.shared.version = '1.' .. 2\n\
                    kong.log.set_serialize_value('app.version', kong.ctx.shared.version)\n\
                    kong.log.set_serialize_value('request.method', 'changed', {mode = 'add'})\n\
                    kong.log.set_serialize_value('absent', 1, {mode = 'replace'})\n\
                    kong.log.set_serialize_value('table', {a = 1, b = {c = true}})\n\
                   kong.ctx.shared.key = kong.request.get_header('apikey')\n\
                   kong.log.set_serialize_value('copy', 'of ' .. kong.ctx.shared.key)"],
        "header_filter": ["kong.log.set_serialize_value('status', kong.response.get_status())"],
        "log": ["kong.log.set_serialize_value('late', kong.request.get_path())\n\
                 kong.log.set_serialize_value('key', kong.request.get_header('apikey'))\n\
                 kong.log.set_serialize_value('shared', kong.ctx.shared.version)\n\
                 kong.log.set_serialize_value('request.querystring', nil)",
                "error('the fields of the first function stay')"],
    });
    let transformer = json!({"add": {"headers": ["x-version:$(shared.version)", "x-none:$(shared.none)"]}});
    let plugins = [("pre-function", functions), ("request-transformer", transformer), ("key-auth", json!({}))];
    let config = json!({"custom_fields_by_lua": {
        "late": "return 'last'", "from": "return kong.ctx.shared.version", "shared_key": "return kong.ctx.shared.key",
    }});
    let logging = LoggingServer::start(config, &receiver, &plugins, to(&endpoint)).await;
    let mut client = Client::connect(logging.server.address).await;
    let request = "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\napikey: secret\r\n\r\n";
    client.send(request).await;
    assert_eq!(client.response().await.status, 201);
    let sent = endpoint.log.requests().remove(0);
    assert_eq!((header(&sent, "x-version"), header(&sent, "x-none")), (Some("1.2"), None), "{sent}");
    let object = &wait_for_bodies(&receiver, 1).await[0];
    assert_eq!(object["status"], 201);
    assert_eq!(object["app"], json!({"version": "1.2"}));
    assert_eq!((&object["request"]["method"], object.get("absent")), (&json!("GET"), None));
    assert_eq!(object["table"], json!({"a": 1, "b": {"c": true}}));
    assert_eq!((&object["late"], &object["from"], &object["shared"]), (&json!("last"), &json!("1.2"), &json!("1.2")));
    assert_eq!((&object["key"], &object["shared_key"]), (&json!("REDACTED"), &json!("REDACTED")));
    assert_eq!(object["copy"], "of REDACTED");
    assert!(object["request"].get("querystring").is_none(), "{object}");
}
