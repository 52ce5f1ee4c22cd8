//! Reads the fields of a plugin configuration from its JSON schema.

use portico::plugin_api::AnyPluginKind;
use serde_json::Value;

/// A field of a plugin's configuration.
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
    collect_fields(&schema, &schema, "", &mut fields);
    fields
}

/// All object types in the schema, with their paths in the schema.
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

fn collect_fields(root: &Value, object: &Value, path: &str, fields: &mut Vec<Field>) {
    let required = object["required"].as_array().cloned().unwrap_or_default();
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let target = resolved(root, property);
        let description = description(property).or_else(|| description(target)).unwrap_or_default();
        let default = property.get("default").filter(|default| !default.is_null()).cloned();
        let element = target.get("items").map(|items| resolved(root, items));
        let element_or_target = element.unwrap_or(target);
        fields.push(Field {
            path: path.clone(),
            description,
            type_name: type_name(root, target),
            choices: choices(element_or_target),
            default,
            is_required: required.contains(&Value::from(name.as_str())),
            has_fields: element_or_target.get("properties").is_some(),
        });
        let path = if element.is_some() { format!("{path}[]") } else { path };
        collect_fields(root, element_or_target, &path, fields);
    }
}

/// Follows references, and replaces a nullable schema by its alternative that is not null.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("references must point into the schema");
        return resolved(root, root.pointer(pointer).expect("the target of a reference must exist"));
    }
    let alternatives = schema["anyOf"].as_array();
    let not_null = alternatives.and_then(|schemas| schemas.iter().find(|schema| schema["type"] != "null"));
    not_null.map_or(schema, |not_null| resolved(root, not_null))
}

/// The type for the reference page. The caller adds the choices after "one of".
fn type_name(root: &Value, schema: &Value) -> String {
    if schema.get("oneOf").is_some() || schema.get("enum").is_some() {
        return "one of".to_owned();
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
        Value::String(kind) => vec![kind.as_str()],
        _ => vec!["any"],
    };
    match kinds.as_slice() {
        ["array"] => format!("list of {}", type_name(root, resolved(root, &schema["items"]))),
        ["object"] if schema.get("properties").is_some() => "object".to_owned(),
        ["object"] => "map".to_owned(),
        kinds => kinds.join(" or "),
    }
}

fn choices(schema: &Value) -> Vec<(String, String)> {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    let described = variants.flat_map(|variant| {
        let names = variant["enum"].as_array().cloned().unwrap_or_else(|| vec![variant["const"].clone()]);
        let description = description(variant).unwrap_or_default();
        names.into_iter().filter_map(move |name| Some((name.as_str()?.to_owned(), description.clone())))
    });
    let undescribed = schema["enum"].as_array().into_iter().flatten();
    described.chain(undescribed.filter_map(|name| Some((name.as_str()?.to_owned(), String::new())))).collect()
}

/// The description of a schema, on one line.
fn description(schema: &Value) -> Option<String> {
    Some(schema["description"].as_str()?.split_whitespace().collect::<Vec<_>>().join(" "))
}
