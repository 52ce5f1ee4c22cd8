//! Reads the fields of a plugin configuration from its JSON schema.

use portico::plugin_api::AnyPluginKind;
use serde_json::Value;

pub(crate) struct Field {
    /// Path relative to `config`: `redis.host`, `origins[]`.
    pub(crate) path: String,
    pub(crate) description: String,
    /// Type for the reference page: `string`, `list of integer`.
    pub(crate) type_name: String,
    /// Allowed values and their descriptions.
    pub(crate) choices: Vec<(String, String)>,
    pub(crate) default: Option<Value>,
    pub(crate) is_required: bool,
    /// Whether the type is an object or a list of objects with fields.
    pub(crate) has_fields: bool,
}

/// All fields. Fields of an object follow the object.
pub(crate) fn list(kind: &dyn AnyPluginKind) -> Vec<Field> {
    let schema = kind.schema().to_value();
    let mut fields = Vec::new();
    walk(&schema, &schema, "", &mut fields);
    fields
}

/// All object types in the schema, with their paths.
pub(crate) fn objects(schema: &Value) -> Vec<(String, &Value)> {
    fn visit<'s>(value: &'s Value, path: &str, found: &mut Vec<(String, &'s Value)>) {
        match value {
            Value::Object(members) => {
                if members.contains_key("properties") || members.get("type").is_some_and(|kind| kind == "object") {
                    found.push((path.to_owned(), value));
                }
                for (name, member) in members {
                    visit(member, &format!("{path}/{name}"), found);
                }
            }
            Value::Array(members) => members.iter().for_each(|member| visit(member, path, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    visit(schema, "", &mut found);
    found
}

fn walk(root: &Value, object: &Value, path: &str, fields: &mut Vec<Field>) {
    let required = object["required"].as_array().cloned().unwrap_or_default();
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let target = resolved(root, property);
        let description = text(property).or_else(|| text(target)).unwrap_or_default();
        let default = property.get("default").filter(|default| !default.is_null()).cloned();
        let element = target.get("items").map(|items| resolved(root, items));
        let inner = element.unwrap_or(target);
        fields.push(Field {
            path: path.clone(),
            description,
            type_name: in_words(root, target),
            choices: choices(inner),
            default,
            is_required: required.contains(&Value::from(name.as_str())),
            has_fields: inner.get("properties").is_some(),
        });
        let path = if element.is_some() { format!("{path}[]") } else { path };
        walk(root, inner, &path, fields);
    }
}

/// Resolves references and nullable types.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("references must point into the schema");
        return resolved(root, root.pointer(pointer).expect("the target of a reference must exist"));
    }
    let either = schema["anyOf"].as_array();
    let some = either.and_then(|either| either.iter().find(|one| one["type"] != "null"));
    some.map_or(schema, |some| resolved(root, some))
}

fn in_words(root: &Value, schema: &Value) -> String {
    if schema.get("oneOf").is_some() || schema.get("enum").is_some() {
        return "one of".to_owned();
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
        Value::String(kind) => vec![kind.as_str()],
        _ => vec!["any"],
    };
    match kinds.as_slice() {
        ["array"] => format!("list of {}", in_words(root, resolved(root, &schema["items"]))),
        ["object"] if schema.get("properties").is_some() => "record".to_owned(),
        ["object"] => "map".to_owned(),
        kinds => kinds.join(" or "),
    }
}

fn choices(schema: &Value) -> Vec<(String, String)> {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    let described = variants.flat_map(|variant| {
        let names = variant["enum"].as_array().cloned().unwrap_or_else(|| vec![variant["const"].clone()]);
        let about = text(variant).unwrap_or_default();
        names.into_iter().filter_map(move |name| Some((name.as_str()?.to_owned(), about.clone())))
    });
    let plain = schema["enum"].as_array().into_iter().flatten();
    described.chain(plain.filter_map(|name| Some((name.as_str()?.to_owned(), String::new())))).collect()
}

/// The description on one line.
fn text(schema: &Value) -> Option<String> {
    Some(schema["description"].as_str()?.split_whitespace().collect::<Vec<_>>().join(" "))
}
