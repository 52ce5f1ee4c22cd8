//! Tests of the configuration and of the header fields that endpoints and clients get.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::OpenTelemetry;
use crate::plugin_api::{BuildCx, BuildNotes, PluginKind, PluginServices, PluginState, RegisteredKind};
use crate::plugin_chain::testing::{TestRequest, build, chain, notes};

const KIND: RegisteredKind<OpenTelemetry> = RegisteredKind::NEW;
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn with_endpoint(mut config: Value) -> Value {
    config["traces_endpoint"] = json!("http://collector.example:4318/v1/traces");
    config
}

#[test]
fn invalid_fields_are_reported_without_secrets() {
    let cases = [
        (json!({}), "config.traces_endpoint", "is missing"),
        (json!({"traces_endpoint": "collector"}), "config.traces_endpoint", "must start with http:// or https://"),
        (json!({"endpoint": "ftp://u:secret@a"}), "config.endpoint", "must start with http:// or https://"),
        (json!({"logs_endpoint": "/secret"}), "config.logs_endpoint", "must start with http:// or https://"),
        (with_endpoint(json!({"sampling_rate": 1.5})), "config.sampling_rate", "out of range"),
        (with_endpoint(json!({"sampling_rate": -0.1})), "config.sampling_rate", "out of range"),
        (with_endpoint(json!({"connect_timeout": 0})), "config.connect_timeout", "must not be 0"),
        (with_endpoint(json!({"headers": {"Host": "secret"}})), "config.headers[Host]", "cannot be set"),
        (with_endpoint(json!({"headers": {"a": "secret\n"}})), "config.headers[a]", "not a valid header value"),
        (
            with_endpoint(json!({"http_response_header_for_traceid": "a b"})),
            "config.http_response_header_for_traceid",
            "not a valid header name",
        ),
        (
            with_endpoint(json!({"propagation": {"clear": ["a b"]}})),
            "config.propagation.clear[0]",
            "not a valid header",
        ),
        (
            with_endpoint(json!({"propagation": {"clear": ["Host"]}})),
            "config.propagation.clear[0]",
            "cannot be removed",
        ),
        (
            with_endpoint(json!({"propagation": {"extract": ["w4c"]}})),
            "config.propagation.extract[0]",
            "is not one of the allowed values",
        ),
        (with_endpoint(json!({"resource_attributes": {"a": ""}})), "config.resource_attributes[a]", "is empty"),
        (
            with_endpoint(json!({"resource_attributes": {"a": "$(headers.b)"}})),
            "config.resource_attributes[a]",
            "has a template",
        ),
        (with_endpoint(json!({"queue": {"max_batch_size": 0}})), "config.queue.max_batch_size", "out of range"),
        (with_endpoint(json!({"batch_span_count": 0})), "config.queue.max_batch_size", "out of range"),
    ];
    for (config, field, message) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is accepted"));
        let [diagnostic] = &invalid[..] else { panic!("{config}: {invalid:?}") };
        assert!(diagnostic.field == field && diagnostic.message.contains(message), "{config}: {diagnostic:?}");
        assert!(!format!("{diagnostic:?}").contains("secret") && !diagnostic.remedy.is_empty(), "{diagnostic:?}");
    }
}

#[test]
fn deprecated_fields_have_notes() {
    let config = json!({"endpoint": "http://a.example/", "batch_span_count": 7, "batch_flush_delay": 2});
    let mut fields: Vec<String> = notes(&KIND, &config).into_iter().map(|note| note.field).collect();
    fields.sort();
    assert_eq!(fields, ["config.batch_flush_delay", "config.batch_span_count", "config.endpoint"]);
    assert!(notes(&KIND, &with_endpoint(json!({}))).is_empty());
}

#[tokio::test]
async fn endpoints_continue_the_trace_of_the_client() {
    let cases = [
        // The decision of a client that records counts only within the rate.
        (json!({"sampling_rate": 0}), "00"),
        (json!({"sampling_rate": 0, "sampling_strategy": "parent_probability_fallback"}), "01"),
        (json!({"sampling_rate": 1}), "01"),
    ];
    for (mut config, flags) in cases {
        config["http_response_header_for_traceid"] = json!("x-trace");
        let chain = chain(&[(&KIND, with_endpoint(config.clone()))]);
        let request = TestRequest::get("/a").header("traceparent", PARENT).header("tracestate", "a=b");
        let outcome = request.run(&chain).await;
        let sent = outcome.upstream_header("traceparent").unwrap();
        assert!(sent.starts_with(&PARENT[..36]) && sent.ends_with(flags), "{config}: {sent}");
        assert_ne!(&sent[36..52], &PARENT[36..52], "the endpoint has another parent");
        assert_eq!(outcome.upstream_header("tracestate"), Some("a=b"));
        assert_eq!(outcome.response_header("x-trace"), Some(&PARENT[3..35]));
    }
}

#[tokio::test]
async fn broken_contexts_begin_a_trace() {
    let chain = chain(&[(&KIND, with_endpoint(json!({"sampling_rate": 1})))]);
    let request = TestRequest::get("/a").header("traceparent", &PARENT.to_uppercase()).header("tracestate", "a=b");
    let outcome = request.run(&chain).await;
    let sent = outcome.upstream_header("traceparent").unwrap();
    assert!(sent.len() == 55 && !sent.contains(&PARENT[3..35]), "{sent}");
    assert_eq!(outcome.upstream_header("tracestate"), None);
}

#[tokio::test]
async fn header_type_adds_a_format_and_propagation_precedes_it() {
    let cases = [
        (json!({"header_type": "b3-single"}), [true, true]),
        (json!({"header_type": "b3-single", "propagation": {"inject": ["w3c"]}}), [true, false]),
        (json!({"header_type": "ignore"}), [true, false]),
        (json!({"propagation": {"default_format": "b3-single"}}), [false, true]),
        (json!({"propagation": {"inject": []}}), [false, false]),
    ];
    for (config, expected) in cases {
        let chain = chain(&[(&KIND, with_endpoint(config.clone()))]);
        let outcome = TestRequest::get("/a").run(&chain).await;
        let found = ["traceparent", "b3"].map(|name| outcome.upstream_header(name).is_some());
        assert_eq!(found, expected, "{config}");
    }
}

/// Counts tasks, and runs none.
#[derive(Default)]
struct CountedTasks(AtomicUsize);

impl PluginServices for CountedTasks {
    fn spawn(&self, _task: BoxFuture<'static, ()>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// What grows with the number of routes is the plugin itself; queue, task and connection are those of the object.
#[test]
fn routes_with_the_same_plugin_share_its_queue() {
    let tasks = Arc::new(CountedTasks::default());
    let services: Arc<dyn PluginServices> = tasks.clone();
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let build = |object: &str| {
        let config = serde_json::from_value(with_endpoint(json!({"sampling_rate": 1}))).unwrap();
        let cx = BuildCx { object, state: &state, services: &services, node: "a", notes: &notes };
        OpenTelemetry::build(config, &cx).unwrap_or_else(|invalid| panic!("{invalid:?}"))
    };
    let routes: Vec<OpenTelemetry> = (0..10_000).map(|_| build("KongPlugin/default/traces")).collect();
    let queue = routes[0].traces.as_ref().unwrap();
    assert!(routes.iter().all(|route| Arc::ptr_eq(route.traces.as_ref().unwrap(), queue)));
    assert_eq!(tasks.0.load(Relaxed), 1);
    let _other = build("KongPlugin/default/others");
    assert_eq!(tasks.0.load(Relaxed), 2, "each object has a queue, whose entries count for its namespace");
    assert!(size_of::<OpenTelemetry>() <= 512);
}
