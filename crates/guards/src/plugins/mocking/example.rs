//! Values that conform to a schema, for responses without an example.

use serde_json::{Map, Value, json};

use crate::plugin_formats::openapi::ApiDocument;

/// How deep schemas are followed. A schema that refers to itself ends there.
const MAX_DEPTH: usize = 8;
/// The most parts of a value.
const MAX_PARTS: usize = 2000;

/// A value for a schema: its example, its default, or the simplest one. Patterns are not considered.
pub(super) fn value_for(document: &ApiDocument, schema: &Value) -> Value {
    Generator { document, remaining: MAX_PARTS }.value(schema, 0)
}

struct Generator<'d> {
    document: &'d ApiDocument,
    remaining: usize,
}

impl Generator<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        self.remaining = self.remaining.saturating_sub(1);
        if depth > MAX_DEPTH || self.remaining == 0 {
            return Value::Null;
        }
        let schema = self.document.resolve(schema).unwrap_or(schema);
        let first = |name: &str| schema.get(name).and_then(Value::as_array).and_then(|values| values.first());
        let given = ["example", "const", "default"].iter().find_map(|name| schema.get(*name));
        if let Some(value) = given.or_else(|| first("examples")).or_else(|| first("enum")) {
            return value.clone();
        }
        for name in ["oneOf", "anyOf"] {
            if let Some(choice) = first(name) {
                let value = self.value(choice, depth + 1);
                // The schema may add members to each choice.
                return match (value, schema.get("properties")) {
                    (Value::Object(members), Some(_)) => self.object(schema, members, depth),
                    (value, _) => value,
                };
            }
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let mut members = Map::new();
            let mut other = None;
            for part in parts {
                match self.value(part, depth + 1) {
                    Value::Object(found) => members.extend(found),
                    Value::Null => {}
                    value => other = Some(value),
                }
            }
            return match other.filter(|_| members.is_empty()) {
                Some(value) => value,
                None => self.object(schema, members, depth),
            };
        }
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "null")),
            Some(kind) => kind.as_str(),
            None if schema.get("properties").is_some() => Some("object"),
            None if schema.get("items").is_some() => Some("array"),
            None => None,
        };
        let number = |name: &str| schema.get(name).and_then(Value::as_f64);
        match kind {
            Some("object") => self.object(schema, Map::new(), depth),
            Some("array") => {
                let count = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).clamp(1, 10);
                let items = schema.get("items").cloned().unwrap_or_else(|| json!({}));
                (0..count).map(|_| self.value(&items, depth + 1)).collect()
            }
            Some("boolean") => json!(true),
            Some("integer") => {
                let minimum = number("minimum").or_else(|| number("exclusiveMinimum").map(|minimum| minimum + 1.0));
                let value = minimum.or_else(|| number("maximum").map(|maximum| maximum.min(0.0))).unwrap_or(0.0);
                #[expect(clippy::cast_possible_truncation, reason = "an example beyond the range is cut to it")]
                let value = value.ceil() as i64;
                json!(value)
            }
            Some("number") => json!(number("minimum").or_else(|| number("exclusiveMinimum")).unwrap_or(0.0)),
            Some("string") => Value::String(text_for(schema)),
            _ => Value::Null,
        }
    }

    fn object(&mut self, schema: &Value, mut members: Map<String, Value>, depth: usize) -> Value {
        for (name, part) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let resolved = self.document.resolve(part).unwrap_or(part);
            // Responses do not have these.
            if resolved.get("writeOnly") == Some(&Value::Bool(true)) || self.remaining == 0 {
                continue;
            }
            let value = self.value(part, depth + 1);
            members.insert(name.clone(), value);
        }
        Value::Object(members)
    }
}

fn text_for(schema: &Value) -> String {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2026-01-02",
        Some("date-time") => "2026-01-02T03:04:05Z",
        Some("time") => "03:04:05Z",
        Some("duration") => "P1D",
        Some("email") => "user@example.com",
        Some("hostname") => "www.example.com",
        Some("ipv4") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        Some("uri" | "uri-reference" | "url") => "https://example.com/",
        Some("uuid") => "123e4567-e89b-42d3-a456-426614174000",
        Some("byte") => "dGV4dA==",
        _ => "string",
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
    let mut text = text.to_owned();
    if let Some(min) = bound("minLength") {
        while text.len() < min.min(1000) {
            text.push('x');
        }
    }
    if let Some(max) = bound("maxLength") {
        text.truncate(max);
    }
    text
}
