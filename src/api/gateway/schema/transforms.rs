//! Schema transforms for lists and fields that derive alone cannot express.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Map, Value, json};

use super::channel_mark::{EXPERIMENTAL_ONLY, IN_EXPERIMENTAL};

/// A list without duplicates.
pub(crate) fn set(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".to_owned(), json!("set"));
}

/// A list whose entries are identified by these fields.
pub(crate) fn keyed_by<const N: usize>(keys: [&'static str; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys.as_slice()));
    }
}

/// Applies a transform to every entry of a list or value of a map.
pub(crate) fn each(mut of_entry: impl Transform) -> impl FnMut(&mut Schema) {
    move |schema| {
        for key in ["items", "additionalProperties"] {
            if let Some(entry) = subschema(schema.get_mut(key)) {
                of_entry.transform(entry);
            }
        }
    }
}

/// Applies a transform to one field of an object.
pub(crate) fn field(name: &'static str, mut of_field: impl Transform) -> impl FnMut(&mut Schema) {
    move |schema| {
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        if let Some(field) = subschema(properties.and_then(|properties| properties.get_mut(name))) {
            of_field.transform(field);
        }
    }
}

/// Makes fields required in the schema although the types parse objects without them.
pub(crate) fn required<const N: usize>(names: [&'static str; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        let required = schema.ensure_object().entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            required.extend(names.iter().map(|name| json!(name)));
        }
    }
}

/// Removes fields of a shared type that a kind does not have.
pub(crate) fn without<const N: usize>(names: [&'static str; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            properties.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
}

/// Removes the format of an integer, which the API sets only for fixed-width Go types.
pub(crate) fn integer(schema: &mut Schema) {
    schema.remove("format");
}

/// Marks a field that exists only in the experimental channel.
pub(crate) fn experimental(schema: &mut Schema) {
    schema.insert(EXPERIMENTAL_ONLY.to_owned(), json!(true));
}

/// Adds keywords that apply only in the experimental channel.
pub(crate) fn in_experimental(more: Value) -> impl FnMut(&mut Schema) {
    move |schema| {
        let marked = schema.ensure_object().entry(IN_EXPERIMENTAL).or_insert_with(|| json!({}));
        if let (Some(marked), Some(more)) = (marked.as_object_mut(), more.as_object()) {
            marked.extend(more.clone());
        }
    }
}

/// The schema as an object; all schemas here are objects.
pub(crate) fn object(schema: &mut Schema) -> &mut Map<String, Value> {
    schema.ensure_object()
}

fn subschema(value: Option<&mut Value>) -> Option<&mut Schema> {
    value.and_then(|value| value.try_into().ok())
}
