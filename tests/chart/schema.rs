//! Checks that values.schema.json has all values and allows no others, and fills in `description` and `required`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::chart::values::Values;

/// Helm adds this value to subcharts.
const GLOBAL: &str = "global";

/// Values that the schema lacks, properties that are not values, and objects that allow unknown properties.
pub(crate) fn findings(schema: &Value, values: &Values) -> Vec<String> {
    let mut findings = Vec::new();
    for entry in &values.entries {
        let name = entry.path.join(".");
        let Some(property) = find(schema, &entry.path) else {
            if entry.path[0] != "config" || entry.path.len() == 1 {
                findings.push(format!("{name} is missing"));
            }
            continue;
        };
        // Pod fields are validated by Kubernetes; the schema covers only what templates read.
        let is_pod_field = !entry.has_entries && property["additionalProperties"] == true;
        let has_properties = property["properties"].is_object();
        if has_properties && !is_pod_field && property["additionalProperties"] != false {
            findings.push(format!("{name} allows unknown properties; set additionalProperties: false"));
        }
        if entry.has_entries && !has_properties && entry.path[0] != "config" {
            findings.push(format!("{name} lacks `properties` for its entries"));
        }
        if entry.comment.is_empty() && !entry.has_entries {
            findings.push(format!("values.yaml: {name} needs a comment"));
        }
    }
    add_unknown(schema, &mut Vec::new(), values, &mut findings);
    if schema["additionalProperties"] != false {
        findings.push("the schema allows unknown properties; set additionalProperties: false".to_owned());
    }
    findings
}

/// Adds findings about properties without a value in values.yaml.
fn add_unknown(schema: &Value, path: &mut Vec<String>, values: &Values, findings: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if path.is_empty() && (name == GLOBAL || name == "config") {
            continue;
        }
        path.push(name.clone());
        let is_inside_value = values.entries.iter().any(|entry| path.starts_with(&entry.path) && !entry.has_entries);
        if !is_inside_value && !values.entries.iter().any(|entry| entry.path == *path) {
            findings.push(format!("{} is not in values.yaml", path.join(".")));
        }
        add_unknown(property, path, values, findings);
        path.pop();
    }
}

/// Marks as required every value that must not be null. Helm removes values set to null before validation, so only
/// required values are safe to use in templates.
pub(crate) fn require(schema: &mut Value, values: &Values) {
    let mut groups: BTreeMap<&[String], BTreeSet<&str>> = BTreeMap::new();
    for entry in &values.entries {
        let Some((name, group)) = entry.path.split_last() else { continue };
        if group.first().is_some_and(|first| first == "config") {
            continue;
        }
        let required = groups.entry(group).or_default();
        if entry.has_entries || !find(schema, &entry.path).is_some_and(|schema| may_be_missing(schema, &entry.default))
        {
            required.insert(name);
        }
    }
    for (group, required) in groups {
        let group_schema = group.iter().fold(&mut *schema, |schema, key| &mut schema["properties"][key]);
        group_schema["required"] = json!(required);
    }
}

/// Lists, maps and optional strings may be missing.
fn may_be_missing(schema: &Value, default: &Value) -> bool {
    match default {
        _ if schema["type"].as_array().is_some_and(|types| types.contains(&json!("null"))) => true,
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(word) if word.is_empty() => true,
        Value::String(_) => match schema["enum"].as_array() {
            Some(choices) => choices.contains(&json!("")),
            None => schema["pattern"].is_null() && schema["minLength"].is_null(),
        },
        Value::Array(_) => true,
        Value::Object(_) => schema["required"].is_null(),
    }
}

/// Copies the comments of values.yaml into the schema, for editors.
pub(crate) fn describe(schema: &mut Value, values: &Values) {
    for entry in values.entries.iter().filter(|entry| !entry.comment.is_empty() && entry.path[0] != "config") {
        let steps = entry.path.iter().map(|key| format!("/properties/{key}"));
        let property = schema.pointer_mut(&steps.collect::<String>());
        property.expect("`findings` reports values without a schema")["description"] = json!(entry.comment);
    }
    schema["properties"]["config"]["additionalProperties"] = json!(false);
}

fn find<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(schema, |schema, key| schema["properties"].get(key))
}
