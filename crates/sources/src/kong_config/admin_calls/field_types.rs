//! The types of form fields, whose values are texts: those of entities by their names, those of plugins by the schema.

use serde_json::{Map, Number, Value};

/// Gives the fields of an entity their types.
pub(super) fn of_entity(fields: &mut Map<String, Value>) {
    for (name, value) in fields {
        if name != "config" {
            of_field(name, value);
        }
    }
}

fn of_field(name: &str, value: &mut Value) {
    match value {
        // A map of lists; its keys are names of headers.
        Value::Object(headers) if name == "headers" => headers.values_mut().for_each(into_list),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| of_field(name, value)),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| of_field(name, value)),
                    item if name == "http_statuses" => into_number(item),
                    _ => {}
                }
            }
        }
        value if LISTS.contains(&name) => {
            if name == "http_statuses" {
                into_number(value);
            }
            into_list(value);
        }
        value if NUMBERS.contains(&name) => into_number(value),
        value if FLAGS.contains(&name) => into_flag(value),
        _ => {}
    }
}

/// Gives the configuration of a plugin the types of its JSON schema. What the schema does not know stays as it is.
pub(super) fn of_config(config: &mut Value, schema: &Value) {
    by_schema(config, schema, schema, 0);
}

fn by_schema(value: &mut Value, schema: &Value, root: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    let mut forms = Vec::new();
    collect_forms(schema, root, &mut forms, 0);
    let allows = |name: &str| {
        forms.iter().any(|form| match &form["type"] {
            Value::String(only) => only == name,
            Value::Array(several) => several.iter().any(|one| one == name),
            _ => false,
        })
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let property = forms.iter().find_map(|form| form["properties"].get(name));
                let property = property.or_else(|| {
                    forms.iter().map(|form| &form["additionalProperties"]).find(|schema| schema.is_object())
                });
                if let Some(property) = property {
                    by_schema(value, property, root, depth + 1);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = forms.iter().map(|form| &form["items"]).find(|schema| schema.is_object()) {
                items.iter_mut().for_each(|item| by_schema(item, schema, root, depth + 1));
            }
        }
        Value::String(_) if allows("array") => {
            into_list(value);
            by_schema(value, schema, root, depth + 1);
        }
        Value::String(_) => {
            if allows("number") || allows("integer") {
                into_number(value);
            }
            if allows("boolean") {
                into_flag(value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The alternatives of a schema, with references followed.
fn collect_forms<'s>(schema: &'s Value, root: &'s Value, forms: &mut Vec<&'s Value>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    forms.push(schema);
    let target = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.strip_prefix('#')?));
    if let Some(target) = target {
        collect_forms(target, root, forms, depth + 1);
    }
    for name in ["anyOf", "oneOf", "allOf"] {
        for alternative in schema[name].as_array().into_iter().flatten() {
            collect_forms(alternative, root, forms, depth + 1);
        }
    }
}

fn into_number(value: &mut Value) {
    let Value::String(text) = value else { return };
    let integer = text.parse::<i64>().ok().map(Number::from);
    let number = integer.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    if let Some(number) = number {
        *value = Value::Number(number);
    }
}

fn into_flag(value: &mut Value) {
    if let Some(flag) = value.as_str().and_then(|text| text.parse::<bool>().ok()) {
        *value = Value::Bool(flag);
    }
}

fn into_list(value: &mut Value) {
    if !value.is_array() && !value.is_null() {
        *value = Value::Array(vec![value.take()]);
    }
}

const NUMBERS: [&str; 20] = [
    "port",
    "retries",
    "connect_timeout",
    "write_timeout",
    "read_timeout",
    "tls_verify_depth",
    "regex_priority",
    "https_redirect_status_code",
    "priority",
    "slots",
    "weight",
    "ttl",
    "interval",
    "successes",
    "timeout",
    "concurrency",
    "tcp_failures",
    "http_failures",
    "timeouts",
    "threshold",
];
const FLAGS: [&str; 9] = [
    "enabled",
    "tls_verify",
    "strip_path",
    "preserve_host",
    "request_buffering",
    "response_buffering",
    "https_verify_certificate",
    "hash_secret",
    "use_srv_name",
];
const LISTS: [&str; 12] = [
    "tags",
    "protocols",
    "hosts",
    "paths",
    "methods",
    "snis",
    "sources",
    "destinations",
    "ca_certificates",
    "redirect_uris",
    "http_statuses",
    "access",
];
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_of_entities_have_their_types() {
        let mut value = json!({"name": "8080", "port": "80", "hosts": "a", "strip_path": "false", "retries": "many",
            "headers": {"port": "1"}, "config": {"port": "80"}, "destinations": [{"ip": "10.0.0.1", "port": "9000"}],
            "healthchecks": {"active": {"healthy": {"interval": "0.5", "http_statuses": ["200", "302"]}}}});
        of_entity(value.as_object_mut().unwrap());
        let expected = json!({"name": "8080", "port": 80, "hosts": ["a"], "strip_path": false, "retries": "many",
            "headers": {"port": ["1"]}, "config": {"port": "80"}, "destinations": [{"ip": "10.0.0.1", "port": 9000}],
            "healthchecks": {"active": {"healthy": {"interval": 0.5, "http_statuses": [200, 302]}}}});
        assert_eq!(value, expected);
    }

    #[test]
    fn configurations_have_the_types_of_the_schema() {
        let schema = json!({
            "properties": {
                "minute": {"anyOf": [{"type": "null"}, {"type": ["number", "null"]}]},
                "hide": {"type": "boolean"},
                "name": {"type": "string"},
                "add": {"$ref": "#/$defs/Add"},
                "limits": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Limit"}},
                "codes": {"type": "array", "items": {"type": "integer"}},
            },
            "$defs": {
                "Add": {"properties": {"headers": {"type": "array", "items": {"type": "string"}}}},
                "Limit": {"properties": {"minute": {"type": "integer"}}},
            },
        });
        let mut config = json!({"minute": "5", "hide": "true", "name": "7", "add": {"headers": "a:1"}, "other": "1",
            "limits": {"video": {"minute": "9"}}, "codes": "404"});
        of_config(&mut config, &schema);
        let expected = json!({"minute": 5, "hide": true, "name": "7", "add": {"headers": ["a:1"]}, "other": "1",
            "limits": {"video": {"minute": 9}}, "codes": [404]});
        assert_eq!(config, expected);
        // A schema that refers to itself ends.
        of_config(&mut json!({"a": {"a": "1"}}), &json!({"$ref": "#", "properties": {"a": {"$ref": "#"}}}));
    }
}
