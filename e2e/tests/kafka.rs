//! The plugins for Kafka with three brokers, which are those of a client library and require SASL. The leaders of
//! partitions change all the time.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use portico_e2e::wait::until;
use portico_e2e::without_cluster::{Program, START_TIMEOUT};
use portico_e2e::{programs, without_cluster};
use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};

const USER: &str = "gateway";
/// The comma and the equals sign have a meaning in SCRAM.
const PASSWORD: &str = "pass,word=";
const PORTS: [&str; 3] = ["9092", "9093", "9094"];

const MANIFESTS: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: logged, annotations: {konghq.com/plugins: log}}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{name: echo, port: 9000}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: awaited, annotations: {konghq.com/plugins: awaited}}
spec:
  parentRefs: [{name: web}]
  rules: [{matches: [{path: {value: /awaited}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: queued, annotations: {konghq.com/plugins: queued}}
spec:
  parentRefs: [{name: web}]
  rules: [{matches: [{path: {value: /queued}}]}]
";

fn plugin(name: &str, plugin: &str, mechanism: &str, fields: &Value) -> Value {
    let servers = PORTS.map(|port| json!({"host": "127.0.0.1", "port": port.parse::<u16>().unwrap()}));
    let mut config = json!({
        "bootstrap_servers": servers, "key_query_arg": "key", "producer_async_flush_timeout": 100,
        "authentication": {"strategy": "sasl", "mechanism": mechanism, "user": USER, "password": PASSWORD},
        "producer_request_retries_max_attempts": 50, "producer_request_acks": -1,
    });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": {"name": name},
        "plugin": plugin, "config": config,
    })
}

#[test]
fn messages_reach_topics_whose_leaders_change() {
    without_cluster::run("portico-kafka", &[programs::kfake], async || messages_arrive(false).await);
}

/// The brokers have a certificate of a root that only the environment of Portico contains.
#[test]
fn messages_reach_brokers_with_tls() {
    without_cluster::run("portico-kafka-tls", &[programs::kfake], async || messages_arrive(true).await);
}

async fn messages_arrive(has_tls: bool) -> Result<()> {
    let kfake = programs::kfake()?;
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("kfake.log");
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    let mut brokers = Command::new(kfake);
    brokers.args([USER, PASSWORD]).args(PORTS);
    if has_tls {
        let made = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        brokers.args([&certificate, &key]);
    }
    let listens = PORTS.map(|port| format!("127.0.0.1:{port}"));
    let _brokers = Program::start(brokers, &output, &listens.each_ref().map(String::as_str)).await?;
    let plugin = |name: &str, kind: &str, mechanism: &str, fields: &Value| {
        let mut fields = fields.clone();
        fields["security"] = json!({"ssl": has_tls});
        plugin(name, kind, mechanism, &fields)
    };
    let plugins = [
        plugin("log", "kafka-log", "SCRAM-SHA-512", &json!({"topic": "requests"})),
        plugin("awaited", "kafka-upstream", "SCRAM-SHA-256", &json!({"topic": "logs", "producer_async": false})),
        plugin("queued", "kafka-upstream", "PLAIN", &json!({"topic": "logs", "forward_method": true})),
    ];
    let plugins: String = plugins.iter().map(|plugin| format!("---\n{plugin}\n")).collect();
    let objects = format!("{plugins}{}{MANIFESTS}", without_cluster::GATEWAY);
    let objects = format!("{objects}{}", without_cluster::ECHO_SERVICE);
    let arguments = ["--echo", "127.0.0.1:9000", "--access-log", "off"];
    let start = async |name: &str, root: Option<&Path>| {
        let mut portico = Program::portico_command(name, folder.path(), &objects, &arguments)?;
        if let Some(root) = root {
            portico.env("SSL_CERT_FILE", root);
        }
        Program::start(portico, &folder.path().join(format!("{name}.log")), &["127.0.0.1:8080"]).await
    };
    if has_tls {
        let portico = start("without-root", None).await?;
        let answer = post("http://127.0.0.1:8080/awaited", "unsent")?;
        ensure!(answer.starts_with("500 "), "a certificate of an unknown root is accepted: {answer}");
        drop(portico);
    }
    let _portico = start("portico", has_tls.then_some(certificate.as_path())).await?;
    for number in 0..20 {
        for path in ["awaited", "queued"] {
            let body = format!("{path}-{number}");
            let answer = post(&format!("http://127.0.0.1:8080/{path}?key=k{number}"), &body)?;
            ensure!(answer == r#"200 {"message":"message sent"}"#, "{body}: {answer}");
        }
    }
    let answer = post("http://127.0.0.1:8080/shop?key=a", "logged")?;
    ensure!(answer.starts_with("200 "), "{answer}");
    // The topic `requests` is created by the first message.
    until("all messages in their topics", START_TIMEOUT, async || check(&output)).await
}

/// Whether each message is there, perhaps twice, and those with the same key in the same partition.
fn check(output: &Path) -> Result<()> {
    let text = fs::read_to_string(output)?;
    let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_topic = |topic: &'static str| records.iter().filter(move |record| record["topic"] == topic);
    let mut bodies = BTreeSet::new();
    for record in of_topic("logs") {
        let message: Value = serde_json::from_str(record["value"].as_str().context("the value is a text")?)?;
        let body = message["body"].as_str().context("a message has a body")?;
        let (path, number) = body.split_once('-').context("the body is one of the test")?;
        ensure!(record["key"] == format!("k{number}"), "{record}");
        ensure!((path == "queued") == (message["method"] == "POST"), "{record}");
        bodies.insert(body.to_owned());
        let same_key = of_topic("logs").filter(|other| other["key"] == record["key"]);
        ensure!(same_key.into_iter().all(|other| other["partition"] == record["partition"]), "{record}");
    }
    ensure!(bodies.len() == 40, "{} messages have arrived: {bodies:?}", bodies.len());
    let logged = of_topic("requests").next().context("there is no log")?;
    let object: Value = serde_json::from_str(logged["value"].as_str().context("the value is a text")?)?;
    ensure!(logged["key"] == "a" && object["request"]["uri"] == "/shop?key=a", "{logged}");
    Ok(())
}

/// The status and the body of the response.
fn post(url: &str, body: &str) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "--header", "Content-Type: text/plain"]);
    curl.args(["--data-binary", body, "--write-out", "\n%{http_code}", url]);
    let output = curl.stdin(Stdio::null()).output().context("cannot start curl")?;
    let text = String::from_utf8(output.stdout)?;
    let (body, status) = text.rsplit_once('\n').context("curl prints the status")?;
    ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(format!("{status} {body}"))
}
