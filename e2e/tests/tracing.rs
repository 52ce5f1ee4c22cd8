//! Traces of two gateways in a row in Jaeger: by OTLP over gRPC, HTTP and as JSON, and in Zipkin's format. The test
//! asks Jaeger's query API, and a Prometheus for exemplars.

pub(crate) mod backends;
mod jaeger;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portico_e2e::wait::until;
use portico_e2e::without_cluster::{Program, START_TIMEOUT};
use portico_e2e::{programs, without_cluster};
use serde_json::{Value, json};

use backends::{call, flaky_backend, grpc_backend};
use jaeger::{Jaeger, JaegerSpan, curl, gateway_of, named};

/// The gateway of clients, its listener for TCP, and routes to the second gateway. `@tracer@` is the name of a plugin.
const OUTER: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: outer}
spec:
  gatewayClassName: portico
  listeners:
    - {name: http, protocol: HTTP, port: 8080}
    - {name: tcp, protocol: TCP, port: 8090}
---
apiVersion: v1
kind: Service
metadata: {name: inner, annotations: {portico.dev/address: 127.0.0.1}}
spec: {ports: [{port: 8081}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: mark}
plugin: correlation-id
config: {header_name: x-mark}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: change}
plugin: request-transformer
config: {add: {headers: ['x-changed:1']}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, annotations: {konghq.com/plugins: 'mark,change@tracer@'}}
spec:
  parentRefs: [{name: outer}]
  rules:
    - retry: {codes: [503], attempts: 2, backoff: 10ms}
      backendRefs: [{name: inner, port: 8081}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  parentRefs: [{name: outer, sectionName: http}]
  rules:
    - matches: [{method: {service: shop.Cart}}]
      backendRefs: [{name: inner, port: 8081}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: raw}
spec:
  parentRefs: [{name: outer, sectionName: tcp}]
  rules: [{backendRefs: [{name: inner, port: 8081}]}]
";

/// The second gateway, in front of the backends.
const INNER: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: inner}
spec:
  gatewayClassName: portico
  listeners: [{name: http, protocol: HTTP, port: 8081}]
---
apiVersion: v1
kind: Service
metadata: {name: flaky, annotations: {portico.dev/address: 127.0.0.1}}
spec: {ports: [{name: http, port: 9100}, {name: grpc, port: 9200}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: flaky@annotation@}
spec:
  parentRefs: [{name: inner}]
  rules: [{backendRefs: [{name: flaky, port: 9100}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  parentRefs: [{name: inner}]
  rules:
    - matches: [{method: {service: shop.Cart}}]
      backendRefs: [{name: flaky, port: 9200}]
";

const CLASS: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: portico}
spec: {controllerName: portico.dev/gateway-controller}
";

#[test]
#[ignore = "only in make test-full: it builds Jaeger, for several minutes"]
fn two_gateways_make_one_trace_in_jaeger() {
    without_cluster::run("portico-tracing", &[programs::jaeger], traces_arrive);
}

async fn traces_arrive() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let jaeger = Jaeger::start(folder.path()).await?;
    flaky_backend("127.0.0.1:9100").await?;
    grpc_backend("127.0.0.1:9200").await?;
    all_requests(folder.path(), &jaeger).await.context("with the flags")?;
    let otlp = |port: u16, protocol: &str| {
        let path = if protocol == "grpc" { "" } else { "/v1/traces" };
        let url = format!("http://127.0.0.1:{port}{path}");
        json!({"traces_endpoint": url, "protocol": protocol, "sampling_rate": 1, "queue": {"max_coalescing_delay": 0.1}})
    };
    let zipkin = json!({
        "http_endpoint": "http://127.0.0.1:9411/api/v2/spans", "sample_ratio": 1, "queue": {"max_coalescing_delay": 0.1},
    });
    for (plugin, outer, inner, attempt) in [
        ("opentelemetry", otlp(4317, "grpc"), otlp(4318, "http/json"), "kong.balancer"),
        ("opentelemetry", otlp(4318, "http/protobuf"), otlp(4317, "grpc"), "kong.balancer"),
        ("zipkin", zipkin.clone(), zipkin, "GET (balancer try"),
    ] {
        let what = format!("with the plugin {plugin} and {outer}");
        requests_of_a_route(folder.path(), &jaeger, plugin, &[outer, inner], attempt).await.context(what)?;
    }
    Ok(())
}

/// The flags `--trace-…` of both gateways: gRPC for one and protobuf over HTTP for the other.
async fn all_requests(folder: &Path, jaeger: &Jaeger) -> Result<()> {
    let log = folder.join("outer-access.log");
    let _outer = start_outer(folder, "", &log, &["--otlp-protocol", "grpc"], "http://127.0.0.1:4317").await?;
    let _inner = start_inner(folder, "", &["--trace-otlp-endpoint", "http://127.0.0.1:4318", "--trace-sampling", "1"]);
    let _inner = _inner.await?;
    let _prometheus = start_prometheus(folder).await?;

    let trace = traced_request(&log, "/flags").await?;
    // Two attempts of the first gateway, each of which is a request with an attempt of the second one.
    let spans = jaeger.trace(&trace, 3, 4).await?;
    check_spans(&spans, "outer")?;
    let plugins: Vec<&str> = spans.iter().map(|span| &*span.name).filter(|name| name.starts_with("plugin ")).collect();
    for plugin in ["plugin correlation-id access", "plugin request-transformer access"] {
        ensure!(plugins.contains(&plugin), "{plugins:?}");
    }
    for (name, count) in [("routing", 3), ("response body", 3), ("request body", 0)] {
        ensure!(spans.iter().filter(|span| span.name == name).count() == count, "{name}: {spans:?}");
    }
    check_gateways(&spans, "GET")?;

    until("the exemplar", START_TIMEOUT, async || {
        let url = "http://127.0.0.1:9090/api/v1/query_exemplars?query=portico_request_duration_seconds_bucket\
                   &start=2020-01-01T00:00:00Z&end=2100-01-01T00:00:00Z";
        let found: Value = serde_json::from_str(&curl(&["--globoff", url])?)?;
        ensure!(found.to_string().contains(&format!("\"trace_id\":\"{trace}\"")), "{found}");
        Ok(())
    })
    .await?;

    call("http://127.0.0.1:8080").await?;
    let trace = logged_trace(&log, "/shop.Cart/Get").await?;
    let spans = jaeger.trace(&trace, 3, 2).await?;
    check_spans(&spans, "outer")?;
    let backend = named(&spans, "shop.Cart/Get")?;
    let attempt = spans.iter().find(|span| Some(&span.id) == backend.parent.as_ref()).context("it has a parent")?;
    ensure!(gateway_of(&spans, attempt)? == "default/inner" && attempt.kind == "client", "{attempt:?}");

    curl(&["http://127.0.0.1:8090/stream"])?;
    let session = logged(&log, |line| line["method"].is_null()).await?;
    let trace = session["trace_id"].as_str().context("a session has a trace")?.to_owned();
    let spans = jaeger.trace(&trace, 1, 1).await?;
    check_spans(&spans, "outer")?;
    let (session, connect) = (named(&spans, "TCP")?, named(&spans, "connect")?);
    ensure!(connect.parent.as_ref() == Some(&session.id) && session.tags["portico.route"].is_string(), "{spans:?}");
    Ok(())
}

/// A plugin on the route of each gateway, with these configurations.
async fn requests_of_a_route(
    folder: &Path,
    jaeger: &Jaeger,
    plugin: &str,
    configs: &[Value; 2],
    attempt: &str,
) -> Result<()> {
    let object = |config: &Value| {
        let object = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": {"name": "tracer"},
            "plugin": plugin, "config": config,
        });
        format!("---\n{object}\n")
    };
    let log = folder.join(format!("{plugin}-access.log"));
    // Another round with the same plugin has written it.
    drop(fs::remove_file(&log));
    let _outer = start_outer(folder, &object(&configs[0]), &log, &[], "").await?;
    let _inner = start_inner(folder, &object(&configs[1]), &[]).await?;
    let trace = traced_request(&log, "/plugin").await?;
    // Zipkin has a span from the first plugin to the end in addition.
    let spans = jaeger.trace(&trace, 3, if plugin == "zipkin" { 4 + 3 } else { 4 }).await?;
    check_spans(&spans, "")?;
    let attempts: Vec<_> = spans.iter().filter(|span| span.name.starts_with(attempt)).collect();
    ensure!(attempts.len() == 4, "two of the first gateway, and one of each request to the second one: {spans:?}");
    for root in spans.iter().filter(|span| span.kind == "server" && span.parent.is_some()) {
        let parent = spans.iter().find(|span| Some(&span.id) == root.parent.as_ref()).context("it has a parent")?;
        ensure!(parent.name.starts_with(attempt), "{parent:?} of {root:?}");
    }
    Ok(())
}

async fn start_outer(folder: &Path, tracer: &str, log: &Path, flags: &[&str], endpoint: &str) -> Result<Program> {
    let name = if tracer.is_empty() { "" } else { ",tracer" };
    let objects = format!("{CLASS}{tracer}{}", OUTER.replace("@tracer@", name));
    let mut arguments = vec!["--access-log", log.to_str().context("a path of this test")?];
    arguments.extend(["--access-log-format", "json", "--access-log-fields", "method,path,trace_id,status"]);
    arguments.extend(["--status-listen", "127.0.0.1:9901", "--admin-listen", "off"]);
    if !endpoint.is_empty() {
        arguments.extend(["--trace-otlp-endpoint", endpoint, "--trace-sampling", "1"]);
    }
    arguments.extend(flags);
    Program::portico_named("outer", folder, &objects, &arguments, &["127.0.0.1:8080", "127.0.0.1:8090"]).await
}

async fn start_inner(folder: &Path, tracer: &str, flags: &[&str]) -> Result<Program> {
    let annotation = if tracer.is_empty() { "" } else { ", annotations: {konghq.com/plugins: tracer}" };
    let objects = format!("{CLASS}{tracer}{}", INNER.replace("@annotation@", annotation));
    let mut arguments = vec!["--access-log", "off", "--status-listen", "127.0.0.1:9902", "--admin-listen", "off"];
    // What the first gateway has decided counts.
    arguments.extend(["--trusted-ips", "127.0.0.0/8"]);
    arguments.extend(flags);
    Program::portico_named("inner", folder, &objects, &arguments, &["127.0.0.1:8081"]).await
}

async fn start_prometheus(folder: &Path) -> Result<Program> {
    let config = folder.join("prometheus.yml");
    let text = "global: {scrape_interval: 500ms}\n\
                scrape_configs: [{job_name: portico, static_configs: [{targets: ['127.0.0.1:9901']}]}]\n";
    fs::write(&config, text)?;
    let mut prometheus = Command::new("prometheus");
    prometheus.arg("--config.file").arg(config).arg("--storage.tsdb.path").arg(folder.join("prometheus"));
    prometheus.args(["--web.listen-address=127.0.0.1:9090", "--enable-feature=exemplar-storage"]);
    Program::start(prometheus, &folder.join("prometheus.log"), &["127.0.0.1:9090"]).await
}

/// Sends a request whose first attempt fails. Returns the identifier of its trace as the access log has it.
async fn traced_request(log: &Path, path: &str) -> Result<String> {
    let status = curl(&["--write-out", "%{http_code}", &format!("http://127.0.0.1:8080{path}")])?;
    ensure!(status == "done200", "{status}");
    logged_trace(log, path).await
}

async fn logged_trace(log: &Path, path: &str) -> Result<String> {
    let line = logged(log, |line| line["path"] == path).await?;
    Ok(line["trace_id"].as_str().with_context(|| format!("no trace in {line}"))?.to_owned())
}

/// The line of the access log that meets a condition. It is written some milliseconds after the request.
async fn logged(log: &Path, condition: impl Fn(&Value) -> bool) -> Result<Value> {
    until("the line is in the access log", START_TIMEOUT, async || {
        let text = fs::read_to_string(log)?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.find(&condition).with_context(|| format!("not in the access log:\n{text}"))
    })
    .await
}

/// All spans belong together, and each is within its parent. `gateway`: that of the root, or empty.
fn check_spans(spans: &[JaegerSpan], gateway: &str) -> Result<()> {
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_none()).collect();
    ensure!(roots.len() == 1, "a trace has one root: {spans:?}");
    ensure!(gateway.is_empty() || gateway_of(spans, roots[0])? == format!("default/{gateway}"), "{spans:?}");
    for span in spans {
        // Whether it is within its parent is compared below, with a tolerance that Jaeger does not have.
        let is_about_moments =
            |warning: &Value| warning.as_str().is_some_and(|text| text.starts_with("clock skew adjustment disabled"));
        let warnings = span.warnings.as_array().map_or(&[][..], Vec::as_slice);
        ensure!(warnings.iter().all(is_about_moments), "{span:?}");
        let Some(parent) = &span.parent else { continue };
        let parent = spans.iter().find(|other| other.id == *parent);
        let parent = parent.with_context(|| format!("the parent of {span:?} is not in the trace: {spans:?}"))?;
        // Both gateways derive the moments of a request from the time at which they record it.
        let tolerance = 20_000;
        let is_within = span.start + tolerance >= parent.start
            && span.start + span.duration <= parent.start + parent.duration + tolerance;
        ensure!(is_within, "{span:?} is not within {parent:?}");
    }
    Ok(())
}

/// Each attempt of the first gateway is the parent of one request of the second one.
fn check_gateways(spans: &[JaegerSpan], method: &str) -> Result<()> {
    let requests = |gateway: &'static str| {
        let is_request = move |span: &&JaegerSpan| {
            span.kind == "server" && span.tags.get("portico.gateway").is_some_and(|name| name == gateway)
        };
        let mut found: Vec<_> = spans.iter().filter(is_request).collect();
        found.sort_by_key(|span| span.start);
        found
    };
    let (outer, inner) = (requests("default/outer"), requests("default/inner"));
    ensure!(outer.len() == 1 && inner.len() == 2, "{spans:?}");
    let of_outer = |span: &&JaegerSpan| span.kind == "client" && span.parent.as_ref() == Some(&outer[0].id);
    let mut attempts: Vec<_> = spans.iter().filter(of_outer).collect();
    attempts.sort_by_key(|span| span.start);
    ensure!(attempts.len() == 2 && attempts.iter().all(|attempt| attempt.name == method), "{attempts:?}");
    for (place, (attempt, request)) in attempts.iter().zip(&inner).enumerate() {
        ensure!(request.parent.as_ref() == Some(&attempt.id), "{request:?} is not a child of {attempt:?}");
        let status = if place == 0 { 503 } else { 200 };
        for span in [attempt, request] {
            ensure!(span.tags["http.response.status_code"] == status, "{span:?}");
        }
    }
    let errors = [0, 1].map(|place| attempts[place].tags.get("error").is_some_and(|error| error == true));
    ensure!(errors == [true, false], "{attempts:?}");
    Ok(())
}
