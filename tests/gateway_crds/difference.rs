//! Differences between two schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::nodes::{nodes, rules};

/// One line per difference, Portico's schema first. Both must have rules at the same nodes, but descriptions and the
/// expressions of rules may differ.
pub(crate) fn differences(portico: &Value, release: &Value) -> Vec<String> {
    let (portico, release) = (nodes(portico), nodes(release));
    let paths: BTreeSet<&String> = portico.keys().chain(release.keys()).collect();
    let mut lines = Vec::new();
    for path in paths {
        match (portico.get(path), release.get(path)) {
            (Some(portico), Some(release)) => compare(path, portico, release, &mut lines),
            (Some(_), None) => lines.push(format!("{path}: present / absent")),
            (None, _) => lines.push(format!("{path}: absent / present")),
        }
    }
    lines
}

/// Whether two schemas are equal, including the expressions of their rules.
pub(crate) fn are_equal(first: &Value, second: &Value) -> bool {
    let expressions = |schema| -> Vec<(String, Vec<String>)> {
        nodes(schema).into_iter().map(|(path, node)| (path, rules(node).map(str::to_owned).collect())).collect()
    };
    differences(first, second).is_empty() && expressions(first) == expressions(second)
}

fn compare(path: &str, portico: &Map<String, Value>, release: &Map<String, Value>, lines: &mut Vec<String>) {
    let (portico_has_rules, release_has_rules) = (rules(portico).next().is_some(), rules(release).next().is_some());
    if portico_has_rules != release_has_rules {
        lines.push(format!("{path} rules: {portico_has_rules} / {release_has_rules}"));
    }
    let (portico, release) = (own_keywords(portico), own_keywords(release));
    let keywords: BTreeSet<&String> = portico.keys().chain(release.keys()).collect();
    for keyword in keywords {
        let (portico, release) = (portico.get(keyword), release.get(keyword));
        if portico != release {
            let text = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
            lines.push(format!("{path} {keyword}: {} / {}", text(portico), text(release)));
        }
    }
}

/// Keywords of the node without those of other nodes and without rules; unordered lists are sorted.
fn own_keywords(node: &Map<String, Value>) -> Map<String, Value> {
    let compared_elsewhere =
        ["properties", "items", "additionalProperties", "description", "x-kubernetes-validations", "required", "enum"];
    let mut keywords: Map<String, Value> = node
        .iter()
        .filter(|(keyword, _)| !compared_elsewhere.contains(&keyword.as_str()))
        .map(|(keyword, value)| (keyword.clone(), value.clone()))
        .collect();
    for keyword in ["required", "enum"] {
        if let Some(values) = node.get(keyword).and_then(Value::as_array) {
            let mut values = values.clone();
            values.sort_by_key(Value::to_string);
            keywords.insert(keyword.to_owned(), Value::Array(values));
        }
    }
    keywords
}
