//! What servers of others understand of the plugins for logs and metrics: VictoriaLogs, which takes the protocols of
//! several databases, the exporter of Prometheus for StatsD, and the receiver of OpenTelemetry's collector.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use portico_e2e::wait::until;
use portico_e2e::without_cluster::{Program, START_TIMEOUT};
use portico_e2e::{programs, without_cluster};
use serde_json::{Value, json};

/// The value of a header field, which is a part of each log entry: nothing in it may end an entry or begin another one.
const AGENT: &str = "a\"]b\\n <13>1 - - forged {\"level\":\"x\"}";

/// The ends of the targets of requests with each plugin.
const PATHS: [&str; 2] = ["/first?a=1", "/second"];

const ROUTE: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: @name@, annotations: {konghq.com/plugins: @name@}}
spec:
  parentRefs: [{name: web}]
  rules:
    - matches: [{path: {value: /@name@}}]
      backendRefs: [{name: echo, port: 9000}]
";

#[test]
#[ignore = "only in make test-full: it builds three servers, for a minute each"]
fn servers_of_others_understand_logs_and_metrics() {
    let programs = [programs::victoria_logs, programs::statsd_exporter, programs::collector];
    without_cluster::run("portico-logs", &programs, entries_arrive);
}

async fn entries_arrive() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let _servers = start_servers(folder.path()).await?;
    let plugins = plugins();
    let objects = plugins.iter().map(|(name, plugin, config)| {
        let object = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": {"name": name},
            "plugin": plugin, "config": config,
        });
        format!("---\n{object}\n{}", ROUTE.replace("@name@", name))
    });
    let objects: String = objects.collect();
    let objects = format!("{objects}{}", without_cluster::GATEWAY);
    let _portico = Program::portico(folder.path(), &objects, &["127.0.0.1:8080"]).await?;
    let agent = format!("User-Agent: {AGENT}");
    for (name, ..) in &plugins {
        for path in PATHS {
            let url = format!("http://127.0.0.1:8080/{name}{path}");
            let status = curl(&["--output", "/dev/null", "--write-out", "%{http_code}", "--header", &agent, &url])?;
            ensure!(status == "200", "{url}: {status}");
        }
    }
    until("VictoriaLogs has all logs", START_TIMEOUT, async || check_logs()).await?;
    until("the exporter has all metrics", START_TIMEOUT, async || check_metrics()).await?;
    until("the collector has both signals", START_TIMEOUT, async || check_otlp(&folder.path().join("otlp.log"))).await
}

async fn start_servers(folder: &Path) -> Result<[Program; 3]> {
    let mut logs = Command::new(programs::victoria_logs()?);
    logs.arg(format!("-storageDataPath={}", folder.join("logs").display())).args([
        "-httpListenAddr=127.0.0.1:9428",
        "-syslog.listenAddr.tcp=127.0.0.1:5514",
        "-syslog.listenAddr.udp=127.0.0.1:5514",
    ]);
    let logs = Program::start(logs, &folder.join("logs.log"), &["127.0.0.1:9428", "127.0.0.1:5514"]).await?;
    let mut metrics = Command::new(programs::statsd_exporter()?);
    metrics.args(["--web.listen-address=127.0.0.1:9102", "--statsd.listen-udp=127.0.0.1:9125"]);
    metrics.arg("--statsd.listen-tcp=127.0.0.1:9125");
    let metrics = Program::start(metrics, &folder.join("metrics.log"), &["127.0.0.1:9102", "127.0.0.1:9125"]).await?;
    let mut collector = Command::new(programs::collector()?);
    collector.args(["127.0.0.1:4317", "127.0.0.1:4318"]);
    let addresses = ["127.0.0.1:4317", "127.0.0.1:4318"];
    Ok([logs, metrics, Program::start(collector, &folder.join("otlp.log"), &addresses).await?])
}

/// The name, the plugin and the configuration of each.
fn plugins() -> Vec<(&'static str, &'static str, Value)> {
    let queue = json!({"max_coalescing_delay": 0.1});
    let otlp = |protocol: &str, port: u16| {
        let path = |signal: &str| if protocol == "grpc" { String::new() } else { format!("/v1/{signal}") };
        let server = format!("http://127.0.0.1:{port}");
        json!({
            "traces_endpoint": format!("{server}{}", path("traces")), "sampling_rate": 1, "queue": queue,
            "logs_endpoint": format!("{server}{}", path("logs")), "protocol": protocol,
            "resource_attributes": {"service.name": protocol},
        })
    };
    let lines = "http://127.0.0.1:9428/insert/jsonline?_msg_field=request.uri&_stream_fields=route.name";
    let logs = "http://127.0.0.1:9428/insert/opentelemetry/v1/logs";
    vec![
        ("syslog-tcp", "syslog", json!({"host": "127.0.0.1", "port": 5514, "protocol": "tcp", "facility": "local3"})),
        ("syslog-udp", "syslog", json!({"host": "127.0.0.1", "port": 5514, "protocol": "udp", "facility": "daemon"})),
        ("loggly", "loggly", json!({"host": "127.0.0.1", "port": 5514, "key": "a-token", "tags": ["shop"]})),
        ("lines", "http-log", json!({"http_endpoint": lines, "queue": queue})),
        ("otlp-logs", "opentelemetry", json!({"logs_endpoint": logs, "queue": queue})),
        ("statsd", "statsd", json!({"host": "127.0.0.1", "port": 9125, "tag_style": "dogstatsd"})),
        ("statsd-tcp", "statsd", json!({"host": "127.0.0.1", "port": 9125, "use_tcp": true, "prefix": "tcp"})),
        ("datadog", "datadog", json!({"host": "127.0.0.1", "port": 9125, "prefix": "datadog"})),
        ("otlp-grpc", "opentelemetry", otlp("grpc", 4317)),
        ("otlp-protobuf", "opentelemetry", otlp("http/protobuf", 4318)),
        ("otlp-json", "opentelemetry", otlp("http/json", 4318)),
    ]
}

/// Both requests of each of five plugins are there, once, with the same fields.
fn check_logs() -> Result<()> {
    let text = curl(&["http://127.0.0.1:9428/select/logsql/query", "--data", "query=*"])?;
    let entries: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(entries.len() == 5 * 2, "{} entries: {entries:#?}", entries.len());
    let mut targets = Vec::new();
    for entry in &entries {
        // Lines of JSON have fields; all others have the object as their text.
        let text = entry["_msg"].as_str().context("an entry has a text")?;
        let (uri, agent) = match serde_json::from_str::<Value>(text) {
            Ok(object) => (object["request"]["uri"].clone(), object["request"]["headers"]["user-agent"].clone()),
            Err(_) => (entry["request.uri"].clone(), entry["request.headers.user-agent"].clone()),
        };
        ensure!(agent == AGENT, "{entry}");
        targets.push(uri.as_str().unwrap_or(text).to_owned());
    }
    targets.sort();
    let of_plugin = |name: &&str| PATHS.map(|path| format!("/{name}{path}"));
    let expected: Vec<String> =
        ["lines", "loggly", "otlp-logs", "syslog-tcp", "syslog-udp"].iter().flat_map(of_plugin).collect();
    ensure!(targets == expected, "{targets:?}");
    let tagged = entries.iter().filter(|entry| entry["a-token@41058.tag"] == "shop").count();
    ensure!(tagged == 2, "structured data of Loggly: {entries:#?}");
    Ok(())
}

fn check_metrics() -> Result<()> {
    let text = curl(&["http://127.0.0.1:9102/metrics"])?;
    let value = |start: &str, label: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(start) && line.contains(label));
        lines.next().and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    for (series, label) in [
        ("kong_request_count{", "status=\"200\""),
        ("kong_latency_count{", "route=\"httproute.default.statsd.0.0\""),
        ("datadog_request_count{", "status=\"200\""),
        ("datadog_latency_count{", "app=\"kong\""),
        ("tcp_service_httproute_default_statsd_tcp_0_request_count", ""),
    ] {
        ensure!(value(series, label) == Some(2.0), "{series} {label}:\n{text}");
    }
    let errors = text.lines().filter(|line| {
        let is_error = line.starts_with("statsd_exporter_") && line.contains("error");
        is_error && !line.ends_with(" 0")
    });
    let errors: Vec<&str> = errors.collect();
    ensure!(errors.is_empty(), "{errors:?}");
    Ok(())
}

/// The collector has two spans `kong` and two logs of each protocol.
fn check_otlp(log: &Path) -> Result<()> {
    let text = fs::read_to_string(log)?;
    let messages: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let (mut spans, mut logs) = (0, 0);
        for (signal, scopes, records) in
            [("resourceSpans", "scopeSpans", "spans"), ("resourceLogs", "scopeLogs", "logRecords")]
        {
            let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let resources = messages.iter().flat_map(|message| all(&message[signal]));
            let of_protocol = resources.filter(|entry| entry["resource"]["attributes"].to_string().contains(protocol));
            for record in of_protocol.flat_map(|entry| all(&entry[scopes])).flat_map(|scope| all(&scope[records])) {
                ensure!(record["traceId"].as_str().is_some_and(|id| id.len() == 32), "{record}");
                spans += usize::from(record["name"] == "kong");
                let body = record["body"]["stringValue"].as_str().unwrap_or_default();
                if let Ok(object) = serde_json::from_str::<Value>(body) {
                    ensure!(object["request"]["headers"]["user-agent"] == AGENT, "{object}");
                    logs += 1;
                }
            }
        }
        ensure!((spans, logs) == (2, 2), "{protocol}: {spans} spans and {logs} logs of 2 requests");
    }
    Ok(())
}

/// The output of curl.
fn curl(arguments: &[&str]) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "30"]).args(arguments);
    let output = curl.stdin(Stdio::null()).output().context("cannot start curl")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
