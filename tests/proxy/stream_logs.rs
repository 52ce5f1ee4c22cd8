//! Log plugins of stream routes: one object for each connection, also for one that no endpoint gets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portico::bind_address::BindAddress;
use portico::plugin_api::route_description::RouteDescription;
use portico::plugin_api::{LogCx, Plugin};
use portico::plugin_chain::StreamChain;
use portico::plugin_chain::chain::BaseScope;
use portico::plugin_chain::stream_chain::StreamChainBuilder;
use portico::plugin_chain::testing::{global_instance, names};
use portico::plugin_kit::log_fields::CustomFields;
use portico::snapshot::rule::RuleId;
use portico::snapshot::stream::{StreamAction, StreamRoute, StreamRule};
use portico::snapshot::{Bind, Snapshot};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::accounting::wait_for_metrics;
use crate::harness::{Options, TestServer, reserve_address, upstream};
use crate::stream::{assert_reset_at_once, echo_endpoint, expect_text, to_upstream, wait_until_closed};
use crate::udp::{UdpClient, UdpEndpoint, udp_upstream};

/// Keeps the objects that log plugins write.
#[derive(Clone)]
struct Recorder(Arc<Mutex<Vec<Value>>>, Arc<CustomFields>);

impl Recorder {
    fn new() -> Recorder {
        let fields = BTreeMap::from([("client".to_owned(), "return kong.client.get_ip()".to_owned())]);
        let mut invalid = Vec::new();
        let fields = CustomFields::parse(&fields, &mut invalid);
        assert!(invalid.is_empty(), "{invalid:?}");
        Recorder(Arc::default(), Arc::new(fields))
    }

    fn chain(&self) -> Arc<StreamChain> {
        let mut builder = StreamChainBuilder::default();
        builder.add("recorder", 1, BaseScope::Route, global_instance(Arc::new(self.clone())));
        builder.describe((*names()).clone(), RouteDescription::from_names("tcproute.a.b.0.0", "tcproute.a.b.0"));
        builder.build().unwrap()
    }

    fn only_object(&self) -> Value {
        let objects = self.0.lock().unwrap();
        assert_eq!(objects.len(), 1, "{objects:?}");
        objects[0].clone()
    }
}

impl Plugin for Recorder {
    fn log(&self, cx: &LogCx<'_>) {
        let object = serde_json::from_slice(&self.1.object(cx)).unwrap();
        self.0.lock().unwrap().push(object);
    }
}

fn rule(action: Option<StreamAction>, recorder: &Recorder) -> Arc<StreamRule> {
    let id = RuleId { route: "TCPRoute/a/b".into(), rule: "0".into() };
    let plugins = Some(recorder.chain());
    Arc::new(StreamRule {
        gateway: "default/gw".into(),
        listener: "tcp".into(),
        port: 5432,
        route: action.map(|action| Arc::new(StreamRoute { id, plugins, action, options: None })),
    })
}

async fn start(action: Option<StreamAction>, recorder: &Recorder) -> TestServer {
    let (address, reserved) = reserve_address();
    let bind = Arc::new(Bind::with_tcp(rule(action, recorder)));
    let snapshot = Snapshot { binds: [(BindAddress::tcp(address), bind)].into(), ..Snapshot::default() };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

// docs/kong-compatibility.md, 4.39
#[tokio::test]
async fn connection_is_logged_when_it_ends() {
    let (endpoint, recorder) = (echo_endpoint().await, Recorder::new());
    let server = start(to_upstream(&upstream("db", &[endpoint.address])), &recorder).await;
    let mut client = server.connect().await;
    client.send("hello").await;
    expect_text(&mut client, "hello").await;
    client.socket.shutdown().await.unwrap();
    expect_text(&mut client, "bye").await;
    drop(client);
    wait_until_closed(&server).await;
    let object = recorder.only_object();
    let session = serde_json::json!({"received": 5, "sent": 8, "status": 200, "server_port": 5432});
    assert_eq!(object["session"], session, "{object}");
    assert_eq!(object["upstream"], serde_json::json!({"received": 8, "sent": 5}));
    assert_eq!((&object["client_ip"], &object["client"]), (&"127.0.0.1".into(), &"127.0.0.1".into()));
    assert_eq!((&object["route"]["name"], &object["source"]), (&"tcproute.a.b.0.0".into(), &"upstream".into()));
    assert_eq!(object["tries"][0]["port"], endpoint.address.port());
    assert!(object["tries"][0]["code"].is_null() && object["latencies"]["session"].is_u64(), "{object}");
    assert!(object.get("request").is_none(), "a session has no request: {object}");
}

#[tokio::test]
async fn connection_without_an_endpoint_is_logged() {
    let recorder = Recorder::new();
    let server = start(to_upstream(&upstream("db", &[])), &recorder).await;
    assert_reset_at_once(&server).await;
    wait_until_closed(&server).await;
    let object = recorder.only_object();
    assert_eq!((&object["session"]["status"], &object["source"]), (&503.into(), &"kong".into()), "{object}");
    assert_eq!(object["tries"], serde_json::json!([]));
}

#[tokio::test]
async fn udp_session_is_logged_when_it_ends() {
    let (endpoint, recorder) = (UdpEndpoint::start("a:").await, Recorder::new());
    let (reserved_address, reserved) = reserve_address();
    let address = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 79).into(), reserved_address.port());
    let action = to_upstream(&udp_upstream("dns", &[endpoint.address]));
    let bind = Arc::new(Bind::with_udp(rule(action, &recorder)));
    let snapshot = Snapshot { binds: [(BindAddress::udp(address), bind)].into(), ..Snapshot::default() };
    let server = TestServer::start(Options::default(), address, reserved, snapshot);
    server.proxy.reconcile().await;
    let client = UdpClient::new().await;
    assert_eq!(client.exchange(&server, "ping").await, "a:ping");
    server.proxy.drain(Duration::ZERO).await;
    wait_for_metrics(&server, "the end of the session", |metrics| metrics["portico_udp_sessions"] == 0.0).await;
    let object = recorder.only_object();
    assert_eq!((&object["session"]["received"], &object["session"]["sent"]), (&4.into(), &6.into()), "{object}");
    assert_eq!(object["tries"][0]["port"], endpoint.address.port());
}
