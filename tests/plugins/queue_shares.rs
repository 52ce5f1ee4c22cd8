//! What plugins queue counts for the namespaces of the routes whose requests it is about, and not for the namespace of
//! the object: a KongClusterPlugin has the log of several tenants in one queue.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico::plugin_api::batch_queue::{QueuedBytes, queue_counts};
use portico::plugin_api::{AnyPluginKind, Plugin, PluginServices, PluginState, RouteNames};
use portico::plugin_chain::Chain;
use portico::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use portico::plugin_chain::testing::{TestRequest, build_with, instance};
use portico::plugins::REGISTRY;
use portico::ssrf_guard::AddressPolicy;
use serde_json::{Value, json};

use crate::plugins::contract::minimal_config;

/// The bytes of all queues. Small, so that few requests fill the share of a namespace.
const QUEUED_BYTES: usize = 50_000;

/// No server is reachable, so what is queued stays there.
struct NoServers;

impl PluginServices for NoServers {
    fn address_policy(&self) -> AddressPolicy {
        AddressPolicy::default()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// A configuration with which each request is logged, and nothing is written to a file.
fn config(kind: &dyn AnyPluginKind) -> Value {
    let changes = match kind.name() {
        "file-log" => json!({"path": "/dev/null"}),
        "opentelemetry" => json!({"sampling_rate": 1.0}),
        "zipkin" => json!({"http_endpoint": "http://collector.example:9411/api/v2/spans", "sample_ratio": 1.0}),
        _ => json!({}),
    };
    let mut config = minimal_config(kind);
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

/// The plugin on a route of this namespace.
fn on_route_of(namespace: &str, kind: &dyn AnyPluginKind, plugin: &Arc<dyn Plugin>) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    let instance = instance(kind, Arc::clone(plugin));
    builder.add(kind.name(), kind.priority(), AttachmentPoint::Base(BaseScope::Route), instance);
    let (route, service) = (format!("{namespace}.test.web..80"), format!("{namespace}.web.80"));
    let names = RouteNames {
        namespace: namespace.into(),
        route: route.into(),
        service: service.into(),
        ..RouteNames::default()
    };
    builder.build(Arc::new(names)).unwrap()
}

/// A tenant with many requests displaced the log entries of others.
#[tokio::test(start_paused = true)]
async fn entries_of_one_namespace_displace_none_of_another_one() {
    let services: Arc<dyn PluginServices> = Arc::new(NoServers);
    let mut names = Vec::new();
    for kind in REGISTRY.iter() {
        let (name, state) = (kind.name(), PluginState::default());
        let _limit = QueuedBytes::of(&state, QUEUED_BYTES);
        let plugin = build_with(kind, &config(kind), &state, &services);
        let plugin = plugin.unwrap_or_else(|invalid| panic!("{name}: {invalid:?}"));
        let counts = || queue_counts(&state).pop().map(|(_, counts)| counts);
        if counts().is_none() {
            continue;
        }
        names.push(name);
        let [busy, calm] = ["busy", "calm"].map(|namespace| on_route_of(namespace, kind, &plugin));
        let mut requests = 0;
        while counts().unwrap().dropped_limit == 0 {
            TestRequest::get("/").run(&busy).await;
            requests += 1;
            assert!(requests < 5_000, "{name} does not fill its queue: {:?}", counts());
        }
        let before = counts().unwrap();
        TestRequest::get("/").run(&calm).await;
        let after = counts().unwrap();
        assert_eq!(after.dropped_limit, before.dropped_limit, "{name} drops an entry of another namespace");
        assert!(after.pending > before.pending, "{name} queues nothing for the namespace: {after:?}");
    }
    assert_eq!(
        names,
        [
            "datadog",
            "file-log",
            "http-log",
            "kafka-log",
            "kafka-upstream",
            "loggly",
            "opentelemetry",
            "statsd",
            "syslog",
            "tcp-log",
            "udp-log",
            "zipkin"
        ],
        "the plugins with a queue"
    );
}
