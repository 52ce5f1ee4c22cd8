//! The context of requests that are not recorded: endpoints get it, whatever else the request has, and so does
//! everything that reads or changes its header.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use portico::otlp_delivery::OtlpSignal;
use portico::plugin_api::AccessOutcome;
use portico::plugin_api::otlp_messages::spans_and_logs::OtlpResource;
use portico::proxy::access_log::{AccessLogDestination, LineExport};
use portico::proxy::{LateRecording, TraceSelection};
use portico::snapshot::rule::{Filters, HeaderEdits};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::external_auth::{authorization_server, guarded_routes, http_filter};
use crate::forwarding_fields::{NAMES, count};
use crate::h2_upstream::http2_endpoint;
use crate::harness::{
    Client, Endpoint, Options, Route, TestServer, forward, h2c_upstream, header, retries, route, routes_to, upstream,
    with_timeout, with_timeouts_and_retries,
};
use crate::mirror::{mirror, mirrored_routes};
use crate::plugins::{ScriptedPlugin, chain};
use crate::polling::until;
use crate::tracing::{Collector, json_queue, json_spans, tracer, tracer_of_all};

/// A server that records no request.
async fn start(collector: &Collector, routes: Vec<Route>) -> TestServer {
    let server = TestServer::with_routes(routes).await;
    server.proxy.trace(tracer_of_all(collector, 0.0, LateRecording::default()));
    server
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// The identifiers of the trace and the span of a context that is not recorded.
fn identifiers(context: &str) -> (String, String) {
    let parts: Vec<&str> = context.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{context}") };
    assert_eq!((version, trace.len(), span.len(), flags), ("00", 32, 16, "00"), "{context}");
    let is_identifier = |text: &str| text.bytes().any(|byte| byte != b'0') && u128::from_str_radix(text, 16).is_ok();
    assert!(is_identifier(trace) && is_identifier(span), "{context}");
    (trace.to_owned(), span.to_owned())
}

/// The fields of traces in a request.
fn trace_fields(request: &str) -> Vec<String> {
    let lines = request.lines().map(str::to_lowercase);
    lines.filter(|line| line.starts_with("trace")).collect()
}

#[tokio::test]
async fn endpoints_get_one_context() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let server = start(&collector, routes_to(endpoint.address)).await;
    let valid = format!("Traceparent: 00-{TRACE}-{CLIENT_SPAN}-01\r\n");
    // The fields of the request, and whether they are continued, with the state.
    let cases = [
        (String::new(), false),
        ("x-trace: 1\r\n".to_owned(), false),
        (format!("{valid}TraceState: a=b\r\n"), true),
        (format!("traceparent: 00-{TRACE}-{CLIENT_SPAN}-0\r\ntracestate: a=b\r\n"), false),
        (format!("{valid}{valid}tracestate: a=b\r\n"), false),
        ("tracestate: a=b\r\n".to_owned(), false),
        ("TRACESTATE: a=b\r\n".to_owned(), false),
    ];
    let mut traces = Vec::new();
    // On one connection, so that nothing remains of an earlier request.
    let mut client = Client::connect(server.address).await;
    for (fields, is_continued) in cases {
        client.send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        assert_eq!(client.response().await.status, 200, "{fields}");
        let request = endpoint.log.requests().pop().unwrap();
        assert_eq!(NAMES.map(|name| count(&request, name)), [1; 6], "{fields}: {request}");
        let received = trace_fields(&request);
        let contexts: Vec<&str> = received.iter().filter_map(|line| line.strip_prefix("traceparent: ")).collect();
        let [context] = contexts[..] else { panic!("{fields}: {received:?}") };
        let (trace, span) = identifiers(context);
        assert_eq!(trace == TRACE, is_continued, "{fields}");
        assert_ne!(span, CLIENT_SPAN, "{fields}");
        assert_eq!(received.contains(&"tracestate: a=b".to_owned()), is_continued, "{fields}");
        assert_eq!(received.len(), if is_continued { 2 } else { 1 }, "{fields}: {received:?}");
        if !is_continued {
            assert!(!traces.contains(&trace), "{fields}");
            traces.push(trace);
        }
    }
}

#[tokio::test]
async fn filters_and_plugins_see_and_change_the_context() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let edits = |edits| Filters { request_headers: Some(edits), ..Filters::default() };
    let removed = HeaderEdits { remove: vec![HeaderName::from_static("traceparent")], ..HeaderEdits::default() };
    let value = (HeaderName::from_static("traceparent"), HeaderValue::from_static("own"));
    let set = HeaderEdits { set: vec![value.clone()], ..HeaderEdits::default() };
    let add = HeaderEdits { add: vec![value], ..HeaderEdits::default() };
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen_by_plugin = Arc::clone(&seen);
    let scripted = ScriptedPlugin::access(move |cx| {
        let context = cx.head.headers.remove("traceparent").expect("plugins see the context");
        seen_by_plugin.lock().unwrap().push(context.to_str().unwrap().to_owned());
        AccessOutcome::Continue
    });
    // How many values of the field the endpoint gets.
    for (what, filters, plugins, expected) in [
        ("remove", edits(removed), None, 0),
        ("set", edits(set), None, 1),
        ("add", edits(add), None, 2),
        ("a plugin", Filters::default(), chain(vec![scripted]), 0),
    ] {
        let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
        let server = start(&collector, vec![Route { filters, plugins, ..route(action) }]).await;
        assert_eq!(server.request(REQUEST).await.status, 200, "{what}");
        let received = trace_fields(&endpoint.log.requests().pop().unwrap());
        assert_eq!(received.len(), expected, "{what}: {received:?}");
        if what == "set" {
            assert_eq!(received, ["traceparent: own"]);
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    identifiers(&seen[0]);
}

#[tokio::test]
async fn endpoints_with_http2_get_the_context() {
    let (sender, mut received) = mpsc::channel::<HeaderMap>(1);
    let endpoint = http2_endpoint(h2::server::Builder::new(), move |mut call| {
        let sender = sender.clone();
        async move {
            sender.send(call.request.headers().clone()).await.unwrap();
            call.response.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let collector = Collector::start().await;
    let server = start(&collector, vec![route(forward(vec![(1, h2c_upstream(endpoint.address))]))]).await;
    assert_eq!(server.request(REQUEST).await.status, 200);
    let headers = with_timeout("the request", received.recv()).await.unwrap();
    let contexts: Vec<_> = headers.get_all("traceparent").iter().collect();
    let [context] = contexts[..] else { panic!("{headers:?}") };
    identifiers(context.to_str().unwrap());
}

#[tokio::test]
async fn copies_attempts_and_calls_have_the_same_context() {
    let (endpoint, copies, collector) = (Endpoint::ok().await, Endpoint::ok().await, Collector::start().await);
    let mirrors = vec![mirror(upstream("mirror", &[copies.address]), 1, 1)];
    let server = start(&collector, mirrored_routes(&endpoint, mirrors)).await;
    assert_eq!(server.request(REQUEST).await.status, 200);
    copies.log.wait_for("the copy", |log| log.requests().len() == 1).await;
    let context = |request: &str| header(request, "traceparent").map(str::to_owned).expect("a context");
    assert_eq!(context(&copies.log.requests()[0]), context(&endpoint.log.requests()[0]));

    let authorization = authorization_server().await;
    let filter = http_filter(upstream("auth", &[authorization.address]));
    let server = start(&collector, guarded_routes(filter, &endpoint)).await;
    assert_eq!(server.request(REQUEST).await.status, 200);
    identifiers(&context(&endpoint.log.requests()[1]));

    let busy = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let action = forward(vec![(1, upstream("busy", &[busy.address]))]);
    let server = start(&collector, vec![route(with_timeouts_and_retries(action, retries(2, &[503])))]).await;
    assert_eq!(server.request(REQUEST).await.status, 503);
    let attempts: Vec<String> = busy.log.requests().iter().map(|request| context(request)).collect();
    assert_eq!(attempts.len(), 3);
    assert!(attempts.iter().all(|attempt| *attempt == attempts[0]), "{attempts:?}");
}

#[tokio::test]
async fn the_access_log_has_the_trace_that_endpoints_get() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let options = Options { log: AccessLogDestination::ExportOnly, ..Options::default() };
    let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
    let queue = json_queue(&collector, OtlpSignal::Logs);
    server.log.export(LineExport::new(OtlpResource::new([("service.name", "edge")]), queue));
    server.proxy.trace(tracer(&collector, TraceSelection::default()));
    assert_eq!(server.request(REQUEST).await.status, 200);
    let (trace, endpoint_parent) = identifiers(header(&endpoint.log.requests()[0], "traceparent").unwrap());
    let messages = || collector.messages("/v1/logs", "application/json");
    until("logs", async || !messages().is_empty()).await;
    let message: Value = serde_json::from_slice(&messages()[0]).unwrap();
    let record = &message["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["traceId"], json!(trace));
    assert_ne!(record["spanId"], json!(endpoint_parent), "the line is about the request, and not about an attempt");
    assert_eq!(json_spans(&collector), Vec::<Value>::new());
}
