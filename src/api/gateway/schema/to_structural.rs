//! Converts a derived schema to a structural schema of one channel.

use serde_json::{Map, Value, json};

use super::channel_mark::{EXPERIMENTAL_ONLY, IN_EXPERIMENTAL, RULE_CHANNEL, RULE_MEMBER};
use super::rule::{VALIDATIONS, retain};
use crate::api::gateway::Channel;

/// Selects the channel and removes descriptions, which cost memory, and everything that a structural schema lacks.
pub(in crate::api) fn to_structural(node: &mut Value, channel: Channel) {
    visit(node, channel, false);
}

/// The same with descriptions, for published definitions.
pub(in crate::api) fn to_structural_with_descriptions(node: &mut Value, channel: Channel) {
    visit(node, channel, true);
}

fn visit(node: &mut Value, channel: Channel, described: bool) {
    let Some(node) = node.as_object_mut() else { return };
    select_channel(node, channel);
    remove_unsupported_keywords(node);
    if !described {
        node.remove("description");
    }
    if let Some(properties) = node.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            visit(property, channel, described);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(entries) = node.get_mut(key) {
            visit(entries, channel, described);
        }
    }
}

/// Applies the keywords, fields and rules of this channel and removes all marks.
fn select_channel(node: &mut Map<String, Value>, channel: Channel) {
    let more = node.remove(IN_EXPERIMENTAL);
    if let (Channel::Experimental, Some(Value::Object(more))) = (channel, more) {
        node.extend(more);
    }
    let mut gone = Vec::new();
    if let Some(properties) = node.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties.iter_mut() {
            let marked = property.as_object_mut().and_then(|property| property.remove(EXPERIMENTAL_ONLY)).is_some();
            if marked && channel == Channel::Standard {
                gone.push(name.clone());
            }
        }
        properties.retain(|name, _| !gone.contains(name));
    }
    if let Some(required) = node.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !gone.iter().any(|gone| name == gone));
    }
    retain(node, |rule| rule.get(RULE_CHANNEL).is_none_or(|only| only == channel.name()));
    for rule in node.get_mut(VALIDATIONS).and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(rule) = rule.as_object_mut() {
            rule.remove(RULE_CHANNEL);
            rule.remove(RULE_MEMBER);
        }
    }
}

/// Removes JSON Schema keywords that a structural schema lacks.
fn remove_unsupported_keywords(node: &mut Map<String, Value>) {
    for key in ["title", "$schema"] {
        node.remove(key);
    }
    // The types treat absent and null alike; the API server already converts null to absent.
    if let Some(kinds) = node.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if kinds.len() == 1 {
            let kind = kinds.remove(0);
            node.insert("type".to_owned(), kind);
        }
    }
    let empty = json!({});
    let nothing = |default: &Value| default.is_null() || *default == json!([]) || *default == empty;
    if node.get("default").is_some_and(nothing) {
        node.remove("default");
    }
    // A list is atomic unless the type declares it a set or a map.
    if node.get("type").is_some_and(|kind| kind == "array") {
        node.entry("x-kubernetes-list-type").or_insert_with(|| json!("atomic"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn standard_channel_lacks_experimental_parts() {
        let marked = json!({
            "type": ["object", "null"],
            "description": "words",
            "required": ["old", "new"],
            "properties": {
                "old": { "type": "array", "default": [], "items": { "type": "string" } },
                "new": { "type": "string", EXPERIMENTAL_ONLY: true },
            },
            IN_EXPERIMENTAL: { "minProperties": 1 },
            VALIDATIONS: [
                { "rule": "a", RULE_CHANNEL: "standard" },
                { "rule": "b", RULE_CHANNEL: "experimental" },
            ],
        });
        let old = json!({ "type": "array", "items": { "type": "string" }, "x-kubernetes-list-type": "atomic" });
        let cases = [
            (
                Channel::Standard,
                json!({
                    "type": "object", "required": ["old"], "properties": { "old": old }, VALIDATIONS: [{ "rule": "a" }],
                }),
            ),
            (
                Channel::Experimental,
                json!({
                    "type": "object",
                    "required": ["old", "new"],
                    "properties": { "old": old, "new": { "type": "string" } },
                    "minProperties": 1,
                    VALIDATIONS: [{ "rule": "b" }],
                }),
            ),
        ];
        for (channel, expected) in cases {
            let mut schema = marked.clone();
            to_structural(&mut schema, channel);
            assert_eq!(schema, expected, "{channel:?}");
        }
    }
}
