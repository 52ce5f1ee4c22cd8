//! Differences between two schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::nodes::{nodes, rules};

/// One line per difference, Portico's schema first. Descriptions and expressions of rules may differ, but not their
/// places.
pub(crate) fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let (ours, theirs) = (nodes(ours), nodes(theirs));
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut lines = Vec::new();
    for path in paths {
        match (ours.get(path), theirs.get(path)) {
            (Some(ours), Some(theirs)) => compare(path, ours, theirs, &mut lines),
            (Some(_), None) => lines.push(format!("{path}: present / absent")),
            (None, _) => lines.push(format!("{path}: absent / present")),
        }
    }
    lines
}

/// Whether two schemas are equal, including the expressions of their rules.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    let words = |schema| -> Vec<(String, Vec<String>)> {
        nodes(schema).into_iter().map(|(path, node)| (path, rules(node).map(str::to_owned).collect())).collect()
    };
    differences(one, other).is_empty() && words(one) == words(other)
}

fn compare(path: &str, ours: &Map<String, Value>, theirs: &Map<String, Value>, lines: &mut Vec<String>) {
    let (ruled, they_rule) = (rules(ours).next().is_some(), rules(theirs).next().is_some());
    if ruled != they_rule {
        lines.push(format!("{path} rules: {ruled} / {they_rule}"));
    }
    let (ours, theirs) = (own_keywords(ours), own_keywords(theirs));
    let words: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for word in words {
        let (ours, theirs) = (ours.get(word), theirs.get(word));
        if ours != theirs {
            let shown = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
            lines.push(format!("{path} {word}: {} / {}", shown(ours), shown(theirs)));
        }
    }
}

/// Keywords of the node itself, with unordered lists sorted.
fn own_keywords(node: &Map<String, Value>) -> Map<String, Value> {
    let elsewhere =
        ["properties", "items", "additionalProperties", "description", "x-kubernetes-validations", "required", "enum"];
    let mut asked: Map<String, Value> = node
        .iter()
        .filter(|(word, _)| !elsewhere.contains(&word.as_str()))
        .map(|(w, v)| (w.clone(), v.clone()))
        .collect();
    for word in ["required", "enum"] {
        if let Some(values) = node.get(word).and_then(Value::as_array) {
            let mut values = values.clone();
            values.sort_by_key(Value::to_string);
            asked.insert(word.to_owned(), Value::Array(values));
        }
    }
    asked
}
