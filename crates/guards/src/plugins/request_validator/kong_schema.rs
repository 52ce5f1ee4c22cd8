//! Schemas of the version `kong`: lists of fields with their types and restrictions, as JSON Schemas.
//!
//! ```json
//! [{"name": {"type": "string", "required": true}}, {"age": {"type": "integer", "between": [0, 150]}}]
//! ```

use serde_json::{Map, Value, json};

use super::lua_pattern;

/// An error in a schema: where it is, and a clause about it.
type SchemaResult<T> = Result<T, (String, String)>;

/// The JSON Schema of an object with these fields.
pub(super) fn to_json_schema(schema: &Value) -> SchemaResult<Value> {
    record(schema, "", 0)
}

/// How deep records, arrays and maps may be nested.
const MAX_DEPTH: usize = 32;

fn record(fields: &Value, pointer: &str, depth: usize) -> SchemaResult<Value> {
    let Some(fields) = fields.as_array() else { return Err(error(pointer, "is not a list of fields")) };
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        let Some((name, definition)) =
            field.as_object().filter(|field| field.len() == 1).and_then(|field| field.iter().next())
        else {
            return Err(error(&pointer, "is not an object with the name of one field"));
        };
        let pointer = format!("{pointer}/{name}");
        let is_required = definition.get("required") == Some(&Value::Bool(true));
        if is_required {
            required.push(name.clone());
        }
        if properties.insert(name.clone(), field_schema(definition, &pointer, !is_required, depth)?).is_some() {
            return Err(error(&pointer, "is defined twice"));
        }
    }
    Ok(json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false}))
}

fn field_schema(definition: &Value, pointer: &str, is_nullable: bool, depth: usize) -> SchemaResult<Value> {
    if depth == MAX_DEPTH {
        return Err(error(pointer, "is nested too deeply"));
    }
    let Some(definition) = definition.as_object() else { return Err(error(pointer, "is not an object")) };
    let kind = definition.get("type").and_then(Value::as_str).unwrap_or("string");
    let nested = |name: &str| definition.get(name).map(|part| (part, format!("{pointer}/{name}")));
    let element = |name: &str| match nested(name) {
        Some((part, pointer)) => field_schema(part, &pointer, false, depth + 1),
        None => Ok(json!(true)),
    };
    let json_type = match kind {
        "string" | "number" | "integer" | "boolean" | "array" => kind,
        "set" => "array",
        "map" | "record" => "object",
        _ => {
            return Err(error(
                &format!("{pointer}/type"),
                "is not string, number, integer, boolean, array, set, map or record",
            ));
        }
    };
    let mut schema = match (kind, nested("fields")) {
        ("record", Some((fields, pointer))) => record(fields, &pointer, depth + 1)?,
        ("record", None) => return Err(error(pointer, "is a record without fields")),
        _ => json!({}),
    };
    let members = schema.as_object_mut().expect("a schema of a field is an object");
    members.insert("type".to_owned(), if is_nullable { json!([json_type, "null"]) } else { json!(json_type) });
    match kind {
        "array" | "set" => {
            members.insert("items".to_owned(), element("elements")?);
            if kind == "set" {
                members.insert("uniqueItems".to_owned(), json!(true));
            }
        }
        "map" => {
            members.insert("propertyNames".to_owned(), element("keys")?);
            members.insert("additionalProperties".to_owned(), element("values")?);
        }
        // An empty string counts as missing, unless its length is restricted in another way.
        "string" if !["len_min", "len_eq"].iter().any(|name| definition.contains_key(*name)) => {
            members.insert("minLength".to_owned(), json!(1));
        }
        _ => {}
    }
    let mut all = Vec::new();
    for (name, value) in definition {
        all.extend(restriction(name, value, json_type, members, &format!("{pointer}/{name}"))?);
    }
    if !all.is_empty() {
        let all = if is_nullable { json!([{"anyOf": [{"type": "null"}, {"allOf": all}]}]) } else { json!(all) };
        members.insert("allOf".to_owned(), all);
    }
    Ok(schema)
}

/// Adds a restriction to a schema, or returns a schema for it.
fn restriction(
    name: &str,
    value: &Value,
    json_type: &str,
    members: &mut Map<String, Value>,
    pointer: &str,
) -> SchemaResult<Option<Value>> {
    let (min, max) = match json_type {
        "string" => ("minLength", "maxLength"),
        "array" => ("minItems", "maxItems"),
        _ => ("minProperties", "maxProperties"),
    };
    let pattern = |value: &Value| {
        let pattern = value.as_str().ok_or_else(|| error(pointer, "is not a pattern"))?;
        lua_pattern::to_regex(pattern).map_err(|message| error(pointer, message))
    };
    let patterns = |value: &Value| {
        let listed = value.as_array().ok_or_else(|| error(pointer, "is not a list of patterns"))?;
        listed.iter().map(|entry| pattern(entry.get("pattern").unwrap_or(entry))).collect::<SchemaResult<Vec<_>>>()
    };
    Ok(match name {
        "type" | "required" | "elements" | "keys" | "values" | "fields" => None,
        "between" => match value.as_array().map(Vec::as_slice) {
            Some([low @ Value::Number(_), high @ Value::Number(_)]) => {
                members.insert("minimum".to_owned(), low.clone());
                members.insert("maximum".to_owned(), high.clone());
                None
            }
            _ => return Err(error(pointer, "is not a list of two numbers")),
        },
        "gt" => Some(json!({"exclusiveMinimum": value})),
        "lt" => Some(json!({"exclusiveMaximum": value})),
        "eq" => Some(json!({"const": value})),
        "ne" => Some(json!({"not": {"const": value}})),
        "one_of" => Some(json!({"enum": value})),
        "not_one_of" => Some(json!({"not": {"enum": value}})),
        "len_eq" => Some(json!({min: value, max: value})),
        "len_min" => Some(json!({min: value})),
        "len_max" => Some(json!({max: value})),
        "match" => Some(json!({"pattern": pattern(value)?})),
        "match_none" => {
            let listed = patterns(value)?.into_iter().map(|pattern| json!({"pattern": pattern}));
            Some(json!({"not": {"anyOf": listed.collect::<Vec<_>>()}}))
        }
        "match_all" => {
            let listed = patterns(value)?.into_iter().map(|pattern| json!({"pattern": pattern}));
            Some(json!({"allOf": listed.collect::<Vec<_>>()}))
        }
        "match_any" => {
            let listed = patterns(value.get("patterns").unwrap_or(value))?;
            let listed = listed.into_iter().map(|pattern| json!({"pattern": pattern}));
            Some(json!({"anyOf": listed.collect::<Vec<_>>()}))
        }
        "starts_with" => {
            let prefix = value.as_str().ok_or_else(|| error(pointer, "is not a string"))?;
            Some(json!({"pattern": format!("^{}", regex_syntax::escape(prefix))}))
        }
        "contains" => Some(json!({"contains": {"const": value}})),
        "uuid" if value == &Value::Bool(true) => Some(json!({"format": "uuid"})),
        "timestamp" if value == &Value::Bool(true) => Some(json!({"exclusiveMinimum": 0})),
        "uuid" | "timestamp" if value == &Value::Bool(false) => None,
        _ => return Err(error(pointer, "is not a known attribute of a field")),
    })
}

fn error(pointer: &str, message: &str) -> (String, String) {
    (pointer.to_owned(), message.to_owned())
}
