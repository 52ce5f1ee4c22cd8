//! The operations on headers.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::entry::ConfigReader;
use super::operations::{ActiveOperations, ResponseEditConfig};
use crate::plugin_api::changed_fields::FieldNames;

/// The operations, with parsed names and values.
#[derive(Debug, Default)]
pub(super) struct ResponseHeaderEdits {
    remove: Vec<(HeaderName, Option<HeaderValue>)>,
    rename: Vec<(HeaderName, HeaderName)>,
    replace: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    append: Vec<(HeaderName, HeaderValue)>,
}

impl ResponseHeaderEdits {
    pub(super) fn build(config: &ResponseEditConfig, reader: &mut ConfigReader<'_>) -> Self {
        let mut edits = ResponseHeaderEdits::default();
        for (index, entry) in config.remove.headers.iter().enumerate() {
            let path = format!("remove.headers[{index}]");
            edits.remove.extend(read_removal(reader, &path, entry));
        }
        for (index, entry) in config.rename.headers.iter().enumerate() {
            let path = format!("rename.headers[{index}]");
            edits.rename.extend(read_renaming(reader, &path, entry));
        }
        edits.replace = read_values(reader, "replace", &config.replace.headers);
        edits.add = read_values(reader, "add", &config.add.headers);
        edits.append = read_values(reader, "append", &config.append.headers);
        edits
    }

    /// Adds the names of all headers that the operations may change.
    pub(super) fn declare(&self, names: &mut FieldNames) {
        let ResponseHeaderEdits { remove, rename, replace, add, append } = self;
        names.add_all(remove.iter().map(|(name, _)| name));
        names.add_all(rename.iter().flat_map(|(old, new)| [old, new]));
        names.add_all([replace, add, append].into_iter().flatten().map(|(name, _)| name));
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap, active: ActiveOperations) {
        for (name, value) in active.remove.then_some(&self.remove).into_iter().flatten() {
            match value {
                None => {
                    headers.remove(name);
                }
                Some(value) => remove_value(headers, name, value),
            }
        }
        for (old, new) in active.rename.then_some(&self.rename).into_iter().flatten() {
            let values: Vec<HeaderValue> = headers.get_all(old).iter().cloned().collect();
            if values.is_empty() {
                continue;
            }
            headers.remove(old);
            headers.remove(new);
            for value in values {
                headers.append(new, value);
            }
        }
        for (name, value) in active.replace.then_some(&self.replace).into_iter().flatten() {
            if headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in active.add.then_some(&self.add).into_iter().flatten() {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        for (name, value) in active.append.then_some(&self.append).into_iter().flatten() {
            headers.append(name, value.clone());
        }
    }
}

fn read_removal(reader: &mut ConfigReader<'_>, path: &str, entry: &str) -> Option<(HeaderName, Option<HeaderValue>)> {
    let (name, value) = reader.name_and_value(path, entry, "the name of a header, or name:value")?;
    let name = reader.header_name(path, name)?;
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else { return Some((name, None)) };
    let value = reader.header_value(path, value)?;
    let message = format!("removes only this value of {name}, where Kong removes the whole header");
    reader.note(path, message, "write only the name to remove all values");
    Some((name, Some(value)))
}

fn read_renaming(reader: &mut ConfigReader<'_>, path: &str, entry: &str) -> Option<(HeaderName, HeaderName)> {
    let (old, new) = reader.pair(path, entry, "old:new")?;
    let old = reader.header_name(path, old);
    if new.trim().is_empty() {
        reader.note(path, "has no effect without a new name", "write old:new, or remove the entry");
        return None;
    }
    let new = reader.settable_header_name(path, new);
    old.zip(new)
}

fn read_values(reader: &mut ConfigReader<'_>, operation: &str, entries: &[String]) -> Vec<(HeaderName, HeaderValue)> {
    let mut values = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let path = format!("{operation}.headers[{index}]");
        let Some((name, value)) = reader.pair(&path, entry, "name:value") else { continue };
        let name = reader.settable_header_name(&path, name);
        if value.trim().is_empty() {
            reader.note(&path, "has no effect without a value", "write name:value, or remove the entry");
            continue;
        }
        let value = reader.header_value(&path, value);
        values.extend(name.zip(value));
    }
    values
}

/// Removes the lines with this value, and the value from comma-separated lists.
fn remove_value(headers: &mut HeaderMap, name: &HeaderName, unwanted: &HeaderValue) {
    let unwanted = unwanted.as_bytes();
    let values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    let kept = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        if bytes.trim_ascii() == unwanted {
            return None;
        }
        // Commas in a cookie do not separate members of a list.
        if *name == SET_COOKIE || !bytes.contains(&b',') {
            return Some(value.clone());
        }
        let members = || bytes.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        if !members().any(|member| member == unwanted) {
            return Some(value.clone());
        }
        let rest: Vec<&[u8]> = members().filter(|member| *member != unwanted).collect();
        if rest.is_empty() {
            return None;
        }
        HeaderValue::from_bytes(&rest.join(&b", "[..])).ok()
    };
    let kept: Vec<HeaderValue> = values.iter().filter_map(kept).collect();
    if kept != values {
        headers.remove(name);
        for value in kept {
            headers.append(name, value);
        }
    }
}
