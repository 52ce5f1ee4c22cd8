//! Validates objects on a page with `portico check`.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::program::normalize_environment;
use crate::pages::page::Block;

/// The diagnostics of the objects of a block, except those about objects that the block does not contain.
pub(crate) fn problems(block: &Block) -> Vec<String> {
    let documents = match block.objects() {
        Ok(documents) => documents,
        Err(problem) => return vec![problem],
    };
    let text: Vec<String> = documents.iter().map(|document| format!("{document}\n")).collect();
    let findings: Vec<Value> = serde_json::from_str(&check(&text.join("---\n"))).unwrap();
    let text_of = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let lacks_object = |finding: &Value| text_of(finding, "message").contains("does not exist");
    let is_plugin = |finding: &Value| text_of(finding, "object").starts_with("KongPlugin ");
    // Then the routes with the plugin have a finding, too.
    let has_incomplete_plugin = findings.iter().any(|finding| lacks_object(finding) && is_plugin(finding));
    let relevant = findings.iter().filter(|finding| {
        let reason = text_of(finding, "reason");
        let is_ignored = IGNORED_REASONS.contains(&&*reason) || has_incomplete_plugin && reason == "InvalidPlugin";
        !is_ignored && !lacks_object(finding)
    });
    relevant.map(Value::to_string).collect()
}

/// Reasons of diagnostics that concern objects outside of the block, or that are no errors.
const IGNORED_REASONS: &[&str] = &[
    "BackendNotFound",
    "InvalidCertificateRef",
    "NoMatchingParent",
    "NoValidCACertificate",
    "Pending",
    "RefNotPermitted",
    "NoEndpoint",
    "Remark",
    "ResolvedRefs",
];

fn check(text: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    normalize_environment(&mut command);
    command.args(["check", "-o", "json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().expect("stdin is piped").write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
