//! Traces on the wire: spans with their parents, contexts that endpoints get, and servers that do not respond.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portico::log_delivery::DEFAULT_LOG_QUEUE;
use portico::otlp_delivery::{OtlpProtocol, OtlpSignal};
use portico::plugin_api::batch_queue::BatchQueue;
use portico::plugin_api::otlp_messages::spans_and_logs::{
    AnyValue, ExportLogs, ExportTraces, OtlpResource, OtlpSpan, any_value,
};
use portico::plugin_api::trace::TraceFormat;
use portico::plugin_api::{BuildCx, BuildNotes, PluginState};
use portico::plugin_chain::testing::chain_with;
use portico::plugins::REGISTRY;
use portico::proxy::{LateRecording, RequestTracer, TraceSelection};
use portico::snapshot::rule::Action;
use portico::tracer::{ExportFormat, ExportServer};
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::external_auth::{authorization_server, guarded_routes, http_filter};
use crate::harness::{Client, Endpoint, TestServer, forward, retries, route, upstream, with_timeouts_and_retries};
use crate::http_log::{LoggingServer, consumers, loopback_services, to};
use crate::polling::until;

/// The path and the body of each request.
type ReceivedRequests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server that accepts POST requests with a length, and keeps their heads and bodies.
pub(crate) struct Collector {
    address: SocketAddr,
    received: ReceivedRequests,
}

impl Collector {
    pub(crate) async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Collector::serve(socket, Arc::clone(&kept)));
            }
        });
        Collector { address, received }
    }

    async fn serve(mut socket: TcpStream, kept: ReceivedRequests) {
        let mut buffer = Vec::new();
        loop {
            let head_end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
            let message = head_end.and_then(|end| {
                let head = String::from_utf8(buffer[..end].to_vec()).unwrap().to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
                let body = buffer.get(end + 4..end + 4 + length.trim().parse::<usize>().unwrap())?.to_vec();
                Some((head, body))
            });
            match message {
                Some((head, body)) => {
                    buffer.drain(..head.len() + 4 + body.len());
                    assert!(head.starts_with("post "), "{head}");
                    kept.lock().unwrap().push((head, body));
                    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
                None if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 => return,
                None => {}
            }
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn messages(&self, path: &str, content_type: &str) -> Vec<Vec<u8>> {
        let received = self.received.lock().unwrap();
        let matching = received.iter().filter(|(head, _)| head.starts_with(&format!("post {path} ")));
        matching
            .map(|(head, body)| {
                assert!(head.contains(&format!("\r\ncontent-type: {content_type}")), "{head}");
                body.clone()
            })
            .collect()
    }

    /// All spans that were received. Checks what the protocol requires of each.
    pub(crate) fn spans(&self) -> Vec<OtlpSpan> {
        let bodies = self.messages("/v1/traces", "application/x-protobuf");
        let messages = bodies.iter().map(|body| ExportTraces::decode(&**body).unwrap());
        let resources: Vec<_> = messages.flat_map(|message| message.resource_spans).collect();
        let spans: Vec<OtlpSpan> =
            resources.into_iter().flat_map(|entry| entry.scope_spans).flat_map(|scope| scope.spans).collect();
        for span in &spans {
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8), "{span:?}");
            assert!([0, 8].contains(&span.parent_span_id.len()) && span.kind > 0 && !span.name.is_empty(), "{span:?}");
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let age = now.as_nanos() - u128::from(span.start_time_unix_nano);
            assert!(age < 60_000_000_000 && span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
        }
        spans
    }

    async fn wait_for_spans(&self, number: usize) -> Vec<OtlpSpan> {
        until("spans", async || self.spans().len() >= number).await;
        self.spans()
    }
}

/// A proxy whose route has these plugins.
pub(crate) async fn start(plugins: &[(&str, Value)], action: Action) -> LoggingServer {
    let state = PluginState::default();
    let plugins: Vec<_> = plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let chain = chain_with(&plugins, &state, &loopback_services());
    LoggingServer::with_chain(chain, consumers(), state, action).await
}

pub(crate) fn opentelemetry(collector: &Collector) -> (&'static str, Value) {
    let config = json!({
        "traces_endpoint": collector.url("/v1/traces"), "sampling_rate": 1,
        "resource_attributes": {"service.name": "edge"}, "queue": {"max_coalescing_delay": 0},
    });
    ("opentelemetry", config)
}

fn attribute(span: &OtlpSpan, name: &str) -> String {
    let value = span.attributes.iter().find(|attribute| attribute.key == name).and_then(|found| found.value.clone());
    match value {
        Some(AnyValue { value: Some(any_value::Value::Text(text)) }) => text,
        Some(AnyValue { value: Some(any_value::Value::Number(number)) }) => number.to_string(),
        other => panic!("{name}: {other:?} in {span:?}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of a field of the last request that an endpoint got.
fn sent_field(endpoint: &Endpoint, name: &str) -> String {
    let request = endpoint.log.requests().pop().unwrap();
    let line =
        request.lines().find_map(|line| line.to_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in {request}"))
}

// docs/kong-compatibility.md, 4.21
#[tokio::test]
async fn request_with_retries_and_plugins_is_one_trace() {
    let busy = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let collector = Collector::start().await;
    let plugins = [
        ("key-auth", json!({"key_names": ["key"]})),
        ("correlation-id", json!({"echo_downstream": true})),
        opentelemetry(&collector),
    ];
    let server = start(&plugins, with_timeouts_and_retries(to(&busy), retries(2, &[503]))).await;
    let mut client = Client::connect(server.server.address).await;
    client
        .send(
            "GET /a?key=secret HTTP/1.1\r\nHost: a.example\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status, 503);
    let spans = collector.wait_for_spans(1).await;
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    let expected = [
        "kong",
        "kong.access.plugin.correlation-id",
        "kong.access.plugin.key-auth",
        "kong.access.plugin.opentelemetry",
        "kong.header_filter.plugin.correlation-id",
        "kong.header_filter.plugin.opentelemetry",
        "kong.balancer",
        "kong.balancer",
        "kong.balancer",
    ];
    assert_eq!(names, expected);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == "4bf92f3577b34da6a3ce929d0e0e4736"));
    let (root, children) = spans.split_first().unwrap();
    assert_eq!((hex(&root.parent_span_id), root.kind), ("00f067aa0ba902b7".to_owned(), 2));
    assert!(children.iter().all(|child| child.parent_span_id == root.span_id), "{children:?}");
    assert_eq!((&*attribute(root, "http.method"), &*attribute(root, "http.status_code")), ("GET", "503"));
    assert!(attribute(root, "http.url").ends_with("/a?key=REDACTED"), "{root:?}");
    let attempts = &spans[6..];
    for (index, attempt) in attempts.iter().enumerate() {
        assert_eq!(attribute(attempt, "try_count"), (index + 1).to_string());
        assert_eq!(attribute(attempt, "net.peer.port"), busy.address.port().to_string());
        assert_eq!((&*attribute(attempt, "http.status_code"), attempt.kind), ("503", 3));
        assert_eq!(attempt.status.as_ref().map(|status| status.code), Some(2));
    }
    let sent = sent_field(&busy, "traceparent");
    assert_eq!(sent, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", hex(&attempts[2].span_id)));
}

#[tokio::test]
async fn two_gateways_in_a_row_make_one_trace() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let plugins = [opentelemetry(&collector)];
    let second = start(&plugins, to(&endpoint)).await;
    let first = start(&plugins, forward(vec![(1, upstream("second", &[second.server.address]))])).await;
    first.get(1).await;
    // Each has the request, two phases of the plugin, and an attempt.
    let spans = collector.wait_for_spans(8).await;
    let roots: Vec<_> = spans.iter().filter(|span| span.name == "kong").collect();
    let outer = roots.iter().find(|span| span.parent_span_id.is_empty()).unwrap();
    let inner = roots.iter().find(|span| !span.parent_span_id.is_empty()).unwrap();
    let attempt_of = |parent: &OtlpSpan| {
        spans.iter().find(|span| span.name == "kong.balancer" && span.parent_span_id == parent.span_id).unwrap()
    };
    assert_eq!(attempt_of(outer).span_id, inner.parent_span_id);
    assert!(spans.iter().all(|span| span.trace_id == outer.trace_id), "{spans:?}");
    let sent = sent_field(&endpoint, "traceparent");
    assert_eq!(sent, format!("00-{}-{}-01", hex(&outer.trace_id), hex(&attempt_of(inner).span_id)));
}

#[tokio::test]
async fn logs_have_the_identifiers_of_the_trace() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let config = json!({"logs_endpoint": collector.url("/v1/logs"), "queue": {"max_coalescing_delay": 0}});
    let server = start(&[("opentelemetry", config)], to(&endpoint)).await;
    server.get(1).await;
    let messages = || collector.messages("/v1/logs", "application/x-protobuf");
    until("logs", async || !messages().is_empty()).await;
    let message = ExportLogs::decode(&*messages()[0]).unwrap();
    let record = &message.resource_logs[0].scope_logs[0].log_records[0];
    let Some(AnyValue { value: Some(any_value::Value::Text(body)) }) = &record.body else { panic!("{record:?}") };
    let object: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&object["request"]["uri"], &object["response"]["status"]), (&json!("/0"), &json!(200)));
    assert_eq!(object["trace_id"], json!({"w3c": hex(&record.trace_id)}));
    assert_eq!(object["span_id"], json!(hex(&record.span_id)));
}

// docs/kong-compatibility.md, 4.37
#[tokio::test]
async fn zipkin_gets_the_request_its_forwarding_and_its_attempts() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let config = json!({
        "http_endpoint": collector.url("/api/v2/spans"), "sample_ratio": 1,
        "static_tags": [{"name": "environment", "value": "test"}], "queue": {"max_coalescing_delay": 0},
    });
    let server = start(&[("zipkin", config)], to(&endpoint)).await;
    let mut client = Client::connect(server.server.address).await;
    client.send("GET /a HTTP/1.1\r\nHost: a.example\r\nZipkin-Tags: team=shop; http.method=forged\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    let messages = || collector.messages("/api/v2/spans", "application/json");
    until("spans", async || !messages().is_empty()).await;
    let spans: Vec<Value> = serde_json::from_slice(&messages()[0]).unwrap();
    let [request, proxy, attempt] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&request["name"], &request["kind"]), (&json!("GET"), &json!("SERVER")));
    let tags = &request["tags"];
    assert_eq!(
        (&tags["environment"], &tags["team"], &tags["http.method"]),
        (&json!("test"), &json!("shop"), &json!("GET"))
    );
    assert_eq!(
        (&tags["lc"], &tags["http.path"], &tags["http.status_code"]),
        (&json!("kong"), &json!("/a"), &json!("200"))
    );
    assert!(request.get("parentId").is_none() && request["duration"].as_u64() > Some(0), "{request}");
    assert_eq!((&proxy["name"], &proxy["parentId"]), (&json!("GET (proxy)"), &request["id"]));
    assert_eq!((&attempt["name"], &attempt["parentId"]), (&json!("GET (balancer try 1)"), &request["id"]));
    assert_eq!(proxy["tags"]["peer.hostname"], json!("127.0.0.1"));
    assert_eq!(json!(sent_field(&endpoint, "x-b3-traceid")), request["traceId"]);
    assert_eq!(json!(sent_field(&endpoint, "x-b3-spanid")), attempt["id"]);
    let times = |span: &Value| (span["timestamp"].as_u64().unwrap(), span["duration"].as_u64().unwrap());
    let (start, duration) = times(proxy);
    let annotations = proxy["annotations"].as_array().unwrap().iter().map(|one| one["timestamp"].as_u64().unwrap());
    let annotations: Vec<u64> = annotations.collect();
    let are_within = annotations.iter().all(|time| (start..=start + duration).contains(time));
    assert!(annotations.len() >= 2 && are_within, "{proxy}");
    assert_eq!(json!(sent_field(&endpoint, "x-b3-parentspanid")), request["id"]);
}

#[tokio::test]
async fn requests_do_not_wait_for_a_server_that_hangs() {
    let endpoint = Endpoint::ok().await;
    // Accepts connections by its backlog, and reads nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let queue = json!({"max_entries": 5, "max_batch_size": 1, "max_coalescing_delay": 0});
    let config = json!({"traces_endpoint": url, "sampling_rate": 1, "queue": queue});
    let server = start(&[("opentelemetry", config)], to(&endpoint)).await;
    tokio::time::timeout(Duration::from_secs(10), server.get(20)).await.expect("requests are served");
    server.wait_for_counts("dropped entries", |counts| counts.dropped_full >= 10).await;
}

/// A tracer of all requests that sends JSON.
pub(crate) fn tracer_of_all(collector: &Collector, rate: f64, late: LateRecording) -> RequestTracer {
    tracer(collector, TraceSelection { rate, late, ..TraceSelection::default() })
}

/// A tracer that sends JSON.
pub(crate) fn tracer(collector: &Collector, selection: TraceSelection) -> RequestTracer {
    let queue = json_queue(collector, OtlpSignal::Traces);
    RequestTracer::new(selection, &[TraceFormat::W3c], OtlpResource::new([("service.name", "edge")]), queue)
}

/// A queue whose batches a collector gets as JSON.
pub(crate) fn json_queue(collector: &Collector, signal: OtlpSignal) -> Arc<BatchQueue> {
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let services = loopback_services();
    let cx = BuildCx { object: "--trace-otlp-endpoint", state: &state, services: &services, node: "a", notes: &notes };
    let server = ExportServer {
        field: "--trace-otlp-endpoint",
        url: &collector.url(&format!("/v1/{}", signal.name())),
        headers: &BTreeMap::new(),
        format: ExportFormat::Otlp(OtlpProtocol::HttpJson, signal),
        timeout: Duration::from_secs(10),
        ssl_verify: true,
        tls_files: None,
    };
    server.start(DEFAULT_LOG_QUEUE, &cx).unwrap()
}

/// The spans that were received as JSON.
pub(crate) fn json_spans(collector: &Collector) -> Vec<Value> {
    let bodies = collector.messages("/v1/traces", "application/json");
    let messages = bodies.iter().map(|body| serde_json::from_slice::<Value>(body).unwrap());
    let entries = messages.flat_map(|message| message["resourceSpans"].as_array().unwrap().clone());
    entries.flat_map(|entry| entry["scopeSpans"][0]["spans"].as_array().unwrap().clone()).collect()
}

pub(crate) fn json_attribute<'a>(span: &'a Value, name: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == name);
    found.map_or(&Value::Null, |found| found["value"].as_object().unwrap().values().next().unwrap())
}

#[tokio::test]
async fn failed_requests_are_recorded_with_their_authorization() {
    let failing = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let (collector, authorization) = (Collector::start().await, authorization_server().await);
    let filter = http_filter(upstream("auth", &[authorization.address]));
    let server = TestServer::with_routes(guarded_routes(filter, &failing)).await;
    server.proxy.trace(tracer_of_all(&collector, 0.0, LateRecording::new(true, None)));
    for (path, status) in [("/denied", 401), ("/a", 503)] {
        let response = server.request(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        assert_eq!(response.status, status, "{path}");
    }
    until("spans", async || !json_spans(&collector).is_empty()).await;
    // What is denied is no failure.
    let spans = json_spans(&collector);
    let [request, routing, call, attempt] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(routing["name"], "routing");
    assert_eq!((&request["name"], &request["kind"]), (&json!("GET"), &json!(2)));
    assert_eq!(json_attribute(request, "portico.recorded_because"), "error");
    assert_eq!(json_attribute(request, "url.path"), "/a");
    assert_eq!((&call["name"], &call["kind"]), (&json!("external authorization"), &json!(3)));
    assert_eq!(json_attribute(call, "portico.authorization"), "allowed");
    assert!(json_attribute(call, "portico.upstream").as_str().unwrap().contains("auth"), "{call}");
    for child in [routing, call, attempt] {
        assert_eq!((&child["parentSpanId"], &child["traceId"]), (&request["spanId"], &request["traceId"]));
    }
    let events: Vec<&Value> = attempt["events"].as_array().unwrap().iter().map(|event| &event["name"]).collect();
    assert_eq!(events, ["connected", "response head"]);
    assert!(sent_field(&failing, "traceparent").ends_with("-00"), "the endpoint does not record the request");
}

/// Responds with 503 to the first request, and with `ok` to all others.
pub(crate) async fn busy_once() -> Endpoint {
    let requests = Arc::new(AtomicUsize::new(0));
    Endpoint::scripted(move |mut stream, _| {
        let requests = Arc::clone(&requests);
        async move {
            while stream.request().await.is_some() {
                let status = if requests.fetch_add(1, Relaxed) == 0 { "503 Busy" } else { "200 OK" };
                stream.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn each_attempt_is_the_parent_of_what_the_next_gateway_does() {
    let (endpoint, collector) = (busy_once().await, Collector::start().await);
    let inner = TestServer::with_routes(vec![route(to(&endpoint))]).await;
    inner.proxy.trace(tracer_of_all(&collector, 1.0, LateRecording::default()));
    let mask = json!({"kinds": ["email"], "log": {"access_log_fields": ["user_agent"]}, "response_body": false});
    let plugins = [("key-auth", json!({"key_names": ["key"]})), ("correlation-id", json!({})), ("mask", mask)];
    let to_inner =
        with_timeouts_and_retries(forward(vec![(1, upstream("inner", &[inner.address]))]), retries(2, &[503]));
    let outer = start(&plugins, to_inner).await;
    outer.server.proxy.trace(tracer_of_all(&collector, 1.0, LateRecording::default()));
    let request = "PUT /of/jane@b.example?key=secret HTTP/1.1\r\nHost: a.example\r\nuser-agent: mine\r\n\
                   content-length: 5\r\n\r\nhello";
    assert_eq!(outer.server.request(request).await.status, 200);

    // Each of three requests has its choice of a rule and both bodies; the first one has two plugins in addition.
    until("spans", async || json_spans(&collector).len() >= 4 + 2 + 2 + 2 * 5).await;
    let mut spans = json_spans(&collector);
    let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    spans.sort_by_key(|span| time(span, "startTimeUnixNano"));
    let of_kind = |kind: u8| spans.iter().filter(move |span| span["kind"] == kind);
    let root = of_kind(2).find(|span| span.get("parentSpanId").is_none_or(|parent| parent == "")).unwrap();
    assert!(spans.iter().all(|span| span["traceId"] == root["traceId"]), "{spans:#?}");
    let shown = ["url.path", "user_agent.original"].map(|name| json_attribute(root, name).as_str().unwrap().to_owned());
    assert!(shown[0].starts_with("/of/") && !shown[0].contains('@') && shown[1] != "mine", "{shown:?}");
    let children = |parent: &Value| -> Vec<&Value> {
        spans.iter().filter(|span| span["parentSpanId"] == parent["spanId"]).collect()
    };
    let mut names: Vec<&str> = children(root).iter().map(|span| span["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names.iter().filter(|name| name.starts_with("plugin ")).count(), names.len() - 5, "{names:?}");
    for name in
        ["PUT", "plugin correlation-id access", "plugin key-auth access", "request body", "response body", "routing"]
    {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let attempts: Vec<&Value> = children(root).into_iter().filter(|span| span["kind"] == 3).collect();
    let [failed, last] = attempts[..] else { panic!("{attempts:#?}") };
    for (attempt, status) in [(failed, "503"), (last, "200")] {
        let received = children(attempt);
        let [request] = received[..] else { panic!("one request for {attempt}: {received:#?}") };
        assert_eq!((&request["kind"], &request["name"]), (&json!(2), &json!("PUT")));
        assert_eq!(json_attribute(request, "http.response.status_code"), status);
        assert_eq!(json_attribute(attempt, "http.response.status_code"), status);
        assert!(time(request, "startTimeUnixNano") + 50_000_000 >= time(attempt, "startTimeUnixNano"));
        let sent: Vec<_> = children(request).into_iter().filter(|span| span["kind"] == 3).collect();
        let [sent] = sent[..] else { panic!("{sent:#?}") };
        let id = sent["spanId"].as_str().unwrap();
        assert!(endpoint.log.requests().iter().any(|request| request.contains(id)), "the endpoint gets {id}");
    }
    assert_ne!(failed["spanId"], last["spanId"]);
}

/// The longest value is an URL of the plugin, whose limit is that of log entries.
#[tokio::test]
async fn clients_cannot_make_spans_large() {
    let (endpoint, collector, of_plugin) = (Endpoint::ok().await, Collector::start().await, Collector::start().await);
    let server = start(&[opentelemetry(&of_plugin)], to(&endpoint)).await;
    server.server.proxy.trace(tracer_of_all(&collector, 1.0, LateRecording::default()));
    let (path, agent) = ("p".repeat(7_000), "a".repeat(7_000));
    let baggage = "k=v,".repeat(500);
    let fields = format!("user-agent: {agent}\r\nbaggage: {baggage}x=y\r\ntracestate: {baggage}x=y");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n");
    assert_eq!(server.server.request(&request).await.status, 200);
    until("spans of both tracers", async || !json_spans(&collector).is_empty() && !of_plugin.spans().is_empty()).await;
    let all = serde_json::to_vec(&json_spans(&collector)).unwrap().len();
    assert!(all < 8 * 1024, "{all} bytes of JSON");
    let of_plugin: usize = of_plugin.messages("/v1/traces", "application/x-protobuf").iter().map(Vec::len).sum();
    assert!(of_plugin < 12 * 1024, "{of_plugin} bytes of the plugin");
}

#[tokio::test]
async fn route_traces_have_the_call_of_the_authorization_server() {
    let (endpoint, collector) = (Endpoint::ok().await, Collector::start().await);
    let authorization = authorization_server().await;
    let state = PluginState::default();
    let (name, config) = opentelemetry(&collector);
    let chain = chain_with(&[(REGISTRY.find(name).unwrap(), config)], &state, &loopback_services());
    let mut routes = guarded_routes(http_filter(upstream("auth", &[authorization.address])), &endpoint);
    routes[0].plugins = Some(chain);
    let server = TestServer::with_routes(routes).await;
    for (path, status) in [("/a", 200), ("/denied", 401)] {
        let response = server.request(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        assert_eq!(response.status, status);
    }
    let calls = || -> Vec<OtlpSpan> {
        collector.spans().into_iter().filter(|span| span.name == "external authorization").collect()
    };
    until("both calls", async || calls().len() == 2).await;
    let decisions: Vec<String> = calls().iter().map(|call| attribute(call, "portico.authorization")).collect();
    assert_eq!(decisions, ["allowed", "denied"]);
    assert_eq!(attribute(&calls()[1], "http.response.status_code"), "401");
    let roots: Vec<OtlpSpan> = collector.spans().into_iter().filter(|span| span.name == "kong").collect();
    for call in calls() {
        assert!(roots.iter().any(|root| root.span_id == call.parent_span_id && root.trace_id == call.trace_id));
    }
}

/// The messages without their frames, with the path of each call.
type ReceivedCalls = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server of gRPC whose calls succeed.
async fn grpc_collector() -> (SocketAddr, ReceivedCalls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = ReceivedCalls::default();
    let kept = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let kept = Arc::clone(&kept);
                    tokio::spawn(async move {
                        assert_eq!(request.headers()["content-type"], "application/grpc");
                        let path = request.uri().path().to_owned();
                        let (mut body, mut message) = (request.into_body(), Vec::new());
                        while let Some(Ok(part)) = body.data().await {
                            body.flow_control().release_capacity(part.len()).unwrap();
                            message.extend_from_slice(&part);
                        }
                        let length = u32::try_from(message.len() - 5).unwrap().to_be_bytes();
                        assert_eq!(message[..5], [&[0][..], &length].concat());
                        kept.lock().unwrap().push((path, message.split_off(5)));
                        let response = http::Response::builder().header("content-type", "application/grpc");
                        let mut sending = respond.send_response(response.body(()).unwrap(), false).unwrap();
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        sending.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    (address, calls)
}

#[tokio::test]
async fn servers_get_traces_and_logs_over_grpc() {
    let (endpoint, (address, calls)) = (Endpoint::ok().await, grpc_collector().await);
    let url = format!("http://{address}");
    let config = json!({
        "traces_endpoint": url, "logs_endpoint": url, "protocol": "grpc", "sampling_rate": 1,
        "queue": {"max_coalescing_delay": 0},
    });
    let server = start(&[("opentelemetry", config)], to(&endpoint)).await;
    server.get(2).await;
    until("calls", async || calls.lock().unwrap().len() >= 4).await;
    let messages = |path: &str| -> Vec<Vec<u8>> {
        let calls = calls.lock().unwrap();
        calls.iter().filter(|(called, _)| called == path).map(|(_, message)| message.clone()).collect()
    };
    let traces = messages("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let logs = messages("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    let spans = traces.iter().flat_map(|message| ExportTraces::decode(&**message).unwrap().resource_spans);
    assert_eq!(spans.filter(|entry| entry.scope_spans[0].spans[0].name == "kong").count(), 2);
    let records = logs.iter().flat_map(|message| ExportLogs::decode(&**message).unwrap().resource_logs);
    assert_eq!(records.count(), 2);
}
