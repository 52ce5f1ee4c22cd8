//! Which requests are traced: by rules, by a header and by Gateway, with the fields that endpoints get. Also lines of
//! the access log as log records.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use portico::access_log_syntax::SamplingRules;
use portico::otlp_delivery::OtlpSignal;
use portico::plugin_api::otlp_messages::spans_and_logs::OtlpResource;
use portico::plugin_api::trace::{Propagation, TraceFormat};
use portico::proxy::access_log::{AccessLogDestination, LineExport};
use portico::proxy::{HeaderSelection, LateRecording, TraceSelection};
use portico::snapshot::Snapshot;
use portico::snapshot::gateway_traces::{GatewayTraces, GatewayTracing};
use serde_json::{Value, json};

use crate::harness::{Endpoint, Options, TestServer, routes_to};
use crate::polling::until;
use crate::tracing::{Collector, json_attribute, json_queue, json_spans, tracer};

fn rules(texts: &[&str]) -> SamplingRules {
    SamplingRules(texts.iter().map(|text| text.parse().unwrap()).collect())
}

/// The paths of the requests that were recorded, each with the reason for which it was if that was not the rate.
fn recorded(collector: &Collector) -> Vec<(String, Value)> {
    let of = |span: &Value| {
        let path = json_attribute(span, "url.path").as_str().unwrap().to_owned();
        (path, json_attribute(span, "portico.recorded_because").clone())
    };
    json_spans(collector).iter().filter(|span| span["kind"] == 2).map(of).collect()
}

/// The names of the fields of traces in the last request of an endpoint.
fn trace_fields(endpoint: &Endpoint) -> Vec<String> {
    let request = endpoint.log.requests().pop().unwrap().to_lowercase();
    let names = request.lines().filter_map(|line| line.split_once(": ").map(|(name, _)| name.to_owned()));
    names.filter(|name| name.starts_with("trace") || name.starts_with("x-b3-")).collect()
}

#[tokio::test]
async fn rules_and_a_header_select_requests() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    server.proxy.trace(tracer(
        &collector,
        TraceSelection {
            rate: 1.0,
            rules: rules(&["keep path=/kept*", "drop method=GET host=a.example route=HTTPRoute/default/*"]),
            header: Some(HeaderSelection::new(HeaderName::from_static("x-debug"), 1)),
            late: LateRecording::default(),
        },
    ));
    for (path, field) in [("/a", "a: b"), ("/kept/b", "a: b"), ("/c", "x-debug: 1"), ("/d", "a: b")] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: A.example:80\r\n{field}\r\n\r\n");
        assert_eq!(server.request(&request).await.status, 200, "{path}");
        assert!(trace_fields(&endpoint).contains(&"traceparent".to_owned()), "{path}");
    }
    // Other methods and hosts have the rate of the process, and so do requests that no rule of a route serves.
    for request in [
        "POST /e HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n",
        "GET /f HTTP/1.1\r\nHost: b.example\r\n\r\n",
    ] {
        assert_eq!(server.request(request).await.status, 200);
    }
    until("spans", async || recorded(&collector).len() >= 4).await;
    let mut found = recorded(&collector);
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let expected = [("/c", json!("header")), ("/e", Value::Null), ("/f", Value::Null), ("/kept/b", Value::Null)];
    assert!(
        found.iter().map(|(path, reason)| (&**path, reason)).eq(expected.iter().map(|(path, reason)| (*path, reason))),
        "{found:?}"
    );
}

#[tokio::test]
async fn gateways_have_rates_and_formats_of_their_own() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    server.proxy.trace(tracer(&collector, TraceSelection::default()));
    let set = |rate: &str, formats: Option<&[TraceFormat]>| {
        let own = GatewayTracing {
            rate: Some(rate.parse().unwrap()),
            rules: None,
            propagation: formats.map(Propagation::preserving),
        };
        let Snapshot { binds, .. } = &**server.snapshot.load();
        let traces = Arc::new(GatewayTraces(BTreeMap::from([("default/gw".into(), own)])));
        server.snapshot.store(Arc::new(Snapshot { binds: binds.clone(), traces, ..Snapshot::default() }));
    };
    let get = async |path: &str, field: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{field}\r\n\r\n");
        assert_eq!(server.request(&request).await.status, 200, "{path}");
    };
    get("/of-the-process", "a: b").await;
    set("100%", Some(&[TraceFormat::B3]));
    get("/b3", "a: b").await;
    assert_eq!(trace_fields(&endpoint), ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"]);
    set("0%", Some(&[]));
    let sent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    get("/no-fields", sent).await;
    assert!(endpoint.log.requests().pop().unwrap().contains(&sent["traceparent: ".len()..]), "unchanged");
    set("100%", None);
    get("/w3c", "a: b").await;
    assert_eq!(trace_fields(&endpoint), ["traceparent"]);
    until("spans", async || recorded(&collector).len() >= 2).await;
    let mut paths: Vec<String> = recorded(&collector).into_iter().map(|(path, _)| path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/b3", "/w3c"]);
}

#[tokio::test]
async fn lines_of_the_access_log_are_log_records() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let options = Options { log: AccessLogDestination::ExportOnly, ..Options::default() };
    let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
    // Not exported, and so is not any part of the next line.
    assert_eq!(server.request("GET /before HTTP/1.1\r\nHost: a.example\r\n\r\n").await.status, 200);
    let queue = json_queue(&collector, OtlpSignal::Logs);
    server.log.export(LineExport::new(OtlpResource::new([("service.name", "edge")]), queue));
    server.proxy.trace(tracer(&collector, TraceSelection { rate: 1.0, ..TraceSelection::default() }));
    assert_eq!(server.request("GET /after HTTP/1.1\r\nHost: a.example\r\n\r\n").await.status, 200);
    let messages = || collector.messages("/v1/logs", "application/json");
    until("logs", async || !messages().is_empty()).await;
    let message: Value = serde_json::from_slice(&messages()[0]).unwrap();
    let records = message["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap().clone();
    let [record] = &records[..] else { panic!("{records:?}") };
    let line: Value = serde_json::from_str(record["body"]["stringValue"].as_str().unwrap()).unwrap();
    assert_eq!((&line["path"], &line["status"]), (&json!("/after"), &json!(200)));
    until("spans", async || !json_spans(&collector).is_empty()).await;
    let spans = json_spans(&collector);
    let request = spans.iter().find(|span| span["kind"] == 2).unwrap();
    assert_eq!((&record["traceId"], &record["spanId"]), (&request["traceId"], &request["spanId"]));
    let time = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let (of_record, of_span) = (time(&record["timeUnixNano"]), time(&request["startTimeUnixNano"]));
    assert!(of_record.abs_diff(of_span) < 50_000_000, "{of_record} {of_span}");
}
