//! The nodes of a schema by path: `spec.rules[].matches[].path`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The nodes of a schema. `[]` stands for the entries of a list, `{}` for the values of a map.
pub(crate) fn nodes(schema: &Value) -> BTreeMap<String, &Map<String, Value>> {
    let mut nodes_by_path = BTreeMap::new();
    collect(schema, String::new(), &mut nodes_by_path);
    nodes_by_path
}

fn collect<'a>(schema: &'a Value, path: String, nodes_by_path: &mut BTreeMap<String, &'a Map<String, Value>>) {
    let Some(node) = schema.as_object() else { return };
    for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(property, path, nodes_by_path);
    }
    if let Some(entries) = node.get("items") {
        collect(entries, format!("{path}[]"), nodes_by_path);
    }
    if let Some(values) = node.get("additionalProperties") {
        collect(values, format!("{path}{{}}"), nodes_by_path);
    }
    nodes_by_path.insert(path, node);
}

/// Expressions of the rules of a node.
pub(crate) fn rules(node: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let rules = node.get("x-kubernetes-validations").and_then(Value::as_array);
    rules.into_iter().flatten().filter_map(|rule| rule["rule"].as_str())
}

/// The schema node of a path in an object: `spec.rules[0].name` becomes `spec.rules[].name`.
pub(crate) fn node_of(path: &str) -> String {
    let mut node = String::with_capacity(path.len());
    let mut in_index = false;
    for character in path.chars() {
        in_index &= character != ']';
        if !in_index {
            node.push(character);
        }
        in_index |= character == '[';
    }
    node
}
