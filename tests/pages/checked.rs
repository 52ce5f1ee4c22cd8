//! Blocks that are not run but have to be right: JSON, and queries for Prometheus.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::program::root;
use crate::page::Block;

pub(crate) const LANGUAGES: [&str; 2] = ["json", "promql"];

/// What is wrong with a block of one of these languages.
pub(crate) fn problem(block: &Block) -> Option<String> {
    match &*block.language {
        "json" => serde_json::from_str::<Value>(&block.text).err().map(|error| format!("it is no JSON: {error}")),
        "promql" => query_problem(&block.text),
        other => Some(format!("nothing checks {other}")),
    }
}

/// Queries within lines, such as those in a table: code that names a metric of ours and does something with it.
pub(crate) fn queries(text: &str) -> impl Iterator<Item = &str> {
    let is_query = |code: &&str| code.contains("portico_") && code.contains(['(', '{', '<', '>', '/']);
    text.split("```")
        .step_by(2)
        .flat_map(str::lines)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(is_query)
}

/// A query is one that Prometheus can read, and asks for metrics that there are.
pub(crate) fn query_problem(query: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("there is room for a file");
    let rules = json!({ "groups": [{ "name": "pages", "rules": [{ "record": "shown", "expr": query }] }] });
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules.to_string()).expect("there is room for a file");
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; scripts/setup.sh test installs it"));
    if !output.status.success() {
        return Some(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let page = fs::read_to_string(root().join("docs/metrics.md")).expect("there is such a page");
    let words = query.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let families = words.filter(|word| word.starts_with("portico_")).map(|word| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word)
    });
    let mut unknown = families.filter(|family| !page.contains(&format!("`{family}`")));
    unknown.next().map(|family| format!("docs/metrics.md has no {family}"))
}
