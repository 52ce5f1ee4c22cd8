//! Jaeger as a process, and its query API.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use portico_e2e::programs;
use portico_e2e::wait::until;
use portico_e2e::without_cluster::{Program, START_TIMEOUT};
use serde_json::{Map, Value};

/// A Jaeger with its usual ports and a store in memory.
pub(super) struct Jaeger {
    _program: Program,
}

/// A span as the query API returns it. Times are in microseconds.
#[derive(Debug)]
pub(super) struct JaegerSpan {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    pub(super) name: String,
    /// `server`, `client` or `internal`.
    pub(super) kind: String,
    pub(super) start: u64,
    pub(super) duration: u64,
    pub(super) tags: Map<String, Value>,
    /// What Jaeger thinks is wrong with the span.
    pub(super) warnings: Value,
}

impl Jaeger {
    pub(super) async fn start(folder: &Path) -> Result<Jaeger> {
        let mut jaeger = Command::new(programs::jaeger()?);
        jaeger.args(["--collector.zipkin.host-port=127.0.0.1:9411", "--query.http-server.host-port=127.0.0.1:16686"]);
        jaeger
            .args(["--collector.otlp.grpc.host-port=127.0.0.1:4317", "--collector.otlp.http.host-port=127.0.0.1:4318"]);
        let addresses = ["127.0.0.1:16686", "127.0.0.1:4317", "127.0.0.1:4318", "127.0.0.1:9411"];
        let program = Program::start(jaeger, &folder.join("jaeger.log"), &addresses).await?;
        Ok(Jaeger { _program: program })
    }

    /// The spans of a trace, as soon as there are this many of servers and of clients. All others arrive with them.
    pub(super) async fn trace(&self, id: &str, servers: usize, clients: usize) -> Result<Vec<JaegerSpan>> {
        until(&format!("Jaeger has the trace {id}"), START_TIMEOUT, async || {
            let answer = curl(&[&format!("http://127.0.0.1:16686/api/traces/{id}")])?;
            let answer: Value = serde_json::from_str(&answer)?;
            let traces = answer["data"].as_array().with_context(|| format!("no data: {answer}"))?;
            ensure!(traces.len() == 1, "one trace: {answer}");
            let spans = traces[0]["spans"].as_array().context("a trace has spans")?;
            let spans: Vec<JaegerSpan> = spans.iter().map(JaegerSpan::parse).collect::<Result<_>>()?;
            let of_kind = |kind: &str| spans.iter().filter(|span| span.kind == kind).count();
            let found = (of_kind("server"), of_kind("client"));
            ensure!(found == (servers, clients), "{found:?}, not {servers} and {clients}: {spans:?}");
            Ok(spans)
        })
        .await
    }
}

impl JaegerSpan {
    fn parse(span: &Value) -> Result<JaegerSpan> {
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("a text in {span}"));
        let number = |value: &Value| value.as_u64().with_context(|| format!("a number in {span}"));
        let references = span["references"].as_array().context("a span has references")?;
        ensure!(references.len() <= 1 && references.iter().all(|one| one["refType"] == "CHILD_OF"), "{span}");
        let tags = span["tags"].as_array().context("a span has tags")?;
        let tags: BTreeMap<String, Value> =
            tags.iter().map(|tag| Ok((text(&tag["key"])?, tag["value"].clone()))).collect::<Result<_>>()?;
        Ok(JaegerSpan {
            id: text(&span["spanID"])?,
            parent: references.first().map(|one| text(&one["spanID"])).transpose()?,
            name: text(&span["operationName"])?,
            kind: tags.get("span.kind").and_then(Value::as_str).unwrap_or("internal").to_owned(),
            start: number(&span["startTime"])?,
            duration: number(&span["duration"])?,
            tags: tags.into_iter().collect(),
            warnings: span["warnings"].clone(),
        })
    }
}

/// The only span with this name.
pub(super) fn named<'s>(spans: &'s [JaegerSpan], name: &str) -> Result<&'s JaegerSpan> {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    ensure!(found.len() == 1, "one {name}: {spans:?}");
    Ok(found[0])
}

/// The gateway that has recorded a span: that of the nearest ancestor that names one.
pub(super) fn gateway_of<'s>(spans: &'s [JaegerSpan], span: &'s JaegerSpan) -> Result<&'s str> {
    let mut span = span;
    loop {
        if let Some(gateway) = span.tags.get("portico.gateway") {
            return gateway.as_str().context("a gateway has a name");
        }
        let parent = spans.iter().find(|other| Some(&other.id) == span.parent.as_ref());
        span = parent.with_context(|| format!("{span:?} has no gateway"))?;
    }
}

/// The output of curl.
pub(super) fn curl(arguments: &[&str]) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30"]).args(arguments);
    let output = curl.stdin(Stdio::null()).output().context("cannot start curl")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
