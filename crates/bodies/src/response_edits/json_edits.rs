//! The operations on the fields of a JSON body.
//!
//! The text of values is never parsed: all digits of numbers and the inside of nested values stay as the endpoint sent
//! them.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::entry::ConfigReader;
use super::operations::{ActiveOperations, EditOperation, ResponseEditConfig};
use crate::json_fields::{JsonFields, JsonPath, JsonType};

/// The operations, with values as JSON.
#[derive(Debug, Default)]
pub(super) struct JsonEdits {
    remove: Vec<JsonPath>,
    rename: Vec<(JsonPath, String)>,
    replace: Vec<(JsonPath, Box<RawValue>)>,
    add: Vec<(JsonPath, Box<RawValue>)>,
    append: Vec<(JsonPath, Box<RawValue>)>,
    /// The only fields that the client gets, if not all.
    allowed: Option<Vec<JsonPath>>,
    /// Whether names lead into nested values, so that the outermost one may be a list.
    has_paths: bool,
}

impl JsonEdits {
    pub(super) fn build(config: &ResponseEditConfig, reader: &mut ConfigReader<'_>) -> Self {
        let has_paths = config.has_paths;
        let mut edits = JsonEdits { has_paths, ..JsonEdits::default() };
        for (index, entry) in config.remove.json.iter().enumerate() {
            let path = format!("remove.json[{index}]");
            let name = reader.name_and_value(&path, entry, "the name of a field");
            edits.remove.extend(name.and_then(|(name, _)| reader.json_path(&path, name, has_paths)));
        }
        for (index, entry) in config.rename.json.iter().enumerate() {
            let path = format!("rename.json[{index}]");
            match reader.pair(&path, entry, "old:new") {
                Some((_, "")) => {
                    reader.note(&path, "has no effect without a new name", "write old:new, or remove the entry");
                }
                Some((old, new)) => {
                    let old = reader.json_path(&path, old, has_paths);
                    edits.rename.extend(old.map(|old| (old, new.to_owned())));
                }
                None => {}
            }
        }
        edits.replace = read_values(reader, "replace", &config.replace, has_paths);
        edits.add = read_values(reader, "add", &config.add, has_paths);
        edits.append = read_values(reader, "append", &config.append, has_paths);
        edits.allowed = config.allowed_json.as_ref().map(|names| {
            let paths = names.iter().enumerate().filter_map(|(index, name)| {
                let path = format!("allow.json[{index}]");
                reader.name_and_value(&path, name, "the name of a field")?;
                reader.json_path(&path, name, has_paths)
            });
            paths.collect()
        });
        edits
    }

    /// Whether there is no operation among the active ones.
    pub(super) fn is_empty(&self, active: ActiveOperations) -> bool {
        let JsonEdits { remove, rename, replace, add, append, allowed, has_paths: _ } = self;
        (remove.is_empty() || !active.remove)
            && (rename.is_empty() || !active.rename)
            && (replace.is_empty() || !active.replace)
            && (add.is_empty() || !active.add)
            && (append.is_empty() || !active.append)
            && allowed.is_none()
    }

    /// The new body. `None` if the body is not a JSON object, or no operation changes it.
    pub(super) fn apply(&self, body: &[u8], active: ActiveOperations) -> Option<Bytes> {
        let mut fields = if self.has_paths { JsonFields::parse(body) } else { JsonFields::parse_object(body) }?;
        let mut changed = false;
        if active.remove {
            for path in &self.remove {
                changed |= fields.remove(path);
            }
        }
        if active.rename {
            for (path, new_name) in &self.rename {
                changed |= fields.rename(path, new_name);
            }
        }
        if active.replace {
            for (path, value) in &self.replace {
                changed |= fields.replace(path, &Cow::Borrowed(value));
            }
        }
        if active.add {
            for (path, value) in &self.add {
                changed |= fields.add(path, &Cow::Borrowed(value));
            }
        }
        if active.append {
            for (path, value) in &self.append {
                changed |= fields.append(path, &Cow::Borrowed(value), false);
            }
        }
        if let Some(allowed) = &self.allowed {
            let paths: Vec<&JsonPath> = allowed.iter().collect();
            changed |= fields.retain(&paths);
        }
        (changed && !fields.is_exhausted()).then(|| fields.encode().into())
    }
}

fn read_values(
    reader: &mut ConfigReader<'_>,
    operation: &str,
    config: &EditOperation,
    has_paths: bool,
) -> Vec<(JsonPath, Box<RawValue>)> {
    let mut values = Vec::new();
    for (index, entry) in config.json.iter().enumerate() {
        let path = format!("{operation}.json[{index}]");
        let Some((name, value)) = reader.pair(&path, entry, "name:value") else { continue };
        let name = reader.json_path(&path, name, has_paths);
        let value = read_value(reader, &path, value, config.json_types.get(index).copied().unwrap_or_default());
        values.extend(name.zip(value));
    }
    if config.json_types.len() > config.json.len() {
        let message = format!("has {} types for {} entries of `json`", config.json_types.len(), config.json.len());
        reader.note(&format!("{operation}.json_types"), message, "list one type for each entry");
    }
    values
}

/// The value as JSON. An entry that Kong accepts and ignores gets a note.
fn read_value(reader: &ConfigReader<'_>, path: &str, value: &str, json_type: JsonType) -> Option<Box<RawValue>> {
    let json = json_type.value(value);
    match json_type {
        JsonType::Boolean if value != "true" && value != "false" => {
            let message = "the value is neither true nor false, so the field becomes false";
            reader.note(path, message, "write one of them");
        }
        JsonType::Number if json.is_none() => {
            reader.note(path, "the value is not a number, so the entry has no effect", "write a number");
        }
        _ => {}
    }
    json
}
