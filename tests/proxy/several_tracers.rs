//! Several tracers in a row and of the same request: each server gets all parents of the spans that it gets, and every
//! span is within its parent.

use portico::proxy::LateRecording;
use portico::snapshot::rule::Action;
use serde_json::{Value, json};

use crate::harness::{forward, retries, upstream, with_timeouts_and_retries};
use crate::http_log::to;
use crate::polling::until;
use crate::tracing::{Collector, busy_once, hex, json_spans, opentelemetry, start, tracer_of_all};

/// What all servers get of a span. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SentSpan {
    trace: String,
    id: String,
    parent: Option<String>,
    name: String,
    is_server: bool,
    start: u64,
    end: u64,
}

fn zipkin(collector: &Collector) -> (&'static str, Value) {
    let url = collector.url("/api/v2/spans");
    ("zipkin", json!({"http_endpoint": url, "sample_ratio": 1, "queue": {"max_coalescing_delay": 0}}))
}

fn with_retries(action: Action) -> Action {
    with_timeouts_and_retries(action, retries(2, &[503]))
}

fn zipkin_spans(collector: &Collector) -> Vec<SentSpan> {
    let messages = collector.messages("/api/v2/spans", "application/json");
    let spans = messages.iter().flat_map(|body| serde_json::from_slice::<Vec<Value>>(body).unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    spans
        .map(|span| {
            let start = span["timestamp"].as_u64().unwrap();
            SentSpan {
                trace: text(&span["traceId"]),
                id: text(&span["id"]),
                parent: span.get("parentId").map(text),
                name: text(&span["name"]),
                is_server: span["kind"] == "SERVER",
                start: start * 1000,
                end: (start + span["duration"].as_u64().unwrap()) * 1000,
            }
        })
        .collect()
}

fn plugin_spans(collector: &Collector) -> Vec<SentSpan> {
    let spans = collector.spans();
    let sent = spans.iter().map(|span| SentSpan {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: Some(hex(&span.parent_span_id)).filter(|parent| !parent.is_empty()),
        name: span.name.clone(),
        is_server: span.kind == 2,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
    });
    sent.collect()
}

fn process_spans(collector: &Collector) -> Vec<SentSpan> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spans = json_spans(collector);
    let sent = spans.iter().map(|span| SentSpan {
        trace: text(&span["traceId"]),
        id: text(&span["spanId"]),
        parent: Some(text(&span["parentSpanId"])).filter(|parent| !parent.is_empty()),
        name: text(&span["name"]),
        is_server: span["kind"] == 2,
        start: text(&span["startTimeUnixNano"]).parse().unwrap(),
        end: text(&span["endTimeUnixNano"]).parse().unwrap(),
    });
    sent.collect()
}

/// One trace with one root, in which every other span is within its parent. Returns the root.
fn check_tree(spans: &[SentSpan]) -> &SentSpan {
    let roots: Vec<&SentSpan> = spans.iter().filter(|span| span.parent.is_none()).collect();
    let [root] = roots[..] else { panic!("one root: {spans:#?}") };
    for (index, span) in spans.iter().enumerate() {
        assert_eq!(span.trace, root.trace);
        assert!(spans[..index].iter().all(|other| other.id != span.id), "{span:?} has the identifier of another one");
        let Some(parent) = &span.parent else { continue };
        let parent = spans.iter().find(|other| other.id == *parent);
        let parent = parent.unwrap_or_else(|| panic!("no parent of {span:?} in {spans:#?}"));
        // Both gateways find out separately what time it is.
        let tolerance = if span.is_server { 50_000_000 } else { 0 };
        let is_within = parent.start <= span.start + tolerance && span.end <= parent.end + tolerance;
        assert!(is_within, "{span:?} is not within {parent:?}");
    }
    root
}

fn attempts(spans: &[SentSpan], name: &str) -> Vec<SentSpan> {
    let mut found: Vec<_> = spans.iter().filter(|span| !span.is_server && span.name.starts_with(name)).collect();
    found.sort_by_key(|span| span.start);
    found.into_iter().cloned().collect()
}

/// The value of a field of a request.
fn field(request: &str, name: &str) -> String {
    let value = request.lines().find_map(|line| line.split_once(": ").filter(|(found, _)| *found == name));
    value.unwrap_or_else(|| panic!("no {name} in {request}")).1.to_owned()
}

// docs/kong-compatibility.md, 4.37
#[tokio::test]
async fn retried_request_through_two_gateways_has_its_parents_in_zipkin() {
    let (endpoint, collector) = (busy_once().await, Collector::start().await);
    let plugins = [("correlation-id", json!({})), zipkin(&collector)];
    let inner = start(&plugins, to(&endpoint)).await;
    let outer = forward(vec![(1, upstream("inner", &[inner.server.address]))]);
    let outer = start(&plugins, with_retries(outer)).await;
    outer.get(1).await;
    // Each of three requests has its own span, one around its forwarding, and its attempts: two, one and one.
    until("spans", async || zipkin_spans(&collector).len() == 3 + 3 + 4).await;
    let spans = zipkin_spans(&collector);
    let root = check_tree(&spans);
    let of_outer: Vec<SentSpan> = spans.iter().filter(|span| span.parent.as_ref() == Some(&root.id)).cloned().collect();
    let tries = attempts(&of_outer, "GET (balancer try");
    assert_eq!(attempts(&of_outer, "GET (proxy)").len(), 1, "{of_outer:#?}");
    let mut inner: Vec<&SentSpan> = spans.iter().filter(|span| span.is_server && span.id != root.id).collect();
    inner.sort_by_key(|span| span.start);
    let parents = inner.iter().map(|span| span.parent.as_ref().unwrap());
    assert!(parents.eq(tries.iter().map(|attempt| &attempt.id)), "{inner:#?} are not those of {tries:#?}");
}

#[tokio::test]
async fn servers_of_several_tracers_get_the_same_identifiers() {
    for rate in [0.0, 1.0] {
        let (endpoint, of_process) = (busy_once().await, Collector::start().await);
        let (of_plugin, of_zipkin) = (Collector::start().await, Collector::start().await);
        let server = start(&[zipkin(&of_zipkin), opentelemetry(&of_plugin)], with_retries(to(&endpoint))).await;
        server.server.proxy.trace(tracer_of_all(&of_process, rate, LateRecording::default()));
        server.get(1).await;
        let is_complete = async || !plugin_spans(&of_plugin).is_empty() && !zipkin_spans(&of_zipkin).is_empty();
        until("spans", is_complete).await;
        let (plugin, zipkin) = (plugin_spans(&of_plugin), zipkin_spans(&of_zipkin));
        let root = check_tree(&plugin);
        assert_eq!(check_tree(&zipkin).id, root.id);
        let ids = |spans: Vec<SentSpan>| spans.into_iter().map(|span| span.id).collect::<Vec<_>>();
        let tries = ids(attempts(&plugin, "kong.balancer"));
        assert_eq!(ids(attempts(&zipkin, "GET (balancer try")), tries);
        if rate > 0.0 {
            until("spans of all requests", async || !process_spans(&of_process).is_empty()).await;
            let process = process_spans(&of_process);
            assert_eq!(check_tree(&process).id, root.id);
            assert_eq!(ids(attempts(&process, "GET")), tries);
        }

        // Whatever field an endpoint reads, its parent is an attempt that is recorded.
        let received: Vec<String> = endpoint.log.requests().iter().map(|request| request.to_lowercase()).collect();
        assert_eq!((received.len(), tries.len()), (2, 2), "{received:?}");
        for (request, attempt) in received.iter().zip(&tries) {
            assert_eq!(field(request, "traceparent"), format!("00-{}-{attempt}-01", root.trace), "rate {rate}");
            let b3 = ["x-b3-traceid", "x-b3-spanid", "x-b3-sampled"].map(|name| field(request, name));
            assert_eq!(b3, [&*root.trace, attempt, "1"], "rate {rate}");
        }
        assert_eq!(process_spans(&of_process).is_empty(), rate == 0.0);
    }
}
