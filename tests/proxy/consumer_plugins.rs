//! Plugins of consumers on the wire: they run on the requests of their consumers, in all phases.

use std::sync::Arc;

use http::HeaderValue;
use portico::plugin_api::consumers::plugins::{ConsumerPlugin, PluginSubject};
use portico::plugin_api::instance::{ExecutionPlace, PluginInstance};
use portico::plugin_api::{AccessOutcome, ConsumerDirectory, Phases, Plugin, RequestCx, ResponseCx, ResponseOutcome};
use portico::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use portico::plugin_chain::testing::{build, consumer, global_instance, names};
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::harness::{Endpoint, Options, Route, TestServer, forward, reserve_address, route, snapshot, upstream};

/// Writes `x-tier` into requests and responses.
struct Tier(&'static str);

impl Plugin for Tier {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.head.headers.insert("x-tier", HeaderValue::from_static(self.0));
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        cx.headers.insert("x-tier", HeaderValue::from_static(self.0));
        ResponseOutcome::Continue
    }
}

/// Authenticates the consumer that the header `x-name` names; requests without it are anonymous.
struct AuthenticateByName;

impl Plugin for AuthenticateByName {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let name = cx.head.headers.get("x-name").and_then(|name| name.to_str().ok()).unwrap_or_default();
        cx.identity.consumer = cx.consumers.by_id_or_username(name).cloned();
        AccessOutcome::Continue
    }
}

fn tier(name: &'static str) -> Arc<ConsumerPlugin> {
    let place = ExecutionPlace { kind: "tier", priority: 10 };
    Arc::new(ConsumerPlugin { place, instance: global_instance(Arc::new(Tier(name))) })
}

/// A limit of this many requests in a year.
fn limit(requests: u64) -> Arc<ConsumerPlugin> {
    plugin("rate-limiting", &json!({"year": requests, "policy": "local"}))
}

fn plugin(name: &str, config: &Value) -> Arc<ConsumerPlugin> {
    let kind = REGISTRY.find(name).unwrap();
    let plugin = build(kind, config).unwrap();
    let place = ExecutionPlace { kind: kind.name(), priority: kind.priority() };
    Arc::new(ConsumerPlugin { place, instance: PluginInstance { phases: kind.phases(), ..global_instance(plugin) } })
}

/// A proxy whose route authenticates the consumers `anna`, `bert` and `carl`, of which two have these plugins.
async fn server(endpoint: &Endpoint, anna: Vec<Arc<ConsumerPlugin>>, bert: Vec<Arc<ConsumerPlugin>>) -> TestServer {
    let mut directory = ConsumerDirectory::default();
    for name in ["anna", "bert", "carl"] {
        directory.add(&consumer(name, &[]));
    }
    let plugins_of = |name: &str| PluginSubject::Consumer(format!("id-{name}").into());
    directory.set_plugins(&plugins_of("anna"), anna.into_iter().collect());
    directory.set_plugins(&plugins_of("bert"), bert.into_iter().collect());
    let mut builder = ChainBuilder::default();
    // No plugin of the chain itself runs on responses.
    let auth = PluginInstance { phases: Phases::ACCESS, ..global_instance(Arc::new(AuthenticateByName)) };
    builder.add("auth", 1500, AttachmentPoint::Base(BaseScope::Route), auth);
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let route = Route { plugins: builder.build(names()), ..route(action) };
    let (address, reserved) = reserve_address();
    let snapshot = Snapshot { consumers: Arc::new(directory), ..snapshot(address, vec![route]) };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

// docs/kong-compatibility.md, 1.4
// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn plugins_run_on_requests_and_responses_of_their_consumer() {
    let endpoint = Endpoint::ok().await;
    let server = server(&endpoint, vec![tier("gold"), limit(2)], vec![tier("silver")]).await;
    for (name, status, tier, remaining) in [
        ("anna", 200, Some("gold"), Some("1")),
        ("bert", 200, Some("silver"), None),
        ("carl", 200, None, None),
        ("unknown", 200, None, None),
        ("anna", 200, Some("gold"), Some("0")),
        // The limit replies, and the response phase of the other plugin runs on its reply.
        ("anna", 429, Some("gold"), Some("0")),
        ("bert", 200, Some("silver"), None),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: a.example\r\nx-name: {name}\r\nconnection: close\r\n\r\n");
        let response = server.request(&request).await;
        let headers = (response.header("x-tier"), response.header("ratelimit-remaining"));
        assert_eq!((response.status, headers.0, headers.1), (status, tier, remaining), "{name}");
        let received = endpoint.log.requests().last().cloned().unwrap_or_default();
        let sent = received.lines().find_map(|line| line.strip_prefix("x-tier: "));
        if status == 200 {
            assert_eq!(sent, tier, "{name}: {received}");
        }
    }
    assert_eq!(endpoint.log.requests().len(), 6, "the rejected request is not forwarded");
}

// docs/kong-compatibility.md, 1.4
#[tokio::test]
async fn bodies_are_read_for_the_plugins_of_their_consumer() {
    let endpoint = Endpoint::ok().await;
    let anna = vec![
        plugin("request-transformer", &json!({"remove": {"body": ["secret"]}})),
        plugin("injection-protection", &json!({"injection_types": ["sql"], "locations": ["body"]})),
    ];
    let server = server(&endpoint, anna, vec![tier("silver")]).await;
    let injection = r#"{"name": "a' OR 1=1 --"}"#;
    let secret = r#"{"name":"a","secret":"b"}"#;
    let large = format!(r#"{{"name":"{}"}}"#, "a".repeat(2 << 20));
    for (name, body, status) in [
        ("anna", secret, 200),
        ("anna", injection, 400),
        ("anna", &large, 413),
        ("bert", injection, 200),
        ("carl", &large, 200),
        ("anna", "", 200),
    ] {
        let mut client = server.connect().await;
        let head = "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-type: application/json\r\nconnection: close\r\n";
        let length = body.len();
        let request = format!("{head}x-name: {name}\r\ncontent-length: {length}\r\n\r\n{body}");
        client.send(request).await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{name}, {length} bytes: {}", response.text());
    }
    let received = endpoint.log.requests();
    assert_eq!(received.len(), 4);
    assert!(received[0].ends_with("\r\n\r\n{\"name\":\"a\"}"), "{}", received[0]);
    assert!(received[1].ends_with(injection) && received[2].ends_with(&large));
}

/// A body that is read after the limit of its consumer is known is limited as it was received.
// docs/kong-compatibility.md, 4.27
#[tokio::test]
async fn changed_bodies_of_consumers_are_limited_as_they_were_received() {
    let endpoint = Endpoint::ok().await;
    let limit = || plugin("request-size-limiting", &json!({"allowed_payload_size": 60, "size_unit": "bytes"}));
    let anna = vec![limit(), plugin("request-transformer", &json!({"remove": {"body": ["a"]}}))];
    let added = format!("c:{}", "d".repeat(100));
    let bert = vec![limit(), plugin("request-transformer", &json!({"add": {"body": [added]}}))];
    let server = server(&endpoint, anna, bert).await;
    let small = r#"{"a":"bbbbbbbbbb"}"#.to_owned();
    let large = format!(r#"{{"a":"{}"}}"#, "b".repeat(100));
    for (name, body, status) in
        [("anna", &small, 200), ("anna", &large, 413), ("bert", &small, 200), ("bert", &large, 413)]
    {
        let mut client = server.connect().await;
        let head = "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-type: application/json\r\nconnection: close\r\n";
        let length = body.len();
        client
            .send(format!(
                "{head}x-name: {name}\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.response().await.status, status, "{name}, {length} bytes");
    }
}
