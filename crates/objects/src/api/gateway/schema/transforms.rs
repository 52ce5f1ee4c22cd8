//! Schema transforms that the derive macro has no attributes for: kinds of lists, transforms of entries and fields, and
//! differences between the channels.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Map, Value, json};

use super::channel_mark::{EXPERIMENTAL_ONLY, IN_EXPERIMENTAL};

/// Whether a field must be present.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Presence {
    Required,
    Optional,
}

/// Makes a list a set, without duplicates.
pub(crate) fn unique_entries(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".to_owned(), json!("set"));
}

/// Makes a list a map, whose entries these fields identify.
pub(crate) fn keyed_by<const N: usize>(keys: [&'static str; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys.as_slice()));
    }
}

/// Applies a transform to every entry of a list or value of a map.
pub(crate) fn each(mut entry_transform: impl Transform) -> impl FnMut(&mut Schema) {
    move |schema| {
        for key in ["items", "additionalProperties"] {
            if let Some(entry) = subschema(schema.get_mut(key)) {
                entry_transform.transform(entry);
            }
        }
    }
}

/// Applies a transform to one field of an object.
pub(crate) fn field(name: &'static str, mut field_transform: impl Transform) -> impl FnMut(&mut Schema) {
    move |schema| {
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        if let Some(field) = subschema(properties.and_then(|properties| properties.get_mut(name))) {
            field_transform.transform(field);
        }
    }
}

/// Makes fields required in the schema although the types parse objects without them.
pub(crate) fn required<const N: usize>(names: [&'static str; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        let required_fields = schema.ensure_object().entry("required").or_insert_with(|| json!([]));
        if let Some(required_fields) = required_fields.as_array_mut() {
            required_fields.extend(names.iter().map(|name| json!(name)));
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

/// Removes the format of an integer, such as `int32`, which the derive macro always sets. The CRDs of the Gateway API
/// have a format for fixed-width Go types only.
pub(crate) fn without_format(schema: &mut Schema) {
    schema.remove("format");
}

/// Marks a field that exists only in the experimental channel.
pub(crate) fn experimental(schema: &mut Schema) {
    schema.insert(EXPERIMENTAL_ONLY.to_owned(), json!(true));
}

/// Adds keywords that apply only in the experimental channel.
pub(crate) fn in_experimental(keywords: Value) -> impl FnMut(&mut Schema) {
    move |schema| {
        let marked = schema.ensure_object().entry(IN_EXPERIMENTAL).or_insert_with(|| json!({}));
        if let (Some(marked), Some(keywords)) = (marked.as_object_mut(), keywords.as_object()) {
            marked.extend(keywords.clone());
        }
    }
}

/// The keywords of a schema.
pub(crate) fn keywords(schema: &mut Schema) -> &mut Map<String, Value> {
    schema.ensure_object()
}

fn subschema(value: Option<&mut Value>) -> Option<&mut Schema> {
    value.and_then(|value| value.try_into().ok())
}
