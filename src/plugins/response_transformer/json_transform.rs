//! The operations on the fields of a JSON object.
//!
//! The text of values is never parsed: each field is a slice of the body, so all digits of numbers and the inside of
//! nested values stay as the endpoint sent them.

use std::borrow::Cow;

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::value::{RawValue, to_raw_value};

use super::entry::ConfigReader;
use super::{Config, JsonType, ValuesConfig};

/// The operations, with values as JSON.
#[derive(Debug, Default)]
pub(super) struct JsonTransform {
    remove: Vec<String>,
    rename: Vec<(String, String)>,
    replace: Vec<(String, Box<RawValue>)>,
    add: Vec<(String, Box<RawValue>)>,
    append: Vec<(String, Box<RawValue>)>,
}

type JsonFields<'a> = IndexMap<Cow<'a, str>, Cow<'a, RawValue>>;

impl JsonTransform {
    pub(super) fn build(config: &Config, reader: &mut ConfigReader<'_>) -> Self {
        let mut transform = JsonTransform::default();
        for (index, entry) in config.remove.json.iter().enumerate() {
            let path = format!("remove.json[{index}]");
            let name = reader.name_and_value(&path, entry, "the name of a field");
            transform.remove.extend(name.map(|(name, _)| name.to_owned()));
        }
        for (index, entry) in config.rename.json.iter().enumerate() {
            let path = format!("rename.json[{index}]");
            match reader.pair(&path, entry, "old:new") {
                Some((_, "")) => {
                    reader.note(&path, "has no effect without a new name", "write old:new, or remove the entry");
                }
                Some((old, new)) => transform.rename.push((old.to_owned(), new.to_owned())),
                None => {}
            }
        }
        transform.replace = read_values(reader, "replace", &config.replace);
        transform.add = read_values(reader, "add", &config.add);
        transform.append = read_values(reader, "append", &config.append);
        transform
    }

    /// Whether there is no operation.
    pub(super) fn is_empty(&self) -> bool {
        let JsonTransform { remove, rename, replace, add, append } = self;
        remove.is_empty() && rename.is_empty() && replace.is_empty() && add.is_empty() && append.is_empty()
    }

    /// The new body. `None` if the body is not a JSON object, or no operation changes it.
    pub(super) fn apply(&self, body: &[u8]) -> Option<Bytes> {
        let fields: IndexMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body).ok()?;
        let mut fields: JsonFields<'_> = fields.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect();
        let mut changed = false;
        for name in &self.remove {
            changed |= fields.shift_remove(name.as_str()).is_some();
        }
        for (old, new) in &self.rename {
            changed |= rename(&mut fields, old, new);
        }
        for (name, value) in &self.replace {
            if let Some(existing) = fields.get_mut(name.as_str()) {
                *existing = Cow::Borrowed(value);
                changed = true;
            }
        }
        for (name, value) in &self.add {
            if !fields.contains_key(name.as_str()) {
                fields.insert(Cow::Borrowed(name), Cow::Borrowed(value));
                changed = true;
            }
        }
        for (name, value) in &self.append {
            let list = RawValue::from_string(append(fields.get(name.as_str()), value.get())).ok()?;
            fields.insert(Cow::Borrowed(name), Cow::Owned(list));
            changed = true;
        }
        if changed { serde_json::to_vec(&fields).ok().map(Bytes::from) } else { None }
    }
}

/// Renames a field, which keeps its position. Returns whether it exists.
fn rename<'a>(fields: &mut JsonFields<'a>, old: &str, new: &'a str) -> bool {
    if old == new || !fields.contains_key(old) {
        return false;
    }
    fields.shift_remove(new);
    let Some(index) = fields.get_index_of(old) else { return false };
    fields.replace_index(index, Cow::Borrowed(new)).is_ok()
}

/// The text of a list of the existing value and the new one. An existing list gets one more element.
fn append(existing: Option<&Cow<'_, RawValue>>, value: &str) -> String {
    let Some(existing) = existing.map(|existing| existing.get()) else { return format!("[{value}]") };
    match existing.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::trim) {
        Some("") => format!("[{value}]"),
        Some(elements) => format!("[{elements},{value}]"),
        None => format!("[{existing},{value}]"),
    }
}

fn read_values(reader: &mut ConfigReader<'_>, operation: &str, config: &ValuesConfig) -> Vec<(String, Box<RawValue>)> {
    let mut values = Vec::new();
    for (index, entry) in config.json.iter().enumerate() {
        let path = format!("{operation}.json[{index}]");
        let Some((name, value)) = reader.pair(&path, entry, "name:value") else { continue };
        let value = read_value(reader, &path, value, config.json_types.get(index).copied());
        values.extend(value.map(|value| (name.to_owned(), value)));
    }
    if config.json_types.len() > config.json.len() {
        let message = format!("has {} types for {} entries of `json`", config.json_types.len(), config.json.len());
        reader.note(&format!("{operation}.json_types"), message, "list one type for each entry");
    }
    values
}

/// The value as JSON. An entry that Kong accepts and ignores gets a note.
fn read_value(
    reader: &ConfigReader<'_>,
    path: &str,
    value: &str,
    json_type: Option<JsonType>,
) -> Option<Box<RawValue>> {
    match json_type {
        None | Some(JsonType::String) => to_raw_value(value).ok(),
        Some(JsonType::Boolean) => {
            if value != "true" && value != "false" {
                reader.note(
                    path,
                    "the value is neither true nor false, so the field becomes false",
                    "write one of them",
                );
            }
            to_raw_value(&(value == "true")).ok()
        }
        Some(JsonType::Number) => {
            let number = read_number(value.trim());
            if number.is_none() {
                reader.note(path, "the value is not a number, so the entry has no effect", "write a number");
            }
            number
        }
    }
}

/// A number as JSON, with the digits as written if JSON allows their form.
fn read_number(text: &str) -> Option<Box<RawValue>> {
    if serde_json::from_str::<serde_json::Number>(text).is_ok() {
        return RawValue::from_string(text.to_owned()).ok();
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
    to_raw_value(&number).ok()
}
