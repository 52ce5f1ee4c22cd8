//! Objects, and parts of objects, that a page shows: what `portico check` says of them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::program::clean;
use crate::page::Block;

/// What is wrong with them, as far as they can be judged alone.
pub(crate) fn problems(block: &Block) -> Vec<String> {
    let documents: Vec<Value> = match serde_saphyr::from_multiple(&block.text) {
        Ok(documents) => documents,
        Err(error) => return vec![format!("it is no YAML: {error}")],
    };
    let documents: Result<Vec<Value>, String> = documents.into_iter().map(whole).collect();
    let documents = match documents {
        Ok(documents) => documents,
        Err(key) => return vec![format!("it begins with {key:?}, and of no object is known that it does; mark it")],
    };
    let text: Vec<String> = documents.iter().map(|document| format!("{document}\n")).collect();
    let findings: Vec<Value> = serde_json::from_str(&check(&text.join("---\n"))).unwrap();
    let judged = findings.iter().filter(|finding| {
        let reason = finding["reason"].as_str().unwrap_or_default();
        let message = finding["message"].as_str().unwrap_or_default();
        !ELSEWHERE.contains(&reason) && !message.contains("does not exist")
    });
    judged.map(Value::to_string).collect()
}

/// About objects that are not in the block, and what is no mistake.
const ELSEWHERE: &[&str] =
    &["BackendNotFound", "InvalidCertificateRef", "NoMatchingParent", "Pending", "RefNotPermitted", "Remark"];

/// A part of an object in an object around it; its first key says of which.
fn whole(part: Value) -> Result<Value, String> {
    if part.get("apiVersion").is_some() && part.get("kind").is_some() {
        return Ok(part);
    }
    let gateway_api = "gateway.networking.k8s.io/v1";
    let first = part.as_object().and_then(|object| object.keys().next()).cloned().unwrap_or_default();
    let metadata = json!({"name": "shown"});
    let mut whole = match first.as_str() {
        "listeners" => json!({"apiVersion": gateway_api, "kind": "Gateway", "metadata": metadata,
            "spec": {"gatewayClassName": "portico", "listeners": part["listeners"]}}),
        "rules" => json!({"apiVersion": gateway_api, "kind": "HTTPRoute", "metadata": metadata,
            "spec": {"rules": part["rules"]}}),
        "plugin" => json!({"apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": metadata}),
        _ => return Err(first),
    };
    if first == "plugin" {
        for (name, value) in part.as_object().expect("it has a first key") {
            whole[name] = value.clone();
        }
    }
    Ok(whole)
}

fn check(text: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    clean(&mut command);
    command.args(["check", "-o", "json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
