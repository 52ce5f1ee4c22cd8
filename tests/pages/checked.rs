//! Blocks that are validated but not run: JSON and Prometheus queries.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::program::root;
use crate::pages::page::Block;

pub(crate) const LANGUAGES: [&str; 2] = ["json", "promql"];

/// The error in a block of one of `LANGUAGES`.
pub(crate) fn problem(block: &Block) -> Option<String> {
    match &*block.language {
        "json" => serde_json::from_str::<Value>(&block.text).err().map(|error| format!("not JSON: {error}")),
        "promql" => query_problem(&block.text),
        other => Some(format!("no check for {other}")),
    }
}

/// The queries in inline code, for example in tables: code with a metric of Portico and an operator or function.
pub(crate) fn queries(text: &str) -> impl Iterator<Item = &str> {
    let is_query = |code: &&str| code.contains("portico_") && code.contains(['(', '{', '<', '>', '/']);
    text.split("```")
        .step_by(2)
        .flat_map(str::lines)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(is_query)
}

/// Validates the syntax of a query and the metrics that it uses.
pub(crate) fn query_problem(query: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let rules = json!({ "groups": [{ "name": "pages", "rules": [{ "record": "shown", "expr": query }] }] });
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules.to_string()).expect("the file can be written");
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; scripts/setup.sh test installs it"));
    if !output.status.success() {
        return Some(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metrics_page = fs::read_to_string(root().join("docs/metrics.md")).expect("the page exists");
    let words = query.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let families = words.filter(|word| word.starts_with("portico_")).map(|word| {
        let suffixes = ["_bucket", "_sum", "_count"];
        suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word)
    });
    let mut unknown = families.filter(|family| !metrics_page.contains(&format!("`{family}`")));
    unknown.next().map(|family| format!("docs/metrics.md has no {family}"))
}
