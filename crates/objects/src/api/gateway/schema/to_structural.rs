//! Converts a derived schema to a structural schema of one channel.

use serde_json::{Map, Value, json};

use super::channel_mark::{EXPERIMENTAL_ONLY, IN_EXPERIMENTAL, RULE_CHANNEL, RULE_MEMBER};
use super::rule::{VALIDATIONS, retain_rules};
use crate::api::gateway::Channel;

/// Selects the channel and removes descriptions, which cost memory, and everything that a structural schema lacks.
pub(in crate::api) fn to_structural(node: &mut Value, channel: Channel) {
    convert(node, channel, Descriptions::Remove);
}

/// Like [`to_structural`], but keeps descriptions, for published CustomResourceDefinitions.
pub(in crate::api) fn to_structural_with_descriptions(node: &mut Value, channel: Channel) {
    convert(node, channel, Descriptions::Keep);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Descriptions {
    Keep,
    Remove,
}

fn convert(node: &mut Value, channel: Channel, descriptions: Descriptions) {
    let Some(node) = node.as_object_mut() else { return };
    select_channel(node, channel);
    remove_unsupported_keywords(node);
    if descriptions == Descriptions::Remove {
        node.remove("description");
    }
    if let Some(properties) = node.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            convert(property, channel, descriptions);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(entries) = node.get_mut(key) {
            convert(entries, channel, descriptions);
        }
    }
}

/// Applies the keywords, fields and rules of the channel and removes all marks (see `channel_mark`).
fn select_channel(node: &mut Map<String, Value>, channel: Channel) {
    let experimental_keywords = node.remove(IN_EXPERIMENTAL);
    if let (Channel::Experimental, Some(Value::Object(keywords))) = (channel, experimental_keywords) {
        node.extend(keywords);
    }
    let mut removed_fields = Vec::new();
    if let Some(properties) = node.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties.iter_mut() {
            let is_experimental =
                property.as_object_mut().and_then(|property| property.remove(EXPERIMENTAL_ONLY)).is_some();
            if is_experimental && channel == Channel::Standard {
                removed_fields.push(name.clone());
            }
        }
        properties.retain(|name, _| !removed_fields.contains(name));
    }
    if let Some(required) = node.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !removed_fields.iter().any(|removed| name == removed));
    }
    retain_rules(node, |rule| rule.get(RULE_CHANNEL).is_none_or(|rule_channel| rule_channel == channel.name()));
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
    // A structural schema has one type. Null is not needed: the API server treats a null field as absent.
    if let Some(types) = node.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|json_type| json_type != "null");
        if types.len() == 1 {
            let json_type = types.remove(0);
            node.insert("type".to_owned(), json_type);
        }
    }
    let is_empty = |default: &Value| default.is_null() || *default == json!([]) || *default == json!({});
    if node.get("default").is_some_and(is_empty) {
        node.remove("default");
    }
    // A list is atomic unless the type declares it a set or a map.
    if node.get("type").is_some_and(|json_type| json_type == "array") {
        node.entry("x-kubernetes-list-type").or_insert_with(|| json!("atomic"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_channel_has_its_own_fields_keywords_and_rules() {
        let derived = json!({
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
            let mut schema = derived.clone();
            to_structural(&mut schema, channel);
            assert_eq!(schema, expected, "{channel:?}");
        }
    }
}
