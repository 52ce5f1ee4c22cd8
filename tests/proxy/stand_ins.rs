//! What takes the place of a backend gets the request that the backend would get: a table over all plugins of the
//! registry that do, behind everything that may change a request before.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use portico::plugin_api::{AnyPluginKind, PluginState};
use portico::plugin_chain::testing::chain_with;
use portico::plugins::REGISTRY;
use portico::snapshot::external_auth::{AuthorizationProtocol, ExternalAuthFilter, HttpAuthorization};
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, HeaderEdits, Mirror, Rewrite, WeightedBackends,
};
use portico::upstream::{EndpointAddress, Endpoints};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::functions::responding;
use crate::harness::{Endpoint, Route, TestResponse, TestServer, header, route, upstream};
use crate::http_log::{loopback_services, services_with_port_80};

/// What the client claims, and what Portico decides instead.
const CLAIMED: &str = "claimed-by-the-client";
const DECIDED: &str = "decided-by-the-gateway";

/// A plugin that takes the place of the backend, and what shows what it gets.
struct StandIn {
    kind: &'static dyn AnyPluginKind,
    config: Value,
    /// The port to which connections to port 80 go.
    port_80: Option<u16>,
    /// A field of requests that the plugin sends or reads.
    field: &'static str,
    shows_path: bool,
    shows_host: bool,
    /// Everything that it has sent.
    sent: Box<dyn Fn() -> String>,
}

/// All plugins of the registry that take the place of the backend.
async fn stand_ins() -> Vec<StandIn> {
    let mut all = Vec::new();
    for kind in REGISTRY.iter().filter(|kind| kind.phases().replace_backend) {
        all.push(stand_in(kind).await);
    }
    all
}

async fn stand_in(kind: &'static dyn AnyPluginKind) -> StandIn {
    let receiver = responding(|_, _| (200, "{}".to_owned())).await;
    let port = receiver.address.port();
    let of_user = |config: Value| StandIn {
        kind,
        config,
        port_80: None,
        field: "x-user",
        shows_path: false,
        shows_host: false,
        sent: Box::new(move || receiver.log.requests().concat()),
    };
    match kind.name() {
        "aggregate" => {
            let url = format!("http://127.0.0.1:{port}/user");
            of_user(json!({"calls": [{"name": "a", "url": url, "forward_headers": ["x-user"]}]}))
        }
        "aws-lambda" => {
            let config = json!({
                "host": "127.0.0.1", "port": port, "disable_https": true, "aws_region": "eu-west-1", "aws_key": "a",
                "aws_secret": "b", "function_name": "f", "awsgateway_compatible": true,
            });
            StandIn { shows_path: true, shows_host: true, ..of_user(config) }
        }
        "azure-functions" => {
            let config = json!({"appname": "127.0.0", "hostdomain": "1", "functionname": "f", "https": false});
            StandIn { port_80: Some(port), ..of_user(config) }
        }
        "forward-proxy" => {
            let config = json!({"http_proxy_host": "127.0.0.1", "http_proxy_port": port});
            StandIn { shows_path: true, ..of_user(config) }
        }
        "kafka-upstream" => {
            let (port, received) = broker().await;
            let config = json!({
                "topic": "t", "bootstrap_servers": [{"host": "127.0.0.1", "port": port}], "producer_async": false,
                "forward_headers": true, "forward_uri": true,
            });
            let sent = Box::new(move || String::from_utf8_lossy(&received.lock()).into_owned());
            StandIn { shows_path: true, shows_host: true, sent, ..of_user(config) }
        }
        "mocking" => {
            let operation = |path: &str| {
                let examples = json!({
                    "": {"value": path}, CLAIMED: {"value": format!("{path} {CLAIMED}")},
                    DECIDED: {"value": format!("{path} {DECIDED}")},
                });
                let content = json!({"text/plain": {"examples": examples}});
                json!({"get": {"responses": {"200": {"description": "a", "content": content}}}})
            };
            let paths = json!({"/shown": operation("/shown"), "/rewritten": operation("/rewritten")});
            let config = json!({"api_specification": json!({"openapi": "3.1.0", "paths": paths}).to_string()});
            let field = "x-kong-mocking-example-id";
            StandIn { field, shows_path: true, sent: Box::new(String::new), ..of_user(config) }
        }
        name => panic!("{name} takes the place of the backend, and has no row in this table"),
    }
}

/// A broker with one topic of one partition. Returns its port, and everything that it gets.
async fn broker() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(respond_as_broker(stream, port, Arc::clone(&log)));
        }
    });
    (port, received)
}

/// Responds in the versions of requests that Portico sends, whose formats the protocol guide of Kafka has.
async fn respond_as_broker(mut stream: TcpStream, port: u16, log: Arc<Mutex<Vec<u8>>>) {
    while let Ok(length) = stream.read_u32().await {
        let mut request = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut request).await.unwrap();
        log.lock().extend_from_slice(&request);
        let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
        let number = |number: i32| number.to_be_bytes().to_vec();
        let body = match request[..2] {
            // Produce: one topic, one partition, no error, offset, time, and no delay.
            [0, 0] => [number(1), text("t"), number(1), number(0), vec![0; 2 + 8 + 8], number(0)].concat(),
            // Metadata: no delay, one broker, a cluster without a name, the topic, and its partition.
            [0, 3] => {
                let brokers = [number(1), number(1), text("127.0.0.1"), number(port.into()), vec![0xFF; 2]].concat();
                let partition = [vec![0; 2], number(0), number(1), number(0), number(0)].concat();
                let topic = [vec![0; 2], text("t"), vec![0], number(1), partition].concat();
                [number(0), brokers, vec![0xFF; 2], number(1), number(1), topic].concat()
            }
            // Versions of both.
            [0, 18] => [vec![0; 2], number(2), vec![0, 0, 0, 0, 0, 9], vec![0, 3, 0, 0, 0, 9]].concat(),
            _ => panic!("an unexpected request: {request:?}"),
        };
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &request[4..8], &body].concat()).await.unwrap();
    }
}

/// The filters of the rule, those of the backend, and further plugins.
#[derive(Default)]
struct Before {
    rule: Filters,
    backend: Filters,
    plugins: Vec<(&'static str, Value)>,
}

impl StandIn {
    /// Sends a request with the field of the client. Returns the response, and everything that shows what the plugin
    /// has got.
    async fn run(&self, before: Before) -> (TestResponse, String) {
        let plugins = before.plugins.into_iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config));
        let plugins: Vec<_> = plugins.chain([(self.kind, self.config.clone())]).collect();
        // Of this server only: the worker of an earlier one, which has ended, drives the connections that it opened.
        let services = self.port_80.map_or_else(loopback_services, services_with_port_80);
        let chain = chain_with(&plugins, &PluginState::default(), &services);
        let upstream = upstream("partner", &[]);
        let host = EndpointAddress::Name { host: "api.partner.example".into(), port: 8080 };
        upstream.set_endpoints(Endpoints { addresses: vec![host], ..Endpoints::default() });
        let backend = Backend { weight: 1, filters: before.backend, target: BackendTarget::Upstream(upstream) };
        let action = Action::Forward(WeightedBackends::new(vec![backend]).unwrap());
        let routes = vec![Route { plugins: Some(chain), filters: before.rule, ..route(action) }];
        let server = TestServer::with_routes(routes).await;
        let already = (self.sent)().len();
        let field = self.field;
        let request =
            format!("GET /shown HTTP/1.1\r\nhost: shown.example\r\naccept: */*\r\n{field}: {CLAIMED}\r\n\r\n");
        let response = server.request(&request).await;
        let seen = format!("{}{}", response.text(), &(self.sent)()[already..]);
        (response, seen)
    }
}

fn edits(edits: HeaderEdits) -> Filters {
    Filters { request_headers: Some(edits), ..Filters::default() }
}

fn set(field: &'static str) -> HeaderEdits {
    let set = vec![(HeaderName::from_static(field), HeaderValue::from_static(DECIDED))];
    HeaderEdits { set, ..HeaderEdits::default() }
}

#[tokio::test]
async fn what_takes_the_place_of_a_backend_gets_the_fields_that_the_backend_would_get() {
    for stand_in in stand_ins().await {
        let (name, field) = (stand_in.kind.name(), stand_in.field);
        let name_of_field = HeaderName::from_static(field);
        let (response, seen) = stand_in.run(Before::default()).await;
        assert_eq!(response.status, 200, "{name}: {seen}");
        assert!(seen.contains(CLAIMED), "{name} shows the field of the client if nothing changes it: {seen}");

        let authorization = Endpoint::scripted(move |mut stream, _| async move {
            while stream.request().await.is_some() {
                stream.send(format!("HTTP/1.1 200 OK\r\n{field}: {DECIDED}\r\ncontent-length: 0\r\n\r\n")).await;
            }
        })
        .await;
        let protocol = AuthorizationProtocol::Http(HttpAuthorization {
            path_prefix: "".into(),
            request_headers: Box::default(),
            response_headers: Some([&name_of_field].into_iter().collect()),
        });
        let upstream = upstream("auth", &[authorization.address]);
        let external_auth =
            Some(Box::new(ExternalAuthFilter { name: "the server".into(), upstream, protocol, max_body: 0 }));
        let lua = format!("kong.service.request.set_header('{field}', '{DECIDED}')");
        for (what, before) in [
            (
                "ExternalAuth of the rule",
                Before {
                    rule: Filters { external_auth: external_auth.clone(), ..Filters::default() },
                    ..Before::default()
                },
            ),
            (
                "ExternalAuth of the backend",
                Before { backend: Filters { external_auth, ..Filters::default() }, ..Before::default() },
            ),
            ("RequestHeaderModifier of the rule", Before { rule: edits(set(field)), ..Before::default() }),
            ("RequestHeaderModifier of the backend", Before { backend: edits(set(field)), ..Before::default() }),
            (
                "post-function",
                Before { plugins: vec![("post-function", json!({"access": [lua]}))], ..Before::default() },
            ),
        ] {
            let (response, seen) = stand_in.run(before).await;
            assert_eq!(response.status, 200, "{name} behind {what}: {seen}");
            assert!(seen.contains(DECIDED), "{name} behind {what}: {seen}");
            assert!(!seen.contains(CLAIMED), "{name} behind {what}: {seen}");
        }
        let remove = || HeaderEdits { remove: vec![name_of_field.clone()], ..HeaderEdits::default() };
        for before in [
            Before { rule: edits(remove()), ..Before::default() },
            Before { backend: edits(remove()), ..Before::default() },
        ] {
            let (response, seen) = stand_in.run(before).await;
            assert_eq!(response.status, 200, "{name}: {seen}");
            assert!(!seen.contains(CLAIMED), "{name} gets a field that the filter removes: {seen}");
        }
    }
}

#[tokio::test]
async fn what_takes_the_place_of_a_backend_gets_the_path_and_the_host_that_filters_write() {
    for stand_in in stand_ins().await {
        let StandIn { shows_path, shows_host, .. } = stand_in;
        let name = stand_in.kind.name();
        let rewrite = Rewrite {
            host: Some(HeaderValue::from_static("written.example")),
            path: Some(PathEdit::Full("/rewritten".into())),
        };
        for is_of_rule in [true, false] {
            let rewriting = Filters { rewrite: Some(rewrite.clone()), ..Filters::default() };
            let (rule, backend) =
                if is_of_rule { (rewriting, Filters::default()) } else { (Filters::default(), rewriting) };
            let (response, seen) = stand_in.run(Before { rule, backend, ..Before::default() }).await;
            assert_eq!(response.status, 200, "{name}: {seen}");
            assert_eq!(seen.contains("/rewritten"), shows_path, "{name}: {seen}");
            assert!(!seen.contains("/shown"), "{name}: {seen}");
            assert_eq!(seen.contains("written.example"), shows_host, "{name}: {seen}");
        }
        let (_, unchanged) = stand_in.run(Before::default()).await;
        assert_eq!(unchanged.contains("/shown"), shows_path, "{name}: {unchanged}");
        // All requests that are sent on have it in another field, too.
        assert!(!shows_host || unchanged.contains("shown.example"), "{name}: {unchanged}");
    }
}

/// The compiler refuses such a rule. This is for a plugin that only a consumer has.
#[tokio::test]
async fn a_rule_is_not_served_without_its_mirrors() {
    for stand_in in stand_ins().await {
        let endpoint = Endpoint::ok().await;
        let mirror = Mirror { upstream: upstream("copies", &[endpoint.address]), numerator: 1, denominator: 1 };
        let rule = Filters { mirrors: [mirror].into(), ..Filters::default() };
        let (response, seen) = stand_in.run(Before { rule, ..Before::default() }).await;
        let name = stand_in.kind.name();
        assert_eq!(response.status, 500, "{name}: {seen}");
        assert!(!seen.contains(CLAIMED) && endpoint.log.requests().is_empty(), "{name}: {seen}");
    }
}

/// A cache finds responses by what clients send: a filter neither makes one response of several nor hides a login.
#[tokio::test]
async fn caches_know_requests_as_clients_send_them() {
    for (mode, field) in
        [("kong", "authorization"), ("rfc9111", "authorization"), ("kong", "x-user"), ("rfc9111", "x-user")]
    {
        let removed = HeaderEdits { remove: vec![HeaderName::from_static(field)], ..HeaderEdits::default() };
        for (what, change) in [("set", set(field)), ("removed", removed)] {
            let endpoint = Endpoint::scripted(move |mut stream, _| async move {
                while let Some(request) = stream.request().await {
                    let count = stream.log().requests().len();
                    let body = format!("{count} {}", header(&request, field).unwrap_or("none"));
                    let fields = "content-type: text/plain\r\ncache-control: max-age=60\r\nvary: x-user\r\n";
                    let length = body.len();
                    stream.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: {length}\r\n\r\n{body}")).await;
                }
            })
            .await;
            let mut config = json!({"strategy": "memory", "mode": mode});
            if mode == "kong" {
                config["content_type"] = json!(["text/plain"]);
            }
            let plugins = [(REGISTRY.find("proxy-cache").unwrap(), config)];
            let chain = chain_with(&plugins, &PluginState::default(), &loopback_services());
            let backend = BackendTarget::Upstream(upstream("web", &[endpoint.address]));
            let backend = Backend { weight: 1, filters: Filters::default(), target: backend };
            let action = Action::Forward(WeightedBackends::new(vec![backend]).unwrap());
            let rewrite = Some(Rewrite { host: None, path: Some(PathEdit::Full("/one".into())) });
            let filters = Filters { rewrite, ..edits(change) };
            let server = TestServer::with_routes(vec![Route { plugins: Some(chain), filters, ..route(action) }]).await;
            let get = async |path: &str, fields: &str| {
                server.request(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await.text()
            };
            let case = format!("{mode}, {field} is {what}");
            let first = get("/a", "").await;
            assert_eq!(get("/a", "").await, first, "{case}: the response is stored");
            assert_ne!(get("/b", "").await, first, "{case}: another target of the client has another response");
            let of_user = get("/user", &format!("{field}: anna\r\n")).await;
            assert_ne!(
                get("/user", &format!("{field}: ben\r\n")).await,
                of_user,
                "{case}: no user gets what another one got"
            );
            assert_ne!(get("/user", "").await, of_user, "{case}: nor is it stored for all");
        }
    }
}
